"""Learning on the target alone: no source is read, the terms are those of the two parts, the options are bounded."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from napari_em_da.config import LossConfig, TrainingConfig
from napari_em_da.errors import ConfigError
from napari_em_da.losses import segmentation_loss
from napari_em_da.methods import METHODS
from napari_em_da.methods._base import Method, Setup
from napari_em_da.models import MODELS
from napari_em_da.sampling import Sample
from napari_em_da.training.loop import make_optimiser, train_step

PRIOR = (0.7, 0.2, 0.1)


def make(prior: tuple[float, ...] = PRIOR, steps: int = 10, **options: Any) -> Method:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = MODELS["unet"].create(1, 3, {"features": 4, "levels": 2})
    setup = Setup(network, segmentation_loss(LossConfig()), (32, 32), steps, 1e-3, prior)
    return METHODS["source_free"].create(setup, options)


def target(seed: int = 1) -> dict[str, Sample]:
    """A batch as the sampler of the method's only stream gives it."""
    image = torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(seed))
    return {"target": Sample(image)}


def terms_of(method: Method, step: int) -> dict[str, Any]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        return next(iter(method.step(target(), step)))[1]


def learn(method: Method, steps: int) -> list[dict[str, float]]:
    config = TrainingConfig(steps=steps, device="cpu", precision="fp32", weight_decay=0.0)
    players = method.players()
    optimisers = {name: make_optimiser(player, config) for name, player in players.items()}
    cpu = torch.device("cpu")
    return [train_step(method, players, optimisers, target(step), step, config, cpu, None) for step in range(steps)]


def test_its_only_stream_is_the_target() -> None:
    assert METHODS["source_free"].streams == ("target",)


@pytest.mark.parametrize("prior", [PRIOR, ()])
def test_a_batch_without_a_source_is_enough(prior: tuple[float, ...]) -> None:
    method = make(prior)
    before = {name: p.clone() for name, p in method.network.named_parameters()}
    logged = learn(method, 3)
    assert {"self_training", "entropy", "class_prior", "accepted", "teacher_foreground"} <= set(logged[0])
    assert any(not torch.equal(before[name], p) for name, p in method.network.named_parameters())


def test_entropy_and_prior_are_what_they_are_called() -> None:
    method = make()
    method.train()
    terms = terms_of(method, 0)
    fresh = make()
    fresh.train()
    with torch.no_grad():
        p = fresh.network(target()["target"].image).softmax(1).double()
    entropy = torch.distributions.Categorical(p.movedim(1, -1)).entropy().mean() / torch.tensor(3.0).log()
    share = p.mean((0, 2, 3))
    kl = torch.distributions.kl_divergence(
        torch.distributions.Categorical(share), torch.distributions.Categorical(torch.tensor(PRIOR).double())
    )
    assert terms["entropy"].value.item() == pytest.approx(entropy.item(), rel=1e-5)
    assert terms["class_prior"].value.item() == pytest.approx(kl.item(), rel=1e-4)


def test_information_maximisation_waits_until_self_training_weighs_fully() -> None:
    method = make(warm_up=0.2, ramp=0.2, lambda_entropy=0.5, lambda_prior=0.25)
    weights = [
        tuple(terms_of(method, step)[name].weight for name in ("self_training", "entropy", "class_prior"))
        for step in (0, 3, 4)
    ]
    assert weights[0] == (0.0, 0.0, 0.0)
    assert weights[1] == (pytest.approx(0.5), 0.0, 0.0)
    assert weights[2] == (pytest.approx(1.0), 0.5, 0.25)


def test_all_weights_zero_leave_the_network_as_it_is() -> None:
    method = make(lambda_unsup=0.0, lambda_entropy=0.0, lambda_prior=0.0)
    before = {name: t.clone() for name, t in method.network.state_dict().items()}
    learn(method, 2)
    assert all(torch.equal(before[name], t) for name, t in method.network.state_dict().items())


def test_the_target_is_segmented_under_its_own_statistics() -> None:
    method = make()
    norm = next(m for m in method.network.modules() if isinstance(m, torch.nn.BatchNorm2d))
    start = norm.running_mean.clone()
    learn(method, 2)
    with method.segmenting("target") as network:
        used = next(m for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)).running_mean
    assert not torch.equal(start, used)
    assert torch.equal(norm.running_mean, used)


def test_a_weight_of_the_source_loss_is_refused() -> None:
    with pytest.raises(ConfigError, match="lambda_sup"):
        make(lambda_sup=1.0)
