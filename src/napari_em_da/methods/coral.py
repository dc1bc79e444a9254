"""Feature alignment by correlation (CORAL): channels must vary together on the target as they do on the source.

When it helps: the same features should mean the same in both volumes, and only their spread and correlation changed.

When it fails: the classes' shares differ much between the volumes, since whole distributions are aligned.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from napari_em_da.methods._base import Setup
from napari_em_da.methods._features import Distance, DistanceOptions, keeps
from napari_em_da.methods._parts import part_method


class CoralOptions(DistanceOptions):
    """Options of the alignment by correlation."""

    scale_free: bool = Field(
        True, description="In units of the mean variance of both domains, so that lambdas carry over"
    )


class Coral(Distance):
    r"""Add :math:`\sum_i \lambda_i\,\mathrm{CORAL}(f_i^s, f_i^t)` to the source loss.

    Notes
    -----
    Departures from [1]_: samples are positions and dimensions are channels, and covariances are in units of the mean
    variance of all channels of both domains (``scale_free``). The loss then is at most 1 and unchanged when all
    features are multiplied by a number; without, it grows with the fourth power of that, and the network can please it
    by features near 0. The gradient passes through that unit: taken for a constant, it let the variance of the features
    vanish on the phantom within 200 steps at ``lambda_total`` 1. More weight is not better here either: see ``mmd``.

    The loss does not see a shift of the mean. With fewer positions than channels (a small ``patch_px``) the covariances
    lack full rank: both still are right on average, but the distance of two draws from the same distribution grows.

    To spare time, features come from 3 of 8 target windows by default (``windows``), the decoder is not run on
    them unless its features are aligned, and its statistics of the target follow in every other step only.

    References
    ----------
    .. [1] Sun and Saenko (2016), Deep CORAL: correlation alignment for deep domain adaptation, ECCV workshops.
    """

    name = "coral"

    def __init__(self, setup: Setup, options: CoralOptions) -> None:
        super().__init__(setup, options)
        self.scale_free = options.scale_free

    def distance(self, source: Tensor, target: Tensor) -> Tensor:
        """Return the distance of the covariances."""
        return coral(source, target, scale_free=self.scale_free)


def coral(x: Tensor, y: Tensor, *, scale_free: bool = False) -> Tensor:
    r"""Distance of two covariances, :math:`\|\mathrm{Cov}_x - \mathrm{Cov}_y\|_F^2 / (4 C^2)`.

    Parameters
    ----------
    x, y : Tensor (n, C), (m, C), float32
        Samples of two distributions, at least 2 of each.
    scale_free : bool
        Divide both covariances by the mean variance of all channels of both samples.

    Returns
    -------
    Tensor ()

    References
    ----------
    .. [1] Sun and Saenko (2016), Deep CORAL: correlation alignment for deep domain adaptation, equations 1 to 3.
    """
    of_x, of_y = covariance(x), covariance(y)
    difference = of_x - of_y
    if scale_free:
        scale = (of_x + of_y).diagonal().mean() / 2  # with its gradient: without, smaller features would pay
        difference = difference / torch.where(scale > 0, scale, 1.0)
    return difference.square().sum() / (4 * x.shape[1] ** 2)


def covariance(x: Tensor) -> Tensor:
    """Return the unbiased covariance (C, C) of samples (n, C)."""
    centred = x - x.mean(0)
    return centred.T @ centred / (len(x) - 1)


METHOD = part_method(Coral, CoralOptions, keeps)
