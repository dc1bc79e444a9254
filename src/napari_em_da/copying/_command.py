"""A job as a shell command: options where they can say it, else a YAML file and the verb that reads it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from itertools import chain as joined
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from napari_em_da.config import ChainConfig, Config, parse
from napari_em_da.copying._options import Words, options_of, positional_of, shown
from napari_em_da.copying._values import CONFIG_TYPES, WeightMapConfig, meant, nested, same_job
from napari_em_da.errors import ConfigError

PROGRAM = "napari-em-da"
WIDTH = 100
VERBS = {"weight_map": "weights"}  # where the verb is called otherwise
WHOLE = ("train", "adapt", "finetune")  # verbs that take a whole job as YAML


def command(call: str, config: Config) -> str:
    """Return the command; the command line's own parser read it back as the given config.

    Raises
    ------
    ConfigError
        If no command can say it.
    """
    if isinstance(config, WeightMapConfig) and config.output is None:
        raise ConfigError("The command writes a weight map into a file; give an output, or copy it as Python.")
    try:
        text = with_options(call, config) or (with_yaml(call, config) if call in WHOLE else None)
    except yaml.YAMLError:  # a value that YAML does not know
        text = None
    if text is None:
        raise ConfigError(f"These settings of {call} cannot be written as a command; copy them as Python instead.")
    return text


def with_options(call: str, config: Config) -> str | None:
    """Return the command with options, after the document that writes its chain; none if it means another job."""
    file, steps = own_file(call, config), chain_of(config)
    positional, options = positional_of(call, config), options_of(call, config)
    if steps is not None:
        options.insert(0, ["--chain", shown(file)])
    if not same_job(call, read_back(call, [*positional, *joined.from_iterable(options)], steps), config):
        return None
    return ("" if steps is None else document(file, steps)) + shell(call, positional, options)


def with_yaml(call: str, config: Config) -> str | None:
    """Return the document that writes the whole job and the command that reads it; none if it means another job."""
    file, values = own_file(call, config), nested(config, meant(call, config))
    if not same_job(call, from_yaml(call, values), config):
        return None
    made = "" if file.parent == Path() else f"mkdir -p {shlex.quote(shown(file.parent))} && \\\n"
    return f"{made}{document(file, values)}{shell(call, [], [['--config', shown(file)]])}"


def own_file(call: str, config: Config) -> Path:
    """Return where the YAML of a job goes: beside what the job creates, under a name that says whose it is."""
    creates = next((getattr(config, name) for name in ("out", "output", "run") if hasattr(config, name)), None)
    goal = Path(call) if creates is None else Path(creates)
    return goal.with_name(f"{goal.name}.{call}.yaml")


def chain_of(config: Config) -> dict[str, Any] | None:
    """Return the chain as its YAML file holds it, in the short form; none for a config without one."""
    chain = getattr(config, "chain", None)
    if not isinstance(chain, ChainConfig):
        return None
    steps = [nested(step, frozenset()) for step in chain.steps]
    return {"steps": [{step["name"]: step["options"]} if "options" in step else step["name"] for step in steps]}


def read_back(call: str, words: Sequence[str], steps: Mapping[str, Any] | None) -> Config | None:
    """Return the config that a command means, as the command line reads it; none if it refuses the command."""
    from cyclopts import CycloptsError

    from napari_em_da.cli import configs
    from napari_em_da.cli.values import options

    try:
        verb, given = configs.read([VERBS.get(call, call), *words])
        if verb != VERBS.get(call, call):
            return None
        if call == "weight_map":
            return WeightMapConfig(**configs.named(WeightMapConfig, given), params=options(given["option"]))
        if steps is not None:
            given["chain"] = parse(ChainConfig, yaml.safe_load(as_yaml(steps)))
        return configs.CONFIGS[call](given)
    except (CycloptsError, ConfigError, ValidationError, yaml.YAMLError):
        return None


def from_yaml(call: str, values: Mapping[str, Any]) -> Config | None:
    """Return the config that a YAML file with these values means; none if it is refused."""
    try:
        return parse(CONFIG_TYPES[call], yaml.safe_load(as_yaml(values)))
    except (ConfigError, yaml.YAMLError):
        return None


def as_yaml(values: Mapping[str, Any]) -> str:
    """Return YAML with short lists on one line."""
    text: str = yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True, default_flow_style=None)
    return text


def document(file: Path, values: Mapping[str, Any]) -> str:
    """Return the here-document that writes a YAML file."""
    text, end = as_yaml(values), "END"
    while end in text.splitlines():
        end += "_"
    return f"cat > {shlex.quote(shown(file))} <<'{end}'\n{text}{end}\n"


def shell(call: str, positional: Sequence[str], options: Sequence[Words]) -> str:
    """Return one command, quoted, on one line where it fits, else one line per option."""
    first = [PROGRAM, VERBS.get(call, call), *positional]
    lines = [" ".join(map(shlex.quote, words)) for words in (first, *options)]
    one = " ".join(lines)
    return one if len(one) <= WIDTH else " \\\n    ".join(lines)
