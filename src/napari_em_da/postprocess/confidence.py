"""Pseudo-labels from probabilities: only what is confident and goes on in an adjacent section."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from napari_em_da.config import Fraction
from napari_em_da.config import Options as Base
from napari_em_da.errors import ConfigError
from napari_em_da.postprocess._base import Stack, Step, per_block
from napari_em_da.postprocess.threshold import IGNORED, threshold


class Options(Base):
    """Which voxels are accepted as pseudo-labels."""

    min_probability: Fraction = Field(0.9, description="Smallest probability of the most probable class (tau)")
    continuity: bool = Field(True, description="Ask for the same class in at least one adjacent section")


def confident(
    probabilities: npt.NDArray[np.floating], min_probability: float, *, continuity: bool = True
) -> npt.NDArray[np.uint8]:
    """Label voxels whose class is confident and continuous; all others are not annotated.

    A voxel is accepted iff max_c p_c >= ``min_probability`` and its argmax equals that of the voxel above or below.

    Parameters
    ----------
    probabilities : (Z, Y, X, C) float, 0 to 1
    min_probability : float
        tau.
    continuity : bool
        Ask for the second condition; without an adjacent section nothing is accepted then.

    Returns
    -------
    (Z, Y, X) uint8
        Classes, 255 where not accepted.

    References
    ----------
    Lee (2013), Pseudo-Label: the simple and efficient semi-supervised learning method for deep neural networks.
    """
    classes = threshold(probabilities)
    accepted = probabilities.max(-1) >= probabilities.dtype.type(min_probability)
    if continuity:
        accepted &= continuous(classes)
    classes[~accepted] = IGNORED
    return classes


def continuous(classes: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Return where a voxel of (Z, Y, X) has the class of the voxel above or below; nowhere in a single section."""
    same = classes[1:] == classes[:-1]
    goes_on = np.zeros(classes.shape, np.bool_)
    goes_on[1:] |= same
    goes_on[:-1] |= same
    return goes_on


def apply(stack: Stack, options: Options) -> Stack:
    """Turn probabilities into pseudo-labels; sections of ground truth are accepted whole.

    Raises
    ------
    ConfigError
        If the stack is one section, whose continuity nobody can judge.
    """
    if options.continuity and stack.shape[0] == 1:
        raise ConfigError("A stack of 1 section has no adjacent one to agree with; set continuity=False.")

    def function(block: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
        return confident(block, options.min_probability, continuity=options.continuity)

    data = per_block(stack, function, (1, 0, 0) if options.continuity else (0, 0, 0), np.uint8)
    if stack.labelled:
        data = stack.outside_labelled(data, per_block(stack, threshold, dtype=np.uint8))
    return stack.with_data(data, "labels")


def reach(options: Options) -> int | None:
    """Return 1 where adjacent sections must agree."""
    return 1 if options.continuity else 0


STEP = Step(Options, ("probabilities",), "labels", apply, reach=reach)
