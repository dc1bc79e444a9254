"""A trained network made ready to segment: frozen, folded, cast, and patient with little memory."""

from __future__ import annotations

import copy
import gc
import hashlib
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from napari_em_da.device import is_out_of_memory
from napari_em_da.inference import tta
from napari_em_da.inference.blocks import Footprint, find_residue
from napari_em_da.models._base import SegmentationNet

_CONVOLUTIONS = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_BATCH_NORMS = (nn.BatchNorm2d, nn.BatchNorm3d)
_LIVE = 3.0  # times the widest layer's input and output that a forward pass holds at once, skips included


class TileTooLarge(Exception):
    """A single tile exceeds the memory; the caller cuts finer and goes on."""


class Frozen:
    """A private copy of a network that maps tiles to labels and probabilities; the original stays untouched.

    Parameters
    ----------
    net : SegmentationNet
        One output channel means a foreground logit, more mean one logit per class.
    device : torch.device
    dtype : torch.dtype or None
        ``torch.bfloat16``, or None for float32.
    average : bool
        Average probabilities over the eight in-plane symmetries.

    Attributes
    ----------
    batch : int
        Tiles per pass; halved for good when memory runs out.

    Notes
    -----
    Batch norms are folded into the convolutions before them, which is exact up to rounding. In bfloat16 the weights
    are cast once instead of at every pass, and the classification layer stays in float32 since close logits would
    otherwise tie.
    """

    def __init__(self, net: SegmentationNet, device: torch.device, dtype: torch.dtype | None, average: bool) -> None:
        self.ndim = net.ndim
        self.device = device
        self.dtype = dtype or torch.float32
        self.average = average
        self.batch = 1
        self._format = torch.channels_last if net.ndim == 2 else torch.channels_last_3d
        self._net = copy.deepcopy(net).eval().requires_grad_(False).float()
        fold_batch_norm(self._net)
        self._net.to(device=device, dtype=self.dtype)
        self._net.to(memory_format=self._format)  # type: ignore[call-overload]
        if dtype is not None:
            self._net.head.float().register_forward_pre_hook(_as_float)

    @torch.inference_mode()
    def __call__(
        self, tiles: npt.NDArray[np.float32], probabilities: bool
    ) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32] | None]:
        """Segment tiles (B, C, Z, Y, X) float32.

        Returns
        -------
        labels (B, Z, Y, X) uint8, and probabilities (B, classes, Z, Y, X) float32 or None

        Raises
        ------
        TileTooLarge
            If not even one tile fits into the memory.
        """
        parts: list[tuple[Tensor, Tensor | None]] = []
        while (done := sum(len(p[0]) for p in parts)) < len(tiles):
            part = self._attempt(tiles[done : done + self.batch], probabilities)
            if part is not None:
                parts.append(part)
            elif self.batch == 1:
                raise TileTooLarge(f"one tile of {tiles.shape[2:]} voxels does not fit into the memory")
            else:
                self.batch //= 2
        depth = (slice(None), None) if self.ndim == 2 else (slice(None),)
        labels = torch.cat([p[0] for p in parts])[depth].numpy()
        if not probabilities:
            return labels, None
        scores = torch.cat([p[1] for p in parts if p[1] is not None])
        return labels, (scores[:, :, None] if self.ndim == 2 else scores).numpy()

    def _attempt(self, tiles: npt.NDArray[np.float32], probabilities: bool) -> tuple[Tensor, Tensor | None] | None:
        """Return results on the CPU, or None when the memory does not suffice."""
        try:
            return self._segment(tiles, probabilities)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        gc.collect()  # outside the handler: its traceback would keep the tensors alive
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        return None

    def _segment(self, tiles: npt.NDArray[np.float32], probabilities: bool) -> tuple[Tensor, Tensor | None]:
        image = torch.from_numpy(tiles[:, :, 0] if self.ndim == 2 else tiles)
        image = image.to(device=self.device, dtype=self.dtype).contiguous(memory_format=self._format)
        if self.average or probabilities:
            scores = tta.average(self._probabilities, image) if self.average else self._probabilities(image)
            return _largest(scores).cpu(), scores.cpu() if probabilities else None
        logits = self._logits(image)
        labels = (logits[:, 0] > 0).to(torch.uint8) if logits.shape[1] == 1 else _largest(logits)
        return labels.cpu(), None

    def _logits(self, image: Tensor) -> Tensor:
        logits: Tensor = self._net(image.contiguous(memory_format=self._format))
        return logits.float()

    def _probabilities(self, image: Tensor) -> Tensor:
        logits = self._logits(image)
        if logits.shape[1] > 1:
            return logits.softmax(1)
        foreground = logits.sigmoid()
        return torch.cat((1 - foreground, foreground), 1)

    @torch.inference_mode()
    def bytes_per_voxel(self, channels: int, tile: tuple[int, ...]) -> float:
        """Estimate the memory of one forward pass per input voxel from a pass over a small tile (its ndim sizes)."""
        widest = 0

        def measure(_: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            nonlocal widest
            widest = max(widest, sum(t.nbytes for t in (*inputs, output) if isinstance(t, Tensor)))

        leaves = [m for m in self._net.modules() if not any(m.children())]
        hooks = [leaf.register_forward_hook(measure) for leaf in leaves]
        try:
            self._net(torch.zeros(1, channels, *tile, device=self.device, dtype=self.dtype))
        finally:
            for hook in hooks:
                hook.remove()
        return max(_LIVE * widest / prod(tile), 4.0 * channels)


def _as_float(_: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(t.float() if isinstance(t, Tensor) else t for t in inputs)


def _largest(scores: Tensor) -> Tensor:
    """Return the class (B, …) uint8 of the largest score; ties go to the smallest class."""
    if scores.shape[1] == 2:  # far cheaper than argmax, and by far the most frequent case
        return (scores[:, 1] > scores[:, 0]).to(torch.uint8)
    return scores.argmax(1).to(torch.uint8)


def fold_batch_norm(net: nn.Module) -> int:
    """Fold each batch norm into the convolution right before it in a Sequential, in place; return how many.

    The ReLU that follows then works in place, since nothing else can see its input.
    """
    folded = 0
    for sequence in [m for m in net.modules() if isinstance(m, nn.Sequential)]:
        for i in range(len(sequence) - 1):
            convolution, norm = sequence[i], sequence[i + 1]
            if not isinstance(convolution, _CONVOLUTIONS) or not isinstance(norm, _BATCH_NORMS):
                continue
            if norm.running_mean is None or convolution._forward_hooks or norm._forward_hooks:
                continue  # batch statistics cannot be folded; a hook wants to see the layer as it was
            transposed = isinstance(convolution, nn.ConvTranspose2d | nn.ConvTranspose3d)
            sequence[i] = fuse_conv_bn_eval(convolution, norm, transpose=transposed)
            sequence[i + 1] = nn.Identity()
            if i + 2 < len(sequence) and isinstance(sequence[i + 2], nn.ReLU):
                sequence[i + 2] = nn.ReLU(inplace=True)
            folded += 1
    return folded


def footprint(net: SegmentationNet) -> Footprint:
    """Return the network's surroundings with a z axis, also for 2D networks."""
    residue = (0,) * net.ndim
    if any(net.margin_px):
        residue = find_residue(lambda size: net.patch_problem(size) is None, net.divisor, net.margin_px)

    def spatial(values: tuple[int, ...], fill: int) -> tuple[int, int, int]:
        z, y, x = values if net.ndim == 3 else (fill, *values)
        return int(z), int(y), int(x)

    return Footprint(spatial(net.divisor, 1), spatial(net.halo_px, 0), spatial(net.margin_px, 0), spatial(residue, 0))


def fingerprint(net: SegmentationNet) -> str:
    """Return a hash of architecture and weights (16 hex digits)."""
    digest = hashlib.sha256(repr(net).encode())
    for name, value in sorted(net.state_dict().items()):
        digest.update(name.encode())
        if isinstance(value, Tensor):
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
