"""Where Rand was lost: a map of splits and merges, and the pairs of voxels that each object costs.

A voxel of annotated object i and predicted object j is right where j is the segment that covers most of i, and i is
the object that j covers most of. Everything else inside annotated objects is a split, a merge, both, or missed.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from napari_em_da.errors import ConfigError
from napari_em_da.metrics._base import Kind, Pair, load, regions
from napari_em_da.metrics._contingency import NO_LABEL, Contingency, contingency
from napari_em_da.metrics._isbi import thinned
from napari_em_da.metrics._sections import Section, components, sections

RIGHT, SPLIT, MERGE, BOTH, MISSED = range(5)
NAMES = ("right", "split", "merge", "split and merge", "missed")
ErrorMap = npt.NDArray[np.uint8]
Ids = npt.NDArray[np.uint64]
_EXACT = 3_000_000_000  # squares of larger counts overflow int64


def split_merge_map(
    prediction: Any,
    labels: Any,
    *,
    kind: Kind | None = None,
    ignored: int | None = None,
    mask: Any = None,
    threshold: float = 0.5,
    thin: bool = True,
) -> Any:
    """Show where the foreground-restricted Rand score was lost.

    Parameters
    ----------
    prediction, labels : numpy or dask arrays of one shape
        Instance ids, or boundary maps (Z, Y, X) or (Y, X); the prediction of a boundary may be its probability.
    kind : {"membrane", "object", "instances"}, optional
        Boundary maps in which 1 is membrane, or the inside of objects; ids by default.
    ignored : int, optional
        Annotated value that does not count.
    mask : bool array of the same shape, optional
        Only True voxels count.
    threshold : float
        Of boundary maps: a voxel is object where its probability of object is larger.
    thin : bool
        Of boundary maps: predicted boundaries are thinned to one pixel first, as the scores do by default.

    Returns
    -------
    uint8, of the shape of the labels
        0 right, background or not counted; 1 split: outside the predicted object that covers most of the annotated
        one; 2 merge: outside the annotated object that the predicted one mostly covers; 3 both; 4 missed: annotated
        object, predicted background. A lazy dask array if either volume is one; both are then read once at once, to
        count, and again when the map is computed.

    Raises
    ------
    ConfigError
        If the kind is unknown.
    DataError
        If the shapes differ, ids are negative or no integers, or nothing is annotated.

    Notes
    -----
    Of two segments that cover equally much, the one with the smaller id is taken to be the right one. Objects of
    boundary maps are 4-connected components of each section, as in the ISBI 2012 challenge.
    """
    from napari_em_da.metrics import check_shapes

    check_shapes(prediction, labels, mask)
    if kind in (None, "instances"):
        return _of_ids(prediction, labels, ignored, mask)
    if kind not in ("membrane", "object"):
        raise ConfigError(f"kind={kind!r} must be 'membrane', 'object' or 'instances'.")
    return _of_boundaries(Pair(prediction, labels, None, ignored, mask, kind=kind), threshold, thin)


def rand_loss(table: Contingency) -> dict[str, npt.NDArray[Any]]:
    """List the objects on which the foreground-restricted Rand score loses, the most expensive first.

    Parameters
    ----------
    table : Contingency

    Returns
    -------
    dict of arrays of one length, one entry per object that costs anything
        ``label_id``, ``prediction_id`` : uint64, the annotated object that is split, or the predicted one that
        merges; 0 in the other column.
        ``pairs_split``, ``pairs_merged`` : ordered pairs of voxels lost; their sums are A − AB and B − AB.
        ``share_of_error`` : of all pairs lost, 0 to 1.

    Notes
    -----
    Object i of a_i voxels keeps the pairs inside each segment, Σ_j n_ij², and those of a missed voxel with itself,
    n_i0; segment j of b_j voxels keeps Σ_i n_ij². Beyond 3·10⁹ voxels pairs are Python integers, which are exact.

    References
    ----------
    Arganda-Carreras et al. (2015), Crowdsourcing the creation of image segmentation algorithms for connectomics.
    """
    inside = table.truth != 0
    truth, found, counts = table.truth[inside], table.found[inside], table.counts[inside]
    hit = found != 0
    kind: Any = np.int64 if counts.sum() < _EXACT else object
    counts = counts.astype(kind)
    kept = np.where(hit, counts * counts, counts)
    objects, split = _lost(truth, counts, kept)
    segments, merged = _lost(found[hit], counts[hit], kept[hit])
    columns = {
        "label_id": np.concatenate([objects, np.zeros_like(segments)]),
        "prediction_id": np.concatenate([np.zeros_like(objects), segments]),
        "pairs_split": np.concatenate([split, np.zeros(len(merged), kind)]),
        "pairs_merged": np.concatenate([np.zeros(len(split), kind), merged]),
    }
    lost = columns["pairs_split"] + columns["pairs_merged"]
    order = np.argsort(-lost, kind="stable")
    order = order[lost[order] > 0]
    total = sum(int(n) for n in lost)
    share = np.array([int(n) / total for n in lost[order]], np.float64)
    return {name: values[order] for name, values in columns.items()} | {"share_of_error": share}


def _lost(ids: Ids, counts: npt.NDArray[Any], kept: npt.NDArray[Any]) -> tuple[Ids, npt.NDArray[Any]]:
    """Return each id with the square of its size minus the pairs that it keeps."""
    unique, position = np.unique(ids, return_inverse=True)
    sizes, pairs = np.zeros(len(unique), counts.dtype), np.zeros(len(unique), counts.dtype)
    np.add.at(sizes, position, counts)
    np.add.at(pairs, position, kept)
    return unique, sizes * sizes - pairs


@dataclass(frozen=True, eq=False)
class _Partners:
    """Each object with the segment that covers most of it (0: none), and each segment with its object; sorted."""

    objects: Ids
    of_objects: Ids
    segments: Ids
    of_segments: Ids

    @classmethod
    def of(cls, table: Contingency) -> _Partners:
        both = (table.truth != 0) & (table.found != 0)
        truth, found, counts = table.truth[both], table.found[both], table.counts[both]
        return cls(*_largest(truth, found, counts), *_largest(found, truth, counts))

    def paint(
        self,
        found: npt.NDArray[Any],
        truth: npt.NDArray[Any],
        inside: npt.NDArray[np.bool_] | None,
        ignored: int | None,
    ) -> ErrorMap:
        """Return the map of one block; without ``inside`` every voxel counts."""
        out = np.zeros(truth.shape, np.uint8)
        counted = np.zeros(0, np.bool_) if inside is None else np.ascontiguousarray(inside, np.bool_).ravel()
        ids = _native(truth).ravel(), _native(found).ravel()
        partners = self.objects, self.of_objects, self.segments, self.of_segments
        skip = np.uint64((ignored or 0) % 2**64)  # as numba casts negative ids
        _paint(*ids, counted, skip, *partners, out.reshape(-1))
        return out


def _native(block: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if block.dtype == np.bool_:
        return np.ascontiguousarray(block).view(np.uint8)
    return np.ascontiguousarray(block, block.dtype.newbyteorder("="))


def _largest(ids: Ids, others: Ids, counts: npt.NDArray[np.int64]) -> tuple[Ids, Ids]:
    """Return each id with the other one that it shares most voxels with; the smaller one of equals."""
    order = np.lexsort((others, -counts, ids))
    unique, first = np.unique(ids[order], return_index=True)
    return unique, others[order][first]


def _of_ids(prediction: Any, labels: Any, ignored: int | None, mask: Any) -> Any:
    partners = _Partners.of(contingency(prediction, labels, ignored=ignored, mask=mask))
    if not (_lazy(prediction) or _lazy(labels)):
        out = np.zeros(labels.shape, np.uint8)
        for region in regions(labels):
            inside = None if mask is None else load(mask, region)
            out[region] = partners.paint(load(prediction, region), load(labels, region), inside, ignored)
        return out

    def paint(found: Any, truth: Any, inside: Any = None) -> ErrorMap:
        return partners.paint(found, truth, inside, ignored)

    return _blockwise(paint, labels.chunks if _lazy(labels) else prediction.chunks, prediction, labels, mask)


def _of_boundaries(pair: Pair, threshold: float, thin: bool) -> Any:
    if not (_lazy(pair.prediction) or _lazy(pair.labels)):
        return np.stack([of_section(section, threshold, thin) for section in sections(pair)]).reshape(pair.labels.shape)
    for _ in sections(pair):  # what is wrong with the two maps shows at the end of the stream
        pass

    def paint(found: Any, truth: Any, inside: Any = None) -> ErrorMap:
        part = Pair(found, truth, None, pair.ignore_index, inside, kind=pair.kind)
        depth = truth.shape[0] if truth.ndim == 3 else 1
        # islice stops before the end, where the stream would judge a few sections as if they were the volume.
        maps = [of_section(section, threshold, thin) for section in islice(sections(part), depth)]
        return np.stack(maps).reshape(truth.shape)

    chunks = pair.labels.chunks if _lazy(pair.labels) else pair.prediction.chunks
    whole = (*chunks[:-2], *((n,) for n in pair.labels.shape[-2:]))
    return _blockwise(paint, whole, pair.prediction, pair.labels, pair.mask)


def of_section(section: Section, threshold: float = 0.5, thin: bool = True) -> ErrorMap:
    """Return the map of one section of a pair of boundary maps, see `split_merge_map`; 0 where nothing counts."""
    if not section.counted.any():
        return np.zeros(section.truth.shape, np.uint8)
    objects = section.probability > threshold
    found = thinned(objects) if thin else components(objects)
    truth = components(section.truth)
    partners = _Partners.of(contingency(found, truth, mask=section.counted))
    return partners.paint(found, truth, section.counted, None)


def _lazy(array: Any) -> bool:
    return hasattr(array, "dask")


def _blockwise(function: Any, chunks: Any, *arrays: Any) -> Any:
    import dask.array as da

    parts = [da.asarray(array).rechunk(chunks) for array in arrays if array is not None]
    return da.map_blocks(function, *parts, dtype=np.uint8, meta=np.empty((0,) * len(chunks), np.uint8))


@numba.njit(nogil=True, cache=True)
def _paint(truth, found, inside, ignored, objects, of_objects, segments, of_segments, out):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Write the kind of error of each voxel of a block; the kind is looked up once per run of equal neighbours."""
    masked = inside.shape[0] > 0
    known = False
    code = np.uint8(0)
    for i in range(truth.shape[0]):
        if i > 0 and (truth[i] != truth[i - 1] or found[i] != found[i - 1]):
            known = False
        if masked and not inside[i]:  # its ids may have no partner
            continue
        if not known:
            known = True
            t, f = np.uint64(truth[i]), np.uint64(found[i])
            code = np.uint8(RIGHT)
            if t != 0 and t != ignored and t != NO_LABEL:
                if f == 0 or f == NO_LABEL:
                    code = np.uint8(MISSED)
                else:
                    if of_objects[np.searchsorted(objects, t)] != f:
                        code += np.uint8(SPLIT)
                    if of_segments[np.searchsorted(segments, f)] != t:
                        code += np.uint8(MERGE)
        out[i] = code


__all__ = ["NAMES", "of_section", "rand_loss", "split_merge_map"]
