"""Two streams: the residual, what is shared, what each term moves, and what a run keeps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from napari_em_da.config import LossConfig, TrainingConfig
from napari_em_da.errors import ConfigError
from napari_em_da.losses import segmentation_loss
from napari_em_da.methods import METHODS
from napari_em_da.methods._base import Method, Setup
from napari_em_da.methods.two_stream import TwoStream, residual
from napari_em_da.models import MODELS
from napari_em_da.models._base import SegmentationNet
from napari_em_da.sampling import Sample
from napari_em_da.training import checkpoint
from napari_em_da.training.loop import make_optimiser, train_step

CPU = torch.device("cpu")
SMALL = {"features": 4, "levels": 2, "dropout": 0.1}


def make(name: str = "two_stream", network: SegmentationNet | None = None, **options: Any) -> Method:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = network or MODELS["unet"].create(1, 2, SMALL)
        return METHODS[name].create(Setup(network, segmentation_loss(LossConfig()), (32, 32), 10, 1e-3), options)


def two_stream(network: SegmentationNet | None = None, **options: Any) -> TwoStream:
    method = make(network=network, **{"warm_up": 0.0, **options})
    assert isinstance(method, TwoStream)
    return method


def batch() -> dict[str, Sample]:
    g = torch.Generator().manual_seed(1)
    image, other = torch.randn(2, 2, 1, 32, 32, generator=g)
    labels = torch.randint(0, 2, (2, 32, 32), generator=g)
    return {"source": Sample(image, labels), "target": Sample(other.roll(1, -1) + other)}


class Training:
    """A method with its optimiser, one step at a time."""

    def __init__(self, method: Method) -> None:
        self.method, self.config, self.players = method, TrainingConfig(), method.players()
        self.optimisers = {name: make_optimiser(player, self.config) for name, player in self.players.items()}

    def run(self, start: int, stop: int, dtype: torch.dtype | None = None) -> list[dict[str, float]]:
        return [
            train_step(self.method, self.players, self.optimisers, batch(), step, self.config, CPU, dtype)
            for step in range(start, stop)
        ]


def copied(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def moved(module: torch.nn.Module, before: dict[str, torch.Tensor]) -> set[str]:
    return {name for name, tensor in module.state_dict().items() if not torch.equal(tensor, before[name])}


@pytest.mark.parametrize(("a", "b", "expected"), [(1.0, 0.0, 1.0), (1.5, 0.0, 0.0), (1.0, 1.0, 0.0), (0.0, 0.0, 9.0)])
def test_residual_of_one_weight(a: float, b: float, expected: float) -> None:
    pair = torch.tensor([2.0]), torch.tensor([3.0])
    assert residual([pair], torch.tensor([a]), torch.tensor([b])).item() == expected


def test_residual_is_a_mean_over_the_weights_of_all_tensors() -> None:
    first = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, 1.0, 1.0])  # squares 0, 1, 4
    second = torch.tensor([[1.0]]), torch.tensor([[5.0]])  # (2 - 5 + 1)^2 = 4
    a, b = torch.tensor([1.0, 2.0]), torch.tensor([0.0, 1.0])
    assert residual([first, second], a, b).item() == pytest.approx((0 + 1 + 4 + 4) / 4)


def test_weights_are_two_encoders_one_decoder_and_two_numbers_per_tensor() -> None:
    with torch.device("meta"):
        method = two_stream(MODELS["unet"].create(1, 2, {"features": 32}))
    encoder = list(method.network.encoder.parameters())
    assert sum(p.numel() for p in encoder) == 4_715_616
    assert sum(p.numel() for p in method.parameters()) == 7_765_442 + 4_715_616 + 2 * len(encoder)


def test_residual_pairs_are_all_encoder_weights_and_no_statistics() -> None:
    method = two_stream()
    own = dict(method.network.encoder.blocks.named_parameters())
    assert [id(t) for _, t in method.pairs()] == [id(p) for p in own.values()]
    assert all(s is not t and torch.equal(s, t) for s, t in method.pairs())
    assert not any("running" in name for name in own)


def test_levels_can_be_shared() -> None:
    method = two_stream(share_from_level=1)
    assert len(method.source_blocks) == 1
    shared = {id(p) for block in method.network.encoder.blocks[1:] for p in block.parameters()}
    Training(method).run(0, 2)
    with method.segmenting("source") as network:
        inside = {id(p) for p in network.parameters()}
    assert shared <= inside
    assert inside & {id(p) for p in method.source_blocks.parameters()}


@pytest.mark.parametrize("level", [0, 3])
def test_levels_that_do_not_exist_are_errors(level: int) -> None:
    with pytest.raises(ConfigError, match="share_from_level"):
        make(share_from_level=level)


def test_other_networks_are_an_error() -> None:
    with pytest.raises(ConfigError, match="U-Net"):
        make(network=SegmentationNet())


def test_each_term_reaches_what_it_is_about() -> None:
    def reached(name: str) -> set[str]:
        method = two_stream()
        dict(method.step(batch(), 0))  # the streams branch off
        for p in method.parameters():
            torch.nn.init.normal_(p)
        terms = dict(method.step(batch(), 1))["network"]
        terms[name].value.backward()
        found = {n.split(".blocks")[0] for n, p in method.named_parameters() if p.grad is not None}
        return {n.split(".")[0] if not n.startswith("network") else n for n in found}

    assert reached("mmd_dec0") == {"network.encoder", "network.decoder", "source_blocks"}
    assert reached("cross_entropy") == {"network.decoder", "network.head.weight", "network.head.bias", "source_blocks"}
    assert reached("weight_residual") == {"network.encoder", "source_blocks", "scale", "shift"}


def test_weight_0_is_supervised_training_bit_by_bit() -> None:
    method, plain = two_stream(lambda_features=0.0, lambda_weights=0.0), make("supervised")
    Training(method).run(0, 3)
    Training(plain).run(0, 3)
    assert not moved(method.network, copied(plain.network))


def test_the_streams_are_one_until_the_warm_up_has_passed() -> None:
    method, plain = two_stream(warm_up=0.3), make("supervised")
    training = Training(method)
    logged = training.run(0, 3)
    Training(plain).run(0, 3)
    assert not moved(method.network, copied(plain.network))
    with method.segmenting("source") as network:
        assert not moved(network, copied(plain.network))
    assert all("weight_residual" not in values for values in logged)
    (first,) = training.run(3, 4)
    assert first["weight_residual"] == 0.0
    assert training.run(4, 5)[0]["weight_residual"] > 0.0


def test_the_source_stream_alone_is_supervised_training() -> None:
    """With the residual only, the target's encoder follows, but the source's segments as if it were not there."""
    method, plain = two_stream(lambda_features=0.0, lambda_weights=1e-30), make("supervised")
    for each in (method, plain):
        Training(each).run(0, 3)
    with method.segmenting("source") as network:
        assert not any("encoder" not in name for name in moved(network, copied(plain.network)))
        for name, tensor in plain.network.state_dict().items():
            torch.testing.assert_close(network.state_dict()[name], tensor, atol=1e-6, rtol=1e-4)


def test_a_strong_residual_keeps_the_encoders_together() -> None:
    apart = {}
    for weight in (0.0, 1e6):
        method = two_stream(lambda_weights=weight, lambda_features=1.0)
        Training(method).run(0, 8)
        apart[weight] = residual(method.pairs(), 1 + method.scale, method.shift).item()
    assert apart[1e6] < 0.5 * apart[0.0]


def test_each_domain_is_segmented_by_its_stream() -> None:
    method = two_stream()
    Training(method).run(0, 3)
    method.eval()
    image = batch()["target"].image
    before = copied(method)
    with torch.inference_mode():
        own = method.network(image)
        with method.segmenting() as network:
            assert torch.equal(network(image), own)
        with method.segmenting("source") as network:
            other = network(image)
            assert torch.equal(network.encoder.blocks[0][0].weight, before["source_blocks.0.0.weight"])
        assert not torch.equal(other, own)
    assert not moved(method, before)
    plain = MODELS["unet"].create(1, 2, SMALL)
    plain.load_state_dict(method.network.state_dict())
    with torch.inference_mode():
        assert torch.equal(plain.eval()(image), own)


@pytest.mark.parametrize("start", [2, 3, 4])
def test_resume_is_bitwise(tmp_path: Path, start: int) -> None:
    """Before, at and after the branching; through a checkpoint file, which holds no tensor twice."""
    whole = Training(two_stream(warm_up=0.3))
    whole.run(0, 6)
    part = Training(two_stream(warm_up=0.3))
    part.run(0, start)
    tensors = checkpoint.prefixed("method", part.method.state_dict())
    tensors |= checkpoint.prefixed("optimiser", checkpoint.optimiser_tensors(part.optimisers["network"]))
    checkpoint.save(tmp_path / "last.safetensors", tensors, {})
    back, _ = checkpoint.load(tmp_path / "last.safetensors")
    resumed = Training(two_stream(warm_up=0.3))
    resumed.method.load_state_dict(checkpoint.unprefixed("method", back))
    checkpoint.load_optimiser(resumed.optimisers["network"], checkpoint.unprefixed("optimiser", back))
    resumed.run(start, 6)
    assert not moved(resumed.method, copied(whole.method))


@pytest.mark.parametrize("distance", ["mmd", "coral"])
@pytest.mark.parametrize("statistics", ["shared", "per_domain"])
def test_options_and_bf16(distance: str, statistics: str) -> None:
    method = two_stream(distance=distance, statistics=statistics, share_from_level=2)
    logged = Training(method).run(0, 2, torch.bfloat16)
    assert logged[-1][f"{distance}_dec0"] >= 0.0


def test_three_dimensions() -> None:
    network = MODELS["unet3d"].create(1, 2, {"features": 2})
    method = two_stream(network)
    image = torch.randn(2, 1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    data = {"source": Sample(image, (image[:, 0] > 0).long()), "target": Sample(image.flip(-1) * 2)}
    losses = dict(method.step(data, 1))["network"]
    assert all(torch.isfinite(term.value) for term in losses.values())
