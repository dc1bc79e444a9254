"""Files written whole or not at all, names that every file system takes, what to say when the disk is full."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from napari_em_da.errors import ResourceError

FULL = (errno.ENOSPC, errno.EDQUOT)
PARTIAL = ".partial"
MANY = 64  # files; above this one sync of the whole system is quicker than one per file
RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))}  # on Windows


def replace_file(path: Path, data: bytes, *, sync: bool = True) -> None:
    """Replace a file in one step: after a crash it holds the old bytes or the new ones.

    ``sync`` puts the bytes on the disk before their name, so that a power cut cannot leave an empty file either.
    An OSError leaves the old file and no other one.
    """
    temporary = path.with_name(f".{path.name}{PARTIAL}")
    try:
        write_bytes(temporary, data, sync=sync)
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    if sync:
        sync_folder(path.parent)


def write_bytes(path: Path, data: bytes, *, sync: bool) -> None:
    """Write a file that nobody reads yet."""
    with path.open("wb") as file:
        file.write(data)
        if sync:
            file.flush()
            os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Put the names in a folder on the disk, where the system can."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_files(paths: Iterable[Path]) -> None:
    """Put the bytes and the names of several files on the disk."""
    paths = list(paths)
    if len(paths) > MANY and hasattr(os, "sync"):
        os.sync()
        return
    for path in paths:
        with path.open("r+b") as file:
            os.fsync(file.fileno())
    for folder in {path.parent for path in paths}:
        sync_folder(folder)


@contextmanager
def saving(path: Path, needed: int, kept: str) -> Iterator[None]:
    """Turn what the system says about a failed write into a sentence with numbers and the remedy.

    Parameters
    ----------
    path : Path
        What is written.
    needed : int
        Bytes.
    kept : str
        What is still there, as the end of the sentence.

    Raises
    ------
    ResourceError
        If the disk is full or the file cannot be written.
    """
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise full(path, needed, kept) from error
        raise ResourceError(
            f"Cannot write {path}: {error.strerror or error}. Check that the folder is there and that you may write "
            f"to it, then save again; {kept}."
        ) from error


def check_space(path: Path, needed: int, kept: str) -> None:
    """Raise a ResourceError if the disk of ``path`` has less than ``needed`` bytes free."""
    if free_bytes(path) < needed:
        raise full(path, needed, kept)


def full(path: Path, needed: int, kept: str) -> ResourceError:
    """Return what to say when the disk has no room for ``path``."""
    return ResourceError(
        f"The disk is full: {path.name} needs up to {_size(needed)}, {path.parent} has {_size(free_bytes(path))} free. "
        f"Free some space, then save again; {kept}."
    )


def free_bytes(path: Path) -> int:
    """Return the bytes free where ``path`` is or will be."""
    return shutil.disk_usage(next(place for place in (path, *path.parents) if place.exists())).free


def free_path(folder: Path, name: str, suffix: str = "") -> Path:
    """Return a path in ``folder``, named after ``name``, that does not exist; ``-2``, ``-3``, … where it is taken."""
    stem = file_name(name)
    taken = {path.name.lower() for path in folder.iterdir()} if folder.is_dir() else set()  # some ignore the case
    number = 1
    while (candidate := f"{stem}{'' if number == 1 else f'-{number}'}{suffix}").lower() in taken:
        number += 1
    return folder / candidate


def file_name(name: str) -> str:
    """Return a name that every file system takes: letters, digits, ``-``, ``_`` and inner dots, 60 at most."""
    text = re.sub(r"[^\w.-]+", "-", name).strip(".-")[:60].rstrip(".-") or "unnamed"
    return f"{text}-" if text.lower().split(".")[0] in RESERVED else text


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e8 else f"{count / 1e6:.3f} MB"
