"""Label curves: the grid on small volumes in the benchmark's folders, and a report that says what the rows say."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import napari_em_da as em
from napari_em_da import cli
from napari_em_da.config import SegmentConfig
from napari_em_da.errors import ConfigError, DataError
from napari_em_da.events import Notice
from napari_em_da.experiments import fractions
from napari_em_da.experiments.fraction_report import FractionRow, figure, read_rows, table, write
from napari_em_da.experiments.fractions import Lot, finetune_config, grid, target_only_config
from napari_em_da.experiments.pairs import make_pair
from napari_em_da.experiments.recipes import PROFILES, SOURCE_AUGMENT
from napari_em_da.experiments.rows import append
from napari_em_da.training.folder import RunFolder
from napari_em_da.volume import Volume
from napari_em_da.workflows.auto import DEFAULT_PORTFOLIO, gather
from napari_em_da.workflows.judging import decide, read_records
from napari_em_da.workflows.label_fraction import chosen_sections

PAIR, HOME = "epfl->vnc mito", "epfl-vnc-mito-0"
PLAIN = FractionRow(PAIR, "finetune", 0, 0.15, 3, 0.5, 0.6, 60.0, "cpu")


@pytest.fixture(scope="module")
def data(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The benchmark's folders with phantoms; mitochondria and membranes are 2 and 1 in EPFL, 3 and 1 in VNC."""
    root = tmp_path_factory.mktemp("data")
    for folder in ("epfl_hippocampus", "vnc_sstem"):
        (root / folder).mkdir()
    a, labels = (Volume.open(tiny / name) for name in ("A.tif", "A-labels.tif"))
    shapes = labels.read()
    shapes[:, :3, :], shapes[:, -3:, :] = 1, 5  # the other structures of EPFL's annotation
    labels = Volume.from_array(shapes, voxel_nm=labels.voxel_nm)
    for part in ("", "_sparse", "_test"):
        a.save(root / "epfl_hippocampus" / f"image{part}.tif")
        labels.save(root / "epfl_hippocampus" / f"labels{part}.tif")
    Volume.open(tiny / "B.tif").save(root / "vnc_sstem" / "image.tif")
    values = Volume.open(tiny / "B-labels.tif").read()
    values[:, :3, :] = 1
    Volume.from_array(np.where(values == 2, 3, values).astype(np.uint8)).save(root / "vnc_sstem" / "labels.tif")
    return root


@pytest.fixture(scope="module")
def work(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder after a grid without any adaptation at hand."""
    out = tmp_path_factory.mktemp("work")
    events = list(grid(data, out, profile="tiny", pairs=[PAIR], fractions=(0, 0.3, 1)))
    notices = [e.text for e in events if isinstance(e, Notice)]
    for name in ("dann", "ynet", "auto"):
        assert any(f"{name} is left out" in text for text in notices)
    return out


def found(work: Path) -> dict[tuple[str, float], FractionRow]:
    return {(row.method, row.fraction): row for row in read_rows(work / "fractions.csv")}


def test_every_method_has_its_rows(work: Path) -> None:
    rows = found(work)
    assert set(rows) == {
        *(("target_only", f) for f in (0.3, 1.0)),
        *(("finetune", f) for f in (0.0, 0.3, 1.0)),
    }
    assert {key: row.sections for key, row in rows.items()} == {key: {0: 0, 0.3: 2, 1: 6}[key[1]] for key in rows}
    assert all(0 <= row.iou <= row.dice <= 1 and row.seconds > 0 and row.profile == "tiny" for row in rows.values())
    assert all(row.dice == pytest.approx(2 * row.iou / (1 + row.iou), abs=2e-4) for row in rows.values())


def test_runs_are_what_the_protocol_says(work: Path) -> None:
    home, budget = work / HOME, PROFILES["tiny"]
    source, tuned, scratch, bound = (
        RunFolder(path).config()
        for path in (
            home / "source",
            home / "fractions" / "finetune-0.3",
            home / "fractions" / "target_only-0.3",
            home / "target_supervised",
        )
    )
    assert tuned.init == home / "source" and scratch.init is None and bound.init is None
    assert (
        (tuned.training.steps, scratch.training.steps, bound.training.steps)
        == (3, 6, 6)
        == (
            budget.bound // 2,
            budget.bound,
            budget.bound,
        )
    )
    assert tuned.training.learning_rate == pytest.approx(source.training.learning_rate / 10)
    assert scratch.training.learning_rate == source.training.learning_rate
    assert tuned.classes == scratch.classes == {"mito": (3,), "membrane": (1,)}
    assert source.classes == {"mito": (2,), "membrane": (1,), "vesicles": (5,)}
    assert tuned.augment == SOURCE_AUGMENT == scratch.augment
    assert tuned.target == () and tuned.source[0].fraction == scratch.source[0].fraction == 0.3
    info = [RunFolder(home / "fractions" / f"{name}-0.3").info()["source"][0] for name in ("finetune", "target_only")]
    assert info[0]["sections"] == info[1]["sections"] and len(info[0]["sections"]) == 2
    assert not RunFolder(home / "fractions" / "finetune-0.3").last.exists()


def test_at_zero_stands_the_source_model(work: Path, tmp_path: Path) -> None:
    data = work / "data"
    image, out = data / "vnc_sstem-image-test.tif", tmp_path / "seg.tif"
    em.run(em.segment(SegmentConfig(image=image, run=work / HOME / "source", output=out, voxel_nm=(50, 4.6, 4.6))))
    hit, truth = Volume.open(out).read() == 2, Volume.open(data / "vnc_sstem-labels-test.tif").read() == 3
    assert truth.any()
    assert found(work)["finetune", 0.0].iou == pytest.approx((hit & truth).sum() / (hit | truth).sum(), abs=1e-4)


def test_a_second_call_adds_what_is_missing_and_nothing_else(data: Path, work: Path) -> None:
    before = (work / "fractions.csv").read_text("utf-8")
    files = {p: p.stat().st_mtime_ns for p in work.rglob("*.safetensors")}
    job = grid(data, work, profile="tiny", pairs=[PAIR], methods=["finetune", "target_only"], fractions=(0, 0.3, 1))
    assert em.run(job) == work / "fractions.csv"
    assert (work / "fractions.csv").read_text("utf-8") == before
    em.run(grid(data, work, profile="tiny", pairs=[PAIR], methods=["finetune"], fractions=(0.5,)))
    assert (work / "fractions.csv").read_text("utf-8").startswith(before)
    assert found(work)["finetune", 0.5].sections == 3
    assert {p: p.stat().st_mtime_ns for p in files} == files


def test_a_named_adaptation_is_trained_and_its_choice_is_the_start(data: Path, work: Path) -> None:
    job = grid(data, work, profile="tiny", pairs=[PAIR], methods=["coral"], fractions=(0, 0.3))
    em.run(job)
    home = work / HOME
    chosen, _, _ = decide(read_records(RunFolder(home / "coral")))
    start = home / "fractions" / "coral-start"
    assert RunFolder(start).best.read_bytes() == chosen.weights.read_bytes()
    tuned = RunFolder(home / "fractions" / "coral-0.3").config()
    assert tuned.init == start and tuned.method.name == "supervised"
    assert tuned.augment == SOURCE_AUGMENT and tuned.training.steps == 3 and tuned.training.ema == 0.99
    assert tuned.sampling.pixel_nm == pytest.approx(10)
    rows = found(work)
    assert rows["coral", 0.0].seconds == RunFolder(home / "coral").info()["result"]["seconds"]
    assert rows["coral", 0.3].sections == 2


def test_auto_starts_from_the_best_of_the_portfolio(data: Path, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    two = [entry for entry in DEFAULT_PORTFOLIO if entry.name in ("adabn", "coarse")]
    monkeypatch.setattr(fractions, "DEFAULT_PORTFOLIO", two)
    em.run(grid(data, work, profile="tiny", pairs=[PAIR], methods=["auto"], fractions=(0.3,)))
    runs = [RunFolder(work / HOME / entry.name) for entry in two]
    chosen, _, _ = decide(gather(runs))
    start = work / HOME / "fractions" / "auto-start"
    assert RunFolder(start).best.read_bytes() == chosen.weights.read_bytes()
    # the network knows the pixel size of the adaptation that it comes from
    pixel = 13 if chosen.name == "coarse" else 10
    assert RunFolder(work / HOME / "fractions" / "auto-0.3").info()["pixel_nm"] == pytest.approx(pixel)
    # where they are trained, they take part without being named
    notices = list(grid(data, work, profile="tiny", pairs=[PAIR], fractions=(0.3,)))
    assert not any(isinstance(e, Notice) and "auto is left out" in e.text for e in notices)


def test_a_share_without_the_class_is_left_out_with_a_warning(data: Path, tmp_path: Path) -> None:
    other = tmp_path / "data"
    other.mkdir()
    (other / "epfl_hippocampus").symlink_to(data / "epfl_hippocampus")
    (other / "vnc_sstem").mkdir()
    (other / "vnc_sstem" / "image.tif").symlink_to(data / "vnc_sstem" / "image.tif")
    labels = Volume.open(data / "vnc_sstem" / "labels.tif").read()
    (only,) = chosen_sections(range(6), 0.1, 0)
    labels[only] = 0
    Volume.from_array(labels).save(other / "vnc_sstem" / "labels.tif")
    job = grid(other, tmp_path / "work", profile="tiny", pairs=[PAIR], methods=["finetune"], fractions=(0, 0.1, 0.3))
    warnings = [e.text for e in job if isinstance(e, Notice) and e.level == "warning"]
    assert any("fraction 0.1" in text and "raise the label fraction" in text for text in warnings)
    assert set(found(tmp_path / "work")) == {("finetune", 0.0), ("finetune", 0.3)}


def test_unknown_methods_stop_before_work(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'dan'.*target_only, finetune, auto"):
        next(grid(data, tmp_path / "work", methods=["dan"]))
    assert not (tmp_path / "work").exists()


def test_the_budgets_of_a_profile(data: Path, tmp_path: Path) -> None:
    lot = Lot(make_pair(PAIR, data, tmp_path / "data"), tmp_path / "home", 2, "gpu")
    tuned = finetune_config(lot, tmp_path / "start", tmp_path / "run", 0.15)
    scratch = target_only_config(lot, tmp_path / "run", 0.15)
    assert (tuned.training.steps, tuned.training.learning_rate) == (3000, pytest.approx(1e-4))
    assert (scratch.training.steps, scratch.training.learning_rate) == (6000, 1e-3)
    assert tuned.training.seed == scratch.training.seed == 2
    assert tuned.source == scratch.source and tuned.source[0].fraction == 0.15


def test_the_command_line(data: Path, work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["benchmark", "fractions", "--data", str(data), "--work", str(work), "--profile", "tiny"]
    assert cli.main([*command, "--pair", PAIR, "--seeds", "1", "--method", "finetune"]) == 0
    assert "fractions.csv" in capsys.readouterr().out
    assert {key for key in found(work) if key[0] == "finetune"} >= {("finetune", f) for f in (0, 0.05, 0.15, 0.3, 1)}
    assert (work / "report" / "fractions.md").is_file()


@pytest.fixture
def rows(tmp_path: Path) -> Callable[..., list[FractionRow]]:
    """Write rows as the grid does and read them back."""

    def make(*wanted: FractionRow) -> list[FractionRow]:
        path = tmp_path / "fractions.csv"
        path.unlink(missing_ok=True)
        for item in wanted:
            append(path, item)
        return read_rows(path)

    return make


def curve(method: str, *points: tuple[float, int, float], seed: int = 0, **changes: str) -> list[FractionRow]:
    return [
        replace(PLAIN, method=method, fraction=f, sections=n, iou=iou, seed=seed, **changes) for f, n, iou in points
    ]


def lines(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]


def test_rows_survive_the_file(rows: Callable[..., list[FractionRow]], tmp_path: Path) -> None:
    wanted = curve("auto", (0.0, 0, 0.25), (0.05, 1, 0.5))
    assert rows(*wanted) == wanted
    head = (tmp_path / "fractions.csv").read_text("utf-8").splitlines()[0]
    assert head == "pair,method,seed,fraction,sections,iou,dice,seconds,profile"


def test_the_table_has_methods_down_and_fractions_across(rows: Callable[..., list[FractionRow]]) -> None:
    wanted = [
        *curve("auto", (0.0, 0, 0.7), (0.15, 3, 0.75)),
        *curve("target_only", (0.15, 3, 0.4), (1.0, 20, 0.8)),
        *curve("finetune", (0.0, 0, 0.5), (0.15, 3, 0.61), (1.0, 20, 0.82)),
        *curve("finetune", (0.15, 3, 0.65), seed=1),
        *curve("finetune", (0.15, 3, 0.9), profile="gpu"),
    ]
    cpu, gpu = (lines(part) for part in re.split(r"### .*\n", table(rows(*wanted)))[1:])
    assert cpu[0] == ["method", "seeds", "0 % (0)", "15 % (3)", "100 % (20)"]
    spread = f"{np.mean([0.61, 0.65]):.3f} ± {np.std([0.61, 0.65], ddof=1):.3f}"
    assert cpu[2:] == [
        ["`target_only`", "1", "", "0.400", "0.800"],
        ["`finetune`", "1-2", "0.500", spread, "0.820"],
        ["`auto`", "1", "0.700", "0.750", ""],
    ]
    assert gpu[2:] == [["`finetune`", "1", "0.900"]]
    assert table([]) == "Nothing was measured yet.\n"


def test_the_figure_shows_the_means(rows: Callable[..., list[FractionRow]], tmp_path: Path) -> None:
    wanted = [
        *curve("dann", (1.0, 20, 0.9), (0.0, 0, 0.6)),
        *curve("target_only", (0.05, 1, 0.3)),
        *curve("dann", (0.0, 0, 0.8), seed=1),
        *curve("ynet", (0.0, 0, 0.1), pair="vnc->epfl mito"),
    ]
    drawn = figure(rows(*wanted), tmp_path / "f.png")
    assert list(drawn) == [(PAIR, "cpu"), ("vnc->epfl mito", "cpu")]
    assert drawn[PAIR, "cpu"]["dann"] == [(0.0, pytest.approx(0.7)), (1.0, pytest.approx(0.9))]
    assert drawn[PAIR, "cpu"]["target_only"] == [(0.05, pytest.approx(0.3))]
    picture = np.asarray(Image.open(tmp_path / "f.png").convert("RGB"))
    assert picture.shape[1] == 1440
    for colour in ((0, 0, 0), (213, 94, 0)):  # target_only and dann, of the colour-blind safe set
        assert (np.abs(picture.astype(int) - colour).max(-1) < 8).any()
    with pytest.raises(DataError, match="no rows"):
        figure([], tmp_path / "none.png")


def test_the_report_is_written_whole_and_a_damaged_table_is_named(
    rows: Callable[..., list[FractionRow]], tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="no rows; run 'napari-em-da benchmark fractions"):
        write(tmp_path / "absent", tmp_path / "out")
    rows(*curve("finetune", (0.0, 0, 0.5), (1.0, 20, 0.7)))
    paths = write(tmp_path, tmp_path / "out")
    assert [path.name for path in paths] == ["fractions.csv", "fractions.md", "fractions.png"]
    assert paths[0].read_text("utf-8") == (tmp_path / "fractions.csv").read_text("utf-8")
    assert "`finetune` | 1 | 0.500 | 0.700" in paths[1].read_text("utf-8")
    with (tmp_path / "fractions.csv").open("a", encoding="utf-8") as file:
        file.write("a,b,0,x,1,0,0,0,cpu\n")
    with pytest.raises(DataError, match="Line 4 of .*fractions.csv is damaged"):
        write(tmp_path, tmp_path / "out")
