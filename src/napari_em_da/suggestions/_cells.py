"""What is measured of every cell, a quarter of a window, block by block."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from napari_em_da.lazy import computed
from napari_em_da.suggestions._choice import Box

Float = npt.NDArray[np.float64]
Labels = npt.NDArray[np.uint8]
BLOCK_PX = 2048
BINS = 6
HALO_PX = 8  # beyond the rim: smoothing


@dataclass(frozen=True)
class Layout:
    """A grid of cells; a window is 2 x 2 cells, so that neighbouring windows share half of them.

    Attributes
    ----------
    shape : (z, y, x)
    cell : (y, x)
        Their largest size; they are as many as needed, and evenly spread.
    cells, grid : (z, rows, columns)
        Numbers of cells, and of windows.
    """

    shape: tuple[int, int, int]
    cell: tuple[int, int]
    cells: tuple[int, int, int]
    grid: tuple[int, int, int]

    @classmethod
    def of(cls, shape: tuple[int, ...], window: tuple[int, int]) -> Layout:
        """Lay cells of half the window over sections; a section smaller than the window is one."""
        depth, height, width = shape
        cell = [max(1, min(size, -(-n // 2) * 2) // 2) for size, n in zip(window, (height, width), strict=True)]
        rows, columns = (max(2, -(-n // size)) for n, size in zip((height, width), cell, strict=True))
        return cls((depth, height, width), (cell[0], cell[1]), (depth, rows, columns), (depth, rows - 1, columns - 1))

    def edges(self, axis: int) -> npt.NDArray[np.int64]:
        """Return where cells begin along y (0) or x (1), and where the last one ends."""
        return np.linspace(0, self.shape[axis + 1], self.cells[axis + 1] + 1).round().astype(np.int64)

    def box(self, z: int, row: int, column: int) -> Box:
        """Return a window; all are of one size, shifted inside at the rims."""
        (y, height), (x, width) = (self._span(axis, i) for axis, i in enumerate((row, column)))
        return int(z), y, x, height, width

    def _span(self, axis: int, index: int) -> tuple[int, int]:
        length = self.shape[axis + 1]
        size = min(2 * self.cell[axis], length)
        middle = int(self.edges(axis)[index + 1])
        return max(0, min(middle - size // 2, length - size)), size

    def nearest(self, box: Box) -> tuple[int, int, int]:
        """Return the index of the window that is nearest to a box."""
        z, y, x, height, width = box
        middle = y + height / 2, x + width / 2
        row, column = (int(np.abs(self.edges(axis)[1:-1] - at).argmin()) for axis, at in enumerate(middle))
        return min(max(z, 0), self.grid[0] - 1), row, column

    def windows(self, cells: Float) -> Float:
        """Return the mean over the four cells of every window, (Z, rows, columns, …)."""
        return (cells[:, :-1, :-1] + cells[:, 1:, :-1] + cells[:, :-1, 1:] + cells[:, 1:, 1:]) / 4

    def blocks(self) -> Iterator[tuple[slice, slice]]:
        """Yield blocks of whole cells, of about 2048 pixels at most."""
        steps = [max(1, BLOCK_PX // size) for size in self.cell]
        for row in range(0, self.cells[1], steps[0]):
            for column in range(0, self.cells[2], steps[1]):
                yield (
                    slice(row, min(row + steps[0], self.cells[1])),
                    slice(column, min(column + steps[1], self.cells[2])),
                )


@dataclass(frozen=True, eq=False)
class Cells:
    """Means over the pixels of each cell, (Z, rows, columns[, …]).

    Attributes
    ----------
    uncertain : what is uncertain beyond boundaries, 0 to 1
    single : share of the pixels whose class is in this section alone
    shares : (…, C) of the classes
    entropies, intensities : (…, 6) histograms
    pairs : (…, C * C) uncertainty by the two most probable classes
    flips : (…, C * C) pixels in this section alone, by their class and that of the neighbours
    """

    uncertain: Float
    single: Float
    shares: Float
    entropies: Float
    intensities: Float
    pairs: Float
    flips: Float


def measure(probabilities: Any, image: Any, layout: Layout, rim_px: int) -> Cells:
    """Read a probability volume once, block by block, and measure its cells."""
    classes = int(probabilities.shape[3])
    widths = {"shares": classes, "entropies": BINS, "intensities": BINS, "pairs": classes**2, "flips": classes**2}
    found = {name: np.zeros((*layout.cells, n)) for name, n in widths.items()}
    found |= {name: np.zeros(layout.cells) for name in ("uncertain", "single")}
    limits = (0.0, 1.0) if image is None else span(image)
    disc = np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * rim_px + 1,) * 2), np.uint8)
    for rows, columns in layout.blocks():
        block = Block(layout, rows, columns, rim_px + HALO_PX)
        recent: list[Labels] = []
        for z in range(layout.shape[0]):
            probs = block.read(probabilities, z)
            labels = np.asarray(probs.argmax(-1), np.uint8)
            entropy, doubt, pair = uncertainty(probs)
            smooth = cv2.GaussianBlur(doubt, (0, 0), 1.0)
            doubt = np.asarray(cv2.morphologyEx(smooth, cv2.MORPH_OPEN, disc), np.float32)
            at = (z, rows, columns)
            found["uncertain"][at] = block.mean(doubt)
            found["entropies"][at] = block.histogram(np.minimum(entropy * BINS, BINS - 1), BINS)
            found["shares"][at] = block.histogram(labels, classes)
            found["pairs"][at] = block.histogram(pair, classes**2, doubt)
            if image is not None:
                grey = (block.read(image, z) - limits[0]) / (limits[1] - limits[0])
                found["intensities"][at] = block.histogram(np.clip(grey * BINS, 0, BINS - 1), BINS)
            recent = [*recent[-2:], labels]
            if len(recent) == 3:
                alone = single(recent, disc)
                before = (z - 1, rows, columns)
                found["single"][before] = block.mean(alone)
                found["flips"][before] = block.histogram(recent[1].astype(int) * classes + recent[0], classes**2, alone)
    return Cells(**found)


def uncertainty(probs: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.float32], ...]:
    """Return entropy (0 to 1), uncertainty (0 to 1) and the index of the two most probable classes, each (Y, X)."""
    classes = probs.shape[-1]
    entropy = -(probs * np.log(np.maximum(probs, 1e-7))).sum(-1) / np.float32(np.log(classes))
    order = np.argpartition(probs, classes - 2, axis=-1)[..., -2:]
    top = np.take_along_axis(probs, order, -1)
    doubt = (entropy + 1 - np.abs(top[..., 1] - top[..., 0])) / 2
    pair = order.max(-1) * classes + order.min(-1)
    return entropy, np.asarray(doubt, np.float32), pair


def single(labels: list[Labels], disc: Labels) -> npt.NDArray[np.float32]:
    """Return 1 where the middle of three sections differs from both others, which agree, in more than a rim."""
    before, own, after = labels
    alone = ((before == after) & (own != before)).astype(np.uint8)
    return np.asarray(cv2.morphologyEx(alone, cv2.MORPH_OPEN, disc), np.float32)


def span(image: Any) -> tuple[float, float]:
    """Return robust limits of the intensities, from some sections."""
    depth = int(image.shape[0])
    stride = max(1, max(image.shape[1:]) // 512)
    parts = [np.asarray(computed(image[z, ::stride, ::stride])) for z in sorted({0, depth // 2, depth - 1})]
    low, high = np.percentile(np.concatenate([part.ravel() for part in parts]), (1, 99))
    return float(low), float(max(high, low + 1e-6))


class Block:
    """Some cells of a section, with the context that filters need."""

    def __init__(self, layout: Layout, rows: slice, columns: slice, halo: int) -> None:
        edges = [layout.edges(axis)[part.start : part.stop + 1] for axis, part in enumerate((rows, columns))]
        self.area = tuple(
            slice(max(0, int(e[0]) - halo), min(n, int(e[-1]) + halo))
            for e, n in zip(edges, layout.shape[1:], strict=True)
        )
        self.inner = tuple(
            slice(int(e[0]) - area.start, int(e[-1]) - area.start) for e, area in zip(edges, self.area, strict=True)
        )
        self.counts = len(edges[0]) - 1, len(edges[1]) - 1
        row, column = (np.repeat(np.arange(len(e) - 1), np.diff(e)) for e in edges)
        self.cell = row[:, None] * self.counts[1] + column  # (Y, X) of the inner part
        self.sizes = np.bincount(self.cell.ravel(), minlength=self.counts[0] * self.counts[1]).reshape(self.counts)

    def read(self, array: Any, z: int) -> npt.NDArray[np.float32]:
        """Read the block of one section."""
        part = computed(array[(z, *self.area)])
        return np.nan_to_num(np.asarray(part, np.float32))

    def mean(self, values: Any) -> Float:
        """Return the mean of each cell, (rows, columns)."""
        weights = np.asarray(values, float)[self.inner].ravel()
        total = np.bincount(self.cell.ravel(), weights, self.counts[0] * self.counts[1])
        return total.reshape(self.counts) / np.maximum(self.sizes, 1)

    def histogram(self, values: Any, bins: int, weights: Any = None) -> Float:
        """Return the share of each value (an integer below ``bins``) in each cell, (rows, columns, bins)."""
        flat = self.cell * bins + np.asarray(values)[self.inner].astype(np.int64)
        by = None if weights is None else np.asarray(weights, float)[self.inner].ravel()
        total = np.bincount(flat.ravel(), by, self.counts[0] * self.counts[1] * bins).reshape(*self.counts, bins)
        return np.asarray(total / np.maximum(self.sizes, 1)[..., None])
