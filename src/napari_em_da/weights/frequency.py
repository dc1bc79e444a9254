"""Inverse class frequency: every class that occurs has the same share of the loss."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from pydantic import Field

from napari_em_da.config import Config
from napari_em_da.weights._base import WeightSpec
from napari_em_da.weights._classes import Counts, class_counts, look_up
from napari_em_da.weights._stack import Block, LabelStack, Weights


class FrequencyOptions(Config):
    """Class weights from pixel counts."""

    median_freq: bool = Field(False, description="Divide the median class frequency by the class's own")
    max_ratio: float | None = Field(50.0, ge=1, description="Largest ratio of two class weights; none for no limit")
    counts: Counts | None = Field(None, description="Class: pixels in the whole training set; counted here if absent")


def class_weights(
    counts: dict[int, int], median_freq: bool = False, max_ratio: float | None = None
) -> dict[int, float]:
    """Return {class: weight}; classes without pixels are left out.

    Parameters
    ----------
    counts : {class: pixels}
    median_freq : bool
        ``median(f) / f_c`` instead of ``N / (C * N_c)``, whose mean over the pixels is 1.
    max_ratio : float, optional
        Largest ratio of two weights; heavier classes are cut down to it.
    """
    some = {label: number for label, number in counts.items() if number > 0}
    if not some:
        return {}
    top = float(np.median(list(some.values()))) if median_freq else sum(some.values()) / len(some)
    weights = {label: top / number for label, number in some.items()}
    limit = np.inf if max_ratio is None else max_ratio * min(weights.values())
    return {label: min(weight, limit) for label, weight in weights.items()}


def raw(stack: LabelStack, options: FrequencyOptions) -> Any:
    """Return the weight of each pixel's class."""
    counts = class_counts(stack) if options.counts is None else options.counts
    return stack.map(partial(_block, options=options), counts)


def _block(labels: Block, out: Weights, counts: dict[int, int], options: FrequencyOptions) -> None:
    look_up(labels, out, class_weights(counts, options.median_freq, options.max_ratio))


WEIGHT = WeightSpec(raw, FrequencyOptions)
