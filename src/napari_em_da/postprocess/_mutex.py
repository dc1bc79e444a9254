"""Mutex watershed of affinities without any library: pairs from strong to weak, merges, and mutual exclusions.

Exclusions are kept twice: pairs of clusters in a hash table, which answers whether two may merge, and a linked list
of partners per cluster, which says what the winner of a merge inherits.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from napari_em_da.errors import ResourceError
from napari_em_da.postprocess._affinities import Offsets, _sides
from napari_em_da.weights._compiled import compiled

Keys = npt.NDArray[np.uint64]
Ids = npt.NDArray[np.uint32]
Mask = npt.NDArray[np.bool_]


def mutex_partition(
    weights: npt.NDArray[np.float32],
    offsets: Offsets,
    attractive: int,
    strides: Sequence[int] | None = None,
    mask: Mask | None = None,
) -> Ids:
    """Partition a grid by pairs of voxels, the heaviest first.

    Parameters
    ----------
    weights : (K, *shape) float32
        Of the pairs of x and x + offset: how surely they belong together in the attractive channels, apart in others.
    offsets : K offsets with one step per axis
    attractive : int
        This many channels attract, and come first.
    strides : one int per axis, optional
        Repulsive pairs start at voxels on this grid only.
    mask : bool array of the shape of one channel, optional
        False voxels become 0 and take part in no pair.

    Returns
    -------
    uint32 array of the shape of one channel
        Ids 1 to n in the order of their first voxels.

    Raises
    ------
    ResourceError
        If there are 2^32 weights or more: pairs are sorted as 64-bit integers, half of them the place.

    Notes
    -----
    Pairs of one weight are taken in the order of their channels, then of their voxels, and ids are numbered by first
    voxel: all as in bioimage-cpp 0.9.

    References
    ----------
    Wolf et al. (2018), The mutex watershed: efficient, parameter-free image partitioning.
    """
    if weights.size >= 1 << 32:
        raise ResourceError(
            f"{weights.size} pairs of voxels are too many for one mutex watershed, which takes {2**32 - 1}; "
            "work in blocks (a lazy stack)."
        )
    shape = weights.shape[1:]
    keys = [_pairs(weights, offsets, channel, None, mask) for channel in range(attractive)]
    keys += [_pairs(weights, offsets, channel, strides, mask) for channel in range(attractive, len(offsets))]
    repulsions = sum(map(len, keys[attractive:]))
    ordered = np.sort(np.concatenate(keys))
    steps = np.cumprod([1, *shape[:0:-1]])[::-1]
    jumps = np.array([int(np.dot(offset, steps)) for offset in offsets], np.int64)
    parent = np.arange(int(np.prod(shape)))
    _cluster(ordered, jumps, attractive, repulsions, parent)
    inside = np.ones(shape, np.bool_) if mask is None else mask
    ids: Ids = _numbered(parent, inside.ravel()).reshape(shape)
    return ids


def _pairs(
    weights: npt.NDArray[np.float32], offsets: Offsets, channel: int, strides: Sequence[int] | None, mask: Mask | None
) -> Keys:
    """Return a number per pair of one channel: its weight above, so that heavy ones sort first, and its place below."""
    shape = weights.shape[1:]
    here, there = _sides(shape, offsets[channel])
    chosen = np.zeros(shape, np.bool_)
    chosen[here] = True if mask is None else mask[here] & mask[there]
    if strides is not None:
        start = np.zeros(shape, np.bool_)
        start[tuple(slice(None, None, step) for step in strides)] = True
        chosen &= start
    place = np.flatnonzero(chosen)
    bits = (weights[channel].ravel()[place] + np.float32(0)).view(np.uint32)  # + 0 makes one zero of two
    falling = np.where(bits >> 31, bits, ~bits & np.uint32(0x7FFFFFFF))  # floats sort as such integers, upside down
    keys: Keys = (falling.astype(np.uint64) << np.uint64(32)) | (place + channel * chosen.size).astype(np.uint64)
    return keys


@compiled
def _root(parent, node):  # type: ignore[no-untyped-def]  # pragma: no cover
    while parent[node] != node:
        parent[node] = parent[parent[node]]
        node = parent[node]
    return node


@compiled
def _key(a, b):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Return one number, never 0, for two clusters."""
    return (np.uint64(min(a, b)) << np.uint64(32)) | np.uint64(max(a, b))


@compiled
def _slot(table, key):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Return where the key is, or where it belongs."""
    mixed = key * np.uint64(0x9E3779B97F4A7C15)
    last = table.size - 1
    slot = np.int64(mixed >> np.uint64(32)) & last
    while table[slot] != 0 and table[slot] != key:
        slot = (slot + 1) & last
    return slot


@compiled
def _grown(table, parent):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Return a table with the pairs of existing clusters, at most a quarter full, and how many; the old is used up."""
    live = 0
    for key in table:
        a, b = np.int64(key >> np.uint64(32)), np.int64(key & np.uint64(0xFFFFFFFF))
        if key != 0 and parent[a] == a and parent[b] == b:
            table[live] = key
            live += 1
    size = 1024
    while size < 4 * live:
        size *= 2
    larger = np.zeros(size, np.uint64)
    for key in table[:live]:
        larger[_slot(larger, key)] = key
    return larger, live


@compiled
def _cluster(ordered, jumps, attractive, repulsions, parent):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Merge voxels in ``parent``; each list of partners starts at ``first`` and goes on at ``after``."""
    n = parent.size
    table, used = np.zeros(1024, np.uint64), 0
    first, count = np.full(n, -1, np.int64), np.zeros(n, np.int64)
    partner, after = np.empty(2 * repulsions, np.int64), np.empty(2 * repulsions, np.int64)
    entry = 0
    for number in ordered:
        place = np.int64(number & np.uint64(0xFFFFFFFF))
        channel = place // n
        voxel = place - channel * n
        a, b = _root(parent, voxel), _root(parent, voxel + jumps[channel])
        if a == b:
            continue
        if channel < attractive:
            if count[a] == 0 or count[b] == 0 or table[_slot(table, _key(a, b))] == 0:
                if count[a] < count[b]:
                    a, b = b, a
                parent[b] = a
                table, used = _inherit(a, b, parent, first, count, partner, after, table, used)
            continue
        slot = _slot(table, _key(a, b))
        if table[slot] == 0:
            table[slot] = _key(a, b)
            for one, other in ((a, b), (b, a)):
                partner[entry], after[entry], first[one] = other, first[one], entry
                count[one] += 1
                entry += 1
            used += 1
            if 2 * used > table.size:
                table, used = _grown(table, parent)


@compiled
def _inherit(a, b, parent, first, count, partner, after, table, used):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Let ``a`` exclude what ``b``, now part of it, excludes; return the table and its number of pairs.

    The partners' own lists still name b, whose root is a, and may name a twice. Keys of clusters that are gone stay in
    the table until it grows: nobody asks for them.
    """
    entry = first[b]
    while entry >= 0:
        following = after[entry]
        key = _key(a, _root(parent, partner[entry]))
        slot = _slot(table, key)
        if table[slot] == 0:
            table[slot] = key
            after[entry], first[a] = first[a], entry
            count[a] += 1
            used += 1
            if 2 * used > table.size:
                table, used = _grown(table, parent)
        entry = following
    return table, used


@compiled
def _numbered(parent, inside):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Return ids from 1 in the order of first voxels; 0 outside."""
    ids = np.zeros(parent.size, np.uint32)
    number = np.zeros(parent.size, np.uint32)
    highest = 0
    for voxel in range(parent.size):
        if inside[voxel]:
            root = _root(parent, voxel)
            if number[root] == 0:
                highest += 1
                number[root] = highest
            ids[voxel] = number[root]
    return ids
