"""Overlap losses against hand-computed and brute-force values."""

from __future__ import annotations

import math

import pytest
import torch

from napari_em_da.errors import ConfigError
from napari_em_da.losses._base import IGNORE
from napari_em_da.losses.overlap import Overlap, overlap_loss

KINDS: tuple[Overlap, ...] = ("dice", "squared_dice", "jaccard")


def case() -> tuple[torch.Tensor, torch.Tensor]:
    logits = torch.tensor([[0.0, math.log(p / (1 - p))] for p in (0.2, 0.5, 0.9)]).T.reshape(1, 2, 1, 3)
    return logits, torch.tensor([[[0, 1, 1]]])


@pytest.mark.parametrize(
    ("kind", "smooth", "index"),
    [("dice", 0.0, 0.777778), ("dice", 1.0, 0.826087), ("squared_dice", 0.0, 0.903226), ("jaccard", None, 0.636364)],
)
def test_hand_computed(kind: Overlap, smooth: float | None, index: float) -> None:
    loss = overlap_loss(*case(), kind=kind, background=False, smooth=smooth)
    assert float(loss) == pytest.approx(1 - index, abs=1e-6)


def test_background_counts_in_the_squared_dice_only() -> None:
    logits, labels = case()
    for kind in KINDS:
        default, foreground, both = (
            float(overlap_loss(logits, labels, kind=kind, background=b)) for b in (None, False, True)
        )
        assert default == (both if kind == "squared_dice" else foreground)
        assert both != foreground


def naive(
    logits: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor, kind: Overlap, batch: bool, background: bool
) -> torch.Tensor:
    probs = logits.exp() / logits.exp().sum(1, keepdim=True)
    samples = [list(range(len(labels)))] if batch else [[b] for b in range(len(labels))]
    s = 1e-10 if kind == "jaccard" else 1.0
    scores = []
    for group in samples:
        keep = labels[group] != IGNORE
        w = weights[group][keep]
        for c in range(0 if background else 1, logits.shape[1]):
            q, t = probs[group][:, c][keep], (labels[group][keep] == c).float()
            qt, qs, ts = (w * q * t).sum(), (w * q).sum(), (w * t).sum()
            if kind == "squared_dice":
                qs = (w * q**2).sum()
            scores.append((qt + s) / (qs + ts - qt + s) if kind == "jaccard" else (2 * qt + s) / (qs + ts + s))
    return 1 - torch.stack(scores).mean()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch", [True, False])
@pytest.mark.parametrize("background", [True, False])
@pytest.mark.parametrize("shape", [(5, 6), (3, 4, 5)])
def test_against_brute_force(kind: Overlap, batch: bool, background: bool, shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn((3, 4, *shape), generator=generator, requires_grad=True)
    labels = torch.randint(0, 4, (3, *shape), generator=generator)
    labels[torch.rand(labels.shape, generator=generator) < 0.3] = IGNORE
    weights = torch.rand(labels.shape, generator=generator) * 3
    weights[0] *= torch.rand(shape, generator=generator) > 0.5
    ours = overlap_loss(logits, labels, weights, kind, batch=batch, background=background)
    expected = naive(logits, labels, weights, kind, batch, background)
    torch.testing.assert_close(ours, expected)
    torch.testing.assert_close(*(torch.autograd.grad(loss, logits)[0] for loss in (ours, expected)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch", [True, False])
def test_nothing_to_learn_from_gives_zero_gradient(kind: Overlap, batch: bool) -> None:
    logits = torch.randn((2, 3, 4, 4), generator=torch.Generator().manual_seed(0), requires_grad=True)
    loss = overlap_loss(logits, torch.full((2, 4, 4), IGNORE), torch.ones(2, 4, 4), kind, batch=batch)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(0, abs=1e-6)
    assert logits.grad is not None
    assert not logits.grad.any()


def test_absent_class_that_is_not_predicted_costs_nothing() -> None:
    logits = torch.tensor([60.0, -60.0]).reshape(1, 2, 1, 1).expand(1, 2, 4, 4)
    assert float(overlap_loss(logits, torch.zeros(1, 4, 4, dtype=torch.int64))) == pytest.approx(0, abs=1e-6)


def test_float32_under_autocast() -> None:
    logits, labels = case()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = overlap_loss(logits.bfloat16(), labels, kind="dice", smooth=0.0)
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(1 - 0.777778, abs=2e-3)


def test_one_class_is_refused() -> None:
    with pytest.raises(ConfigError, match="2 or more"):
        overlap_loss(torch.zeros(1, 1, 4, 4), torch.zeros(1, 4, 4, dtype=torch.int64))
