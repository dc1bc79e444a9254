"""Where a labels layer was changed since it was last saved, told from what napari says and keeps for undo."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
from napari.layers import Labels

Box = tuple[slice, ...]


class Patch:
    """A copy of one box of an array that reads like the whole array inside that box.

    Parameters
    ----------
    array : numpy array
        Labels that are painted on; only the box is copied.
    box : tuple of slices with bounds
    """

    def __init__(self, array: npt.NDArray[Any], box: Box) -> None:
        self.shape = array.shape
        self.dtype = array.dtype
        self._box = box
        self._block = array[box].copy()

    def __getitem__(self, region: Box) -> npt.NDArray[Any]:
        inner = tuple(slice(r.start - b.start, r.stop - b.start) for r, b in zip(region, self._box, strict=True))
        return self._block[inner]


class Edits:
    """Follows a labels layer and collects one box per changed section.

    A stroke, a fill or a polygon says where it was. Undo and redo say nothing: the history tells. Where ``watchful``, a
    refresh of the section in view that comes without either is taken for a change of that section by a script (it is
    compared with what is saved). Other data in the layer are a change of everything.

    Parameters
    ----------
    layer : napari.layers.Labels
    touched : callable
        Called after each change that was seen.
    """

    def __init__(self, layer: Labels, touched: Any) -> None:
        self.layer = layer
        self.boxes: dict[int, Box] = {}
        self.everywhere = False
        self.watchful = False
        self._touched = touched
        self._ends = self._history()
        self._place = self._point()
        self._data = layer.data
        layer.events.paint.connect(self._painted)
        layer.events.set_data.connect(self._refreshed)
        layer.events.data.connect(self._replaced)

    @property
    def any(self) -> bool:
        """Whether there is something to save."""
        return self.everywhere or bool(self.boxes)

    def add(self, box: Box | None) -> None:
        """Say that a box was changed, or everything."""
        if box is None:
            self.everywhere = True
        else:
            for section, part in _by_section(box):
                known = self.boxes.get(section)
                self.boxes[section] = part if known is None else _union(known, part)
        self._touched()

    def take(self) -> tuple[dict[int, Box], bool]:
        """Return the boxes by section and whether everything may have changed; nothing is left to save."""
        taken = self.boxes, self.everywhere
        self.boxes, self.everywhere = {}, False
        return taken

    def give_back(self, taken: tuple[dict[int, Box], bool]) -> None:
        """Take back what could not be saved."""
        for section, box in taken[0].items():
            known = self.boxes.get(section)
            self.boxes[section] = box if known is None else _union(known, box)
        self.everywhere = self.everywhere or taken[1]

    def forget_data(self) -> None:
        """Take the layer's data as saved: it was just opened."""
        self._data = self.layer.data
        self.take()

    def stop(self) -> None:
        """Follow the layer no longer."""
        self.layer.events.paint.disconnect(self._painted)
        self.layer.events.set_data.disconnect(self._refreshed)
        self.layer.events.data.disconnect(self._replaced)

    def _painted(self, event: Any) -> None:
        self._ends = self._history()
        self._add_all(_boxes(event.value, self.layer.data.shape))

    def _refreshed(self, _event: Any = None) -> None:
        ends, place = self._history(), self._point()
        new = [end for end, old in zip(ends, self._ends, strict=True) if end is not None and end is not old]
        stayed = place == self._place
        self._ends, self._place = ends, place
        if new:
            for item in new:
                self._add_all(_boxes(item, self.layer.data.shape))
        elif stayed and self.watchful and self.layer.editable:
            self.add(self._section())

    def _replaced(self, _event: Any = None) -> None:
        if self.layer.data is not self._data:
            self._data = self.layer.data
            self.add(None)

    def _add_all(self, boxes: Iterable[Box | None]) -> None:
        for box in boxes:
            self.add(box)

    def _history(self) -> tuple[Any, Any]:
        """Return the last items of the lists of undo and redo; napari makes a new item for each."""
        found = (getattr(self.layer, name, None) for name in ("_undo_history", "_redo_history"))
        undo, redo = (items[-1] if items else None for items in found)
        return undo, redo

    def _point(self) -> tuple[Any, ...]:
        seen = self.layer._slice_input
        return (*map(float, seen.world_slice.point), *seen.displayed)

    def _section(self) -> Box:
        """Return the section in view; all of them in 3D."""
        shape = self.layer.data.shape
        if len(shape) < 3 or len(self.layer._slice_input.displayed) > 2:
            return tuple(slice(0, n) for n in shape)
        axis = next(axis for axis in range(len(shape)) if axis not in self.layer._slice_input.displayed)
        at = int(np.clip(round(float(self.layer._data_slice.point[axis])), 0, shape[axis] - 1))
        return tuple(slice(at, at + 1) if i == axis else slice(0, n) for i, n in enumerate(shape))


def _boxes(item: Any, shape: tuple[int, ...]) -> list[Box | None]:
    """Return the boxes of an item of the history; None for one of a kind that is not known."""
    found: list[Box | None] = []
    for atom in item:
        if hasattr(atom, "slice_key"):
            key = atom.slice_key
            if len(key) == len(shape) and all(isinstance(part, slice | int | np.integer) for part in key):
                found.append(tuple(_bounded(part, n) for part, n in zip(key, shape, strict=True)))
            else:
                found.append(None)
        elif len(atom) == 3 and len(atom[0]) == len(shape):
            indices = [np.atleast_1d(along) for along in atom[0]]
            if all(along.size for along in indices):
                found.append(tuple(slice(int(i.min()), int(i.max()) + 1) for i in indices))
        else:
            found.append(None)
    return found


def _bounded(part: Any, size: int) -> slice:
    if isinstance(part, slice):
        low, high, _ = part.indices(size)
        return slice(low, high)
    return slice(int(part), int(part) + 1)


def _by_section(box: Box) -> Iterable[tuple[int, Box]]:
    if len(box) < 3:
        return [(0, box)]
    return [(z, (slice(z, z + 1), *box[1:])) for z in range(box[0].start, box[0].stop)]


def _union(one: Box, other: Box) -> Box:
    return tuple(slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(one, other, strict=True))
