"""A change of a label volume that knows what was there before, and the history of such changes."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_em_da.errors import ConfigError, DataError, ResourceError
from napari_em_da.metrics._base import Region, load

Ids = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Edit:
    """A change of one region of a label volume.

    Attributes
    ----------
    region : tuple of slices
        The bounding box of the voxels that change; of size 0 if none does.
    before, after : arrays of the region's shape and the volume's dtype
    text : what was done, for a menu or a message
    """

    region: Region
    before: Ids = field(repr=False)
    after: Ids = field(repr=False)
    text: str

    @classmethod
    def between(cls, region: Region, before: Ids, after: Ids, text: str) -> Edit:
        """Return the edit of a region, cropped to what changes; both arrays are copied."""
        changed = before != after
        inner = []
        for axis in range(changed.ndim):
            along = np.flatnonzero(changed.any(tuple(a for a in range(changed.ndim) if a != axis)))
            inner.append(slice(int(along[0]), int(along[-1]) + 1) if along.size else slice(0, 0))
        where = tuple(slice(r.start + s.start, r.start + s.stop) for r, s in zip(region, inner, strict=True))
        return cls(where, before[tuple(inner)].copy(), after[tuple(inner)].copy(), text)

    @property
    def changed(self) -> int:
        """Number of voxels that change."""
        return int(np.count_nonzero(self.before != self.after))

    @property
    def nbytes(self) -> int:
        """Memory that the record takes."""
        return self.before.nbytes + self.after.nbytes

    def apply(self, array: Any) -> None:
        """Write the change into an array, in place.

        Parameters
        ----------
        array : numpy or zarr array
            Anything with a shape, a dtype, slicing and assignment to slices.

        Raises
        ------
        DataError
            If the region does not hold what it held when the edit was made, or the array cannot be written to.
        """
        self._replace(array, self.before, self.after, "applied")

    def undo(self, array: Any) -> None:
        """Write back what was there before; raises like `apply`."""
        self._replace(array, self.after, self.before, "undone")

    def _replace(self, array: Any, old: Ids, new: Ids, what: str) -> None:
        if not self.before.size:
            return
        if hasattr(array, "dask"):
            raise DataError(f"{self.text!r} cannot be {what} to a dask array, which is no storage; save it as .zarr.")
        held = load(array, self.region)
        if held.shape != old.shape or held.dtype != old.dtype:
            raise DataError(
                f"{self.text!r} cannot be {what}: it was made for {old.dtype} labels and a region {old.shape}, "
                f"but the array gives {held.dtype} {held.shape}; use the volume that it was made from."
            )
        if different := int(np.count_nonzero(held != old)):
            raise DataError(
                f"{self.text!r} cannot be {what}: {different} voxels of its region have been changed by something else "
                "since; undo the later changes first."
            )
        array[self.region] = new


class History:
    """Edits of one array that can be undone and redone, up to a number of bytes.

    Parameters
    ----------
    max_bytes : int
        When the records take more, the oldest ones are forgotten.
    """

    def __init__(self, max_bytes: int = 1 << 28) -> None:
        if max_bytes < 1:
            raise ConfigError(f"max_bytes={max_bytes} must be at least 1.")
        self.max_bytes = max_bytes
        self.done: deque[Edit] = deque()
        self.undone: list[Edit] = []

    @property
    def nbytes(self) -> int:
        """Memory that all records take."""
        return sum(edit.nbytes for edit in (*self.done, *self.undone))

    def do(self, array: Any, edit: Edit) -> None:
        """Apply an edit and remember it; what was undone before cannot be redone any more.

        Raises
        ------
        ResourceError
            If the edit alone is larger than the history.
        DataError
            As `Edit.apply`; nothing is remembered then.
        """
        if edit.nbytes > self.max_bytes:
            raise ResourceError(
                f"{edit.text!r} takes {edit.nbytes / 1e6:.1f} MB, but the history holds {self.max_bytes / 1e6:.1f} MB; "
                "raise max_bytes, or apply the edit without a history."
            )
        edit.apply(array)
        self.undone.clear()
        self.done.append(edit)
        while self.nbytes > self.max_bytes:
            self.done.popleft()

    def undo(self, array: Any) -> Edit | None:
        """Undo the last edit and return it; None if there is none."""
        if not self.done:
            return None
        self.done[-1].undo(array)
        self.undone.append(self.done.pop())
        return self.undone[-1]

    def redo(self, array: Any) -> Edit | None:
        """Apply the edit that was undone last and return it; None if there is none."""
        if not self.undone:
            return None
        self.undone[-1].apply(array)
        self.done.append(self.undone.pop())
        return self.done[-1]
