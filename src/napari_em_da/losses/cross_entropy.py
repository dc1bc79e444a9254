"""Cross-entropy with pixel weights."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from napari_em_da.losses._base import IGNORE, pixel_weights

Reduction = Literal["mean_valid", "weight_mean", "sum"]


def cross_entropy(
    logits: Tensor, labels: Tensor, weights: Tensor | None = None, reduction: Reduction = "mean_valid"
) -> Tensor:
    r"""Weighted cross-entropy :math:`-\sum_v w_v \log p_v(y_v)`, in float32 whatever the logits are.

    Parameters
    ----------
    logits : Tensor (B, C, …)
    labels : Tensor (B, …), integer
        Classes 0 … C - 1; 255 is ignored.
    weights : Tensor (B, …), optional
        Non-negative; 1 by default.
    reduction : {"mean_valid", "weight_mean", "sum"}
        Divide the sum by the number of voxels that are not ignored, by the sum of their weights, or not at all.

    Returns
    -------
    Tensor ()
        0 with zero gradient if every voxel is ignored.

    Notes
    -----
    ``weight_mean`` cancels any global scale of the weights; ``sum`` is what Guay et al. (2021) released.
    """
    losses = F.cross_entropy(logits.float(), labels.long(), reduction="none", ignore_index=IGNORE)
    if reduction == "mean_valid":
        total = losses if weights is None else losses * weights.float()
        return total.sum() / (labels != IGNORE).sum().clamp_min(1)
    weight = pixel_weights(labels, weights)
    total = (losses * weight).sum()
    return total if reduction == "sum" else total / weight.sum().clamp_min(torch.finfo(torch.float32).tiny)
