"""A folder of modules as a catalog: one file is one entry, and its name is the file's name."""

from __future__ import annotations

import difflib
import importlib
import os
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from typing import Generic, TypeVar

from napari_em_da.errors import ConfigError

EXTENSION_VARIABLE = "NAPARI_EM_DA_EXTENSIONS"

T = TypeVar("T")


class Catalog(Generic[T]):
    """The public modules of one package, found without importing them.

    Parameters
    ----------
    package : str
        Dotted name, for example ``"napari_em_da.methods"``.
    constant : str
        The name of the one constant that each module defines, for example ``"METHOD"``.

    Notes
    -----
    A laboratory adds entries of its own without touching the installation: every folder listed in the
    environment variable ``NAPARI_EM_DA_EXTENSIONS`` may hold sub-folders named like the packages
    (``methods/``, ``models/``, …), and their files join the catalog.
    """

    def __init__(self, package: str, constant: str) -> None:
        self.package = package
        self.constant = constant

    def names(self) -> tuple[str, ...]:
        """Names of all entries, sorted; nothing is imported but the package itself."""
        found = {m.name for m in pkgutil.iter_modules(self._search_path()) if not m.name.startswith("_")}
        return tuple(sorted(found))

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __contains__(self, name: object) -> bool:
        return name in self.names()

    def __getitem__(self, name: str) -> T:
        """Import one entry and return its constant.

        Raises
        ------
        ConfigError
            If there is no such entry (the nearest name is offered), or the file lacks its constant.
        """
        self.check(name)
        module = importlib.import_module(f"{self.package}.{name}")
        try:
            entry: T = getattr(module, self.constant)
        except AttributeError:
            raise ConfigError(
                f"{module.__file__} defines no {self.constant}; add one to list it as {name!r}."
            ) from None
        return entry

    def check(self, name: str) -> str:
        """Return ``name`` if it is an entry; raise a ConfigError with the nearest match otherwise."""
        names = self.names()
        if name not in names:
            raise ConfigError(unknown(f"{self.package.rsplit('.', 1)[-1]} entry", name, names))
        return name

    def summary(self, name: str) -> str:
        """First line of the entry's docstring, read from the source without importing it."""
        for finder in self._search_path():
            path = Path(finder) / f"{name}.py"
            if path.is_file():
                text = path.read_text(encoding="utf-8").lstrip()
                return text.strip("\"'").splitlines()[0].strip("\"' ")
        return ""

    def _search_path(self) -> list[str]:
        module = importlib.import_module(self.package)
        path: list[str] = module.__path__  # type: ignore[assignment]
        leaf = self.package.rsplit(".", 1)[-1]
        for root in filter(None, os.environ.get(EXTENSION_VARIABLE, "").split(os.pathsep)):
            folder = str(Path(root) / leaf)
            if folder not in path and Path(folder).is_dir():
                path.append(folder)  # from here on ``import napari_em_da.methods.mine`` just works
        return list(path)


def unknown(what: str, name: str, names: tuple[str, ...] | list[str]) -> str:
    """Error text for an unknown name: the nearest match, then all names."""
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"Unknown {what} {name!r}.{hint} Known: {', '.join(map(str, names)) or 'none'}."


__all__: list[str] = ["EXTENSION_VARIABLE", "Catalog", "unknown"]
