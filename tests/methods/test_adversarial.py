"""The adversarial method against the formulas of S0 and the numbers of the specification."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from napari_em_da.config import LossConfig, TrainingConfig
from napari_em_da.losses import segmentation_loss
from napari_em_da.methods import METHODS
from napari_em_da.methods._base import Setup
from napari_em_da.methods._judging import blur, straight_through
from napari_em_da.methods._parts import Adaptation
from napari_em_da.methods.adversarial import AdversarialPart
from napari_em_da.models import MODELS
from napari_em_da.models._discriminator import PatchDiscriminator
from napari_em_da.sampling import Sample
from napari_em_da.training.loop import make_optimiser, train_step


def make(**options: Any) -> Adaptation:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = MODELS["unet"].create(1, 2, {"features": 4, "levels": 2})
        method = METHODS["adversarial"].create(
            Setup(network, segmentation_loss(LossConfig()), (32, 32), 10, 1e-3), options
        )
    assert isinstance(method, Adaptation)
    assert isinstance(method.parts[0], AdversarialPart)
    return method


def judge(method: Adaptation) -> torch.nn.Module:
    module = method.players()["discriminator"].module
    assert isinstance(module, PatchDiscriminator)
    return module


def batch() -> dict[str, Sample]:
    g = torch.Generator().manual_seed(1)
    image, other = torch.randn(2, 2, 1, 32, 32, generator=g)
    labels = torch.randint(0, 2, (2, 32, 32), generator=g)
    return {"source": Sample(image, labels), "target": Sample(other)}


def turns(method: Adaptation, step: int = 9) -> dict[str, Any]:
    return dict(method.step(batch(), step))


@pytest.mark.parametrize(
    ("logit", "minimax", "nonsaturating"), [(-2, -0.119203, -0.880797), (0, -0.5, -0.5), (2, -0.880797, -0.119203)]
)
def test_per_logit_derivatives_of_both_objectives(logit: float, minimax: float, nonsaturating: float) -> None:
    for name, expected in (("minimax", minimax), ("nonsaturating", nonsaturating)):
        z = torch.tensor([float(logit)], requires_grad=True)
        loss = -F.softplus(z).mean() if name == "minimax" else F.softplus(-z).mean()
        (grad,) = torch.autograd.grad(loss, z)
        assert grad.item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("objective", ["minimax", "nonsaturating"])
def test_losses_equal_the_definitions(objective: str) -> None:
    method = make(objective=objective, real="labels", blur_px=0.0, smoothing=0.0, statistics="shared", warm_up=0.0)
    data = batch()
    method.train()
    losses = dict(method.step(data, 5))
    fake = method.network(data["target"].image).softmax(1)
    real = F.one_hot(data["source"].annotation, 2).movedim(-1, 1).float()
    on_real, on_fake = (torch.sigmoid(judge(method)(x)) for x in (real, fake))
    assert losses["discriminator"]["disc_real"].value.item() == pytest.approx(-on_real.log().mean().item(), rel=1e-4)
    assert losses["discriminator"]["disc_fake"].value.item() == pytest.approx(
        -(1 - on_fake).log().mean().item(), rel=1e-4
    )
    expected = (1 - on_fake).log().mean() if objective == "minimax" else -on_fake.log().mean()
    assert losses["network"]["adversarial"].value.item() == pytest.approx(expected.item(), rel=1e-4)


def test_discriminator_at_chance_costs_ln_2() -> None:
    method = make(statistics="shared")
    for parameter in judge(method).parameters():
        torch.nn.init.zeros_(parameter)
    losses = turns(method)["discriminator"]
    assert losses["disc_real"].value.item() == pytest.approx(0.693147, abs=1e-6)
    assert losses["disc_fake"].value.item() == pytest.approx(0.693147, abs=1e-6)


def test_parity_is_the_papers_literal_recipe() -> None:
    method = make(parity=True)
    o = method.parts[0].options
    assert method.options == o
    assert (o.objective, o.lambda_sup, o.lambda_adv, o.smoothing, o.blur_px) == ("minimax", 0.0, 1.0, 0.0, 0.0)
    assert set(turns(method)["network"]) == {"adversarial"}


def test_discriminator_turn_gives_the_network_no_gradient() -> None:
    method = make()
    _, losses = next(iter(method.step(batch(), 9)))
    sum(term.value for term in losses.values()).backward()
    assert all(p.grad is None for p in method.network.parameters())
    assert all(p.grad is not None for p in judge(method).parameters())


def test_zero_lambda_gives_the_supervised_gradient() -> None:
    adversarial, supervised = make(lambda_adv=0.0), make()
    plain = METHODS["supervised"].create(Setup(supervised.network, segmentation_loss(LossConfig()), (32, 32), 10, 1e-3))
    for method in (adversarial, plain):
        losses = dict(method.step(batch(), 9))["network"]
        sum(term.weight * term.value for term in losses.values() if term.weight).backward()
    for a, b in zip(adversarial.network.parameters(), plain.network.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)


def test_target_batches_leave_the_source_statistics_alone() -> None:
    method = make()
    reference = make()
    method.train()
    reference.train()
    dict(method.step(batch(), 9))
    reference.network(batch()["source"].image)
    for name, tensor in reference.network.named_buffers():
        torch.testing.assert_close(dict(method.network.named_buffers())[name], tensor)
    own = {k: v.clone() for k, v in method.network.named_buffers()}
    with method.segmenting("target") as network:
        moved = [k for k, v in network.named_buffers() if "running_mean" in k and not torch.equal(v, own[k])]
    assert moved
    assert all(torch.equal(v, own[k]) for k, v in method.network.named_buffers())


def test_straight_through_is_hard_forward_and_soft_backward() -> None:
    logits = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(2), requires_grad=True)
    probs = logits.softmax(1)
    hard = straight_through(probs)
    assert torch.equal((hard > 0.5).float().sum(1), torch.ones(2, 4, 4))
    weight = torch.randn(hard.shape, generator=torch.Generator().manual_seed(3))
    (a,) = torch.autograd.grad((hard * weight).sum(), logits, retain_graph=True)
    (b,) = torch.autograd.grad((probs * weight).sum(), logits)
    torch.testing.assert_close(a, b)


def test_blur_equals_scipy() -> None:
    from scipy.ndimage import gaussian_filter

    maps = torch.rand(1, 2, 20, 24, generator=torch.Generator().manual_seed(4))
    expected = gaussian_filter(maps.double().numpy(), (0, 0, 1.2, 1.2), mode="nearest", truncate=3.4)
    torch.testing.assert_close(blur(maps, 1.2), torch.from_numpy(expected).float(), atol=2e-3, rtol=0)


def test_unannotated_pixels_do_not_count_as_true() -> None:
    method = make(blur_px=0.0, real="labels")
    data = batch()
    nothing = Sample(data["source"].image, torch.full((2, 32, 32), 255))
    losses = dict(method.step({**data, "source": nothing}, 9))["discriminator"]
    assert losses["disc_real"].value.item() == 0.0


def test_by_default_true_maps_are_predictions_so_that_softness_tells_nothing() -> None:
    """Softened label maps have plateaus at 0.9; predictions on the source are soft like those on the target."""
    method = make(blur_px=0.0, statistics="shared")
    data = batch()
    same = {"source": data["source"], "target": Sample(data["source"].image)}
    method.train()
    losses = dict(method.step(same, 9))["discriminator"]
    on_fake = losses["disc_fake"].value
    logit = judge(method)(method.network(data["source"].image).softmax(1))
    assert losses["disc_real"].value.item() == pytest.approx(F.softplus(-logit).mean().item(), rel=1e-4)
    assert on_fake.item() == pytest.approx(F.softplus(logit).mean().item(), rel=1e-4)


def trained(name: str, **options: Any) -> dict[str, torch.Tensor]:
    """The network after three steps of the training loop, dropout on."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = MODELS["unet"].create(1, 2, {"features": 4, "levels": 2, "dropout": 0.2})
        method = METHODS[name].create(Setup(network, segmentation_loss(LossConfig()), (32, 32), 10, 1e-3), options)
    config = TrainingConfig(steps=10)
    players = method.players()
    optimisers = {key: make_optimiser(player, config) for key, player in players.items()}
    for step in range(3):
        train_step(method, players, optimisers, batch(), step, config, torch.device("cpu"), None)
    return {key: value.clone() for key, value in network.state_dict().items()}


def test_zero_lambda_trains_the_supervised_network_bit_for_bit() -> None:
    plain = trained("supervised")
    assert all(torch.equal(plain[k], v) for k, v in trained("adversarial", lambda_adv=0.0).items())
    moved = trained("adversarial", lambda_adv=1.0, warm_up=0.0)
    assert any(not torch.equal(plain[k], v) for k, v in moved.items())


def test_parity_in_a_combination_leaves_the_source_loss_to_the_combination() -> None:
    network = make().network
    parts = [{"name": "adversarial", "options": {"parity": True}}]
    setup = Setup(network, segmentation_loss(LossConfig()), (32, 32), 10, 1e-3)
    losses = turns(METHODS["combined"].create(setup, {"parts": parts}))["network"]
    assert losses["adversarial"].weight == 1.0
    assert losses["cross_entropy"].weight == 1.0
