"""Interleaved stacks: a volume of thin sections, seen by a 3D network at the wider spacing that it was trained at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_em_da.augment.geometry import section_offsets
from napari_em_da.volume import Volume

Numbers = npt.NDArray[np.intp]


def interleaved(depth: int, step: float) -> list[Numbers]:
    """Return the section numbers of stacks that together hold every section of a volume.

    Parameters
    ----------
    depth : int
        Sections of the volume.
    step : float
        Its sections per section of a stack, at least 1.

    Returns
    -------
    list of arrays
        Stack p takes the sections nearest to p, p + step, p + 2 step, …; the first is the longest. Where the step is
        no whole number, stacks share some sections.
    """
    stacks = []
    for phase in range(min(depth, int(np.ceil(step)))):
        numbers = phase + np.array(section_offsets(depth, step), np.intp)  # offsets rise by at least one
        stacks.append(numbers[numbers < depth])
    return stacks


def of_sections(volume: Volume, numbers: Numbers) -> Volume:
    """Return some sections of a volume as a volume, lazily; the volume itself if it is all of them."""
    if len(numbers) == volume.shape[0]:
        return volume
    return Volume(Sections(volume, numbers), None, volume.name, volume.path)


@dataclass(frozen=True, eq=False)
class Sections:
    """Some sections of a volume as an array that is read section by section."""

    volume: Volume
    numbers: Numbers

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.numbers), *self.volume.shape[1:])

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.volume.dtype

    def __getitem__(self, key: Any) -> npt.NDArray[Any]:
        """Read ``[sections, rows, columns, …]``, all slices."""
        depth, *rest = key if isinstance(key, tuple) else (key,)
        return np.concatenate([self.volume.read((slice(int(z), int(z) + 1), *rest)) for z in self.numbers[depth]])
