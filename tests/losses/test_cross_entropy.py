"""Weighted cross-entropy against hand-computed and brute-force values."""

from __future__ import annotations

import math

import pytest
import torch

from napari_em_da.losses._base import IGNORE
from napari_em_da.losses.cross_entropy import Reduction, cross_entropy

PROBS = (0.2, 0.5, 0.9)


def case() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits (1, 2, 1, 3) of given class-1 probabilities, labels 0, 1, 1 and weights 1, 2, 4."""
    logits = torch.tensor([[0.0, math.log(p / (1 - p))] for p in PROBS]).T.reshape(1, 2, 1, 3)
    return logits, torch.tensor([[[0, 1, 1]]]), torch.tensor([[[1.0, 2.0, 4.0]]])


@pytest.mark.parametrize(
    ("reduction", "expected"), [("mean_valid", 0.676960), ("weight_mean", 0.290126), ("sum", 3 * 0.676960)]
)
def test_hand_computed(reduction: Reduction, expected: float) -> None:
    assert float(cross_entropy(*case(), reduction)) == pytest.approx(expected, abs=2e-6)


def test_unweighted() -> None:
    logits, labels, _ = case()
    for reduction in ("mean_valid", "weight_mean"):
        assert float(cross_entropy(logits, labels, None, reduction)) == pytest.approx(0.340550, abs=1e-6)


@pytest.mark.parametrize("reduction", ["mean_valid", "weight_mean", "sum"])
@pytest.mark.parametrize("shape", [(5, 6), (3, 4, 5)])
def test_against_a_loop_with_ignored_voxels(reduction: Reduction, shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn((2, 3, *shape), generator=generator, dtype=torch.float32, requires_grad=True)
    labels = torch.randint(0, 3, (2, *shape), generator=generator)
    labels[torch.rand(labels.shape, generator=generator) < 0.3] = IGNORE
    weights = torch.rand(labels.shape, generator=generator) * 3

    rows, truth, w = logits.movedim(1, -1).reshape(-1, 3), labels.flatten().tolist(), weights.flatten()
    naive, count, mass = torch.zeros(()), 0, torch.zeros(())
    for row, y, weight in zip(rows, truth, w, strict=True):
        if y != IGNORE:
            naive = naive - weight * torch.log(row.exp()[y] / row.exp().sum())
            count, mass = count + 1, mass + weight
    naive = naive / {"mean_valid": count, "weight_mean": mass, "sum": 1}[reduction]

    ours = cross_entropy(logits, labels, weights, reduction)
    torch.testing.assert_close(ours, naive)
    torch.testing.assert_close(*(torch.autograd.grad(loss, logits)[0] for loss in (ours, naive)))


@pytest.mark.parametrize("reduction", ["mean_valid", "weight_mean", "sum"])
def test_nothing_to_learn_from_gives_zero_gradient(reduction: Reduction) -> None:
    logits = torch.randn((2, 3, 4, 4), generator=torch.Generator().manual_seed(0), requires_grad=True)
    loss = cross_entropy(logits, torch.full((2, 4, 4), IGNORE), torch.ones(2, 4, 4), reduction)
    loss.backward()
    assert float(loss.detach()) == 0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_weights_of_zero_are_harmless() -> None:
    logits, labels, _ = case()
    logits.requires_grad_()
    loss = cross_entropy(logits, labels, torch.zeros(1, 1, 3), "weight_mean")
    loss.backward()
    assert float(loss.detach()) == 0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_scale_of_the_weights_cancels_only_in_the_weighted_mean() -> None:
    logits, labels, weights = case()
    for reduction, factor in (("mean_valid", 10), ("weight_mean", 1), ("sum", 10)):
        scaled = cross_entropy(logits, labels, 10 * weights, reduction)  # type: ignore[arg-type]
        torch.testing.assert_close(scaled, factor * cross_entropy(logits, labels, weights, reduction))  # type: ignore[arg-type]


def test_confident_mistakes_stay_finite_and_float32_under_autocast() -> None:
    logits = torch.tensor([[-200.0, 200.0]]).reshape(1, 2, 1, 1).to(torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = cross_entropy(logits, torch.zeros(1, 1, 1, dtype=torch.uint8))
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(400)
