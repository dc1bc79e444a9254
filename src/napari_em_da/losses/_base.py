"""What losses are: named terms, each with the weight it is minimised with."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

IGNORE = 255  # label value that takes no part in any loss


class Term(NamedTuple):
    """One loss: logged as ``value``, minimised as ``weight * value``."""

    value: Tensor
    weight: float = 1.0


Losses = dict[str, Term]
SegmentationLoss = Callable[[Tensor, Tensor, Tensor | None], Losses]  # logits, labels, weights


def pixel_weights(labels: Tensor, weights: Tensor | None) -> Tensor:
    """Return float32 weights of the shape of ``labels``, 0 where they are to be ignored."""
    valid = labels != IGNORE
    return valid.to(torch.float32) if weights is None else weights.to(torch.float32) * valid
