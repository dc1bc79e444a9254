"""Y-Net: what the third arm sees, who learns what from it, and what is left once it is dropped."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from napari_em_da.config import LossConfig, TrainingConfig
from napari_em_da.errors import ConfigError
from napari_em_da.losses import segmentation_loss
from napari_em_da.methods import METHODS
from napari_em_da.methods._base import Method, Setup
from napari_em_da.methods._parts import Adaptation
from napari_em_da.methods.ynet import DECODER, YNet, to_unet
from napari_em_da.models import MODELS
from napari_em_da.models._base import SegmentationNet
from napari_em_da.models._reconstruction import ReconstructionDecoder
from napari_em_da.sampling import Sample
from napari_em_da.training.loop import make_optimiser, train_step

CPU = torch.device("cpu")
SMALL = {"features": 4, "levels": 2}


def make(name: str = "ynet", model: str = "unet", network: dict[str, Any] | None = None, **options: Any) -> Method:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = MODELS[model].create(1, 2, network or SMALL)
        return METHODS[name].create(Setup(net, segmentation_loss(LossConfig()), (32, 32), 10, 1e-3), options)


def decoder_of(method: Method) -> ReconstructionDecoder:
    assert isinstance(method, Adaptation)
    (part,) = method.parts
    assert isinstance(part, YNet)
    return part.decoder


def batch(*size: int) -> dict[str, Sample]:
    size = size or (32, 32)
    g = torch.Generator().manual_seed(1)
    image, other = torch.randn(2, 2, 1, *size, generator=g)
    return {"source": Sample(image, torch.randint(0, 2, (2, *size), generator=g)), "target": Sample(other + 1)}


class Training:
    """A method with its optimisers, one step at a time."""

    def __init__(self, method: Method, dtype: torch.dtype | None = None) -> None:
        self.method, self.dtype, self.config = method, dtype, TrainingConfig()
        self.players = method.players()
        self.optimisers = {name: make_optimiser(player, self.config) for name, player in self.players.items()}
        self.data = batch()

    def run(self, start: int, stop: int) -> list[dict[str, float]]:
        return [
            train_step(self.method, self.players, self.optimisers, self.data, step, self.config, CPU, self.dtype)
            for step in range(start, stop)
        ]


@pytest.mark.parametrize(("features", "count"), [(32, 10_031_875), (16, 2_511_235)])
def test_weights_are_as_many_as_in_the_papers_network(features: int, count: int) -> None:
    with torch.device("meta"):
        net = MODELS["unet"].create(1, 2, {"features": features})
        decoder = ReconstructionDecoder(net)
    assert sum(p.numel() for module in (net, decoder) for p in module.parameters()) == count


@pytest.mark.parametrize(
    ("model", "options", "size"),
    [
        ("unet", {"features": 2, "levels": 1}, (32, 32)),
        ("unet", {"features": 2, "levels": 3, "up": "bilinear", "norm": "group"}, (37, 30)),
        ("unet3d", {"features": 2, "kind": "thin"}, (3, 16, 18)),
        ("cicek", {"features": 2}, (8, 16, 9)),
    ],
)
def test_the_reconstruction_has_the_size_of_any_image(
    model: str, options: dict[str, Any], size: tuple[int, ...]
) -> None:
    net = MODELS[model].create(3, 2, options)
    image = torch.randn(1, 3, *size)
    reconstruction, original = ReconstructionDecoder(net).pair(net.forward_taps(image)[1]["bottleneck"], image)
    assert reconstruction.shape == original.shape == image.shape
    assert original is image


def test_networks_without_padding_reconstruct_the_centre() -> None:
    net = MODELS["unet"].create(1, 2, {**SMALL, "padding": "valid"})
    image = torch.randn(1, 1, 60, 60)
    bottleneck = net.forward_taps(image)[1]["bottleneck"]
    reconstruction, original = ReconstructionDecoder(net).pair(bottleneck, image)
    size = 4 * bottleneck.shape[-1]
    start = (60 - size) // 2
    assert reconstruction.shape[2:] == (size, size)
    assert torch.equal(original, image[:, :, start : start + size, start : start + size])


def test_other_networks_are_an_error() -> None:
    with pytest.raises(ConfigError, match="SegmentationNet"):
        ReconstructionDecoder(SegmentationNet())


def test_both_players_descend_the_same_loss_as_one_network_would() -> None:
    """The two turns share one backward pass; the oracle differentiates the written-out loss of the whole network."""
    method, reference = make(lambda_rec=0.5, statistics="shared"), make(lambda_rec=0.5, statistics="shared")
    data = batch()
    players = method.players()
    for name, losses in method.step(data, 9):
        owned = list(players[name].module.parameters())
        sum(t.weight * t.value for t in losses.values()).backward(inputs=owned)  # type: ignore[union-attr]

    network, decoder = reference.network, decoder_of(reference)
    logits, source = network.forward_taps(data["source"].image)
    _, target = network.forward_taps(data["target"].image)
    total = sum(t.weight * t.value for t in reference.loss(logits, data["source"].annotation, None).values())
    for taps, domain in ((source, "source"), (target, "target")):
        total = total + 0.5 * F.mse_loss(decoder(taps["bottleneck"]), data[domain].image)
    total.backward()
    for mine, theirs in ((method.network, network), (decoder_of(method), decoder)):
        for (name, p), q in zip(mine.named_parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(p.grad, q.grad, atol=1e-6, rtol=1e-4, msg=name)


def test_losses_are_the_plain_mean_squared_errors() -> None:
    method = make(lambda_rec=0.5, statistics="shared")
    data = batch()
    turns = dict(method.step(data, 9))
    for domain in ("source", "target"):
        bottleneck = method.network.forward_taps(data[domain].image)[1]["bottleneck"]
        error = (decoder_of(method)(bottleneck) - data[domain].image).square().mean().item()
        for player in (DECODER, "network"):
            term = turns[player][f"reconstruction_{domain}"]
            assert (term.value.item(), term.weight) == (pytest.approx(error, rel=1e-5), 0.5)


def test_gradients_of_the_reconstruction_stop_at_the_segmentation_decoder() -> None:
    method = make(lambda_sup=0.0)
    losses = dict(method.step(batch(), 9))["network"]
    sum(t.value for t in losses.values()).backward()  # type: ignore[union-attr]
    reached = {name.split(".")[0] for name, p in method.network.named_parameters() if p.grad is not None}
    assert reached == {"encoder"}
    assert all(p.grad is None for p in decoder_of(method).parameters())


def test_weight_0_is_supervised_training_bit_by_bit() -> None:
    dropout = {**SMALL, "dropout": 0.2}
    method, plain = make(network=dropout, lambda_rec=0.0), make("supervised", network=dropout)
    before = {k: v.clone() for k, v in decoder_of(method).state_dict().items()}
    Training(method).run(0, 3)
    Training(plain).run(0, 3)
    for name, tensor in plain.network.state_dict().items():
        assert torch.equal(method.network.state_dict()[name], tensor), name
    assert all(p.grad is None for p in decoder_of(method).parameters())
    assert all(torch.equal(v, before[k]) for k, v in decoder_of(method).state_dict().items())


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_reconstructions_improve(dtype: torch.dtype | None) -> None:
    x = torch.linspace(0, 6, 32)
    waves = torch.sin(x)[:, None] * torch.cos(x) * torch.tensor([1.5, -1.5]).view(2, 1, 1, 1)
    training = Training(make(lambda_rec=1.0), dtype)
    training.data = {"source": Sample(waves, (waves[:, 0] > 0).long()), "target": Sample(waves.flip(-1) + 0.5)}
    logged = training.run(0, 30)
    for domain in ("source", "target"):
        errors = [values[f"reconstruction_{domain}"] for values in logged]
        assert errors[-1] < 0.5 * errors[0]


def test_the_plain_network_is_what_the_method_segments_with() -> None:
    method = make()
    Training(method).run(0, 2)
    plain = to_unet(method)
    assert set(plain.state_dict()) == set(method.network.state_dict())
    method.eval()
    image = batch()["target"].image
    with torch.inference_mode(), method.segmenting("target") as network:
        expected = network(image)
    with torch.inference_mode():
        assert torch.equal(plain.eval()(image), expected)
        assert not torch.equal(method.network(image), expected)  # the source's statistics
    fresh = MODELS["unet"].create(1, 2, SMALL)
    fresh.load_state_dict(plain.state_dict())
    Training(method).run(2, 3)
    with torch.inference_mode():
        assert torch.equal(plain(image), expected)  # a copy
