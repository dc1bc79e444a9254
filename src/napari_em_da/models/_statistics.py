"""Batch-norm statistics per domain: one network, one set of weights, two sets of running means and variances."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

BUFFERS = ("running_mean", "running_var", "num_batches_tracked")


class DomainStatistics(nn.Module):
    """A second set of batch-norm statistics, saved with the method that owns it.

    Forward passes inside ``with statistics.applied(network):`` read and update this set; the network's own stays as it
    was. Networks without batch norm are left alone.

    References
    ----------
    .. [1] Li et al. (2018), Adaptive batch normalization for practical domain adaptation, Pattern Recognition 80.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        for index, norm in enumerate(norms(network)):
            for name in BUFFERS:
                self.register_buffer(f"{name}_{index}", getattr(norm, name).detach().clone())

    @contextmanager
    def applied(self, network: nn.Module) -> Iterator[None]:
        """Exchange the statistics for the length of a block."""
        self._exchange(network)
        try:
            yield
        finally:
            self._exchange(network)

    def _exchange(self, network: nn.Module) -> None:
        for index, norm in enumerate(norms(network)):
            for name in BUFFERS:
                key = f"{name}_{index}"
                mine: Tensor = self._buffers[key]  # type: ignore[assignment]
                self._buffers[key] = norm._buffers[name]
                norm._buffers[name] = mine


def norms(network: nn.Module) -> list[nn.Module]:
    """Return the batch-norm layers that track statistics, in a fixed order."""
    return [m for m in network.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
