"""What the command line accepts: voxel sizes, classes, name=value options, and choices made from the catalogs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from cyclopts import Parameter

from napari_em_da.catalog import Catalog
from napari_em_da.errors import ConfigError
from napari_em_da.methods import METHODS
from napari_em_da.models import MODELS
from napari_em_da.weights import WEIGHTS


def voxel_size(type_: Any, tokens: Sequence[Any]) -> tuple[float, float, float]:
    """Parse ``5,5,5``."""
    text = tokens[0].value
    try:
        z, y, x = (float(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(
            f"Voxel size {text!r} is not three numbers z,y,x in nanometres, such as 50,4.6,4.6."
        ) from None
    return z, y, x


def class_map(type_: Any, tokens: Sequence[Any]) -> dict[str, tuple[int, ...]]:
    """Parse ``mito=2,boundary=1+4``, or a YAML mapping in braces for names that hold a comma."""
    if tokens[0].value.startswith("{"):
        return class_mapping(tokens[0].value)
    found: dict[str, tuple[int, ...]] = {}
    for part in (p for token in tokens for p in token.value.split(",")):
        name, _, values = part.partition("=")
        try:
            found[name] = tuple(int(v) for v in values.split("+"))
        except ValueError:
            raise ConfigError(f"Class {part!r} is not name=value, such as mito=2 or membrane=1+4.") from None
    return found


def class_mapping(text: str) -> dict[str, tuple[int, ...]]:
    """Parse ``{mito: [2], "membrane, outer": [1, 4]}``."""
    import yaml

    try:
        return {str(name): tuple(map(int, values)) for name, values in yaml.safe_load(text).items()}
    except (yaml.YAMLError, AttributeError, TypeError, ValueError):
        raise ConfigError(f"Classes {text!r} are not {{name: [values], …}}, such as {{mito: [2]}}.") from None


def options(settings: Sequence[str] | None) -> dict[str, Any]:
    """Parse ``name=value`` options; values are YAML (numbers, true, text)."""
    import yaml

    found = {}
    for text in settings or ():
        name, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(f"Option {text!r} is not name=value, such as lambda_adv=0.01.")
        found[name] = yaml.safe_load(value)
    return found


def numbers(type_: Any, tokens: Sequence[Any]) -> tuple[float, ...]:
    """Parse ``0,0.5,1`` or ``first:last:step`` (the last one included)."""
    text = tokens[0].value
    try:
        if ":" in text:
            first, last, step = (float(part) for part in text.split(":"))
            return tuple(round(first + i * step, 10) for i in range(round((last - first) / step) + 1))
        return tuple(float(part) for part in text.split(","))
    except (ValueError, ZeroDivisionError):
        raise ConfigError(f"{text!r} is neither numbers a,b,c nor first:last:step, such as 0:1:0.05.") from None


def sections(type_: Any, tokens: Sequence[Any]) -> tuple[int, ...]:
    """Parse ``0,5,10``."""
    try:
        return tuple(int(part) for part in tokens[0].value.split(","))
    except ValueError:
        raise ConfigError(f"{tokens[0].value!r} are no section numbers, such as 0,5,10.") from None


def names(type_: Any, tokens: Sequence[Any]) -> tuple[str, ...]:
    """Parse ``iou,dice``."""
    return tuple(part.strip() for part in tokens[0].value.split(",") if part.strip())


Names = Annotated[tuple[str, ...], Parameter(converter=names, n_tokens=1, negative="")]
Numbers = Annotated[tuple[float, ...], Parameter(converter=numbers, n_tokens=1, negative="")]
Sections = Annotated[tuple[int, ...], Parameter(converter=sections, n_tokens=1, negative="")]
Voxel = Annotated[tuple[float, float, float] | None, Parameter(converter=voxel_size, n_tokens=1, negative="")]
Classes = Annotated[dict[str, tuple[int, ...]] | None, Parameter(converter=class_map, n_tokens=1, accepts_keys=False)]
Settings = Annotated[list[str] | None, Parameter(negative="")]
Json = Annotated[bool, Parameter(name="--json", negative="")]


def choice(catalog: Catalog[Any], **more: str) -> Any:
    """Return the type of an option whose choices are a catalog, each with the first line of its docstring."""
    lines = [f"{name}: {catalog.summary(name)}" for name in catalog]
    lines += [f"{name}: {text}" for name, text in more.items()]
    return Annotated[Literal[(*catalog.names(), *more)], Parameter(help=" | ".join(lines))]


if TYPE_CHECKING:
    AdaptName: TypeAlias = str
    MethodName: TypeAlias = str
    NetworkName: TypeAlias = str
    WeightName: TypeAlias = str
else:
    AdaptName = choice(METHODS, auto="Try several methods and choose among all their checkpoints without labels.")
    MethodName, NetworkName, WeightName = choice(METHODS), choice(MODELS), choice(WEIGHTS)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a mapping from YAML."""
    import yaml

    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"Cannot read {path}: {error}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path} holds no options; it needs 'name: value' lines.")
    return values
