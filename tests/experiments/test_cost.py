"""What a step costs, counted in operations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from napari_em_da.config import TrainConfig
from napari_em_da.experiments.cost import operations
from napari_em_da.methods import METHODS


def config(method: str, **options: Any) -> TrainConfig:
    return TrainConfig(
        run=Path("run"),
        source=({"image": "a.tif", "labels": "b.tif"},),
        target=({"image": "c.tif"},),
        classes={"mito": (1,)},
        network={"options": {"features": 8, "levels": 2}},
        method={"name": method, "options": options},
        sampling={"patch_px": (1, 32, 32), "batch": 4},
        training={"steps": 8, "device": "cpu", "precision": "fp32"},
    )


def convolutions(features: int = 8) -> tuple[float, float]:
    """Multiplications per pixel of a forward pass with two pools: of the encoder, and of decoder and head."""
    f = features
    encoder = 9 * (f + f * f + (2 * f * f + 4 * f * f) / 4 + (8 * f * f + 16 * f * f) / 16)
    ups = (4 * f * 2 * f) / 4 + 2 * f * f  # kernel = stride: one multiplication per input channel
    decoder = ups + 9 * ((8 * f * f + 4 * f * f) / 4 + 2 * f * f + f * f) + 2 * f
    return encoder, decoder


@pytest.mark.parametrize(
    ("method", "options", "target"),
    [
        ("supervised", {}, (0, 0)),
        ("fda", {}, (1, 1)),  # one pass without gradients
        ("entropy", {}, (3, 3)),
        ("coral", {"windows": 0.5}, (1.5, 0.25)),  # half the windows; the decoder in every other step
        ("coral", {"windows": 1.0}, (3, 0.5)),
        ("mean_teacher", {}, (4, 4)),
        ("mean_teacher", {"windows": 0.5}, (2, 2)),
    ],
)
def test_operations_are_those_of_the_passes(method: str, options: dict[str, Any], target: tuple[float, float]) -> None:
    """A pass and its gradients are three passes, but that nothing asks for the gradient of the image."""
    encoder, decoder = convolutions()
    first = 9 * 8
    step = 3 * (encoder + decoder) - first
    lacking = first * target[0] / 3 if target[0] not in (0, 1) else 0
    extra = target[0] * encoder + target[1] * decoder - lacking
    assert operations(config(method, **options)) == pytest.approx(1 + extra / step, rel=0.02)


@pytest.mark.parametrize("method", [name for name in METHODS.names() if name != "supervised"])
def test_no_step_takes_more_than_two_and_a_half_of_a_supervised_one(method: str) -> None:
    """With the narrower of the presets' networks, for which what a method adds weighs most."""
    usual = config(method)
    network = usual.network.model_copy(update={"options": {"features": 16}})
    sampling = usual.sampling.model_copy(update={"patch_px": (1, 64, 64), "batch": 8})
    bound = 1.3 if method in ("coral", "mmd") else 2.5
    assert operations(usual.model_copy(update={"network": network, "sampling": sampling})) < bound
