"""Seeded watershed and linking along z: discs and spheres whose parts are known, brute-force overlaps."""

from __future__ import annotations

from dataclasses import replace

import dask.array as da
import numpy as np
import pytest
from scipy import ndimage

from napari_em_da.config import ChainConfig
from napari_em_da.errors import ConfigError
from napari_em_da.postprocess import Stack, apply_chain
from napari_em_da.postprocess.watershed import link_sections, seeded_watershed

FLAT, CUBIC = (40.0, 4.0, 4.0), (5.0, 5.0, 5.0)


def balls(shape: tuple[int, ...], centres: list[tuple[float, ...]], radius: float) -> np.ndarray:
    grid = np.stack(np.mgrid[tuple(slice(n) for n in shape)], -1)
    inside = [((grid - c) ** 2).sum(-1) <= radius**2 for c in centres]
    return np.where(np.any(inside, 0), 0.9, 0.05).astype(np.float32)


def stack_of(p: np.ndarray, voxel_nm: tuple[float, float, float] | None = FLAT) -> Stack:
    return Stack(np.stack([1 - p, p], -1), "probabilities", voxel_nm)


def chain(**options: object) -> ChainConfig:
    return ChainConfig(steps=[{"name": "watershed", "options": options}])


def same_partition(a: np.ndarray, b: np.ndarray) -> bool:
    pairs = np.unique(np.stack([a.ravel(), b.ravel()]), axis=1)
    return len(np.unique(pairs[0])) == len(np.unique(pairs[1])) == pairs.shape[1]


def test_touching_discs_are_parted_and_linked_along_z() -> None:
    p = np.repeat(balls((40, 60), [(20, 18), (20, 40)], 12.5)[None], 4, 0)
    ids = seeded_watershed(p, spacing=FLAT)
    assert ids.dtype == np.uint32
    np.testing.assert_array_equal(ids > 0, p > 0.5)
    assert set(np.unique(ids)) == {0, 1, 2}
    assert (ids[:, 20, 18] == ids[0, 20, 18]).all()
    assert (ids[:, 20, 40] == ids[0, 20, 40]).all()
    assert ids[0, 20, 18] != ids[0, 20, 40]
    left = ids[0] == ids[0, 20, 18]
    assert left[:, :28].sum() == (p[0, :, :28] > 0.5).sum()  # parted where they are narrow: half way
    assert not left[:, 31:].any()


@pytest.mark.parametrize("on", ["distance", "probability"])
def test_touching_balls_are_parted_in_3d(on: str) -> None:
    p = balls((26, 26, 42), [(13, 13, 13), (13, 13, 29)], 9.5)
    p[:, :, 21] = np.minimum(p[:, :, 21], 0.6)
    ids = seeded_watershed(p, spacing=CUBIC, on=on)
    assert set(np.unique(ids)) == {0, 1, 2}
    np.testing.assert_array_equal(ids > 0, p > 0.5)
    assert abs(int((ids == 1).sum()) - int((ids == 2).sum())) <= (p[:, :, 21] > 0.5).sum()


def test_dimensions_follow_the_anisotropy() -> None:
    p = balls((12, 20, 40), [(6, 10, 10)], 5)
    moved = np.stack([np.roll(section, 18 * (z % 2), 1) for z, section in enumerate(p)])
    apart = seeded_watershed(moved, spacing=(16.0, 5.0, 5.0))  # over 3: nothing overlaps, nothing is linked
    assert apart.max() == (p > 0.5).any((1, 2)).sum()
    explicit = seeded_watershed(moved, spacing=(15.0, 5.0, 5.0), dimensions="2d")
    np.testing.assert_array_equal(apart, explicit)
    assert seeded_watershed(p, spacing=(15.0, 5.0, 5.0)).max() == 1
    with pytest.raises(ConfigError, match="voxel_nm, or dimensions"):
        apply_chain(chain(), stack_of(p, None))
    apply_chain(chain(dimensions="2d"), stack_of(p, None))


def test_nothing_that_is_object_is_lost() -> None:
    rng = np.random.default_rng(0)
    for shape in ((1, 30, 33), (6, 17, 15), (3, 1, 20)):
        p = rng.random(shape).astype(np.float32)
        for spacing in (FLAT, CUBIC):
            for extra in ({}, {"seed_radius": 12.0}, {"on": "probability"}):
                ids = seeded_watershed(p, spacing=spacing, **extra)
                np.testing.assert_array_equal(ids > 0, p > 0.5)
    for value, count in ((0.0, 0), (1.0, 1)):
        ids = seeded_watershed(np.full((3, 200, 200), value, np.float32), spacing=FLAT)
        np.testing.assert_array_equal(np.unique(ids), [count])


def test_every_instance_of_a_section_is_connected() -> None:
    p = ndimage.gaussian_filter(np.random.default_rng(1).random((2, 90, 90)), (0, 3, 3))
    p = ((p - p.min()) / np.ptp(p)).astype(np.float32)
    ids = seeded_watershed(p, spacing=FLAT, min_iou=1.0)
    assert ids.max() > 10
    for value in range(1, int(ids.max()) + 1):
        assert ndimage.label(ids == value)[1] == 1


def test_seed_options_are_physical() -> None:
    p = balls((40, 60), [(20, 18), (20, 40)], 12.5)[None]
    stack = stack_of(p)
    assert apply_chain(chain(), stack).data.max() == 2
    assert apply_chain(chain(seed_spacing_nm=4 * 30), stack).data.max() == 1
    assert apply_chain(chain(seed_radius_nm=4 * 9), stack).data.max() == 2
    assert apply_chain(chain(seed_radius_nm=4 * 2), stack).data.max() == 1
    membrane = Stack(stack.data[..., ::-1], "probabilities", FLAT, ("background", "membrane"))
    np.testing.assert_array_equal(apply_chain(chain(kind="membrane"), membrane).data, apply_chain(chain(), stack).data)


def test_links_are_those_of_brute_force() -> None:
    rng = np.random.default_rng(2)
    for _ in range(20):
        first = np.kron(rng.integers(0, 5, (4, 5)), np.ones((3, 3), int))
        labels = np.stack([first, np.where(rng.random(first.shape) < 0.75, first, rng.integers(0, 6, first.shape))])
        labels[1] = np.concatenate([[0], rng.permutation(9) + 1])[labels[1]]
        ids = link_sections(labels)
        for z in range(2):
            assert same_partition(ids[z], labels[z])
            np.testing.assert_array_equal(ids[z] > 0, labels[z] > 0)
        for a in np.unique(labels[0][labels[0] > 0]):
            for b in np.unique(labels[1][labels[1] > 0]):
                one, two = labels[0] == a, labels[1] == b
                linked = ids[0][one][0] == ids[1][two][0]
                assert linked == ((one & two).sum() / (one | two).sum() > 0.5)


def test_below_half_the_best_partner_is_taken() -> None:
    labels = np.zeros((2, 1, 10), int)
    labels[0] = 5
    labels[1, 0, :4], labels[1, 0, 4:7], labels[1, 0, 7:] = 1, 2, 3
    np.testing.assert_array_equal(link_sections(labels, 0.2)[1, 0], [1] * 4 + [2] * 3 + [3] * 3)
    assert link_sections(labels, 0.5)[1].min() == 2
    labels[1, 0] = [1] * 5 + [2] * 5
    np.testing.assert_array_equal(link_sections(labels, 0.2)[1, 0], [1] * 5 + [2] * 5)


def test_links_do_not_depend_on_ids_or_empty_sections() -> None:
    rng = np.random.default_rng(4)
    labels = np.kron(rng.integers(0, 4, (5, 4, 4)), np.ones((1, 3, 3), int))
    labels[2] = 0
    ids = link_sections(labels)
    table = np.concatenate([[0], rng.permutation(40)[:8] + 10])
    assert same_partition(ids, link_sections(table[labels]))
    assert not set(np.unique(ids[:2])) & set(np.unique(ids[3:])) - {0}
    np.testing.assert_array_equal(np.unique(ids[ids > 0]), np.arange(1, ids.max() + 1))


@pytest.mark.parametrize("voxel_nm", [FLAT, CUBIC])
def test_blocks_do_not_matter_where_the_halo_holds_the_objects(voxel_nm: tuple[float, float, float]) -> None:
    p = balls((12, 64, 64), [(6, y, x) for y in (10, 26, 42) for x in (12, 30, 50)], 6.5)
    if voxel_nm == FLAT:
        p = np.repeat(p[6:7], 12, 0)
    stack = stack_of(p, voxel_nm)
    whole = apply_chain(chain(), stack)
    lazy = apply_chain(
        chain(halo_px=16),
        replace(stack, data=da.from_array(stack.data, chunks=(5 if voxel_nm == FLAT else 12, 33, 31, 1))),
    )
    assert lazy.lazy
    assert whole.data.max() == 9
    assert same_partition(lazy.data.compute(), whole.data)
