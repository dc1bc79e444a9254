"""The pages that are written from the catalogs are current, and the docstrings hold what the pages need."""

from __future__ import annotations

import importlib.util
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from napari_em_da.methods import METHODS
from napari_em_da.metrics import check_names, families, lower_is_better
from napari_em_da.postprocess import STEPS, resolve
from napari_em_da.workflows.postprocess import read_chain

ROOT = Path(__file__).parents[1]
SCORES = [(family, score) for family, found in families().items() for score in found.scores]


METHOD_PAGES = sorted((ROOT / "docs" / "methods").glob("*.md"))


@pytest.fixture(scope="module")
def writer() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "scripts"))  # where Python looks first when it is run as a script
        yield load()


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("write_docs", ROOT / "scripts" / "write_docs.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["write_docs"] = module
    spec.loader.exec_module(module)
    return module


def test_pages_are_current(writer: ModuleType) -> None:
    assert list(writer.stale()) == [], "run python scripts/write_docs.py"
    assert writer.main(["--check"]) == 0


def test_stale_pages_are_found_and_written(
    writer: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    guide = tmp_path / "docs" / "methods" / "README.md"
    guide.parent.mkdir(parents=True)
    shutil.copy(ROOT / "docs" / "methods" / "README.md", guide)
    (tmp_path / "docs" / "metrics.md").write_text("old", encoding="utf-8")
    (guide.parent / "gone.md").write_text(f"{writer.NOTE}\n", encoding="utf-8")
    (guide.parent / "own.md").write_text("Written by hand.\n", encoding="utf-8")
    monkeypatch.setattr(writer, "ROOT", tmp_path)
    assert writer.main(["--check"]) == 1
    shown = capsys.readouterr().out
    assert "docs/metrics.md" in shown and "docs/methods/coral.md" in shown and "docs/methods/gone.md" in shown
    assert (tmp_path / "docs" / "metrics.md").read_text(encoding="utf-8") == "old"
    assert writer.main([]) == 0
    assert writer.main(["--check"]) == 0
    assert (guide.parent / "own.md").is_file() and not (guide.parent / "gone.md").exists()
    table, heads = tmp_path / "benchmarks" / "results" / "adaptation.csv", "pair,method,seed,iou,dice,"
    heads += "chosen_without_labels,step_cost_ratio,seconds,oracle_iou,oracle_step,candidates,profile\n"
    table.parent.mkdir(parents=True)
    ious = {"source_only": 0.4, "coral": 0.5, "auto": 0.6, "target_supervised": 0.8}
    lines = [f"a->b mito,{name},0,{iou},{iou},x,1.5,60,nan,,3,cpu\n" for name, iou in ious.items()]
    table.write_text(heads + "".join(lines), encoding="utf-8")
    assert writer.main([]) == 0
    coral = (guide.parent / "coral.md").read_text(encoding="utf-8")
    assert "| a->b mito | cpu | `coral` | 1 | 0.500 |  | +0.100 | 1.50 |" in coral
    assert "The benchmark has no row of this method." in (guide.parent / "dann.md").read_text(encoding="utf-8")
    assert "`auto` recovers 50% of the gap" in guide.read_text(encoding="utf-8")


def test_what_stands_before_the_mark_is_kept(
    writer: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guide = tmp_path / "docs" / "methods" / "README.md"
    guide.parent.mkdir(parents=True)
    shutil.copy(ROOT / "docs" / "methods" / "README.md", guide)
    text = guide.read_text(encoding="utf-8")
    guide.write_text(text.replace("# Which", "# Own words: which").replace("## The methods", "old"), encoding="utf-8")
    if (ROOT / "benchmarks" / "results").is_dir():  # the measured part comes from there
        shutil.copytree(ROOT / "benchmarks" / "results", tmp_path / "benchmarks" / "results")
    monkeypatch.setattr(writer, "ROOT", tmp_path)
    writer.main([])
    assert guide.read_text(encoding="utf-8") == text.replace("# Which", "# Own words: which")


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


@pytest.mark.parametrize("name", METHODS.names())
def test_every_method_has_a_page(name: str) -> None:
    page = (ROOT / "docs" / "methods" / f"{name}.md").read_text(encoding="utf-8")
    assert METHODS.summary(name).endswith(".") and len(METHODS.summary(name)) <= 120
    assert f"# {name}\n\n{METHODS.summary(name)}\n" in page
    assert "## How it works" in page
    assert "## Source" in page or name in ("combined", "supervised")
    assert not re.search(r":math:|\.\. math|\]_|^-{3,}$|::\n", page, flags=re.MULTILINE), "reStructuredText is left"
    for option, field in METHODS[name].options_type.model_fields.items():
        assert field.description and f"| `{option}` |" in page


@pytest.mark.parametrize("page", METHOD_PAGES, ids=lambda path: path.stem)
def test_links_and_commands_of_the_pages_work(page: Path) -> None:
    from napari_em_da.cli.app import app

    text = page.read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)#]+)\)", text):
        assert (page.parent / link).is_file(), link
    commands = [line for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    assert commands
    for command in commands:
        app.parse_args(shlex.split(command)[1:], exit_on_error=False, print_error=False)


def test_the_guide_quotes_the_warnings_that_there_are() -> None:
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.py"))
    guide = (ROOT / "docs" / "methods" / "README.md").read_text(encoding="utf-8")
    (section,) = re.findall(r"## What the warnings mean\n(.*?)\n## ", guide, re.DOTALL)
    cells = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    quoted = [quote for cell in cells for quote in re.findall("`([^`]+)`", cell)]
    assert len(quoted) >= 10
    assert [quote for quote in quoted if quote not in sources] == []


def test_docstrings_become_markdown(writer: ModuleType) -> None:
    from docs_markdown import Docstring  # found beside the script while the fixture lives

    found = Docstring.parse(
        """Add :math:`a_i` to
        it.

        A body, see [1]_. When it helps: with ``a``
        and b. When it fails: never.

        .. math:: x =
            y

        Notes
        -----
        As in::

            one:
              two: 3

        Then more.

        References
        ----------
        .. [1] A (2001), T,
           more.
        .. [2] B (1999).
        """
    )
    assert found.summary == "Add $`a_i`$ to it."
    assert found.body == "A body, see [1].\n\n```math\nx = y\n```"
    assert found.notes == "As in:\n\n```yaml\none:\n  two: 3\n```\n\nThen more."
    assert found.references == ("[1] A (2001), T, more.", "[2] B (1999).")
    assert (found.helps, found.fails) == ("with ``a`` and b.", "never.")
    assert Docstring.parse("It.\n\nWhen it helps\n-------------\nAlways.").helps == "Always."
    assert Docstring.parse(None) == Docstring()
