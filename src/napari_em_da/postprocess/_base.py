"""What a post-processing step is, and the stack that it works on."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import numpy as np

from napari_em_da.config import Options, VoxelSize
from napari_em_da.errors import ConfigError, DataError
from napari_em_da.events import Progress

Holds = Literal["probabilities", "labels", "instances"]
Depth = tuple[int, int, int]
O = TypeVar("O", bound=Options)  # noqa: E741
Work = Generator[Progress, None, "Stack"]


@dataclass(frozen=True, eq=False)
class Stack:
    """A segmentation between two steps.

    Attributes
    ----------
    data : numpy or dask array
        ``probabilities``: (Z, Y, X, C) float32, channel c is class c. ``labels``: (Z, Y, X) uint8 class ids, 255 is not
        annotated. ``instances``: (Z, Y, X) uint32 or uint64 ids, 0 is background.
    holds : what the data are
    voxel_nm : (z, y, x), or None where nobody said
    classes : names; the first one is the background
    labelled : sections that hold ground truth, which no step may change
    work : folder for blocks of a lazy stack, so that an interrupted step goes on; a temporary one if None
    """

    data: Any
    holds: Holds
    voxel_nm: VoxelSize | None = None
    classes: tuple[str, ...] = ("background", "foreground")
    labelled: tuple[int, ...] = ()
    work: Path | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        z, y, x = (int(n) for n in self.data.shape[:3])
        return z, y, x

    @property
    def lazy(self) -> bool:
        """Return True if the data are a dask array: a step then answers with a dask array."""
        return hasattr(self.data, "dask")

    def nm(self) -> VoxelSize:
        """Return the voxel size.

        Raises
        ------
        ConfigError
            If nobody said it.
        """
        if self.voxel_nm is None:
            raise ConfigError("The voxel size is unknown, and this step measures in nm; give voxel_nm=(z, y, x).")
        return self.voxel_nm

    def channel(self, name: str) -> int:
        """Return the channel (and label value) of a class.

        Raises
        ------
        ConfigError
            If there is no such class.
        """
        from napari_em_da.catalog import unknown

        if name not in self.classes:
            raise ConfigError(unknown("class", name, self.classes))
        return self.classes.index(name)

    def with_data(self, data: Any, holds: Holds | None = None) -> Stack:
        """Return the same stack with other voxels."""
        return replace(self, data=data, holds=holds or self.holds)

    def outside_labelled(self, data: Any, truth: Any = None) -> Any:
        """Return ``data``, but in the sections of ground truth what they were (or ``truth``); numpy or dask alike."""
        if not self.labelled:
            return data
        truth = self.data if truth is None else truth
        kept = np.isin(np.arange(self.shape[0]), self.labelled).reshape(-1, *(1,) * (data.ndim - 1))
        if not self.lazy:
            return np.where(kept, truth, data)
        import dask.array as da

        kept = da.from_array(kept, chunks=(data.chunks[0], *(1,) * (data.ndim - 1)))
        return da.where(kept, truth.rechunk(data.chunks), data)


def _silent(stack: Stack) -> str | None:
    return None


def _everywhere(options: Any) -> int | None:
    return None


def own_section(options: Any) -> int | None:
    """Return 0: such a step looks at each section for itself."""
    return 0


@dataclass(frozen=True)
class Step(Generic[O]):
    """One operation on a stack; one file of this package defines one.

    Attributes
    ----------
    options : flat frozen model
    takes : what it accepts
    gives : what it returns; None for what it was given
    apply : (stack, options) to stack
        Or a generator that yields Progress while it works through blocks and returns the stack. Numpy in, numpy out;
        dask in, dask out. The input is never written to.
    advice : what the user should read before the step works on a stack, or None
    reach : how many sections above and below a section decide its result, for these options
        None where any section may, as with objects in 3D; a preview then shows what a slab around the section gives.
    """

    options: type[O]
    takes: tuple[Holds, ...]
    gives: Holds | None
    apply: Callable[[Stack, O], Stack | Work]
    advice: Callable[[Stack], str | None] = _silent
    reach: Callable[[O], int | None] = _everywhere


def per_block(stack: Stack, function: Callable[[Any], Any], depth: Depth = (0, 0, 0), dtype: Any = None) -> Any:
    """Apply a function of a numpy array to the whole stack, or lazily to its blocks with ``depth`` voxels around each.

    Parameters
    ----------
    function : array (Z, Y, X[, C]) to array (Z, Y, X)
        A voxel's value may depend on the ``depth`` voxels around it in z, y and x, no further. At the faces of the
        volume it sees a smaller array, never padding.
    dtype : dtype of the result; the input's if None
    """
    data = stack.data
    dtype = np.dtype(data.dtype if dtype is None else dtype)
    if not stack.lazy:
        return function(data).astype(dtype, copy=False)
    import dask.array as da

    drop = 3 if data.ndim == 4 else None
    if not any(depth):
        return data.rechunk({3: -1} if drop else {}).map_blocks(function, dtype=dtype, drop_axis=drop)
    around = dict(enumerate(depth))
    if drop:  # map_overlap cannot drop an axis after trimming: trim here
        data = data.rechunk({3: -1})
        grown = da.overlap.overlap(data, depth={**around, 3: 0}, boundary="none")
        result = grown.map_blocks(function, dtype=dtype, drop_axis=3)
        return da.overlap.trim_internal(result, around, boundary="none")
    return data.map_overlap(function, depth=around, boundary="none", trim=True, dtype=dtype)


def whole_sections(stack: Stack) -> Stack:
    """Return the stack with whole sections per chunk, for functions that see a section at once."""
    return stack.with_data(stack.data.rechunk({1: -1, 2: -1})) if stack.lazy else stack


def check_stack(stack: Stack) -> None:
    """Raise a DataError unless the data are what the stack says.

    Probabilities are checked for their range where they are in memory.
    """
    data, kind = stack.data, np.dtype(stack.data.dtype).kind
    axes = 4 if stack.holds == "probabilities" else 3
    if data.ndim != axes:
        raise DataError(
            f"{stack.holds} have {axes} axes ({'Z, Y, X, C' if axes == 4 else 'Z, Y, X'}), not shape {data.shape}."
        )
    if 0 in data.shape:
        raise DataError(f"The volume is empty: its shape is {tuple(data.shape)}.")
    if stack.holds == "probabilities":
        if kind != "f":
            raise DataError(
                f"Probabilities are floats from 0 to 1, not {data.dtype}; divide by 255 if these are bytes."
            )
        if isinstance(data, np.ndarray):
            check_probabilities(data)
    elif kind not in "iub":
        raise DataError(f"{stack.holds} are integers, not {data.dtype}; threshold probabilities first.")
    if any(not 0 <= z < stack.shape[0] for z in stack.labelled):
        raise ConfigError(f"Labelled sections {list(stack.labelled)} lie outside 0 to {stack.shape[0] - 1}.")


def check_probabilities(block: Any) -> None:
    """Raise a DataError unless all values lie between 0 and 1 (to 1e-3)."""
    low, high = float(block.min()), float(block.max())
    if not (low >= -1e-3 and high <= 1 + 1e-3):
        raise DataError(
            f"Probabilities lie between 0 and 1, but these between {low:g} and {high:g}; "
            "divide by the largest value, or apply a sigmoid to logits."
        )
