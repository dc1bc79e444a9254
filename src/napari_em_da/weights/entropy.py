"""Label entropy: how mixed the classes around a pixel are, so that class borders dominate the loss."""

from __future__ import annotations

import math
from functools import lru_cache, partial
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import AfterValidator, Field

from napari_em_da.config import Config, Count
from napari_em_da.weights._base import Finish, WeightSpec
from napari_em_da.weights._classes import class_ids, present
from napari_em_da.weights._compiled import compiled, in_bands
from napari_em_da.weights._counted import counted
from napari_em_da.weights._stack import Block, LabelStack, Weights

TABLE_BITS = 20  # a table of 2**20 float32 is 4 MB; real labels touch a few lines of it
FEW_CLASSES = 32  # each has a count of its own; more of them share a histogram
FIXED_POINT = 2**32  # n log n as whole numbers: running sums stay exact
PAD_MODES = {"shrink": "constant", "reflect": "symmetric", "nearest": "edge"}


def _odd(size: int) -> int:
    if size % 2 == 0:
        raise ValueError(f"window size {size} is even and has no centre; use {size - 1} or {size + 1}")
    return size


Odd = Annotated[int, Field(ge=1, le=255), AfterValidator(_odd)]


class EntropyOptions(Config):
    """Shannon entropy of the labels in a window around each pixel."""

    window: tuple[Odd, Odd, Odd] = Field((1, 5, 5), description="Window z,y,x in pixels, odd")
    edge: Literal["shrink", "reflect", "nearest"] = Field("shrink", description="Window at the edge of the volume")
    base: Annotated[float, Field(gt=1)] = Field(2.0, description="Base of the logarithm where not normalised")
    normalise: bool = Field(True, description="Divide by the largest possible entropy")
    classes: Count | None = Field(None, description="Number of classes; those that occur if absent")


def raw(stack: LabelStack, options: EntropyOptions) -> Any:
    """Return ``-sum_c p_c log p_c`` over the annotated pixels of the window, the centre included.

    Notes
    -----
    ``edge="shrink"`` clips windows at the border of the volume, so that no labels are invented. The maximum for
    normalisation is ``log min(C, pixels of the window)``, never the observed one.
    """
    # Lazy labels are read an extra time only where the number of classes matters.
    counted = options.normalise and options.classes is None
    classes = class_ids(stack) if counted or not stack.lazy else None
    z, y, x = (size // 2 for size in options.window)
    block = partial(_block, ignore_index=stack.ignore_index, options=options, threads=stack.threads)
    return stack.map(block, classes, depth=(z, y, x))


def _block(
    labels: Block,
    out: Weights,
    classes: tuple[int, ...] | None,
    ignore_index: int | None,
    options: EntropyOptions,
    threads: int,
) -> None:
    if classes is None:
        classes = present(labels, ignore_index)
    if len(classes) < 2:
        out[...] = 0
        return
    area = math.prod(options.window)
    unit = 1 / math.log(options.base)
    if options.normalise:
        largest = min(options.classes or len(classes), area)
        unit = 1 / math.log(largest) if largest > 1 else 0.0
    sections, rows, columns = (
        _indices(n, size, options.edge) for n, size in zip(labels.shape, options.window, strict=True)
    )
    bits = area.bit_length()
    if bits * len(classes) <= TABLE_BITS:
        codes, values = _byte_codes(labels, classes, bits, np.uint32)
        _packed(codes, values, sections, rows, columns, _entropies(bits, len(classes), unit), NO_TABLES, 0, out)
    elif bits <= TABLE_BITS // 2 and bits * (len(classes) + 1) <= 64:
        codes, values = _byte_codes(labels, classes, bits, np.uint64)
        tables = _log_tables(bits, unit)
        _packed(codes, values, sections, rows, columns, NO_ENTROPIES, tables, len(classes), out)
    else:
        n_log_n = np.rint(_n_log_n(area) * FIXED_POINT).astype(np.int64)
        known, scale = _codes(labels, classes), unit / FIXED_POINT
        if len(classes) > FEW_CLASSES:
            _sliding(known, len(classes), sections, rows, columns, n_log_n, scale, out)
            return

        def band(begin: int, end: int) -> None:
            counted(known, len(classes), sections, rows, columns, n_log_n, scale, begin, end, out)

        in_bands(band, out.shape[1], threads)


def _indices(length: int, size: int, edge: str) -> npt.NDArray[np.int64]:
    """Return the source index of every padded position, -1 where there is none."""
    where = np.arange(length)
    if edge == "shrink":
        return np.pad(where, size // 2, constant_values=-1)
    return np.pad(where, size // 2, mode="symmetric" if edge == "reflect" else "edge")


def _codes(labels: Block, classes: tuple[int, ...]) -> npt.NDArray[np.int32]:
    """Return each label's position in ``classes``, -1 where it is not among them."""
    known = np.array(classes, labels.dtype)
    found = np.minimum(np.searchsorted(known, labels), len(known) - 1).astype(np.int32)
    found[known[found] != labels] = -1
    return found


def _byte_codes(
    labels: Block, classes: tuple[int, ...], bits: int, dtype: type[np.unsignedinteger[Any]]
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[Any]]:
    """Return labels as bytes, and what each adds to a packed histogram: one to its class (and to a total on top)."""
    size = len(classes)
    packed = [1 << bits * code for code in range(size)]
    if dtype is np.uint64:
        packed = [value | 1 << bits * size for value in packed]
    values = np.zeros(256, dtype)
    if labels.dtype == np.uint8:
        values[list(classes)] = packed
        return labels, values
    values[:size] = packed
    codes = _codes(labels, classes)
    return np.where(codes < 0, size, codes).astype(np.uint8), values


def _n_log_n(largest: int) -> npt.NDArray[np.float64]:
    n = np.arange(largest + 1, dtype=np.float64)
    return np.multiply(n, np.log(np.maximum(n, 1)))


@lru_cache(maxsize=8)
def _entropies(bits: int, classes: int, unit: float) -> Weights:
    """Tabulate the entropy of every packed histogram: ``classes`` counts of ``bits`` bits each."""
    count = np.arange(1 << bits, dtype=np.float64)
    total, sums = np.zeros(1), np.zeros(1)
    for _ in range(classes):
        total = np.add.outer(count, total).ravel()
        sums = np.add.outer(_n_log_n(len(count) - 1), sums).ravel()
    whole = np.maximum(total, 1)
    return np.maximum((np.log(whole) - sums / whole) * unit, 0).astype(np.float32)


@lru_cache(maxsize=8)
def _log_tables(bits: int, unit: float) -> tuple[npt.NDArray[np.float64], ...]:
    """Tabulate ``n log n`` of one count, its sum over two adjacent counts, and ``unit / n``."""
    one = _n_log_n((1 << bits) - 1)
    return one, np.add.outer(one, one).ravel(), unit / np.maximum(np.arange(len(one)), 1)


NO_ENTROPIES = np.zeros(0, np.float32)
NO_TABLES = (np.zeros(0), np.zeros(0), np.zeros(0))


@compiled
def _packed(
    codes: npt.NDArray[np.uint8],
    values: npt.NDArray[Any],
    sections: npt.NDArray[np.int64],
    rows: npt.NDArray[np.int64],
    columns: npt.NDArray[np.int64],
    entropies: Weights,
    tables: tuple[npt.NDArray[np.float64], ...],
    classes: int,
    out: Weights,
) -> None:
    """Entropy of few classes: the counts of all classes ride in one integer, which is summed and looked up."""
    depth, height, width = out.shape
    high, wide, deep = rows.size - height + 1, columns.size - width + 1, sections.size - depth + 1
    left = wide // 2
    recent = np.zeros((high, width), values.dtype)  # the rows of the window, summed over its sections
    padded = np.zeros(columns.size, values.dtype)  # their sum, per column
    window, entering = np.zeros(width, values.dtype), np.zeros(width, values.dtype)
    for z in range(depth):
        recent[:] = 0
        padded[:] = 0
        column = padded[left : left + width]
        for y in range(1 - high, height):
            row = rows[y + high - 1]
            entering[:] = 0
            for section in sections[z : z + deep]:
                if section >= 0 and row >= 0:
                    _add_packed(codes[section, row], values, entering)
            _exchange(column, recent[(y + high - 1) % high], entering)
            if y < 0:
                continue
            for side in range(left):  # columns outside the section stay 0 where there is none to repeat
                near, far = columns[side], columns[left + width + side]
                if near >= 0:
                    padded[side] = column[near]
                if far >= 0:
                    padded[left + width + side] = column[far]
            _sum_window(padded, wide, window)
            if entropies.size > 0:
                _look_up_entropy(window, entropies, out[z, y])
            else:
                _sum_entropy(window, tables[0], tables[1], tables[2], classes, out[z, y])


# One short loop per function: only so does the compiler see that it may use vector instructions.
@compiled
def _add_packed(codes: npt.NDArray[np.uint8], values: npt.NDArray[Any], line: npt.NDArray[Any]) -> None:
    for x in range(line.size):
        line[x] += values[codes[x]]


@compiled
def _exchange(column: npt.NDArray[Any], leaving: npt.NDArray[Any], entering: npt.NDArray[Any]) -> None:
    for x in range(column.size):
        column[x] = column[x] + entering[x] - leaving[x]
        leaving[x] = entering[x]


@compiled
def _sum_window(padded: npt.NDArray[Any], wide: int, window: npt.NDArray[Any]) -> None:
    window[:] = padded[: window.size]
    for shift in range(1, wide):
        shifted = padded[shift : shift + window.size]
        for x in range(window.size):
            window[x] += shifted[x]


@compiled
def _look_up_entropy(window: npt.NDArray[Any], entropies: Weights, out: Weights) -> None:
    for x in range(out.size):
        out[x] = entropies[window[x]]


@compiled
def _sum_entropy(
    window: npt.NDArray[Any],
    one: npt.NDArray[np.float64],
    two: npt.NDArray[np.float64],
    per_pixel: npt.NDArray[np.float64],
    classes: int,
    out: Weights,
) -> None:
    """``(n log n - sum_c n_c log n_c) / n`` of packed counts with their total on top, two classes per look-up."""
    step = 0
    while (1 << step) < two.size:
        step += 1
    shift, top, mask = np.uint64(step), np.uint64(step // 2 * classes), np.uint64(two.size - 1)
    below = (np.uint64(1) << top) - np.uint64(1)
    for x in range(out.size):
        counts = np.uint64(window[x])
        total = counts >> top
        counts &= below
        sums = 0.0
        for _ in range((classes + 1) // 2):
            sums += two[counts & mask]
            counts >>= shift
        out[x] = max(one[total] - sums, 0.0) * per_pixel[total]


@compiled
def _sliding(
    codes: npt.NDArray[np.int32],
    classes: int,
    sections: npt.NDArray[np.int64],
    rows: npt.NDArray[np.int64],
    columns: npt.NDArray[np.int64],
    n_log_n: npt.NDArray[np.int64],
    unit: float,
    out: Weights,
) -> None:
    """Entropy of any number of classes: a histogram slides along x and only changed labels touch it."""
    depth, height, width = out.shape
    high, wide, deep = rows.size - height + 1, columns.size - width + 1, sections.size - depth + 1
    counts = np.zeros(classes, np.int64)
    for z in range(depth):
        for y in range(height):
            counts[:] = 0
            total, sums = 0, 0
            for x in range(1 - wide, width):
                new = columns[x + wide - 1]
                old = columns[x - 1] if x > 1 - wide and x > 0 else -1
                for section in sections[z : z + deep]:
                    for row in rows[y : y + high]:
                        if section < 0 or row < 0:
                            continue
                        gone = codes[section, row, old] if old >= 0 else -1
                        came = codes[section, row, new] if new >= 0 else -1
                        if gone == came:
                            continue
                        if gone >= 0:
                            n = counts[gone]
                            sums += n_log_n[n - 1] - n_log_n[n]
                            counts[gone] = n - 1
                            total -= 1
                        if came >= 0:
                            n = counts[came]
                            sums += n_log_n[n + 1] - n_log_n[n]
                            counts[came] = n + 1
                            total += 1
                if x >= 0:
                    out[z, y, x] = (n_log_n[total] - sums) * unit / total if total > 0 else 0.0


WEIGHT = WeightSpec(raw, EntropyOptions, lambda options: Finish(floor=0.1))
