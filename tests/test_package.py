"""The package as others see it: its public names, its manifest, its metadata and its pins."""

from __future__ import annotations

import ast
import re
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

import napari_em_da as em
from napari_em_da import errors

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "napari_em_da"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_public_names_agree() -> None:
    """The lazy table, ``__all__`` and the imports for the type checker say the same."""
    tree = ast.parse((SOURCE / "__init__.py").read_text(encoding="utf-8"))
    (typed,) = (n for n in tree.body if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING")
    pairs = {alias.name: node.module for node in typed.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert pairs == {name: f"napari_em_da.{module}" for name, module in em._HOME.items()}
    assert sorted(em.__all__) == sorted([*em._HOME, "__version__"])


@pytest.mark.parametrize("name", sorted(em.__all__))
def test_public_name_resolves(name: str) -> None:
    value = getattr(em, name)
    assert value is getattr(em, name)
    assert name in dir(em)
    if name != "__version__":
        assert value.__name__ == name
        assert value.__doc__


def test_unknown_name() -> None:
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        em.trian  # noqa: B018


def test_errors_share_one_base() -> None:
    for name in ("ConfigError", "DataError", "ResourceError", "JobFailed"):
        assert issubclass(getattr(errors, name), errors.EmDaError)


def test_version_is_that_of_the_metadata() -> None:
    assert em.__version__ == metadata.version("napari-em-da")


def test_manifest_at_the_root_is_the_packages() -> None:
    link = ROOT / "napari.yaml"
    assert link.resolve() == (SOURCE / "napari.yaml").resolve()
    assert PROJECT["entry-points"]["napari.manifest"] == {"napari-em-da": "napari_em_da:napari.yaml"}


def test_manifest_is_valid_and_every_command_exists() -> None:
    npe2 = pytest.importorskip("npe2")
    manifest = npe2.PluginManifest.from_file(SOURCE / "napari.yaml")
    assert manifest.name == PROJECT["name"]
    manifest.validate_imports()


def test_manifest_menus_are_open_to_plugins() -> None:
    npe2 = pytest.importorskip("npe2")
    menus = pytest.importorskip("napari._app_model.constants._menus")
    manifest = npe2.PluginManifest.from_file(SOURCE / "napari.yaml")
    known = {item.value for item in menus.MenuId}
    for menu in manifest.contributions.menus:
        assert menu in known
        assert menus.is_menu_contributable(menu)


def test_no_window_toolkit_is_required() -> None:
    everyday = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["napari"]]
    everyday += PROJECT["optional-dependencies"]["all"]
    assert not [line for line in everyday if re.match(r"(?i)py(qt|side)|napari\[", line)]
    assert not [line for line in PROJECT["dependencies"] if re.match(r"(?i)napari|qtpy|magicgui|superqt", line)]
    assert not [line for line in PROJECT["dependencies"] if line.startswith("opencv-python>")]


def test_pins_satisfy_the_bounds() -> None:
    requirements = pytest.importorskip("packaging.requirements")
    pins = dict(
        line.strip().split("==")
        for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
        if line.strip() and not line.startswith("#")
    )
    assert pins["torch"] == "2.13.0"
    lines = PROJECT["dependencies"] + [line for extra in PROJECT["optional-dependencies"].values() for line in extra]
    for requirement in map(requirements.Requirement, lines):
        if requirement.name == PROJECT["name"]:
            continue
        assert requirement.specifier, f"{requirement.name} has no lower bound"
        assert {s.operator for s in requirement.specifier} == {">="}, f"{requirement}: bounds below, pins elsewhere"
        assert requirement.specifier.contains(pins[requirement.name.lower()]), f"{requirement} excludes the pin"
