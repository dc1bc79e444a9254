"""Adaptation as a sum of parts: each part adds losses to the source's, and a method is one part or several."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from napari_em_da.config import NonNegative, Options
from napari_em_da.losses._base import Losses, Term
from napari_em_da.methods._base import Method, MethodSpec, Player, Setup
from napari_em_da.models._base import SegmentationNet
from napari_em_da.models._statistics import DomainStatistics, norms
from napari_em_da.sampling import Sample

Forward = tuple[Tensor, dict[str, Tensor]]  # logits (B, C, …) and features by tap
DECODER_EVERY = 2  # steps


class AdaptationOptions(Options):
    """What every method made of parts has."""

    lambda_sup: NonNegative = Field(1.0, description="Weight of the source loss")
    statistics: Literal["per_domain", "shared"] = Field("per_domain", description="Batch-norm statistics of the target")


class Views:
    """What one training step has computed: each forward pass happens once, and only if something asks for it."""

    def __init__(self, method: Adaptation, batch: Mapping[str, Sample], step: int) -> None:
        self.method = method
        self.batch = batch
        self.step = step
        self._decoded = False  # has the whole network seen the target?

    @property
    def network(self) -> SegmentationNet:
        return self.method.network

    @property
    def progress(self) -> float:
        """Share of the run that is done, 0 to 1."""
        return self.step / max(1, self.method.steps)

    @property
    def source(self) -> Sample:
        return self.batch["source"]

    @property
    def target(self) -> Sample:
        return self.batch["target"]

    @cached_property
    def seen(self) -> Tensor:
        """The target windows (n, 1, …) that the network is run on: as many as the part that asks for most wants."""
        return self.target.image[: self.count(self.method.windows)]

    def count(self, share: float) -> int:
        """Return how many windows of a batch are a share of it, two at least."""
        return max(2, math.ceil(share * len(self.target.image)))

    @cached_property
    def on_source(self) -> Forward:
        """The network's logits and features of the source, with gradients."""
        return self.network.forward_taps(self.source.image)

    @cached_property
    def on_target(self) -> Forward:
        """The network's logits and features of ``seen``, with gradients, under the target's statistics."""
        return self.forward_target(self.seen)

    def forward_target(self, image: Tensor) -> Forward:
        """Run the network on other target windows, under the target's statistics."""
        self._decoded = True
        with self.method.adapted() as network:
            return network.forward_taps(image)

    @cached_property
    def target_encoded(self) -> dict[str, Tensor]:
        """The network's features of ``seen``, with gradients.

        Where no part reads ``on_target``, only those of the encoder; then ``finish`` has to follow.
        """
        if self.method.decodes:
            return self.on_target[1]
        with self.method.adapted() as network:
            return network.encoder_taps(self.seen)

    def finish(self) -> None:
        """Let the decoder's statistics follow the target where nothing ran the decoder on it in this step.

        What the domains share has to see both equally often; the target's own are means over many batches, which every
        other one serves as well.
        """
        due = self.method.target_statistics is None or self.step % DECODER_EVERY == 0
        if not due or self._decoded or "target_encoded" not in vars(self) or not norms(self.network):
            return
        with self.method.adapted() as network, torch.no_grad():
            network.run_decoder(self.target_encoded)


class Part(nn.Module):
    """One idea of adaptation; its modules and buffers are saved with the method that holds it.

    A part draws randomness from torch's default generator, which the loop seeds for every step, and only after the
    source has been run through the network, so that a part of weight 0 changes nothing.

    Attributes
    ----------
    whole : bool
        Whether it reads ``views.on_target``; a part that is content with ``views.target_encoded`` costs less.
    windows : float
        Share of the target windows that it needs in ``views.seen``; it gets these or more. 0: not read.
    """

    whole: bool = True
    windows: float = 1.0

    def players(self) -> dict[str, Player]:
        """Return further players, such as a discriminator."""
        return {}

    def rivals(self, views: Views) -> Iterator[tuple[str, Losses]]:
        """Yield (player, losses) of those players before the network's turn."""
        yield from ()

    def losses(self, views: Views) -> Losses:
        """Return what the network shall descend beside the source loss."""
        return {}

    def after(self, method: Adaptation, step: int) -> None:
        """Follow the network once it has stepped, as an averaged teacher does."""

    def judged(self, network: SegmentationNet) -> SegmentationNet:
        """Return the network that segments the target; a teacher may stand in for the network."""
        return network


class Adaptation(Method):
    """The source loss plus the losses of its parts."""

    def __init__(self, setup: Setup, options: AdaptationOptions, parts: Sequence[Part]) -> None:
        super().__init__(setup)
        self.options = options
        self.parts: Sequence[Part] = nn.ModuleList(parts)  # type: ignore[assignment]  # iterates over parts
        self.decodes = any(part.whole for part in parts)
        self.windows = max((part.windows for part in parts), default=1.0)
        self.target_statistics = DomainStatistics(setup.network) if options.statistics == "per_domain" else None

    def players(self) -> dict[str, Player]:
        """The network's, and those of the parts."""
        found = {name: player for part in self.parts for name, player in part.players().items()}
        return {**found, "network": Player(self.network)}

    def step(self, batch: Mapping[str, Sample], step: int) -> Iterator[tuple[str, Losses]]:
        """Yield the parts' own players, then the network's losses."""
        views = Views(self, batch, step)
        losses: Losses = {}
        if self.options.lambda_sup:
            source = views.source
            for name, term in self.loss(views.on_source[0], source.annotation, source.weights).items():
                losses[name] = Term(term.value, self.options.lambda_sup * term.weight)
        for part in self.parts:
            yield from part.rivals(views)
        for part in self.parts:
            losses |= part.losses(views)
        views.finish()
        yield "network", losses
        for part in self.parts:
            part.after(self, step)

    @contextmanager
    def adapted(self) -> Iterator[SegmentationNet]:
        """Lend the network with the target's statistics."""
        if self.target_statistics is None:
            yield self.network
        else:
            with self.target_statistics.applied(self.network):
                yield self.network

    @contextmanager
    def segmenting(self, domain: str | None = None) -> Iterator[SegmentationNet]:
        """Lend the network for ``domain``; what the run is for is the target."""
        if domain == "source":
            yield self.network
            return
        with self.adapted() as network:
            judged = network
            for part in self.parts:
                judged = part.judged(judged)
            yield judged


def part_method(
    part: Callable[[Setup, Any], Part],
    options_type: type[AdaptationOptions],
    keeps: Callable[[Any], float] | None = None,
) -> MethodSpec:
    """Return the catalog entry of a method that is one part; ``combined`` can use the part too."""

    def build(setup: Setup, options: AdaptationOptions) -> Method:
        return Adaptation(setup, options, [part(setup, options)])

    return MethodSpec(build, options_type, streams=("source", "target"), part=part, keeps=keeps)
