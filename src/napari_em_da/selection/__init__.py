"""Choosing an adapted network without target labels: scores, guards, a ranking, and what quality to expect.

Each label-free criterion is one file with a constant ``CRITERION``; a new file is a new criterion. What they may look
at is an `Evidence`: predictions on the target and the shapes of the source's labels. It has no place for target labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from napari_em_da.catalog import Catalog

if TYPE_CHECKING:
    from napari_em_da.selection._base import Criterion, Evidence

    Criteria = Catalog[Criterion]
else:
    Criteria = Catalog

_NO_CRITERIA = ("calibration", "evidence", "guards", "ranking")  # in this package, but they score nothing


class _Criteria(Criteria):
    """The files of this package that score."""

    def names(self) -> tuple[str, ...]:
        return tuple(name for name in super().names() if name not in _NO_CRITERIA)


CRITERIA = _Criteria("napari_em_da.selection", "CRITERION")
# Chosen on the benchmark (benchmarks/README.md says on how little of it): the soft neighbourhood density, often
# recommended, hardly ordered the candidates there.
DEFAULT_CRITERIA = ("consistency", "morphology", "sizes")


def scores(evidence: Evidence, names: Sequence[str] | None = None) -> dict[str, float]:
    """Score a candidate by the criteria of these names, by default all that the evidence allows; higher is better.

    A network that predicts infinities or NaN has no score (NaN), which ranks below every other.

    Raises
    ------
    ConfigError
        If a name is unknown.
    DataError
        If a named criterion needs a part of the evidence that is missing.
    """
    return {name: CRITERIA[name](evidence) for name in (possible(evidence) if names is None else names)}


def possible(evidence: Evidence) -> list[str]:
    """Return the names of the criteria that the evidence allows."""
    return [name for name in CRITERIA if CRITERIA[name].possible(evidence)]


__all__ = ["CRITERIA", "DEFAULT_CRITERIA", "possible", "scores"]
