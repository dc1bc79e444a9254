"""Counts, sizes and context of the U-Nets against published numbers and brute force."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from napari_em_da.errors import ConfigError, DataError
from napari_em_da.models import MODELS
from napari_em_da.models._base import SegmentationNet
from napari_em_da.models._blocks import reach_px, reflect_to

VALID: dict[str, Any] = {"padding": "valid", "norm": "none"}


def create(name: str, inputs: int = 1, classes: int = 2, **options: Any) -> SegmentationNet:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return MODELS[name].create(inputs, classes, options)


@pytest.mark.parametrize(
    ("name", "inputs", "classes", "options", "count"),
    [
        ("unet", 1, 2, {**VALID, "features": 64}, 31_030_658),
        ("unet", 1, 7, {**VALID, "features": 64}, 31_030_983),
        ("unet", 1, 2, {"norm": "none", "features": 64}, 31_030_658),
        ("unet", 1, 2, {"features": 64}, 31_042_434),
        ("unet", 1, 2, {}, 7_765_442),
        ("unet", 1, 2, {"features": 16}, 1_943_778),
        ("unet", 1, 1, {"features": 64, "levels": 3}, 7_701_825),
        ("unet", 15, 1, {"features": 64, "levels": 3}, 7_709_889),
        ("cicek", 3, 3, {"norm": "none"}, 19_069_955),
        ("unet3d", 1, 7, {"kind": "thin"}, 8_130_759),
        ("unet3d", 1, 7, {"kind": "thick"}, 8_294_599),
    ],
)
def test_parameter_counts(name: str, inputs: int, classes: int, options: dict[str, Any], count: int) -> None:
    with torch.device("meta"):
        network = MODELS[name].create(inputs, classes, options)
    assert sum(p.numel() for p in network.parameters()) == count


def test_published_sizes_of_unpadded_networks() -> None:
    with torch.device("meta"):
        flat = MODELS["unet"].create(1, 2, VALID)
        solid = MODELS["cicek"].create(3, 3, {"padding": "valid"})
        assert flat(torch.zeros(1, 1, 572, 572)).shape[2:] == (388, 388)
        assert solid(torch.zeros(1, 3, 116, 132, 132)).shape[2:] == (28, 44, 44)
    assert flat.margin_px == (92, 92)
    assert solid.margin_px == (44, 44, 44)


@pytest.mark.parametrize("levels", [1, 2, 3, 4])
def test_unpadded_sizes_are_those_that_lose_nothing(levels: int) -> None:
    """A size fits exactly if every pooling meets an even size and something is left; tried out one by one."""

    def output(size: int) -> int | None:
        for _ in range(levels):
            size -= 4
            if size <= 0 or size % 2:
                return None
            size //= 2
        for _ in range(levels):
            size = (size - 4) * 2
        return size - 4 if size > 4 else None

    network = create("unet", levels=levels, features=1, **VALID)
    for size in range(4, 260):
        left = output(size)
        assert (network.patch_problem((size, size)) is None) == (left is not None), size
        if left is not None:
            assert size - left == 2 * network.margin_px[0]


def test_unpadded_network_refuses_other_sizes_with_the_nearest() -> None:
    network = create("unet", features=1, **VALID)
    with pytest.raises(DataError, match="188 or 204"):
        network(torch.zeros(1, 1, 188, 200))
    with pytest.raises(DataError, match="use 188"):
        network(torch.zeros(1, 1, 64, 188))
    with pytest.raises(ConfigError, match="transpose"):
        create("unet", up="bilinear", **VALID)


def test_unpadded_network_sees_what_the_padded_one_sees() -> None:
    """Same weights, away from the border: the same logits, once the pooling grids lie on each other."""
    padded = create("unet", features=2, norm="none").eval()
    valid = create("unet", features=2, **VALID).eval()
    valid.load_state_dict(padded.state_dict())
    image = torch.randn((1, 1, 272, 272), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        whole = padded(image)
        # two convolutions before each pooling move the unpadded grid to 2 px short of a multiple of 16
        inner = valid(image[..., 2:254, 2:254])  # 252 = 188 + 4 * 16, output from 2 + 92 on
    ours = inner[..., 112 - 94 : 160 - 94, 112 - 94 : 160 - 94]
    torch.testing.assert_close(ours, whole[..., 112:160, 112:160], rtol=0, atol=1e-5)


@pytest.mark.parametrize(("levels", "radius", "halo"), [(4, 107, 112), (3, 51, 56)])
def test_published_context_of_padded_unets(levels: int, radius: int, halo: int) -> None:
    with torch.device("meta"):
        network = MODELS["unet"].create(1, 2, {"levels": levels})
    assert network.halo_px == (halo, halo)
    assert reach_px(network.plan.path(0, network.style)) == radius  # type: ignore[attr-defined]


def test_published_context_of_the_2d_3d_network() -> None:
    down = [("conv", 3), ("pool", 2), ("conv", 3), ("pool", 2), ("conv", 2), ("pool", 2), ("conv", 2)]
    up = [("up", 2), ("conv", 2), ("up", 2), ("conv", 3), ("up", 2), ("conv", 3)]
    pyramid = [("pool", 2), ("conv", 5), ("up", 2)]
    assert reach_px([*down, *up, *pyramid]) == 68  # type: ignore[list-item]


def measured_reach(network: SegmentationNet, length: int) -> int:
    """How far one input influences the output along the last axis, over all inputs of one grid period."""
    network = network.double().eval()
    for module in network.modules():  # positive weights: no influence cancels or dies in a ReLU
        for parameter in module.parameters(recurse=False):
            parameter.data.abs_().add_(0.01)
    step = network.divisor[-1]
    middle = length // step // 2 * step
    shape = (1, 1, *network.divisor[:-1], length)
    base = torch.zeros(shape, dtype=torch.float64)
    reach = 0
    with torch.no_grad():
        plain = network(base)
        for position in range(middle, middle + step):
            bump = base.clone()
            bump[..., position] = 1.0
            changed = ((network(bump) - plain).abs() > 0).flatten(0, -2).any(0).nonzero().flatten()
            reach = max(reach, position - int(changed.min()), int(changed.max()) - position)
    return reach


@pytest.mark.parametrize("up", ["transpose", "bilinear"])
@pytest.mark.parametrize("levels", [1, 2, 3, 4])
def test_context_is_exact_in_2d(levels: int, up: str) -> None:
    network = create("unet", features=1, levels=levels, norm="none", up=up)
    reach = reach_px(network.plan.path(1, network.style))  # type: ignore[attr-defined]
    assert measured_reach(network, 2 * network.halo_px[-1] + 4 * network.divisor[-1]) == reach
    assert 0 <= network.halo_px[-1] - reach < network.divisor[-1]


@pytest.mark.parametrize(
    ("name", "options"), [("unet3d", {"kind": "thin", "levels": 2}), ("unet3d", {"convs": 2}), ("cicek", {})]
)
def test_context_is_exact_in_3d(name: str, options: dict[str, Any]) -> None:
    network = create(name, features=1, norm="none", **options)
    reach = reach_px(network.plan.path(2, network.style))  # type: ignore[attr-defined]
    assert measured_reach(network, 2 * network.halo_px[-1] + 4 * network.divisor[-1]) == reach


@pytest.mark.parametrize("up", ["transpose", "bilinear"])
def test_tile_with_halo_equals_the_whole_image(up: str) -> None:
    network = create("unet", features=4, levels=3, up=up)
    image = torch.randn((1, 1, 40, 203), generator=torch.Generator().manual_seed(0))
    network.train()(image)
    network.eval()
    halo = network.halo_px[1]
    with torch.no_grad():
        whole = network(image)
        tile = network(image[..., 64 - halo : 88 + halo])
        end = network(image[..., 152 - halo :])  # the far end is off the grid: both mirror the same voxels
    torch.testing.assert_close(tile[..., halo:-halo], whole[..., 64:88], rtol=0, atol=1e-5)
    torch.testing.assert_close(end[..., halo:], whole[..., 152:], rtol=0, atol=1e-5)


@pytest.mark.parametrize("norm", ["none", "batch", "instance", "group"])
def test_norms(norm: str) -> None:
    network = create("unet", features=6, norm=norm)
    assert network.local == (norm in ("none", "batch"))
    found = sum(isinstance(m, nn.BatchNorm2d | nn.InstanceNorm2d | nn.GroupNorm) for m in network.modules())
    assert found == (0 if norm == "none" else 18)
    assert network(torch.zeros(2, 1, 32, 32)).shape == (2, 2, 32, 32)


def test_instance_norm_needs_more_than_one_voxel() -> None:
    network = create("unet", features=4, norm="instance")
    assert "(16, 32)" in str(network.patch_problem((16, 16)))
    assert network.patch_problem((16, 32)) is None


def test_signal_neither_dies_nor_explodes_at_initialisation() -> None:
    network = create("unet", features=32, norm="none")
    image = torch.randn((1, 1, 64, 64), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits, taps = network(image), network.forward_taps(image)[1]
    assert 0.1 < float(logits.std()) < 10
    assert all(0.2 < float(tap.std()) < 5 for tap in taps.values())


def test_dropout_is_off_in_evaluation_only() -> None:
    network = create("unet", features=4, dropout=0.5)
    image = torch.ones(2, 1, 32, 32)
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(0)
        assert not torch.equal(network.train()(image), network(image))
        assert torch.equal(network.eval()(image), network(image))


@pytest.mark.parametrize("size", [(1, 1), (2, 7), (5, 16)])
def test_mirroring_matches_numpy(size: tuple[int, int]) -> None:
    import numpy as np

    image = torch.arange(size[0] * size[1], dtype=torch.float32).reshape(1, 1, *size)
    pads = [(0, 16 - n) for n in size]
    expected = np.pad(image[0, 0].numpy(), pads, mode="reflect")
    np.testing.assert_array_equal(reflect_to(image, (16, 16))[0, 0].numpy(), expected)
    assert reflect_to(image, size) is image


def test_channels_last_is_kept() -> None:
    network = create("unet", features=8).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    image = torch.zeros(2, 1, 64, 64).to(memory_format=torch.channels_last)
    for tap in network.forward_taps(image)[1].values():
        assert tap.is_contiguous(memory_format=torch.channels_last)
