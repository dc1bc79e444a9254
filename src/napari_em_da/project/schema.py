"""The versions of ``project.json`` and the steps from each to the next."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from napari_em_da import __version__
from napari_em_da.errors import ConfigError, DataError

FILE = "project.json"

Data = dict[str, Any]

MIGRATIONS: tuple[Callable[[Data], Data], ...] = ()
"""Step ``i`` turns the content of schema ``i + 1`` into that of ``i + 2``; append one with each change."""


def current() -> int:
    """Return the schema that this version writes."""
    return len(MIGRATIONS) + 1


def parse(text: bytes, path: Path) -> Data:
    """Return the content of a ``project.json`` of this schema or an older one.

    Raises
    ------
    DataError
        If it is no project's JSON.
    ConfigError
        If a later version of this package wrote it.
    """
    try:
        data: Data = json.loads(text)
    except ValueError as error:  # UnicodeDecodeError too
        raise DataError(
            f"{path} is damaged: {error}. Put back a copy of it; the rest of the folder is whole."
        ) from None
    schema = data.get("schema") if isinstance(data, dict) else None
    if not isinstance(schema, int) or isinstance(schema, bool) or schema < 1:
        raise DataError(f"{path} says no schema number, so it is no project of this package; choose another folder.")
    if schema > current():
        raise ConfigError(
            f"{path.parent} was written by napari-em-da {data.get('version', '(unknown)')} (schema {schema}); this is "
            f"{__version__} (schema {current()}). Update napari-em-da to open it; nothing was changed."
        )
    for key, kind in (("pages", dict), ("layers", list)):
        if not isinstance(data.setdefault(key, kind()), kind):
            raise DataError(f"{path}: {key!r} is no {kind.__name__}. Put back a copy of the file.")
    return data


def migrate(data: Data) -> Data:
    """Return the content in this version's schema."""
    for step in MIGRATIONS[data["schema"] - 1 :]:
        number = data["schema"] + 1
        data = {**step(data), "schema": number}
    return data
