"""Adversarial label-distribution adaptation: target predictions must look like source label maps (S0)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from napari_em_da.config import Fraction, NonNegative, Options, Positive
from napari_em_da.losses._base import Losses, Term
from napari_em_da.methods._base import Method, MethodSpec, Player, Setup
from napari_em_da.models._base import SegmentationNet
from napari_em_da.models._discriminator import PatchDiscriminator
from napari_em_da.models._statistics import DomainStatistics
from napari_em_da.sampling import Sample


class AdversarialOptions(Options):
    """Options of the label-distribution adversary."""

    objective: Literal["nonsaturating", "minimax"] = Field("nonsaturating", description="What the network descends")
    lambda_adv: NonNegative = Field(1e-2, description="Weight of the adversarial loss")
    lambda_sup: NonNegative = Field(1.0, description="Weight of the source loss beside it (0 in the paper: drifts)")
    real: Literal["labels", "predictions"] = Field(
        "predictions",
        description="What the discriminator sees as true: source label maps, or predictions of the source",
    )
    smoothing: Annotated[float, Field(ge=0, lt=0.5)] = Field(
        0.1, description="Softens true label maps to 1 minus this, where real is labels"
    )
    blur_px: NonNegative = Field(1.5, description="Largest sigma of the blur of both true and false maps")
    straight_through: bool = Field(False, description="Show the discriminator hard predictions, pass gradients through")
    instance_noise: NonNegative = Field(0.0, description="Noise on both maps, decaying to 0 over the run")
    statistics: Literal["per_domain", "shared"] = Field("per_domain", description="Batch-norm statistics of the target")
    discriminator_rate: Positive = Field(1e-4, description="Learning rate of the discriminator (Adam, 0.5, 0.999)")
    warm_up: Fraction = Field(0.05, description="Share of the steps in which the discriminator learns alone")
    parity: bool = Field(False, description="As in the paper: minimax, no source loss, no leak countermeasures")


class Adversarial(Method):
    """Alternate a discriminator of label maps with a network that makes target predictions pass as true.

    Notes
    -----
    L2 = -E log s(D(y_source)), L3 = -E log(1 - s(D(p_target))). The discriminator descends L2 + L3; the network
    descends -L3 (``minimax``) or -E log s(D(p_target)) (``nonsaturating``). Departures from the paper, all off with
    ``parity``: the source loss stays on, predictions on the source stand for its label maps, and both kinds are
    blurred, because otherwise hard against soft maps alone tells them apart. Softened label maps (``real="labels"``)
    still do: their plateaus have a value of their own, and on the phantom the network learned to be unsure.

    References
    ----------
    .. [1] Goodfellow et al. (2014), Generative adversarial nets, NeurIPS.
    """

    def __init__(self, setup: Setup, options: AdversarialOptions) -> None:
        super().__init__(setup)
        if options.parity:
            plain = {"objective": "minimax", "lambda_adv": 1.0, "lambda_sup": 0.0, "smoothing": 0.0, "blur_px": 0.0}
            options = options.model_copy(update={**plain, "instance_noise": 0.0, "warm_up": 0.0, "real": "labels"})
        self.options = options
        self.rate = setup.learning_rate
        self.discriminator = PatchDiscriminator(setup.network.classes)
        self.target_statistics = DomainStatistics(setup.network) if options.statistics == "per_domain" else None

    def players(self) -> dict[str, Player]:
        """The network and the discriminator each have an optimiser."""
        judge = Player(self.discriminator, self.options.discriminator_rate, (0.5, 0.999), scheduled=False)
        return {"discriminator": judge, "network": Player(self.network)}

    def step(self, batch: Mapping[str, Sample], step: int) -> Iterator[tuple[str, Losses]]:
        """Yield the discriminator's losses, then the network's."""
        o, source, target = self.options, batch["source"], batch["target"]
        with self.segmenting("target") as network:
            fake = network(target.image).float().softmax(1)  # (B, C, [Z,] Y, X)
        source_logits = self.network(source.image) if o.lambda_sup or o.real == "predictions" else None

        real, known = self._true_maps(source, source_logits)
        shown = straight_through(fake) if o.straight_through else fake
        noise = o.instance_noise * (1 - step / max(1, self.steps))
        real, shown = (disturb(maps, o.blur_px, noise) for maps in (real, shown))
        on_real, on_fake = self.discriminator(real), self.discriminator(shown.detach())
        yield (
            "discriminator",
            {
                "disc_real": Term(F.softplus(-on_real.float()).mul(coverage(known, on_real)).mean()),
                "disc_fake": Term(F.softplus(on_fake.float()).mean()),
            },
        )

        losses: Losses = {}
        if source_logits is not None and o.lambda_sup:
            for name, term in self.loss(source_logits, source.annotation, source.weights).items():
                losses[name] = Term(term.value, o.lambda_sup * term.weight)
        verdict = self.discriminator(shown).float()
        saturates = o.objective == "minimax"
        adversarial = -F.softplus(verdict).mean() if saturates else F.softplus(-verdict).mean()
        warm = step < o.warm_up * self.steps
        losses["adversarial"] = Term(adversarial, 0.0 if warm else o.lambda_adv)
        yield "network", losses

    @contextmanager
    def segmenting(self, domain: str | None = None) -> Iterator[SegmentationNet]:
        """Lend the network with the statistics of ``domain``; what the run is for is the target."""
        if self.target_statistics is None or domain == "source":
            yield self.network
        else:
            with self.target_statistics.applied(self.network):
                yield self.network

    def _true_maps(self, source: Sample, logits: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the maps that count as true and where they are known (B, 1, [Z,] Y, X)."""
        labels = source.annotation
        if self.options.real == "predictions" and logits is not None:
            return logits.detach().float().softmax(1), torch.ones_like(labels[:, None], dtype=torch.float32)
        classes = self.network.classes
        known = labels != 255
        hot = F.one_hot(torch.where(known, labels, 0), classes).movedim(-1, 1).float()
        rest = self.options.smoothing / max(1, classes - 1)
        soft = hot * (1 - self.options.smoothing - rest) + rest
        return soft, known[:, None].float()


def straight_through(probs: Tensor) -> Tensor:
    """Return the one-hot argmax (B, C, …) whose gradient is that of the probabilities."""
    hard = F.one_hot(probs.argmax(1), probs.shape[1]).movedim(-1, 1).to(probs.dtype)
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
    radius = max(1, int(3 * sigma + 0.5))
    x = torch.arange(-radius, radius + 1, device=maps.device, dtype=maps.dtype)
    kernel = torch.exp(-0.5 * (x / sigma) ** 2)
    kernel = kernel / kernel.sum()
    flat = maps.flatten(0, -3)[:, None]  # (B*C[*Z], 1, Y, X)
    flat = F.conv2d(F.pad(flat, (radius, radius, 0, 0), mode="replicate"), kernel.view(1, 1, 1, -1))
    flat = F.conv2d(F.pad(flat, (0, 0, radius, radius), mode="replicate"), kernel.view(1, 1, -1, 1))
    return flat.reshape(maps.shape)


def coverage(known: Tensor, verdict: Tensor) -> Tensor:
    """Return the share of known pixels below each verdict, so that un-annotated regions do not count as true."""
    if known.ndim == 5:
        known = known.transpose(1, 2).flatten(0, 1)
    return F.adaptive_avg_pool2d(known, (verdict.shape[-2], verdict.shape[-1]))


def build(setup: Setup, options: AdversarialOptions) -> Method:
    """Build the method."""
    return Adversarial(setup, options)


METHOD = MethodSpec(build, AdversarialOptions, streams=("source", "target"))
