"""The bricks of convolutional networks, for 2D and 3D alike."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

Norm = Literal["none", "batch", "instance", "group"]
Up = Literal["transpose", "bilinear"]
Padding = Literal["same", "valid"]
Size = tuple[int, ...]
Step = tuple[Literal["conv", "pool", "up", "linear"], int]

CONV: dict[int, type[nn.Module]] = {2: nn.Conv2d, 3: nn.Conv3d}
UP_CONV: dict[int, type[nn.Module]] = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
POOL: dict[int, type[nn.Module]] = {2: nn.MaxPool2d, 3: nn.MaxPool3d}
BATCH_NORM: dict[int, type[nn.Module]] = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
INSTANCE_NORM: dict[int, type[nn.Module]] = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}


@dataclass(frozen=True)
class Style:
    """How all blocks of one network are made.

    ``up="bilinear"`` means trilinear in 3D; ``up_bias`` is that of transposed convolutions.
    """

    ndim: int = 2
    norm: Norm = "none"
    padding: Padding = "same"
    up: Up = "transpose"
    up_bias: bool = True
    dropout: float = 0.0

    @property
    def local(self) -> bool:
        """Whether an output depends on its neighbourhood only, not on the whole tile."""
        return self.norm not in ("instance", "group")


def conv_block(style: Style, channels: int, widths: Sequence[int], kernel: Size | None = None) -> nn.Sequential:
    """Return convolutions of the given widths, each followed by norm and ReLU; dropout ends the block.

    Parameters
    ----------
    style : Style
    channels : int
        Of the input.
    widths : sequence of int
        Output channels of each convolution.
    kernel : tuple of ndim odd ints, optional
        3 along each axis by default.
    """
    kernel = kernel or (3,) * style.ndim
    padding = tuple(k // 2 for k in kernel) if style.padding == "same" else 0
    layers: list[nn.Module] = []
    for width in widths:
        conv = CONV[style.ndim](channels, width, kernel, padding=padding)
        fan_in = channels * math.prod(kernel)
        layers += [_initialised(conv, math.sqrt(2 / fan_in)), *norm_layers(style, width), nn.ReLU(inplace=True)]
        channels = width
    if style.dropout:
        layers.append(nn.Dropout(style.dropout))
    return nn.Sequential(*layers)


def norm_layers(style: Style, channels: int) -> list[nn.Module]:
    """Return the norm layer of a style, or nothing; group norm uses up to 8 groups."""
    if style.norm == "batch":
        return [BATCH_NORM[style.ndim](channels)]
    if style.norm == "instance":
        return [INSTANCE_NORM[style.ndim](channels, affine=True)]
    if style.norm == "group":
        return [nn.GroupNorm(math.gcd(8, channels), channels)]
    return []


def pointwise(ndim: int, channels: int, width: int) -> nn.Module:
    """Return a linear 1x1 convolution: a classification layer or a change of width."""
    return _initialised(CONV[ndim](channels, width, 1), channels**-0.5)


def upsampler(style: Style, channels: int, width: int, factor: Size) -> nn.Module:
    """Return a layer that multiplies the spatial size by ``factor`` and changes the width.

    Notes
    -----
    The bilinear kind changes the width before it interpolates: both steps are linear and the interpolation weights
    sum to 1, so that the order makes no difference but for the cost.
    """
    if style.up == "transpose":
        conv = UP_CONV[style.ndim](channels, width, factor, stride=factor, bias=style.up_bias)
        return _initialised(conv, channels**-0.5)  # kernel = stride: each output sees every channel once
    mode = {2: "bilinear", 3: "trilinear"}[style.ndim]
    scale = tuple(float(f) for f in factor)
    return nn.Sequential(pointwise(style.ndim, channels, width), nn.Upsample(scale_factor=scale, mode=mode))


class UpBlock(nn.Module):
    """Upsample, join the skip connection as [skip, up], convolve."""

    def __init__(
        self, style: Style, channels: int, skip: int, up: int, widths: Sequence[int], factor: Size,
        kernel: Size | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.up = upsampler(style, channels, up, factor)
        self.block = conv_block(style, skip + up, widths, kernel)

    def forward(self, coarse: Tensor, skip: Tensor | None = None) -> Tensor:
        """Return features at ``factor`` times the resolution of ``coarse``; a larger ``skip`` is centre-cropped."""
        features: Tensor = self.up(coarse)
        if skip is not None:
            features = torch.cat([centre_crop(skip, features.shape[2:]), features], dim=1)
        out: Tensor = self.block(features)
        return out


def centre_crop(features: Tensor, size: Sequence[int]) -> Tensor:
    """Return the central part of spatial size ``size`` of (B, C, …), as a view."""
    return crop(features, [(have - want) // 2 for have, want in zip(features.shape[2:], size, strict=True)], size)


def crop(features: Tensor, start: Sequence[int], size: Sequence[int]) -> Tensor:
    """Return a spatial window of (B, C, …), as a view; the tensor itself if that is the window."""
    if tuple(features.shape[2:]) == tuple(size):
        return features
    for axis, (first, length) in enumerate(zip(start, size, strict=True), start=2):
        features = features.narrow(axis, first, length)
    return features


def reflect_to(image: Tensor, size: Sequence[int]) -> Tensor:
    """Mirror (B, C, …) at its far ends up to a spatial ``size``, however small the image is.

    Only the far ends: the sampling grid of the pools must stay where it is.
    """
    for axis, (have, want) in enumerate(zip(image.shape[2:], size, strict=True), start=2):
        if want > have:
            period = max(2 * (have - 1), 1)
            index = torch.arange(want, device=image.device) % period
            image = image.index_select(axis, torch.minimum(index, period - index))
    return image


def reach_px(steps: Iterable[Step]) -> int:
    """Return how far an output sees along one axis, over all its positions on the sampling grid.

    Parameters
    ----------
    steps : iterable of (kind, n)
        The deepest path through the network in forward order: ``conv`` of radius n, ``pool`` by n, ``up`` by n
        (transposed convolution or nearest neighbour), ``linear`` up by n.

    Notes
    -----
    The interval that one output depends on is followed backwards through the path, once for every offset of that
    output on the grid. An output just before a pooling boundary sees further to one side than to the other, and so
    the answer exceeds half of the usual receptive field.
    """
    path = list(steps)
    stride = period = 1
    for kind, n in path:
        stride = stride * n if kind == "pool" else stride // n if kind in ("up", "linear") else stride
        period = max(period, stride)
    return max(_reach_from(position, path) for position in range(period))


def _reach_from(position: int, path: Sequence[Step]) -> int:
    low = high = position
    for kind, n in reversed(path):
        if kind == "conv":
            low, high = low - n, high + n
        elif kind == "pool":
            low, high = low * n, high * n + n - 1
        elif kind == "up":
            low, high = low // n, high // n
        else:  # an output lies between the centres of the two inputs it mixes
            low, high = (2 * low + 1 - n) // (2 * n), (2 * high + 1 - n) // (2 * n) + 1
    return max(position - low, high - position)


def _initialised(conv: nn.Module, std: float) -> nn.Module:
    """Draw weights that keep the variance of the signal; zero the bias."""
    weight, bias = conv.weight, conv.bias
    if isinstance(weight, Tensor):
        nn.init.normal_(weight, std=std)
    if isinstance(bias, Tensor):
        nn.init.zeros_(bias)
    return conv
