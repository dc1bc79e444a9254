"""Sections of TIFF pages as one sliceable array that decodes only what a window needs."""

from __future__ import annotations

import itertools
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_em_da.errors import DataError

CACHE_BYTES = 256 << 20
OPEN_MAPS = 16
Array = npt.NDArray[Any]


class BlockCache:
    """The most recently used decoded blocks of all open volumes, up to a number of bytes; safe for threads.

    Two threads that want the same block wait for one decoding; different blocks decode side by side.
    """

    def __init__(self, limit_bytes: int = CACHE_BYTES) -> None:
        self.limit_bytes = limit_bytes
        self.held_bytes = 0
        self._blocks: OrderedDict[tuple[int, ...], Array] = OrderedDict()
        self._lock = threading.Lock()
        self._decoding = [threading.Lock() for _ in range(32)]

    def get(self, key: tuple[int, ...], decode: Callable[[], Array]) -> Array:
        """Return the block of ``key``, decoding it if it is not held."""
        block = self._look_up(key)
        if block is None:
            with self._decoding[hash(key) % len(self._decoding)]:
                block = self._look_up(key)
                if block is None:
                    block = decode()
                    self._insert(key, block)
        return block

    def _look_up(self, key: tuple[int, ...]) -> Array | None:
        with self._lock:
            block = self._blocks.get(key)
            if block is not None:
                self._blocks.move_to_end(key)
            return block

    def _insert(self, key: tuple[int, ...], block: Array) -> None:
        with self._lock:
            self._blocks[key] = block
            self.held_bytes += block.nbytes
            while self.held_bytes > self.limit_bytes:
                self.held_bytes -= self._blocks.popitem(last=False)[1].nbytes


CACHE = BlockCache()
_tokens = itertools.count()


@dataclass(frozen=True)
class Page:
    """Where one section lies in its file.

    Attributes
    ----------
    path : Path
    keyframe : tifffile.TiffPage
        Holds the geometry and the decoder that all similar pages share.
    offsets, counts : ints
        Of the strips or tiles; one offset if the section is raw and contiguous.
    raw : dtype or None
        Type in the file's byte order if the section can be memory-mapped.
    """

    path: Path
    keyframe: Any = field(repr=False)
    offsets: Sequence[int] = field(repr=False)
    counts: Sequence[int] = field(repr=False)
    raw: np.dtype[Any] | None = None
    jpeg: dict[str, Any] = field(default_factory=dict, repr=False)


class Sections:
    """A stack of pages of one shape (Y, X[, C]) that slices like an array, from any number of threads.

    It can be pickled: the copy opens the path again, so that worker processes read for themselves.
    """

    def __init__(self, pages: Sequence[Page], section: tuple[int, ...], dtype: Any, reopen: tuple[Any, ...]) -> None:
        self.pages = pages
        self.shape = (len(pages), *section)
        self.dtype = np.dtype(dtype)
        self.ndim = len(self.shape)
        self._reopen = reopen  # (function, path)
        self._token = next(_tokens)
        self._maps: OrderedDict[Path, Array] = OrderedDict()
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        return self._reopen[0], (self._reopen[1],)

    def __getitem__(self, key: Any) -> Array:
        steps = _expand(key, self.ndim)
        dropped = tuple(axis for axis, step in enumerate(steps) if not isinstance(step, slice))
        ranges = [
            range(n)[s] if isinstance(s, slice) else range(range(n)[s], range(n)[s] + 1)
            for n, s in zip(self.shape, steps, strict=True)
        ]
        out = np.empty([len(r) for r in ranges], self.dtype)
        if out.size:
            for target, z in zip(out, ranges[0], strict=True):
                self._window(z, ranges[1], ranges[2], tuple(map(_as_slice, ranges[3:])), target)
        return out.squeeze(axis=dropped) if dropped else out

    def _window(self, z: int, ys: range, xs: range, channels: tuple[slice, ...], target: Array) -> None:
        page = self.pages[z]
        if page.raw is None:
            self._decode_window(z, ys, xs, channels, target)
            return
        count = int(np.prod(self.shape[1:], dtype=np.int64)) * page.raw.itemsize
        section = self._map(page.path)[page.offsets[0] : page.offsets[0] + count].view(page.raw)
        target[...] = section.reshape(self.shape[1:])[(_as_slice(ys), _as_slice(xs), *channels)]

    def _map(self, path: Path) -> Array:
        with self._lock:
            mapped = self._maps.get(path)
            if mapped is None:
                try:
                    mapped = np.asarray(np.memmap(path, np.uint8, "r"))
                except (OSError, ValueError) as error:
                    raise DataError(f"{path} cannot be read any more: {error}.") from error
                self._maps[path] = mapped
                if len(self._maps) > OPEN_MAPS:
                    self._maps.popitem(last=False)
            return mapped

    def _decode_window(self, z: int, ys: range, xs: range, channels: tuple[slice, ...], target: Array) -> None:
        """Paste the strips or tiles that the window touches; a separate plane per channel counts as more strips."""
        keyframe = self.pages[z].keyframe
        planes, _, length, width, _ = keyframe.shaped
        high, wide = (keyframe.tilelength, keyframe.tilewidth) if keyframe.is_tiled else (keyframe.rowsperstrip, width)
        rows, columns = -(-length // high), -(-width // wide)
        y0, y1, x0, x1 = min(ys[0], ys[-1]), max(ys[0], ys[-1]) + 1, min(xs[0], xs[-1]), max(xs[0], xs[-1]) + 1
        box = np.empty((planes, y1 - y0, x1 - x0, keyframe.shaped[4]), self.dtype)
        for plane in range(planes):
            for row, column in itertools.product(range(y0 // high, -(-y1 // high)), range(x0 // wide, -(-x1 // wide))):
                block = self._block(z, (plane * rows + row) * columns + column)
                top, left = row * high, column * wide
                ya, yb, xa, xb = max(y0, top), min(y1, top + high), max(x0, left), min(x1, left + wide)
                box[plane, ya - y0 : yb - y0, xa - x0 : xb - x0] = block[ya - top : yb - top, xa - left : xb - left]
        window = box[..., 0] if planes > 1 else box[0]  # (P, y, x) or (y, x, C)
        window = np.moveaxis(window, 0, -1) if planes > 1 else window
        window = window[(_as_slice(_shift(ys, y0)), _as_slice(_shift(xs, x0)), *channels)]
        target[...] = window if target.ndim == 3 else window[..., 0]

    def _block(self, z: int, index: int) -> Array:
        return CACHE.get((self._token, z, index), lambda: self._decode(z, index))

    def _decode(self, z: int, index: int) -> Array:
        page = self.pages[z]
        try:
            offset, count = page.offsets[index], page.counts[index]
            data = b""
            if count:
                with page.path.open("rb") as file:
                    file.seek(offset)
                    data = file.read(count)
            if len(data) < count:
                raise ValueError(f"{len(data)} of {count} bytes are there")
            block, _, shape = page.keyframe.decode(data or None, index, **page.jpeg)
            if block is None:  # a sparse file leaves out what is empty
                return np.full(shape[1:], page.keyframe.nodata, self.dtype)
            return np.ascontiguousarray(block[0].astype(self.dtype, copy=False))
        except Exception as error:  # each codec raises its own kind, some of them RuntimeError
            raise DataError(
                f"{page.path}: section {z} cannot be decoded ({type(error).__name__}: {error}); "
                "the file is damaged, or its compression needs another version of imagecodecs."
            ) from error


def _expand(key: Any, ndim: int) -> tuple[Any, ...]:
    """Fill a subscript up to one slice or integer per axis."""
    steps = key if isinstance(key, tuple) else (key,)
    if Ellipsis in steps:
        at = steps.index(Ellipsis)
        steps = steps[:at] + (slice(None),) * (ndim - len(steps) + 1) + steps[at + 1 :]
    if len(steps) > ndim or not all(isinstance(s, slice | int | np.integer) for s in steps):
        raise IndexError(f"{key!r} is not one slice or integer for each of {ndim} axes")
    return steps + (slice(None),) * (ndim - len(steps))


def _as_slice(index: range) -> slice:
    if index.step > 0:
        return slice(index.start, index.stop, index.step)
    return slice(index.start, index.stop if index.stop >= 0 else None, index.step)


def _shift(index: range, by: int) -> range:
    return range(index.start - by, index.stop - by, index.step)
