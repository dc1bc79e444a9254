"""The U-Net family: encoder, decoder and network, of any depth and width, in 2D and 3D."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from torch import Tensor, nn

from napari_em_da.errors import DataError
from napari_em_da.models._base import SegmentationNet
from napari_em_da.models._blocks import (
    POOL,
    Size,
    Step,
    Style,
    UpBlock,
    conv_block,
    crop,
    pointwise,
    reach_px,
    reflect_to,
)


@dataclass(frozen=True)
class Plan:
    """Widths and scales of a U-Net.

    Attributes
    ----------
    encoder : tuple of tuples of int
        Output channels of every convolution, block by block, from the finest to the bottleneck.
    ups : tuple of int
        Channels after each upsampling, from coarse to fine.
    decoder : tuple of tuples of int
        As ``encoder``, from coarse to fine.
    pools : tuple of sizes
        What each pooling divides the spatial size by, from fine to coarse.
    """

    encoder: tuple[tuple[int, ...], ...]
    ups: tuple[int, ...]
    decoder: tuple[tuple[int, ...], ...]
    pools: tuple[Size, ...]

    @classmethod
    def doubling(cls, features: int, levels: int, convs: int, pool: Size) -> Self:
        """Return the usual plan: the width doubles with each of ``levels`` pools."""
        widths = [features * 2**level for level in range(levels + 1)]
        fine = tuple(reversed(widths[:-1]))
        return cls(
            encoder=tuple((width,) * convs for width in widths),
            ups=fine,
            decoder=tuple((width,) * convs for width in fine),
            pools=(pool,) * levels,
        )

    @property
    def skips(self) -> tuple[int, ...]:
        """Channels of the skip connections, from coarse to fine."""
        return tuple(widths[-1] for widths in reversed(self.encoder[:-1]))

    def path(self, axis: int, style: Style) -> list[Step]:
        """Return what lies between image and output along one axis, through the bottleneck."""
        steps: list[Step] = [("conv", len(self.encoder[0]))]
        for pool, widths in zip(self.pools, self.encoder[1:], strict=True):
            steps += [("pool", pool[axis]), ("conv", len(widths))]
        for pool, widths in zip(reversed(self.pools), self.decoder, strict=True):
            steps += [("up" if style.up == "transpose" else "linear", pool[axis]), ("conv", len(widths))]
        return steps


class Encoder(nn.Module):
    """The contracting half of a U-Net."""

    def __init__(self, in_channels: int, plan: Plan, style: Style) -> None:
        super().__init__()
        inputs = (in_channels, *(widths[-1] for widths in plan.encoder[:-1]))
        self.blocks = nn.ModuleList(conv_block(style, n, w) for n, w in zip(inputs, plan.encoder, strict=True))
        self.pools = nn.ModuleList(POOL[style.ndim](pool) for pool in plan.pools)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return the features of all levels, the bottleneck last."""
        features: list[Tensor] = [self.blocks[0](image)]
        for pool, block in zip(self.pools, self.blocks[1:], strict=True):
            features.append(block(pool(features[-1])))
        return features


class Decoder(nn.Module):
    """The expanding half of a U-Net; without ``skips`` it sees the bottleneck alone."""

    def __init__(self, plan: Plan, style: Style, *, skips: bool = True) -> None:
        super().__init__()
        self.skips = skips
        channels = (plan.encoder[-1][-1], *(widths[-1] for widths in plan.decoder[:-1]))
        skip = plan.skips if skips else (0,) * len(plan.ups)
        stages = zip(channels, skip, plan.ups, plan.decoder, reversed(plan.pools), strict=True)
        self.blocks = nn.ModuleList(UpBlock(style, *stage) for stage in stages)

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Return the decoder's features from coarse to fine, given those of the encoder from fine to coarse."""
        decoded = [features[-1]]
        for block, skip in zip(self.blocks, reversed(features[:-1]), strict=True):
            decoded.append(block(decoded[-1], skip if self.skips else None))
        return decoded[1:]


class UNet(SegmentationNet):
    """A U-Net of any plan and style.

    Same-padded networks take any size: it is mirrored at its far ends up to the network's grid, and the logits are
    cut back. Networks without padding take only the sizes on their grid.
    """

    def __init__(self, in_channels: int, classes: int, plan: Plan, style: Style) -> None:
        super().__init__()
        self.plan, self.style = plan, style
        self.ndim, self.local = style.ndim, style.local
        self.in_channels, self.classes = in_channels, classes
        axes = range(style.ndim)
        self.divisor = tuple(math.prod(pool[axis] for pool in plan.pools) for axis in axes)
        reach = (reach_px(plan.path(axis, style)) for axis in axes)
        self.halo_px = tuple(-(-r // d) * d for r, d in zip(reach, self.divisor, strict=True))
        self._smallest, self.margin_px = self.divisor, (0,) * style.ndim
        if style.padding == "valid":
            limits = [valid_sizes(plan.path(axis, style)) for axis in axes]
            self._smallest, self.margin_px = tuple(n for n, _ in limits), tuple(margin for _, margin in limits)
        self.tap_channels = tap_channels(plan)
        self.encoder = Encoder(in_channels, plan, style)
        self.decoder = Decoder(plan, style)
        self.head = pointwise(style.ndim, plan.decoder[-1][-1], classes)

    def encode(self, image: Tensor) -> list[Tensor]:
        """Return the features of all levels, the bottleneck last; ``image`` is on the grid (see ``fit``)."""
        features: list[Tensor] = self.encoder(image)
        return features

    def decode(self, features: list[Tensor]) -> list[Tensor]:
        """Return the decoder's features from coarse to fine."""
        decoded: list[Tensor] = self.decoder(features)
        return decoded

    def fit(self, image: Tensor) -> Tensor:
        """Mirror the image at its far ends up to the next size on the grid.

        Raises
        ------
        DataError
            If a network without padding cannot take this size.
        """
        size = tuple(image.shape[2:])
        if not any(self.margin_px):
            return reflect_to(image, [-(-n // d) * d for n, d in zip(size, self.divisor, strict=True)])
        if problem := self.patch_problem(size):
            raise DataError(problem)
        return image

    def cut(self, output: Tensor, image: Tensor) -> Tensor:
        """Cut an output of the fitted image back to the size of ``image`` less the margins."""
        sizes = [size - 2 * margin for size, margin in zip(image.shape[2:], self.margin_px, strict=True)]
        return crop(output, (0,) * self.ndim, sizes)

    def forward(self, image: Tensor) -> Tensor:
        """Return logits (B, classes, …) of the spatial size of ``image`` less twice ``margin_px``."""
        logits: Tensor = self.head(self.decode(self.encode(self.fit(image)))[-1])
        return self.cut(logits, image)

    def forward_taps(self, image: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return logits (B, classes, …) and the features of all levels, on the grid of the fitted image."""
        encoded = self.encode(self.fit(image))
        decoded = self.decode(encoded)
        logits: Tensor = self.head(decoded[-1])
        return self.cut(logits, image), dict(zip(self.tap_channels, [*encoded, *decoded], strict=True))

    def encoder_taps(self, image: Tensor) -> dict[str, Tensor]:
        """Return the features of the encoder, on the grid of the fitted image; the decoder is not run."""
        return dict(zip(self.tap_channels, self.encode(self.fit(image)), strict=False))  # the first names

    def run_decoder(self, encoded: Mapping[str, Tensor]) -> None:
        """Run the decoder on what ``encoder_taps`` returned."""
        self.decode(list(encoded.values()))

    def patch_problem(self, patch: Size) -> str | None:
        """Return why a training patch of this spatial size cannot work, with the nearest sizes that do; else None."""
        if not any(self.margin_px):
            if self.style.norm == "instance" and patch == self.divisor:
                wider = (*patch[:-1], 2 * patch[-1])
                return f"patch {patch} leaves a single voxel to normalise in the bottleneck; use {wider}"
            return super().patch_problem(patch)
        for axis, (size, least, step) in enumerate(zip(patch, self._smallest, self.divisor, strict=True)):
            below = least + (size - least) // step * step
            if size < least or size != below:
                near = f"{below} or {below + step}" if below >= least else f"{least}"
                rule = f"an unpadded network needs {least} plus a multiple of {step}"
                return f"patch {patch} does not fit on axis {axis} ({size}); {rule}: use {near}"
        return None


def tap_channels(plan: Plan) -> dict[str, int]:
    """Return names and channels of a U-Net's features: enc0 …, bottleneck, dec… down to dec0."""
    levels = range(len(plan.pools))
    names = [*(f"enc{i}" for i in levels), "bottleneck", *(f"dec{i}" for i in reversed(levels))]
    return dict(zip(names, (widths[-1] for widths in (*plan.encoder, *plan.decoder)), strict=True))


def valid_sizes(path: list[Step]) -> tuple[int, int]:
    """Return (smallest input, margin) along one axis of a network without padding.

    Its sizes follow from that of the bottleneck, of which the smallest that leaves any output counts.
    """
    turn = next(i for i, (kind, _) in enumerate(path) if kind == "up")
    bottom = 1
    while (out := _output_size(path[turn:], bottom)) < 1:
        bottom += 1
    size = bottom
    for kind, n in reversed(path[:turn]):
        size = size + 2 * n if kind == "conv" else size * n
    return size, (size - out) // 2


def _output_size(path: list[Step], size: int) -> int:
    for kind, n in path:
        size = size - 2 * n if kind == "conv" else size * n
    return size
