"""Pseudo-labels: what is accepted, what is learned from it, and what is not."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from napari_em_da.config import LossConfig, TrainingConfig
from napari_em_da.errors import ConfigError, DataError
from napari_em_da.losses import segmentation_loss
from napari_em_da.losses._base import IGNORE
from napari_em_da.methods import METHODS
from napari_em_da.methods._base import Method, Setup
from napari_em_da.methods.pseudo_labels import (
    LEVELS,
    PseudoLabelsOptions,
    accept,
    count_levels,
    squashed_margins,
    thresholds_of,
)
from napari_em_da.models import MODELS
from napari_em_da.models._statistics import norms
from napari_em_da.sampling import Sample
from napari_em_da.training.loop import make_optimiser, train_step

PRIOR = (0.8, 0.15, 0.05)


def probabilities(*shape: int, seed: int = 0, classes: int = 3) -> np.ndarray:
    """Return random probabilities that go on along z, as those of an image do."""
    rng = np.random.default_rng(seed)
    logits = 3 * rng.standard_normal((*shape, classes)) + 4 * rng.standard_normal((1, *shape[1:], classes))
    p = np.exp(logits - logits.max(-1, keepdims=True))
    return np.asarray(p / p.sum(-1, keepdims=True), np.float32)


# --- acceptance


@pytest.mark.parametrize("continuity", [True, False])
def test_fixed_confidence_voxel_by_voxel(continuity: bool) -> None:
    p = probabilities(6, 9, 10)
    result = accept(p, PseudoLabelsOptions(thresholds="fixed", tau=0.8), None, continuity=continuity)
    best = p.argmax(-1)
    for z, y, x in np.ndindex(best.shape):
        near = [best[n, y, x] for n in (z - 1, z + 1) if 0 <= n < len(best)]
        sure = p[z, y, x].max() >= np.float32(0.8) and (not continuity or best[z, y, x] in near)
        assert result[z, y, x] == (best[z, y, x] if sure else IGNORE)
    assert 0.1 < (result != IGNORE).mean() < 0.9


@pytest.mark.parametrize("continuity", [True, False])
def test_class_shares_voxel_by_voxel(continuity: bool) -> None:
    p = probabilities(6, 9, 10)
    levels = thresholds_of(count_levels(p), [0.6 * share for share in PRIOR])
    result = accept(p, PseudoLabelsOptions(), levels, continuity=continuity)
    logs = np.log(p.astype(np.float64))
    winner, above = np.zeros(p.shape[:3], int), np.zeros(p.shape[:3], bool)
    for at in np.ndindex(p.shape[:3]):
        leads = [logs[at][c] - max(np.delete(logs[at], c)) for c in range(3)]
        excess = [m / (4 + abs(m)) - (2 * level / LEVELS - 1) for m, level in zip(leads, levels, strict=True)]
        winner[at], above[at] = int(np.argmax(excess)), max(excess) >= 0
    for z, y, x in np.ndindex(winner.shape):
        near = [winner[n, y, x] for n in (z - 1, z + 1) if 0 <= n < len(winner)]
        sure = above[z, y, x] and (not continuity or winner[z, y, x] in near)
        assert result[z, y, x] == (winner[z, y, x] if sure else IGNORE)
    assert set(np.unique(result)) == {0, 1, 2, IGNORE}


def test_each_class_takes_its_most_certain_share_of_all_volumes_together() -> None:
    parts = [probabilities(8, 32, 32, seed=seed) for seed in (1, 2)]
    shares = [0.6 * share for share in PRIOR]
    levels = thresholds_of(count_levels(parts[0]) + count_levels(parts[1]), shares)
    margins = np.concatenate([squashed_margins(part).reshape(-1, 3) for part in parts])
    for c, (level, share) in enumerate(zip(levels, shares, strict=True)):
        exact = np.sort(margins[:, c])[-round(share * len(margins))]
        assert 2 * level / LEVELS - 1 == pytest.approx(exact, abs=2 / LEVELS)
    taken = np.concatenate([accept(part, PseudoLabelsOptions(), levels, continuity=False).ravel() for part in parts])
    for c, share in enumerate(shares):
        assert (taken == c).mean() == pytest.approx(share, abs=0.01)


def test_a_class_that_never_wins_still_takes_where_it_comes_second() -> None:
    foreground = np.random.default_rng(3).uniform(0.001, 0.4, (4, 32, 32))
    p = np.stack([1 - foreground, foreground], -1).astype(np.float32)
    levels = thresholds_of(count_levels(p), [0.54, 0.06])
    result = accept(p, PseudoLabelsOptions(), levels, continuity=False)
    most = np.sort(p[..., 1].ravel())[-round(0.06 * result.size)]
    assert p[..., 1][result == 1].min() == pytest.approx(most, rel=0.01)
    assert (result == 1).mean() == pytest.approx(0.06, abs=0.002)
    fixed = accept(p, PseudoLabelsOptions(thresholds="fixed"), None, continuity=False)
    assert set(np.unique(fixed)) == {0, IGNORE}


def test_margins_survive_where_probabilities_are_rounded_to_1() -> None:
    small = np.float32([1e-9, 1e-12, 1e-20])
    p = np.stack([np.ones(3, np.float32), small], -1)
    assert (p.sum(-1) == 1).all()
    expected = -np.log(small.astype(float))
    np.testing.assert_allclose(squashed_margins(p)[:, 0], expected / (4 + expected), rtol=1e-5)
    np.testing.assert_allclose(squashed_margins(p)[:, 1], -expected / (4 + expected), rtol=1e-5)


def test_the_share_is_met_as_nearly_as_ties_allow() -> None:
    counts = np.zeros((2, LEVELS), int)
    counts[0, 100], counts[0, 900] = 40, 60  # 54 % wanted: 60 is nearer than none
    counts[1, 50] = 100  # 6 % wanted: none is nearer than all
    assert thresholds_of(counts, [0.54, 0.06]) == [900, LEVELS]
    flat = np.full((1, 4, 4, 2), 0.5, np.float32)
    assert (accept(flat, PseudoLabelsOptions(), [LEVELS, LEVELS], continuity=False) == IGNORE).all()


# --- the loss


def setup(kind: str = "unet") -> Setup:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = MODELS[kind].create(1, 2, {"features": 4, "levels": 2})
    return Setup(network, segmentation_loss(LossConfig()), (32, 32), 10, 1e-3, (0.9, 0.1))


def make(name: str = "pseudo_labels", kind: str = "unet", **options: Any) -> Any:
    return METHODS[name].create(setup(kind), options)


def batch(*shape: int, accepted: float = 0.5) -> dict[str, Sample]:
    g = torch.Generator().manual_seed(1)
    shape = shape or (32, 32)
    image, other = torch.randn(2, 2, 1, *shape, generator=g)
    labels, pseudo = torch.randint(0, 2, (2, 2, *shape), generator=g)
    pseudo[torch.rand(pseudo.shape, generator=g) >= accepted] = IGNORE
    return {"source": Sample(image, labels), "target": Sample(other + 1, pseudo)}


def train(method: Method, steps: range, state: dict[str, Any] | None = None, **of_batch: float) -> dict[str, Any]:
    """Train through the loop's own step; return the optimisers' states."""
    config = TrainingConfig(steps=10)
    players = method.players()
    optimisers = {name: make_optimiser(player, config) for name, player in players.items()}
    for name, saved in (state or {}).items():
        optimisers[name].load_state_dict(saved)
    for step in steps:
        train_step(method, players, optimisers, batch(**of_batch), step, config, torch.device("cpu"), None)
    return {name: copy.deepcopy(optimiser.state_dict()) for name, optimiser in optimisers.items()}


def same(a: nn.Module, b: nn.Module) -> bool:
    mine, other = a.state_dict(), b.state_dict()
    return mine.keys() == other.keys() and all(torch.equal(mine[k], other[k]) for k in mine)


def test_only_accepted_pixels_give_a_gradient() -> None:
    method, data = make(), batch()
    seen = []
    original = method.network.forward_taps

    def forward_taps(image: torch.Tensor) -> Any:
        logits, taps = original(image)
        if torch.is_grad_enabled():
            logits.retain_grad()
            seen.append((image, logits))
        return logits, taps

    method.network.forward_taps = forward_taps
    method.train()
    losses = dict(method.step(data, 9))["network"]
    losses["pseudo_labels"].value.backward()
    image, logits = seen[-1]
    assert not torch.equal(image, data["target"].image)  # perturbed
    labels = data["target"].labels
    assert labels is not None
    known = labels != IGNORE
    gradient = logits.grad.abs().sum(1)
    assert (gradient[known] > 0).all() and (gradient[~known] == 0).all()
    log_probs = logits.log_softmax(1)
    expected = torch.stack([-log_probs[b, labels[b, y, x], y, x] for b, y, x in known.nonzero()]).mean()
    torch.testing.assert_close(losses["pseudo_labels"].value, expected)
    assert losses["accepted"].value.item() == pytest.approx(known.float().mean().item())


def test_nothing_accepted_costs_exactly_0_and_moves_nothing() -> None:
    method, plain = make(), make("supervised")
    losses = dict(method.step(batch(accepted=0), 9))["network"]
    assert losses["pseudo_labels"].value.item() == 0.0
    method = make()
    train(method, range(3), accepted=0.0)
    train(plain, range(3))
    assert same(method.network, plain.network)
    alone = make(lambda_sup=0)
    before = copy.deepcopy(alone.network.state_dict())
    state = train(alone, range(2))  # the optimiser has momentum now, and weights that decay
    moved = copy.deepcopy(alone.network.state_dict())
    train(alone, range(2, 4), state, accepted=0.0)
    weights = [name for name, _ in alone.network.named_parameters()]
    assert all(torch.equal(moved[name], alone.network.state_dict()[name]) for name in weights)
    assert any(not torch.equal(moved[name], before[name]) for name in weights)


def test_weight_0_is_supervised_training() -> None:
    method, plain, usual = make(lambda_pseudo=0), make("supervised"), make()
    for each in (method, plain, usual):
        train(each, range(3))
    assert same(method.network, plain.network)
    assert not same(usual.network, plain.network)


def test_the_targets_statistics_are_those_of_clean_windows_and_the_sources_stay() -> None:
    method, plain = make(), make("supervised")
    reference = copy.deepcopy(method.network).train()
    with torch.no_grad():
        reference(batch()["target"].image)
    train(method, range(1))
    train(plain, range(1))
    for norm, twin in zip(norms(method.network), norms(plain.network), strict=True):
        assert torch.equal(norm.get_buffer("running_mean"), twin.get_buffer("running_mean"))
    with method.segmenting("target") as network:
        for norm, twin in zip(norms(network), norms(reference), strict=True):
            torch.testing.assert_close(norm.get_buffer("running_mean"), twin.get_buffer("running_mean"))


@pytest.mark.parametrize("options", [{"clean_statistics": False}, {"statistics": "shared"}])
def test_other_statistics_work_too(options: dict[str, Any]) -> None:
    method = make(**options)
    train(method, range(2))
    assert all(torch.isfinite(t).all() for t in method.state_dict().values())


def test_resume_is_bitwise() -> None:
    whole, half, resumed = make(), make(), make()
    train(whole, range(4))
    state = train(half, range(2))
    resumed.load_state_dict(copy.deepcopy(half.state_dict()))
    train(resumed, range(2, 4), state)
    assert same(resumed, whole)


def test_volumes_work_too() -> None:
    losses = dict(make(kind="unet3d").step(batch(8, 16, 16), 9))["network"]
    assert losses["pseudo_labels"].value.item() > 0


def test_an_unlabelled_target_is_refused() -> None:
    data = {**batch(), "target": Sample(batch()["target"].image)}
    with pytest.raises(DataError, match="without pseudo-labels"):
        list(make().step(data, 0))


def test_it_cannot_be_a_part_of_others() -> None:
    with pytest.raises(ConfigError, match=r"'pseudo_labels' cannot be combined; these can: .*mean_teacher"):
        make("combined", parts=[{"name": "pseudo_labels"}, {"name": "coral"}])
