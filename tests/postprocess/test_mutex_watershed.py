"""Affinities and mutex watershed: the specification's image, sign conventions, masks and blocks."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
from scipy import ndimage
from skimage.draw import line

from napari_em_da.config import ChainConfig
from napari_em_da.errors import ConfigError, DataError
from napari_em_da.postprocess import Stack, apply_chain
from napari_em_da.postprocess._affinities import affinity_targets, boundary_of, membrane_affinities
from napari_em_da.postprocess.mutex_watershed import from_boundary, mutex_watershed, offsets_for

OFFSETS = [(-1, 0), (0, -1), (-3, 0), (0, -3)]


def two_cells():
    labels = np.ones((8, 9), np.uint32)
    labels[:, 4] = 0
    labels[:, 5:] = 2
    return labels


def membranes(seed, shape=(12, 60, 60), cells=12):
    """Return Voronoi cells and a membrane probability with noise."""
    rng = np.random.default_rng(seed)
    centres = rng.uniform(0, shape, (cells, 3))
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    near = np.sort(((grid[..., None, :] - centres) ** 2 * (4, 1, 1)).sum(-1), -1)
    which = ((grid[..., None, :] - centres) ** 2 * (4, 1, 1)).sum(-1).argmin(-1) + 1
    membrane = (np.sqrt(near[..., 1]) - np.sqrt(near[..., 0])) < 3
    noise = rng.uniform(0, 0.1, shape)
    return which, membrane, np.where(membrane, 1 - noise, noise).astype(np.float32)


def stack_of(membrane, **options):
    return Stack(np.stack([1 - membrane, membrane], -1).astype(np.float32), "probabilities", **options)


@pytest.mark.parametrize("source", ["labels", "membrane"])
@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 1, 2, 0]])
def test_two_cells_and_a_membrane_give_two_ids(source, order):
    offsets = [OFFSETS[i] for i in order]
    labels = two_cells()
    membrane = (labels == 0).astype(np.float32)
    affinities = affinity_targets(labels, offsets) if source == "labels" else membrane_affinities(membrane, offsets)
    ids = mutex_watershed(affinities, offsets)
    assert len(np.unique(ids[labels > 0])) == 2
    assert all(len(np.unique(ids[labels == cell])) == 1 for cell in (1, 2))
    masked = mutex_watershed(affinities, offsets, mask=labels > 0)
    assert np.unique(masked).tolist() == [0, 1, 2] and ((masked == 0) == (labels == 0)).all()


def test_a_weak_gap_in_a_membrane_is_closed_by_repulsion():
    membrane = np.full((1, 15, 21), 0.05, np.float32)
    membrane[:, :, 10] = 0.95
    membrane[:, 7, 10] = 0.4
    offsets = [(0, -1, 0), (0, 0, -1), (0, 0, -3), (0, -3, -3), (0, -3, 3)]
    ids = from_boundary(membrane, offsets, stride=1)
    assert (ids[0, :, :10] == ids[0, 0, 0]).all() and (ids[0, :, 11:] == ids[0, 0, 20]).all()
    assert ids[0, 0, 0] != ids[0, 0, 20]
    assert ndimage.label(membrane < 0.5)[1] == 1  # components cannot


def test_filling_leaves_no_zero_and_keeps_the_objects():
    _, _, p = membranes(1)
    offsets = offsets_for((8.0, 4.0, 4.0), 24)
    filled, open_ = from_boundary(p, offsets), from_boundary(p, offsets, fill=False)
    assert (filled > 0).all() and ((open_ == 0) == (p >= 0.5)).all()
    assert (filled[open_ > 0] == open_[open_ > 0]).all()


def test_affinity_targets_repeat_the_definition():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, (4, 6, 7))
    offsets = [(-1, 0, 0), (0, 2, -3), (1, -5, 2), (0, 0, 6), (0, 0, 9), (4, 0, 0)]
    found = affinity_targets(labels, offsets)
    for channel, offset in zip(found, offsets, strict=True):
        for x in np.ndindex(labels.shape):
            other = tuple(np.add(x, offset))
            inside = all(0 <= o < n for o, n in zip(other, labels.shape, strict=True))
            assert channel[x] == (inside and labels[x] == labels[other] != 0)


@pytest.mark.parametrize("offset", [(0, -1), (1, 0), (0, 5), (-4, 0), (3, 3), (-3, 3)])
def test_membrane_affinities_take_the_largest_probability_on_the_way(offset):
    p = np.random.default_rng(1).random((9, 10), np.float32)
    (found,) = membrane_affinities(p, [offset])
    for x in np.ndindex(p.shape):
        end = tuple(np.add(x, offset))
        if all(0 <= o < n for o, n in zip(end, p.shape, strict=True)):
            assert found[x] == np.float32(1) - p[line(*x, *end)].max()
        else:
            assert found[x] == 0


def test_an_affinity_is_the_same_from_either_end():
    p = np.random.default_rng(2).random((5, 12, 12), np.float32)
    for offset in offsets_for((50.0, 10.0, 10.0), 60.0)[3:]:
        forth, back = membrane_affinities(p, [offset, tuple(-o for o in offset)])
        moved = np.roll(forth, offset, (0, 1, 2))
        assert (moved[back > 0] == back[back > 0]).all() and (back > 0).any()


def test_cells_are_found_in_memory_and_in_blocks(tmp_path):
    which, membrane, p = membranes(2, (24, 64, 64), 16)
    chain = ChainConfig(steps=[{"mutex_watershed": {"reach_nm": 24}}])
    whole = apply_chain(chain, stack_of(p, voxel_nm=(8, 4, 4))).data
    lazy = stack_of(p, voxel_nm=(8, 4, 4), work=tmp_path)
    lazy = lazy.with_data(da.from_array(lazy.data, chunks=(12, 32, 32, 1)))
    blocks = apply_chain(chain, lazy)
    ids = blocks.data.compute()
    assert blocks.data.numblocks == (2, 2, 2) and blocks.holds == "instances"
    for found in (whole, ids):
        sizes = [np.bincount(found[(which == c) & ~membrane]) for c in np.unique(which)]
        assert np.mean([s.max() / s.sum() for s in sizes if s.size]) > 0.99  # cells in one piece
        assert len({int(s.argmax()) for s in sizes if s.size}) == sum(s.size > 0 for s in sizes)  # and apart


def test_an_object_through_eight_blocks_has_one_id():
    membrane = np.zeros((24, 48, 48), np.float32)
    membrane[4:20, 8:40, 8:40] = 1
    membrane[6:18, 10:38, 10:38] = 0
    stack = stack_of(membrane, voxel_nm=(8, 8, 8))
    stack = stack.with_data(da.from_array(stack.data, chunks=(12, 24, 24, 2)))
    chain = ChainConfig(steps=[{"mutex_watershed": {"reach_nm": 24, "fill": False}}])
    result = apply_chain(chain, stack).data
    ids = result.compute()
    inner = np.unique(ids[6:18, 10:38, 10:38])
    assert result.numblocks == (2, 2, 2) and len(inner) == 1 and inner[0] > 0
    assert np.unique(ids).tolist() == [0, 1, 2]


def test_objects_leave_their_background_empty():
    p = np.zeros((4, 20, 20), np.float32)
    p[:, 2:8, 2:18] = p[:, 11:18, 2:18] = 0.9
    chain = ChainConfig(steps=[{"mutex_watershed": {"kind": "object"}}])
    ids = apply_chain(chain, stack_of(p, voxel_nm=(10, 10, 10))).data
    assert ((ids > 0) == (p > 0.5)).all() and len(np.unique(ids)) == 3


@pytest.mark.parametrize("reach", [1, 30, 100])
def test_offsets_follow_the_voxel_size(reach):
    offsets = offsets_for((50.0, 5.0, 5.0), reach)
    assert len(set(offsets)) == len(offsets)
    assert [sum(map(abs, o)) for o in offsets[:3]] == [1, 1, 1]
    assert all(sum(map(abs, o)) >= 2 for o in offsets[3:])
    assert (0, -max(2, reach // 5), 0) in offsets


def test_what_cannot_work_says_so():
    stack = Stack(np.zeros((1, 4, 4, 3), np.float32), "probabilities", (1, 1, 1), ("a", "b", "c"))
    with pytest.raises(ConfigError, match="3 classes; name the one"):
        boundary_of(stack, "membrane", None)
    with pytest.raises(ConfigError, match="Unknown class"):
        boundary_of(stack, "membrane", "d")
    with pytest.raises(ConfigError, match="needs 2 steps"):
        affinity_targets(np.zeros((3, 3), int), [(0, 0)])
    with pytest.raises(ConfigError, match="voxel size is unknown"):
        apply_chain(ChainConfig(steps=["mutex_watershed"]), stack_of(np.zeros((1, 4, 4))))


def test_offsets_that_do_not_fit_say_so():
    affinities = np.zeros((2, 4, 4), np.float32)
    with pytest.raises(DataError, match="as many offsets, not 1"):
        mutex_watershed(affinities, OFFSETS[:1])
    with pytest.raises(ConfigError, match="nearest neighbour"):
        mutex_watershed(affinities, OFFSETS[2:])
    with pytest.raises(ConfigError, match=r"\(0, 0, -1\) needs 2 steps"):
        mutex_watershed(affinities, [OFFSETS[0], (0, 0, -1)])
    with pytest.raises(ConfigError, match=r"\(1, 2, 2\) needs 2 steps"):
        mutex_watershed(affinities, OFFSETS[:2], strides=(1, 2, 2))
    with pytest.raises(DataError, match="mask"):
        mutex_watershed(affinities, OFFSETS[:2], mask=np.ones((4, 5), bool))
