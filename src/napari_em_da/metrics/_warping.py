"""Warping one annotated section onto a prediction without changing its topology, and naming what is left.

Objects are 4-connected and the background between and around them 8-connected; outside the section is background.
"""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt

from napari_em_da.metrics._sections import Mask, components

Binary = npt.NDArray[np.uint8]
Offsets = npt.NDArray[np.int64]

KINDS = ("object_deletion", "object_addition", "hole_deletion", "hole_addition", "merge", "split")
"""What a mismatch that no warping removes does to the annotation; `classify` maps them as 1, 2, …, 6."""
_CODE = {name: code for code, name in enumerate(KINDS, 1)}
_CLOCKWISE = ((-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1))  # from the north


def simple_points() -> Mask:
    """Say for each 3x3 neighbourhood whether flipping its centre keeps the topology.

    Bit k of the index is neighbour k, clockwise from the north. The centre is simple iff exactly one 4-connected
    object component of the neighbourhood touches it by an edge and exactly one 8-connected background component
    touches it, which is where Yokoi's number Σ_{k∈{N,E,S,W}} (x_k − x_k·x_{k+1}·x_{k+2}) is 1.

    Returns
    -------
    (256,) bool
        True for 116 neighbourhoods.

    References
    ----------
    Yokoi, Toriwaki & Fukumura (1975), An analysis of topological properties of digitized binary pictures.
    """
    x = (np.arange(256)[:, None] >> np.arange(8)) & 1
    number = sum(x[:, k] - x[:, k] * x[:, k + 1] * x[:, (k + 2) % 8] for k in (0, 2, 4, 6))
    return np.asarray(number == 1)


_SIMPLE = simple_points()


def warp(labels: Mask, prediction: npt.NDArray[np.float32], threshold: float, mask: Mask | None = None) -> Mask:
    """Deform an annotation towards ``prediction > threshold`` by flipping simple points.

    Sweep after sweep, all mismatches are visited once in the order of |prediction − threshold|, largest first
    (equal ones in raster order), and each one is flipped if it is simple at that moment, until a sweep flips none.

    Parameters
    ----------
    labels : (Y, X) bool
        True inside annotated objects.
    prediction : (Y, X) float32
        Probability of object.
    threshold : float
        Predicted objects are where the probability exceeds it.
    mask : (Y, X) bool, optional
        Only True pixels are flipped.

    Returns
    -------
    (Y, X) bool
        The warped annotation, with as many objects and holes as before. It is a local optimum that depends on the
        order.

    References
    ----------
    Jain et al. (2010), Boundary learning by optimization with topological constraints, algorithm 1.
    """
    wrong = labels != (prediction > threshold)
    if mask is not None:
        wrong &= mask
    warped = np.pad(labels.view(np.uint8), 1)
    rows, columns = np.nonzero(wrong)
    sure = np.abs(prediction[rows, columns] - np.float32(threshold))
    order = ((rows + 1) * warped.shape[1] + columns + 1)[np.argsort(-sure, kind="stable")]
    _flip(warped.reshape(-1), order, _offsets(warped.shape[1]), _SIMPLE)
    return warped[1:-1, 1:-1].astype(np.bool_)


@numba.njit(nogil=True, cache=True)
def _flip(image, order, offsets, simple):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Flip simple points in sweeps over ``order``.

    A pixel that was not simple at its last visit cannot be so before a neighbour flips; only such `pending` pixels
    are looked at again, which leaves the result of the plain sweeps as it is.
    """
    count = order.shape[0]
    rank = np.full(image.shape[0], -1, np.int32)
    for r in range(count):
        rank[order[r]] = r
    pending = np.ones(count, np.bool_)
    begin = 0
    while begin < count:
        again = count  # first rank of the next sweep
        for r in range(begin, count):
            if not pending[r]:
                continue
            pending[r] = False
            code = 0
            for k in range(8):
                code |= image[order[r] + offsets[k]] << k
            if not simple[code]:
                continue
            image[order[r]] ^= 1
            rank[order[r]] = -1
            for k in range(8):
                neighbour = rank[order[r] + offsets[k]]
                if neighbour >= 0:
                    pending[neighbour] = True
                    if neighbour < r:
                        again = min(again, neighbour)
        begin = again


def classify(
    warped: Mask, predicted: Mask, mask: Mask | None = None, *, window: int | None = None
) -> tuple[dict[str, int], Binary]:
    """Say what each remaining mismatch does to the objects of the warped annotation.

    With the 4-connected components of the warped annotation, a mismatch is named by the set of components among its
    8 neighbours, 0 being background: two objects or more make a predicted object pixel a merge and a predicted
    background pixel a split. A background pixel predicted at the edge of one object is a split if the object falls
    apart without it, and opens (deletes) a hole otherwise.

    Parameters
    ----------
    warped : (Y, X) bool
        From `warp`.
    predicted : (Y, X) bool
        True where objects are predicted.
    mask : (Y, X) bool, optional
        Only True pixels are classified.
    window : int, optional
        An object falls apart if it does so within this distance of the pixel; by default if it really does.

    Returns
    -------
    counts : dict
        Number of pixels of each of `KINDS`.
    kinds : (Y, X) uint8
        0 where both agree, else 1 + the position in `KINDS`.

    References
    ----------
    Jain et al. (2010), Boundary learning by optimization with topological constraints.
    Arganda-Carreras et al. (2015), Crowdsourcing the creation of image segmentation algorithms for connectomics.
    """
    wrong = warped != predicted
    if mask is not None:
        wrong &= mask
    image = np.pad(warped.view(np.uint8), 1)
    objects = components(image).reshape(-1)
    places = np.flatnonzero(np.pad(wrong, 1))
    around = objects[places + _offsets(image.shape[1])[:, None]]  # (8, mismatches)
    last = around.max(0)
    first = np.where(around > 0, around, last).min(0)
    object_here = image.reshape(-1)[places] > 0
    several, alone, edge = first != last, last == 0, (around == 0).any(0)
    kind = np.where(object_here, _CODE["hole_addition"], _CODE["hole_deletion"])
    kind[edge & ~object_here] = _CODE["hole_addition"]
    kind[several] = np.where(object_here, _CODE["split"], _CODE["merge"])[several]
    kind[alone] = np.where(object_here, _CODE["object_deletion"], _CODE["object_addition"])[alone]
    unclear = object_here & edge & ~several & ~alone
    apart = _apart(image, places[unclear], window)
    kind[unclear] = np.where(apart, _CODE["split"], _CODE["hole_deletion"])
    kinds = np.zeros(image.shape, np.uint8)
    kinds.reshape(-1)[places] = kind
    counts = np.bincount(kind, minlength=len(KINDS) + 1)
    return {name: int(counts[code]) for name, code in _CODE.items()}, np.ascontiguousarray(kinds[1:-1, 1:-1])


def _offsets(width: int) -> Offsets:
    return np.array([dy * width + dx for dy, dx in _CLOCKWISE], np.int64)


def _apart(image: Binary, places: npt.NDArray[np.int64], window: int | None) -> Mask:
    """Say for each object pixel whether its object falls apart without it."""
    if window is None:
        return np.asarray(_cuts(image.reshape(-1), places, _offsets(image.shape[1])[::2]))
    found = np.zeros(len(places), np.bool_)
    for i, (y, x) in enumerate(zip(*np.divmod(places, image.shape[1]), strict=True)):
        top, left = max(0, y - window), max(0, x - window)
        near = image[top : y + window + 1, left : x + window + 1].copy()
        near[y - top, x - left] = 0
        around = components(near)[y - top - 1 : y - top + 2, x - left - 1 : x - left + 2]
        found[i] = len(np.unique(around[around > 0])) > 1
    return found


@numba.njit(nogil=True, cache=True)
def _cuts(image, places, offsets):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Say for each place whether it is a cut vertex of its 4-connected object (Hopcroft & Tarjan 1973)."""
    found = np.zeros(image.shape[0], np.int32)  # when the search found a pixel; 0: not yet
    low = np.zeros(image.shape[0], np.int32)  # earliest pixel that its subtree touches
    side = np.zeros(image.shape[0], np.uint8)  # neighbours looked at
    cut = np.zeros(image.shape[0], np.bool_)
    path = np.empty(image.shape[0], np.int64)
    clock = 0
    for root in places:
        if found[root]:
            continue
        clock += 1
        found[root] = low[root] = clock
        path[0] = root
        length, children = 1, 0
        while length:
            here = path[length - 1]
            if side[here] < 4:
                there = here + offsets[side[here]]
                side[here] += 1
                if found[there]:
                    low[here] = min(low[here], found[there])
                elif image[there]:
                    clock += 1
                    found[there] = low[there] = clock
                    path[length] = there
                    length += 1
                continue
            length -= 1
            if not length:
                break
            parent = path[length - 1]
            low[parent] = min(low[parent], low[here])
            if length == 1:
                children += 1
            elif low[here] >= found[parent]:
                cut[parent] = True
        cut[root] = children > 1
    return cut[places]
