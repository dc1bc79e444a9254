"""Fixed class ratio: boundary pixels weigh ``ratio``, all others 1."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from napari_em_da.config import Config, Positive
from napari_em_da.weights._base import WeightSpec
from napari_em_da.weights._classes import ClassIds, look_up
from napari_em_da.weights._stack import LabelStack


class RatioOptions(Config):
    """A boundary to non-boundary ratio chosen by hand."""

    ratio: Positive = Field(5.0, description="Weight of a boundary pixel; all others weigh 1")
    boundary: ClassIds = Field((1,), description="Class ids of the boundary")


def raw(stack: LabelStack, options: RatioOptions) -> Any:
    """Return ``ratio`` on the boundary and 1 elsewhere."""
    return stack.map(look_up, dict.fromkeys(options.boundary, options.ratio), 1.0)


WEIGHT = WeightSpec(raw, RatioOptions)
