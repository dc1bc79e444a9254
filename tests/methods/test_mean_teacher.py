"""The mean teacher: averages, acceptance by class shares, ownership and resume."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from napari_em_da.config import LossConfig, TrainingConfig
from napari_em_da.losses import segmentation_loss
from napari_em_da.losses._base import IGNORE
from napari_em_da.methods import METHODS
from napari_em_da.methods._base import Method, Setup
from napari_em_da.methods._parts import Views
from napari_em_da.methods.mean_teacher import (
    MeanTeacher,
    MeanTeacherOptions,
    Thresholds,
    confident,
    follow,
    kept,
    margins,
    mean_over_accepted,
    quantiles,
)
from napari_em_da.models import MODELS
from napari_em_da.models._statistics import norms
from napari_em_da.sampling import Sample
from napari_em_da.training.loop import make_optimiser, train_step


def setup(prior: tuple[float, ...] = (0.9, 0.1), kind: str = "unet", classes: int = 2) -> Setup:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = MODELS[kind].create(1, classes, {"features": 4, "levels": 2})
    return Setup(network, segmentation_loss(LossConfig()), (32, 32), 10, 1e-3, prior)


def make(name: str = "mean_teacher", prior: tuple[float, ...] = (0.9, 0.1), kind: str = "unet", **options: Any) -> Any:
    return METHODS[name].create(setup(prior, kind), options)


def batch(*shape: int) -> dict[str, Sample]:
    g = torch.Generator().manual_seed(1)
    shape = shape or (32, 32)
    image, other = torch.randn(2, 2, 1, *shape, generator=g)
    return {"source": Sample(image, torch.randint(0, 2, (2, *shape), generator=g)), "target": Sample(other + 1)}


def train(
    method: Method, steps: range, state: dict[str, Any] | None = None, dtype: torch.dtype | None = None
) -> dict[str, Any]:
    """Train through the loop's own step; return the optimisers' states."""
    config = TrainingConfig(steps=10)
    players = method.players()
    optimisers = {name: make_optimiser(player, config) for name, player in players.items()}
    for name, saved in (state or {}).items():
        optimisers[name].load_state_dict(saved)
    for step in steps:
        train_step(method, players, optimisers, batch(), step, config, torch.device("cpu"), dtype)
    return {name: copy.deepcopy(optimiser.state_dict()) for name, optimiser in optimisers.items()}


def same(a: nn.Module, b: nn.Module) -> bool:
    mine, other = a.state_dict(), b.state_dict()
    return mine.keys() == other.keys() and all(torch.equal(mine[k], other[k]) for k in mine)


def teacher_of(method: Any) -> MeanTeacher:
    part = method.parts[0]
    assert isinstance(part, MeanTeacher)
    return part


# --- the average


def test_follow_is_the_exponential_average() -> None:
    teacher, student = nn.Linear(3, 2), nn.Linear(3, 2)
    for parameter in teacher.parameters():
        nn.init.zeros_(parameter)
    for parameter in student.parameters():
        nn.init.ones_(parameter)
    for step in range(1, 101):
        follow(teacher, student, 0.99)
        if step in (1, 10, 100):
            expected = {1: 0.01, 10: 0.095618, 100: 0.633968}[step]
            for parameter in teacher.parameters():
                assert parameter.flatten().tolist() == pytest.approx([expected] * parameter.numel(), abs=1e-6)


def test_warm_up_of_the_momentum() -> None:
    found = [kept(step, 0.9999) for step in (0, 1, 9, 999)]
    assert found == pytest.approx([0, 0.5, 0.9, 0.999])
    assert kept(10**6, 0.999) == 0.999


def test_after_the_first_step_the_teacher_is_the_network_with_the_targets_statistics() -> None:
    method = make()
    train(method, range(1))
    with method.adapted() as network:
        assert same(teacher_of(method).teacher, network)
    assert not same(teacher_of(method).teacher, method.network)  # the network holds the source's statistics


def test_later_the_teacher_lags_but_its_statistics_do_not() -> None:
    method = make()
    train(method, range(4))
    part = teacher_of(method)
    with method.adapted() as network:
        pairs = list(zip(norms(part.teacher), norms(network), strict=True))
        assert pairs and all(torch.equal(a.running_mean, b.running_mean) for a, b in pairs)
        assert any(not torch.equal(a, b) for a, b in zip(part.teacher.parameters(), network.parameters(), strict=True))


def test_the_targets_statistics_are_those_of_clean_windows() -> None:
    method = make()
    reference = copy.deepcopy(method.network).train()
    with torch.no_grad():
        reference(batch()["target"].image)
    train(method, range(1))
    with method.adapted() as network:
        for found, expected in zip(norms(network), norms(reference), strict=True):
            torch.testing.assert_close(found.running_mean, expected.running_mean)
            torch.testing.assert_close(found.running_var, expected.running_var)


@pytest.mark.parametrize("options", [{"clean_statistics": False}, {"statistics": "shared"}])
def test_otherwise_the_teacher_copies_those_of_the_network(options: dict[str, Any]) -> None:
    method, clean = make(**options), make()
    before = [norm.running_mean.clone() for norm in norms(teacher_of(method).teacher)]
    for each in (method, clean):
        train(each, range(3))
    with method.adapted() as network, clean.adapted() as other:
        for mine, theirs, rest, old in zip(
            norms(teacher_of(method).teacher), norms(network), norms(other), before, strict=True
        ):
            assert torch.equal(mine.running_mean, theirs.running_mean)
            assert not torch.equal(mine.running_mean, rest.running_mean)
            assert not torch.equal(mine.running_mean, old)


# --- acceptance


def logits_of(foreground: float, count: int = 40_000, noise: float = 1.0) -> torch.Tensor:
    """Two-class logits (1, 2, 200, …) in which a known share of the pixels is foreground; margins are noisy."""
    g = torch.Generator().manual_seed(2)
    is_foreground = torch.rand(count, generator=g) < foreground
    margin = torch.where(is_foreground, 3.0, -5.0) + noise * torch.randn(count, generator=g)
    return torch.stack([torch.zeros(count), margin]).view(1, 2, 200, -1)


@pytest.mark.parametrize("prior", [(0.95, 0.05), (0.7, 0.3), (0.5, 0.5)])
@pytest.mark.parametrize("foreground", [0.02, 0.05, 0.4])
def test_accepted_shares_follow_the_prior_whatever_the_teacher_finds(
    prior: tuple[float, float], foreground: float
) -> None:
    thresholds = Thresholds(setup(prior), MeanTeacherOptions(accepted=0.6, sampled=10**6))
    labels = thresholds.accept(logits_of(foreground), None)
    for label, share in enumerate(prior):
        assert (labels == label).float().mean().item() == pytest.approx(0.6 * share, rel=0.03, abs=2e-4)
    assert set(labels.unique().tolist()) == {0, 1, IGNORE}


def test_accepted_pixels_are_the_surest() -> None:
    logits = logits_of(0.05)
    margin = logits[0, 1] - logits[0, 0]
    thresholds = Thresholds(setup((0.95, 0.05)), MeanTeacherOptions(sampled=10**6))
    labels = thresholds.accept(logits, None)[0]
    assert margin[labels == 1].min() > margin[labels == IGNORE].max()
    assert margin[labels == 0].max() < margin[labels == IGNORE].min()


def test_shares_hold_over_many_batches_of_very_different_content_and_not_in_each() -> None:
    thresholds = Thresholds(setup((0.95, 0.05)), MeanTeacherOptions(accepted=0.6, memory=0.98, sampled=4096))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        shares = []
        for step in range(400):
            logits = logits_of(0.2 if step % 4 == 0 else 0.0, 10_000)
            shares.append((thresholds.accept(logits, None) == 1).float().mean().item())
    late = torch.tensor(shares[200:]).view(-1, 4).mean(0)
    assert late.mean().item() == pytest.approx(0.03, rel=0.1)
    assert late[0] > 0.1 and late[1:].max() < 1e-3  # windows without the class are asked for none of it


def test_confidences_that_float32_cannot_tell_apart_still_have_an_order() -> None:
    """Beyond margins of 17 all probabilities are 1; ranking them would accept all or nothing."""
    margin = torch.linspace(-60, 40, 10_000)
    logits = torch.stack([torch.zeros_like(margin), margin]).view(1, 2, 100, 100)
    labels = Thresholds(setup((0.5, 0.5)), MeanTeacherOptions(accepted=0.2, sampled=10**6)).accept(logits, None)
    assert (labels == 0).float().mean().item() == pytest.approx(0.1, rel=0.02)
    assert (labels == 1).float().mean().item() == pytest.approx(0.1, rel=0.02)


def test_many_classes() -> None:
    prior = (0.8, 0.15, 0.05)
    g = torch.Generator().manual_seed(4)
    truth = torch.multinomial(torch.tensor(prior), 40_000, replacement=True, generator=g)
    logits = (4.0 * nn.functional.one_hot(truth, 3) + torch.randn(40_000, 3, generator=g)).T.reshape(1, 3, 200, 200)
    labels = Thresholds(setup(prior, classes=3), MeanTeacherOptions(sampled=10**6)).accept(logits, None)
    for label, share in enumerate(prior):
        assert (labels == label).float().mean().item() == pytest.approx(0.6 * share, rel=0.05)
    kept_right = (labels.flatten() == truth)[labels.flatten() != IGNORE]
    assert kept_right.float().mean() > 0.999


@pytest.mark.parametrize(("found", "expected"), [(0.4, 0.2), (0.15, 0.15), (0.01, 0.05)])
def test_shares_follow_the_teacher_within_a_factor(found: float, expected: float) -> None:
    logits = logits_of(found, noise=0.3) * 4
    options = MeanTeacherOptions(prior_factor=2.0, accepted=0.5, sampled=10**6)
    labels = Thresholds(setup((0.9, 0.1)), options).accept(logits, None)
    expected /= expected + min(1.8, max(0.45, 1 - found))  # what the factor left is made to sum to 1
    assert (labels == 1).float().mean().item() == pytest.approx(0.5 * expected, rel=0.06)


def test_margins_are_the_lead_over_the_best_other_class() -> None:
    logits = torch.randn(2, 4, 3, 5, generator=torch.Generator().manual_seed(5))
    for c in range(4):
        others = torch.cat([logits[:, :c], logits[:, c + 1 :]], 1).amax(1)
        lead = logits[:, c] - others
        torch.testing.assert_close(margins(logits)[:, c], lead / (4 + lead.abs()))


def test_quantiles_of_a_running_distribution_equal_torchs() -> None:
    values = torch.rand(3, 5000, generator=torch.Generator().manual_seed(6)) ** 2 - 0.3
    grid = torch.linspace(-1, 1, 1024)
    below = (values[:, None] <= grid[:, None]).float().mean(2)
    at = torch.tensor([0.1, 0.5, 0.97])
    expected = torch.stack([values[i].quantile(at[i]) for i in range(3)])
    torch.testing.assert_close(quantiles(below, grid, at), expected, atol=2e-3, rtol=0)


def test_fixed_confidence() -> None:
    probs = torch.tensor([[0.95, 0.05], [0.85, 0.15], [0.1, 0.9], [0.2, 0.8]]).T.reshape(1, 2, 2, 2)
    assert confident(probs.log(), 0.9 - 1e-6).flatten().tolist() == [0, IGNORE, 1, IGNORE]


def test_nothing_accepted_costs_exactly_0_and_moves_nothing() -> None:
    logits = torch.randn(2, 2, 4, 4, generator=torch.Generator().manual_seed(7), requires_grad=True)
    loss = mean_over_accepted(logits, torch.full((2, 4, 4), IGNORE))
    loss.backward()
    assert loss.item() == 0.0 and logits.grad.abs().max() == 0
    method = make(thresholds="fixed", tau=1.0, ramp=0.0)
    plain = make("supervised")
    train(method, range(3))
    train(plain, range(3))
    assert same(method.network, plain.network)


def test_the_loss_is_the_mean_over_accepted_pixels() -> None:
    logits = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(8))
    labels = torch.randint(0, 3, (2, 4, 4), generator=torch.Generator().manual_seed(9))
    labels[0] = IGNORE
    expected = -logits[1].log_softmax(0).gather(0, labels[1:]).mean()
    torch.testing.assert_close(mean_over_accepted(logits, labels), expected)


# --- in training


@pytest.mark.parametrize("options", [{"lambda_unsup": 0}, {"warm_up": 1.0}])
def test_weight_0_is_supervised_training(options: dict[str, Any]) -> None:
    method, plain = make(**options), make("supervised")
    train(method, range(3))
    train(plain, range(3))
    assert same(method.network, plain.network)


def test_the_weight_waits_and_rises() -> None:
    method = make(lambda_unsup=2.0, warm_up=0.2, ramp=0.4)
    found = [dict(method.step(batch(), step))["network"]["self_training"].weight for step in (0, 2, 4, 6, 9)]
    assert found == pytest.approx([0, 0, 1, 2, 2])


def test_it_changes_the_network_where_it_weighs_something() -> None:
    method, plain = make(), make("supervised")
    train(method, range(3))
    train(plain, range(3))
    assert not same(method.network, plain.network)


def test_the_teacher_gets_no_gradient_and_belongs_to_nobody() -> None:
    method = make()
    method.train()
    for player, losses in method.step(batch(), 9):
        assert player == "network"
        sum(term.weight * term.value for term in losses.values()).backward()
    teacher = list(teacher_of(method).teacher.parameters())
    assert all(p.grad is None and not p.requires_grad for p in teacher)
    owned = {id(p) for player in method.players().values() for p in player.module.parameters()}
    assert not owned & {id(p) for p in teacher}


def test_the_teacher_stays_in_evaluation_mode() -> None:
    method = make()
    method.train()
    assert method.network.training and not any(m.training for m in teacher_of(method).teacher.modules())


def test_the_teacher_sees_the_clean_window_and_the_network_the_perturbed_one() -> None:
    method = make()
    part, data = teacher_of(method), batch()
    seen: dict[str, torch.Tensor] = {}
    part.teacher.register_forward_pre_hook(lambda _, args: seen.update(teacher=args[0]))
    original = method.network.forward_taps
    method.network.forward_taps = lambda image: seen.update(network=image) or original(image)
    dict(method.step(data, 9))
    assert torch.equal(seen["teacher"], data["target"].image)
    assert not torch.equal(seen["network"], data["target"].image)


@pytest.mark.parametrize("use", ["teacher", "network"])
def test_who_segments(use: str) -> None:
    method = make(use=use)
    with method.segmenting() as judged:
        assert judged is (teacher_of(method).teacher if use == "teacher" else method.network)
    with method.segmenting("source") as judged:
        assert judged is method.network


@pytest.mark.parametrize("prior", [(), (0.9, 0.1)])
def test_resume_is_bitwise(prior: tuple[float, ...]) -> None:
    whole, half = make(prior=prior, prior_factor=2.0), make(prior=prior, prior_factor=2.0)
    train(whole, range(4))
    state = train(half, range(2))
    resumed = make(prior=prior, prior_factor=2.0)
    resumed.load_state_dict(copy.deepcopy(half.state_dict()))
    train(resumed, range(2, 4), state)
    assert same(resumed, whole)


def test_bfloat16_and_shared_statistics() -> None:
    method = make(statistics="shared", prior=())
    train(method, range(3), dtype=torch.bfloat16)
    assert all(torch.isfinite(t).all() for t in method.state_dict().values())


def test_volumes_work_too() -> None:
    losses = dict(make(kind="unet3d").step(batch(8, 16, 16), 9))["network"]
    assert all(torch.isfinite(term.value) for term in losses.values())
    assert 0 < losses["accepted"].value.item() <= 1


def test_an_unknown_prior_leaves_the_sources_gradients_to_other_parts() -> None:
    method = make(prior=(), lambda_sup=0)
    views = Views(method, batch(), 9)
    teacher_of(method).losses(views)
    assert views.on_source[0].requires_grad
