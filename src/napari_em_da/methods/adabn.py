"""Adaptive batch norm: keep every weight and replace the batch-norm statistics by the target's.

When it helps: the microscopes differ in contrast and brightness mostly; it takes a minute and needs no labels, so try
it first.

When it fails: the structures themselves look different, or the target shows the class much more or less often than
the source.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from napari_em_da.config import Options
from napari_em_da.errors import ConfigError
from napari_em_da.losses._base import Losses
from napari_em_da.methods._base import Method, MethodSpec, Player, Setup
from napari_em_da.models._statistics import norms
from napari_em_da.sampling import Sample


class AdaBNOptions(Options):
    """Adaptive batch norm has no options; ``training.steps`` says how many target windows are seen."""


class AdaBN(Method):
    """Run target windows through the network and average their statistics, without gradients.

    Notes
    -----
    The statistics are reset once and then averaged cumulatively, so that after n steps they are those of all windows
    seen. Nothing is optimised: the run costs a forward pass per step, and no source window is read.

    References
    ----------
    .. [1] Li et al. (2018), Adaptive batch normalization for practical domain adaptation, Pattern Recognition 80.
    """

    def __init__(self, setup: Setup, options: AdaBNOptions) -> None:
        super().__init__(setup)
        found = norms(setup.network)
        if not found:
            raise ConfigError("This network has no batch norm, so adabn has nothing to adapt; choose another method.")
        for norm in found:
            if isinstance(norm, _BatchNorm):
                norm.momentum = None  # a cumulative average

    def players(self) -> dict[str, Player]:
        """Nobody optimises anything."""
        return {}

    def step(self, batch: Mapping[str, Sample], step: int) -> Iterator[tuple[str, Losses]]:
        """Collect the statistics of one batch."""
        if step == 0:
            for norm in norms(self.network):
                if isinstance(norm, _BatchNorm):
                    norm.reset_running_stats()
        with torch.no_grad():
            self.network(batch["target"].image)
        yield from ()


def build(setup: Setup, options: AdaBNOptions) -> Method:
    """Build the method."""
    return AdaBN(setup, options)


METHOD = MethodSpec(build, AdaBNOptions, streams=("target",), keeps=lambda _: 0.3)  # what one pass holds at a time
