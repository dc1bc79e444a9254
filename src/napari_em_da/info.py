"""What a bug report needs: versions, the device that will be used and why, and the catalogs found."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from typing import Any

from napari_em_da.catalog import EXTENSION_VARIABLE, Catalog

DISTRIBUTIONS = (
    "napari-em-da",
    "torch",
    "numpy",
    "scipy",
    "scikit-image",
    "numba",
    "dask",
    "zarr",
    "tifffile",
    "napari",
)
QT_BINDINGS = ("PyQt6", "PySide6", "PyQt5", "PySide2")
CATALOGS = {"networks": "models", "methods": "methods", "weight maps": "weights", "metrics": "metrics", "readers": "io"}


def collect() -> dict[str, Any]:
    """Collect versions, machine and catalogs.

    Returns
    -------
    dict
        ``versions``: distribution name to version, or ``None`` where it is not installed; ``machine``: device, the
        reason for it, cores, memory in GiB and bfloat16 support; ``catalogs``: kind to entry names; ``extensions``:
        the folders that add entries. JSON-serialisable.

    Notes
    -----
    Versions come from the installed metadata, so that neither napari nor Qt is loaded to name them.
    """
    from napari_em_da import __version__
    from napari_em_da.device import describe

    versions: dict[str, str | None] = {"python": platform.python_version()}
    versions |= {name: installed(name) for name in DISTRIBUTIONS}
    versions["napari-em-da"] = __version__
    versions |= {name: found for name in QT_BINDINGS if (found := installed(name))}
    machine = describe()
    versions["torch"] = machine.pop("torch", versions["torch"])  # with its build, for example +cu128
    folders = [folder for folder in os.environ.get(EXTENSION_VARIABLE, "").split(os.pathsep) if folder]
    return {
        "versions": versions,
        "machine": {"system": platform.platform(), **machine},
        "catalogs": {kind: list(entries(package)) for kind, package in CATALOGS.items()},
        "extensions": folders,
    }


def text(found: dict[str, Any]) -> str:
    """Lay out what ``collect`` found, one fact per line, for reading or pasting into a bug report."""
    lines = []
    for section in ("versions", "machine", "catalogs"):
        lines.append(section)
        width = max(map(len, found[section]), default=0)
        lines += [f"  {name:<{width}}  {plain(value)}" for name, value in found[section].items()]
    lines.append(f"extensions  {plain(found['extensions'])}")
    return "\n".join(lines)


def plain(value: Any) -> str:
    """Return a value as words: lists with commas, and a word where there is nothing."""
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "none"
    return "not installed" if value is None else str(value)


def installed(distribution: str) -> str | None:
    """Return the installed version of a distribution, or None."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def entries(package: str) -> tuple[str, ...]:
    """Return the names in one of our catalogs; no entry is imported."""
    names: Catalog[Any] = Catalog(f"napari_em_da.{package}", "")
    return names.names()


__all__ = ["collect", "text"]
