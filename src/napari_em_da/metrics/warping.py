"""Warping error: mismatches of a boundary map that no change of shape explains, only a change of topology."""

from __future__ import annotations

import inspect

import numpy as np
import numpy.typing as npt

from napari_em_da.metrics._base import Family, Pair, Undefined
from napari_em_da.metrics._sections import Section, sections, thresholds
from napari_em_da.metrics._warping import KINDS, classify, warp

Counts = dict[str, int]
BINARY = 0.5


def warping_error(counts: Counts, pixels: int) -> float:
    """Share of pixels that merge or split objects after the annotation is warped onto the prediction (ISBI 2012).

    min over θ of (merges + splits) / N, where the annotation of each section is deformed towards prediction > θ by
    flipping simple points, and each mismatch that is left is classified by the objects around it. θ = 1 is not
    tried, unless it is the only one. ``threshold/warping_error`` is the best θ. The sections are counted together.

    Range 0 to 1, lower is better; an upper bound, as the deformation is a greedy search.

    References
    ----------
    Jain et al. (2010), Boundary learning by optimization with topological constraints.
    Arganda-Carreras et al. (2015), Crowdsourcing the creation of image segmentation algorithms for connectomics.
    """
    return (counts["merge"] + counts["split"]) / pixels


def warping_splits(counts: Counts, pixels: int) -> float:
    """Share of pixels that split an object, at the threshold of `warping_error`.

    splits / N.

    Range 0 to 1, lower is better.

    References
    ----------
    Jain et al. (2010), Boundary learning by optimization with topological constraints.
    """
    return counts["split"] / pixels


def warping_merges(counts: Counts, pixels: int) -> float:
    """Share of pixels that merge objects, at the threshold of `warping_error`.

    merges / N.

    Range 0 to 1, lower is better.

    References
    ----------
    Jain et al. (2010), Boundary learning by optimization with topological constraints.
    """
    return counts["merge"] / pixels


def warping_all(counts: Counts, pixels: int) -> float:
    """Share of pixels that differ after warping for any reason: also objects and holes added or deleted.

    min over θ of mismatches / N, with a threshold of its own, ``threshold/warping_all``.

    Range 0 to 1, lower is better.

    References
    ----------
    Jain et al. (2010), Boundary learning by optimization with topological constraints (warping error).
    """
    return sum(counts.values()) / pixels


def mismatch_map(pair: Pair, threshold: float = BINARY) -> npt.NDArray[np.uint8]:
    """Show where splits, merges and other changes of topology are.

    Parameters
    ----------
    pair : Pair
        Boundary maps.
    threshold : float
        On the probability of object, for example the score ``threshold/warping_error``.

    Returns
    -------
    array of the shape of the labels, uint8, in memory
        0 where prediction and warped annotation agree, else 1 + the position in `KINDS`.

    Raises
    ------
    ConfigError, DataError
        As `compute`.
    """
    kinds = np.zeros(pair.labels.shape, np.uint8)
    planes = kinds.reshape(-1, *kinds.shape[-2:])
    for section in sections(pair):
        planes[section.z] = _mismatches(section, threshold)[1]
    return kinds


def _mismatches(section: Section, threshold: float) -> tuple[Counts, npt.NDArray[np.uint8]]:
    warped = warp(section.truth, section.probability, threshold, section.counted)
    return classify(warped, section.probability > threshold, section.counted)


def compute(pair: Pair, wanted: tuple[str, ...]) -> dict[str, float | Undefined]:
    """Compute the wanted warping errors of a pair of boundary maps.

    Raises
    ------
    ConfigError, DataError
        As `napari_em_da.metrics._sections.sections` does.
    """
    levels = tuple(level for level in thresholds(pair) if level < 1) or thresholds(pair)
    curve = [dict.fromkeys(KINDS, 0) for _ in levels]
    pixels = 0
    for section in sections(pair):
        pixels += int(np.count_nonzero(section.counted))
        for total, level in zip(curve, levels, strict=True):
            for kind, count in _mismatches(section, level)[0].items():
                total[kind] += count
    result: dict[str, float | Undefined] = {}
    for name in wanted:
        leader = warping_all if name == "warping_all" else warping_error
        errors = [leader(counts, pixels) for counts in curve]
        best = errors.index(min(errors))
        result[name] = _SCORES[name](curve[best], pixels)
        if len(levels) > 1:
            result[f"threshold/{leader.__name__}"] = levels[best]
    return result


_SCORES = {f.__name__: f for f in (warping_error, warping_splits, warping_merges, warping_all)}
FAMILY = Family({name: inspect.getdoc(f) or "" for name, f in _SCORES.items()}, compute)
