"""The one training loop: learning rate, losses, backward, clip, step, log, validate, save; it reads top to bottom."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from napari_em_da.config import TrainingConfig
from napari_em_da.errors import JobFailed, ResourceError
from napari_em_da.events import Event, Finished, Metric, Notice, Preview, Progress, Saved
from napari_em_da.jobs import Job
from napari_em_da.methods._base import Method, Player
from napari_em_da.models._base import SegmentationNet
from napari_em_da.sampling import Prefetch, Sample
from napari_em_da.seeding import seeded
from napari_em_da.training import checkpoint
from napari_em_da.training.folder import RunFolder
from napari_em_da.training.schedule import learning_rate_factor

# Its Metric may hold "score", whose highest value is kept as ``best``, and "collapsed", which ends the run.
Validate = Callable[[Method, int], Generator[Event, None, None]]


@dataclass
class Progressed:
    """Where a run stands; saved with every checkpoint."""

    step: int = 0
    best_score: float = -1.0  # all scores are at least 0
    best_step: int = -1
    validated: int = 0


@dataclass(frozen=True)
class FitResult:
    """Steps done, the best validation score with its step, and a hash of the final weights."""

    steps: int
    best_score: float
    best_step: int
    digest: str


def fit(
    method: Method,
    batches: Callable[[int], Prefetch],
    config: TrainingConfig,
    folder: RunFolder,
    validate: Validate,
    *,
    device: torch.device,
    dtype: torch.dtype | None,
    resume: bool = False,
    enough: Callable[[int], bool] = lambda _: False,
) -> Job:
    """Train ``method`` and yield events; closing the generator saves a checkpoint that ``resume`` continues bitwise.

    Parameters
    ----------
    batches : callable
        ``batches(start)`` iterates over dictionaries of samples from step ``start`` on.
    validate : callable
        Yields events, one of them a Metric with ``score``; the highest score is kept as ``best``.
    dtype : torch.dtype or None
        Autocast type of the forward passes; None computes in float32.
    enough : callable
        ``enough(steps done)`` ends the run before ``config.steps``, as a clock does; it is validated and saved all the
        same.

    Raises
    ------
    JobFailed
        If a loss is not finite; the last good checkpoint stays.
    ResourceError
        If the device's memory does not hold a step.
    """
    method.to(device)
    for tensor in (*method.parameters(), *method.buffers()):
        if tensor.ndim == 4:  # what 2D convolutions like best; 5D weights cannot have it and keep theirs
            tensor.data = tensor.data.to(memory_format=torch.channels_last)
    players = method.players()
    optimisers = {name: make_optimiser(player, config) for name, player in players.items()}
    average = {name: t.detach().clone() for name, t in method.network.state_dict().items()} if config.ema else {}
    state = Progressed()
    if resume:
        state = restore(folder, method, optimisers, average)
    saved_step = state.step
    started, window = time.perf_counter(), state.step

    prefetch = batches(state.step)
    waiting = 0.0
    stop = False
    try:
        while True:
            last = state.step >= config.steps or enough(state.step)
            if state.step > state.validated and (state.step % config.validate_every == 0 or last):
                score = None
                stop = False
                # closed before what is cancelled is saved: a validation may have changed the network for its time
                with averaged(method.network, average), closing(validate(method, state.step)) as validation:
                    for event in validation:
                        if isinstance(event, Metric):
                            folder.log(event.step, event.values)
                            score = event.values.get("score", score)
                            stop = "collapsed" in event.values
                        elif isinstance(event, Preview):
                            folder.preview(event)
                        yield event
                    state.validated = state.step
                    if score is not None and score > state.best_score:
                        state.best_score, state.best_step = score, state.step
                        save_network(folder, method, state)
                        yield Saved(folder.best, f"best checkpoint: score {score:.4f} at step {state.step}")
            ending = stop or last
            if state.step > saved_step and (state.step % config.checkpoint_every == 0 or ending):
                save_all(folder, method, optimisers, average, state)
                saved_step = state.step
                yield Saved(folder.last, "last checkpoint")
            if ending:
                break

            for name, optimiser in optimisers.items():
                set_learning_rate(optimiser, players[name], config, state.step)
            asked = time.perf_counter()
            batch = {stream: sample.to(device) for stream, sample in next(prefetch).items()}
            waiting += time.perf_counter() - asked

            values = train_step(method, players, optimisers, batch, state.step, config, device, dtype)
            state.step += 1
            if average:
                update_average(average, method.network, config.ema)
            folder.log(state.step, values)
            yield Metric(state.step, values)
            yield Progress(state.step, config.steps, "steps", "training")
    except (GeneratorExit, KeyboardInterrupt):
        # cancelled between two steps: whatever is not saved yet is saved now, and resume goes on from here
        if state.step > saved_step:
            save_all(folder, method, optimisers, average, state)
        raise
    finally:
        prefetch.close()

    seconds = time.perf_counter() - started
    share = 100 * waiting / max(seconds, 1e-9)
    yield Notice(f"{state.step - window} steps in {seconds:.0f} s; {share:.1f} % of it spent waiting for data.")
    weights = checkpoint.digest(method.state_dict())
    yield Finished(FitResult(state.step, state.best_score, state.best_step, weights))


def train_step(
    method: Method,
    players: Mapping[str, Player],
    optimisers: Mapping[str, torch.optim.Optimizer],
    batch: Mapping[str, Sample],
    step: int,
    config: TrainingConfig,
    device: torch.device,
    dtype: torch.dtype | None,
) -> dict[str, float]:
    """Do one step of every player and return the un-weighted losses.

    The torch generators are seeded from (seed, step): dropout and the like are reproducible from any step on.
    """
    values: dict[str, float] = {}
    method.train()
    with seeded(config.seed * 1_000_003 + step, device):
        try:
            turns = method.step(batch, step)
            while True:
                with torch.autocast(device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None):
                    turn = next(turns, None)
                if turn is None:
                    return values
                name, losses = turn
                optimiser = optimisers[name]
                parameters = owned(optimiser)
                total = sum_losses(losses, step, values)
                optimiser.zero_grad(set_to_none=True)
                if total.requires_grad:
                    total.backward(inputs=parameters)  # spares the others' gradients
                    if config.clip_norm:
                        nn.utils.clip_grad_norm_(parameters, config.clip_norm)
                    optimiser.step()
        except torch.OutOfMemoryError as error:
            raise ResourceError(
                f"Out of memory on {device} at step {step}: {error}. Lower sampling.batch or sampling.patch_px."
            ) from error


def sum_losses(losses: Mapping[str, Any], step: int, values: dict[str, float]) -> Tensor:
    """Add the weighted terms; record each un-weighted; stop at the first that is not finite."""
    total: Tensor = torch.zeros(())
    for name, term in losses.items():
        value = float(term.value.detach())
        if value != value or abs(value) == float("inf"):
            raise JobFailed(
                f"The loss {name!r} is {value} at step {step}. Lower training.learning_rate (a tenth is a good start) "
                "or set training.precision to fp32, and resume from the last checkpoint."
            )
        values[name] = value
        if term.weight:
            total = total.to(term.value.device) + term.weight * term.value.float()
    return total


def make_optimiser(player: Player, config: TrainingConfig) -> torch.optim.Optimizer:
    """Build the optimiser of one player."""
    parameters = [p for p in player.module.parameters() if p.requires_grad]
    rate = player.learning_rate or config.learning_rate
    if config.optimiser == "sgd":
        return torch.optim.SGD(parameters, rate, momentum=0.9, weight_decay=config.weight_decay)
    kind = torch.optim.AdamW if config.optimiser == "adamw" else torch.optim.Adam
    return kind(parameters, rate, betas=player.betas or (0.9, 0.999), weight_decay=config.weight_decay)


def set_learning_rate(optimiser: torch.optim.Optimizer, player: Player, config: TrainingConfig, step: int) -> None:
    """Set the learning rate of one step."""
    factor = learning_rate_factor(config, step) if player.scheduled else 1.0
    for group in optimiser.param_groups:
        group["lr"] = (player.learning_rate or config.learning_rate) * factor


def owned(optimiser: torch.optim.Optimizer) -> list[Tensor]:
    """Return the parameters that an optimiser steps."""
    return [p for group in optimiser.param_groups for p in group["params"]]


def update_average(average: dict[str, Tensor], network: nn.Module, decay: float) -> None:
    """Move the exponential average of all weights and statistics towards the network's."""
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point():
            average[name].lerp_(tensor, 1 - decay)
        else:
            average[name].copy_(tensor)


@contextmanager
def averaged(network: SegmentationNet, average: Mapping[str, Tensor]) -> Iterator[None]:
    """Lend the network its averaged weights for the length of a block."""
    if not average:
        yield
        return
    own = {name: t.detach().clone() for name, t in network.state_dict().items()}
    network.load_state_dict(dict(average))
    try:
        yield
    finally:
        network.load_state_dict(own)


def save_network(folder: RunFolder, method: Method, state: Progressed) -> None:
    """Save what segments: the network alone, with the statistics of the domain that it is for."""
    with method.segmenting() as network:
        tensors = checkpoint.prefixed("network", network.state_dict())
    checkpoint.save(folder.best, tensors, vars(state))


def save_all(
    folder: RunFolder,
    method: Method,
    optimisers: Mapping[str, torch.optim.Optimizer],
    average: Mapping[str, Tensor],
    state: Progressed,
) -> None:
    """Save everything that a bitwise resume needs, and the network on its own name so that ``last`` segments too."""
    with averaged(method.network, average), method.segmenting() as network:
        tensors = {k: v.clone() for k, v in checkpoint.prefixed("network", network.state_dict()).items()}
    tensors |= checkpoint.prefixed("method", method.state_dict())
    tensors |= checkpoint.prefixed("average", average)
    for name, optimiser in optimisers.items():
        tensors |= checkpoint.prefixed(f"optimiser/{name}", checkpoint.optimiser_tensors(optimiser))
    checkpoint.save(folder.last, tensors, vars(state))


def restore(
    folder: RunFolder,
    method: Method,
    optimisers: Mapping[str, torch.optim.Optimizer],
    average: dict[str, Tensor],
) -> Progressed:
    """Load the last checkpoint; a run without one starts at step 0."""
    if not folder.last.is_file():
        folder.forget_after(0)
        return Progressed()
    tensors, info = checkpoint.load(folder.last)
    method.load_state_dict(checkpoint.unprefixed("method", tensors))
    for name, optimiser in optimisers.items():
        checkpoint.load_optimiser(optimiser, checkpoint.unprefixed(f"optimiser/{name}", tensors))
    for name, tensor in checkpoint.unprefixed("average", tensors).items():
        average[name].copy_(tensor)
    folder.forget_after(int(info["step"]))
    return Progressed(int(info["step"]), float(info["best_score"]), int(info["best_step"]), int(info["validated"]))
