"""Multi-loss and penalties of the 2D-3D network."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from napari_em_da.losses._base import Losses
from napari_em_da.losses.guay import LAMBDAS, multi_loss, penalties


def total(losses: Losses) -> torch.Tensor:
    return torch.stack([term.weight * term.value for term in losses.values()]).sum()


def case() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    solid, flat = (torch.randn((2, 3, 2, 4, 5), generator=generator) for _ in range(2))
    labels = torch.randint(0, 3, (2, 2, 4, 5), generator=generator)
    return solid, flat, labels, torch.rand(labels.shape, generator=generator) + 0.5


def entropy_sum(logits: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    log_probs = logits - logits.logsumexp(1, keepdim=True)
    return -(weights * log_probs.gather(1, labels[:, None])[:, 0]).sum()


def test_equation_one() -> None:
    solid, flat, labels, weights = case()
    expected = (entropy_sum(solid, labels, weights) + 0.33 * entropy_sum(flat, labels, weights)) / labels.numel()
    torch.testing.assert_close(total(multi_loss(solid, flat, labels, weights)), expected)


def test_ablations() -> None:
    solid, flat, labels, weights = case()
    assert list(multi_loss(solid, flat, labels, weights, c_2d=0)) == ["cross_entropy_3d"]
    only_2d = multi_loss(None, flat, labels, weights)
    assert list(only_2d) == ["cross_entropy_2d"]
    torch.testing.assert_close(total(only_2d), entropy_sum(flat, labels, weights) / labels.numel())


def test_release_sums_over_voxels() -> None:
    solid, flat, labels, weights = case()
    paper, release = (total(multi_loss(solid, flat, labels, weights, parity=p)) for p in ("paper", "release"))  # type: ignore[arg-type]
    torch.testing.assert_close(release, paper * labels.numel())


def test_penalties_include_biases_and_pull_twice_as_hard_as_weight_decay() -> None:
    layer = nn.Linear(2, 1)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 2.0]]))
        layer.bias.fill_(3.0)
    losses = penalties({"2d": layer.parameters()})
    assert float(losses["penalty_2d"].value.detach()) == pytest.approx(14)
    assert losses["penalty_2d"].weight == pytest.approx(1.995262e-5, rel=1e-6)
    total(losses).backward()
    assert layer.bias.grad is not None
    torch.testing.assert_close(layer.bias.grad, 2 * LAMBDAS["2d"] * layer.bias.detach())
    assert float(penalties({"2d": layer.parameters()}, parity="release")["penalty_2d"].value.detach()) == pytest.approx(
        7
    )


def test_published_lambdas_and_empty_groups() -> None:
    published = {"2d": 1.995262e-5, "3d": 1e-5, "predictors": 1e-9}
    assert dict(LAMBDAS) == pytest.approx(published, rel=1e-6)
    assert float(penalties({"3d": []})["penalty_3d"].value) == 0
