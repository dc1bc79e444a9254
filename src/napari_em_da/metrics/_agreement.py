"""Scores of how far two partitions agree, from their contingency table.

Only voxels that the annotation gives to an object (id > 0) count. A predicted 0 there, a boundary, joins nothing:
each such voxel is a segment of its own, a singleton. With n_ij the voxels that object i shares with segment j (z
of them in singletons), a_i and b_j the sizes of both inside the n voxels that count:

AB = Σ n_ij² + z,   A = Σ a_i²,   B = Σ b_j² + z.

``parity`` repeats what others compute, number by number: "skimage" and "elf" take the predicted 0 as one ordinary
segment, and "skimage" leaves the pairs of a voxel with itself out; the scripts of CREMI add z / N to AB and B in
place of z (N: all voxels, background included), and take the predicted 0 as an ordinary segment in entropies.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from napari_em_da.config import ScoringConfig
from napari_em_da.metrics._base import Undefined
from napari_em_da.metrics._contingency import Contingency

Parity = Literal["none", "skimage", "elf", "cremi"]
Score = float | Undefined
_NO_OBJECT = Undefined("no voxel that counts lies in an annotated object: the annotation is 0 everywhere")


@dataclass(frozen=True)
class Terms:
    """What the scores are made of.

    Attributes
    ----------
    n : voxels that count
    ab, a, b : pairs of voxels together in both, in the annotation, in the prediction; see the module
    pairs : all pairs of voxels
    split, merge : H(S|T) and H(T|S), the entropies of the prediction S given the annotation T and the reverse
    found, truth : H(S) and H(T)
    mutual : I(S; T)
    alpha : weight of split scores
    """

    n: float
    ab: float
    a: float
    b: float
    pairs: float
    split: float
    merge: float
    found: float
    truth: float
    mutual: float
    alpha: float = 0.5


def agreement(table: Contingency, scoring: ScoringConfig | None = None) -> dict[str, Score]:
    """Return all scores of this module by name; without annotated objects, each is undefined."""
    scoring = scoring or ScoringConfig()
    if not (table.truth != 0).any():
        return dict.fromkeys(SCORES, _NO_OBJECT)
    measured = terms(table, scoring)
    return {name: score(measured) for name, score in SCORES.items()}


def rand_terms(table: Contingency, parity: Parity = "none") -> tuple[float, float, float]:
    """Return AB, A and B as float64, which squares of counts do not overflow; zeros without annotated objects."""
    rows = _Rows.of(table, singletons=parity in ("none", "cremi"))
    ab, a, b = (float(rows.weight @ size) for size in (rows.size, rows.truth_size, rows.found_size))
    if parity == "skimage":
        n = float(rows.weight.sum())
        return ab - n, a - n, b - n
    if parity == "cremi":
        alone = float(table.counts[(table.truth != 0) & (table.found == 0)].sum())
        surplus = alone - alone / float(table.counts.sum())
        return ab - surplus, a, b - surplus
    return ab, a, b


def terms(table: Contingency, scoring: ScoringConfig) -> Terms:
    """Return the terms of all scores of a table in which at least one voxel lies in an annotated object."""
    rows = _Rows.of(table, singletons=scoring.parity == "none")
    n = float(rows.weight.sum())
    base = 1.0 if scoring.log_base == 2 else math.log2(scoring.log_base)

    def mean_log(ratio: npt.NDArray[np.float64]) -> float:
        return max(0.0, float(rows.weight @ np.log2(ratio)) / n / base)

    return Terms(
        n,
        *rand_terms(table, scoring.parity),
        pairs=n * n if scoring.parity in ("elf", "cremi") else n * n - n,
        split=mean_log(rows.truth_size / rows.size),
        merge=mean_log(rows.found_size / rows.size),
        found=mean_log(n / rows.found_size),
        truth=mean_log(n / rows.truth_size),
        mutual=mean_log(n / rows.truth_size * (rows.size / rows.found_size)),
        alpha=scoring.alpha,
    )


@dataclass(frozen=True, eq=False)
class _Rows:
    """Intersections of objects and segments: voxels of the row, and the sizes of intersection, object, segment."""

    weight: npt.NDArray[np.float64]
    size: npt.NDArray[np.float64]
    truth_size: npt.NDArray[np.float64]
    found_size: npt.NDArray[np.float64]

    @classmethod
    def of(cls, table: Contingency, *, singletons: bool) -> _Rows:
        inside = table.truth != 0
        truth, found = table.truth[inside], table.found[inside]
        weight = table.counts[inside].astype(np.float64)
        size, found_size = weight, _marginal(found, weight)
        if singletons:  # one row stands for as many intersections of one voxel as it has voxels
            size, found_size = (np.where(found == 0, 1.0, sizes) for sizes in (size, found_size))
        return cls(weight, size, _marginal(truth, weight), found_size)


def _marginal(ids: npt.NDArray[np.uint64], weight: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return, for each row, the voxels of all rows that have its id."""
    _, position = np.unique(ids, return_inverse=True)
    sizes: npt.NDArray[np.float64] = np.bincount(position, weight).astype(np.float64)  # int64 where there is no id
    return sizes[position]


def vrand(terms: Terms) -> Score:
    """Foreground-restricted Rand score: AB / (αA + (1 − α)B), at α = ½ the harmonic mean of split and merge score.

    Range 0 to 1, higher is better.

    References
    ----------
    Arganda-Carreras et al. (2015), Crowdsourcing the creation of image segmentation algorithms for connectomics.
    """
    whole = terms.alpha * terms.a + (1 - terms.alpha) * terms.b
    return _ratio(terms.ab, whole, "no two voxels that count share an object or a segment")


def vrand_split(terms: Terms) -> Score:
    """Rand split score: AB / A, the share of voxel pairs of one object that the prediction keeps together.

    Range 0 to 1, higher is better; 1 means no false split.

    References
    ----------
    Arganda-Carreras et al. (2015), Crowdsourcing the creation of image segmentation algorithms for connectomics.
    """
    return _ratio(terms.ab, terms.a, "no two voxels that count share an annotated object")


def vrand_merge(terms: Terms) -> Score:
    """Rand merge score: AB / B, the share of voxel pairs of one predicted segment that belong together.

    Range 0 to 1, higher is better; 1 means no false merge.

    References
    ----------
    Arganda-Carreras et al. (2015), Crowdsourcing the creation of image segmentation algorithms for connectomics.
    """
    return _ratio(terms.ab, terms.b, "no two voxels that count share a predicted segment")


def arand(terms: Terms) -> Score:
    """Adapted Rand error of SNEMI3D and CREMI: 1 − V_rand.

    Range 0 to 1, lower is better.

    References
    ----------
    Arganda-Carreras et al. (2015), Crowdsourcing the creation of image segmentation algorithms for connectomics.
    """
    score = vrand(terms)
    return score if isinstance(score, Undefined) else 1 - score


def rand_index(terms: Terms) -> Score:
    """Classical Rand index: 1 − (A + B − 2AB) / (n² − n), the share of voxel pairs on which both agree.

    Range 0 to 1, higher is better; near 1 for any two partitions into many parts, so prefer ``vrand``.

    References
    ----------
    Rand (1971), Objective criteria for the evaluation of clustering methods.
    """
    if not terms.pairs:
        return Undefined("only one voxel counts, which makes no pair")
    return 1 - (terms.a + terms.b - 2 * terms.ab) / terms.pairs


def vi_split(terms: Terms) -> Score:
    """Split part of the variation of information: H(S|T), the entropy of the prediction given the annotation.

    Range 0 to log n (bits by default), lower is better; 0 means no false split.

    References
    ----------
    Meilă (2007), Comparing clusterings: an information based distance.
    """
    return terms.split


def vi_merge(terms: Terms) -> Score:
    """Merge part of the variation of information: H(T|S), the entropy of the annotation given the prediction.

    Range 0 to log n (bits by default), lower is better; 0 means no false merge.

    References
    ----------
    Meilă (2007), Comparing clusterings: an information based distance.
    """
    return terms.merge


def vi(terms: Terms) -> Score:
    """Variation of information: H(S|T) + H(T|S), the sum of its split and merge parts.

    Range 0 to 2 log n (bits by default), lower is better.

    References
    ----------
    Meilă (2007), Comparing clusterings: an information based distance.
    """
    return terms.split + terms.merge


def vinfo(terms: Terms) -> Score:
    """Information score: I(S; T) / (αH(S) + (1 − α)H(T)), at α = ½ the harmonic mean of split and merge score.

    Range 0 to 1, higher is better; 1 if both are a single segment, 0 if just one of them is.

    References
    ----------
    Arganda-Carreras et al. (2015), Crowdsourcing the creation of image segmentation algorithms for connectomics.
    """
    return _shared_information(terms, terms.alpha)


def vinfo_split(terms: Terms) -> Score:
    """Information split score: I(S; T) / H(S).

    Range 0 to 1, higher is better; 1 if both are a single segment, 0 if just one of them is.

    References
    ----------
    Arganda-Carreras et al. (2015), Crowdsourcing the creation of image segmentation algorithms for connectomics.
    """
    return _shared_information(terms, 1.0)


def vinfo_merge(terms: Terms) -> Score:
    """Information merge score: I(S; T) / H(T).

    Range 0 to 1, higher is better; 1 if both are a single segment, 0 if just one of them is.

    References
    ----------
    Arganda-Carreras et al. (2015), Crowdsourcing the creation of image segmentation algorithms for connectomics.
    """
    return _shared_information(terms, 0.0)


def cremi_score(terms: Terms) -> Score:
    """CREMI score: √((VI_split + VI_merge) · ARAND), the geometric mean of both errors.

    Range 0 to √(2 log n) (bits by default), lower is better; ``border_nm`` of 25 leaves out what CREMI does.

    References
    ----------
    Funke et al. (2016), CREMI: MICCAI challenge on circuit reconstruction from electron microscopy images.
    """
    error = arand(terms)
    return error if isinstance(error, Undefined) else math.sqrt((terms.split + terms.merge) * max(0.0, error))


def _ratio(part: float, whole: float, why: str) -> Score:
    return part / whole if whole else Undefined(why)


def _shared_information(terms: Terms, alpha: float) -> float:
    if not terms.found or not terms.truth:
        return float(terms.found == terms.truth)
    return terms.mutual / (alpha * terms.found + (1 - alpha) * terms.truth)


SCORES: dict[str, Callable[[Terms], Score]] = {
    score.__name__: score
    for score in (vrand, vrand_split, vrand_merge, arand, rand_index)
    + (vi_split, vi_merge, vi, vinfo, vinfo_split, vinfo_merge, cremi_score)
}
