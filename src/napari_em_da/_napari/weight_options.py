"""What every kind of weight map has, which of its numbers a slider suits, and better names."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from napari_em_da.config import Config, NonNegative

SLIDERS = {  # ends of sliders for numbers without bounds; the line beside takes any
    **{"floor": (0.0, 1.0), "ratio": (1.0, 20.0), "max_ratio": (1.0, 200.0), "w_0": (0.0, 50.0)},
    **{"sigma": (0.5, 30.0), "d_clip": (1.0, 100.0), "half_thickness": (1.0, 100.0), "max_weight": (0.0, 50.0)},
    "base": (1.5, 10.0),
}
TITLES = {"w_0": "Largest weight"}  # of options that papers call by a letter


class MapOptions(Config):
    """What all kinds of weight maps share."""

    scale: Literal["none", "max1", "mean1"] | None = Field(None, description="Scaling of the raw map")
    floor: NonNegative | None = Field(None, description="Smallest weight; the kind's default if empty")
    ignore_label: int | None = Field(255, description="Label value that is not annotated: weight 0")
