"""What a step of a method costs, as a multiple of a supervised step in the same process."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from napari_em_da.config import LossConfig, TrainConfig
from napari_em_da.device import choose_device, choose_precision
from napari_em_da.losses import segmentation_loss
from napari_em_da.methods import METHODS
from napari_em_da.methods._base import Setup
from napari_em_da.models import MODELS
from napari_em_da.sampling import Sample
from napari_em_da.training.loop import make_optimiser, train_step


def ratio(config: TrainConfig, rounds: int = 5) -> float:
    """Return the median seconds of a step of ``config``'s method over those of a supervised one, interleaved.

    Random windows of the config's size; network, precision and device as the config says.
    """
    steps = {name: _stepper(config, name) for name in ("supervised", config.method.name)}
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
        step = _stepper(config, name)
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


def _stepper(config: TrainConfig, name: str) -> Callable[[int], object]:
    device = choose_device(config.training.device)
    dtype = choose_precision(config.training.precision, device)
    classes = len(config.classes) + 1
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = MODELS[config.network.name].create(1, classes, config.network.options)
        patch = config.sampling.patch_px[-network.ndim :]
        prior = (0.9, *(0.1 / (classes - 1),) * (classes - 1))
        setup = Setup(network, segmentation_loss(LossConfig()), patch, config.training.steps, 1e-4, prior)
        method = METHODS[name].create(setup, config.method.options if name == config.method.name else {})
        shape = (config.sampling.batch, 1, *patch)
        labels = (torch.rand(shape) < 0.1).long()[:, 0]
        source = Sample(torch.randn(shape), labels)
        target = Sample(torch.randn(shape), labels if METHODS[name].pseudo else None)
        batch = {"source": source.to(device), "target": target.to(device)}
    method.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    players = method.players()
    optimisers = {key: make_optimiser(player, config.training) for key, player in players.items()}
    half = config.training.steps // 2  # past every warm-up
    return lambda step: train_step(method, players, optimisers, batch, half + step, config.training, device, dtype)
