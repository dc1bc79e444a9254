"""Watershed boundary fusion: close gaps of a membrane map with the watershed contour of the map (Chen et al. 2016).

The weight of the contour is fitted on annotated training data with `fit_weight`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from napari_em_da.config import Fraction, NonNegative
from napari_em_da.config import Options as Base
from napari_em_da.errors import ConfigError, DataError
from napari_em_da.postprocess._affinities import boundary_of
from napari_em_da.postprocess._base import Stack, Step, check_probabilities, own_section, whole_sections
from napari_em_da.postprocess._flood import deep_minima, flood
from napari_em_da.weights._gaussian import smooth

Map = npt.NDArray[np.float32]
Kind = Literal["membrane", "object"]
GRID = tuple(i / 20 for i in range(21))


class Options(Base):
    """Options of the fusion."""

    weight: Fraction = Field(0.3, description="Weight of the contour (w_f): fit it on training data with fit_weight")
    kind: Kind = Field("membrane", description="What the class is: membranes, or objects")
    channel: str | None = Field(None, description="Name of that class; the second one of two if absent")
    sigma_px: NonNegative = Field(1.0, description="Gaussian sigma of the map before its minima are found")
    depth: Fraction = Field(0.05, description="Minima shallower than this make no basin of their own")


@dataclass(frozen=True)
class FittedWeight:
    """The best weight, and the error of every weight tried.

    Attributes
    ----------
    weight : the smallest one of those with the smallest error
    curve : (weight, adapted Rand error) of each weight
    """

    weight: float
    curve: tuple[tuple[float, float], ...]


def contour(membrane: Map, *, sigma_px: float = 1.0, depth: float = 0.05) -> npt.NDArray[np.bool_]:
    """Find the binary watershed contour p_w of a membrane map in each section.

    Parameters
    ----------
    membrane : (Z, Y, X) float, 0 to 1
    sigma_px : float
        The map is smoothed by a Gaussian first; 0 for not.
    depth : float
        Basins are seeded by regional minima at least this deep (h-minima), or else noise over-segments.

    Returns
    -------
    (Z, Y, X) bool
        True on the lines, one voxel wide, where two 4-connected floods meet.

    References
    ----------
    Chen, Qi, Cheng & Heng (2016), Deep contextual networks for neuronal structure segmentation.
    """
    from scipy import ndimage

    height = np.array(membrane, np.float32)
    if sigma_px:
        smooth(height, (0.0, sigma_px, sigma_px))
    out = np.zeros(height.shape, np.bool_)
    for section, lines in zip(height, out, strict=True):
        basins, count = ndimage.label(deep_minima(section, depth))
        if count > 1:
            lines[...] = flood(section, basins, line=True) == 0
    return out


def fuse(
    probability: npt.NDArray[Any], weight: float, *, kind: Kind = "membrane", sigma_px: float = 1.0, depth: float = 0.05
) -> Map:
    """Blend a map with its watershed contour: p_f = w_f p_w + (1 − w_f) p, p being the membrane probability.

    Parameters
    ----------
    probability : (Z, Y, X) float, 0 to 1
        Of membranes or of objects, as ``kind`` says.
    weight : float, 0 to 1
        w_f; 0 returns the map and 1 its contour, both exactly.
    kind : {"membrane", "object"}
        Objects are 1 − membrane, before and after.
    sigma_px, depth : float
        See `contour`.

    Returns
    -------
    (Z, Y, X) float32
        Of the same kind.

    References
    ----------
    Chen, Qi, Cheng & Heng (2016), Deep contextual networks for neuronal structure segmentation.
    """
    p = np.asarray(probability, np.float32)
    return _blend(p, _target(p, kind, sigma_px, depth), weight)


def fit_weight(
    probability: npt.NDArray[Any],
    labels: npt.NDArray[Any],
    *,
    kind: Kind,
    grid: Sequence[float] = GRID,
    threshold: float = 0.5,
    thin: bool = False,
    sigma_px: float = 1.0,
    depth: float = 0.05,
) -> FittedWeight:
    """Find the weight w_f with the smallest adapted Rand error, on TRAINING data.

    The labels must be those of the data that the network was trained (or validated) on, never those of the volume to
    be segmented: a weight that has seen the target's labels makes every score on the target worthless.

    Parameters
    ----------
    probability : (Z, Y, X) float, 0 to 1
        The network's map of the training volume.
    labels : (Z, Y, X) integer
        Its annotation, 1 where the class of this ``kind`` is; 255 does not count.
    kind : {"membrane", "object"}
        What both of them show.
    grid : sequence of float
        Weights to try.
    threshold : float
        At which the fused map becomes objects: 4-connected components of each section.
    thin : bool
        Thin predicted boundaries first, as ISBI 2012 scores do.

    Returns
    -------
    FittedWeight
        The error is 1 − V_rand restricted to the annotated foreground, mean of the sections.

    Raises
    ------
    DataError
        If the shapes differ, the map is no probability, or the annotation holds no object.
    ConfigError
        If the grid is empty, or a weight is not within 0 and 1.

    References
    ----------
    Chen, Qi, Cheng & Heng (2016), Deep contextual networks for neuronal structure segmentation (w_f by Rand error).
    """
    from napari_em_da.metrics import evaluate_arrays

    if not len(grid) or not all(0 <= w <= 1 for w in grid):
        raise ConfigError(f"The weights to try, {list(grid)}, must lie between 0 and 1, and be at least one.")
    p = np.asarray(probability, np.float32)
    check_probabilities(p)
    target = _target(p, kind, sigma_px, depth)
    curve = []
    for weight in grid:
        fused = _blend(p, target, weight)
        scores = evaluate_arrays(fused, labels, ["arand"], kind=kind, thresholds=(threshold,), thin=thin)
        if np.isnan(scores["arand"]):
            raise DataError(
                f"The error of the fused map is undefined: {scores.undefined['arand']}; check labels, kind."
            )
        curve.append((float(weight), scores["arand"]))
    best = min(curve, key=lambda point: (point[1], point[0]))
    return FittedWeight(best[0], tuple(curve))


def _target(p: Map, kind: Kind, sigma_px: float, depth: float) -> Map:
    """Return p_w, or 1 − p_w where the map shows objects."""
    lines = contour(p if kind == "membrane" else 1 - p, sigma_px=sigma_px, depth=depth)
    return (lines if kind == "membrane" else ~lines).astype(np.float32)


def _blend(p: Map, target: Map, weight: float) -> Map:
    return np.float32(weight) * target + np.float32(1 - weight) * p


def _fused_channels(probabilities: Map, channel: int, options: Options) -> Map:
    """Fuse one channel; the others share the rest in their old proportions, or equally where they were all 0."""
    old = probabilities[..., channel]
    fused = fuse(old, options.weight, kind=options.kind, sigma_px=options.sigma_px, depth=options.depth)
    out = probabilities.astype(np.float32)
    if out.shape[-1] > 1:
        left = 1 - old
        certain = left <= 0
        out *= np.divide(1 - fused, left, out=np.zeros_like(left), where=~certain)[..., None]
        out[certain] = ((1 - fused[certain]) / (out.shape[-1] - 1))[:, None]
    out[..., channel] = fused
    return out


def apply(stack: Stack, options: Options) -> Stack:
    """Fuse one class of a stack with its contour, section by section; sections of ground truth stay.

    A lazy stack holds whole sections in memory, as a basin may be as large as a section.
    """
    boundary_of(stack, options.kind, options.channel)  # a class that does not exist is told before any work
    channel = 1 if options.channel is None else stack.channel(options.channel)
    if not options.weight:
        return stack
    stack = whole_sections(stack)

    def function(block: Map) -> Map:
        return _fused_channels(block, channel, options)

    if not stack.lazy:
        data: Any = function(stack.data)
    else:
        data = stack.data.rechunk({3: -1}).map_blocks(function, dtype=np.float32)
    return stack.with_data(stack.outside_labelled(data))


STEP = Step(Options, ("probabilities",), None, apply, reach=own_section)
