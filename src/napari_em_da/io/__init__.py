"""Read and write volumes: one file per format, found by the catalog, and the one atomic way to write them all.

A module of this package defines ``READER`` and, if it can write, ``WRITER``.
"""

from __future__ import annotations

import importlib
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from napari_em_da.catalog import Catalog
from napari_em_da.errors import DataError, ResourceError
from napari_em_da.events import Progress
from napari_em_da.volume import Volume


class Reader(Protocol):
    """How one format is opened."""

    def cannot_read(self, path: Path) -> str | None:
        """Return why this path is none of this reader's business, or None; must be quick and never raise."""

    def read(self, path: Path) -> Volume:
        """Open lazily; a DataError names the file and what is wrong with it."""


class Writer(Protocol):
    """How one format is written; it neither checks nor cleans up, ``write`` does that for all."""

    suffixes: tuple[str, ...]

    def size(self, volume: Volume) -> int:
        """Return about how many bytes the file will take."""

    def steps(self, volume: Volume, path: Path) -> Iterator[int]:
        """Write to a path that does not exist, and yield now and then how many sections are written."""


READERS: Catalog[Reader] = Catalog(__name__, "READER")


def writers() -> dict[str, Writer]:
    """Return the writer of each suffix (lower case, with its dot)."""
    modules = [importlib.import_module(f"{__name__}.{name}") for name in READERS.names()]
    found: list[Writer] = [module.WRITER for module in modules if hasattr(module, "WRITER")]
    return {suffix: writer for writer in found for suffix in writer.suffixes}


def read(path: Path) -> Volume:
    """Open a file or a folder of sections lazily with the first reader that knows it.

    Raises
    ------
    DataError
        If the path does not exist, no reader knows it, it is damaged, or it is not a stack of sections.
    """
    if not path.exists():
        raise DataError(f"{path} does not exist.")
    if not os.access(path, os.R_OK):
        raise DataError(f"{path} cannot be read: permission denied.")
    reasons = []
    for name in READERS.names():
        reason = READERS[name].cannot_read(path)
        if reason is None:
            return READERS[name].read(path)
        reasons.append(f"{name}: {reason}")
    raise DataError(f"No reader can open {path} ({'; '.join(reasons)}).")


def write(volume: Volume, path: str | Path, *, overwrite: bool = False) -> Path:
    """Write a volume with its voxel size; the format follows from the suffix.

    The path holds the whole volume afterwards, or what it held before: not even a cancelled job or a full disk
    leaves a part of a file behind.

    Raises
    ------
    DataError
        If the path exists and ``overwrite`` is false, its folder is missing or read-only, or the suffix is unknown.
    ResourceError
        If the disk has too little space.
    """
    path = Path(path).expanduser()
    for _ in writing(volume, path, overwrite=overwrite):
        pass
    return path


def writing(volume: Volume, path: Path, *, overwrite: bool = False) -> Iterator[Progress]:
    """Write as ``write`` does, and yield progress: a job that writes large volumes can be watched and cancelled."""
    writer = check_output(path, overwrite=overwrite)
    with replacing(path, overwrite=overwrite) as temporary:
        check_space(path.parent, writer.size(volume), path.name)
        for done in writer.steps(volume, temporary):
            yield Progress(done, volume.shape[0], "sections", f"writing {path.name}")


def check_output(path: Path, *, overwrite: bool = False) -> Writer:
    """Return the writer of a path, or raise what ``write`` would, before any work is done for it."""
    known = writers()
    writer = known.get(path.suffix.lower())
    if writer is None:
        raise DataError(f"No writer for {path.suffix or 'a name without suffix'!r} ({path}); use {', '.join(known)}.")
    check_place(path, overwrite=overwrite)
    if path.is_dir() and any(path.iterdir()) and all(READERS[name].cannot_read(path) for name in READERS.names()):
        raise DataError(f"{path} is a folder but not a volume, so it will not be replaced; choose another name.")
    return writer


def working_store(output: Path) -> Path:
    """Return the folder of finished blocks that a segmentation keeps beside its output until that is whole."""
    return output.with_name(f".{output.name}.working")


def check_place(path: Path, *, overwrite: bool = False) -> None:
    """Raise a DataError if the path exists (and may not be replaced), or its folder is missing or read-only."""
    if path.exists() and not overwrite:
        raise DataError(f"{path} exists already; choose another name or allow overwriting.")
    if not path.parent.is_dir():
        raise DataError(f"The folder {path.parent} does not exist; create it first.")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise DataError(f"The folder {path.parent} is not writable; choose another one.")


@contextmanager
def replacing(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Give a temporary sibling to write to, which takes the place of ``path`` when the block ends well.

    When the block raises, cancellation included, the sibling is removed and ``path`` stays as it was.

    Raises
    ------
    DataError
        If the path exists and ``overwrite`` is false, or its folder is missing or read-only.
    """
    check_place(path, overwrite=overwrite)
    temporary = path.with_name(f".{path.stem}.{uuid.uuid4().hex[:8]}{path.suffix}")
    try:
        yield temporary
        if path.is_dir() and not temporary.is_dir():
            raise DataError(f"{path} is a folder; choose another name.")
        _flush(temporary)
        _swap(temporary, path)
    finally:
        _remove(temporary)


def check_space(folder: Path, needed: int, what: str) -> None:
    """Raise a ResourceError if the disk of ``folder`` has less than ``needed`` bytes free."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise ResourceError(
            f"{what} needs about {needed / 1e9:.2f} GB, but {folder} has {free / 1e9:.2f} GB free; "
            "free some space or write elsewhere."
        )


def _flush(path: Path) -> None:
    """Make sure that the bytes are on disk before the name is."""
    for file in [path] if path.is_file() else [f for f in path.rglob("*") if f.is_file()]:
        with file.open("r+b") as handle:
            os.fsync(handle.fileno())


def _swap(temporary: Path, path: Path) -> None:
    if not path.is_dir():
        os.replace(temporary, path)
        return
    old = temporary.with_suffix(".old")  # a folder that is not empty cannot be replaced in one step
    os.replace(path, old)
    try:
        os.replace(temporary, path)
    except BaseException:
        os.replace(old, path)
        raise
    _remove(old)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


__all__: list[str] = [
    "READERS",
    "Reader",
    "Writer",
    "check_output",
    "check_place",
    "check_space",
    "read",
    "replacing",
    "write",
    "writers",
    "writing",
]
