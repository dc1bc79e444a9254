"""Labels in memory or lazy, behind the two operations that every weight map is made of: map and tally."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial, reduce
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from napari_em_da.lazy import once

Block = npt.NDArray[Any]
Weights = npt.NDArray[np.float32]
Depth = tuple[int, int, int]
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class LabelStack:
    """Integer labels (Z, Y, X) as a numpy or a dask array.

    Attributes
    ----------
    array : numpy or dask array (Z, Y, X), integer
    ignore_index : int or None
        Label of pixels that are not annotated.
    spacing : (z, y, x) or None
        Voxel size in nanometres.
    reading : str
        Tells passes over lazy labels apart; see :meth:`again`.
    """

    array: Any
    ignore_index: int | None = None
    spacing: tuple[float, float, float] | None = None
    reading: str = ""

    @property
    def lazy(self) -> bool:
        return not isinstance(self.array, np.ndarray)

    @property
    def covered(self) -> Any:
        """Labels of what a map holds: all of them."""
        return self.array

    @property
    def threads(self) -> int:
        """How many threads may share one section: one where the sections themselves are shared out."""
        from napari_em_da.weights._compiled import thread_count

        return thread_count() if not self.lazy and len(self.array) == 1 else 1

    def over_volume(
        self, key: object, part: Callable[[LabelStack], T], merge: Callable[[T, T], T], here: Callable[[], T]
    ) -> T:
        """Return what a map in memory is scaled by: ``here()``, since this stack is the whole volume.

        A stack that is one section of a volume (see ``_section``) merges ``part`` of all sections instead, and keeps
        the result under ``key``.
        """
        return here()

    def again(self, purpose: str) -> LabelStack:
        """Return a stack whose maps are computed anew, for a reduction over the volume.

        Blocks of a lazy map that also feed a reduction would all stay in memory until the reduction is known; blocks
        of a second map are let go one by one.
        """
        return replace(self, reading=f"{self.reading}-{purpose}")

    def map(
        self,
        function: Callable[..., None],
        *scalars: Any,
        depth: Depth = (0, 0, 0),
        whole_sections: bool = False,
        prepare: partial[Any] | None = None,
    ) -> Any:
        """Compute float32 weights (Z, Y, X) block by block.

        Parameters
        ----------
        function : callable
            ``function(labels, out, *scalars)`` fills ``out`` from a block of labels (z, y, x). Blocks span whole
            sections in memory (one section each unless ``depth[0]`` asks for more), so that the borders of a block are
            borders of the volume, or lie ``depth`` voxels off the part that is kept.
        *scalars
            Constants, or results of :meth:`tally`.
        depth : (z, y, x)
            Context in voxels that an output voxel needs on each side.
        whole_sections : bool
            The function needs all of a section.
        prepare : partial, optional
            ``prepare(labels)`` returns arrays that ``function(labels, out, prepared, *scalars)`` starts from, and that
            depend on few options, which are its keywords: a stack of one section keeps them.
        """
        if prepare is not None:
            function = partial(_prepared, function, prepare)
        if self.lazy:
            return self._map_lazy(function, scalars, depth, whole_sections)
        from napari_em_da.weights._compiled import in_threads

        out = np.empty(self.array.shape, np.float32)
        if depth[0]:
            function(self.array, out, *scalars)
        else:
            in_threads(lambda z: function(self.array[z : z + 1], out[z : z + 1], *scalars), range(len(out)))
        return out

    def tally(self, count: Callable[[Block], Any], merge: Callable[[Any, Any], Any]) -> Any:
        """Reduce all labels to one value: ``count`` per block, ``merge`` over blocks; 0-d dask array if lazy."""
        if self.lazy:
            from dask.delayed import delayed

            parts = [delayed(count)(block) for block in self.array.to_delayed().ravel()]
            total = delayed(partial(reduce, merge))(parts)
            return once(total, object)
        from napari_em_da.weights._compiled import in_threads

        return reduce(merge, in_threads(count, self.array))

    def _map_lazy(self, function: Callable[..., None], scalars: Any, depth: Depth, whole_sections: bool) -> Any:
        import dask.array as da
        from dask.array.overlap import overlap, trim_internal

        reached = [axis for axis in range(3) if depth[axis] >= self.array.shape[axis] or (whole_sections and axis > 0)]
        array = self.array.rechunk(dict.fromkeys(reached, -1))
        halo = {axis: 0 if array.numblocks[axis] == 1 else depth[axis] for axis in range(3)}
        # Nothing is invented outside the volume ("none"): there the kernels apply their own edge rule.
        grown = overlap(array, halo, "none") if any(halo.values()) else array
        weights = da.map_blocks(
            partial(_fill, function, self.reading),
            *(grown, *scalars),
            dtype=np.float32,
            meta=np.empty((0, 0, 0), np.float32),
        )
        if any(halo.values()):
            weights = trim_internal(weights, halo, "none")
        return weights.rechunk(self.array.chunks)


def _prepared(function: Callable[..., None], prepare: partial[Any], labels: Block, out: Weights, *scalars: Any) -> None:
    function(labels, out, prepare(labels), *scalars)


def _fill(function: Callable[..., None], reading: str, labels: Block, *scalars: Any) -> Weights:
    out = np.empty(labels.shape, np.float32)
    function(labels, out, *scalars)
    return out
