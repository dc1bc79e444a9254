"""Domain-adversarial training: the reversal, its schedule, who learns what, and the classifier."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from napari_em_da.config import LossConfig, TrainingConfig
from napari_em_da.losses import segmentation_loss
from napari_em_da.methods import METHODS
from napari_em_da.methods._base import Method, Setup
from napari_em_da.methods._parts import Adaptation
from napari_em_da.methods.dann import CLASSIFIER, Dann, ganin, reverse
from napari_em_da.models import MODELS
from napari_em_da.models._domain_classifier import DomainClassifier
from napari_em_da.sampling import Sample
from napari_em_da.training import checkpoint
from napari_em_da.training.loop import make_optimiser, train_step

CPU = torch.device("cpu")


def make(name: str = "dann", model: str = "unet", **options: Any) -> Method:
    small = {"features": 4, "levels": 2, "dropout": 0.1} if model == "unet" else {"features": 2}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = MODELS[model].create(1, 2, small)
        patch = (32,) * network.ndim
        return METHODS[name].create(Setup(network, segmentation_loss(LossConfig()), patch, 10, 1e-3), options)


def part_of(method: Method) -> Dann:
    assert isinstance(method, Adaptation)
    (part,) = method.parts
    assert isinstance(part, Dann)
    return part


def batch(*size: int, images: int = 2) -> dict[str, Sample]:
    g = torch.Generator().manual_seed(1)
    image, other = torch.randn(2, images, 1, *size, generator=g)
    labels = torch.randint(0, 2, (images, *size), generator=g)
    return {"source": Sample(image, labels), "target": Sample(other.roll(1, -1) + other)}


class Training:
    """A method with its optimisers, one step at a time."""

    def __init__(self, method: Method, dtype: torch.dtype | None = None) -> None:
        self.method, self.dtype, self.config = method, dtype, TrainingConfig()
        self.players = method.players()
        self.optimisers = {name: make_optimiser(player, self.config) for name, player in self.players.items()}
        self.data = batch(*(32, 32) if method.network.ndim == 2 else (16, 16, 16))

    def run(self, start: int, stop: int) -> list[dict[str, float]]:
        return [
            train_step(self.method, self.players, self.optimisers, self.data, step, self.config, CPU, self.dtype)
            for step in range(start, stop)
        ]


@pytest.mark.parametrize(
    ("progress", "alpha"), [(0, 0), (0.1, 0.462117), (0.25, 0.848284), (0.5, 0.986614), (1, 0.999909)]
)
def test_schedule_of_the_specification(progress: float, alpha: float) -> None:
    assert ganin(progress) == pytest.approx(alpha, abs=1e-6)


@pytest.mark.parametrize("shape", [(2, 3, 8, 8), (2, 3, 4, 8, 8)])
def test_reversal_is_the_identity_forward_and_minus_alpha_backward(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0), requires_grad=True)
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    assert torch.equal(reverse(x, 0.3), x)
    (turned,) = torch.autograd.grad((reverse(x, 0.3).square() * weight).sum(), x)
    (plain,) = torch.autograd.grad((x.square() * weight).sum(), x)
    torch.testing.assert_close(turned, -0.3 * plain)


@pytest.mark.parametrize(("alpha", "step", "expected"), [("ganin", 5, 0.986614), ("constant", 0, 1.0)])
def test_encoder_gradient_is_minus_alpha_times_that_without_reversal(alpha: str, step: int, expected: float) -> None:
    method = make(alpha=alpha, statistics="shared", profile="geometric").eval()
    data, part = batch(32, 32), part_of(method)
    encoder = list(method.network.encoder.parameters())

    terms = dict(method.step(data, step))["network"]
    reversed_ = torch.autograd.grad(
        sum(t.weight * t.value for name, t in terms.items() if name.startswith("dann")), encoder
    )

    total = torch.zeros(())
    on_source, on_target = (method.network.forward_taps(data[s].image)[1] for s in ("source", "target"))
    for share, tap in ((1 / 7, "enc0"), (2 / 7, "enc1"), (4 / 7, "bottleneck")):
        log_source, log_target = (part.classifiers[tap](f[tap]).log_softmax(1) for f in (on_source, on_target))
        total = total - part.options.lambda_total * share * (log_source[:, 0].mean() + log_target[:, 1].mean()) / 2
    plain = torch.autograd.grad(total, encoder)
    for turned, gradient in zip(reversed_, plain, strict=True):
        torch.testing.assert_close(turned, -expected * gradient, rtol=1e-4, atol=1e-7)


def test_a_classifier_that_knows_nothing_costs_ln_2_and_is_half_right() -> None:
    method = make()
    for parameter in part_of(method).parameters():
        torch.nn.init.zeros_(parameter)
    losses = dict(method.step(batch(32, 32), 5))
    assert losses[CLASSIFIER]["domain_bottleneck"].value.item() == pytest.approx(math.log(2))
    assert losses[CLASSIFIER]["domain_accuracy"].value.item() == 0.5
    assert losses[CLASSIFIER]["domain_accuracy"].weight == 0
    assert losses["network"]["dann_bottleneck"].value.item() == pytest.approx(math.log(2))


def test_each_player_learns_only_what_it_owns() -> None:
    method = make()
    (_, rivals), (_, own) = method.step(batch(32, 32), 5)
    sum(t.weight * t.value for t in rivals.values()).backward(retain_graph=True)
    assert all(p.grad is None for p in method.network.parameters())
    assert all(p.grad is not None for p in part_of(method).parameters())
    method.zero_grad(set_to_none=True)
    training = Training(method)
    assert {id(p) for p in training.players["network"].module.parameters()} == {
        id(p) for p in method.network.parameters()
    }
    own["dann_bottleneck"].value.backward()
    reached = {name.split(".")[0] for name, p in method.network.named_parameters() if p.grad is not None}
    assert reached == {"encoder"}


@pytest.mark.parametrize("profile", ["bottleneck", "encoder"])
def test_zero_lambda_is_supervised_training_bit_for_bit(profile: str) -> None:
    plain, aligned = make("supervised"), make(lambda_total=0.0, profile=profile)
    Training(plain).run(0, 3)
    Training(aligned).run(0, 3)
    for a, b in zip(plain.network.state_dict().values(), aligned.network.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_the_classifier_learns_domains_that_differ() -> None:
    method = make(lambda_total=0.0, statistics="shared")
    values = Training(method).run(0, 60)
    assert values[-1]["domain_accuracy"] == 1.0
    assert values[-1]["domain_bottleneck"] < 0.5 * values[0]["domain_bottleneck"]


@pytest.mark.parametrize(("model", "dtype"), [("unet", torch.bfloat16), ("cicek", None)])
def test_3d_and_bf16_with_every_kind_of_level(model: str, dtype: torch.dtype | None) -> None:
    method = make(model=model, profile="encoder", decoder_taps=("dec0",))
    values = Training(method, dtype).run(0, 1)[0]
    taps = [tap for tap in method.network.tap_channels if not tap.startswith("dec")]
    assert {f"dann_{tap}" for tap in (*taps, "dec0")} == {name for name in values if name.startswith("dann")}


def test_resume_is_bitwise() -> None:
    whole = Training(make())
    whole.run(0, 4)
    first = Training(make())
    first.run(0, 2)
    second = Training(make())
    for parameter in second.method.parameters():
        torch.nn.init.zeros_(parameter)
    second.method.load_state_dict(first.method.state_dict())
    for name, optimiser in first.optimisers.items():
        checkpoint.load_optimiser(second.optimisers[name], checkpoint.optimiser_tensors(optimiser))
    second.run(2, 4)
    assert checkpoint.digest(second.method.state_dict()) == checkpoint.digest(whole.method.state_dict())


@pytest.mark.parametrize(
    "size", [(1, 1), (2, 3), (12, 12), (40, 24), (1, 2, 2), (3, 9, 12)], ids=lambda s: "x".join(map(str, s))
)
def test_the_classifier_takes_any_window_and_a_batch_of_one(size: tuple[int, ...]) -> None:
    classifier = DomainClassifier(len(size), 5, depth=3)
    logits = classifier(torch.randn(1, 5, *size, generator=torch.Generator().manual_seed(0)))
    assert logits.shape == (1, 2)
    F.cross_entropy(logits, torch.tensor([1])).backward()
    assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in classifier.parameters())


def test_finer_levels_get_deeper_classifiers_of_the_specified_width() -> None:
    part = part_of(make(profile="encoder", decoder_taps=("dec1", "dec0")))
    depths = {
        tap: [m.out_channels for m in classifier.modules() if isinstance(m, torch.nn.Conv2d)]
        for tap, classifier in part.classifiers.items()
    }
    assert depths == {"enc0": [48] * 4, "enc1": [48] * 3, "bottleneck": [48] * 2, "dec1": [48] * 3, "dec0": [48] * 4}
