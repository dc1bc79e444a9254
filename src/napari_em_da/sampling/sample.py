"""What a method sees of one stream: tensors, with no memory of the volume they came from."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from napari_em_da.errors import DataError


@dataclass(frozen=True)
class Sample:
    """What a method sees of one stream; a 2D network gets no Z axis.

    Attributes
    ----------
    image : (B, 1, [Z,] Y, X) float32, standardised
    labels : (B, [Z,] Y, X) int64 or None
        Class indices; 255 is not annotated.
    weights : (B, [Z,] Y, X) float32 or None
        0 where there is no label.
    """

    image: Tensor
    labels: Tensor | None = None
    weights: Tensor | None = None

    @property
    def annotation(self) -> Tensor:
        """The labels of a labelled stream; a DataError where the stream has none."""
        if self.labels is None:
            raise DataError("This method needs labels, but the stream it reads is unlabelled.")
        return self.labels

    def to(self, device: torch.device | str, channels_last: bool = True) -> Sample:
        """Copy to a device; ``channels_last`` lays out the image as convolutions like it best."""
        layout = torch.preserve_format
        if channels_last:
            layout = torch.channels_last if self.image.ndim == 4 else torch.channels_last_3d
        image = self.image.to(device, memory_format=layout, non_blocking=True)
        labels, weights = (None if t is None else t.to(device, non_blocking=True) for t in (self.labels, self.weights))
        return Sample(image, labels, weights)
