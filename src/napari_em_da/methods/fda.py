"""Fourier domain adaptation: train on source windows that have the target's low frequencies.

When it helps: slow brightness changes, charging or overall contrast tell the microscopes apart.

When it fails: texture or sharpness do: these live in the high frequencies, which it leaves alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Annotated

import torch
from pydantic import Field

from napari_em_da.config import Fraction
from napari_em_da.losses._base import Losses
from napari_em_da.methods._appearance import fourier_transfer
from napari_em_da.methods._base import Method, MethodSpec, Setup
from napari_em_da.methods._parts import Adaptation, AdaptationOptions
from napari_em_da.sampling import Sample


class FdaOptions(AdaptationOptions):
    """Options of Fourier domain adaptation."""

    beta: Annotated[float, Field(ge=0, le=0.5)] = Field(0.01, description="Half side of the exchanged square, relative")
    share: Fraction = Field(0.5, description="Share of the source windows that are changed")


class Fda(Adaptation):
    """The source loss on windows whose low-frequency amplitudes are those of target windows.

    Notes
    -----
    The exchange happens on standardised windows after augmentation; with ``beta`` 0 it moves the mean alone. The
    target's batch-norm statistics are collected in a forward pass without gradients.

    References
    ----------
    .. [1] Yang & Soatto (2020), FDA: Fourier domain adaptation for semantic segmentation, CVPR.
    """

    options: FdaOptions

    def step(self, batch: Mapping[str, Sample], step: int) -> Iterator[tuple[str, Losses]]:
        """Exchange amplitudes, then do as any method without parts does."""
        source, target = batch["source"], batch["target"]
        count = round(self.options.share * len(source.image))
        if count:
            mixed = source.image.clone()
            mixed[:count] = fourier_transfer(source.image[:count], target.image[:count], self.options.beta)
            source = replace(source, image=mixed)
        yield from super().step({**batch, "source": source}, step)
        if self.target_statistics is not None:
            with torch.no_grad(), self.adapted() as network:
                network(target.image)


def build(setup: Setup, options: FdaOptions) -> Method:
    """Build the method."""
    return Fda(setup, options, [])


METHOD = MethodSpec(build, FdaOptions, streams=("source", "target"), keeps=lambda _: 1.0)
