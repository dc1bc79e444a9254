"""The rows of the adaptation benchmark by pair and method, and what ``auto`` made of the gap to supervision."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from statistics import fmean, stdev

from napari_em_da.errors import DataError
from napari_em_da.experiments.recipes import METHODS
from napari_em_da.experiments.rows import AUTO, SUPERVISED, Row
from napari_em_da.selection.ranking import SOURCE_ONLY

_ORDER = (SOURCE_ONLY, *METHODS, "", AUTO, SUPERVISED)  # "": methods that the grid does not know
EXPECTED = ("expected_iou", "expected_low", "expected_high")
SMOOTHED = "smoothed_iou"
_NUMBERS = ("iou", "dice", "step_cost_ratio", "seconds", "oracle_iou", *EXPECTED, SMOOTHED)

Group = tuple[str, str]  # pair and profile: budgets differ between profiles, so their rows do not mix


@dataclass(frozen=True)
class Result:
    """The rows of one method on one pair: each column's values by seed, NaN where a cell is empty."""

    method: str
    values: Mapping[str, Mapping[int, float]]
    kept_source: int

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(sorted(self.values["iou"]))

    def mean(self, column: str, seeds: Sequence[int] | None = None) -> float:
        """Return the mean over the seeds that have a value; NaN if none has."""
        known = self._known(column, seeds)
        return fmean(known) if known else math.nan

    def deviation(self, column: str) -> float:
        """Return the standard deviation over seeds; NaN for fewer than two."""
        known = self._known(column)
        return stdev(known) if len(known) > 1 else math.nan

    def gains(self, source: Result) -> list[float]:
        """Return by how much each seed's IoU lies above that of the source model it started from, where both are known.

        Source models of other seeds differ by more than methods do, so that means over other seeds do not compare.
        """
        start = source.values["iou"]
        found = (value - start.get(seed, math.nan) for seed, value in self.values["iou"].items())
        return [gain for gain in found if not math.isnan(gain)]

    def _known(self, column: str, seeds: Sequence[int] | None = None) -> list[float]:
        values = self.values[column]
        return [v for seed, v in values.items() if not math.isnan(v) and (seeds is None or seed in seeds)]


def summarise(rows: Sequence[Mapping[str, str]]) -> dict[Group, dict[str, Result]]:
    """Return the results by (pair, profile) and method; source-only first, ``auto`` and the supervised bound last.

    Raises
    ------
    DataError
        If a column is missing or a cell that should hold a number does not.
    """
    found: dict[Group, dict[str, dict[int, Mapping[str, str]]]] = {}
    for line, row in enumerate(rows, start=2):
        missing = [f.name for f in fields(Row) if f.default is MISSING and row.get(f.name) is None]
        if missing:
            raise DataError(f"Line {line} of the table has no {', '.join(missing)}; is it a table of the benchmark?")
        by_method = found.setdefault((row["pair"], row["profile"]), {})
        by_method.setdefault(row["method"], {})[int(_number(row, "seed", line))] = row
        for column in _NUMBERS:
            _number(row, column, line)
    return {
        group: {name: _result(name, by_method[name]) for name in sorted(by_method, key=place)}
        for group, by_method in found.items()
    }


def _result(method: str, by_seed: Mapping[int, Mapping[str, str]]) -> Result:
    values = {column: {seed: _number(row, column) for seed, row in sorted(by_seed.items())} for column in _NUMBERS}
    kept = sum(row["chosen_without_labels"].startswith(f"{SOURCE_ONLY},") for row in by_seed.values())
    return Result(method, values, kept)


def _number(row: Mapping[str, str], column: str, line: int = 0) -> float:
    try:
        return float(row.get(column) or "nan")
    except ValueError:
        raise DataError(f"Line {line} of the table has {row[column]!r} for {column}, which is no number.") from None


def place(method: str) -> int:
    """Return where a method stands in tables and figures, to sort by."""
    return _ORDER.index(method) if method in _ORDER else _ORDER.index("")


@dataclass(frozen=True)
class Gap:
    """Mean IoU of source-only, ``auto`` and the supervised bound, over the seeds that all three have."""

    source: float
    auto: float
    supervised: float
    seeds: int = 1

    @classmethod
    def of(cls, results: Mapping[str, Result], column: str = "iou") -> Gap | None:
        """Return it, or None where no seed has all three."""
        if not {SOURCE_ONLY, AUTO, SUPERVISED} <= set(results):
            return None
        three = [results[name] for name in (SOURCE_ONLY, AUTO, SUPERVISED)]
        seeds = [s for s in three[0].seeds if not any(math.isnan(r.values[column].get(s, math.nan)) for r in three)]
        source, auto, supervised = (result.mean(column, seeds) for result in three)
        return cls(source, auto, supervised, len(seeds)) if seeds else None

    @classmethod
    def mean(cls, gaps: Sequence[Gap]) -> Gap:
        """Return the mean of several pairs."""
        return cls(fmean(g.source for g in gaps), fmean(g.auto for g in gaps), fmean(g.supervised for g in gaps))

    def __str__(self) -> str:
        reached = f"IoU {self.source:.3f} to {self.auto:.3f}, {self.supervised:.3f} with target labels"
        if self.supervised <= self.source:
            return f"there is no gap to recover: {reached}"
        share = (self.auto - self.source) / (self.supervised - self.source)
        if share < 0:
            return f"`auto` is worse than the source model by {self.source - self.auto:.3f}: {reached}"
        return f"`auto` recovers {share:.0%} of the gap from `source_only` to `target_supervised`: {reached}"
