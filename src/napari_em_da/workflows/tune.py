"""Choose one option of a post-processing chain by a score on training data, without predicting again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_em_da.config import ChainConfig, StepConfig, TuneConfig
from napari_em_da.errors import ConfigError, DataError
from napari_em_da.events import Finished, Metric, Notice, Progress, Saved
from napari_em_da.io import check_place
from napari_em_da.jobs import Job
from napari_em_da.metrics import check_names, evaluate_arrays, lower_is_better
from napari_em_da.postprocess import Stack, resolve, work_through
from napari_em_da.volume import Volume
from napari_em_da.workflows.plan import class_indices
from napari_em_da.workflows.postprocess import write_chain
from napari_em_da.workflows.sidecar import Classes
from napari_em_da.workflows.stacks import open_stack


@dataclass(frozen=True)
class TuneResult:
    """The chosen value, its score, all scores by value, and the file with the tuned chain."""

    output: Path
    option: str
    value: float
    score: float
    curve: dict[float, float]


def tune(config: TuneConfig) -> Job:
    """Try every value of one option and yield events; Finished carries a TuneResult.

    The input must be a prediction of volumes that were trained on: choosing by the labels of a target volume would make
    every score on it worthless.

    Raises
    ------
    ConfigError
        If the chain, the option or the metric is unknown, before any work.
    DataError
        If the volumes differ in shape, or the score is undefined for all values.
    """
    (metric,) = check_names([config.metric])
    check_place(config.output, overwrite=config.overwrite)
    number, name = find_option(config.chain, config.option)
    stack, classes = open_stack(config.input, voxel_nm=config.voxel_nm)
    for value in config.values:
        resolve(replaced(config.chain, number, name, value), stack.holds)
    labels = Volume.open(config.labels)
    if labels.shape != stack.shape:
        raise DataError(f"{config.input} has shape {stack.shape}, but {config.labels} has {labels.shape}.")
    yield Notice(f"Choosing {config.option} by {metric} on {config.labels.name}: these must be training labels.")
    steps = config.chain.steps
    if number:  # what comes before the tuned step is the same for all values
        stack = yield from work_through(ChainConfig(steps=steps[:number]), stack)
    curve: dict[float, float] = {}
    for done, value in enumerate(config.values):
        yield Progress(done, len(config.values), "values", "tuning")
        rest = ChainConfig(steps=replaced(config.chain, number, name, value).steps[number:])
        outcome = yield from work_through(rest, stack)
        curve[value] = score(config, metric, outcome, labels, classes)
        yield Metric(done, {metric: curve[value], name: value})
    defined = {value: found for value, found in curve.items() if found == found}
    if not defined:
        raise DataError(f"{metric} is undefined for all {len(curve)} values; choose another metric.")
    pick = min if lower_is_better(metric) else max
    best = pick(defined, key=lambda value: defined[value])
    write_chain(replaced(config.chain, number, name, best), config.output)
    yield Saved(config.output, "chain")
    yield Progress(len(curve), len(curve), "values", "tuning")
    yield Finished(TuneResult(config.output, config.option, best, defined[best], curve))


def find_option(chain: ChainConfig, option: str) -> tuple[int, str]:
    """Return the position of the step and the name of its option for ``step.option`` (the first step of that name)."""
    step, _, name = option.partition(".")
    names = [item.name for item in chain.steps]
    if step not in names or not name:
        raise ConfigError(f"{option!r} is not step.option with a step of the chain; its steps: {', '.join(names)}.")
    return names.index(step), name


def replaced(chain: ChainConfig, number: int, name: str, value: float) -> ChainConfig:
    """Return the chain with another value of one option; whole numbers stay whole."""
    step = chain.steps[number]
    plain = int(value) if float(value).is_integer() and isinstance(step.options.get(name), int) else value
    changed = StepConfig(name=step.name, options={**step.options, name: plain})
    return ChainConfig(steps=(*chain.steps[:number], changed, *chain.steps[number + 1 :]))


def score(config: TuneConfig, metric: str, stack: Stack, labels: Volume, classes: Classes) -> float:
    """Return one score of a chain's outcome."""
    options: dict[str, Any] = {"spacing": stack.voxel_nm, "kind": config.kind, **dict(config.scoring)}
    if stack.holds == "instances":
        options["kind"] = "instances"
        return evaluate_arrays(stack.data, labels.data, [metric], ignore_index=config.ignore_label, **options)[metric]
    wanted = config.classes or classes
    truth = class_indices(labels, wanted, config.ignore_label)
    data = stack.data
    if stack.holds == "probabilities":
        data = data[..., stack.channel(next(iter(wanted)))]
    indices = {name: stack.channel(name) for name in wanted}
    return evaluate_arrays(data, truth, [metric], classes=indices, **options)[metric]


__all__: list[str] = ["TuneResult", "tune"]
