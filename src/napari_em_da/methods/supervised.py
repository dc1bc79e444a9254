"""Supervised training: weighted cross-entropy and overlap loss on the labelled source.

When it helps: the target is annotated at least in part, or as the baseline that adaptation has to beat.

When it fails: the target looks different from everything that was annotated.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from napari_em_da.config import Options
from napari_em_da.losses._base import Losses
from napari_em_da.methods._base import Method, MethodSpec, Setup
from napari_em_da.sampling import Sample


class SupervisedOptions(Options):
    """Supervised training has no options of its own."""


class Supervised(Method):
    """Minimise the segmentation loss on the source."""

    def step(self, batch: Mapping[str, Sample], step: int) -> Iterator[tuple[str, Losses]]:
        """Yield the segmentation loss of one batch of labelled windows."""
        source = batch["source"]
        logits = self.network(source.image)  # (B, C, [Z,] Y, X)
        yield "network", self.loss(logits, source.annotation, source.weights)


def build(setup: Setup, options: SupervisedOptions) -> Method:
    """Build the method."""
    return Supervised(setup)


METHOD = MethodSpec(build, SupervisedOptions)
