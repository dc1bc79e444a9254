"""The pages that are written from the catalogs are current, and the docstrings hold what the pages need."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from napari_em_da.metrics import check_names, families, lower_is_better
from napari_em_da.postprocess import STEPS, resolve
from napari_em_da.workflows.postprocess import read_chain

ROOT = Path(__file__).parents[1]
SCORES = [(family, score) for family, found in families().items() for score in found.scores]


@pytest.fixture(scope="module")
def writer() -> ModuleType:
    spec = importlib.util.spec_from_file_location("write_docs", ROOT / "scripts" / "write_docs.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["write_docs"] = module
    spec.loader.exec_module(module)
    return module


def test_pages_are_current(writer: ModuleType) -> None:
    assert writer.stale() == [], "run python scripts/write_docs.py"
    assert writer.main(["--check"]) == 0


def test_stale_pages_are_found_and_written(
    writer: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "metrics.md").write_text("old", encoding="utf-8")
    monkeypatch.setattr(writer, "ROOT", tmp_path)
    assert writer.main(["--check"]) == 1
    assert "docs/metrics.md" in capsys.readouterr().out
    assert (tmp_path / "docs" / "metrics.md").read_text(encoding="utf-8") == "old"
    assert writer.main([]) == 0
    assert writer.main(["--check"]) == 0


@pytest.mark.parametrize(("family", "name"), SCORES)
def test_every_score_says_its_range_direction_and_source(writer: ModuleType, family: str, name: str) -> None:
    score = writer.Score.parse(name, families()[family].scores[name])
    assert score.summary.endswith(".") and len(score.summary) <= 120
    assert score.range, "no 'Range …, higher is better' or 'lower is better'"
    assert ("lower" in score.direction) == lower_is_better(name)
    assert score.sources and all(source[-1] in ".?" for source in score.sources)
    assert "Parameters" not in score.body


@pytest.mark.parametrize("name", STEPS.names())
def test_every_option_of_a_step_is_described(name: str) -> None:
    assert STEPS.summary(name).rstrip(".")
    for option, field in STEPS[name].options.model_fields.items():
        assert field.description, option


def test_references_are_told_apart(writer: ModuleType) -> None:
    text = "A score: a / b.\n\nRange 0 to 2.5, lower is better; so.\n\nReferences\n----------\n"
    text += "A (2001), T,\nmore.\nB (1999)."
    score = writer.Score.parse("x", text)
    assert score.summary == "A score: a / b."
    assert (score.range, score.direction) == ("0 to 2.5", "lower is better")
    assert score.sources == ("A (2001), T, more.", "B (1999).")
    assert writer.Score.parse("x", "Nothing.").sources == ()


def test_types_and_bounds_are_words(writer: ModuleType) -> None:
    from napari_em_da.config import ScoringConfig

    table = writer.options(ScoringConfig)
    assert "| `alpha` | `0.5` | number from 0 to 1 |" in table
    assert "| `average` | `slice` | `slice`, `pooled` |" in table
    assert "| `tolerance_nm` | `absent` | number at least 0 or absent |" in table
    assert "| `subsets` | `none` | name: list of: text |" in table
    assert "| `log_base` | `2` | number above 1 |" in table


def test_the_chain_of_the_page_works(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "postprocessing.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```yaml\n(.*?)```", page, flags=re.DOTALL)
    (tmp_path / "chain.yaml").write_text(example, encoding="utf-8")
    steps = resolve(read_chain(tmp_path / "chain.yaml"), "probabilities")
    assert [name for name, _, _ in steps] == re.findall(r"- (\w+)", example)


def test_the_scores_of_the_page_exist() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    (names,) = re.findall(r"--metrics (\S+)", page)
    assert check_names(names.split(","))
    python = re.findall(r"evaluate_arrays\(prediction, labels, (\[.*?\])", page)
    assert python and python[0].replace('"', "").replace(" ", "")[1:-1] == names
    for _, score in SCORES:
        assert f"### `{score}`" in page
