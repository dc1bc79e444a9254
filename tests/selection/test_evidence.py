"""Predicting the fixed windows and their twins."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from napari_em_da.errors import DataError
from napari_em_da.events import Progress
from napari_em_da.selection import scores
from napari_em_da.selection._base import Reference
from napari_em_da.selection.evidence import collect, collecting

REFERENCE = Reference.from_labels(np.eye(16, dtype=np.uint8)[None], ["mito"], (16, 16))


def bright(image: Tensor) -> Tensor:
    """Logits of a network that calls what is bright foreground; it commutes with turning."""
    return torch.cat([-4 * image, 4 * image], 1)


def sloped(image: Tensor) -> Tensor:
    """Logits of a network that looks only at where a pixel lies."""
    slope = torch.linspace(-4, 4, image.shape[-1]).expand_as(image)
    return torch.cat([-slope, slope], 1)


def windows(*shape: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(b, 1, *shape, generator=generator) * 2 for b in (3, 2)]


@pytest.mark.parametrize("shape", [(16, 16), (8, 16), (3, 16, 16)])
def test_probabilities_are_those_of_the_network(shape: tuple[int, ...]) -> None:
    batches = windows(*shape)
    evidence = collect(bright, batches, REFERENCE)
    expected = torch.cat([torch.sigmoid(8 * b).reshape(-1, *shape[-2:]) for b in batches])
    np.testing.assert_allclose(evidence.probs[:, 1], expected, atol=1e-6)
    assert evidence.twins is not None and evidence.twins.shape == evidence.probs.shape


@pytest.mark.parametrize("shape", [(16, 16), (8, 16), (3, 16, 16)])
def test_twins_lie_on_their_windows(shape: tuple[int, ...]) -> None:
    """A network that sees brightness agrees with its twin up to the jitter, one that sees places does not."""
    good, placed = (collect(network, windows(*shape), REFERENCE) for network in (bright, sloped))
    assert scores(good, ["consistency"])["consistency"] > 0.8
    assert scores(placed, ["consistency"])["consistency"] < 0.7
    assert not np.array_equal(good.probs, good.twins)


def test_the_same_seed_gives_the_same_twins() -> None:
    one, same, other = (collect(bright, windows(16, 16), REFERENCE, seed=s).twins for s in (0, 0, 1))
    assert one is not None and same is not None and other is not None
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


def test_torchs_own_generator_is_left_alone() -> None:
    state = torch.random.get_rng_state()
    collect(bright, windows(16, 16), REFERENCE)
    assert torch.equal(state, torch.random.get_rng_state())


def test_without_twins_and_without_windows() -> None:
    first = collect(bright, windows(16, 16), REFERENCE, twins=False)
    assert first.twins is None
    again = collect(bright, windows(16, 16), REFERENCE, twins=False, before=first.probs)
    assert scores(again)["agreement"] == 1.0
    with pytest.raises(DataError, match="no target window"):
        collect(bright, [], REFERENCE)


def test_evidence_is_collected_in_steps_that_leave_torch_as_it_was() -> None:
    batches = windows(16, 16)
    here, done = Progress(1, 7, "shifts", "expected quality"), []
    steps = collecting(bright, batches, REFERENCE, here, seed=3)
    while True:
        try:
            done.append(next(steps))
        except StopIteration as end:
            evidence = end.value
            break
        assert not torch.is_inference_mode_enabled()
    assert done == [here, here]
    whole = collect(bright, batches, REFERENCE, seed=3)
    np.testing.assert_array_equal(evidence.probs, whole.probs)
    np.testing.assert_array_equal(evidence.twins, whole.twins)
