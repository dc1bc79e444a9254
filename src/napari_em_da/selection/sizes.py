"""How close the sizes of predicted regions are to those of the annotated ones of the source.

S_size = -W1(ln areas_t, ln areas_s): the earth mover's distance between the two distributions of log region sizes, of
the regions of a compact class, of the cells between a thin, connected one. 0.7 means sizes off by a factor of 2.

Works against specks, fragments and merged objects, which solidity may miss. Fails when the tissues' structures differ
in size, and on volumes with few objects.

References
----------
Vallender S.S., Calculation of the Wasserstein distance between probability distributions on the line, Theory of
Probability and its Applications 18, 1974.

Notes
-----
Every region counts once, however large: specks are what is to be noticed. Nothing found counts as one region of one
pixel.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import stats

from napari_em_da.selection._base import Criterion, Evidence
from napari_em_da.selection._shapes import Counts, Shapes


def score(evidence: Evidence) -> float:
    """Return S_size, at most 0."""

    def closeness(predicted: Shapes, source: Shapes) -> float:
        pair = (predicted.cells, source.cells) if source.net else (predicted.areas, source.areas)
        return -float(stats.wasserstein_distance(*map(_logs, pair)))

    return evidence.class_mean(closeness)


def _logs(areas: Counts) -> npt.NDArray[np.float64]:
    return np.log(areas.astype(float)) if areas.size else np.zeros(1)


CRITERION = Criterion("S_size", score)
