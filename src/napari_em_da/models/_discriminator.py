"""Discriminators of label maps: they tell annotated from predicted ones, patch by patch."""

from __future__ import annotations

import math
from typing import Literal

from torch import Tensor, nn

from napari_em_da.errors import DataError

STRIDE_PX = 32  # five convolutions of stride 2


class PatchDiscriminator(nn.Module):
    """PatchGAN on class maps: five 4x4 convolutions of stride 2.

    Parameters
    ----------
    in_channels : int
        Classes; one more if the image is given as well.
    width : int
        Channels of the first layer; each of the next three has twice as many as the one before.
    norm : {"none", "group"}
        Group norm of 8 groups between the inner layers.

    References
    ----------
    Isola et al. (2017), Image-to-Image Translation with Conditional Adversarial Networks.
    """

    def __init__(self, in_channels: int, width: int = 64, norm: Literal["none", "group"] = "none") -> None:
        super().__init__()
        layers: list[nn.Module] = []
        widths = (in_channels, width, 2 * width, 4 * width, 8 * width)
        for level, (channels, wide) in enumerate(zip(widths[:-1], widths[1:], strict=True)):
            layers.append(nn.Conv2d(channels, wide, 4, stride=2, padding=1))
            if norm == "group" and level:
                layers.append(nn.GroupNorm(math.gcd(8, wide), wide))
            layers.append(nn.LeakyReLU(0.2, inplace=True))
        layers.append(nn.Conv2d(widths[-1], 1, 4, stride=2, padding=1))
        self.layers = nn.Sequential(*layers)
        for conv in (layer for layer in layers if isinstance(layer, nn.Conv2d)):
            nn.init.kaiming_normal_(conv.weight, a=0.2)
            if conv.bias is not None:
                nn.init.zeros_(conv.bias)

    def forward(self, labels: Tensor) -> Tensor:
        """Return logits, positive for annotated, of class maps in [0, 1].

        Maps (B, C, Y, X) give (B, 1, Y/32, X/32); of (B, C, Z, Y, X) each section is judged by itself: (B*Z, 1, …).

        Raises
        ------
        DataError
            If the maps are smaller than 32 pixels.
        """
        if labels.ndim == 5:
            labels = labels.transpose(1, 2).flatten(0, 1)  # (B*Z, C, Y, X)
        if min(labels.shape[2:]) < STRIDE_PX:
            size = tuple(labels.shape[2:])
            raise DataError(f"the discriminator needs maps of at least {STRIDE_PX} px, got {size}; enlarge the patch")
        logits: Tensor = self.layers(labels)
        return logits
