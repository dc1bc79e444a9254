"""What the label curves found: a table and a figure of IoU against the share of labelled sections."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING

import numpy as np

from napari_em_da.errors import DataError
from napari_em_da.experiments.results import Group
from napari_em_da.experiments.rows import AUTO, read_table
from napari_em_da.training.checkpoint import write_text
from napari_em_da.workflows.figure import COLOURS, WIDTH, drawing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TABLE = "fractions.csv"
TARGET_ONLY, FINETUNE = "target_only", "finetune"
ADAPTED = ("dann", "ynet", AUTO)
_ORDER = (TARGET_ONLY, FINETUNE, *ADAPTED)
_MARKERS = "sov^DPX"


@dataclass(frozen=True)
class FractionRow:
    """One line of the table.

    ``sections`` are those whose labels were used; ``seconds`` the training of this row alone, and at fraction 0 of
    what it starts from.
    """

    pair: str
    method: str
    seed: int
    fraction: float
    sections: int
    iou: float
    dice: float
    seconds: float
    profile: str


Cells = Mapping[float, list[FractionRow]]  # fraction to one row per seed
Curves = dict[Group, dict[str, dict[float, list[FractionRow]]]]  # (pair, profile) to method to its cells


def read_rows(path: Path) -> list[FractionRow]:
    """Return the rows of a table; none if there is no table yet.

    Raises
    ------
    DataError
        If a column is missing or a cell that should hold a number does not.
    """
    found = []
    for line, row in enumerate(read_table(path), start=2):
        try:
            found.append(
                FractionRow(
                    row["pair"],
                    row["method"],
                    int(row["seed"]),
                    float(row["fraction"]),
                    int(row["sections"]),
                    float(row["iou"]),
                    float(row["dice"]),
                    float(row["seconds"]),
                    row["profile"],
                )
            )
        except (KeyError, TypeError, ValueError) as error:
            columns = ", ".join(field.name for field in fields(FractionRow))
            raise DataError(f"Line {line} of {path} is damaged ({error}); its columns are {columns}.") from None
    return found


def curves(rows: Sequence[FractionRow]) -> Curves:
    """Return the rows by (pair, profile), method and fraction, in the order in which they are shown."""
    found: Curves = {}
    for row in sorted(rows, key=lambda r: (r.fraction, r.seed)):
        by_method = found.setdefault((row.pair, row.profile), {})
        by_method.setdefault(row.method, {}).setdefault(row.fraction, []).append(row)
    return {
        group: {name: by_method[name] for name in sorted(by_method, key=place)} for group, by_method in found.items()
    }


def place(method: str) -> tuple[int, str]:
    """Return where a method stands in tables and figures, to sort by."""
    return (_ORDER.index(method), "") if method in _ORDER else (len(_ORDER), method)


def table(rows: Sequence[FractionRow]) -> str:
    """Return the rows as Markdown: one table per pair, methods down and fractions across."""
    if not rows:
        return "Nothing was measured yet.\n"
    parts = [
        "IoU on the target's test part, mean ± standard deviation over seeds (none with one seed), by the share of the "
        "target's labelled sections (their number) that was trained on. The sections of a seed are nested: a larger "
        "share holds every smaller one. `target_only` trains from scratch; `finetune` starts from the source model, "
        "the others from a network that was adapted to the target and chosen without its labels, which is what stands "
        "at 0 %. Seeds: fewest and most of a line's cells."
    ]
    for (pair, profile), by_method in curves(rows).items():
        parts += [f"### {pair} ({profile} profile)", "\n".join(_lines(by_method))]
    return "\n\n".join(parts) + "\n"


def _lines(by_method: Mapping[str, Cells]) -> Iterator[str]:
    fractions = sorted({fraction for cells in by_method.values() for fraction in cells})
    heads = ["method", "seeds", *(f"{percent(f)} ({_sections(by_method, f)})" for f in fractions)]
    yield f"| {' | '.join(heads)} |"
    yield "| --- |" + " ---: |" * (len(heads) - 1)
    for name, cells in by_method.items():
        counts = sorted({len(found) for found in cells.values()})
        seeds = str(counts[0]) if len(counts) == 1 else f"{counts[0]}-{counts[-1]}"
        line = [f"`{name}`", seeds, *(_spread(cells.get(f, [])) for f in fractions)]
        yield f"| {' | '.join(line)} |"


def percent(fraction: float) -> str:
    """Return a share as a reader writes it: 0.05 is 5 %."""
    return f"{100 * fraction:g} %"


def _sections(by_method: Mapping[str, Cells], fraction: float) -> str:
    found = {row.sections for cells in by_method.values() for row in cells.get(fraction, [])}
    return "-".join(str(n) for n in sorted({min(found), max(found)}))


def _spread(rows: Sequence[FractionRow]) -> str:
    ious = [row.iou for row in rows]
    if not ious:
        return ""
    return f"{fmean(ious):.3f}" + (f" ± {stdev(ious):.3f}" if len(ious) > 1 else "")


def figure(rows: Sequence[FractionRow], path: Path) -> dict[Group, dict[str, list[tuple[float, float]]]]:
    """Draw IoU against the share of labelled sections, a panel per pair and a line per method.

    The share is on a square-root scale, which has room for 0 and for the small shares; dots are single seeds.

    Returns
    -------
    dict of (pair, profile) to method to list of (fraction, mean IoU)
        What was drawn.

    Raises
    ------
    DataError
        If there are no rows.
    """
    groups = curves(rows)
    if not groups:
        raise DataError("The benchmark's table has no rows to draw; run the benchmark first.")
    names = sorted({name for by_method in groups.values() for name in by_method}, key=place)
    across = min(2, len(groups))
    down = -(-len(groups) // across)
    with drawing(path, (WIDTH if across > 1 else WIDTH / 2, 2.6 * down + 0.5)) as canvas:
        axes = canvas.subplots(down, across, squeeze=False).ravel()
        for axis, ((pair, profile), by_method) in zip(axes, groups.items(), strict=False):
            axis.set_title(f"{pair.replace('->', ' → ')} ({profile})")
            _draw_panel(axis, by_method, names)
        for axis in axes[len(groups) :]:
            axis.set_axis_off()
        handles = {label: handle for a in axes for handle, label in zip(*a.get_legend_handles_labels(), strict=True)}
        shown = [name for name in names if name in handles]
        canvas.legend([handles[n] for n in shown], shown, loc="outside lower center", ncols=3, frameon=False)
    return {group: {name: _means(cells) for name, cells in by_method.items()} for group, by_method in groups.items()}


def _means(cells: Cells) -> list[tuple[float, float]]:
    return [(fraction, fmean(row.iou for row in found)) for fraction, found in sorted(cells.items())]


def _draw_panel(axis: Axes, by_method: Mapping[str, Cells], names: Sequence[str]) -> None:
    ticks = sorted({fraction for cells in by_method.values() for fraction in cells})
    for name, cells in by_method.items():
        index = names.index(name)
        colour, style = COLOURS[(index - 1) % len(COLOURS)], "--" if name == TARGET_ONLY else "-"
        marker = _MARKERS[index % len(_MARKERS)]
        x, y = np.array(_means(cells)).T
        axis.plot(np.sqrt(x), y, style, color=colour, marker=marker, markersize=4, linewidth=1.2, label=name, zorder=3)
        for fraction, found in cells.items():
            if len(found) > 1:
                at = [math.sqrt(fraction)] * len(found)
                axis.scatter(at, [r.iou for r in found], s=5, color=colour, alpha=0.5, linewidths=0, zorder=2)
    axis.set_xticks(np.sqrt(ticks), [percent(fraction) for fraction in ticks])
    axis.set_xlabel("labelled sections of the target (square-root scale)")
    axis.set_ylabel("IoU on the target's test part")
    axis.grid(axis="y", color="0.92")
    axis.set_axisbelow(True)


def write(work: Path, out: Path) -> tuple[Path, ...]:
    """Write the benchmark's table, its Markdown and figure into a folder; each file whole or not at all.

    Returns
    -------
    tuple of Path
        ``fractions.csv``, ``.md`` and ``.png``.

    Raises
    ------
    DataError
        If there is no table, or it is damaged.
    """
    source = work / TABLE
    rows = read_rows(source)
    if not rows:
        raise DataError(f"{source} has no rows; run 'napari-em-da benchmark fractions --work {work}' first.")
    csv_path, markdown, png = out / TABLE, out / "fractions.md", out / "fractions.png"
    out.mkdir(parents=True, exist_ok=True)
    figure(rows, png)
    write_text(csv_path, source.read_text(encoding="utf-8"))
    write_text(markdown, f"# Label curves\n\n{table(rows)}")
    return csv_path, markdown, png
