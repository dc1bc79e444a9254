"""PatchGAN on label maps."""

from __future__ import annotations

import pytest
import torch

from napari_em_da.errors import DataError
from napari_em_da.models._discriminator import PatchDiscriminator


@pytest.mark.parametrize(("channels", "count"), [(1, 2_762_689), (2, 2_763_713), (3, 2_764_737)])
def test_parameter_counts(channels: int, count: int) -> None:
    with torch.device("meta"):
        judge = PatchDiscriminator(channels)
        assert judge(torch.zeros(2, channels, 256, 256)).shape == (2, 1, 8, 8)
    assert sum(p.numel() for p in judge.parameters()) == count


def test_group_norm_adds_two_numbers_per_inner_channel() -> None:
    with torch.device("meta"):
        plain, normed = PatchDiscriminator(2), PatchDiscriminator(2, norm="group")
    extra = sum(p.numel() for p in normed.parameters()) - sum(p.numel() for p in plain.parameters())
    assert extra == 2 * (128 + 256 + 512)


def test_sections_of_a_volume_are_judged_one_by_one() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        judge = PatchDiscriminator(2)
        maps = torch.rand(2, 2, 3, 32, 64)
    with torch.no_grad():
        verdict = judge(maps)
        assert verdict.shape == (6, 1, 1, 2)
        torch.testing.assert_close(verdict[4], judge(maps[1:2, :, 1])[0])


def test_too_small_maps_are_refused() -> None:
    with pytest.raises(DataError, match="32"):
        PatchDiscriminator(2)(torch.zeros(1, 2, 16, 64))
