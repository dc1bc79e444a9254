"""Windows that were proposed, and the greedy choice of ones that differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Box = tuple[int, int, int, int, int]  # section, y, x, height, width
Float = npt.NDArray[np.float64]
MOST = 5000  # candidates that are compared with each other, the best ones
ALIKE = 0.25  # distance at which two windows are half new to each other
SHARED = 0.1  # windows of one section that overlap by more are not both proposed


@dataclass(frozen=True)
class Suggestion:
    """A window to look at: where it is, how much it is worth, and why."""

    section: int
    y: int
    x: int
    height: int
    width: int
    score: float
    reason: str

    @property
    def box(self) -> Box:
        """Return (section, y, x, height, width)."""
        return self.section, self.y, self.x, self.height, self.width


def overlap(one: Box, other: Box) -> float:
    """Return the shared area of two windows over the smaller one's area; 0 in different sections."""
    if one[0] != other[0]:
        return 0.0
    shared = [min(one[i] + one[i + 2], other[i] + other[i + 2]) - max(one[i], other[i]) for i in (1, 2)]
    if min(shared) <= 0:
        return 0.0
    return shared[0] * shared[1] / min(one[3] * one[4], other[3] * other[4])


def choose(
    scores: Float, features: Float, boxes: Sequence[Box], count: int, *, seen: Float, strength: float = 1.0
) -> list[int]:
    """Return the indices of at most ``count`` windows, greedily by score times novelty.

    Parameters
    ----------
    scores : (N,) positive
    features : (N, D)
    boxes : N boxes
    count : int
    seen : (M, D)
        Features of windows that are known already.
    strength : float
        0 takes the highest scores that do not overlap.

    Notes
    -----
    Novelty is (1 - 2^(-(d / 0.25)^2)) ** strength, with d the distance to the nearest window that is chosen or known:
    farthest-point sampling (k-center) weighted by the score. Ties go to the first window.
    """
    best = np.argsort(-scores, kind="stable")[:MOST]
    nearest = np.full(len(best), np.inf)
    for feature in seen:
        nearest = np.minimum(nearest, np.linalg.norm(features[best] - feature, axis=1))
    allowed = np.ones(len(best), bool)
    chosen: list[int] = []
    while len(chosen) < count and allowed.any():
        novelty = (1 - np.exp2(-((nearest / ALIKE) ** 2))) ** strength
        gain = np.where(allowed, scores[best] * novelty, -1.0)
        pick = int(gain.argmax())
        if gain[pick] <= 0:
            break
        index = int(best[pick])
        chosen.append(index)
        nearest = np.minimum(nearest, np.linalg.norm(features[best] - features[index], axis=1))
        for i in np.flatnonzero(allowed):
            if overlap(boxes[best[i]], boxes[index]) > SHARED:
                allowed[i] = False
    return chosen
