"""The benchmark's report says what the rows say, no more, and compares only what can be compared."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.stats import spearmanr

from napari_em_da.errors import DataError
from napari_em_da.experiments.report import correlations, figure, table, write
from napari_em_da.experiments.rows import Row, append, read_table
from napari_em_da.workflows.judging import Record

PAIR, OTHER = "epfl->vnc mito", "vnc->epfl mito"
NAN = float("nan")
Rows = list[dict[str, str]]
PLAIN = Row(PAIR, "coral", 0, 0.5, 0.6, "coral, step 4", 1.5, 120.0, 0.55, "step 2", 3, "cpu")


def row(method: str, iou: float, seed: int = 0, pair: str = PAIR, **changes: object) -> Row:
    oracle = {"oracle_iou": NAN} if method in ("source_only", "target_supervised") else {}
    return replace(PLAIN, **{"method": method, "iou": iou, "seed": seed, "pair": pair, **oracle, **changes})


@pytest.fixture
def rows(tmp_path: Path) -> Callable[..., Rows]:
    """Write rows as the grid does and read them back."""

    def make(*found: Row) -> Rows:
        path = tmp_path / "table.csv"
        path.unlink(missing_ok=True)
        for item in found:
            append(path, item)
        return read_table(path)

    return make


def test_no_row_is_lost_when_several_write_at_once(tmp_path: Path) -> None:
    path, seeds = tmp_path / "table.csv", range(60)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda seed: append(path, row("coral", 0.5, seed)), seeds))
    assert sorted(int(found["seed"]) for found in read_table(path)) == list(seeds)


def cells(text: str, method: str) -> list[str]:
    (line,) = re.findall(rf"^\| (\**`{method}`.*) \|$", text, flags=re.MULTILINE)
    return [cell.strip() for cell in line.split(" | ")]


def test_a_line_is_the_mean_over_seeds(rows: Callable[..., Rows]) -> None:
    ious = [0.41, 0.47, 0.53]
    found = [row("coral", iou, seed, seconds=60.0 * (seed + 1), step_cost_ratio=NAN) for seed, iou in enumerate(ious)]
    found[1] = replace(found[1], chosen_without_labels="source_only, step 0", step_cost_ratio=1.25)
    found[2] = replace(found[2], smoothed_iou=0.6)
    line = cells(table(rows(*found)), "coral")
    expected = f"{np.mean(ious):.3f} ± {np.std(ious, ddof=1):.3f}"
    assert line == ["`coral`", "3", expected, "0.600", "0.600 ± 0.000", "", "1.25", "2.0", "1", "0.550 ± 0.000"]


def test_a_gain_is_over_the_source_model_of_the_same_seed(rows: Callable[..., Rows]) -> None:
    found = [row("source_only", 0.3), row("source_only", 0.5, 1), row("source_only", 0.1, 2)]
    found += [row("coral", 0.4), row("coral", 0.52, 1), row("dann", 0.45, 1), row("mmd", 0.45, 3)]
    text = table(rows(*found))
    assert [cells(text, name)[5] for name in ("source_only", "coral", "dann", "mmd")] == [
        *("", f"+0.060 ± {np.std([0.1, 0.02], ddof=1):.3f}", "-0.050", "")
    ]


def test_bounds_stand_first_and_last_and_auto_is_bold(rows: Callable[..., Rows]) -> None:
    names = ["target_supervised", "auto", "of_my_own", "mean_teacher", "adabn", "source_only"]
    text = table(rows(*(row(name, 0.5) for name in names)))
    assert re.findall(r"^\| \**`(\w+)`", text, flags=re.MULTILINE) == [
        *("source_only", "adabn", "mean_teacher", "of_my_own", "auto", "target_supervised")
    ]
    assert cells(text, "auto")[2] == "**0.500**" and cells(text, "auto")[-1] == "0.550"
    assert cells(text, "source_only")[-2:] == ["", ""]
    assert "uses target labels, for comparison only" in text and "nan" not in text


def test_the_gap_is_compared_on_common_seeds(rows: Callable[..., Rows]) -> None:
    found = [row("source_only", 0.4), row("source_only", 0.1, 1), row("target_supervised", 0.8), row("auto", 0.7)]
    text = table(rows(*found, row("target_supervised", 0.9, 2)))
    assert "`auto` recovers 75% of the gap" in text and "0.400 to 0.700, 0.800 with target labels (1 seed)" in text
    worse = table(rows(*found[:3], row("auto", 0.35)))
    assert "worse than the source model by 0.050" in worse and "recovers -" not in worse
    none = table(rows(row("source_only", 0.5), row("target_supervised", 0.4), row("auto", 0.6)))
    assert "There is no gap to recover: IoU 0.500" in none


def test_missing_rows_are_named(rows: Callable[..., Rows]) -> None:
    assert "not known (`auto`, `target_supervised` not measured)" in table(rows(row("source_only", 0.4)))
    apart = rows(row("source_only", 0.4), row("auto", 0.5, 1), row("target_supervised", 0.8, 2))
    assert "not known (no seed has all three rows)" in table(apart)
    assert table([]) == "Nothing was measured yet.\n"


def test_the_mean_of_the_pairs_and_the_worst_one(rows: Callable[..., Rows]) -> None:
    found = []
    for pair, ious in ((PAIR, (0.4, 0.7, 0.8)), (OTHER, (0.6, 0.59, 0.8))):
        names = ("source_only", "auto", "target_supervised")
        found += [row(name, iou, pair=pair) for name, iou in zip(names, ious, strict=True)]
    text = table(rows(*found, row("source_only", 0.3, pair="c->d")))
    assert "On the mean of 2 pairs `auto` recovers 48%" in text  # (0.645 - 0.5) / (0.8 - 0.5)
    assert "Averaged along z" not in text
    three = [replace(one, smoothed_iou=one.iou + 0.1 * (one.method == "auto")) for one in found]
    text_z = table(rows(*three))
    assert "Averaged along z, `auto` recovers 82%" in text_z  # (0.745 - 0.5) / (0.8 - 0.5)
    assert "Averaged along z, `auto` recovers 100%" in text_z  # of the first pair
    assert f"is -0.010, on {OTHER}." in text and "Not counted, for rows are missing: c->d." in text


def test_profiles_are_not_mixed(rows: Callable[..., Rows]) -> None:
    text = table(rows(row("coral", 0.2), row("coral", 0.6, profile="gpu")))
    assert f"### {PAIR} (cpu profile)" in text and f"### {PAIR} (gpu profile)" in text
    assert "0.200" in text and "0.600" in text and "0.400" not in text


def test_other_tables_are_refused(rows: Callable[..., Rows]) -> None:
    (found,) = rows(PLAIN)
    with pytest.raises(DataError, match="Line 3 .*'half' for iou"):
        table([found, {**found, "iou": "half"}])
    with pytest.raises(DataError, match="has no dice"):
        table([{key: value for key, value in found.items() if key != "dice"}])


def test_the_figure_shows_the_means(rows: Callable[..., Rows], tmp_path: Path) -> None:
    found = rows(row("source_only", 0.4), row("coral", 0.5), row("coral", 0.6, 1), row("auto", 0.7, pair=OTHER))
    drawn = figure(found, tmp_path / "plot.png")
    assert drawn[PAIR, "cpu"]["coral"] == pytest.approx((0.55, 0.55))
    assert drawn[PAIR, "cpu"]["source_only"] == pytest.approx((0.4, NAN), nan_ok=True)
    assert set(drawn[OTHER, "cpu"]) == {"auto"}
    with Image.open(tmp_path / "plot.png") as image:
        assert image.width > 800 and len(np.unique(np.asarray(image.convert("L")))) > 10
    figure(rows(row("source_only", 0.4)), tmp_path / "plot.png")
    assert [path.name for path in tmp_path.glob("*.png")] == ["plot.png"]
    with pytest.raises(DataError, match="no rows"):
        figure([], tmp_path / "plot.png")


def make_run(
    home: Path, name: str, scores: dict[int, dict[str, float]], ious: dict[int, float], refused: tuple[int, ...] = ()
) -> None:
    """Write what a run leaves: records of candidates and, unless empty, their scores on the test part."""
    (home / name / "candidates").mkdir(parents=True)
    for step, found in scores.items():
        why = ("It is implausible.",) if step in refused else ()
        weights = home / name / "candidates" / f"{step:06d}.safetensors"
        Record(name if step else "source_only", step, found, why, 0.8, None, weights).save()
    if ious:
        text = json.dumps({str(step): {"iou": iou, "dice": iou} for step, iou in ious.items()})
        (home / name / "test-scores.json").write_text(text, encoding="utf-8")


def test_correlations_are_over_all_candidates_of_a_seed(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    expected, expected_passing = [], []
    for seed in range(2):
        home, points, passing = tmp_path / f"epfl-vnc-mito-{seed}", [], []
        start = tuple(rng.random(2))  # the source model stands in every run and counts once
        for name in ("adabn", "coral"):
            own = {step: start if not step else tuple(rng.random(2)) for step in (0, 2, 4, 6)}
            scores = {step: {"a": a, "flat": 1.0} for step, (a, _) in own.items()}
            make_run(home, name, scores, {step: iou for step, (_, iou) in own.items()}, refused=(4,))
            points += [value for step, value in own.items() if step or name == "adabn"]
            passing += [value for step, value in own.items() if (step or name == "adabn") and step != 4]
        make_run(home, "dann", {2: {"a": 9.0}}, {})
        expected.append(spearmanr(*zip(*points, strict=True)).statistic)
        expected_passing.append(spearmanr(*zip(*passing, strict=True)).statistic)
    found = correlations(tmp_path, [PAIR, OTHER])
    assert found == {PAIR: pytest.approx({"a": np.mean(expected), "flat": NAN}, nan_ok=True)}
    passing_only = correlations(tmp_path, [PAIR], passing=True)
    assert passing_only[PAIR]["a"] == pytest.approx(np.mean(expected_passing))


def test_candidates_not_scored_yet_are_left_out(tmp_path: Path) -> None:
    scores = {step: {"a": float(step)} for step in (0, 2, 4)}
    make_run(tmp_path / "epfl-vnc-mito-0", "coral", scores, {0: 0.1, 2: 0.2})
    assert correlations(tmp_path, [PAIR]) == {PAIR: {"a": pytest.approx(1.0)}}
    (tmp_path / "epfl-vnc-mito-0" / "coral" / "test-scores.json").write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match="damaged .* delete it"):
        correlations(tmp_path, [PAIR])


def test_write_puts_the_whole_report_into_a_folder(tmp_path: Path) -> None:
    work, out = tmp_path / "work", tmp_path / "new" / "results"
    with pytest.raises(DataError, match="has no rows"):
        write(work, out)
    make_run(work / "epfl-vnc-mito-0", "coral", {0: {"a": 1.0, "b": 2.0}, 2: {"a": 2.0, "b": 2.0}}, {0: 0.3, 2: 0.2})
    for name in ("source_only", "coral"):
        append(work / "adaptation.csv", row(name, 0.5))
    paths = write(work, out)
    assert sorted(path.name for path in out.iterdir()) == sorted(path.name for path in paths)
    assert (out / "adaptation.csv").read_bytes() == (work / "adaptation.csv").read_bytes()
    text = (out / "adaptation.md").read_text(encoding="utf-8")
    assert table(read_table(out / "adaptation.csv")) in text and "| a | -1.00 | -1.00 |" in text
    found = json.loads((out / "adaptation-correlations.json").read_text(encoding="utf-8"))
    assert found["all candidates"] == {PAIR: {"a": -1.0, "b": None}}

    before = {path: path.read_bytes() for path in paths}
    append(work / "adaptation.csv", row("auto", 0.9))
    (work / "epfl-vnc-mito-0" / "coral" / "test-scores.json").write_text("[]", encoding="utf-8")
    with pytest.raises(DataError, match="damaged"):
        write(work, out)
    assert {path: path.read_bytes() for path in out.iterdir()} == before


def test_what_auto_announced_stands_beside_what_it_reached(rows: Callable[..., Rows]) -> None:
    three = row("source_only", 0.4), row("auto", 0.6), row("target_supervised", 0.8)
    assert "announced" not in table(rows(*three))
    told = replace(three[1], expected_iou=0.55, expected_low=0.4, expected_high=0.7)
    assert "it announced 0.55 (0.40 to 0.70)" in table(rows(three[0], told, three[2]))
