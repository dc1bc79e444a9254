"""What of a config has to be written down, where its files are, and when two configs are the same job."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from operator import is_
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, Field

from napari_em_da.config import (
    AdaptConfig,
    CheckConfig,
    Config,
    CorrectConfig,
    EvaluateConfig,
    FinetuneConfig,
    MeasureConfig,
    PostprocessConfig,
    SegmentConfig,
    TrainConfig,
    TuneConfig,
    WeightConfig,
)


class WeightMapConfig(WeightConfig):
    """The weight map of a label file; its output is a file, or the array alone."""

    labels: Path = Field(description="Label volume")
    kind: str = Field(description="Name in the catalog of weight maps")
    output: Path | None = Field(None, description="Float volume to write; none for the array alone")
    ignore_label: int = Field(255, description="Label value that gets weight 0")
    overwrite: bool = Field(False, description="Replace an output that exists")


CONFIG_TYPES: dict[str, type[Config]] = {
    "check": CheckConfig,
    "train": TrainConfig,
    "adapt": AdaptConfig,
    "finetune": FinetuneConfig,
    "segment": SegmentConfig,
    "evaluate": EvaluateConfig,
    "postprocess": PostprocessConfig,
    "tune": TuneConfig,
    "measure": MeasureConfig,
    "correct": CorrectConfig,
    "weight_map": WeightMapConfig,
}

# Where a value that is set means another thing than the same value by default: the job takes the rest from a run, or
# widens the default. `*` is every field of the section.
MEANT = {
    "train": ("augment.scale",),
    "adapt": ("augment.*", "sampling.*", "training.seed"),
    "finetune": ("augment.*", "sampling.*", "training.*", "ignore_label"),
}


class Written(NamedTuple):
    """One field to write: its name, its place from the top (``training.steps``), and its value."""

    name: str
    place: str
    value: Any


def written(config: BaseModel, meant: frozenset[str], prefix: str = "") -> Iterator[Written]:
    """Yield the fields that have to be written: required, other than the default, or set where that means something.

    Required ones come first.
    """
    fields = sorted(type(config).model_fields.items(), key=lambda pair: not pair[1].is_required())
    for name, field in fields:
        value, place = getattr(config, name), f"{prefix}{name}"
        needed = field.is_required() or place in meant or any(other.startswith(f"{place}.") for other in meant)
        if needed or fields_of(value) != fields_of(field.get_default(call_default_factory=True)):
            yield Written(name, place, value)


def meant(call: str, config: BaseModel) -> frozenset[str]:
    """Return the places that were set where that means something, such as ``training.seed``."""
    found: set[str] = set()
    for place in MEANT.get(call, ()):
        section, _, name = place.rpartition(".")
        owner = getattr(config, section) if section else config
        names = owner.model_fields_set if name == "*" else owner.model_fields_set & {name}
        found |= {f"{section}.{each}" if section else each for each in names}
    if getattr(config, "classes", None) is not None:
        found.discard("ignore_label")  # with classes of its own, a job never takes the run's
    return frozenset(found)


def nested(config: BaseModel, meant: frozenset[str], prefix: str = "") -> dict[str, Any]:
    """Return what has to be written as plain dictionaries, lists and values, as YAML takes them."""

    def plain(value: Any, place: str) -> Any:
        if isinstance(value, BaseModel):
            return nested(value, meant, f"{place}.")
        if isinstance(value, Mapping):
            return {key: plain(item, "") for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [plain(item, "") for item in value]
        return str(value) if isinstance(value, Path) else value

    return {name: plain(value, place) for name, place, value in written(config, meant, prefix)}


def same_job(call: str, one: BaseModel | None, other: BaseModel) -> bool:
    """Whether there are two configs, with equal values in the same order (of classes!) and the same set on purpose."""
    return one is not None and fields_of(one) == fields_of(other) and meant(call, one) == meant(call, other)


def fields_of(value: Any) -> Any:
    """Return a value to compare: tuples and lists are alike, 1 and True and 1.0 are not, and order counts."""
    if isinstance(value, BaseModel):
        return tuple((name, fields_of(getattr(value, name))) for name in type(value).model_fields)
    if isinstance(value, Mapping):
        return tuple((fields_of(key), fields_of(item)) for key, item in value.items())
    if isinstance(value, list | tuple):
        return tuple(fields_of(item) for item in value)
    return ("str", str(value)) if isinstance(value, Path) else (type(value).__name__, repr(value))


def located(config: Config, relative_to: Path | None) -> Config:
    """Return the config with absolute paths, or relative ones below a folder, and with plain values in its options."""
    folder = None if relative_to is None else absolute(relative_to)

    def place(value: Any, in_options: bool = False) -> Any:
        if isinstance(value, BaseModel):
            if in_options:
                return nested(value, frozenset())
            fields = {name: getattr(value, name) for name in type(value).model_fields}
            found = {name: place(item) for name, item in fields.items()}
            # a field that stays as it is must not become a set one
            return value.model_copy(update={name: item for name, item in found.items() if item is not fields[name]})
        if isinstance(value, Path):
            return str(value) if in_options else below(absolute(value), folder)
        if isinstance(value, dict):
            items = {key: place(item, True) for key, item in value.items()}
            return value if all(items[key] is value[key] for key in value) else items
        if isinstance(value, list | tuple):
            parts = [place(item, in_options) for item in value]
            return value if all(map(is_, parts, value)) else type(value)(parts)
        return value.item() if type(value).__module__ == "numpy" and getattr(value, "ndim", 1) == 0 else value

    placed: Config = place(config)
    return placed


def below(path: Path, folder: Path | None) -> Path:
    """Return a path from a folder that it is in; one that would then begin with ~ stays absolute."""
    if folder is None or not path.is_relative_to(folder):
        return path
    relative = path.relative_to(folder)
    return path if str(relative).startswith("~") else relative


def absolute(path: Path) -> Path:
    """Return a path that means the same in every folder."""
    return Path(os.path.abspath(path.expanduser()))
