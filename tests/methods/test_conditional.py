"""The conditional adversary against the tests of the specification: channels, reduction, mismatches, gradients."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from napari_em_da.config import LossConfig, TrainingConfig
from napari_em_da.losses import segmentation_loss
from napari_em_da.methods import METHODS
from napari_em_da.methods._base import Method, Setup
from napari_em_da.methods._parts import Adaptation
from napari_em_da.methods.conditional import ConditionalPart, mismatched, misses
from napari_em_da.models import MODELS
from napari_em_da.models._discriminator import PatchDiscriminator
from napari_em_da.sampling import Sample
from napari_em_da.training.loop import make_optimiser, train_step

TURNS = ("conditional_discriminator", "network")
PLAIN = {"straight_through": False, "blur_px": 0.0, "statistics": "shared"}


def make(name: str = "conditional", classes: int = 2, **options: Any) -> Method:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = MODELS["unet"].create(1, classes, {"features": 4, "levels": 2, "dropout": 0.2})
        return METHODS[name].create(Setup(network, segmentation_loss(LossConfig()), (32, 32), 10, 1e-3), options)


def part_of(method: Method) -> ConditionalPart:
    assert isinstance(method, Adaptation)
    (part,) = method.parts
    assert isinstance(part, ConditionalPart)
    return part


def stripes(size: int = 32) -> torch.Tensor:
    """Two windows of labels: one with a bar at the top, one at the left, so that they differ under many symmetries."""
    labels = torch.zeros(2, size, size, dtype=torch.int64)
    labels[0, 4:9] = 1
    labels[1, :, 5:8] = 1
    return labels


def batch(labels: torch.Tensor | None = None) -> dict[str, Sample]:
    g = torch.Generator().manual_seed(1)
    image, other = torch.randn(2, 2, 1, 32, 32, generator=g)
    return {"source": Sample(image, stripes() if labels is None else labels), "target": Sample(other)}


def turns(method: Method, data: dict[str, Sample] | None = None, step: int = 9) -> dict[str, Any]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return dict(method.step(data or batch(), step))


@pytest.mark.parametrize("classes", [2, 4])
def test_discriminator_reads_the_image_and_every_class(classes: int) -> None:
    first = next(part_of(make(classes=classes)).discriminator.parameters())
    assert first.shape[1] == classes + 1


def test_without_the_image_it_is_the_unconditional_discriminator() -> None:
    conditional = part_of(make(classes=3)).discriminator
    plain = PatchDiscriminator(3, width=32)
    weights = conditional.state_dict()
    weights["layers.0.weight"] = weights["layers.0.weight"][:, 1:]  # those of the label channels
    plain.load_state_dict(weights)
    maps = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        zeroed = conditional(torch.cat([torch.zeros_like(maps[:, :1]), maps], 1))
        torch.testing.assert_close(zeroed, plain(maps), atol=1e-6, rtol=1e-5)


def far_off(predicted: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Pixel by pixel: a class, predicted or real, that the other map does not hold in the 3 x 3 around."""
    wrong = np.zeros(labels.shape)
    for y, x in np.ndindex(labels.shape):
        around = slice(max(0, y - 1), y + 2), slice(max(0, x - 1), x + 2)
        lost = predicted[y, x] not in labels[around] or labels[y, x] not in predicted[around]
        wrong[y, x] = lost and labels[y, x] != 255
    return wrong


@pytest.mark.parametrize("shape", [(2, 12, 14), (2, 3, 12, 14)])
def test_misses_are_wrong_by_more_than_a_pixel(shape: tuple[int, ...]) -> None:
    g = torch.Generator().manual_seed(4)
    coarse = torch.randint(0, 3, (*shape[:-2], 4, 5), generator=g)
    labels = coarse.repeat_interleave(3, -2).repeat_interleave(3, -1)[..., :14]
    predicted = labels.roll((1, 2), (-2, -1))
    labels = torch.where(torch.rand(shape, generator=g) < 0.1, 255, labels)
    sections = zip(predicted.reshape(-1, 12, 14).numpy(), labels.reshape(-1, 12, 14).numpy(), strict=True)
    expected = np.stack([far_off(*pair) for pair in sections]).reshape(labels[:, None].shape)
    assert 0.05 < expected.mean() < 0.9
    np.testing.assert_array_equal(misses(predicted, labels, 3).numpy(), expected)


def test_what_the_first_network_got_right_is_no_false_example(monkeypatch: pytest.MonkeyPatch) -> None:
    """A trained network's predictions on the source are its labels, up to a pixel: judged false, they would mislead."""
    method = make(**PLAIN)
    shifted = F.one_hot(stripes().roll(1, 1), 2).movedim(-1, 1).float()
    early = part_of(method).early
    assert early is not None
    monkeypatch.setattr(early, "forward", lambda image: 20 * shifted)
    judged = turns(method)["conditional_discriminator"]
    assert judged["conditional_early"].value.item() == 0.0
    assert judged["conditional_fake"].weight == pytest.approx(1 / 2)  # true and false still weigh the same


@pytest.mark.parametrize("early", [False, True])
def test_losses_equal_the_definitions(early: bool) -> None:
    method = make(early_false=early, **PLAIN).eval()
    part, data = part_of(method), batch()
    first = copy.deepcopy(method.network)
    with torch.no_grad():
        for parameter in method.network.parameters():
            parameter.add_(0.1)  # it has learned since
    losses = turns(method, data)
    image, other = data["source"].image, data["target"].image

    def chance(x: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(part.discriminator(torch.cat([x, maps], 1)))

    hot = F.one_hot(data["source"].annotation, 2).movedim(-1, 1).float()
    fake = method.network(other).softmax(1)
    judged = losses["conditional_discriminator"]
    expected = {
        "conditional_real": (-chance(image, hot).log().mean(), 1.0),
        "conditional_fake": (-(1 - chance(other, fake)).log().mean(), 1 / 3 if early else 1 / 2),
    }
    if early:
        maps = first(image).softmax(1)
        wrong = [far_off(p, y).mean() for p, y in zip(maps.argmax(1).numpy(), stripes().numpy(), strict=True)]
        share = torch.tensor(wrong).view(-1, 1, 1, 1)  # the discriminator gives one verdict per window
        value = -((1 - chance(image, maps)).log() * share).sum() / share.sum()
        expected["conditional_early"] = (value, 1 / 3)
    for name, (value, weight) in expected.items():
        assert judged[name].value.item() == pytest.approx(value.item(), rel=1e-4), name
        assert judged[name].weight == pytest.approx(weight), name
    assert judged["conditional_mismatch"].weight == pytest.approx(1 / 3 if early else 1 / 2)
    assert ("conditional_early" in judged) is early
    descended = -chance(other, fake).log().mean()
    assert losses["network"]["conditional_adversarial"].value.item() == pytest.approx(descended.item(), rel=1e-4)


def test_the_mismatch_is_a_false_example_of_a_source_image() -> None:
    """Labels that no symmetry changes: what the other window shows is known."""
    labels = torch.zeros(2, 32, 32, dtype=torch.int64)
    labels[0, 12:20, 12:20] = 1
    labels[1, :3], labels[1, -3:], labels[1, :, :3], labels[1, :, -3:] = 1, 1, 1, 1
    method = make(**PLAIN)
    data = batch(labels)
    swapped = F.one_hot(labels.flip(0), 2).movedim(-1, 1).float()
    verdict = part_of(method).discriminator(torch.cat([data["source"].image, swapped], 1))
    found = turns(method, data)["conditional_discriminator"]["conditional_mismatch"].value
    assert found.item() == pytest.approx(F.softplus(verdict).mean().item(), rel=1e-4)


def dilated(mask: np.ndarray) -> np.ndarray:
    from scipy.ndimage import binary_dilation

    return np.asarray(binary_dilation(mask, np.ones((3, 3))))


@pytest.mark.parametrize("limit", [0.2, 0.5])
@pytest.mark.parametrize("shape", [(5, 24, 24), (5, 24, 40), (1, 24, 24)])
def test_every_mismatch_overlaps_less_than_the_limit(shape: tuple[int, int, int], limit: float) -> None:
    g = torch.Generator().manual_seed(7)
    coarse = (torch.rand(shape[0], 1, shape[1] // 4, shape[2] // 4, generator=g) < 0.3).float()
    labels = F.interpolate(coarse, scale_factor=4)[:, 0].long()
    labels[0, :4] = 255
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(8)
        other, found = mismatched(labels, limit, 20)
    assert found.any()
    for mine, theirs, real in zip(labels.numpy(), other.numpy(), found.tolist(), strict=True):
        both = (mine != 255) & (theirs != 255)
        a, b = (dilated(m == 1) & both for m in (mine, theirs))
        if real:
            assert (a & b).sum() / (a | b).sum() < limit
        else:
            np.testing.assert_array_equal(mine, theirs)
        sources = [np.bincount(w.ravel(), minlength=256) for w in labels.numpy()]
        assert any((np.bincount(theirs.ravel(), minlength=256) == s).all() for s in sources)


def test_the_rarer_side_is_what_overlaps() -> None:
    """Where class 0 is the membrane, everything else overlaps almost always, the membranes do not."""
    labels = 1 - stripes()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        assert mismatched(labels, 0.5, 8)[1].all()


@pytest.mark.parametrize("value", [0, 255])
def test_windows_that_all_look_the_same_have_no_mismatch(value: int) -> None:
    labels = torch.full((2, 32, 32), value)
    assert not mismatched(labels, 0.5, 4)[1].any()
    losses = turns(make(), batch(labels))["conditional_discriminator"]
    assert losses["conditional_mismatch"].value.item() == 0.0
    if value == 255:
        assert losses["conditional_real"].value.item() == 0.0


def test_a_window_without_a_mismatch_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    other = stripes().flip(0)
    given = (other, torch.tensor([True, False]))
    monkeypatch.setattr("napari_em_da.methods.conditional.mismatched", lambda *_: given)
    method, data = make(**PLAIN), batch()
    maps = F.one_hot(other, 2).movedim(-1, 1).float()
    verdict = part_of(method).discriminator(torch.cat([data["source"].image, maps], 1))
    found = turns(method, data)["conditional_discriminator"]["conditional_mismatch"].value
    assert found.item() == pytest.approx(F.softplus(verdict[0]).mean().item(), rel=1e-4)


def test_an_empty_window_is_mismatched_by_any_structure() -> None:
    labels = torch.zeros(2, 32, 32, dtype=torch.int64)
    labels[1, 14:18, 14:18] = 1  # at the centre, where no symmetry moves it
    assert mismatched(labels, 0.5, 1)[1].tolist() == [True, True]
    labels[0] = 255
    assert mismatched(labels, 0.5, 4)[1].tolist() == [False, False]


def test_each_player_gets_only_its_own_gradient() -> None:
    method = make()
    part = part_of(method)
    seen = []
    for player, losses in method.step(batch(), 9):
        method.zero_grad(set_to_none=True)
        parameters = list(method.players()[player].module.parameters())
        sum(t.weight * t.value for t in losses.values() if t.weight).backward(inputs=parameters)
        assert all(p.grad is not None for p in parameters)
        others = method.network if player != "network" else part.discriminator
        assert all(p.grad is None for p in others.parameters())
        seen.append(player)
    assert tuple(seen) == TURNS
    assert part.early is not None
    assert not any(p.requires_grad for p in part.early.parameters())


def test_the_network_is_judged_through_the_label_channels_alone() -> None:
    """A discriminator blind to them gives the network nothing, one blind to the image still does."""
    for channels, reaches in ((slice(1, None), False), (slice(0, 1), True)):
        method = make(lambda_sup=0.0, warm_up=0.0)
        with torch.no_grad():
            next(part_of(method).discriminator.parameters())[:, channels] = 0
        loss = turns(method)["network"]["conditional_adversarial"].value
        loss.backward(inputs=list(method.network.parameters()))
        largest = max(float(p.grad.abs().max()) for p in method.network.parameters() if p.grad is not None)
        assert (largest > 0) is reaches


def test_gap_is_zero_for_a_discriminator_that_ignores_the_labels() -> None:
    method = make()
    with torch.no_grad():
        next(part_of(method).discriminator.parameters())[:, 1:] = 0
    gap = turns(method)["conditional_discriminator"]["disc_conditional_gap"]
    assert gap.value.item() == 0.0
    assert gap.weight == 0.0


Optimisers = dict[str, torch.optim.Optimizer]


def run(
    method: Method, steps: range = range(3), optimisers: Optimisers | None = None
) -> tuple[dict[str, torch.Tensor], Optimisers]:
    """Train and return the network's state and the optimisers."""
    config = TrainingConfig(steps=10)
    players = method.players()
    optimisers = optimisers or {key: make_optimiser(player, config) for key, player in players.items()}
    for step in steps:
        train_step(method, players, optimisers, batch(), step, config, torch.device("cpu"), None)
    return {key: value.clone() for key, value in method.network.state_dict().items()}, optimisers


def test_zero_lambda_trains_the_supervised_network_bit_for_bit() -> None:
    plain, _ = run(make("supervised"))
    same, _ = run(make(lambda_adv=0.0))
    moved, _ = run(make(lambda_adv=1.0, warm_up=0.0))
    assert all(torch.equal(plain[k], v) for k, v in same.items())
    assert any(not torch.equal(plain[k], v) for k, v in moved.items())


def test_resume_is_bitwise_and_the_first_network_stays() -> None:
    method = make(warm_up=0.0)
    before = {k: v.clone() for k, v in method.network.state_dict().items()}
    whole, _ = run(make(warm_up=0.0), range(4))
    _, optimisers = run(method, range(2))
    again = make(warm_up=0.0)
    with torch.no_grad():
        for parameter in again.parameters():
            parameter.zero_()  # all that counts comes from the checkpoint
    again.load_state_dict(method.state_dict())
    fresh = {k: make_optimiser(player, TrainingConfig(steps=10)) for k, player in again.players().items()}
    for key, optimiser in fresh.items():
        optimiser.load_state_dict(optimisers[key].state_dict())
    resumed, _ = run(again, range(2, 4), fresh)
    assert all(torch.equal(whole[k], v) for k, v in resumed.items())
    early = part_of(again).early
    assert early is not None
    assert all(torch.equal(before[k], v) for k, v in early.state_dict().items())


def test_volumes_are_judged_section_by_section() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = MODELS["unet3d"].create(1, 2, {"features": 4, "levels": 2})
        setup = Setup(network, segmentation_loss(LossConfig()), (4, 32, 32), 10, 1e-3)
        method = METHODS["conditional"].create(setup)
        images = torch.randn(2, 2, 1, 4, 32, 32)
    data = {"source": Sample(images[0], stripes()[:, None].repeat(1, 4, 1, 1)), "target": Sample(images[1])}
    losses = {k: t.value for terms in turns(method, data).values() for k, t in terms.items()}
    assert all(torch.isfinite(v) for v in losses.values())


def test_it_combines_with_the_unconditional_one() -> None:
    method = make("combined", parts=[{"name": "conditional"}, {"name": "adversarial"}])
    losses = turns(method)
    assert set(losses) == {"conditional_discriminator", "discriminator", "network"}
    assert {"conditional_adversarial", "adversarial", "cross_entropy"} <= set(losses["network"])


@pytest.mark.parametrize("judge", ["conditional", "adversarial"])
@pytest.mark.parametrize("feature", ["mmd", "coral", "dann"])
def test_the_documented_joint_embedding_adds_both_losses(judge: str, feature: str) -> None:
    parts = [{"name": judge, "options": {"lambda_adv": 0.01}}, {"name": feature, "options": {"lambda_total": 0.001}}]
    losses = turns(make("combined", parts=parts))["network"]
    added = {name: term.weight for name, term in losses.items() if name.split("_")[0] not in ("cross", "dice")}
    assert added.pop("conditional_adversarial" if judge == "conditional" else "adversarial") == 0.01
    assert sum(added.values()) == pytest.approx(0.001)


def test_networks_without_a_border_are_judged_where_they_label() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = MODELS["unet"].create(1, 2, {"features": 4, "levels": 1, "padding": "valid"})
        setup = Setup(network, segmentation_loss(LossConfig()), (64, 64), 10, 1e-3)
        method = METHODS["conditional"].create(setup)
        images = torch.randn(2, 2, 1, 64, 64)
    margin = network.margin_px[0]
    assert margin
    size = 64 - 2 * margin
    given = []
    part_of(method).discriminator.register_forward_pre_hook(lambda _, x: given.append(x[0]))
    losses = turns(method, {"source": Sample(images[0], stripes(size)), "target": Sample(images[1])})
    assert all(torch.isfinite(t.value) for terms in losses.values() for t in terms.values())
    assert torch.equal(given[-1][:, :1], images[1][..., margin:-margin, margin:-margin])
