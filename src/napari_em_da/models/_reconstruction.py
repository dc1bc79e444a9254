"""The third arm of a Y-Net: a decoder that reconstructs the image from the bottleneck of a U-Net alone."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor, nn

from napari_em_da.errors import ConfigError
from napari_em_da.models._base import SegmentationNet
from napari_em_da.models._blocks import centre_crop, crop, pointwise
from napari_em_da.models._unet import Decoder, UNet


class ReconstructionDecoder(nn.Module):
    """A decoder as wide and deep as the network's own, without skip connections and with a linear output.

    Without skips, because the finest one would carry the image past the bottleneck and make its features pointless.
    It pads where the network does not, so that all of the bottleneck counts.

    Parameters
    ----------
    network : SegmentationNet
        The U-Net whose bottleneck is read; it is not held.

    Raises
    ------
    ConfigError
        If the network is not a U-Net.
    """

    def __init__(self, network: SegmentationNet) -> None:
        super().__init__()
        if not isinstance(network, UNet):
            kind = type(network).__name__
            raise ConfigError(f"Reconstruction needs the bottleneck of a U-Net, not a {kind}; choose the network unet.")
        self.padded = not any(network.margin_px)
        self.blocks = Decoder(network.plan, replace(network.style, padding="same"), skips=False).blocks
        self.head = pointwise(network.ndim, network.plan.decoder[-1][-1], network.in_channels)

    def forward(self, bottleneck: Tensor) -> Tensor:
        """Return a reconstruction (B, in_channels, …) on the grid of the fitted image."""
        features = bottleneck
        for block in self.blocks:
            features = block(features)
        reconstruction: Tensor = self.head(features)
        return reconstruction

    def pair(self, bottleneck: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return the reconstruction and the part of ``image`` that it stands for, of one size.

        A padded network mirrors images at their far ends; one without padding loses as much on all sides.
        """
        reconstruction = self(bottleneck)
        if self.padded:
            return crop(reconstruction, (0,) * (image.ndim - 2), image.shape[2:]), image
        return reconstruction, centre_crop(image, reconstruction.shape[2:])
