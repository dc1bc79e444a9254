"""Loss weights that change while training."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DecayedWeight:
    """A weight that falls by a factor every so many steps, down to a floor.

    References
    ----------
    Chen et al. (2016), Deep Contextual Networks for Neuronal Structure Segmentation: auxiliary classifiers.
    """

    start: float = 1.0
    factor: float = 0.1
    every: int = 10_000
    floor: float = 0.01

    def __call__(self, step: int) -> float:
        """Return the weight at a training step, counted from 0."""
        return max(self.floor, self.start * self.factor ** (step // self.every))
