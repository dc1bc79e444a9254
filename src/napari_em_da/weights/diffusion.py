"""Diffusion map of Guay et al.: class balance plus weight that diffuses across chosen class borders."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from napari_em_da.config import Config, Count, Fraction, NonNegative
from napari_em_da.weights._base import Finish, WeightSpec
from napari_em_da.weights._classes import ClassIds, Counts, class_counts, is_any, look_up
from napari_em_da.weights._compiled import compiled
from napari_em_da.weights._stack import Block, LabelStack, Weights

Pair = tuple[ClassIds, ClassIds]
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
    for sources, targets in pairs:
        block = partial(_diffuse, sources=sources, targets=targets, options=options)

        def leak(stack: LabelStack, block: Any = block) -> Any:
            return stack.map(block, depth=(0, halo, halo), whole_sections=options.parity)

        strengths = (options.n_steps, options.c_diffuse, options.c_decay, options.threshold, options.parity)
        total += _to_maximum(leak, stack, options.max_weight, ("diffusion", sources, targets, *strengths))
    return total


def _to_maximum(leak: Callable[[LabelStack], Any], stack: LabelStack, largest: float, key: object) -> Any:
    """Scale a map to a maximum of ``largest`` over the volume; in place where in memory."""
    weights = leak(stack)
    if not stack.lazy:
        peak = stack.over_volume(key, lambda whole: leak(whole).max(), lambda: float(weights.max()))
        weights *= np.float32(largest / peak if peak > 0 else 0)
        return weights
    import dask.array as da

    peak = leak(stack.again("peak")).max()
    return weights * da.where(peak > 0, largest / da.where(peak > 0, peak, 1), 0).astype(np.float32)


def _balance(labels: Block, out: Weights, counts: dict[int, int]) -> None:
    """Weight of a class: pixels of the rarest class that occurs over its own."""
    some = {label: number for label, number in counts.items() if number > 0}
    rarest = min(some.values(), default=0)
    look_up(labels, out, {label: rarest / number for label, number in some.items()})


def _diffuse(
    labels: Block, out: Weights, sources: tuple[int, ...], targets: tuple[int, ...], options: DiffusionOptions
) -> None:
    for section, result in zip(labels, out, strict=True):
        source, target = is_any(section, sources), is_any(section, targets)
        if not source.any() or not target.any():
            result[...] = 0
            continue
        result[...] = diffused(source, options.n_steps, options.c_diffuse, options.c_decay, wrap=options.parity)
        result -= np.float32(options.threshold)
        np.maximum(result, 0, out=result)
        result *= target


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
    """
    grown = np.pad(source, 1).astype(np.float32)
    _run(grown, source, steps, np.float32(diffuse), np.float32(decay), wrap)
    return grown[1:-1, 1:-1]


@compiled
def _run(
    u: Weights, source: npt.NDArray[np.bool_], steps: int, diffuse: np.float32, decay: np.float32, wrap: bool
) -> None:
    height, width = source.shape
    side, corner, centre = decay * diffuse / np.float32(6), decay * diffuse / np.float32(12), decay * (1 - diffuse)
    above, here = np.empty(width + 2, np.float32), np.empty(width + 2, np.float32)  # rows before this step
    for _ in range(steps):
        for y in range(1, height + 1):
            u[y, 0], u[y, width + 1] = (u[y, width], u[y, 1]) if wrap else (u[y, 1], u[y, width])
        for x in range(width + 2):
            u[0, x], u[height + 1, x] = (u[height, x], u[1, x]) if wrap else (u[1, x], u[height, x])
        above[:] = u[0]
        for y in range(1, height + 1):
            here[:] = u[y]
            below, row, fixed = u[y + 1], u[y], source[y - 1]
            for x in range(1, width + 1):
                edges = above[x] + below[x] + here[x - 1] + here[x + 1]
                corners = above[x - 1] + above[x + 1] + below[x - 1] + below[x + 1]
                value = centre * here[x] + side * edges + corner * corners
                row[x] = np.float32(1) if fixed[x - 1] else max(value, np.float32(0))
            above[:] = here


WEIGHT = WeightSpec(raw, DiffusionOptions, lambda options: Finish(floor=0.01, rule="add"))
