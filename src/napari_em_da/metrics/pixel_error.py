"""Pixel error of boundary maps, in both definitions of the ISBI 2012 challenge."""

from __future__ import annotations

import inspect

import numpy as np
import numpy.typing as npt

from napari_em_da.metrics._base import Family, Pair, Undefined
from napari_em_da.metrics._sections import Section, sections, thresholds

Counts = npt.NDArray[np.int64]
Curve = npt.NDArray[np.float64]


def pixel_error(hits: Counts, predicted: Counts, annotated: int) -> Curve:
    """1 − the best F-score of object pixels over all thresholds (ISBI 2012); the sections are counted together.

    F(θ) = 2 TP / (2 TP + FP + FN) for the prediction > θ, and the error is 1 − max_θ F. Object, not membrane, is the
    positive class. F is 1 where nothing is annotated and nothing predicted. ``threshold/pixel_error`` is the best θ.

    Range 0 to 1, lower is better.

    References
    ----------
    Arganda-Carreras et al. (2015), Crowdsourcing the creation of image segmentation algorithms for connectomics.
    """
    both = predicted + annotated
    return 1 - np.divide(2 * hits, both, out=np.ones(len(both)), where=both > 0)


def pixel_error_squared(squares: float, pixels: int) -> float:
    """Mean squared difference of the prediction and the binary annotation: Σ (p − t)² / N.

    No threshold is applied; for a binary prediction this is the share of wrong pixels.

    Range 0 to 1, lower is better.

    References
    ----------
    Jain et al. (2010), Boundary learning by optimization with topological constraints (pixel error).
    """
    return squares / pixels


def count_above(section: Section, levels: tuple[float, ...]) -> Counts:
    """Count object pixels above each threshold.

    Parameters
    ----------
    section : Section
    levels : T thresholds, ascending

    Returns
    -------
    (2, T) int64
        Annotated object pixels, then all counted pixels, with probability > θ.
    """
    # A pixel of bin b is above the first b thresholds; both sides are float32, as in `probability > θ`.
    bins = np.searchsorted(np.asarray(levels, np.float32), section.probability, side="left")
    size = len(levels) + 1
    rows = [np.bincount(bins[where], minlength=size) for where in (section.truth & section.counted, section.counted)]
    return np.stack([row[::-1].cumsum()[::-1][1:] for row in rows]).astype(np.int64)


def compute(pair: Pair, wanted: tuple[str, ...]) -> dict[str, float | Undefined]:
    """Compute the wanted pixel errors of a pair of boundary maps.

    Raises
    ------
    ConfigError, DataError
        As `napari_em_da.metrics._sections.sections` does.
    """
    levels = thresholds(pair)
    above = np.zeros((2, len(levels)), np.int64)
    annotated, pixels, squares = 0, 0, 0.0
    for section in sections(pair):
        above += count_above(section, levels)
        annotated += int(np.count_nonzero(section.truth & section.counted))
        pixels += int(np.count_nonzero(section.counted))
        difference = (section.probability - section.truth)[section.counted]
        squares += float(np.square(difference, dtype=np.float64).sum())
    result: dict[str, float | Undefined] = {}
    for name in wanted:
        if name == "pixel_error":
            errors = pixel_error(above[0], above[1], annotated)
            best = int(errors.argmin())
            result[name] = float(errors[best])
            if len(levels) > 1:
                result[f"threshold/{name}"] = levels[best]
        else:
            result[name] = pixel_error_squared(squares, pixels)
    return result


FAMILY = Family({f.__name__: inspect.getdoc(f) or "" for f in (pixel_error, pixel_error_squared)}, compute)
