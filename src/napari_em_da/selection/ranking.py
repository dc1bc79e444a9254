"""Rank candidates by label-free scores and choose one, or keep the source model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from napari_em_da.catalog import unknown
from napari_em_da.errors import ConfigError

SOURCE_ONLY = "source_only"

Key = tuple[str, int]
Ranks = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Candidate:
    """One checkpoint: the name of its run, its step, its label-free scores, and why guards refuse it (if they do)."""

    name: str
    step: int
    scores: Mapping[str, float]
    refused: tuple[str, ...] = ()

    @property
    def key(self) -> Key:
        """Name and step, unique among the candidates."""
        return self.name, self.step

    def __str__(self) -> str:
        return f"{self.name}, step {self.step}"


@dataclass(frozen=True)
class Choice:
    """The chosen candidate, those that passed (best first) with their mean ranks (1 = best), why, and a warning."""

    candidate: Candidate
    order: tuple[Candidate, ...]
    ranks: tuple[float, ...]
    criteria: tuple[str, ...]
    why: str
    warning: str | None = None


def choose(candidates: Sequence[Candidate], criteria: Sequence[str]) -> Choice:
    """Choose the candidate that passes its guards and has the best mean rank over the criteria.

    Parameters
    ----------
    candidates : sequence of Candidate
        Checkpoints of all runs, the source model (named ``source_only``) among them.
    criteria : sequence of str
        Names of scores; higher is better, equal scores share their mean rank, and NaN ranks last.

    Returns
    -------
    Choice
        Ties go to the later checkpoint, then to the first name. If none passes, the source model with a warning.

    Raises
    ------
    ConfigError
        If no candidate is the source model, one occurs twice, or a criterion has no scores.
    """
    check(candidates, criteria)
    passing = [c for c in candidates if not c.refused]
    if not passing:
        source = max((c for c in candidates if c.name == SOURCE_ONLY), key=lambda c: c.step)
        return Choice(
            source,
            (),
            (),
            tuple(criteria),
            f"None of the {len(candidates)} candidates passed the guards; the source model is kept.",
            "No candidate passed the guards, the source model neither: do not trust its result on the target "
            "without looking at it. Annotate a little of the target, or try other methods.",
        )
    mean = np.mean([ranks(passing, name) for name in criteria], axis=0)
    places = sorted(range(len(passing)), key=lambda i: (mean[i], -passing[i].step, passing[i].name))
    order = tuple(passing[i] for i in places)
    why = (
        f"{order[0]} has the best mean rank, {mean[places[0]]:.2f} among the {len(passing)} of {len(candidates)} "
        f"candidates that pass the guards, over {', '.join(criteria)}."
    )
    if len(order) > 1 and mean[places[0]] == mean[places[1]]:
        why += f" It ties with {order[1]}; the later checkpoint is taken, then the first name."
    return Choice(order[0], order, tuple(float(mean[i]) for i in places), tuple(criteria), why)


def check(candidates: Sequence[Candidate], criteria: Sequence[str]) -> None:
    """Raise a ConfigError unless a choice is possible."""
    keys = [candidate.key for candidate in candidates]
    if SOURCE_ONLY not in (name for name, _ in keys):
        raise ConfigError(
            f"None of the {len(keys)} candidates is named {SOURCE_ONLY!r}; add the source model to fall back on."
        )
    twice = sorted({f"{name}, step {step}" for name, step in keys if keys.count((name, step)) > 1})
    if twice:
        raise ConfigError(f"These candidates occur twice: {'; '.join(twice)}. Give each run a name of its own.")
    if not criteria:
        raise ConfigError("No criterion to rank by; name at least one.")
    known = sorted({name for candidate in candidates for name in candidate.scores})
    for name in criteria:
        if name not in known:
            raise ConfigError(unknown("score", name, known))


def ranks(candidates: Sequence[Candidate], name: str) -> Ranks:
    """Return the rank of each candidate by one score, 1 = best; a missing score or NaN is the worst."""
    values = np.array([candidate.scores.get(name, np.nan) for candidate in candidates], float)
    return np.asarray(stats.rankdata(-np.where(np.isnan(values), -np.inf, values)), float)


def rank_correlation(candidates: Sequence[Candidate], truth: Mapping[Key, float]) -> dict[str, float]:
    """Return Spearman's rho between each score and the true IoU, over the candidates whose IoU is known.

    For benchmarks only: ``truth`` ((name, step) to IoU) is measured with target labels, and no choice may see it.
    NaN where it is undefined: fewer than two candidates, or all equal.
    """
    known = [candidate for candidate in candidates if candidate.key in truth]
    iou = stats.rankdata([-truth[candidate.key] for candidate in known])
    names = sorted({name for candidate in known for name in candidate.scores})
    return {name: _correlation(ranks(known, name), iou) for name in names}


def _correlation(one: Ranks, other: Ranks) -> float:
    if len(one) < 2 or not np.ptp(one) or not np.ptp(other):
        return float("nan")
    return float(np.corrcoef(one, other)[0, 1])


def report(candidates: Sequence[Candidate], choice: Choice, truth: Mapping[Key, float] | None = None) -> str:
    """Return a Markdown table: every candidate with its scores and guards, the chosen one, and why.

    ``truth`` ((name, step) to IoU) adds a column, clearly marked, and names the best by it: for benchmarks only.
    """
    names = [*choice.criteria, *sorted({n for c in candidates for n in c.scores} - set(choice.criteria))]
    place = {c.key: f"{rank:.2f}" for c, rank in zip(choice.order, choice.ranks, strict=True)}
    heads = ["candidate", "step", "mean rank", *(n if n in choice.criteria else f"({n})" for n in names), "guards"]
    if truth is not None:
        heads.append("IoU (from target labels, not used)")
    lines = [f"| {' | '.join(heads)} |", "|" + " --- |" * len(heads)]
    passing = [c.key for c in choice.order]
    for c in sorted(candidates, key=lambda c: passing.index(c.key) if c.key in passing else len(passing)):
        name = f"**{c.name}** (chosen)" if c.key == choice.candidate.key else c.name
        scores = [f"{c.scores.get(n, float('nan')):.4g}" for n in names]
        cells = [name, str(c.step), place.get(c.key, "–"), *scores, " ".join(c.refused) or "pass"]
        if truth is not None:
            cells.append(f"{truth[c.key]:.3f}" if c.key in truth else "–")
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    lines += ["", choice.why]
    if choice.warning:
        lines += ["", f"**Warning:** {choice.warning}"]
    if truth:
        best = max((c for c in candidates if c.key in truth), key=lambda c: truth[c.key])
        lines += ["", f"Chosen with target labels, for comparison only: {best} (IoU {truth[best.key]:.3f})."]
    return "\n".join(lines) + "\n"
