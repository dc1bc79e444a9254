"""What every segmentation network offers to training, adaptation and inference."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from napari_em_da.config import Options, parse


class SegmentationNet(nn.Module):
    """Base of all networks: images in, logits out, with named feature taps.

    Attributes
    ----------
    ndim : int
        2 for input (B, C, Y, X), 3 for (B, C, Z, Y, X).
    divisor : tuple of ndim ints
        Tiles start on multiples of this, or results differ from those of the whole image.
    halo_px : tuple of ndim ints
        Context that an output voxel sees on each side, grid alignment included; a multiple of ``divisor``.
    local : bool
        False where an output depends on the whole tile (instance and group norm), so that no halo suffices.
    margin_px : tuple of ndim ints
        What the output lacks on each side (0 for same-padded networks, 92 for the original U-Net).
    tap_channels : mapping of str to int
        Channels of each feature that ``forward_taps`` returns, in the same order.
    head : Module
        The classification layer, replaced when a run starts from a network with other classes.
    """

    ndim: int = 2
    divisor: tuple[int, ...]
    halo_px: tuple[int, ...]
    margin_px: tuple[int, ...]
    local: bool = True
    in_channels: int
    classes: int
    tap_channels: Mapping[str, int]
    head: nn.Module

    def forward_taps(self, image: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return logits (B, classes, …) and features: ``enc0`` … ``bottleneck``, ``dec…`` from coarse to ``dec0``.

        Features keep the network's own grid: that of the image padded to a multiple of ``divisor``.
        """
        raise NotImplementedError

    def encoder_taps(self, image: Tensor) -> dict[str, Tensor]:
        """Return the features ``enc0`` … ``bottleneck`` of ``forward_taps`` alone.

        A network that can stop there does, and goes on in ``run_decoder`` when asked to; this one runs to its end.
        """
        taps = self.forward_taps(image)[1]
        names = list(taps)
        return {name: taps[name] for name in names[: names.index("bottleneck") + 1]}

    def run_decoder(self, encoded: Mapping[str, Tensor]) -> None:
        """Run what ``encoder_taps`` left out, so that its batch-norm statistics take in the image."""

    def forward(self, image: Tensor) -> Tensor:
        """Return logits (B, classes, …) of the spatial size of ``image`` less twice ``margin_px``."""
        return self.forward_taps(image)[0]

    def patch_problem(self, patch: tuple[int, ...]) -> str | None:
        """Return why a training patch of this spatial size cannot work, with the nearest sizes that do; else None."""
        for axis, (size, step) in enumerate(zip(patch, self.divisor, strict=True)):
            if size < 1 or size % step:
                low, high = size // step * step, max(-(-size // step), 1) * step
                near = f"{low} or {high}" if low > 0 else f"{high}"
                return f"patch {patch} is not divisible by {self.divisor} on axis {axis} ({size}); use {near}"
        return None


@dataclass(frozen=True)
class ModelSpec:
    """One entry of the catalog of networks.

    ``build(in_channels, classes, options)`` returns a network with freshly initialised weights; ``options`` is an
    instance of ``options_type``.
    """

    build: Callable[[int, int, Any], SegmentationNet]
    options_type: type[Options]

    def create(self, in_channels: int, classes: int, options: dict[str, Any] | None = None) -> SegmentationNet:
        """Validate ``options`` and build the network; wrong options are a ConfigError."""
        return self.build(in_channels, classes, parse(self.options_type, options or {}))
