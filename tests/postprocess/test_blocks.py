"""Instances of lazy stacks: block by block as in one piece, restartable, with ids that agree across borders."""

from __future__ import annotations

import gc
import pickle

import dask.array as da
import numpy as np
import pytest
from scipy import ndimage

from napari_em_da.errors import DataError, ResourceError
from napari_em_da.events import Progress
from napari_em_da.postprocess._base import Stack
from napari_em_da.postprocess._blocks import grid, instances_by_block, same_objects


def finish(work):
    while True:
        try:
            next(work)
        except StopIteration as end:
            return end.value


def label(stack):
    assert isinstance(stack.data, np.ndarray)
    return ndimage.label(stack.data)[0].astype(np.uint32)


class Counting:
    def __init__(self):
        self.calls = 0

    def __call__(self, stack):
        self.calls += 1
        return label(stack)


def lazy(mask, chunks, **stack):
    return Stack(da.from_array(mask, chunks=chunks), "labels", **stack)


def blobs(seed, shape=(18, 40, 40), sigma=2.0):
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), sigma)
    return (noise > noise.std()).astype(np.uint8)


def same_partition(a, b):
    pairs = np.unique(np.stack([np.ravel(a), np.ravel(b)], 1), axis=0)
    return len(pairs) == len(np.unique(a)) == len(np.unique(b)) and ((pairs > 0).all(1) | (pairs == 0).all(1)).all()


def test_an_object_through_eight_blocks_has_one_id():
    mask = np.zeros((16, 16, 16), np.uint8)
    mask[4:12, 4:12, 4:12] = 1
    mask[1, 1, 1] = mask[14, 1, 14] = 1
    result = finish(instances_by_block(lazy(mask, (8, 8, 8)), label, (2, 2, 2)))
    ids = result.data.compute()
    assert result.holds == "instances" and ids.dtype == np.uint32
    assert same_partition(ids, ndimage.label(mask)[0])
    assert np.unique(ids).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("seed", range(6))
def test_random_chunks_and_depths_agree_with_the_whole(seed):
    rng = np.random.default_rng(seed)
    centres = rng.integers(0, (18, 40, 40), (30, 3))
    mask = np.zeros((18, 40, 40), np.uint8)
    for z, y, x in centres:
        mask[max(z - 1, 0) : z + 2, max(y - 2, 0) : y + 3, max(x - 2, 0) : x + 3] = 1  # small beside the halo
    chunks = tuple(int(n) for n in rng.integers(3, (19, 41, 41)))
    depth = tuple(int(n) for n in rng.integers(3, 6, 3))
    result = finish(instances_by_block(lazy(mask, chunks), label, depth))
    ids = result.data.compute()
    whole, count = ndimage.label(mask)
    assert ids.max() == len(np.unique(ids)) - 1  # ids are consecutive
    split = len(np.unique(np.stack([whole[mask > 0], ids[mask > 0]], 1), axis=0))
    merged = sum(len(np.unique(whole[ids == i])) > 1 for i in range(1, ids.max() + 1))
    assert merged == 0 and split == count


def test_irregular_blobs_are_never_merged_wrongly():
    mask = blobs(1)
    ids = finish(instances_by_block(lazy(mask, (9, 13, 17)), label, (3, 4, 4))).data.compute()
    whole = ndimage.label(mask)[0]
    assert ((ids > 0) == (mask > 0)).all()
    assert all(len(np.unique(whole[ids == i])) == 1 for i in range(1, ids.max() + 1))


def test_depth_zero_ends_objects_at_the_faces_of_that_axis():
    mask = np.ones((4, 8, 8), np.uint8)
    ids = finish(instances_by_block(lazy(mask, (2, 4, 4)), label, (0, 1, 1))).data.compute()
    assert (ids[:2] == 1).all() and (ids[2:] == 2).all()


def test_an_empty_volume_has_no_ids():
    ids = finish(instances_by_block(lazy(np.zeros((4, 9, 9), np.uint8), (2, 4, 4)), label, (1, 1, 1))).data
    assert ids.chunks and not ids.compute().any()


def test_an_interrupted_run_goes_on_where_it_stopped(tmp_path):
    mask = blobs(2)
    stack = lazy(mask, (9, 20, 20), work=tmp_path)
    first = Counting()
    work = instances_by_block(stack, first, (2, 3, 3), "a")
    events = [next(work) for _ in range(4)]
    work.close()
    assert events[-1] == Progress(3, 8, "blocks", "objects") and first.calls == 3
    second = Counting()
    again = lazy(mask, (9, 20, 20), work=tmp_path)  # another dask graph of the same voxels
    ids = finish(instances_by_block(again, second, (2, 3, 3), "a")).data.compute()
    assert second.calls == 5
    assert (ids == finish(instances_by_block(lazy(mask, (9, 20, 20)), label, (2, 3, 3))).data.compute()).all()


def test_a_failure_in_one_block_leaves_no_half_file(tmp_path):
    calls = []

    def failing(stack):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return label(stack)

    stack = lazy(blobs(3), (9, 20, 20), work=tmp_path)
    with pytest.raises(KeyboardInterrupt):
        finish(instances_by_block(stack, failing, (2, 2, 2)))
    assert sorted(p.name for p in tmp_path.rglob("*.*")) == ["0.npz", "1.npz"]


@pytest.mark.parametrize("change", ["key", "depth", "voxels", "chunks"])
def test_another_job_starts_afresh(tmp_path, change):
    mask = blobs(4)
    finish(instances_by_block(lazy(mask, (9, 20, 20), work=tmp_path), label, (2, 2, 2), "a"))
    counting = Counting()
    other = 1 - mask if change == "voxels" else mask
    chunks = (9, 40, 20) if change == "chunks" else (9, 20, 20)
    depth = (3, 2, 2) if change == "depth" else (2, 2, 2)
    stack = lazy(other, chunks, work=tmp_path)
    finish(instances_by_block(stack, counting, depth, "b" if change == "key" else "a"))
    assert counting.calls == (4 if change == "chunks" else 8)


def test_temporary_blocks_vanish_with_the_array(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    result = finish(instances_by_block(lazy(blobs(5), (9, 20, 20)), label, (2, 2, 2)))
    twice = result.data[:, ::2] * 2  # what is made from the array keeps the blocks, too
    pickle.loads(pickle.dumps(list(dict(twice.dask).values())))
    expected = result.data.compute()[:, ::2] * 2
    del result
    gc.collect()
    assert (twice.compute() == expected).all()
    assert len(list(tmp_path.iterdir())) == 1
    del twice
    gc.collect()
    assert not list(tmp_path.iterdir())


def test_blocks_know_which_of_their_sections_are_labelled():
    seen = []

    def function(stack):
        seen.append((stack.shape[0], stack.labelled, stack.data[list(stack.labelled), 0, 0].tolist()))
        return label(stack)

    sections = np.arange(9, dtype=np.uint8)[:, None, None] * np.ones((1, 4, 4), np.uint8)
    finish(instances_by_block(lazy(sections, (3, 4, 4), labelled=(2, 7)), function, (1, 0, 0)))
    assert seen == [(4, (2,), [2]), (5, (0,), [2]), (4, (2,), [7])]


def test_probabilities_are_checked_where_they_are_read():
    stack = Stack(da.full((2, 4, 4, 2), 3.0, chunks=(1, 4, 4, 1), dtype=np.float32), "probabilities")
    with pytest.raises(DataError, match="between 0 and 1"):
        finish(instances_by_block(stack, lambda s: s.data[..., 1] > 0, (0, 0, 0)))


def test_a_folder_that_cannot_be_written_says_so(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    stack = lazy(blobs(6), (9, 20, 20), work=tmp_path / "file")
    with pytest.raises(ResourceError, match="Block 0 could not be written"):
        finish(instances_by_block(stack, label, (1, 1, 1)))


@pytest.mark.parametrize("seed", range(20))
def test_the_grid_covers_the_volume_with_blocks_of_twice_the_depth(seed):
    rng = np.random.default_rng(seed)
    chunks = [tuple(int(n) for n in rng.integers(1, 9, rng.integers(1, 9))) for _ in range(3)]
    depth = tuple(int(n) for n in rng.integers(0, 6, 3))
    found = grid(chunks, depth)
    for before, after, around in zip(chunks, found, depth, strict=True):
        assert sum(after) == sum(before)
        assert len(after) == 1 or min(after) >= 2 * around
        if min(before) >= 2 * around:
            assert after == before


def test_the_grid_splits_chunks_that_are_too_large():
    found = grid([(100,), (20000,), (20000,)], (8, 40, 40))
    assert [sum(sizes) for sizes in found] == [100, 20000, 20000]
    assert np.prod([max(sizes) for sizes in found]) <= 1.3 * 2**24
    assert all(min(sizes) >= 2 * around for sizes, around in zip(found, (8, 40, 40), strict=True))


def test_same_objects_are_mutual_best_overlaps_that_share_half_of_the_smaller():
    first = np.array([[1, 1, 1, 1, 2, 2, 3, 3, 3, 3, 3, 0]])
    second = np.array([[7, 7, 7, 8, 8, 8, 0, 0, 0, 9, 9, 9]])
    #  1-7 share 3; 2-8 share 2 of 2; 3-9 share 2 of 3; 1-8 share 1 and are no one's best
    assert same_objects(first, second).tolist() == [[1, 7], [2, 8], [3, 9]]
    little = np.array([[1, 1, 1, 1, 0, 0, 0]])
    assert same_objects(little, np.array([[0, 0, 0, 4, 4, 4, 4]])).tolist() == []


def test_branches_that_meet_in_one_block_only_are_one_object():
    mask = np.zeros((1, 20, 60), np.uint8)
    mask[:, 2:5, 5:50] = mask[:, 12:15, 5:50] = 1
    mask[:, 2:15, 50:53] = 1  # a hairpin: its two branches meet far from the left block
    mask[:, 8, 5:48] = 1  # and another object lies between them
    ids = finish(instances_by_block(lazy(mask, (1, 20, 30)), label, (0, 4, 4))).data.compute()
    assert same_partition(ids, ndimage.label(mask)[0])


@pytest.mark.parametrize("seed", range(10))
def test_pairs_with_an_iou_above_half_are_always_the_same(seed):
    rng = np.random.default_rng(seed)
    first = np.kron(np.arange(1, 7).reshape(2, 3), np.ones((5, 5), int))
    second = np.roll(first, rng.integers(-1, 2), seed % 2) * 10
    second[rng.random(first.shape) < 0.02] = 0
    expected = []
    for a in range(1, 7):
        for b in range(10, 70, 10):
            pieces, count = ndimage.label(second == b, np.ones((3, 3)))
            for piece in range(1, count + 1):
                both, either = ((first == a) & (pieces == piece)).sum(), ((first == a) | (pieces == piece)).sum()
                if both / either > 0.5:
                    expected.append([a, b])
    found = same_objects(first, second).tolist()
    assert expected and all(pair in found for pair in expected)
