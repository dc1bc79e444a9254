"""Adversarial label-distribution adaptation: target predictions must look like source label maps.

When it helps: predictions on the target are ragged or patchy while label maps of the source are clean.

When it fails: the class is a blob that can be painted anywhere: the adversary sees label maps only, not whether they
fit the image.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from napari_em_da.losses._base import Losses, Term
from napari_em_da.methods._base import Method, MethodSpec, Setup
from napari_em_da.methods._judging import Judging, JudgingOptions, coverage, label_maps
from napari_em_da.methods._parts import Adaptation, Views


class AdversarialOptions(JudgingOptions):
    """Options of the label-distribution adversary."""

    real: Literal["labels", "predictions"] = Field(
        "predictions",
        description="What the discriminator sees as true: source label maps, or predictions of the source",
    )
    parity: bool = Field(False, description="As in the paper: minimax, no source loss, no leak countermeasures")


class AdversarialPart(Judging):
    """Alternate a discriminator of label maps with a network that makes target predictions pass as true.

    Notes
    -----
    L2 = -E log s(D(y_source)), L3 = -E log(1 - s(D(p_target))). The discriminator descends L2 + L3; the network
    descends -L3 (``minimax``) or -E log s(D(p_target)) (``nonsaturating``). Departures from the paper, all off with
    ``parity``: the source loss stays on, predictions on the source stand for its label maps, and both kinds are
    blurred, because otherwise hard against soft maps alone tells them apart. Softened label maps (``real="labels"``)
    still do: their plateaus have a value of their own, and on the phantom the network learned to be unsure.
    The blur is drawn anew for each player's turn. To spare time, half of the target windows are judged (``windows``).

    The paper's joint embedding is this part (or ``conditional``) beside one that aligns the features of both domains,
    so that they share one encoder instead of drifting apart::

        method:
          name: combined
          options:
            parts:
              - {name: adversarial, options: {lambda_adv: 0.01}}
              - {name: coral}

    References
    ----------
    .. [1] Goodfellow et al. (2014), Generative adversarial nets, NeurIPS.
    """

    options: AdversarialOptions

    def __init__(self, setup: Setup, options: AdversarialOptions) -> None:
        super().__init__(literal(options), setup.network.classes)

    def rivals(self, views: Views) -> Iterator[tuple[str, Losses]]:
        """Yield what the discriminator learns from: maps of the source are true, predictions of the target false."""
        maps, known = self._true_maps(views)
        real = self.disturbed(views, maps)
        fake = self.disturbed(views, self.predicted(views).detach())
        on_real, on_fake = self.discriminator(real), self.discriminator(fake)
        yield (
            self.title[0],
            {
                "disc_real": Term(F.softplus(-on_real.float()).mul(coverage(known, on_real)).mean()),
                "disc_fake": Term(F.softplus(on_fake.float()).mean()),
            },
        )

    def _true_maps(self, views: Views) -> tuple[Tensor, Tensor]:
        """Return the maps that count as true and where they are known (B, 1, [Z,] Y, X)."""
        if self.options.real == "predictions":
            maps = views.on_source[0].detach().float().softmax(1)
            return maps, torch.ones_like(maps[:, :1])
        return label_maps(views.source.annotation, views.network.classes, self.options.smoothing)


def literal(options: AdversarialOptions) -> AdversarialOptions:
    """Return the options that ``parity`` stands for; others as they are."""
    if not options.parity:
        return options
    plain = {"objective": "minimax", "lambda_adv": 1.0, "lambda_sup": 0.0, "smoothing": 0.0, "blur_px": 0.0}
    whole = {"windows": 1.0, "discriminator_width": 64}
    return options.model_copy(update={**plain, **whole, "instance_noise": 0.0, "warm_up": 0.0, "real": "labels"})


def build(setup: Setup, options: AdversarialOptions) -> Method:
    """Build the method."""
    options = literal(options)
    return Adaptation(setup, options, [AdversarialPart(setup, options)])


def keeps(options: AdversarialOptions) -> float:
    """Return of how many passes a step keeps the activations: the discriminator's are less than a third."""
    return 1.3 + literal(options).windows


METHOD = MethodSpec(build, AdversarialOptions, streams=("source", "target"), part=AdversarialPart, keeps=keeps)
