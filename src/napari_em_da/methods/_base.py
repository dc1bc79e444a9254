"""What a training method is: a module that turns a batch into losses, once per player."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import nn

from napari_em_da.config import Options, parse
from napari_em_da.losses._base import Losses as Losses
from napari_em_da.losses._base import SegmentationLoss as SegmentationLoss
from napari_em_da.losses._base import Term as Term
from napari_em_da.models._base import SegmentationNet
from napari_em_da.sampling import Sample


@dataclass(frozen=True)
class Setup:
    """What a method is built from."""

    network: SegmentationNet
    loss: SegmentationLoss
    patch: tuple[int, ...]
    steps: int
    learning_rate: float
    prior: tuple[float, ...] = ()  # share of each class among the annotated source voxels, background first


@dataclass(frozen=True)
class Player:
    """One optimiser and what it owns."""

    module: nn.Module
    learning_rate: float | None = None  # None: the run's
    betas: tuple[float, float] | None = None  # None: the optimiser's own
    scheduled: bool = True


class Method(nn.Module):
    """Base of all methods; its modules and buffers are the whole state that a checkpoint saves.

    ``network`` is what the run is about: it is validated, saved and used to segment.
    """

    network: SegmentationNet

    def __init__(self, setup: Setup) -> None:
        super().__init__()
        self.network = setup.network
        self.loss = setup.loss
        self.steps = setup.steps

    def players(self) -> dict[str, Player]:
        """Return who optimises what; one player that owns the network by default."""
        return {"network": Player(self.network)}

    def step(self, batch: Mapping[str, Sample], step: int) -> Iterator[tuple[str, Losses]]:
        """Yield (player, losses) once per player; that player has stepped when the generator resumes.

        ``batch`` holds one sample per stream that the method's spec names.
        """
        raise NotImplementedError

    @contextmanager
    def segmenting(self, domain: str | None = None) -> Iterator[SegmentationNet]:
        """Lend the network that segments ``domain`` (``"source"``, ``"target"``; None: what the run is for).

        A method whose network holds other statistics or weights for a domain puts them in for the length of the block.
        """
        yield self.network


@dataclass(frozen=True)
class MethodSpec:
    """One entry of the catalog of methods.

    ``streams`` names the samples that ``step`` needs: ``"source"`` (labelled) and ``"target"`` (unlabelled).
    ``part`` builds the method's own losses for ``combined``, where it is a sum of parts.
    ``keeps(options)`` says of how many passes through the network a step keeps the activations for its gradients;
    without, of one per stream.
    ``pseudo``: the target comes with labels that the network so far has made of it, round by round.
    """

    build: Callable[[Setup, Any], Method]
    options_type: type[Options]
    streams: tuple[str, ...] = ("source",)
    part: Callable[[Setup, Any], Any] | None = None
    pseudo: bool = False
    keeps: Callable[[Any], float] | None = None

    def create(self, setup: Setup, options: dict[str, Any] | None = None) -> Method:
        """Validate ``options`` and build the method; wrong options are a ConfigError."""
        return self.build(setup, parse(self.options_type, options or {}))

    def kept(self, options: dict[str, Any] | None = None) -> float:
        """Return of how many passes a step keeps the activations, with a batch of windows per stream."""
        parsed = parse(self.options_type, options or {})
        return float(len(self.streams)) if self.keeps is None else self.keeps(parsed)
