"""How far each label-free score can be trusted: its rank correlation with the true IoU, over a benchmark's runs."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

from napari_em_da.errors import DataError
from napari_em_da.selection import DEFAULT_CRITERIA
from napari_em_da.selection.guards import Guards
from napari_em_da.selection.ranking import rank_correlation
from napari_em_da.training.folder import RunFolder
from napari_em_da.workflows.auto import gather
from napari_em_da.workflows.judging import CANDIDATES, candidates

SCORES = "test-scores.json"
Rho = dict[str, dict[str, float]]  # pair to criterion to Spearman's rho


def shown(value: float, form: str) -> str:
    """Return a number as text; NaN as an empty one."""
    return "" if math.isnan(value) else format(value, form)


def correlations(work: Path, pairs: Sequence[str], *, passing: bool = False) -> Rho:
    """Return Spearman's rho between each label-free score and the true IoU over the candidates of a pair's runs.

    Rho is computed over the candidates of all runs of one seed, among which a choice is made (the source model once),
    and averaged over seeds. Runs without measured candidates are skipped, and pairs without any are left out.

    Parameters
    ----------
    work : Path
        The benchmark's folder, with a folder of runs per pair and seed.
    passing : bool
        Only the candidates that the guards let through: collapsed ones make most scores look better than they are
        where it matters.

    Returns
    -------
    dict of pair to criterion to float
        1 is a perfect order; NaN where it is undefined for every seed.
    """
    found: Rho = {}
    for pair in pairs:
        seeds = [_seed_correlations(home, passing) for home in _homes(work, pair)]
        names = sorted({name for rho in seeds for name in rho})
        if names:
            found[pair] = {name: _mean([rho[name] for rho in seeds if name in rho]) for name in names}
    return found


def _seed_correlations(home: Path, passing: bool) -> dict[str, float]:
    runs = [path.parent for path in sorted(home.glob(f"*/{SCORES}")) if (path.parent / CANDIDATES).is_dir()]
    records = gather([RunFolder(run) for run in runs])
    truth = {run: _truth(run / SCORES) for run in runs}
    listed = [c for c in candidates(records, Guards()) if not (passing and c.refused)]
    known = {
        (record.name, record.step): truth[record.weights.parents[1]][record.step]
        for record in records
        if record.step in truth[record.weights.parents[1]]
    }
    return rank_correlation(listed, known) if listed else {}


def _truth(path: Path) -> dict[int, float]:
    try:
        return {int(step): float(found["iou"]) for step, found in json.loads(path.read_text(encoding="utf-8")).items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} is damaged ({error}); delete it, and the benchmark measures again.") from error


def _homes(work: Path, pair: str) -> list[Path]:
    start = f"{pair.replace('->', '-').replace(' ', '-')}-"
    return [p for p in sorted(work.glob(f"{start}*")) if p.is_dir() and p.name.removeprefix(start).isdigit()]


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return fmean(known) if known else math.nan


def correlation_table(rho: Rho) -> str:
    """Return the correlations as Markdown, a line per criterion, in the order of their mean over the pairs."""
    names = {name for found in rho.values() for name in found}
    means = {name: _mean([found.get(name, math.nan) for found in rho.values()]) for name in names}
    lines = [f"| criterion | {' | '.join(rho)} | mean |", "| --- |" + " ---: |" * (len(rho) + 1)]
    for name in sorted(names, key=lambda name: (-means[name] if not math.isnan(means[name]) else 2.0, name)):
        cells = [shown(value, "+.2f") for value in (*(f.get(name, math.nan) for f in rho.values()), means[name])]
        title = f"**{name}**" if name in DEFAULT_CRITERIA else name
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(lines)


def section(rho: Mapping[str, Rho]) -> str:
    """Return the part of the report on correlations: a table per selection of candidates."""
    parts = [
        "## How far label-free scores can be trusted",
        "Spearman's rank correlation between a score, which sees no target labels, and the IoU on the target's test "
        "part, over the candidates of all runs of a pair and seed, averaged over seeds. +1 orders them perfectly, 0 "
        "says nothing, below 0 misleads; a candidate without the score counts as its worst. Bold: used by default.",
    ]
    for which, found in rho.items():
        parts += [f"### {which.capitalize()}", correlation_table(found) if found else "No candidate passed."]
    return "\n\n".join(parts) + "\n"
