"""2D U-Net with skip connections (Ronneberger 2015), same-padded and batch-normalised by default.

References
----------
Ronneberger, Fischer & Brox (2015), U-Net: Convolutional Networks for Biomedical Image Segmentation. The original is
``padding="valid", norm="none", features=64``.
"""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from napari_em_da.config import Options
from napari_em_da.models._base import ModelSpec
from napari_em_da.models._blocks import Norm, Padding, Style, Up
from napari_em_da.models._unet import Plan, UNet


class UNetOptions(Options):
    """Options of the 2D U-Net."""

    features: Annotated[int, Field(ge=1, le=512)] = Field(32, description="Channels at full resolution, then doubling")
    levels: Annotated[int, Field(ge=1, le=6)] = Field(4, description="Number of 2x2 poolings")
    norm: Norm = Field("batch", description="Normalisation after each convolution")
    padding: Padding = Field("same", description="same: output as large as the image; valid: without a border")
    up: Up = Field("transpose", description="How the decoder upsamples: transposed convolution or bilinear")
    dropout: Annotated[float, Field(ge=0, lt=1)] = Field(0.0, description="Dropout after each block")

    @model_validator(mode="after")
    def _valid_needs_transpose(self) -> Self:
        if self.padding == "valid" and self.up == "bilinear":
            raise ValueError("padding 'valid' needs up 'transpose': bilinear invents values at the edges")
        return self


def build(in_channels: int, classes: int, options: UNetOptions) -> UNet:
    """Return a 2D U-Net: two 3x3 convolutions per block, widths doubling with each level."""
    plan = Plan.doubling(options.features, options.levels, convs=2, pool=(2, 2))
    style = Style(2, options.norm, options.padding, options.up, dropout=options.dropout)
    return UNet(in_channels, classes, plan, style)


MODEL = ModelSpec(build, UNetOptions)
