"""The fields of a config as the positional arguments and options of its verb."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from napari_em_da.copying._values import CONFIG_TYPES, Written, meant, written

Words = list[str]  # one option with its values
POSITIONAL = {
    "segment": ("image",),
    "evaluate": ("prediction", "labels"),
    "postprocess": ("input",),
    "tune": ("input", "labels"),
    "measure": ("labels",),
    "correct": ("image", "corrections"),
    "weight_map": ("labels", "kind"),
}
OPTION = {"adapt": "option", "weight_map": "option"}  # of the name=value option, where it is called otherwise
# written as a,b,c in one word
JOINED = ("voxel_nm", "source_voxel_nm", "target_voxel_nm", "metrics", "columns", "labelled", "values")
PLAIN = re.compile(r"[^,={}\s][^,={}]*")  # class names that need no quotes of YAML


def positional_of(call: str, config: Any) -> Words:
    """Return the arguments without a name."""
    if call in {"train", "finetune"}:
        return [shown(path) for item in config.source for path in (item.image, item.labels)]
    return [shown(getattr(config, name)) for name in POSITIONAL.get(call, ())]


def options_of(call: str, config: BaseModel) -> list[Words]:
    """Return the options that have to be given; those of a chain are left to its file.

    What no option can say is left out, or said for the first of several volumes alone: the caller compares.
    """
    found: list[Words] = []
    for field in written(config, meant(call, config)):
        if field.name not in (*POSITIONAL.get(call, ()), "chain"):
            found += option_of(call, field, meant(call, config))
    return found


def option_of(call: str, field: Written, meant: frozenset[str]) -> list[Words]:
    """Return the options of one field; a section has several."""
    name, place, value = field
    flag = f"--{place.replace('_', '-')}"
    if isinstance(value, Path):  # one file; elsewhere the same names are lists of volumes
        return [paired(flag, shown(value))]
    if value is None:
        return []
    if place == "source":
        return [*scale_of(value), *([["--label-fraction", number(value[0].fraction)]] if fraction(value) else [])]
    if place == "target":
        return [*([["--target", shown(item.image)] for item in value] if call == "adapt" else []), *scale_of(value)]
    if place == "classes":
        return [paired(flag, class_text(value))]
    if place in {"network", "method"}:
        more = OPTION.get(call, f"{place}-option")
        usual = CONFIG_TYPES[call].model_fields[place].default.name
        return [*([] if value.name == usual else [paired(flag, value.name)]), *settings(more, value.options)]
    if place in {"params", "weights.params"}:
        return settings(OPTION.get(call, "weight-option"), value)
    if isinstance(value, BaseModel):
        fields = written(value, meant, f"{place}.")
        return [words for item in fields for words in option_of(call, item, meant)]
    if isinstance(value, bool):
        return [[flag if value else f"--{place[: -len(name)]}no-{name}".replace("_", "-")]]
    if isinstance(value, Mapping):
        return [paired(flag, json.dumps(value, ensure_ascii=False))]
    if isinstance(value, tuple):
        return [several(call, field, flag)]
    return [paired(flag, number(value) if isinstance(value, float) else shown(value))]


def several(call: str, field: Written, flag: str) -> Words:
    """Return a tuple as one word, as a word for each value, or as an option for each value."""
    texts = [number(item) if isinstance(item, float) else shown(item) for item in field.value]
    if field.name in JOINED:
        return paired(flag, ",".join(texts))
    if field.place in {"scoring.thresholds", "scoring.overlaps"}:  # of any length
        return [word for text in texts for word in paired(flag, text)]
    return [flag, *texts]


def scale_of(volumes: Iterable[Any]) -> list[Words]:
    """Return the voxel size of the first volume."""
    first = next(iter(volumes), None)
    known = first is not None and first.voxel_nm is not None
    return [["--voxel-nm", ",".join(map(number, first.voxel_nm))]] if first is not None and known else []


def fraction(volumes: tuple[Any, ...]) -> bool:
    """Whether the first volume has a share of its labels only."""
    return bool(volumes) and volumes[0].fraction != 1


def settings(option: str, values: Mapping[str, Any]) -> list[Words]:
    """Return a name=value option for each value, values as YAML."""
    return [[f"--{option}", f"{name}={yaml_text(value)}"] for name, value in values.items()]


def yaml_text(value: Any) -> str:
    """Return a value as YAML on one line."""
    text: str = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, sort_keys=False, width=float("inf"))
    return text.removesuffix("\n").removesuffix("...").strip()


def class_text(classes: Mapping[str, tuple[int, ...]]) -> str:
    """Return ``mito=2,membrane=1+4``, or YAML in braces for names that this cannot hold."""
    if classes and all(PLAIN.fullmatch(name) and values for name, values in classes.items()):
        return ",".join(f"{name}={'+'.join(map(str, values))}" for name, values in classes.items())
    return yaml_text({name: list(values) for name, values in classes.items()})


def paired(flag: str, text: str) -> Words:
    """Return an option and its value; in one word where the value would look like an option."""
    return [f"{flag}={text}"] if text.startswith("-") else [flag, text]


def number(value: float) -> str:
    """Return the shortest text that gives the same number."""
    return f"{value:g}" if float(f"{value:g}") == value else repr(value)


def shown(value: Any) -> str:
    """Return a path or value as a word; a relative path must not look like an option."""
    text = str(value)
    return f"./{text}" if isinstance(value, Path) and text.startswith("-") else text
