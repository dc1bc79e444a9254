"""Diffusion map of Guay et al.: class balance plus weight that diffuses across chosen class borders."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from napari_em_da.config import Config, Count, Fraction, NonNegative
from napari_em_da.weights._base import Finish, WeightSpec
from napari_em_da.weights._classes import ClassIds, Counts, class_counts, is_any, look_up
from napari_em_da.weights._compiled import compiled, in_threads
from napari_em_da.weights._stack import Block, LabelStack, Weights

Pair = tuple[ClassIds, ClassIds]
AT_ONCE = 16  # steps that sweep over the rows together
TINY = np.float32(1e-30)
DEPTH = 16  # px; deeper context changes the raw map by less than 1e-11 at the default threshold


class DiffusionOptions(Config):
    """Weights that leak from source classes into target classes, per section."""

    pairs: tuple[Pair, ...] = Field(
        (((0,), (1, 2, 3, 4, 5, 6)), ((1,), (0,)), ((1,), (2, 3, 4, 5, 6)), ((5,), (6,))),
        description="Pairs of source classes and target classes",
    )
    symmetric: bool = Field(False, description="Also run every pair with sources and targets swapped")
    max_weight: NonNegative = Field(25.0, description="Largest weight of each pair")
    c_diffuse: Fraction = Field(0.2, description="Share that diffuses per step")
    c_decay: Fraction = Field(0.98, description="Share that is left after each step")
    threshold: Fraction = Field(0.2, description="Concentration below which the weight is 0")
    n_steps: Count = Field(50, description="Diffusion steps")
    class_balance: bool = Field(True, description="Add the inverse class frequency, 1 for the rarest class")
    counts: Counts | None = Field(None, description="Class: pixels in the whole training set; counted here if absent")
    exact: bool = Field(False, description="Halo of n_steps instead of 16 pixels for lazy labels")
    parity: bool = Field(False, description="Wrap around at the borders of a section, as the authors' release does")


def raw(stack: LabelStack, options: DiffusionOptions) -> Any:
    """Return ``W_cb + W_ep``; the constant 0.01 of the paper is the default floor, which is added.

    Notes
    -----
    Borders reflect; the authors' release wraps around (``parity=True``). A pair without target pixels, or all of them
    below the threshold, adds 0. The maximum that a pair is divided by is that of the whole volume.

    References
    ----------
    M. Guay et al., "Dense cellular segmentation for EM using 2D-3D neural network ensembles", 2021.
    """
    halo = options.n_steps if options.exact else min(DEPTH, options.n_steps)
    pairs = options.pairs + (tuple((t, s) for s, t in options.pairs) if options.symmetric else ())
    if options.class_balance:
        total = stack.map(_balance, class_counts(stack) if options.counts is None else options.counts)
    else:
        total = stack.map(look_up, {})
    together: dict[ClassIds, tuple[ClassIds, ...]] = {}  # what diffuses from the same sources does so once
    for sources, targets in pairs:
        together[sources] = tuple(dict.fromkeys((*together.get(sources, ()), targets)))
    strengths = (options.n_steps, options.c_diffuse, options.c_decay)

    def spread(stack: LabelStack, sources: ClassIds, *targets: ClassIds) -> Any:
        wanted = tuple(sorted({label for group in targets or together[sources] for label in group}))
        prepare = partial(_spread, sources=sources, targets=wanted, strengths=strengths, wrap=options.parity)
        return stack.map(_kept, depth=(0, halo, halo), whole_sections=options.parity, prepare=prepare)

    if stack.lazy:
        for pair in pairs:
            total += _scaled_lazily(spread(stack, *pair), spread(stack.again("peak"), *pair).max(), options)
        return total

    found: dict[ClassIds, Weights] = {}
    if stack.threads > 1:  # threads share out the pairs of one section, but the sections of a volume
        found = dict(zip(together, in_threads(partial(spread, stack), together), strict=True))
    for sources, targets in pairs:
        if sources not in found:
            found = {sources: spread(stack, sources)}  # of a volume, one at a time is in memory
        groups, here = together[sources], found[sources]

        def peaks(part: LabelStack, sources: ClassIds = sources, groups: Any = groups) -> Weights:
            return _peaks(spread(part, sources), part.covered, groups)

        def own(here: Weights = here, groups: Any = groups) -> Weights:
            return _peaks(here, stack.covered, groups)

        key = ("diffusion", sources, groups, options.parity, strengths)
        peak = stack.over_volume(key, peaks, np.maximum, own)[groups.index(targets)]
        factor = options.max_weight / above if (above := float(_above(peak, options))) > 0 else 0.0
        add = partial(_add_scaled, targets=targets, factor=factor, options=options)
        in_threads(add, zip(here, stack.covered, total, strict=True))
    return total


def _peaks(concentration: Weights, labels: Block, groups: tuple[ClassIds, ...]) -> Weights:
    """Return the largest concentration in each group of classes."""

    def of_section(pair: tuple[Weights, Block]) -> list[np.float32]:
        return [(pair[0] * is_any(pair[1], targets)).max() for targets in groups]

    each = np.array(in_threads(of_section, zip(concentration, labels, strict=True)), np.float32)
    found: Weights = each.max(axis=0)
    return found


def _above(concentration: Any, options: DiffusionOptions) -> Any:
    """Return what a concentration exceeds the threshold by."""
    return np.maximum(concentration - np.float32(options.threshold), np.float32(0))


def _add_scaled(
    section: tuple[Weights, Block, Weights], targets: ClassIds, factor: float, options: DiffusionOptions
) -> None:
    concentration, labels, total = section
    weights = _above(concentration, options)
    weights *= np.float32(factor)
    weights *= is_any(labels, targets)
    total += weights


def _scaled_lazily(concentration: Any, peak: Any, options: DiffusionOptions) -> Any:
    """Return what is above the threshold, scaled to a maximum of ``max_weight`` over the volume."""
    import dask.array as da

    largest = _above(peak, options)
    factor = da.where(largest > 0, options.max_weight / da.where(largest > 0, largest, 1), 0).astype(np.float32)
    return _above(concentration, options) * factor


def _balance(labels: Block, out: Weights, counts: dict[int, int]) -> None:
    """Weight of a class: pixels of the rarest class that occurs over its own."""
    some = {label: number for label, number in counts.items() if number > 0}
    rarest = min(some.values(), default=0)
    look_up(labels, out, {label: rarest / number for label, number in some.items()})


def _spread(
    labels: Block,
    sources: tuple[int, ...],
    targets: tuple[int, ...],
    strengths: tuple[int, float, float],
    wrap: bool,
) -> Weights:
    """Return the concentration in the target classes; 0 elsewhere."""
    out = np.zeros(labels.shape, np.float32)
    for section, result in zip(labels, out, strict=True):
        source, target = is_any(section, sources), is_any(section, targets)
        if source.any() and target.any():
            np.multiply(diffused(source, *strengths, wrap), target, out=result)
    return out


def _kept(labels: Block, out: Weights, concentration: Weights) -> None:
    out[...] = concentration


def diffused(source: npt.NDArray[np.bool_], steps: int, diffuse: float, decay: float, wrap: bool = False) -> Weights:
    """Diffuse from sources that stay at 1, for a number of steps.

    Parameters
    ----------
    source : (Y, X) bool
    steps : int
    diffuse, decay : float
        ``u <- decay * (u + diffuse * K * u)`` with ``K`` the 9-point Laplacian: -1, edges 1/6, corners 1/12.
    wrap : bool
        Periodic instead of reflecting borders.

    Returns
    -------
    (Y, X) float32, 0 to 1

    Notes
    -----
    Concentrations below 1e-30 become 0: numbers that float32 can only just hold take a hundred times as long. Several
    steps sweep over the rows one behind the other, each a row later, so that the rows between them stay in the
    processor's cache.
    """
    u = np.pad(source, 1, mode="wrap" if wrap else "edge").astype(np.float32)
    _run(u, source, steps, np.float32(diffuse), np.float32(decay), wrap)
    return u[1:-1, 1:-1]


@compiled
def _run(
    u: Weights, source: npt.NDArray[np.bool_], steps: int, diffuse: np.float32, decay: np.float32, wrap: bool
) -> None:
    height, width = source.shape
    side, corner, centre = decay * diffuse / np.float32(6), decay * diffuse / np.float32(12), decay * (1 - diffuse)
    at_once = 1 if wrap else AT_ONCE  # the first row of a step needs the last one of the step before
    old = np.empty((at_once, 2, width + 2), np.float32)  # per step, its row and the one above as they were before
    for begin in range(0, steps, at_once):
        sweeps = min(at_once, steps - begin)
        if wrap:
            u[0], u[height + 1] = u[height], u[1]
            old[0, 1] = u[0]
        for front in range(height + sweeps - 1):
            for t in range(max(0, front - height + 1), min(sweeps, front + 1)):
                y = front - t
                row, here, above = u[y + 1], old[t, y % 2], old[t, 1 - y % 2]
                here[:] = row
                if not wrap and y == 0:
                    above[:] = here
                below = here if not wrap and y == height - 1 else u[y + 2]
                _step(above, here, below, source[y], centre, side, corner, row)
                row[0], row[width + 1] = (row[width], row[1]) if wrap else (row[1], row[width])


# A short loop in a function of its own: only so does the compiler see that it may use vector instructions.
@compiled
def _step(
    above: Weights,
    here: Weights,
    below: Weights,
    fixed: npt.NDArray[np.bool_],
    centre: np.float32,
    side: np.float32,
    corner: np.float32,
    row: Weights,
) -> None:
    for x in range(fixed.size):
        edges = above[x + 1] + below[x + 1] + here[x] + here[x + 2]
        corners = above[x] + above[x + 2] + below[x] + below[x + 2]
        value = centre * here[x + 1] + side * edges + corner * corners
        row[x + 1] = np.float32(1) if fixed[x] else (value if value > TINY else np.float32(0))


WEIGHT = WeightSpec(raw, DiffusionOptions, lambda options: Finish(floor=0.01, rule="add"))
