"""What IoU to expect from a label-free score, measured on synthetic shifts of the source, where labels exist."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.optimize import isotonic_regression

from napari_em_da.errors import DataError

COVERAGE = 0.8

Values = npt.NDArray[np.float64]


class Expected(NamedTuple):
    """An IoU: the estimate, and the range that holds it in 8 of 10 cases like those measured."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Calibration:
    """A rising curve from score to IoU and how far single cases lie from it.

    Attributes
    ----------
    scores, ious : (k,) float64
        Corners of the curve.
    spread : float
        Half the width of the range; infinite with too few pairs to tell.
    points : int
        Pairs it was fitted to.
    """

    scores: Values
    ious: Values
    spread: float
    points: int

    @classmethod
    def fit(cls, pairs: Sequence[tuple[float, float]]) -> Calibration:
        """Fit (score, IoU) pairs; pairs with a score that is not finite are left out.

        Raises
        ------
        DataError
            If no pair is left, or an IoU is outside [0, 1].

        Notes
        -----
        The range is the ceil((n + 1) 0.8)-th smallest distance between a pair and the curve fitted to the others:
        with fewer than four pairs there is no such distance, and the range is [0, 1].

        References
        ----------
        Barlow R.E. et al., Statistical inference under order restrictions, 1972 (the curve). Lei J. et al.,
        Distribution-free predictive inference for regression, JASA 113, 2018 (the jackknife range).
        """
        data = np.array([pair for pair in pairs if math.isfinite(pair[0])], float).reshape(-1, 2)
        if not len(data):
            raise DataError(f"None of the {len(pairs)} pairs has a finite score; measure more synthetic shifts.")
        if not ((data[:, 1] >= 0) & (data[:, 1] <= 1)).all():
            raise DataError(f"IoUs lie in [0, 1], but one of the pairs has {data[:, 1].min()} or {data[:, 1].max()}.")
        scores, ious = _curve(data)
        place = math.ceil((len(data) + 1) * COVERAGE)
        left_out = [np.delete(data, i, axis=0) for i in range(len(data))] if place <= len(data) else []
        distances = sorted(
            abs(iou - float(np.interp(score, *_curve(others))))
            for (score, iou), others in zip(data, left_out, strict=False)
        )
        return cls(scores, ious, distances[place - 1] if distances else math.inf, len(data))

    def predict(self, score: float) -> Expected:
        """Return the expected IoU; below or above the scores that were measured the range is open to 0 or 1."""
        mean = float(np.interp(score, self.scores, self.ious)) if math.isfinite(score) else float(self.ious.mean())
        if not math.isfinite(score):
            return Expected(mean, 0.0, 1.0)
        low = mean - self.spread if score >= self.scores[0] else 0.0
        high = mean + self.spread if score <= self.scores[-1] else 1.0
        return Expected(mean, max(0.0, low), min(1.0, high))

    def sentence(self, score: float) -> str:
        """Say what to expect and how far to trust it."""
        mean, low, high = self.predict(score)
        text = (
            f"Expected IoU about {mean:.2f}, {low:.2f} to {high:.2f} in 8 of 10 cases like the {self.points} measured"
        )
        text += " on synthetic shifts of the source; a real microscope may shift the images in other ways."
        if not math.isfinite(self.spread):
            text += " That is too few cases to give a range."
        elif not self.scores[0] <= score <= self.scores[-1]:
            text += (
                f" The score {score:.3g} lies outside those measured ({self.scores[0]:.3g} to {self.scores[-1]:.3g})."
            )
        return text


def _curve(data: Values) -> tuple[Values, Values]:
    """Return the corners of the rising curve with the least squared error; equal scores are one corner."""
    scores, group, weights = np.unique(data[:, 0], return_inverse=True, return_counts=True)
    means = np.bincount(group, weights=data[:, 1]) / weights
    return scores, np.asarray(isotonic_regression(means, weights=weights).x)
