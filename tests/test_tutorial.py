"""The pages written for users: their pictures and links exist, their commands are commands, and no page is left out."""

from __future__ import annotations

import ast
import importlib.util
import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TUTORIAL = ROOT / "docs" / "tutorial.md"
STARTED = ROOT / "docs" / "getting_started.md"
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
WRITTEN = [TUTORIAL, STARTED, ROOT / "README.md"]
MOST_BYTES = 3_000_000  # of all pictures of the tutorial


def blocks(page: Path, language: str) -> list[str]:
    """Return the code of a page in one language."""
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


def guide_pages() -> list[str]:
    """Read the names of the guide's pages from its source: it needs a window to be imported."""
    source = (ROOT / "src" / "napari_em_da" / "_napari" / "guide.py").read_text(encoding="utf-8")
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "PAGES":
            return list(ast.literal_eval(node.value))
    raise AssertionError("guide.py has no PAGES")


def sections() -> dict[str, str]:
    """Return {page: text} of the tutorial's numbered sections, in their order."""
    parts = re.split(r"^## (\d+) (\w+)$", TUTORIAL.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert [int(number) for number in parts[1::3]] == list(range(1, len(parts) // 3 + 1))
    return {name.lower(): text.partition("\n## ")[0] for name, text in zip(parts[2::3], parts[3::3], strict=True)}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_pictures_and_links_exist(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)#\s]+)", text):
        if not re.match(r"[a-z]+:", link):
            assert (page.parent / link).exists(), link


def test_every_page_of_the_guide_has_a_section_with_its_picture() -> None:
    found = sections()
    assert list(found) == guide_pages()
    for number, (name, text) in enumerate(found.items(), start=1):
        assert f"](images/tutorial/{number:02d}-{name}.png)" in text, name
        assert "**If it looks wrong**" in text or name == "correct", name


def test_pictures_are_small_and_all_are_shown() -> None:
    pictures = sorted((ROOT / "docs" / "images" / "tutorial").glob("*"))
    assert sum(picture.stat().st_size for picture in pictures) < MOST_BYTES
    shown = set(re.findall(r"\]\(images/tutorial/([^)]+)\)", TUTORIAL.read_text(encoding="utf-8")))
    assert {picture.name for picture in pictures} == shown
    for picture in pictures:
        header = picture.read_bytes()[:26]
        assert header[:8] == b"\x89PNG\r\n\x1a\n" and header[25] == 3, f"{picture.name} is no PNG with a palette"


def test_the_script_takes_the_pictures_that_are_shown() -> None:
    script = (ROOT / "scripts" / "tutorial.py").read_text(encoding="utf-8")
    taken = set(re.findall(r'\.picture\("([^"]+)"', script))
    assert {f"{name}.png" for name in taken} == {path.name for path in (ROOT / "docs/images/tutorial").glob("*")}


def test_the_picture_of_the_readme_is_one_of_them() -> None:
    (picture,) = re.findall(r"^!\[.*\]\((.*)\)$", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert picture.startswith("docs/images/tutorial/")


@pytest.mark.parametrize("page", WRITTEN, ids=lambda path: path.stem)
def test_commands_are_commands(page: Path) -> None:
    from napari_em_da.cli.app import app

    lines = [line.partition("#")[0] for block in blocks(page, "bash") for line in block.splitlines()]
    commands = [shlex.split(line)[1:] for line in lines if line.startswith("napari-em-da ")]
    assert commands
    for command in commands:
        app.parse_args(command, exit_on_error=False, print_error=False)


@pytest.mark.parametrize("page", [TUTORIAL, ROOT / "README.md"], ids=lambda path: path.stem)
def test_scripts_name_what_there_is(page: Path) -> None:
    import napari_em_da as em

    (script,) = blocks(page, "python")
    tree = ast.parse(script)
    configs = 0
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr.endswith("Config"):
            code = compile(ast.Expression(node), page.name, "eval")
            eval(code, {"em": em})  # the page's own line: a wrong field is an error
            configs += 1
    assert configs >= 2


def test_the_menu_leads_where_the_pages_say() -> None:
    yaml = pytest.importorskip("yaml")
    text = (ROOT / "src" / "napari_em_da" / "napari.yaml").read_text(encoding="utf-8")
    manifest = yaml.safe_load(text)
    name, widgets = manifest["display_name"], manifest["contributions"]["widgets"]
    started = " ".join(STARTED.read_text(encoding="utf-8").split())
    assert f"*Plugins > {name} > {widgets[0]['display_name']} ({name})*" in started
    sample = manifest["contributions"]["sample_data"][0]["display_name"]
    assert f"*File > Open Sample > {name} > {sample}*" in started


def test_the_script_of_the_pictures_can_be_read() -> None:
    spec = importlib.util.spec_from_file_location("tutorial_window", ROOT / "scripts" / "tutorial_window.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)  # needs neither Qt nor napari before a window is opened
    assert module.SIZE == (1600, 1000)
    assert {size for size, _ in module.CHECKED} == {(1600, 1000), (1280, 720)}
    assert {theme for _, theme in module.CHECKED} == {"dark", "light"}
