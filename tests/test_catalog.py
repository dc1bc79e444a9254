from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from napari_em_da.catalog import EXTENSION_VARIABLE, Catalog, unknown
from napari_em_da.errors import ConfigError


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package of three entries, one private file and one file that fails on import."""
    folder = tmp_path / "some_lab_package" / "recipes"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").write_text("")
    (folder / "__init__.py").write_text("")
    (folder / "bread.py").write_text('"""Flour, water and time.\n\nMore about it."""\n\nRECIPE = "knead"\n')
    (folder / "broken.py").write_text('"""Never works."""\n\nraise RuntimeError("imported too early")\n')
    (folder / "empty.py").write_text("")
    (folder / "_base.py").write_text("RECIPE = None\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield folder
    for name in [n for n in sys.modules if n.startswith("some_lab_package")]:
        del sys.modules[name]


@pytest.fixture
def recipes(shelf: Path) -> Catalog[str]:
    return Catalog("some_lab_package.recipes", "RECIPE")


def test_names_are_the_public_files_and_nothing_is_imported(recipes: Catalog[str]) -> None:
    assert recipes.names() == tuple(recipes) == ("bread", "broken", "empty")
    assert "bread" in recipes
    assert "_base" not in recipes
    assert "some_lab_package.recipes.broken" not in sys.modules


def test_an_entry_is_imported_on_use(recipes: Catalog[str]) -> None:
    assert recipes["bread"] == "knead"
    assert "some_lab_package.recipes.bread" in sys.modules


def test_summary_is_the_first_line_of_the_docstring(recipes: Catalog[str]) -> None:
    assert recipes.summary("bread") == "Flour, water and time."
    assert recipes.summary("broken") == "Never works."


def test_unknown_name_offers_the_nearest(recipes: Catalog[str]) -> None:
    with pytest.raises(ConfigError, match=r"'braed'.*Did you mean 'bread'\?.*bread, broken, empty"):
        recipes["braed"]
    with pytest.raises(ConfigError, match="Unknown recipes entry '_base'"):
        recipes.check("_base")


def test_nothing_near_lists_all_names() -> None:
    text = unknown("method", "zzz", ["mmd", "coral"])
    assert "Did you mean" not in text
    assert "mmd, coral" in text


def test_a_file_without_its_constant_says_what_to_add(recipes: Catalog[str]) -> None:
    with pytest.raises(ConfigError, match=r"empty\.py defines no RECIPE"):
        recipes["empty"]


def test_extension_folder_adds_entries(recipes: Catalog[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "soup" not in recipes
    mine = tmp_path / "mine" / "recipes"
    mine.mkdir(parents=True)
    (mine / "soup.py").write_text('"""Water and patience."""\n\nRECIPE = "boil"\n')
    monkeypatch.setenv(EXTENSION_VARIABLE, os.pathsep.join([str(tmp_path / "absent"), str(tmp_path / "mine")]))
    importlib.invalidate_caches()
    assert "soup" in recipes
    assert recipes["soup"] == "boil"
    assert recipes.summary("soup") == "Water and patience."
    assert recipes["bread"] == "knead"
