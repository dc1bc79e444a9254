"""The house rules of docs/architecture.md, read from the source: arrows point down, heavy imports stay up."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from importlib import metadata
from pathlib import Path

import pytest

import napari_em_da

ROOT = Path(__file__).parents[1]
PACKAGE = "napari_em_da"
SOURCE = ROOT / "src" / PACKAGE

LAYERS = (
    ("errors", "events", "jobs", "catalog", "config", "lazy", "volume"),
    (
        "io",
        "findings",
        "synthetic",
        "_tissue",
        "sample",
        "weights",
        "postprocess",
        "metrics",
        "measurements",
        "proofreading",
    ),
    ("device", "seeding", "models", "losses", "augment", "sampling"),
    ("methods", "training", "inference", "selection", "suggestions"),
    ("workflows", "experiments"),
    ("cli", "info", "copying", "layers", "project", "_napari"),
)
LEVEL = {unit: level for level, units in enumerate(LAYERS) for unit in units}
# A volume opens and saves itself; it finds the readers and writers by name, when it is asked to.
UP_WHEN_CALLED = {("volume", "io")}

QT = {"qtpy", "PyQt5", "PyQt6", "PySide2", "PySide6", "superqt", "magicgui", "vispy", "pytestqt"}
L0_THIRD_PARTY = {"numpy", "pydantic", "yaml"}
LAZY_ONLY_IN_L0 = {"dask"}


@dataclass(frozen=True)
class Import:
    """One imported module: ``unit`` says who imports it, ``inside`` whether only when a function runs."""

    path: Path
    line: int
    name: str
    inside: bool

    @property
    def unit(self) -> str:
        return unit_of(self.path)

    @property
    def top(self) -> str:
        return self.name.split(".")[0]

    @property
    def target(self) -> str | None:
        """The unit of this package that is imported, if any."""
        parts = self.name.split(".")
        if parts[0] != PACKAGE or len(parts) == 1 or parts[1] == "__version__":
            return None
        return napari_em_da._HOME.get(parts[1], parts[1])  # a public name stands for the module it comes from

    def __str__(self) -> str:
        return f"{self.path.relative_to(ROOT)}:{self.line} imports {self.name}"


def unit_of(path: Path) -> str:
    """First part of the path inside the package: ``models``, ``volume``, …, or ``""`` for the package itself."""
    first = path.relative_to(SOURCE).parts[0]
    return "" if first == "__init__.py" else first.removesuffix(".py")


def source_files() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


def trees() -> Iterator[tuple[Path, ast.Module]]:
    for path in source_files():
        yield path, ast.parse(path.read_text(encoding="utf-8"), str(path))


def imports_in(tree: ast.Module, path: Path) -> Iterator[Import]:
    """Yield what really runs: imports for the type checker alone are left out."""

    def visit(node: ast.AST, inside: bool) -> Iterator[Import]:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for child in node.orelse:
                yield from visit(child, inside)
            return
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(path, node.lineno, alias.name, inside)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:  # ``from napari_em_da import io`` imports napari_em_da.io
                name = f"{node.module}.{alias.name}" if node.module == PACKAGE else node.module
                yield Import(path, node.lineno, name, inside)
        inside = inside or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            yield from visit(child, inside)

    yield from visit(tree, inside=False)


@pytest.fixture(scope="module")
def imports() -> list[Import]:
    return [found for path, tree in trees() for found in imports_in(tree, path)]


def report(problems: list[Import]) -> str:
    return "\n".join(map(str, problems))


def test_imports_are_seen_as_they_run() -> None:
    """The reader of imports itself, on a module that has one of each kind."""
    text = f"""
import numpy as np
from typing import TYPE_CHECKING
from {PACKAGE} import volume
if TYPE_CHECKING:
    import torch
else:
    import json
class A:
    import abc
    def f(self):
        from {PACKAGE}.workflows import train
"""
    found = [(i.name, i.inside) for i in imports_in(ast.parse(text), SOURCE / "x.py")]
    assert found == [
        ("numpy", False),
        ("typing", False),
        (f"{PACKAGE}.volume", False),
        ("json", False),
        ("abc", False),
        (f"{PACKAGE}.workflows", True),
    ]


def test_every_module_has_its_layer() -> None:
    units = {unit_of(path) for path in source_files()} - {""}
    assert not units - set(LEVEL), "give these a layer here and in docs/architecture.md"


def test_arrows_point_down(imports: list[Import]) -> None:
    up = [
        i
        for i in imports
        if i.unit and i.target and LEVEL[i.unit] < LEVEL[i.target]
        if not (i.inside and (i.unit, i.target) in UP_WHEN_CALLED)
    ]
    assert not up, report(up)


def test_no_cycles_between_neighbours(imports: list[Import]) -> None:
    graph: dict[str, set[str]] = {}
    for i in imports:
        if i.unit and i.target and i.unit != i.target and not i.inside:
            graph.setdefault(i.unit, set()).add(i.target)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"import cycle: {' -> '.join(error.args[1])}")


def test_the_package_itself_imports_nothing_of_ours(imports: list[Import]) -> None:
    eager = [i for i in imports if i.unit == "" and not i.inside and i.top not in sys.stdlib_module_names]
    assert not eager, report(eager)


def test_qt_only_in_the_window(imports: list[Import]) -> None:
    elsewhere = [i for i in imports if i.top in QT and i.unit != "_napari"]
    assert not elsewhere, report(elsewhere)


def test_napari_only_in_the_window_and_layers(imports: list[Import]) -> None:
    elsewhere = [i for i in imports if i.top == "napari" and i.unit not in {"_napari", "layers"}]
    at_import = [i for i in imports if i.top == "napari" and i.unit == "layers" and not i.inside]
    assert not elsewhere + at_import, report(elsewhere + at_import)


def test_torch_only_from_the_networks_up(imports: list[Import]) -> None:
    below = [i for i in imports if i.top in {"torch", "safetensors"} and i.unit and LEVEL[i.unit] < LEVEL["models"]]
    assert not below, report(below)


def test_the_lowest_layer_is_light(imports: list[Import]) -> None:
    def allowed(i: Import) -> bool:
        light = i.top in sys.stdlib_module_names or i.top in L0_THIRD_PARTY or i.top == PACKAGE
        return light or (i.inside and i.top in LAZY_ONLY_IN_L0)

    heavy = [i for i in imports if LEVEL.get(i.unit) == 0 and not allowed(i)]
    assert not heavy, report(heavy)


def test_distributed_only_in_inference(imports: list[Import]) -> None:
    elsewhere = [i for i in imports if re.match(r"(dask\.)?distributed\b", i.name) and i.unit != "inference"]
    assert not elsewhere, report(elsewhere)


def test_workflows_are_imported_where_they_run(imports: list[Import]) -> None:
    top = len(LAYERS) - 1
    eager = [
        i
        for i in imports
        if LEVEL.get(i.unit) == top and not i.inside and i.target and LEVEL[i.target] in {top - 1, top - 2}
        if i.target != "methods" or i.name != f"{PACKAGE}.methods"  # the catalog lists names without torch
    ]
    assert not eager, report(eager)


def test_no_relative_imports() -> None:
    relative = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.level
    ]
    assert not relative


def test_no_print_no_bare_except_no_assert() -> None:
    problems = []
    for path, tree in trees():
        for node in ast.walk(tree):
            where = f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Assert):
                problems.append(f"{where} asserts: raise one of our errors")
            elif isinstance(node, ast.ExceptHandler) and node.type is None:
                problems.append(f"{where} catches everything: name the exception")
            elif isinstance(node, ast.Name) and node.id == "print" and unit_of(path) != "cli":
                problems.append(f"{where} prints: yield an event")
    assert not problems, "\n".join(problems)


def test_every_dependency_is_declared(imports: list[Import]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [*project["dependencies"], *project["optional-dependencies"]["napari"]]
    declared = {re.split(r"[^\w.-]", line, maxsplit=1)[0].lower() for line in lines}
    providers = metadata.packages_distributions()
    undeclared = [
        i
        for i in imports
        if i.top not in sys.stdlib_module_names and i.top != PACKAGE
        if not declared & {name.lower().replace("_", "-") for name in providers.get(i.top, [i.top])}
    ]
    assert not undeclared, report(undeclared)


def test_no_path_of_the_authors_machine() -> None:
    pattern = re.compile(r"(?<![\w.~}*-])/(?:work|home|root|Users)/\w")
    text_files = (".py", ".md", ".toml", ".yaml", ".yml", ".txt", ".sh", ".json", ".cfg", "Makefile", "run")
    hidden = {".git", ".venv", ".mypy_cache", ".pytest_cache", ".ruff_cache", "build", "dist", "runs"}
    found = [
        f"{path.relative_to(ROOT)}: {match.group()}"
        for path in ROOT.rglob("*")
        if path.name.endswith(text_files) and not hidden & set(path.relative_to(ROOT).parts) and path.is_file()
        for match in pattern.finditer(path.read_text(encoding="utf-8", errors="replace"))
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import napari_em_da", "torch qtpy PyQt6 napari dask scipy numba pydantic cv2 matplotlib"),
        ("import napari_em_da.config, napari_em_da.volume, napari_em_da.jobs", "torch qtpy napari dask scipy numba"),
        ("from napari_em_da import Volume, TrainConfig, run", "torch qtpy napari dask scipy numba"),
        ("from napari_em_da.methods import METHODS; METHODS.names()", "torch qtpy napari scipy"),
        ("from napari_em_da.models import MODELS; MODELS.names()", "torch qtpy napari scipy"),
        ("import napari_em_da.cli", "torch qtpy napari scipy numba matplotlib"),
        ("import napari_em_da.info", "torch qtpy napari scipy numba matplotlib"),
        ("import napari_em_da.layers", "torch qtpy PyQt6 napari matplotlib"),
    ],
)
def test_what_an_import_loads(statement: str, absent: str) -> None:
    code = f"{statement}\nimport sys; print(*sorted(set({absent.split()!r}) & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert out.returncode == 0, out.stderr
    assert not out.stdout.split(), f"{statement} loads {out.stdout.strip()}"


def test_the_docks_open_without_torch() -> None:
    """Neither torch nor a viewer is needed before a job starts (Qt is there already: napari runs)."""
    code = "import napari_em_da._napari, sys; print(*{'torch', 'matplotlib'} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert out.returncode == 0, out.stderr
    assert not out.stdout.split(), f"importing the docks loads {out.stdout.strip()}"
