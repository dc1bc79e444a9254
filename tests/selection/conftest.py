"""A source, and predictions on a target of the same tissue from good to collapsed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from scipy import ndimage

from napari_em_da.selection._base import Evidence, Reference

SIZE = 64


def objects(seed: int) -> np.ndarray:
    """Return smooth blobs (N, Y, X)."""
    noise = np.random.default_rng(seed).standard_normal((8, SIZE, SIZE))
    return ndimage.gaussian_filter(noise, (0, 5, 5)) > 0.05


def membranes(seed: int) -> np.ndarray:
    """Return the borders of a random partition (N, Y, X)."""
    seeds = np.random.default_rng(seed).integers(0, SIZE, (8, 20, 2))[:, :, :, None, None]
    y, x = np.mgrid[:SIZE, :SIZE]
    distance = np.sort(np.hypot(y - seeds[:, :, 0], x - seeds[:, :, 1]), axis=1)
    return np.asarray(distance[:, 1] - distance[:, 0] < 2.5)


def probabilities(masks: np.ndarray, noise: float, seed: int = 0) -> np.ndarray:
    """Return (N, 2, Y, X) around the masks, the noisier the worse."""
    logits = 8.0 * masks - 4 + 4 * noise * np.random.default_rng(seed).standard_normal(masks.shape)
    foreground = 1 / (1 + np.exp(-logits))
    return np.stack([1 - foreground, foreground], 1).astype(np.float32)


@dataclass(frozen=True)
class Tissue:
    """One kind of structure: the source's reference, and how the target would be predicted."""

    reference: Reference
    make: Callable[[int], np.ndarray]

    def judged(self, noise: float = 0.2) -> Evidence:
        """Return the evidence about a candidate whose logits are ``noise`` away from the truth."""
        return self.of(self.make(2), noise)

    def of(self, masks: np.ndarray, noise: float = 0.2) -> Evidence:
        """Return the evidence about a candidate that predicts these masks."""
        probs, twins = (probabilities(masks, noise, seed) for seed in (1, 2))
        return Evidence(probs, twins, self.reference, probabilities(self.make(2), 0.2))


def tissue_of(make: Callable[[int], np.ndarray]) -> Tissue:
    return Tissue(Reference.from_labels(make(1).astype(np.uint8), ["mito"], (SIZE, SIZE)), make)


@pytest.fixture(params=[objects, membranes], ids=["objects", "membranes"])
def tissue(request: pytest.FixtureRequest) -> Tissue:
    return tissue_of(request.param)


@pytest.fixture
def blobs() -> Tissue:
    return tissue_of(objects)


@pytest.fixture
def nets() -> Tissue:
    return tissue_of(membranes)
