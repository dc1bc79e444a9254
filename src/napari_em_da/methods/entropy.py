"""Entropy minimisation: be certain about the target, with as much of each class as the source has.

When it helps: the source model is nearly right on the target, but undecided along borders.

When it fails: it is wrong: it then becomes surely wrong. The prior term keeps it from painting one class everywhere.

Notes
-----
H = mean over pixels of -sum_c p_c log p_c / log C, 0 for certain and 1 for undecided pixels. Certainty alone is best
satisfied by one class everywhere, so KL(mean p, source prior) is minimised beside it. Departures:

- The mean of that term runs over past batches too (``memory``): a batch without mitochondria is no reason to paint
  some. The gradient is that of the current batch; ``memory`` 0 is the plain term.
- Where the source's annotation does not tell the prior, it is the running mean of what the network predicts there.
- Before ``start`` both terms are computed and logged, so that the target's statistics settle, but weigh nothing.

References
----------
.. [1] Grandvalet and Bengio (2005), Semi-supervised learning by entropy minimization, NeurIPS.
.. [2] Vu et al. (2019), ADVENT: adversarial entropy minimization for domain adaptation, CVPR.
.. [3] Yang and Soatto (2020), FDA: Fourier domain adaptation for semantic segmentation, CVPR (robust penalty).
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from napari_em_da.config import Fraction, NonNegative, Positive
from napari_em_da.errors import ConfigError
from napari_em_da.losses._base import Losses, Term
from napari_em_da.methods._base import Setup
from napari_em_da.methods._parts import AdaptationOptions, Part, Views, part_method

RAREST = 1e-4  # a class never counts as rarer than this, so that logarithms and ratios stay finite


class EntropyOptions(AdaptationOptions):
    """Options of entropy minimisation."""

    lambda_entropy: NonNegative = Field(1e-3, description="Weight of the entropy (with the robust penalty try 5e-3)")
    lambda_prior: NonNegative = Field(1e-2, description="Weight of the guard: class shares as in the source")
    start: Fraction = Field(0.2, description="Share of the steps before both weigh anything")
    penalty: Literal["plain", "robust"] = Field("plain", description="Robust leaves undecided pixels to the others")
    eta: Positive = Field(2.0, description="Exponent of the robust penalty (h^2 + 1e-6)^eta")
    memory: Annotated[float, Field(ge=0, lt=1)] = Field(0.9, description="Of the class shares: weight of the past")


class RunningMean(nn.Module):
    """Mean over batches: of all of them at first, then one that forgets; saved with the method.

    Batch n (from 0) enters with weight max(1/(n+1), 1 - ``memory``).
    """

    value: Tensor
    seen: Tensor

    def __init__(self, start: Tensor, memory: float) -> None:
        super().__init__()
        self.memory = memory
        self.register_buffer("value", start)
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def update(self, batch: Tensor) -> Tensor:
        """Take in one batch and return a copy of the mean."""
        self.seen += 1
        self.value.lerp_(batch.to(self.value.dtype), (1 / self.seen).clamp(min=1 - self.memory))
        return self.value.clone()


class ClassPrior(nn.Module):
    """Share of each class in the source: as annotated or, where that is unknown, as the network predicts it there."""

    def __init__(self, setup: Setup) -> None:
        super().__init__()
        classes = setup.network.classes
        self.known = sum(setup.prior) > 0
        if self.known and len(setup.prior) != classes:
            raise ConfigError(
                f"The source's class prior has {len(setup.prior)} shares, but the network has {classes} classes; "
                "give one share per class, background first."
            )
        start = torch.tensor(setup.prior) if self.known else torch.full((classes,), 1 / classes)
        self.mean = RunningMean(start.float(), memory=0.999)

    def shares(self, views: Views) -> Tensor:
        """Return the shares (C,), which sum to 1 and of which none is 0."""
        if not self.known:
            with torch.enable_grad():  # others may need the gradients of this pass, which happens once
                logits = views.on_source[0]
            self.mean.update(mean_share(logits.detach().float().softmax(1)))
        floored: Tensor = self.mean.value.clamp(min=RAREST)
        return floored / floored.sum()


class Entropy(Part):
    """Entropy of the target's predictions, and the divergence of their mean from the source's prior."""

    def __init__(self, setup: Setup, options: EntropyOptions) -> None:
        super().__init__()
        self.options = options
        self.prior = ClassPrior(setup)
        self.mean = RunningMean(torch.zeros(setup.network.classes), options.memory)

    def losses(self, views: Views) -> Losses:
        """Return ``entropy`` and ``class_prior``."""
        o = self.options
        if not o.lambda_entropy and not o.lambda_prior:
            return {}
        log_probs = views.on_target[0].float().log_softmax(1)
        h = pixel_entropy(log_probs)
        if o.penalty == "robust":
            h = (h * h + 1e-6) ** o.eta
        now = mean_share(log_probs.exp())
        running = self.mean.update(now.detach()) + (now - now.detach())  # the past's value, the present's gradient
        on = float(views.progress >= o.start)
        return {
            "entropy": Term(h.mean(), on * o.lambda_entropy),
            "class_prior": Term(divergence(running, self.prior.shares(views)), on * o.lambda_prior),
        }


def pixel_entropy(log_probs: Tensor) -> Tensor:
    """Return the entropy of each pixel (B, …) as a share of the largest possible, from log probabilities (B, C, …)."""
    return -(log_probs.exp() * log_probs).sum(1) / math.log(log_probs.shape[1])


def mean_share(probs: Tensor) -> Tensor:
    """Return the mean probability of each class (C,) from (B, C, …)."""
    return probs.movedim(1, 0).flatten(1).mean(1)


def divergence(shares: Tensor, prior: Tensor) -> Tensor:
    """Return KL(shares, prior), of distributions (C,)."""
    return torch.xlogy(shares, shares.clamp(min=1e-9) / prior).sum()


METHOD = part_method(Entropy, EntropyOptions)
