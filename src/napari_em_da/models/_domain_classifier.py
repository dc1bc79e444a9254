"""Domain classifiers: they tell from the features of a window which microscope it comes from."""

from __future__ import annotations

import math

from torch import Tensor, nn

from napari_em_da.models._blocks import CONV, Style, norm_layers

WIDTH = 48


class DomainClassifier(nn.Module):
    """Convolutions of stride 2, mean over space, two logits: any window size, 2D and 3D.

    Parameters
    ----------
    ndim : int
        2 for features (B, C, Y, X), 3 for (B, C, Z, Y, X).
    channels : int
        Of the features.
    depth : int
        Number of 3x3 convolutions, each with 48 channels, group norm and ReLU.

    Notes
    -----
    The convolutions halve the resolution themselves where the released code of Roels et al. pools: a quarter of the
    cost, and a window of a single position still has an output. The mean over space stands in place of fully
    connected layers, which tie a classifier to one window size, and group norm in place of batch norm, which a batch
    of one breaks.

    References
    ----------
    Roels et al. (2019), Domain adaptive segmentation in volume electron microscopy imaging, ISBI.
    """

    def __init__(self, ndim: int, channels: int, depth: int) -> None:
        super().__init__()
        style = Style(ndim, "group")
        layers: list[nn.Module] = []
        for _ in range(depth):
            conv = CONV[ndim](channels, WIDTH, 3, stride=2, padding=1)
            layers += [conv, *norm_layers(style, WIDTH), nn.ReLU(inplace=True)]
            channels = WIDTH
        self.trunk = nn.Sequential(*layers)
        self.head = nn.Linear(WIDTH, 2)
        nn.init.normal_(self.head.weight, std=math.sqrt(1 / WIDTH))
        nn.init.zeros_(self.head.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Return logits (B, 2) for source and target of features (B, C, …)."""
        logits: Tensor = self.head(self.trunk(features).flatten(2).mean(2))
        return logits
