"""A job as a Python script, laid out as a formatter would."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from napari_em_da import config as configs
from napari_em_da.config import Config
from napari_em_da.copying._values import WeightMapConfig, meant, same_job, written
from napari_em_da.errors import ConfigError

WIDTH = 100
FUNCTIONS = {"postprocess": "run_chain"}  # where the function is called otherwise than its verb


@dataclass(frozen=True)
class Group:
    """Something in brackets; each item has a prefix such as ``steps=``."""

    opening: str
    items: tuple[tuple[str, Node], ...]
    closing: str
    single_comma: bool = False  # (1,)


Node = str | Group


def script(call: str, config: Config) -> str:
    """Return the script; its config was read back and is the given one.

    Raises
    ------
    ConfigError
        If the options hold something that is no plain value.
    """
    node = expression(config, meant(call, config))
    text = layout("config = ", node, 0)
    if not same_job(call, read_back(text), config):
        raise ConfigError(f"These settings of {call} cannot be written as Python; use plain values as options.")
    function = FUNCTIONS.get(call, call)
    return f"import napari_em_da as em\n\n{text}\nresult = em.run(em.{function}(config))\nprint(result)\n"


def weight_map_script(config: WeightMapConfig) -> str:
    """Return a script that computes a weight map, and saves it where there is an output."""
    arguments: list[tuple[str, Node]] = [("", "labels.data" if config.output else "labels.read()")]
    arguments.append(("", atom(config.kind)))
    for name, place, value in written(config, frozenset()):
        if name in {"floor", "scale"}:
            arguments.append((f"{place}=", atom(value)))
        elif name == "ignore_label":
            arguments.append(("ignore_index=", atom(value)))
    arguments += [(f"{name}=", expression(value, frozenset())) for name, value in config.params.items()]
    lines = [
        "import napari_em_da as em\n",
        layout("labels = ", call_of("em.Volume.open", [("", atom(config.labels))]), 0),
        layout("weights = ", call_of("em.weight_map", arguments), 0),
    ]
    if config.output is None:
        lines.append("print(weights.shape, weights.min(), weights.mean(), weights.max())\n")
    else:
        volume = flat(call_of("em.Volume", [("", "weights"), ("", "labels.voxel_nm"), ("", atom(config.output.stem))]))
        where: list[tuple[str, Node]] = [("", atom(config.output))]
        lines.append(layout(f"{volume}.", call_of("save", where + [("overwrite=", "True")] * config.overwrite), 0))
        lines.append(layout("", call_of("print", where), 0) + "\n")
    return "\n".join(lines)


def read_back(text: str) -> Any:
    """Return the config that a script's assignment makes; the public names are those of the configs' own module."""
    names: dict[str, Any] = {"em": configs}
    try:
        exec(compile(text, "<copied>", "exec"), names)
    except (AttributeError, NameError, SyntaxError, TypeError, ValueError):
        return None
    return names["config"]


def expression(value: Any, meant: frozenset[str], place: str = "") -> Node:
    """Return a value as Python: configs as their constructors with what has to be written."""
    if isinstance(value, BaseModel):
        prefix = f"{place}." if place else ""
        fields = [(f"{name}=", expression(item, meant, at)) for name, at, item in written(value, meant, prefix)]
        return call_of(f"em.{type(value).__name__}", fields)
    if isinstance(value, Mapping):
        pairs = [(f"{flat(expression(key, meant))}: ", expression(item, meant)) for key, item in value.items()]
        return Group("{", tuple(pairs), "}")
    if isinstance(value, tuple):
        return Group("(", tuple(("", expression(item, meant)) for item in value), ")", single_comma=len(value) == 1)
    if isinstance(value, list):
        return Group("[", tuple(("", expression(item, meant)) for item in value), "]")
    return atom(value)


def call_of(name: str, arguments: Iterable[tuple[str, Node]]) -> Group:
    """Return a call."""
    return Group(f"{name}(", tuple(arguments), ")")


def atom(value: Any) -> str:
    """Return a plain value; text in double quotes where it needs no escape for them."""
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return f'float("{value}")'
    text = repr(str(value) if isinstance(value, Path) else value)
    return f'"{text[1:-1]}"' if text.startswith("'") and '"' not in text else text


def flat(node: Node) -> str:
    """Return a node on one line."""
    if isinstance(node, str):
        return node
    inner = ", ".join(f"{prefix}{flat(item)}" for prefix, item in node.items)
    return f"{node.opening}{inner}{',' * node.single_comma}{node.closing}"


def layout(prefix: str, node: Node, indent: int, end: str = "") -> str:
    """Return a node on one line where it fits, else one line per item."""
    line = f"{' ' * indent}{prefix}{flat(node)}{end}"
    if isinstance(node, str) or len(line) <= WIDTH or not node.items:
        return line
    items = [layout(name, item, indent + 4, ",") for name, item in node.items]
    return "\n".join([f"{' ' * indent}{prefix}{node.opening}", *items, f"{' ' * indent}{node.closing}{end}"])
