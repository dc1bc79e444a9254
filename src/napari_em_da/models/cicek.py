"""3D U-Net for isotropic volumes: widths double before each pooling (Çiçek 2016).

References
----------
Çiçek, Abdulkadir, Lienkamp, Brox & Ronneberger (2016), 3D U-Net: Learning Dense Volumetric Segmentation from Sparse
Annotation. The original is ``padding="valid"``.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from napari_em_da.config import Options
from napari_em_da.models._base import ModelSpec
from napari_em_da.models._blocks import Norm, Padding, Style
from napari_em_da.models._unet import Plan, UNet


class CicekOptions(Options):
    """Options of the 3D U-Net of Çiçek and colleagues."""

    features: Annotated[int, Field(ge=1, le=256)] = Field(32, description="Channels of the first convolution")
    norm: Norm = Field("batch", description="Normalisation before each ReLU")
    padding: Padding = Field("same", description="same: output as large as the image; valid: without a border")
    dropout: Annotated[float, Field(ge=0, lt=1)] = Field(0.0, description="Dropout after each block")


def build(in_channels: int, classes: int, options: CicekOptions) -> UNet:
    """Return a 3D U-Net with three poolings by (2, 2, 2) and up-convolutions that keep the width."""
    f = options.features
    plan = Plan(
        encoder=((f, 2 * f), (2 * f, 4 * f), (4 * f, 8 * f), (8 * f, 16 * f)),
        ups=(16 * f, 8 * f, 4 * f),
        decoder=((8 * f, 8 * f), (4 * f, 4 * f), (2 * f, 2 * f)),
        pools=((2, 2, 2),) * 3,
    )
    style = Style(3, options.norm, options.padding, up_bias=False, dropout=options.dropout)
    return UNet(in_channels, classes, plan, style)


MODEL = ModelSpec(build, CicekOptions)
