"""Probabilities to classes: the most probable one, or levels that a class must exceed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from napari_em_da.catalog import unknown
from napari_em_da.config import Fraction
from napari_em_da.config import Options as Base
from napari_em_da.errors import ConfigError, DataError
from napari_em_da.postprocess._base import Stack, Step, own_section, per_block

IGNORED = 255
SMALLEST = 1e-30  # level 0 as a divisor
Probabilities = npt.NDArray[Any]


class Options(Base):
    """How probabilities become classes."""

    level: Fraction | None = Field(
        None, description="A class needs more than this probability; the most probable class wins if absent"
    )
    levels: dict[str, Fraction] = Field(
        default_factory=dict, description="Level per class; a class without one takes `level`, or never occurs"
    )


def threshold(probabilities: Probabilities, levels: Sequence[float | None] | None = None) -> npt.NDArray[np.uint8]:
    """Assign each voxel one class.

    Parameters
    ----------
    probabilities : (..., C) float, 0 to 1
        Channel 0 is the background.
    levels : C values, optional
        Class c > 0 is eligible where p_c > levels[c]; of several the largest p_c / levels[c] wins, and none is
        background. None: never eligible; the first entry does not count. Without levels the largest p_c wins.

    Returns
    -------
    (...) uint8
        Ties go to the smallest class; 255 where all probabilities are 0, which is where nothing was predicted.

    Raises
    ------
    DataError
        If there are more than 255 classes.
    """
    count = probabilities.shape[-1]
    if count > IGNORED:
        raise DataError(f"{count} classes do not fit labels of one byte, where 255 is not annotated; merge some.")
    best: npt.NDArray[np.uint8]
    if levels is None:
        best = probabilities.argmax(-1).astype(np.uint8)
    else:
        best = np.zeros(probabilities.shape[:-1], np.uint8)
        record = np.zeros(probabilities.shape[:-1], np.float32)
        for c, level in enumerate(levels):
            if c and level is not None:
                p = probabilities[..., c]
                ratio = p / max(level, SMALLEST)
                wins = (p > level) & (ratio > record)
                best[wins], record[wins] = c, ratio[wins]
    best[~probabilities.any(-1)] = IGNORED
    return best


def apply(stack: Stack, options: Options) -> Stack:
    """Assign each voxel of a stack one class.

    Raises
    ------
    ConfigError
        If a class is unknown, or a level is given to the background.
    """
    for name in options.levels:
        if name not in stack.classes:
            raise ConfigError(unknown("class", name, stack.classes))
        if stack.classes.index(name) == 0:
            raise ConfigError(f"{name!r} is the background, which is where no class is above its level; remove it.")
    levels: list[float | None] | None = None
    if options.level is not None or options.levels:
        names = [stack.classes[c] if c < len(stack.classes) else "" for c in range(stack.data.shape[-1])]
        levels = [options.levels.get(name, options.level) for name in names]
    return stack.with_data(per_block(stack, lambda block: threshold(block, levels), dtype=np.uint8), "labels")


STEP = Step(Options, ("probabilities",), "labels", apply, reach=own_section)
