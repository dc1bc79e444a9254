"""What a kind of weight map is: one frozen spec per file, listed by the catalog without importing it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

from napari_em_da.config import Config, parse
from napari_em_da.weights._stack import LabelStack

Scale = Literal["none", "max1", "mean1"]
SCALES: tuple[str, ...] = get_args(Scale)


@dataclass(frozen=True)
class Finish:
    """What happens to the raw map of a kind where the caller asks for nothing else.

    Attributes
    ----------
    floor : float
        Smallest weight.
    scale : {"none", "max1", "mean1"}
    rule : {"max", "affine", "add"}
        How the floor acts on a map that is not scaled to a maximum of 1: ``max(w, floor)``,
        ``floor + (1 - floor) * w`` or ``w + floor``.
    """

    floor: float = 0.0
    scale: Scale = "none"
    rule: Literal["max", "affine", "add"] = "max"


def plain(options: Any) -> Finish:
    """Neither floor nor scale."""
    return Finish()


@dataclass(frozen=True)
class WeightSpec:
    """One entry of the catalog of weight maps.

    ``raw(stack, options)`` returns float32 weights (Z, Y, X), in memory or lazy like the stack itself, before scale,
    floor and ignored pixels; ``finish(options)`` names the defaults of those.
    """

    raw: Callable[[LabelStack, Any], Any]
    options_type: type[Config]
    finish: Callable[[Any], Finish] = plain

    def options(self, values: dict[str, Any]) -> Config:
        """Validate parameters; wrong ones are a ConfigError that names the nearest match."""
        return parse(self.options_type, values, "weight map parameter")
