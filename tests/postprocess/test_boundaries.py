"""Boundary maps against scikit-image and brute force."""

from __future__ import annotations

from dataclasses import replace

import dask.array as da
import numpy as np
import pytest
from skimage.segmentation import find_boundaries

from napari_em_da.config import ChainConfig
from napari_em_da.errors import ConfigError
from napari_em_da.postprocess import Stack, apply_chain
from napari_em_da.postprocess.boundaries import boundary_map

VOXEL = (40.0, 5.0, 4.0)


def cells(seed: int = 0, shape: tuple[int, ...] = (3, 40, 50), background: bool = True) -> np.ndarray:
    """Return nearest-seed territories, one of them background."""
    rng = np.random.default_rng(seed)
    points = rng.integers(0, shape[1:], (shape[0], 8, 2))
    grid = np.stack(np.mgrid[: shape[1], : shape[2]], -1)[None, :, :, None]
    ids = ((grid - points[:, None, None]) ** 2).sum(-1).argmin(-1) + 1
    return np.where(background & (ids == 1), 0, ids).astype(np.uint32)


def chain(**options: object) -> ChainConfig:
    return ChainConfig(steps=[{"name": "boundaries", "options": options}])


def test_the_default_is_one_voxel_on_either_side() -> None:
    ids = cells(background=False)
    result = apply_chain(chain(), Stack(ids, "instances"))
    assert result.holds == "labels"
    assert result.classes == ("background", "membrane")
    expected = np.stack([find_boundaries(section, connectivity=1, mode="thick") for section in ids])
    np.testing.assert_array_equal(result.data, expected)


def test_the_border_to_the_background_counts_only_around() -> None:
    ids = cells()
    around = boundary_map(ids, mode="around")
    expected = np.stack([find_boundaries(section, connectivity=1, mode="thick") for section in ids])
    np.testing.assert_array_equal(around, expected)
    between = boundary_map(ids, mode="between")
    assert not between[ids == 0].any()
    assert (between <= around).all()
    alone = np.zeros((1, 5, 5), np.uint32)
    alone[0, 2, 2] = 7
    assert not boundary_map(alone).any()
    assert boundary_map(alone, mode="around").sum() == 5


@pytest.mark.parametrize(("thickness", "voxels"), [(2, 2), (3, 4), (4, 4), (6, 6), (9, 10)])
def test_a_straight_boundary_has_the_thickness_asked_for(thickness: float, voxels: int) -> None:
    ids = np.ones((1, 30, 30), np.uint16)
    ids[:, :, 15:] = 2
    drawn = boundary_map(ids, thickness=thickness)
    np.testing.assert_array_equal(drawn[0, 7], np.abs(np.arange(30) - 14.5) < voxels / 2)


def test_thickness_in_nm_against_brute_force() -> None:
    ids = cells(1, (2, 24, 26))
    drawn = apply_chain(chain(thickness_nm=17, mode="around"), Stack(ids, "instances", VOXEL)).data
    thin = boundary_map(ids, mode="around")
    for z in range(2):
        places = np.argwhere(thin[z]) * VOXEL[1:]
        for y, x in np.ndindex(*ids.shape[1:]):
            nearest = np.sqrt(((places - np.multiply((y, x), VOXEL[1:])) ** 2).sum(1).min())
            assert drawn[z, y, x] == (nearest <= (17 - 5) / 2)


@pytest.mark.parametrize("mode", ["between", "around"])
@pytest.mark.parametrize("thickness_nm", [None, 10, 33])
def test_neither_blocks_nor_ids_matter(mode: str, thickness_nm: float | None) -> None:
    stack = Stack(cells(2), "instances", VOXEL)
    steps = chain(mode=mode, thickness_nm=thickness_nm)
    whole = apply_chain(steps, stack).data
    lazy = apply_chain(steps, replace(stack, data=da.from_array(stack.data, chunks=(2, 7, 13))))
    assert lazy.lazy
    np.testing.assert_array_equal(lazy.data.compute(), whole)
    others = np.concatenate([[0], np.random.default_rng(3).permutation(8) + 2**40]).astype(np.uint64)
    np.testing.assert_array_equal(apply_chain(steps, stack.with_data(others[stack.data])).data, whole)


def test_voxels_without_annotation_stay_so_and_make_no_boundary() -> None:
    ids = np.ones((1, 6, 6), np.uint64)
    ids[:, :, 3:] = 2**64 - 1
    for mode in ("between", "around"):
        np.testing.assert_array_equal(boundary_map(ids, mode=mode), np.where(ids == 1, 0, 255))


def test_empty_and_single_objects_have_no_boundary() -> None:
    for value in (0, 5):
        for mode in ("between", "around"):
            assert not boundary_map(np.full((1, 4, 1), value, np.int64), mode=mode, thickness=6).any()


def test_a_thickness_needs_a_voxel_size_and_two_pixels() -> None:
    stack = Stack(cells(), "instances")
    with pytest.raises(ConfigError, match="voxel size is unknown"):
        apply_chain(chain(thickness_nm=20), stack)
    with pytest.raises(ConfigError, match="thickness_nm=10 or more"):
        apply_chain(chain(thickness_nm=8), replace(stack, voxel_nm=VOXEL))
