"""Multi-loss of the 2D-3D network: two cross-entropies and weight penalties by group (Guay 2021).

References
----------
Guay et al. (2021), Dense cellular segmentation for EM using 2D-3D neural network ensembles, eq. 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Literal

import torch
from torch import Tensor

from napari_em_da.losses._base import Losses, Term
from napari_em_da.losses.cross_entropy import cross_entropy

Parity = Literal["paper", "release"]
LAMBDAS: Mapping[str, float] = MappingProxyType({"2d": 10**-4.7, "3d": 1e-5, "predictors": 1e-9})


def multi_loss(
    logits_3d: Tensor | None,
    logits_2d: Tensor,
    labels: Tensor,
    weights: Tensor | None = None,
    *,
    c_2d: float = 0.33,
    parity: Parity = "paper",
) -> Losses:
    """Weighted cross-entropies of the final and of the intermediate 2D prediction.

    Parameters
    ----------
    logits_3d : Tensor (B, C, Z, Y, X) or None
        None for the network without its 3D part; the 2D term then has weight 1.
    logits_2d : Tensor (B, C, Z, Y, X)
    labels, weights : Tensor (B, Z, Y, X)
        See `cross_entropy`.
    c_2d : float
        Weight of the 2D term; at 0 it is left out.
    parity : {"paper", "release"}
        The paper averages over voxels; the released code sums.
    """
    reduction: Literal["mean_valid", "sum"] = "mean_valid" if parity == "paper" else "sum"
    if logits_3d is None:
        return {"cross_entropy_2d": Term(cross_entropy(logits_2d, labels, weights, reduction))}
    losses = {"cross_entropy_3d": Term(cross_entropy(logits_3d, labels, weights, reduction))}
    if c_2d:
        losses["cross_entropy_2d"] = Term(cross_entropy(logits_2d, labels, weights, reduction), c_2d)
    return losses


def penalties(
    groups: Mapping[str, Iterable[Tensor]], lambdas: Mapping[str, float] = LAMBDAS, parity: Parity = "paper"
) -> Losses:
    r"""Squared norms :math:`\|\theta\|^2` of groups of parameters, biases included, as loss terms.

    Parameters
    ----------
    groups : mapping of str to parameters
        Keys of ``lambdas``; each parameter belongs to one group.
    lambdas : mapping of str to float
        Weight of each group.
    parity : {"paper", "release"}
        The released code takes half of each squared norm.

    Notes
    -----
    Not the ``weight_decay`` of an optimiser: its gradient is :math:`\lambda\theta`, ours :math:`2\lambda\theta`, and
    AdamW's does not even pass through the moments.
    """
    factor = 1.0 if parity == "paper" else 0.5
    return {f"penalty_{name}": Term(factor * squared_norm(group), lambdas[name]) for name, group in groups.items()}


def squared_norm(parameters: Iterable[Tensor]) -> Tensor:
    """Sum of squares of all entries, in float32."""
    squares = [parameter.float().square().sum() for parameter in parameters]
    return torch.stack(squares).sum() if squares else torch.zeros(())
