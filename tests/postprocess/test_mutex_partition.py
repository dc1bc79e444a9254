"""Our own mutex watershed against bioimage-cpp, id by id, and against the algorithm in a few lines of Python."""

from __future__ import annotations

import numpy as np
import pytest

from napari_em_da.errors import ResourceError
from napari_em_da.postprocess._blocks import consecutive
from napari_em_da.postprocess._mutex import mutex_partition

PLANE = [(-1, 0), (0, -1), (-3, 0), (0, -3), (2, -2), (-5, 4), (40, 0)]  # the last one leaves the image
VOLUME = [(-1, 0, 0), (0, -1, 0), (0, 0, -1), (-2, 0, 0), (0, -4, 0), (0, 3, -4), (0, 0, 5), (1, -1, 0)]
LEVELS = pytest.mark.parametrize("levels", [None, 20, 1])  # distinct weights, or ties


def weights(rng, offsets, shape, levels):
    size = (len(offsets), *shape)
    if levels is None:
        return (rng.permutation(int(np.prod(size))).reshape(size) / np.prod(size)).astype(np.float32)
    return (rng.integers(0, levels + 1, size) / levels).astype(np.float32)


def definition(weights, offsets, attractive, strides, mask):
    """Return the partition by clusters as sets of voxels and exclusions as pairs of voxels; slow and plain."""
    pairs = []
    for channel, offset in enumerate(offsets):
        for x in np.ndindex(weights.shape[1:]):
            y = tuple(int(i) for i in np.add(x, offset))
            inside = all(0 <= i < n for i, n in zip(y, mask.shape, strict=True)) and mask[x] and mask[y]
            if inside and (channel < attractive or not np.mod(x, strides).any()):
                pairs.append((-weights[(channel, *x)], channel, x, y))
    cluster = {x: {x} for x in np.ndindex(mask.shape)}
    apart = set()
    for _, channel, x, y in sorted(pairs):
        if channel >= attractive:
            if cluster[x] is not cluster[y]:
                apart |= {(x, y), (y, x)}
        elif cluster[x] is not cluster[y] and not any((a, b) in apart for a in cluster[x] for b in cluster[y]):
            cluster[x] |= cluster[y]
            for z in cluster[y]:
                cluster[z] = cluster[x]
    ids = np.zeros(mask.shape, int)
    for x in np.ndindex(mask.shape):
        if mask[x] and not ids[x]:
            ids[tuple(np.transpose(list(cluster[x])))] = ids.max() + 1
    return ids


@LEVELS
@pytest.mark.parametrize("seed", range(3))
def test_the_partition_is_that_of_the_definition(levels, seed):
    rng = np.random.default_rng(seed)
    for offsets, shape, strides, attractive in (PLANE, (8, 9), (1, 2), 2), (VOLUME, (3, 5, 6), (1, 2, 1), 3):
        given = weights(rng, offsets, shape, levels) - np.float32(0.5)  # weights may be negative, too
        mask = rng.random(shape) < 0.9
        expected = definition(given, offsets, attractive, strides, mask)
        assert (mutex_partition(given, offsets, attractive, strides, mask) == expected).all()
        assert expected.max() > 1


@LEVELS
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("strided", [False, True])
def test_ids_are_those_of_bioimage_cpp(levels, masked, strided):
    library = pytest.importorskip("bioimage_cpp.segmentation")
    for seed in range(5):
        rng = np.random.default_rng(seed)
        for offsets, shape, strides, attractive in (PLANE, (31, 27), (2, 3), 2), (VOLUME, (7, 23, 26), (1, 3, 2), 3):
            given = weights(rng, offsets, shape, levels)
            mask = rng.random(shape) < 0.8 if masked else None
            steps = strides if strided else None
            found = mutex_partition(given, offsets, attractive, steps, mask)
            theirs = library.mutex_watershed(given, offsets, attractive, strides=steps, mask=mask)
            assert (found == consecutive(theirs)[0]).all() and found.dtype == np.uint32


def test_both_zeros_are_one_weight():
    given = weights(np.random.default_rng(0), PLANE, (12, 13), 3)
    signed = np.where((given == 0) & (np.indices(given.shape).sum(0) % 2 == 0), np.float32(-0.0), given)
    assert np.signbit(signed).any()
    assert (mutex_partition(given, PLANE, 2) == mutex_partition(signed, PLANE, 2)).all()


def test_without_repulsion_everything_is_one_and_without_pairs_nothing_is():
    given = np.random.default_rng(0).random((2, 5, 6)).astype(np.float32)
    assert (mutex_partition(given, PLANE[:2], 2) == 1).all()
    assert mutex_partition(given[:1], [(0, 9)], 1).ravel().tolist() == list(range(1, 31))
    assert (mutex_partition(given, PLANE[:2], 2, mask=np.zeros((5, 6), bool)) == 0).all()


def test_too_many_pairs_say_so():
    many = np.broadcast_to(np.float32(0), (4, 1 << 15, 1 << 15))
    with pytest.raises(ResourceError, match="4294967296 pairs of voxels"):
        mutex_partition(many, PLANE[:4], 2)
