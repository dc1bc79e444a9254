"""3D U-Net for thin or thick sections: three 3x3x3 convolutions per block, three scales (Guay 2021 baselines).

References
----------
Guay et al. (2021), Dense cellular segmentation for EM using 2D-3D neural network ensembles: "3D U-Net Thin" and
"3D U-Net Thick".

Notes
-----
The paper does not state the width; 64 channels doubling twice is our reading. Its thin network crops the prediction
from 300 to 296 pixels to compare it with another one; ours returns the full size.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from napari_em_da.config import Options
from napari_em_da.models._base import ModelSpec
from napari_em_da.models._blocks import Norm, Style, Up
from napari_em_da.models._unet import Plan, UNet


class UNet3DOptions(Options):
    """Options of the 3D U-Net."""

    kind: Literal["thin", "thick"] = Field("thin", description="thin: pool in the plane only; thick: pool along z too")
    features: Annotated[int, Field(ge=1, le=512)] = Field(64, description="Channels at full resolution, then doubling")
    levels: Annotated[int, Field(ge=1, le=5)] = Field(2, description="Number of poolings")
    convs: Annotated[int, Field(ge=1, le=5)] = Field(3, description="3x3x3 convolutions per block")
    norm: Norm = Field("none", description="Normalisation after each convolution")
    up: Up = Field("transpose", description="How the decoder upsamples: transposed convolution or trilinear")
    dropout: Annotated[float, Field(ge=0, lt=1)] = Field(0.0, description="Dropout after each block")


def build(in_channels: int, classes: int, options: UNet3DOptions) -> UNet:
    """Return a same-padded 3D U-Net that pools by (1, 2, 2) or (2, 2, 2)."""
    pool = (1, 2, 2) if options.kind == "thin" else (2, 2, 2)
    plan = Plan.doubling(options.features, options.levels, options.convs, pool)
    style = Style(3, options.norm, up=options.up, dropout=options.dropout)
    return UNet(in_channels, classes, plan, style)


MODEL = ModelSpec(build, UNet3DOptions)
