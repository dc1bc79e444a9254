"""Entropy minimisation against its definitions."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from napari_em_da.config import LossConfig, TrainingConfig
from napari_em_da.errors import ConfigError
from napari_em_da.losses import segmentation_loss
from napari_em_da.methods import METHODS
from napari_em_da.methods._base import Method, Setup
from napari_em_da.methods._parts import Adaptation
from napari_em_da.methods.entropy import RunningMean, divergence, mean_share, pixel_entropy
from napari_em_da.models import MODELS
from napari_em_da.sampling import Sample
from napari_em_da.training.loop import make_optimiser, train_step


def make(name: str = "entropy", prior: tuple[float, ...] = (0.9, 0.1), ndim: int = 2, **options: Any) -> Method:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = MODELS["unet" if ndim == 2 else "unet3d"].create(1, 2, {"features": 4, "levels": 2})
    return METHODS[name].create(Setup(network, segmentation_loss(LossConfig()), (32, 32), 10, 1e-3, prior), options)


def batch(*shape: int) -> dict[str, Sample]:
    g = torch.Generator().manual_seed(1)
    shape = shape or (32, 32)
    image, other = torch.randn(2, 2, 1, *shape, generator=g)
    return {"source": Sample(image, torch.randint(0, 2, (2, *shape), generator=g)), "target": Sample(other)}


def train(method: Method, steps: range, state: dict[str, Any] | None = None) -> dict[str, Any]:
    """Train through the loop's own step; return the optimisers' states."""
    config = TrainingConfig(steps=10)
    players = method.players()
    optimisers = {name: make_optimiser(player, config) for name, player in players.items()}
    for name, saved in (state or {}).items():
        optimisers[name].load_state_dict(saved)
    for step in steps:
        train_step(method, players, optimisers, batch(), step, config, torch.device("cpu"), None)
    return {name: copy.deepcopy(optimiser.state_dict()) for name, optimiser in optimisers.items()}


def terms(method: Method, step: int = 9, **data: Sample) -> dict[str, Any]:
    method.train()
    return dict(method.step({**batch(), **data}, step))["network"]


@pytest.mark.parametrize(("probs", "expected"), [((0.5, 0.5), 1.0), ((0.9, 0.1), 0.468996), ((1.0, 0.0), 0.0)])
def test_entropy_of_two_classes(probs: tuple[float, ...], expected: float) -> None:
    logits = torch.tensor(probs).clamp(min=1e-30).log().view(1, 2, 1, 1)
    assert pixel_entropy(logits.log_softmax(1)).item() == pytest.approx(expected, abs=1e-6)


def test_entropy_of_many_classes_is_at_most_1() -> None:
    assert pixel_entropy(torch.zeros(1, 7, 2, 3, 4).log_softmax(1)).flatten().tolist() == pytest.approx([1.0] * 24)


def test_divergence_is_that_of_torch_and_0_for_equal_shares() -> None:
    shares, prior = torch.tensor([0.7, 0.2, 0.1]), torch.tensor([0.5, 0.25, 0.25])
    expected = torch.distributions.kl_divergence(
        torch.distributions.Categorical(shares), torch.distributions.Categorical(prior)
    )
    torch.testing.assert_close(divergence(shares, prior), expected)
    assert divergence(prior, prior).item() == 0.0
    assert torch.isfinite(divergence(torch.tensor([1.0, 0.0, 0.0]), prior))


def test_losses_equal_the_definitions() -> None:
    plain, robust = make(memory=0.0, statistics="shared"), make(penalty="robust", statistics="shared")
    found, other = terms(plain), terms(robust)
    plain.train()
    probs = plain.network(batch()["target"].image).softmax(1)
    h = -(probs * probs.log()).sum(1) / torch.tensor(2.0).log()
    mean = probs.mean((0, 2, 3))
    torch.testing.assert_close(found["entropy"].value, h.mean())
    torch.testing.assert_close(other["entropy"].value, ((h**2 + 1e-6) ** 2).mean())
    torch.testing.assert_close(found["class_prior"].value, (mean * (mean / torch.tensor([0.9, 0.1])).log()).sum())


def test_both_weigh_nothing_before_the_start() -> None:
    method = make(lambda_entropy=0.5, lambda_prior=0.25, start=0.2)
    weights = [(t["entropy"].weight, t["class_prior"].weight) for t in (terms(method, s) for s in (0, 1, 2, 9))]
    assert weights == [(0.0, 0.0), (0.0, 0.0), (0.5, 0.25), (0.5, 0.25)]


def test_running_mean_averages_all_at_first_and_then_forgets() -> None:
    mean = RunningMean(torch.full((1,), 7.0), memory=0.75)
    seen = [mean.update(torch.tensor([float(x)])).item() for x in (4, 8, 0, 0, 0)]
    assert seen == pytest.approx([4, 6, 4, 3, 2.25])


def test_the_pasts_value_with_the_presents_gradient() -> None:
    """One batch of the rarer class moves the running mean little, and the loss follows the running mean."""
    method = make(memory=0.9)
    values = [terms(method)["class_prior"].value.item() for _ in range(30)]
    assert values[-1] == pytest.approx(values[0], rel=0.2)
    part = method.parts[0]
    part.mean.value.copy_(torch.tensor([0.9, 0.1]))
    part.mean.seen.fill_(1000)
    term = terms(method)["class_prior"].value
    assert 0 <= term.item() < values[-1] / 10
    (gradient,) = torch.autograd.grad(term, [next(method.network.parameters())])
    assert gradient.abs().sum() > 0


def test_without_an_annotated_prior_it_is_what_the_network_predicts_on_the_source() -> None:
    method = make(prior=())
    terms(method)
    method.train()
    expected = mean_share(method.network(batch()["source"].image).softmax(1))
    torch.testing.assert_close(method.parts[0].prior.mean.value, expected)


def test_a_prior_of_other_classes_is_an_error() -> None:
    with pytest.raises(ConfigError, match="3 shares, but the network has 2 classes"):
        make(prior=(0.5, 0.3, 0.2))


def test_a_class_that_the_source_lacks_gives_a_finite_loss() -> None:
    assert torch.isfinite(terms(make(prior=(1.0, 0.0)))["class_prior"].value)


@pytest.mark.parametrize("options", [{"lambda_entropy": 0, "lambda_prior": 0}, {"start": 1.0}])
def test_weight_0_is_supervised_training(options: dict[str, Any]) -> None:
    method, plain = make(**options), make("supervised")
    for each in (method, plain):
        train(each, range(3))
    for name, tensor in plain.network.state_dict().items():
        assert torch.equal(method.network.state_dict()[name], tensor), name


def test_training_lowers_the_entropy_of_the_target() -> None:
    method = make(lambda_entropy=1.0, lambda_prior=0.0, start=0.0)
    before = terms(method)["entropy"].value.item()
    train(method, range(9))
    assert terms(method)["entropy"].value.item() < before


def test_resume_is_bitwise() -> None:
    whole, part = make(prior=()), make(prior=())
    train(whole, range(4))
    state = train(part, range(2))
    resumed = make(prior=())
    resumed.load_state_dict(copy.deepcopy(part.state_dict()))
    train(resumed, range(2, 4), state)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], tensor), name


def test_volumes_work_too() -> None:
    method = make(ndim=3)
    assert isinstance(method, Adaptation)
    found = dict(method.step(batch(8, 16, 16), 9))["network"]
    assert all(torch.isfinite(term.value) for term in found.values())
