"""Domain-adversarial training (DANN): features must not tell a classifier which microscope they come from.

When it helps: differences between the microscopes are more than contrast and spread.

When it fails: the classifier wins or gives up (watch `domain_accuracy`: near 1 or exactly 0.5 for long), and when the
classes' shares differ much.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from napari_em_da.config import Positive
from napari_em_da.losses._base import Losses, Term
from napari_em_da.methods._base import Player, Setup
from napari_em_da.methods._features import AlignmentOptions, keeps, tap_lambdas
from napari_em_da.methods._parts import Part, Views, part_method
from napari_em_da.models._domain_classifier import DomainClassifier

CLASSIFIER = "domain_classifier"  # the player


class DannOptions(AlignmentOptions):
    """Options of domain-adversarial training."""

    alpha: Literal["ganin", "constant"] = Field(
        "ganin", description="Strength of the reversal: rising from 0 to 1 over the run, or 1 throughout"
    )
    classifier_rate: Positive = Field(1e-3, description="Learning rate of the domain classifiers")


class Dann(Part):
    r"""One domain classifier per aligned level, and a network that descends their reversed loss.

    Notes
    -----
    The classifiers descend the cross-entropy of the domain (source 0, target 1). The network descends
    :math:`L_s + \sum_i \lambda_i L_i` with the gradient of each :math:`L_i` multiplied by :math:`-\alpha` where it
    enters the features. ``domain_accuracy`` is logged: towards 0.5 the domains have become alike; above 0.95 for long
    there is no adaptation; at 0.5 from the start the classifier has not learned anything.

    Departures from [1]_ and [2]_: the classifiers are players of their own that step first, with a learning rate and
    a clipping of their own, so that ``lambda_total`` and the schedule concern the network alone; they average over
    space and use group norm, so that any window size and a batch of one will do.
    Unless its features are aligned, the decoder sees the target in every other step only, for its statistics.

    References
    ----------
    .. [1] Ganin et al. (2016), Domain-adversarial training of neural networks, JMLR 17.
    .. [2] Roels et al. (2019), Domain adaptive segmentation in volume electron microscopy imaging, ISBI.
    """

    def __init__(self, setup: Setup, options: DannOptions) -> None:
        super().__init__()
        self.options = options
        network = setup.network
        taps = list(network.tap_channels)
        self.lambdas = tap_lambdas(taps, options)
        self.whole = bool(options.decoder_taps)
        bottom = taps.index("bottleneck")
        self.classifiers = nn.ModuleDict(
            {  # the finer the level, the more convolutions, so that all look at patches of about the same size
                tap: DomainClassifier(network.ndim, network.tap_channels[tap], 2 + abs(taps.index(tap) - bottom))
                for tap in self.lambdas
            }
        )

    def players(self) -> dict[str, Player]:
        """The classifiers have an optimiser of their own."""
        return {CLASSIFIER: Player(self.classifiers, self.options.classifier_rate, scheduled=False)}

    def rivals(self, views: Views) -> Iterator[tuple[str, Losses]]:
        """Yield what the classifiers descend, and their mean accuracy."""
        source, target = views.on_source[1], views.target_encoded
        losses: Losses = {}
        accuracies = []
        for tap in self.lambdas:
            logits, domains = self._judge(tap, source[tap].detach(), target[tap].detach())
            losses[f"domain_{tap}"] = Term(F.cross_entropy(logits, domains))
            accuracies.append((logits.argmax(1) == domains).float().mean())
        losses["domain_accuracy"] = Term(torch.stack(accuracies).mean(), 0.0)
        yield CLASSIFIER, losses

    def losses(self, views: Views) -> Losses:
        """Return the domain losses, whose gradients are reversed in the features."""
        source, target = views.on_source[1], views.target_encoded
        alpha = 1.0 if self.options.alpha == "constant" else ganin(views.progress)
        losses: Losses = {}
        for tap, weight in self.lambdas.items():
            logits, domains = self._judge(tap, reverse(source[tap], alpha), reverse(target[tap], alpha))
            losses[f"dann_{tap}"] = Term(F.cross_entropy(logits, domains), weight)
        return losses

    def _judge(self, tap: str, source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits (2B, 2) of the windows of both domains and their domains, source 0 and target 1."""
        on_source, on_target = self.classifiers[tap](source), self.classifiers[tap](target)
        domains = torch.cat([torch.zeros_like(on_source[:, 0]), torch.ones_like(on_target[:, 0])])
        return torch.cat([on_source, on_target]).float(), domains.long()


class _Reversal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, alpha: float) -> Tensor:
        ctx.alpha = alpha
        return features.view_as(features)  # a new tensor: autograd needs one to hang the backward pass on

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return -ctx.alpha * gradients[0], None


def reverse(features: Tensor, alpha: float) -> Tensor:
    """Return the features as they are; their gradient is multiplied by ``-alpha``."""
    reversed_: Tensor = _Reversal.apply(features, alpha)
    return reversed_


def ganin(progress: float) -> float:
    """Return the strength of the reversal, 2 / (1 + exp(-10 p)) - 1, after a share ``progress`` of the run."""
    return 2 / (1 + math.exp(-10 * progress)) - 1


METHOD = part_method(Dann, DannOptions, keeps)
