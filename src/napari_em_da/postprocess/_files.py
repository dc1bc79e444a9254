"""Chains as YAML files; nothing heavy is imported, so that a window can read one at once."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml

from napari_em_da.config import ChainConfig, parse
from napari_em_da.errors import ConfigError

CHAIN = "chain.yaml"  # in a run folder: the chain that belongs to it


def read_chain(path: Path) -> ChainConfig:
    """Read a chain from YAML: ``steps:`` and a list of ``name`` or ``name: {option: value}``; a run folder has its own.

    Raises
    ------
    ConfigError
        If the file is missing, is no YAML, or is not a chain.
    """
    file = path / CHAIN if path.is_dir() else path
    if not file.is_file():
        more = "; put one there with 'tune', or give --chain" if path.is_dir() else ""
        raise ConfigError(f"{file} does not exist{more}.")
    try:
        values: Any = yaml.safe_load(file.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ConfigError(f"{file} is no YAML: {error}") from None
    if isinstance(values, list):
        values = {"steps": values}
    if not isinstance(values, dict):
        raise ConfigError(f"{file} holds no chain; write 'steps:' and a list of steps.")
    return parse(ChainConfig, values, "field of a chain")


def chain_text(chain: ChainConfig) -> list[Any]:
    """Return a chain as plain lists and dictionaries, in the short form that `read_chain` takes."""
    return [{step.name: dict(step.options)} if step.options else step.name for step in chain.steps]


def write_chain(chain: ChainConfig, path: Path) -> None:
    """Write a chain as YAML, atomically."""
    temporary = path.with_name(f".{path.name}.partial")
    temporary.write_text(yaml.safe_dump({"steps": chain_text(chain)}, sort_keys=False), encoding="utf-8")
    os.replace(temporary, path)


__all__ = ["CHAIN", "chain_text", "read_chain", "write_chain"]
