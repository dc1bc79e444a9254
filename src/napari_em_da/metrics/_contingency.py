"""The sparse contingency table of two partitions, counted over blocks: every partition score comes from it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import edt
import numba
import numpy as np
import numpy.typing as npt

from napari_em_da.errors import ConfigError, DataError
from napari_em_da.metrics._base import BLOCK_VOXELS, Region, load, regions

Ids = npt.NDArray[np.uint64]
NO_LABEL = np.uint64(2**64 - 1)  # CREMI's "not annotated"
_TOP = np.uint64(2**63)  # the largest id of an unsigned volume
_CHUNK = 8192  # voxels whose runs are found at once; stays in the fastest cache


@dataclass(frozen=True, eq=False)
class Contingency:
    """How many voxels each pair of an annotated and a predicted id shares; pairs that share none are absent.

    Attributes
    ----------
    truth, found : (P,) uint64
        Ids as they are, 0 (background) included; sorted by truth, then found.
    counts : (P,) int64
        Voxels of the pair, at least 1.
    """

    truth: Ids
    found: Ids
    counts: npt.NDArray[np.int64]


def contingency(
    prediction: Any,
    labels: Any,
    *,
    ignored: int | None = None,
    mask: Any = None,
    border: tuple[float, tuple[float, ...]] | None = None,
) -> Contingency:
    """Count the voxels that each annotated id shares with each predicted id, block by block.

    Memory: one block, and about 100 bytes per distinct pair.

    Parameters
    ----------
    prediction, labels : integer or bool numpy or dask arrays of one shape
        Ids from 0 to 2^63; 2^64 − 1 is read as 0.
    ignored : int, optional
        Annotated value whose voxels do not count.
    mask : bool array of the same shape, optional
        Only True voxels count.
    border : (distance in nm, spacing (…, y, x) in nm), optional
        Annotated voxels this close to a label border in their section become background; see `near_border`.

    Raises
    ------
    DataError
        If a volume is not integer, an id is negative or above 2^63, or no voxel is annotated.
    ConfigError
        If a border is wanted of volumes that have no sections.
    """
    arrays = {"annotation": labels, "prediction": prediction}
    for name, array in arrays.items():
        if np.dtype(array.dtype).kind not in "iub":
            raise DataError(
                f"The {name} has type {array.dtype}, but ids are integers. If it is a map of probabilities, pass "
                "kind='membrane' or kind='object'; otherwise threshold it and label its components first."
            )
    if border is not None and (labels.ndim < 2 or len(border[1]) < 2):
        raise ConfigError(
            f"border_nm needs sections: shape {tuple(labels.shape)} and spacing {border[1]} must end in (y, x); "
            "pass the spacing in full, or border_nm=0."
        )
    table = np.zeros((4 * _CHUNK, 3), np.uint64)
    used = 0
    nowhere = np.zeros(0, np.bool_)
    for region in regions(labels) if border is None else _whole_sections(labels.shape):
        truth, found = load(labels, region), load(prediction, region)
        if border is not None:
            near = near_border(truth, *border)
            truth = np.where(near if ignored is None else near & (truth != ignored), truth.dtype.type(0), truth)
        inside = nowhere if mask is None else load(mask, region).ravel().astype(np.bool_, copy=False)
        rule = (*_ignored(ignored, truth.dtype), _top(truth), _top(found))
        table, used, bad = _add(*_same_width(truth, found), inside, rule, table, used)
        if bad >= 0:
            raise DataError(_bad_id(truth.ravel()[bad], found.ravel()[bad]))
    if not used:
        raise DataError(
            f"No voxel is annotated: each one is masked or has the ignored value {ignored}; "
            "check ignore_index and the mask."
        )
    return _sorted(table[table[:, 2] > 0])


def near_border(labels: npt.NDArray[Any], distance_nm: float, spacing: tuple[float, ...]) -> npt.NDArray[np.bool_]:
    """Return which voxels lie within a distance of a label border in their section.

    A border voxel is one whose id differs from that of any of its 4 neighbours; distances are Euclidean, from
    centre to centre.

    Parameters
    ----------
    labels : (…, Y, X) integer
    distance_nm : at least 0; 0 selects the border voxels alone
    spacing : (…, y, x) in nm

    References
    ----------
    CREMI challenge (2016), evaluation scripts: voxels within 25 nm of a border are not scored.
    """
    apart = np.zeros(labels.shape, np.bool_)
    for axis in (-2, -1):
        differs = np.diff(np.swapaxes(labels, axis, -1)) != 0
        view = np.swapaxes(apart, axis, -1)
        view[..., 1:] |= differs
        view[..., :-1] |= differs
    sy, sx = spacing[-2:]
    reach = (distance_nm / sx) ** 2 * (1 + 1e-6)  # of pixel widths squared; a voxel right on the rim is near
    near = np.empty_like(apart)
    for section, out in zip(~apart.reshape(-1, *labels.shape[-2:]), near.reshape(-1, *labels.shape[-2:]), strict=True):
        out[:] = edt.edtsq(section.view(np.uint8), anisotropy=(sy / sx, 1.0), black_border=False, parallel=1) <= reach
    return near


def _whole_sections(shape: tuple[int, ...]) -> Iterator[Region]:
    """Yield slabs of whole sections, of at most 16 M voxels or one index of the first axis."""
    if len(shape) == 2:
        yield (slice(None),)
        return
    step = max(1, BLOCK_VOXELS // int(np.prod(shape[1:])))
    for start in range(0, shape[0], step):
        yield (slice(start, start + step),)


def _same_width(truth: npt.NDArray[Any], found: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return both blocks as flat unsigned integers of one width, so that few kernels are compiled."""
    width = max(truth.itemsize, found.itemsize)
    return _unsigned(truth, width), _unsigned(found, width)


def _unsigned(block: npt.NDArray[Any], width: int) -> npt.NDArray[Any]:
    native = block.astype(block.dtype.newbyteorder("="), copy=False).ravel()
    return native.view(f"u{native.itemsize}").astype(f"u{width}", copy=False)


def _ignored(ignored: int | None, dtype: np.dtype[Any]) -> tuple[bool, np.uint64]:
    """Return whether a value is ignored, and its bits as the kernel sees them."""
    info = np.iinfo(np.uint8 if dtype == np.bool_ else dtype)
    if ignored is None or not info.min <= ignored <= info.max:
        return False, np.uint64(0)
    return True, np.uint64(ignored % 2**info.bits)


def _top(block: npt.NDArray[Any]) -> np.uint64:
    """Return the largest valid id of a type; above it, as unsigned, lie the negative ones."""
    return np.uint64(1) if block.dtype == np.bool_ else np.uint64(min(np.iinfo(block.dtype).max, int(_TOP)))


def _bad_id(truth: Any, found: Any) -> str:
    for name, value in (("annotation", int(truth)), ("prediction", int(found))):
        if value < 0:
            return (
                f"The {name} holds the id {value}, but ids are not negative; set it to 0 (background), or pass it as "
                "ignore_index if it marks voxels that are not annotated."
            )
        if value > _TOP and value != NO_LABEL:
            break
    return (
        f"The {name} holds the id {value}, above 2^63; renumber its ids first, "
        "for example with skimage.segmentation.relabel_sequential."
    )


def _sorted(rows: npt.NDArray[np.uint64]) -> Contingency:
    rows = rows[np.lexsort((rows[:, 1], rows[:, 0]))]
    truth, found, counts = np.ascontiguousarray(rows.T)
    return Contingency(truth, found, counts.astype(np.int64))


@numba.njit(nogil=True, cache=True)
def _add(truth, found, inside, rule, table, used):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Add one block to a hash table, whose rows hold an annotated id, a predicted id and their voxels.

    Returns the table (a larger one, where it filled up), its rows in use, and the place of a bad id or −1.
    """
    starts = np.empty(_CHUNK + 1, np.int32)
    changes = np.empty(_CHUNK, np.bool_)
    for first in range(0, truth.shape[0], _CHUNK):
        chunk = slice(first, first + _CHUNK)
        t, f, m = truth[chunk], found[chunk], inside[chunk]
        runs = _runs(t, f, m, changes, starts)
        while 2 * (used + runs) > table.shape[0]:
            table = _grown(table)
        used, bad = _tally(t, f, m, starts[: runs + 1], rule, table, used)
        if bad >= 0:
            return table, used, first + bad
    return table, used, -1


@numba.njit(nogil=True, cache=True)
def _runs(truth, found, inside, changes, starts):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Write where the runs of one chunk start, and its end behind them; return how many there are.

    Comparing all neighbours first, without a branch, lets the compiler use vector instructions.
    """
    n = truth.shape[0]
    for i in range(1, n):
        changes[i] = (truth[i] != truth[i - 1]) | (found[i] != found[i - 1])
    for i in range(1, inside.shape[0]):
        changes[i] |= inside[i] != inside[i - 1]
    starts[0] = 0
    runs = 1
    for i in range(1, n):
        starts[runs] = i
        runs += changes[i]
    starts[runs] = n
    return runs


@numba.njit(nogil=True, cache=True)
def _tally(truth, found, inside, starts, rule, table, used):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Add the runs of one chunk to a table with room for all of them (growing it here would cost a factor of 3)."""
    ignoring, ignored, top_truth, top_found = rule
    masked = inside.shape[0] > 0
    for i in range(starts.shape[0] - 1):
        start = starts[i]
        a, b = np.uint64(truth[start]), np.uint64(found[start])
        if (ignoring and a == ignored) or (masked and not inside[start]):
            continue
        if a == NO_LABEL and top_truth == _TOP:
            a = np.uint64(0)
        if b == NO_LABEL and top_found == _TOP:
            b = np.uint64(0)
        if a > top_truth or b > top_found:
            return used, start
        row = _row(table, a, b)
        if table[row, 2] == 0:
            table[row, 0], table[row, 1] = a, b
            used += 1
        table[row, 2] += np.uint64(starts[i + 1] - start)
    return used, -1


@numba.njit(nogil=True, cache=True)
def _row(table, a, b):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Return the row of a pair, or the free row where it belongs (open addressing, linear probing)."""
    last = np.uint64(table.shape[0] - 1)
    mixed = (a * np.uint64(0x9E3779B97F4A7C15)) ^ (b + np.uint64(0x7F4A7C15))
    mixed = (mixed ^ (mixed >> np.uint64(32))) * np.uint64(0xD6E8FEB86659FD93)
    row = (mixed ^ (mixed >> np.uint64(32))) & last
    while table[row, 2] != 0 and (table[row, 0] != a or table[row, 1] != b):
        row = (row + np.uint64(1)) & last
    return row


@numba.njit(nogil=True, cache=True)
def _grown(table):  # type: ignore[no-untyped-def]  # pragma: no cover
    larger = np.zeros((2 * table.shape[0], table.shape[1]), np.uint64)
    for old in range(table.shape[0]):
        if table[old, 2] != 0:
            larger[_row(larger, table[old, 0], table[old, 1])] = table[old]
    return larger
