"""Plain JSON values that may hold paths; a path inside the project folder moves with it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from napari_em_da.errors import ConfigError

PATH = "$path"  # a Path, stored as {"$path": text}: relative to the project folder, or absolute
TEXT = "$text"  # a string that is the absolute path of something inside the project folder


def to_json(value: Any, folder: Path, where: str) -> Any:
    """Return ``value`` as JSON holds it.

    Parameters
    ----------
    value : None, bool, int, float, str, Path, and lists, tuples and dicts with text keys of these
        Tuples come back as lists.
    folder : Path
        The project folder, absolute.
    where : str
        What the value is called, for the error.

    Raises
    ------
    ConfigError
        If something in it is none of these, and where.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ConfigError(f"{where} is {value}, which JSON cannot hold; leave it out or use None.")
        return value
    if isinstance(value, Path):
        return {PATH: _inside(value.expanduser(), folder) or str(value.expanduser().absolute())}
    if isinstance(value, str):
        inside = _inside(Path(value), folder) if str(folder) in value and Path(value).is_absolute() else None
        return value if inside is None else {TEXT: inside}
    if isinstance(value, list | tuple):
        return [to_json(item, folder, f"{where}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, Mapping):
        wrong = [key for key in value if not isinstance(key, str) or key in (PATH, TEXT)]
        if wrong:
            raise ConfigError(f"{where} has the key {wrong[0]!r}; keys must be text, other than {PATH} and {TEXT}.")
        return {key: to_json(item, folder, f"{where}.{key}") for key, item in value.items()}
    raise ConfigError(
        f"{where} is a {type(value).__name__}, which cannot be saved in a project; give numbers, text, paths, lists "
        "and dicts (of a config: its model_dump())."
    )


def from_json(value: Any, folder: Path) -> Any:
    """Return what ``to_json`` was given: a fresh copy, with paths under where the project folder is now."""
    if isinstance(value, list):
        return [from_json(item, folder) for item in value]
    if not isinstance(value, dict):
        return value
    if set(value) == {PATH}:
        return folder / value[PATH]  # an absolute path stays what it is
    if set(value) == {TEXT}:
        return str(folder / value[TEXT])
    return {key: from_json(item, folder) for key, item in value.items()}


def dumps(value: Any) -> bytes:
    """Return JSON as the project's files hold it."""
    return (json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _inside(path: Path, folder: Path) -> str | None:
    """Return the path relative to the project folder, if it is inside or the folder itself."""
    absolute = path.absolute()
    for base in (folder, folder.resolve()):  # people reach a folder by links too
        if absolute.is_relative_to(base) and ".." not in absolute.relative_to(base).parts:
            return absolute.relative_to(base).as_posix()
    return None
