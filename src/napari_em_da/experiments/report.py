"""What the adaptation benchmark found: a table, a figure, and how far each label-free score could be trusted."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING

from napari_em_da.errors import DataError
from napari_em_da.experiments.correlation import Rho, correlations, section, shown
from napari_em_da.experiments.results import EXPECTED, SMOOTHED, Gap, Group, Result, place, summarise
from napari_em_da.experiments.rows import AUTO, SUPERVISED, read_table
from napari_em_da.selection.ranking import SOURCE_ONLY
from napari_em_da.training.checkpoint import write_text
from napari_em_da.workflows.figure import COLOURS, WIDTH, drawing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TABLE = "adaptation.csv"
GAIN = "above `source_only`"
ORACLE = "IoU if chosen by target labels (uses target labels, for comparison only)"


def table(rows: Sequence[Mapping[str, str]]) -> str:
    """Return the benchmark's rows as Markdown: one table per pair, and what ``auto`` made of the gap to supervision.

    Parameters
    ----------
    rows : sequence of dict
        As `read_table` gives them; any may be missing.
    """
    groups = summarise(rows)
    if not groups:
        return "Nothing was measured yet.\n"
    parts = [
        "IoU and Dice on the target's test part, mean ± standard deviation over seeds (none with one seed). Every "
        "checkpoint was chosen without target labels, except for `target_supervised`, which trains on them. Step cost: "
        "time of a step over that of a supervised step. Above `source_only`: IoU against the source model of the same "
        "seed, which other seeds do not blur. Minutes: training of that row alone, on top of the source "
        "model for the methods; `auto` is the sum of what it tried. Source kept: seeds for which the unadapted source "
        "model was chosen. Each section is segmented for itself, except where it says averaged along z, as `segment` "
        "does by default."
    ]
    for (pair, profile), results in groups.items():
        parts += [f"### {pair} ({profile} profile)", "\n".join(_lines(results)), _gap_sentence(results)]
    parts += [f"**{profile} profile.** {text}" for profile, text in _overall(groups)]
    return "\n\n".join(parts) + "\n"


def _lines(results: Mapping[str, Result]) -> Iterator[str]:
    heads = ["method", "seeds", "IoU", "IoU, averaged along z", "Dice", GAIN, "step cost", "minutes", "source kept"]
    heads.append(ORACLE)
    yield f"| {' | '.join(heads)} |"
    yield "| --- |" + " ---: |" * (len(heads) - 1)
    source = results.get(SOURCE_ONLY)
    for name, result in results.items():
        cells = [
            f"`{name}`",
            str(len(result.seeds)),
            _spread(result, "iou"),
            _spread(result, SMOOTHED),
            _spread(result, "dice"),
            "" if name == SOURCE_ONLY or source is None else _pm(result.gains(source), "+.3f"),
            shown(result.mean("step_cost_ratio"), ".2f"),
            shown(result.mean("seconds") / 60, ".1f"),
            "" if name in (SOURCE_ONLY, SUPERVISED) else str(result.kept_source),
            _spread(result, "oracle_iou"),
        ]
        if name == AUTO:
            cells = [f"**{cell}**" if cell else "" for cell in cells[:-1]] + cells[-1:]
        yield f"| {' | '.join(cells)} |"


def _spread(result: Result, column: str) -> str:
    mean, deviation = shown(result.mean(column), ".3f"), shown(result.deviation(column), ".3f")
    return f"{mean} ± {deviation}" if deviation else mean


def _pm(values: Sequence[float], form: str) -> str:
    """Return mean ± standard deviation; empty without values, the value alone if there is one."""
    mean = format(fmean(values), form) if values else ""
    return f"{mean} ± {stdev(values):.3f}" if len(values) > 1 else mean


def _gap_sentence(results: Mapping[str, Result]) -> str:
    gap = Gap.of(results)
    if gap is None:
        missing = [name for name in (SOURCE_ONLY, AUTO, SUPERVISED) if name not in results]
        reason = f"{', '.join(f'`{n}`' for n in missing)} not measured" if missing else "no seed has all three rows"
        return f"Share of the gap that `auto` recovers: not known ({reason})."
    text = str(gap)
    smooth = Gap.of(results, SMOOTHED)
    also = "" if smooth is None else f" Averaged along z, {smooth}."
    return f"{text[0].upper() + text[1:]} ({_count(gap.seeds, 'seed')}).{also}{_announced(results[AUTO])}"


def _announced(auto: Result) -> str:
    value, low, high = (shown(auto.mean(column), ".2f") for column in EXPECTED)
    return f" Without labels it announced {value} ({low} to {high}), as the mean over all classes." if value else ""


def _overall(groups: Mapping[Group, Mapping[str, Result]]) -> Iterator[tuple[str, str]]:
    """Yield a sentence per profile on the mean of its pairs, and on the pair where ``auto`` did worst."""
    for profile in dict.fromkeys(profile for _, profile in groups):
        known = {pair: Gap.of(results) for (pair, p), results in groups.items() if p == profile}
        gaps = {pair: gap for pair, gap in known.items() if gap is not None}
        if len(gaps) < 2:
            continue
        worst = min(gaps, key=lambda pair: gaps[pair].auto - gaps[pair].source)
        change = gaps[worst].auto - gaps[worst].source
        without = [pair for pair in known if pair not in gaps]
        smooth = [gap for pair in gaps if (gap := Gap.of(groups[pair, profile], SMOOTHED)) is not None]
        yield (
            profile,
            f"On the mean of {len(gaps)} pairs {Gap.mean(list(gaps.values()))}. The smallest change from `source_only` "
            f"to `auto` is {change:+.3f}, on {worst}."
            + (f" Averaged along z, {Gap.mean(smooth)}." if len(smooth) == len(gaps) else "")
            + (f" Not counted, for rows are missing: {', '.join(without)}." * bool(without)),
        )


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def figure(rows: Sequence[Mapping[str, str]], path: Path) -> dict[Group, dict[str, tuple[float, float]]]:
    """Draw the IoU of every method on every pair as a dot plot with the two bounds as lines.

    Filled dots are means over seeds of what was chosen without target labels, small dots single seeds, hollow diamonds
    the best candidate by target labels.

    Returns
    -------
    dict of (pair, profile) to method to (IoU, IoU chosen by target labels)
        What was drawn; NaN where there is no value.

    Raises
    ------
    DataError
        If there are no rows.
    """
    groups = summarise(rows)
    if not groups:
        raise DataError("The benchmark's table has no rows to draw; run the benchmark first.")
    names = sorted({name for results in groups.values() for name in results}, key=place)
    names = [name for name in names if name not in (SOURCE_ONLY, SUPERVISED)]
    across = min(2, len(groups))
    down = -(-len(groups) // across)
    with drawing(path, (WIDTH, down * (0.9 + 0.17 * max(1, len(names))) + 0.5)) as canvas:
        axes = canvas.subplots(down, across, squeeze=False, sharey=True).ravel()
        for axis, ((pair, profile), results) in zip(axes, groups.items(), strict=False):
            axis.set_title(f"{pair.replace('->', ' → ')} ({profile})")
            _draw_panel(axis, results, names)
        for axis in axes[len(groups) :]:
            axis.set_axis_off()
        handles = {label: handle for a in axes for handle, label in zip(*a.get_legend_handles_labels(), strict=True)}
        canvas.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=3, frameon=False)
    return {
        group: {name: (result.mean("iou"), result.mean("oracle_iou")) for name, result in results.items()}
        for group, results in groups.items()
    }


def _draw_panel(axis: Axes, results: Mapping[str, Result], names: Sequence[str]) -> None:
    blue, orange, green, pink, black = COLOURS[0], COLOURS[1], COLOURS[2], COLOURS[3], COLOURS[6]
    for name, label, colour, style in (
        (SOURCE_ONLY, "source only", orange, "--"),
        (SUPERVISED, "supervised on the target", green, "-"),
    ):
        if name in results and not math.isnan(results[name].mean("iou")):
            axis.axvline(results[name].mean("iou"), color=colour, linestyle=style, linewidth=1.2, label=label, zorder=1)
    for y, name in enumerate(names):
        if name not in results:
            continue
        result, is_auto = results[name], name == AUTO
        colour = black if is_auto else blue
        label = "auto, chosen in the same way" if is_auto else "chosen without target labels"
        seeds = list(result.values["iou"].values())
        axis.scatter(seeds, [y] * len(seeds), s=5, color=colour, alpha=0.5, linewidths=0, zorder=2)
        axis.scatter(result.mean("iou"), y, s=26, marker="s" if is_auto else "o", color=colour, label=label, zorder=4)
        if not math.isnan(result.mean("oracle_iou")):
            oracle = "best by target labels (for comparison only)"
            axis.scatter(result.mean("oracle_iou"), y, s=34, marker="D", label=oracle, fc="none", ec=pink, zorder=3)
    axis.set_yticks(range(len(names)), names)
    axis.set_ylim(len(names) - 0.4, -0.6)
    axis.set_xlabel("IoU on the target's test part")
    axis.grid(axis="y", color="0.92")
    axis.set_axisbelow(True)


def write(work: Path, out: Path) -> tuple[Path, ...]:
    """Write the benchmark's table, its Markdown, figure and correlations into a folder; each file whole or not at all.

    Returns
    -------
    tuple of Path
        ``adaptation.csv``, ``.md``, ``.png`` and ``-correlations.json``.

    Raises
    ------
    DataError
        If there is no table, or it or a run's scores are damaged.
    """
    source = work / TABLE
    rows = read_table(source)
    if not rows:
        raise DataError(f"{source} has no rows; run 'napari-em-da benchmark adaptation --work {work}' first.")
    pairs = list(dict.fromkeys(row["pair"] for row in rows))
    rho = {"all candidates": correlations(work, pairs), "passing the guards": correlations(work, pairs, passing=True)}
    text = f"# Adaptation benchmark\n\n{table(rows)}"
    if rho["all candidates"]:
        text += f"\n{section(rho)}"
    csv_path, markdown, png, json_path = (
        out / TABLE,
        out / "adaptation.md",
        out / "adaptation.png",
        out / "adaptation-correlations.json",
    )
    out.mkdir(parents=True, exist_ok=True)
    figure(rows, png)
    write_text(csv_path, source.read_text(encoding="utf-8"))
    write_text(markdown, text)
    write_text(json_path, json.dumps(_without_nan(rho), indent=2) + "\n")
    return csv_path, markdown, png, json_path


def _without_nan(rho: Mapping[str, Rho]) -> dict[str, dict[str, dict[str, float | None]]]:
    return {
        which: {
            pair: {name: None if math.isnan(value) else round(value, 4) for name, value in found.items()}
            for pair, found in pairs.items()
        }
        for which, pairs in rho.items()
    }


__all__ = ["correlations", "figure", "table", "write"]
