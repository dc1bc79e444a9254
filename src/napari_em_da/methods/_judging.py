"""What methods with a discriminator of label maps share: their options, the two turns and how maps are shown."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from napari_em_da.config import Fraction, NonNegative, Positive
from napari_em_da.losses._base import IGNORE, Losses, Term
from napari_em_da.methods._base import Player
from napari_em_da.methods._parts import AdaptationOptions, Part, Views
from napari_em_da.models._discriminator import PatchDiscriminator


class JudgingOptions(AdaptationOptions):
    """What every method with a discriminator of label maps has."""

    objective: Literal["nonsaturating", "minimax"] = Field("nonsaturating", description="What the network descends")
    lambda_adv: NonNegative = Field(1e-2, description="Weight of the adversarial loss")
    smoothing: Annotated[float, Field(ge=0, lt=0.5)] = Field(
        0.1, description="Softens true label maps to 1 minus this, where real is labels"
    )
    blur_px: NonNegative = Field(1.5, description="Largest sigma of the blur of both true and false maps")
    straight_through: bool = Field(False, description="Show the discriminator hard predictions, pass gradients through")
    instance_noise: NonNegative = Field(0.0, description="Noise on both maps, decaying to 0 over the run")
    discriminator_rate: Positive = Field(1e-4, description="Learning rate of the discriminator (Adam, 0.5, 0.999)")
    discriminator_width: Annotated[int, Field(ge=8, le=512)] = Field(
        32, description="Channels of the discriminator's first layer, doubling from layer to layer"
    )
    windows: Annotated[float, Field(gt=0, le=1)] = Field(
        0.5, description="Share of the target windows that are judged, of two at least"
    )
    warm_up: Fraction = Field(0.05, description="Share of the steps in which the discriminator learns alone")


class Judging(Part):
    """A discriminator learns what is true; the network makes its target predictions pass as true.

    A subclass says in ``rivals`` what the discriminator learns from. ``title`` names its player and the network's loss.
    """

    title: tuple[str, str] = ("discriminator", "adversarial")

    def __init__(self, options: JudgingOptions, in_channels: int) -> None:
        super().__init__()
        self.options = options
        self.windows = options.windows
        self.discriminator = PatchDiscriminator(in_channels, width=options.discriminator_width)

    def players(self) -> dict[str, Player]:
        """The discriminator has an optimiser of its own."""
        judge = Player(self.discriminator, self.options.discriminator_rate, (0.5, 0.999), scheduled=False)
        return {self.title[0]: judge}

    def losses(self, views: Views) -> Losses:
        """Return what makes target predictions pass as true."""
        o = self.options
        verdict = self.judge(self.disturbed(views, self.predicted(views)), views).float()
        loss = -F.softplus(verdict).mean() if o.objective == "minimax" else F.softplus(-verdict).mean()
        warm = views.step < o.warm_up * views.method.steps
        return {self.title[1]: Term(loss, 0.0 if warm else o.lambda_adv)}

    def judge(self, maps: Tensor, views: Views) -> Tensor:
        """Return the verdict on maps of the target."""
        verdict: Tensor = self.discriminator(maps)
        return verdict

    def predicted(self, views: Views) -> Tensor:
        """Return the target's predictions (B, C, [Z,] Y, X), with gradients."""
        probs = views.on_target[0].float().softmax(1)
        return straight_through(probs) if self.options.straight_through else probs

    def disturbed(self, views: Views, maps: Tensor) -> Tensor:
        """Return maps, true or false, as the discriminator gets to see them."""
        return disturb(maps, self.options.blur_px, self.options.instance_noise * (1 - views.progress))


def label_maps(labels: Tensor, classes: int, smoothing: float = 0.0) -> tuple[Tensor, Tensor]:
    """Return label maps (B, C, [Z,] Y, X) with 1 - ``smoothing`` at the label, and where there is one (B, 1, …)."""
    known = labels != IGNORE
    hot = F.one_hot(torch.where(known, labels, 0), classes).movedim(-1, 1).float()
    rest = smoothing / max(1, classes - 1)
    return hot * (1 - smoothing - rest) + rest, known[:, None].float()


def largest(scores: Tensor) -> Tensor:
    """Return the class (B, …) int64 of the largest score (B, C, …); ties go to the smallest class."""
    return scores.max(1).indices  # argmax takes ten times as long on a CPU


def straight_through(probs: Tensor) -> Tensor:
    """Return the one-hot argmax (B, C, …) whose gradient is that of the probabilities."""
    hard = F.one_hot(largest(probs), probs.shape[1]).movedim(-1, 1).to(probs.dtype)
    return hard + probs - probs.detach()


def disturb(maps: Tensor, blur_px: float, noise: float) -> Tensor:
    """Blur label maps (B, C, [Z,] Y, X) in the plane by a sigma drawn from [0, ``blur_px``], then add noise."""
    if blur_px:
        sigma = float(torch.rand(())) * blur_px
        if sigma > 0.1:
            maps = blur(maps, sigma)
    if noise:
        maps = maps + noise * torch.randn_like(maps)
    return maps


def blur(maps: Tensor, sigma: float) -> Tensor:
    """Gaussian blur in the plane, separable, truncated at 3 sigma, edges replicated."""
    down, across = (gaussian(size, sigma).to(maps) for size in maps.shape[-2:])
    return down @ maps @ across.T


def gaussian(size: int, sigma: float) -> Tensor:
    """Return the blur of a line of ``size`` pixels as a matrix, which multiplies faster than one channel convolves."""
    radius = max(1, int(3 * sigma + 0.5))
    offset = torch.arange(-radius, radius + 1)
    kernel = torch.exp(-0.5 * (offset / sigma) ** 2)
    reached = (torch.arange(size)[:, None] + offset).clamp(0, size - 1)
    return torch.zeros(size, size).scatter_add_(1, reached, (kernel / kernel.sum()).expand(size, -1))


def coverage(known: Tensor, verdict: Tensor) -> Tensor:
    """Return the share of known pixels below each verdict, so that un-annotated regions do not count as true."""
    if known.ndim == 5:
        known = known.transpose(1, 2).flatten(0, 1)
    return F.adaptive_avg_pool2d(known, (verdict.shape[-2], verdict.shape[-1]))
