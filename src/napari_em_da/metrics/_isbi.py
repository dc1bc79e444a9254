"""Partition scores of boundary maps as in ISBI 2012: threshold, thin, label each section, find the best θ."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numba
import numpy as np

from napari_em_da.errors import ConfigError
from napari_em_da.metrics._agreement import agreement
from napari_em_da.metrics._base import Pair, Undefined
from napari_em_da.metrics._contingency import Contingency, contingency
from napari_em_da.metrics._sections import Components, Mask, Section, components, sections, thresholds

Scores = dict[str, float | Undefined]
Curve = dict[float, Scores]
Border = tuple[float, tuple[float, ...]]  # distance and spacing in nm

# The score that picks the threshold, whether it is best when large, and those that are reported there with it.
_LEADERS = {
    "vrand": (True, ("vrand", "vrand_split", "vrand_merge", "arand")),
    "vinfo": (True, ("vinfo", "vinfo_split", "vinfo_merge")),
    "vi": (False, ("vi", "vi_split", "vi_merge")),
    "cremi_score": (False, ("cremi_score",)),
    "rand_index": (True, ("rand_index",)),
}


def isbi_scores(pair: Pair, wanted: Sequence[str]) -> Scores:
    """Score the partitions of a pair of boundary maps into 4-connected objects, section by section.

    At each threshold the scores are averaged over sections, or computed from all sections together
    (``scoring.average``); each wanted score is that of the threshold at which its sum score is best: ``vrand`` for
    itself, its split and merge parts and ``arand``, and ``vinfo``, ``vi``, ``cremi_score`` and ``rand_index``.

    Returns
    -------
    dict
        The wanted scores, and where several thresholds were tried ``threshold/vrand`` and so on, the best ones.

    Raises
    ------
    ConfigError, DataError
        As `napari_em_da.metrics._sections.sections` does.

    References
    ----------
    Arganda-Carreras et al. (2015), Crowdsourcing the creation of image segmentation algorithms for connectomics.
    """
    curve = threshold_curve(pair)
    result: Scores = {}
    for leader, (largest, members) in _LEADERS.items():
        asked = [name for name in members if name in wanted]
        if not asked:
            continue
        defined = {level: float(s[leader]) for level, s in curve.items() if not isinstance(s[leader], Undefined)}
        order = sorted(defined, key=lambda level: -defined[level] if largest else defined[level])
        best = order[0] if order else next(iter(curve))
        result |= {name: curve[best][name] for name in asked}
        if order and len(curve) > 1:
            result[f"threshold/{leader}"] = best
    return result


def threshold_curve(pair: Pair) -> Curve:
    """Return all partition scores of a pair of boundary maps at each threshold, ascending.

    Raises
    ------
    ConfigError, DataError
        As `isbi_scores`.
    """
    levels = thresholds(pair)
    tables: list[list[Contingency]] = [[] for _ in levels]
    means = [_Mean() for _ in levels]
    pooled, border = pair.scoring.average == "pooled", _border(pair)
    for section in sections(pair):
        if not section.counted.any():
            continue
        for i, table in enumerate(_tables(section, levels, pair.scoring.thin, border)):
            if pooled:
                tables[i].append(table)
            else:
                means[i].add(agreement(table, pair.scoring))
    if pooled:
        return {level: agreement(_together(t), pair.scoring) for level, t in zip(levels, tables, strict=True)}
    if means[0].skipped and means[0].skipped not in pair.warnings:
        pair.warnings.append(means[0].skipped)
    return {level: mean.scores() for level, mean in zip(levels, means, strict=True)}


def thinned(objects: Mask) -> Components:
    """Number the 4-connected components of a section and let them grow until one pixel of membrane parts them.

    Parameters
    ----------
    objects : (Y, X) bool

    Returns
    -------
    (Y, X) int32
        0 is membrane: pixels that have two components or more, or only membrane, as 4-neighbours. Without any
        object all is membrane.

    Notes
    -----
    A watershed of the binary membrane image with watershed lines (connectivity 4) has a single grey level to flood,
    so it is a breadth-first search from all components at once. Where two fronts meet, the first to arrive decides;
    fronts start in raster order, while a heap of equal keys starts them in an arbitrary one.

    References
    ----------
    Vincent & Soille (1991), Watersheds in digital spaces: an efficient algorithm based on immersion simulations.
    """
    labels = np.pad(components(objects), 1, constant_values=-1)
    _flood(labels.reshape(-1), labels.shape[1])
    return np.maximum(labels[1:-1, 1:-1], 0)


@numba.njit(nogil=True, cache=True)
def _flood(labels, width):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Grow positive labels into zeros; what was queued and not reached by exactly one label stays negative."""
    sides = np.array([-width, -1, 1, width])
    queue = np.empty(labels.shape[0], np.int32)
    size = 0
    for p in range(width, labels.shape[0] - width):
        if labels[p] == 0:
            for k in range(4):
                if labels[p + sides[k]] > 0:
                    labels[p] = -1
                    queue[size] = p
                    size += 1
                    break
    done = 0
    while done < size:
        p = queue[done]
        done += 1
        label = 0
        alone = True
        for k in range(4):
            other = labels[p + sides[k]]
            if other > 0:
                alone = alone and (label == 0 or other == label)
                label = other
        if not alone:
            continue
        labels[p] = label
        for k in range(4):
            if labels[p + sides[k]] == 0:
                labels[p + sides[k]] = -1
                queue[size] = p + sides[k]
                size += 1


def _border(pair: Pair) -> Border | None:
    if not pair.scoring.border_nm:
        return None
    if pair.spacing is None:
        raise ConfigError(
            f"border_nm={pair.scoring.border_nm:g} needs the voxel size; pass spacing=(z, y, x) in nm, or border_nm=0."
        )
    return pair.scoring.border_nm, pair.spacing


def _tables(
    section: Section, levels: Sequence[float], thin: bool, border: Border | None = None
) -> Iterator[Contingency]:
    """Yield the contingency table of one section at each threshold."""
    truth = components(section.truth)
    above = -1
    for level in levels:
        objects = section.probability > level
        before, above = above, int(np.count_nonzero(objects))
        if above != before:  # ascending thresholds: as many pixels are the same pixels
            found = thinned(objects) if thin else components(objects)
            table = contingency(found, truth, mask=section.counted, border=border)
        yield table


def _together(tables: Sequence[Contingency]) -> Contingency:
    """Join the tables of sections, whose objects are different ones."""
    truths, founds = [], []
    last_truth = last_found = 0
    for table in tables:
        truths.append(np.where(table.truth > 0, table.truth + last_truth, 0))
        founds.append(np.where(table.found > 0, table.found + last_found, 0))
        last_truth = max(last_truth, int(truths[-1].max(initial=0)))
        last_found = max(last_found, int(founds[-1].max(initial=0)))
    counts = np.concatenate([table.counts for table in tables])
    return Contingency(np.concatenate(truths), np.concatenate(founds), counts)


class _Mean:
    """Mean of sections' scores, each over the sections where it is defined."""

    def __init__(self) -> None:
        self.sums: dict[str, float] = {}
        self.counts: dict[str, int] = {}
        self.reasons: dict[str, Undefined] = {}
        self.sections = 0

    def add(self, scores: Scores) -> None:
        self.sections += 1
        for name, score in scores.items():
            self.counts.setdefault(name, 0)
            if isinstance(score, Undefined):
                self.reasons[name] = score
            else:
                self.sums[name] = self.sums.get(name, 0.0) + float(score)
                self.counts[name] += 1

    def scores(self) -> Scores:
        return {name: self.sums[name] / n if n else self.reasons[name] for name, n in self.counts.items()}

    @property
    def skipped(self) -> str:
        """A sentence on sections that are left out of means, or nothing."""
        missing = max((self.sections - n for n in self.counts.values()), default=0)
        if not missing:
            return ""
        why = next(iter(self.reasons.values()))
        return f"{missing} of {self.sections} sections are left out of means over sections: {why}."
