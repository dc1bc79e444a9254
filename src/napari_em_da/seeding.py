"""Random numbers of torch that depend on a seed alone, whatever else runs in the process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

# torch keeps one stream of random numbers for all threads: whoever draws from it with a seed has it to himself
_TURN = threading.RLock()


@contextmanager
def seeded(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Draw from torch's generators as ``torch.manual_seed(seed)`` says, and leave the caller's stream alone.

    Other threads that ask for the same wait, so that two jobs in one process draw what each draws alone.

    Parameters
    ----------
    seed : int
        Taken modulo 2**63.
    device : torch.device, optional
        A GPU whose stream is seeded, too.
    """
    gpus = [device] if device is not None and device.type == "cuda" else []
    with _TURN, torch.random.fork_rng(devices=gpus):
        torch.manual_seed(seed & 0x7FFF_FFFF_FFFF_FFFF)
        yield


__all__ = ["seeded"]
