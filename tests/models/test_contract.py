"""Every network of the catalog keeps the promises of SegmentationNet."""

from __future__ import annotations

import copy

import pytest
import torch

from napari_em_da.errors import ConfigError
from napari_em_da.models import MODELS
from napari_em_da.models._base import SegmentationNet

CLASSES = 3


def small(name: str) -> SegmentationNet:
    """Build an entry, narrow where its options allow it."""
    fields = MODELS[name].options_type.model_fields
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return MODELS[name].create(1, CLASSES, {"features": 4} if "features" in fields else {})


def images(network: SegmentationNet, *, off: int = 0, batch: int = 2) -> torch.Tensor:
    """Return noise a little larger than the margins, ``off`` voxels off the network's grid."""
    size = [2 * max(step, 2) + off for step in network.divisor]
    if any(network.margin_px):
        size = [n + 2 * margin for n, margin in zip(size, network.margin_px, strict=True)]
    return torch.randn((batch, 1, *size), generator=torch.Generator().manual_seed(1))


@pytest.fixture(params=MODELS.names())
def network(request: pytest.FixtureRequest) -> SegmentationNet:
    return small(request.param)


@pytest.mark.parametrize("off", [0, 1, 3])
def test_logits_have_the_size_of_the_image(network: SegmentationNet, off: int) -> None:
    image = images(network, off=off)
    with torch.no_grad():
        logits = network.eval()(image)
    expected = [n - 2 * margin for n, margin in zip(image.shape[2:], network.margin_px, strict=True)]
    assert logits.shape == (2, CLASSES, *expected)
    assert torch.isfinite(logits).all()


def test_every_parameter_gets_a_gradient(network: SegmentationNet) -> None:
    logits = network.train()(images(network))
    (logits * torch.randn(logits.shape, generator=torch.Generator().manual_seed(2))).sum().backward()
    missing = [name for name, p in network.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()]
    assert not missing
    idle = [name for name, p in network.named_parameters() if p.grad is not None and not p.grad.any()]
    assert not idle


def test_state_round_trip(network: SegmentationNet) -> None:
    image = images(network)
    network.train()(image)  # running statistics are part of the state
    twin = copy.deepcopy(network)
    for tensor in (*twin.parameters(), *twin.buffers()):
        tensor.data.zero_()
    twin.load_state_dict(network.state_dict())
    with torch.no_grad():
        assert torch.equal(network.eval()(image), twin.eval()(image))


def test_evaluation_leaves_the_random_state_alone(network: SegmentationNet) -> None:
    before = torch.get_rng_state()
    with torch.no_grad():
        first, second = (network.eval()(images(network)) for _ in range(2))
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(first, second)


def test_taps_are_named_and_consistent(network: SegmentationNet) -> None:
    image = images(network, batch=1)
    with torch.no_grad():
        logits, taps = network.eval().forward_taps(image)
        assert torch.equal(logits, network(image))
    assert {name: tap.shape[1] for name, tap in taps.items()} == dict(network.tap_channels)
    names = list(taps)
    assert names[0] == "enc0"
    assert "bottleneck" in names
    assert names[-1] == "dec0"
    down = names[: names.index("bottleneck") + 1]
    volumes = [taps[name][0, 0].numel() for name in down]
    assert volumes == sorted(volumes, reverse=True)
    for level in (name[3:] for name in names if name.startswith("dec")):
        encoded, decoded = taps[f"enc{level}"].shape[2:], taps[f"dec{level}"].shape[2:]
        assert encoded == decoded or any(network.margin_px)
    with torch.no_grad():
        assert network.head(taps["dec0"]).shape[1] == CLASSES


def test_the_encoder_can_run_alone(network: SegmentationNet) -> None:
    image = images(network, batch=1)
    with torch.no_grad():
        whole = network.eval().forward_taps(image)[1]
        encoded = network.encoder_taps(image)
    assert list(encoded) == list(whole)[: list(whole).index("bottleneck") + 1]
    assert all(torch.equal(tap, whole[name]) for name, tap in encoded.items())


def test_encoder_and_decoder_one_after_the_other_leave_the_statistics_of_a_whole_pass(network: SegmentationNet) -> None:
    image, twin = images(network), copy.deepcopy(network)
    network.train().forward_taps(image)
    twin.train().run_decoder(twin.encoder_taps(image))
    assert all(torch.equal(a, b) for a, b in zip(network.buffers(), twin.buffers(), strict=True))


def test_head_can_be_replaced(network: SegmentationNet) -> None:
    with torch.no_grad():
        features = network.eval().forward_taps(images(network, batch=1))[1]["dec0"]
        conv = torch.nn.Conv2d if network.ndim == 2 else torch.nn.Conv3d
        network.head = conv(features.shape[1], 5, 1)
        assert network(images(network, batch=1)).shape[1] == 5


def test_patch_problem_offers_a_size_that_fits(network: SegmentationNet) -> None:
    good = tuple(images(network).shape[2:])
    if not any(network.margin_px):
        assert network.patch_problem(good) is None
    for axis, step in enumerate(network.divisor):
        if step > 1:
            bad = tuple(n + (i == axis) for i, n in enumerate(good))
            problem = network.patch_problem(bad)
            assert problem is not None
            assert str(bad[axis]) in problem
            offered = int(problem.split()[-1])
            assert network.patch_problem(tuple(offered if i == axis else n for i, n in enumerate(good))) is None


def test_halo_is_a_multiple_of_the_divisor(network: SegmentationNet) -> None:
    assert len(network.divisor) == len(network.halo_px) == len(network.margin_px) == network.ndim
    assert all(halo % step == 0 for halo, step in zip(network.halo_px, network.divisor, strict=True))


@pytest.mark.parametrize("name", MODELS.names())
def test_unknown_option_is_named(name: str) -> None:
    with pytest.raises(ConfigError, match="featurs"):
        MODELS[name].create(1, 2, {"featurs": 8})
