"""How long a job will take here: a few real steps of the real network on random data, and arithmetic."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from napari_em_da.config import AdaptConfig, LossConfig, TrainConfig, parse
from napari_em_da.device import choose_device, choose_precision, why
from napari_em_da.events import Event, Finished, Progress
from napari_em_da.jobs import Job
from napari_em_da.losses import segmentation_loss
from napari_em_da.methods import METHODS
from napari_em_da.methods._base import Method, Setup
from napari_em_da.models import MODELS
from napari_em_da.sampling import Sample
from napari_em_da.seeding import seeded
from napari_em_da.selection import scores
from napari_em_da.selection._base import Reference
from napari_em_da.selection.evidence import collect
from napari_em_da.training.loop import make_optimiser, train_step
from napari_em_da.workflows.adapt import expand, without_source
from napari_em_da.workflows.auto import AUTO, AutoOptions
from napari_em_da.workflows.expected import LADDER, WINDOWS

STEPS = 3  # that are measured at least, after one that is not
ENOUGH_S = 1.5  # no further step is measured after this

Clock = Callable[[], float]


@dataclass(frozen=True)
class Speed:
    """Seconds of a step, of predicting one window, and of judging one target window without its labels."""

    step_s: float
    window_s: float
    judge_s: float = 0.0


@dataclass(frozen=True)
class Estimate:
    """How long a job will take on this machine.

    Attributes
    ----------
    seconds : float
        Steps and validations; reading the volumes comes on top.
    steps, validations : int
        Of all adaptations together.
    step_s : float
        Mean seconds of a step.
    why : str
        The device and the precision, and why these.
    """

    seconds: float
    steps: int
    validations: int
    step_s: float
    why: str

    def __str__(self) -> str:
        return f"About {duration(self.seconds)} on this machine. {self.why}"


_KNOWN: dict[str, Speed] = {}  # of this session


def estimate(config: TrainConfig | AdaptConfig, *, again: bool = False, clock: Clock = time.perf_counter) -> Job:
    """Measure how long a job will take on this machine and yield events; Finished carries an Estimate.

    What was measured before in this session is used again, however many steps are asked for.

    Parameters
    ----------
    config : TrainConfig or AdaptConfig
        No volume is opened; of an adaptation the run it starts from is.
    again : bool
        Measure it once more.
    clock : callable
        Seconds.

    Raises
    ------
    ConfigError, DataError, ResourceError
        Unknown names or options, no run folder, or a device that the machine lacks.

    Notes
    -----
    The steps run on random windows, so that how long windows take to prepare is left out; training prepares them
    ahead. Validations are counted with as many windows as are asked for; small volumes hold fewer. Of ``auto``, an
    adaptation that the budget no longer lets start is not counted.
    """
    jobs, minutes = parts(config)
    seconds, steps, validations = 0.0, 0, 0
    for number, job in enumerate(jobs):
        if number and minutes is not None and seconds > 60 * minutes:
            break
        known = None if again else _KNOWN.get(key(job))
        if known is None:
            known = yield from measure(job, clock)
            _KNOWN[key(job)] = known
        cost = total(job, known)
        seconds, steps, validations = seconds + cost[0], steps + job.training.steps, validations + cost[1]
    if isinstance(config, AdaptConfig) and config.method.name == AUTO:  # what IoU to expect
        first = _KNOWN[key(jobs[0])]
        seconds += WINDOWS * len(LADDER) * (2 * first.window_s + first.judge_s)
    step_s = seconds / max(1, steps)
    yield Finished(Estimate(seconds, steps, validations, step_s, reason(jobs[0])))


def parts(config: TrainConfig | AdaptConfig) -> tuple[list[TrainConfig], float | None]:
    """Return the trainings that a job consists of, and the minutes after which no further one starts."""
    if isinstance(config, TrainConfig):
        return [config], None
    if config.method.name != AUTO:
        return [expand(config)], None
    if not expand(config).source:
        config = without_source(config)
    options = parse(AutoOptions, config.method.options, "option of auto")
    jobs = [expand(config.model_copy(update={"method": entry.method})) for entry in options.portfolio]
    return jobs, options.minutes


def total(config: TrainConfig, speed: Speed) -> tuple[float, int]:
    """Return the seconds of a training, validations included, and how many validations those are.

    Notes
    -----
    An adaptation is judged once before its first step. Each time it predicts the held-out source windows as they are
    and in the target's look, and every target window twice.
    """
    t, s = config.training, config.sampling
    validations = ceil(t.steps / t.validate_every)
    windows = s.validation_patches if s.validation and config.source else 0
    if config.target:
        validations += 1
        windows = 2 * windows + 2 * s.selection_patches
        judging = validations * s.selection_patches * speed.judge_s
        return t.steps * speed.step_s + validations * windows * speed.window_s + judging, validations
    return t.steps * speed.step_s + validations * windows * speed.window_s, validations


def measure(config: TrainConfig, clock: Clock = time.perf_counter) -> Generator[Event, None, Speed]:
    """Return the median seconds of a step and of a window, on random data of the config's size.

    Yields a Progress after each step: closing it there stops it.
    """
    yield Progress(0, STEPS + 2, "steps", "measuring")
    step, predict = stepper(config, config.method.name)
    step(0)  # the first one allocates and chooses algorithms
    yield Progress(1, STEPS + 2, "steps", "measuring")
    started = clock()
    spent: list[float] = []
    while len(spent) < STEPS and (not spent or clock() - started < ENOUGH_S):
        before = clock()
        step(len(spent) + 1)
        spent.append(clock() - before)
        yield Progress(1 + len(spent), STEPS + 2, "steps", "measuring")
    predict()
    before = clock()
    windows = predict()
    passed = clock() - before
    judge_s = 0.0
    if config.target:
        yield Progress(STEPS + 1, STEPS + 2, "steps", "measuring")
        judging = judged(config)
        before = clock()
        count = judging()
        judge_s = (clock() - before) / count
    yield Progress(STEPS + 2, STEPS + 2, "steps", "measuring")
    return Speed(float(np.median(spent)), passed / windows, judge_s)


def judged(config: TrainConfig) -> Callable[[], int]:
    """Return what judges a few windows of blobs as those of a target are, their prediction apart, and counts them."""
    height, width = config.sampling.patch_px[1:]
    rng = np.random.default_rng(0)
    noise = gaussian_filter(rng.standard_normal((4, height, width)), (0, 8, 8)).astype(np.float32)
    blobs = torch.from_numpy(noise / noise.std())[:, None]
    names = [f"class {index}" for index in range(len(config.classes))]
    labels = (blobs[:, 0] > 0).numpy().astype(np.uint8)
    reference = Reference.from_labels(list(labels), names, (height, width))

    def predict(images: Tensor) -> Tensor:
        return torch.cat([-images, images, *(images - 2,) * (len(names) - 1)], 1)

    def judge() -> int:
        evidence = collect(predict, [blobs], reference)
        scores(evidence)
        return len(blobs)

    return judge


def stepper(config: TrainConfig, name: str) -> tuple[Callable[[int], object], Callable[[], int]]:
    """Return what does one step of a method on random windows, and what predicts a batch of them and counts it.

    Window, batch, network, precision and device are the config's, the method's options too where ``name`` is its.
    """
    device = choose_device(config.training.device)
    dtype = choose_precision(config.training.precision, device)
    classes = len(config.classes) + 1
    with seeded(0):
        network = MODELS[config.network.name].create(1, classes, config.network.options)
        patch = config.sampling.patch_px[-network.ndim :]
        prior = (0.9, *(0.1 / (classes - 1),) * (classes - 1))
        setup = Setup(network, segmentation_loss(LossConfig()), patch, config.training.steps, 1e-4, prior)
        method: Method = METHODS[name].create(setup, config.method.options if name == config.method.name else {})
        shape = (config.sampling.batch, 1, *patch)
        labels = (torch.rand(shape) < 0.1).long()[:, 0]
        source = Sample(torch.randn(shape), labels)
        target = Sample(torch.randn(shape), labels if METHODS[name].pseudo else None)
        batch = {"source": source.to(device), "target": target.to(device)}
    method.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    players = method.players()
    optimisers = {key: make_optimiser(player, config.training) for key, player in players.items()}
    half = config.training.steps // 2  # past every warm-up

    def predict() -> int:
        images = batch["source"].image[:4]
        method.network.eval()
        kind = dtype or torch.bfloat16
        with torch.inference_mode(), torch.autocast(device.type, dtype=kind, enabled=dtype is not None):
            method.network(images).float().cpu()  # which waits for a GPU
        return len(images)

    def step(number: int) -> object:
        return train_step(method, players, optimisers, batch, half + number, config.training, device, dtype)

    return step, predict


def key(config: TrainConfig) -> str:
    """Return what decides how long a step takes, as text."""
    t, s = config.training, config.sampling
    facts: tuple[Any, ...] = (
        config.network.model_dump(),
        config.method.model_dump(mode="json"),
        len(config.classes),
        (s.patch_px, s.batch),
        (str(choose_device(t.device)), t.precision, t.optimiser, torch.get_num_threads()),
    )
    return json.dumps(facts, sort_keys=True, default=str)


def reason(config: TrainConfig) -> str:
    """Return one sentence on the device and the precision, and why these."""
    text = why(choose_device(config.training.device))
    chosen = config.training.precision
    return text if chosen == "auto" else f"{text.split(', computing')[0].split('; computing')[0]}; {chosen} as you set."


def duration(seconds: float) -> str:
    """Write a time as a person would say it: "40 seconds", "6 minutes", "1.5 hours"."""
    if seconds < 10:
        return "10 seconds"
    if seconds < 90:
        return f"{round(seconds / 10) * 10} seconds"
    if seconds < 90 * 60:
        return f"{round(seconds / 60)} minutes"
    hours = seconds / 3600
    return f"{hours:.1f} hours" if hours < 10 else f"{round(hours)} hours"


__all__ = ["Estimate", "Speed", "duration", "estimate", "measure", "stepper", "total"]
