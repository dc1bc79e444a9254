"""Learning-rate schedules as pure functions of the step, so that a resumed run needs no state for them."""

from __future__ import annotations

import math

from napari_em_da.config import TrainingConfig

WARM_UP = 0.3  # share of the steps in which one-cycle rises
START, END = 1 / 25, 1e-4  # of the peak
WARM_STEPS = 20  # in which "warm" rises


def learning_rate_factor(config: TrainingConfig, step: int) -> float:
    """Return the learning rate of step ``step`` (0-based) as a fraction of the peak.

    Notes
    -----
    ``onecycle`` rises from 1/25 over the first 30 % of the steps and falls to 1e-4, both along a cosine
    (Smith and Topin 2018); ``cosine`` falls from 1 to 1e-4; ``step`` multiplies by ``decay`` every ``decay_every``
    steps (Guay et al.: 0.75 every 10^3.4 steps). ``warm`` rises evenly over the first 20 steps and stays, however many
    follow: Adam's first steps are as long as its later ones, in directions that it hardly knows.
    """
    if config.schedule == "constant":
        return 1.0
    if config.schedule == "warm":
        return min(1.0, (step + 1) / WARM_STEPS)
    if config.schedule == "step":
        return float(config.decay ** (step // config.decay_every))
    last = max(1, config.steps - 1)
    if config.schedule == "cosine":
        return _cosine(1.0, END, step / last)
    peak = WARM_UP * last
    if step < peak:
        return _cosine(START, 1.0, step / peak)
    return _cosine(1.0, END, (step - peak) / max(1e-9, last - peak))


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * min(1.0, share)))
