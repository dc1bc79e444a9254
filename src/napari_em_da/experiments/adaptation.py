"""The adaptation benchmark: every method on every pair, one row per run, resumable, chosen without target labels."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from napari_em_da.config import (
    AdaptConfig,
    AdaptTrainingConfig,
    AugmentConfig,
    EvaluateConfig,
    NetworkConfig,
    SamplingConfig,
    SegmentConfig,
    TrainConfig,
    TrainingConfig,
)
from napari_em_da.errors import ConfigError, JobFailed
from napari_em_da.events import Finished, Notice, Progress
from napari_em_da.experiments.pairs import PAIRS, Labelled, Pair, make_pair
from napari_em_da.experiments.recipes import METHODS, PROFILES, SOURCE_AUGMENT, Profile
from napari_em_da.experiments.report import write
from napari_em_da.experiments.rows import AUTO, SUPERVISED, Row, append, read_table
from napari_em_da.jobs import Job, forward
from napari_em_da.jobs import run as run_job
from napari_em_da.selection import DEFAULT_CRITERIA
from napari_em_da.selection.ranking import SOURCE_ONLY
from napari_em_da.training.checkpoint import write_text
from napari_em_da.training.folder import RunFolder
from napari_em_da.workflows.adapt import adapt
from napari_em_da.workflows.auto import DEFAULT_PORTFOLIO, SOURCE, Entry, finished, gather, settle, starting_point
from napari_em_da.workflows.evaluate import evaluate
from napari_em_da.workflows.expected import expected
from napari_em_da.workflows.judging import Record, decide, read_records
from napari_em_da.workflows.segment import segment
from napari_em_da.workflows.train import train


def grid(
    data: Path,
    work: Path,
    *,
    profile: Literal["cpu", "gpu", "tiny"] = "cpu",
    pairs: Sequence[str] = tuple(PAIRS),
    methods: Sequence[str] = tuple(METHODS),
    seeds: int = 1,
) -> Job:
    """Run what is not in the table yet and yield events; Finished carries the path of the table.

    Parameters
    ----------
    data : Path
        Folder with the volumes.
    work : Path
        Run folders and the table ``adaptation.csv``; a stopped grid goes on where it was.
    """
    for name in methods:
        if name not in METHODS:
            raise ConfigError(f"Unknown method {name!r} of the benchmark; known: {', '.join(METHODS)}.")
    table = work / "adaptation.csv"
    budget = PROFILES[profile]
    jobs = [(pair, seed) for seed in range(seeds) for pair in pairs]
    for number, (name, seed) in enumerate(jobs):
        yield Progress(number, len(jobs), "grids", name)
        pair = make_pair(name, data, work / "data")
        home = home_folder(work, name, seed)
        home.mkdir(parents=True, exist_ok=True)
        source = home / "source"
        yield from forward(trained(source_config(pair, source, budget, seed)))
        for method in (SOURCE_ONLY, SUPERVISED, *methods):
            if any((r["pair"], r["method"], r["seed"]) == (name, method, str(seed)) for r in read_table(table)):
                continue
            try:
                row = yield from _row(pair, method, home, source, budget, seed, profile)
            except JobFailed as error:
                yield Notice(f"{name}, {method}: {error}", "warning")
                continue
            append(table, row)
            yield Notice(f"{name}, {method}, seed {seed}: IoU {row.iou:.3f} ({row.chosen_without_labels})")
        yield from _auto(pair, home, seed, profile, table)
        write(work, work / "report")
    yield Progress(len(jobs), len(jobs), "grids", "benchmark")
    yield Finished(table)


def home_folder(work: Path, pair: str, seed: int) -> Path:
    """Return the folder of the runs of one pair and seed."""
    return work / f"{pair.replace('->', '-').replace(' ', '-')}-{seed}"


def source_config(pair: Pair, run: Path, budget: Profile, seed: int) -> TrainConfig:
    """Return the training of the source model: the baseline, randomised as strongly as the rest."""
    return TrainConfig(
        run=run,
        source=tuple(item.config() for item in pair.source),
        classes=pair.classes,
        network=NetworkConfig(options={"features": budget.features} | ({"levels": 2} if budget.features < 8 else {})),
        sampling=_sampling(pair, budget),
        augment=SOURCE_AUGMENT,
        training=TrainingConfig(
            steps=budget.source, seed=seed, weight_decay=0.05, ema=0.99, validate_every=max(2, budget.source // 6)
        ),
    )


def bound_config(pair: Pair, run: Path, budget: Profile, seed: int) -> TrainConfig:
    """Return the training on the target's labels alone, from scratch."""
    config = source_config(pair, run, budget, seed)
    steps = config.training.model_copy(update={"steps": budget.bound, "validate_every": max(2, budget.bound // 4)})
    changes = {"source": (pair.target.config(),), "classes": pair.bound_classes, "training": steps}
    return config.model_copy(update=changes)


def _sampling(pair: Pair, budget: Profile, factor: float = 1.0) -> SamplingConfig:
    small = budget.patch < 64
    return SamplingConfig(
        pixel_nm=pair.pixel_nm * factor,
        patch_px=(1, budget.patch, budget.patch),
        batch=2 if small else 8,
        validation=0.06,
        selection_patches=4 if small else 64,
    )


def trained(config: TrainConfig) -> Job:
    """Train unless the run is finished; go on with one that was stopped."""
    folder = RunFolder(config.run)
    if (config.run / "run.json").is_file() and folder.info().get("finished"):
        yield Finished(None)
        return
    yield from train(config, resume=(config.run / "config.yaml").is_file())


def _row(pair: Pair, method: str, home: Path, source: Path, budget: Profile, seed: int, profile: str) -> Any:
    started = time.perf_counter()

    def plain(chosen: str, run: Path, seconds: float) -> Row:
        found = score(run, pair.test, pair.target_classes)
        row = Row(pair.name, method, seed, *found, chosen, 1.0, seconds, float("nan"), "", 0, profile)
        return replace(row, smoothed_iou=smoothed(run, pair))

    if method == SOURCE_ONLY:
        result = RunFolder(source).info()["result"]
        return plain(f"step {result['best_step']}", source, result["seconds"])
    run = home / method
    if method == SUPERVISED:
        yield from forward(trained(bound_config(pair, run, budget, seed)))
        result = RunFolder(run).info()["result"]
        return plain("uses target labels", run, result["seconds"])
    if not ((run / "run.json").is_file() and RunFolder(run).info().get("finished")):
        config = adapt_config(pair, method, source, run, budget, seed)
        job = adapt(from_start(config, METHODS[method], home), resume=(run / "config.yaml").is_file())
        yield from forward(job)
    result = RunFolder(run).info()["result"]
    records = read_records(RunFolder(run))
    truth = known_scores(run, records, pair)
    chosen, _, _ = decide(records, DEFAULT_CRITERIA)
    best = max(records, key=lambda record: truth[str(record.step)]["iou"])
    mine = truth[str(chosen.step)]
    seconds = result.get("seconds", time.perf_counter() - started)
    ratio = step_cost(run)
    place = f"{chosen.name if chosen.step or METHODS[method].start == SOURCE else 'its start'}, step {chosen.step}"
    oracle = (truth[str(best.step)]["iou"], f"step {best.step}", len(records))
    row = Row(pair.name, method, seed, mine["iou"], mine["dice"], place, ratio, seconds, *oracle, profile)
    return replace(row, smoothed_iou=smoothed(run, pair, chosen.weights))


def adapt_config(pair: Pair, method: str, source: Path, run: Path, budget: Profile, seed: int) -> AdaptConfig:
    """Return the adaptation of one row."""
    entry = METHODS[method]
    return AdaptConfig(
        run=source,
        target=(pair.unlabelled(),),
        out=run,
        method=entry.method,
        augment=AugmentConfig(**entry.augment),
        sampling=_sampling(pair, budget, entry.pixel_factor),
        training=AdaptTrainingConfig(
            steps=budget.adapt,
            seed=seed,
            learning_rate=3e-4,
            schedule="onecycle",
            ema=0.97,
            validate_every=budget.every,
            checkpoint_every=budget.adapt,
        ),
    )


def from_start(config: AdaptConfig, entry: Entry, home: Path) -> AdaptConfig:
    """Return the adaptation with the start that its entry asks for, among the runs in ``home``."""
    if entry.start == SOURCE:
        return config
    runs = [RunFolder(home / entry.start)] if finished(RunFolder(home / entry.start)) else []
    base, sampling = starting_point(entry, config, runs, home)
    return config.model_copy(update={"run": base, "sampling": sampling})


def _auto(pair: Pair, home: Path, seed: int, profile: str, table: Path) -> Job:
    """Choose among the candidates of the portfolio's runs, as ``adapt --method auto`` does, without training again."""
    names = [entry.name for entry in DEFAULT_PORTFOLIO]
    rows = read_table(table)
    done = any((r["pair"], r["method"], r["seed"]) == (pair.name, AUTO, str(seed)) for r in rows)
    runs = [RunFolder(home / name) for name in names if (home / name / "run.json").is_file()]
    if done or len(runs) < len(names):
        yield Notice(f"{pair.name}: auto is done." if done else f"{pair.name}: auto needs all of {', '.join(names)}.")
        return
    out = home / AUTO
    out.mkdir(exist_ok=True)
    chosen, why, _, _ = settle(out, runs, DEFAULT_CRITERIA)
    announced, _ = yield from expected(RunFolder(out), chosen)
    records = gather(runs)
    truth = {
        (r.name, r.step): known_scores(r.weights.parents[1], read_records(RunFolder(r.weights.parents[1])), pair)[
            str(r.step)
        ]
        for r in records
    }
    best = max(records, key=lambda record: truth[record.name, record.step]["iou"])
    mine = truth[chosen.name, chosen.step]
    own = {r["method"]: r for r in rows if (r["pair"], r["seed"]) == (pair.name, str(seed))}
    seconds = sum(float(own[name]["seconds"]) for name in names if name in own)
    place = f"{chosen.name}, step {chosen.step}"
    oracle = (truth[best.name, best.step]["iou"], f"{best.name}, step {best.step}", len(records))
    nothing = float("nan")
    row = Row(pair.name, AUTO, seed, mine["iou"], mine["dice"], place, nothing, seconds, *oracle, profile)
    row = replace(row, smoothed_iou=smoothed(chosen.weights.parents[1], pair, chosen.weights))
    if announced:
        row = replace(row, expected_iou=announced[0], expected_low=announced[1], expected_high=announced[2])
    append(table, row)
    yield Notice(f"{pair.name}, auto, seed {seed}: IoU {mine['iou']:.3f}. {why}")


def known_scores(run: Path, records: Sequence[Record], pair: Pair) -> dict[str, dict[str, float]]:
    """Return IoU and Dice of every candidate on the target's test part by step; measured once, and never chosen by."""
    path = run / "test-scores.json"
    known: dict[str, dict[str, float]] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    for record in records:
        if str(record.step) not in known:
            iou, dice = score(run, pair.test, pair.target_classes, record.weights)
            known[str(record.step)] = {"iou": iou, "dice": dice}
            write_text(path, json.dumps(known, indent=1) + "\n")
    return known


def smoothed(run: Path, pair: Pair, weights: Path | None = None) -> float:
    """Return the IoU on the target's test part with the averaging along z that ``segment`` does by default."""
    share = float(SegmentConfig.model_fields["smooth_z"].default)
    return score(run, pair.test, pair.target_classes, weights, smooth_z=share)[0]


def score(
    run: Path,
    test: Labelled,
    classes: dict[str, tuple[int, ...]],
    weights: Path | None = None,
    *,
    smooth_z: float = 0.0,
) -> tuple[float, float]:
    """Segment the test part with a run (or one of its candidates) and return IoU and Dice of the class.

    Each section for itself by default: networks are compared, and these figures are as old as the benchmark.
    """
    with tempfile.TemporaryDirectory(prefix=".score-", dir=run) as folder:
        at = Path(folder)
        for name in ("config.yaml", "run.json"):
            os.link(run / name, at / name)
        os.link(weights or RunFolder(run).best, at / "best.safetensors")
        out = at / "test.tif"
        job = SegmentConfig(image=test.image, run=at, output=out, voxel_nm=test.voxel_nm, smooth_z=smooth_z)
        run_job(segment(job))
        scores = run_job(evaluate(EvaluateConfig(prediction=out, labels=test.labels, classes=classes))).scores
    return round(float(scores["iou"]), 4), round(float(scores["dice"]), 4)


def step_cost(run: Path, rounds: int = 5) -> float:
    """Return how many times longer a step of a run's method takes than a supervised one, interleaved, as medians."""
    from napari_em_da.experiments.cost import ratio

    return round(ratio(RunFolder(run).config(), rounds), 2)
