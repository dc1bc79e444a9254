"""A job as text: the script, or the shell command, that does exactly what a page would do."""

from __future__ import annotations

from pathlib import Path

from napari_em_da.catalog import unknown
from napari_em_da.config import Config
from napari_em_da.copying._command import command
from napari_em_da.copying._python import script, weight_map_script
from napari_em_da.copying._values import CONFIG_TYPES, WeightMapConfig, located
from napari_em_da.errors import ConfigError

CALLS = tuple(CONFIG_TYPES)  # the workflows that can be copied


def as_python(call: str, config: Config, relative_to: Path | None = None) -> str:
    """Return a complete script that runs ``call`` with ``config``.

    Parameters
    ----------
    call : str
        The workflow, one of ``CALLS``; ``postprocess`` is ``em.run_chain``.
    config : the config of that workflow
        A `WeightMapConfig` for ``weight_map``.
    relative_to : Path, optional
        Folder that the script will be started in: paths below it are written relative to it. Absolute if absent.

    Returns
    -------
    str
        Only what differs from the defaults, or was set where being set means something, is written.

    Raises
    ------
    ConfigError
        For an unknown call, a config of another one, or options that are no plain values.
    """
    config = located(checked(call, config), relative_to)
    return weight_map_script(config) if isinstance(config, WeightMapConfig) else script(call, config)


def as_command(call: str, config: Config, relative_to: Path | None = None) -> str:
    """Return the command that runs ``call`` with ``config``, for a POSIX shell such as bash or zsh.

    A job that the options of its verb cannot express, and every chain, is first written into a YAML file of its own
    beside the folder or file that the job creates. What is returned was read back by the command line's own parser.

    Parameters
    ----------
    call, config, relative_to
        As in `as_python`.

    Raises
    ------
    ConfigError
        As `as_python`; and where no command can say what the config says.
    """
    return command(call, located(checked(call, config), relative_to))


def checked(call: str, config: Config) -> Config:
    """Return the config; a ConfigError says that it is not the call's."""
    if call not in CONFIG_TYPES:
        raise ConfigError(unknown("call", call, CALLS))
    if not isinstance(config, CONFIG_TYPES[call]):
        raise ConfigError(f"{call} takes a {CONFIG_TYPES[call].__name__}, not a {type(config).__name__}.")
    return config


__all__ = ["CALLS", "WeightMapConfig", "as_command", "as_python"]
