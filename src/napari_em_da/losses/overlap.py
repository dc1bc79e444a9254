"""Overlap losses: soft Dice, squared Dice and soft Jaccard."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from napari_em_da.errors import ConfigError
from napari_em_da.losses._base import pixel_weights

Overlap = Literal["dice", "squared_dice", "jaccard"]
SMOOTH: dict[Overlap, float] = {"dice": 1.0, "squared_dice": 1.0, "jaccard": 1e-10}


def overlap_loss(
    logits: Tensor,
    labels: Tensor,
    weights: Tensor | None = None,
    kind: Overlap = "dice",
    *,
    batch: bool = True,
    background: bool | None = None,
    smooth: float | None = None,
) -> Tensor:
    r"""One minus the soft overlap of prediction and labels, averaged over classes, in float32.

    With class probabilities q, one-hot labels t and sums weighted by w,

    * dice: :math:`1 - (2\sum wqt + s) / (\sum wq + \sum wt + s)`
    * squared_dice: :math:`1 - (2\sum wqt + s) / (\sum wq^2 + \sum wt^2 + s)`
    * jaccard: :math:`1 - (\sum wqt + s) / (\sum wq + \sum wt - \sum wqt + s)`

    Parameters
    ----------
    logits : Tensor (B, C, …)
        C is 2 or more; class 0 is the background.
    labels : Tensor (B, …), integer
        Classes 0 … C - 1; voxels of 255 enter neither numerator nor denominator.
    weights : Tensor (B, …), optional
        Non-negative; 1 by default.
    kind : {"dice", "squared_dice", "jaccard"}
    batch : bool
        Sum over the whole batch, or over each sample and then average.
    background : bool, optional
        Whether class 0 counts; by default for ``squared_dice`` only.
    smooth : float, optional
        s; 1 by default, 1e-10 for ``jaccard``.

    Returns
    -------
    Tensor ()
        In [0, 1]; 0 with zero gradient if every voxel is ignored.

    Raises
    ------
    ConfigError
        If there are fewer than two classes.

    References
    ----------
    Milletari et al. (2016) and Roels et al. (2021) for the squared Dice over all classes; Rahman & Wang (2016) for
    the soft Jaccard index.

    Notes
    -----
    The Jaccard loss is often written as the negative index; the 1 that we add leaves its gradient as it is.
    """
    if logits.shape[1] < 2:
        raise ConfigError(f"an overlap loss needs 2 or more classes, got {logits.shape[1]}; count the background too")
    if background is None:
        background = kind == "squared_dice"
    s = SMOOTH[kind] if smooth is None else smooth
    probs = torch.softmax(logits.float(), dim=1)
    weight = pixel_weights(labels, weights).unsqueeze(1)  # (B, 1, …)
    classes = labels.long().unsqueeze(1) * (weight > 0)  # what is ignored becomes class 0 of weight 0
    target = torch.zeros_like(probs).scatter_(1, classes, weight)  # (B, C, …), already weighted
    if not background:
        probs, target = probs[:, 1:], target[:, 1:]

    axes = [0, *range(2, probs.ndim)] if batch else list(range(2, probs.ndim))
    both = (probs * target).sum(axes)
    predicted = (probs * probs * weight if kind == "squared_dice" else probs * weight).sum(axes)
    union = predicted + target.sum(axes)
    score = (both + s) / (union - both + s) if kind == "jaccard" else (2 * both + s) / (union + s)
    return 1 - score.mean()
