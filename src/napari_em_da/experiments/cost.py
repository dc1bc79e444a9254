"""What a step of a method costs, as a multiple of a supervised step in the same process."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from napari_em_da.config import TrainConfig
from napari_em_da.workflows.speed import stepper


def ratio(config: TrainConfig, rounds: int = 5) -> float:
    """Return the median seconds of a step of ``config``'s method over those of a supervised one, interleaved.

    Random windows of the config's size; network, precision and device as the config says.
    """
    steps = {name: stepper(config, name)[0] for name in ("supervised", config.method.name)}
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(rounds + 1):
        for name, step in steps.items():
            start = time.perf_counter()
            step(number)
            if number:
                seconds[name].append(time.perf_counter() - start)
    return float(np.median(seconds[config.method.name]) / np.median(seconds["supervised"]))


def operations(config: TrainConfig, steps: int = 4) -> float:
    """Return the multiplications of convolutions and matrix products in a step over those in a supervised one.

    Other than seconds they do not depend on what else the machine does; what is cheap in them (norms, losses) is left
    out.
    """
    counts: list[int] = []
    for name in ("supervised", config.method.name):
        step, _ = stepper(config, name)
        with _Counter() as counter:
            for number in range(steps):
                step(number)
        counts.append(counter.total)
    return counts[1] / counts[0]


class _Counter(TorchDispatchMode):
    """Adds up the operations of what runs inside; unlike torch's FlopCounterMode it bears autograd.grad."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        count = flop_registry.get(func.overloadpacket)
        if count is not None:
            self.total += count(*args, **(kwargs or {}), out_val=out)
        return out
