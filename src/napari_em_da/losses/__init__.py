"""Segmentation losses: one file per family; torch is imported on use only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_em_da.config import LossConfig
from napari_em_da.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

    from napari_em_da.losses._base import Losses, SegmentationLoss


def segmentation_loss(config: LossConfig) -> SegmentationLoss:
    """Return the loss that a config describes: ``loss(logits, labels, weights) -> {name: Term}``.

    Raises
    ------
    ConfigError
        If no term is left.
    """
    from napari_em_da.losses._base import Term
    from napari_em_da.losses.cross_entropy import cross_entropy
    from napari_em_da.losses.overlap import overlap_loss

    overlap = config.overlap if config.overlap != "none" and config.overlap_weight else None
    if not config.cross_entropy and overlap is None:
        raise ConfigError("the loss has no term: cross_entropy is 0 and the overlap loss is off; switch one on")

    def loss(logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> Losses:
        terms: Losses = {}
        if config.cross_entropy:
            value = cross_entropy(logits, labels, weights, config.reduction)
            terms["cross_entropy"] = Term(value, config.cross_entropy)
        if overlap is not None:
            terms[overlap] = Term(overlap_loss(logits, labels, weights, overlap), config.overlap_weight)
        return terms

    return loss


__all__ = ["segmentation_loss"]
