"""Kinds of values, and the base of every model: frozen, with errors that name what is wrong."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from napari_em_da.catalog import unknown
from napari_em_da.errors import ConfigError

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
VoxelSize = tuple[Positive, Positive, Positive]


def _ordered(value: tuple[float, float]) -> tuple[float, float]:
    if value[0] > value[1]:
        raise ValueError(f"{value[0]} to {value[1]} is no range; give the smaller number first")
    return value


Range = Annotated[tuple[Positive, Positive], AfterValidator(_ordered)]
M = TypeVar("M", bound=BaseModel)


class Config(BaseModel):
    """Base of every user-facing model: frozen, and a misspelt key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


Options = Config  # the flat options of one network or method


def parse(model: type[M], values: dict[str, Any], what: str = "option") -> M:
    """Validate a dictionary.

    Raises
    ------
    ConfigError
        Naming each wrong key, its value and what is allowed; unknown keys get the nearest match.
    """
    try:
        return model(**values)
    except ValidationError as error:
        raise ConfigError(describe(error, model, what)) from None


def describe(error: ValidationError, model: type[BaseModel], what: str = "option") -> str:
    """Turn a pydantic error into one readable line."""
    parts = []
    for item in error.errors():
        where = ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden" and len(item["loc"]) == 1:
            parts.append(unknown(what, where, tuple(model.model_fields)))
        elif item["type"] == "extra_forbidden":
            parts.append(f"Unknown {what} {where!r}")
        else:
            parts.append(f"{where}: {item['msg']} (got {item.get('input')!r})")
    return "; ".join(parts)
