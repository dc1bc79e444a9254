"""Label curves: what a share of the target's labels is worth to each start; resumable, one row per run."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from napari_em_da.config import AugmentConfig, FinetuneConfig, LabelledConfig, TrainConfig, TrainingConfig
from napari_em_da.errors import ConfigError, DataError, JobFailed
from napari_em_da.events import Event, Finished, Notice, Progress
from napari_em_da.experiments.adaptation import (
    adapt_config,
    bound_config,
    home_folder,
    score,
    source_config,
    trained,
)
from napari_em_da.experiments.fraction_report import ADAPTED, FINETUNE, TABLE, TARGET_ONLY, FractionRow, write
from napari_em_da.experiments.pairs import PAIRS, Pair, make_pair
from napari_em_da.experiments.recipes import METHODS, PROFILES, Profile
from napari_em_da.experiments.rows import AUTO, SUPERVISED, append, read_table
from napari_em_da.jobs import Job, forward
from napari_em_da.selection import DEFAULT_CRITERIA
from napari_em_da.training.folder import RunFolder
from napari_em_da.workflows.adapt import adapt
from napari_em_da.workflows.auto import DEFAULT_PORTFOLIO, finished, settle
from napari_em_da.workflows.finetune import SHORTER, SLOWER, expand

FRACTIONS = (0.0, 0.05, 0.15, 0.3, 1.0)
FOLDER = "fractions"


@dataclass(frozen=True)
class Lot:
    """One pair and seed: where its runs are, and their budgets."""

    pair: Pair
    home: Path
    seed: int
    profile: str

    @property
    def budget(self) -> Profile:
        return PROFILES[self.profile]

    @property
    def source(self) -> Path:
        return self.home / "source"

    def labels(self, fraction: float) -> LabelledConfig:
        """Return the target's training part with a share of its labels."""
        return self.pair.target.config().model_copy(update={"fraction": fraction})


def grid(
    data: Path,
    work: Path,
    *,
    profile: Literal["cpu", "gpu", "tiny"] = "cpu",
    pairs: Sequence[str] = tuple(PAIRS),
    methods: Sequence[str] | None = None,
    seeds: int = 1,
    fractions: Sequence[float] = FRACTIONS,
) -> Job:
    """Run what is not in the table yet and yield events; Finished carries the path of the table.

    Parameters
    ----------
    data : Path
        Folder with the volumes.
    work : Path
        Run folders, shared with the adaptation benchmark, whose source models and adaptations are not trained again,
        and the table ``fractions.csv``.
    methods : sequence of str, optional
        ``target_only`` trains from scratch, ``finetune`` starts from the source model, ``auto`` and the methods of the
        adaptation benchmark from their adapted network. An adaptation that is named is trained where it is missing; by
        default ``dann``, ``ynet`` and ``auto`` take part where the adaptation benchmark has trained them.
    fractions : sequence of float
        Shares of the target's labelled sections; 0 is the start itself.
    """
    for name in methods or ():
        if name not in (TARGET_ONLY, FINETUNE, AUTO, *METHODS):
            known = ", ".join((TARGET_ONLY, FINETUNE, AUTO, *METHODS))
            raise ConfigError(f"Unknown method {name!r} of the benchmark; known: {known}.")
    table = work / TABLE
    jobs = [(pair, seed) for seed in range(seeds) for pair in pairs]
    for number, (name, seed) in enumerate(jobs):
        yield Progress(number, len(jobs), "grids", name)
        lot = Lot(make_pair(name, data, work / "data"), home_folder(work, name, seed), seed, profile)
        lot.home.mkdir(parents=True, exist_ok=True)
        yield from forward(trained(source_config(lot.pair, lot.source, lot.budget, seed)))
        for method in methods or (TARGET_ONLY, FINETUNE, *ADAPTED):
            yield from _curve(lot, method, fractions, table, train=methods is not None)
        if read_table(table):
            write(work, work / "report")
    yield Progress(len(jobs), len(jobs), "grids", "benchmark")
    yield Finished(table)


def _curve(lot: Lot, method: str, fractions: Sequence[float], table: Path, *, train: bool) -> Job:
    """Add the missing rows of one method."""
    key = (lot.pair.name, method, str(lot.seed))
    done = {float(r["fraction"]) for r in read_table(table) if (r["pair"], r["method"], r["seed"]) == key}
    todo = [f for f in sorted(set(fractions)) if f not in done and not (f == 0 and method == TARGET_ONLY)]
    if not todo:
        return
    start, cost = lot.source, float(RunFolder(lot.source).info()["result"]["seconds"])
    if method not in (TARGET_ONLY, FINETUNE):
        try:
            found = yield from _adapted(lot, method, train=train)
        except JobFailed as error:
            yield Notice(f"{lot.pair.name}, {method}: {error}", "warning")
            return
        if found is None:
            return
        start, cost = found
    for fraction in todo:
        try:
            row = yield from _row(lot, method, fraction, start, cost)
        except (JobFailed, DataError) as error:  # a class that a small share misses must not stop the others
            yield Notice(f"{lot.pair.name}, {method}, fraction {fraction:g}: {error}", "warning")
            continue
        append(table, row)
        yield Notice(f"{lot.pair.name}, {method}, fraction {fraction:g}, seed {lot.seed}: IoU {row.iou:.3f}")


def _row(lot: Lot, method: str, fraction: float, start: Path, cost: float) -> Generator[Event, None, FractionRow]:
    run, sections, seconds = start, 0, cost
    if fraction:
        run = lot.home / FOLDER / f"{method}-{fraction:g}"
        if method == TARGET_ONLY:
            run = lot.home / SUPERVISED if fraction == 1 else run  # the adaptation benchmark's bound is the same run
            config = target_only_config(lot, run, fraction)
        else:
            config = expand(finetune_config(lot, start, run, fraction))
        yield from forward(trained(config))
        info = RunFolder(run).info()
        (labels,) = info["source"]
        sections = len(labels["sections"]) if "sections" in labels else labels["shape"][0]
        seconds = info["result"]["seconds"]
    iou, dice = score(run, lot.pair.test, lot.pair.target_classes)
    if run.parent.name == FOLDER:
        RunFolder(run).last.unlink(missing_ok=True)  # only resuming needs it, and there are many runs
    return FractionRow(lot.pair.name, method, lot.seed, fraction, sections, iou, dice, seconds, lot.profile)


def target_only_config(lot: Lot, run: Path, fraction: float) -> TrainConfig:
    """Return the training from scratch on a share of the target's labels."""
    config = bound_config(lot.pair, run, lot.budget, lot.seed)
    return config.model_copy(update={"source": (lot.labels(fraction),)})


def finetune_config(lot: Lot, start: Path, run: Path, fraction: float) -> FinetuneConfig:
    """Return the fine-tuning of a source model or an adapted network: the same for all, whatever they start from."""
    own = source_config(lot.pair, run, lot.budget, lot.seed)
    steps = max(1, lot.budget.bound // SHORTER)
    changes = {
        "steps": steps,
        "learning_rate": own.training.learning_rate / SLOWER,
        "validate_every": max(1, steps // 4),
        "checkpoint_every": steps,
    }
    return FinetuneConfig(
        run=start,
        source=(lot.labels(fraction),),
        out=run,
        classes=lot.pair.bound_classes,
        augment=AugmentConfig(**own.augment.model_dump()),  # every field is set, so that none comes from the start
        training=TrainingConfig(**{**own.training.model_dump(), **changes}),
    )


def _adapted(lot: Lot, method: str, *, train: bool) -> Generator[Event, None, tuple[Path, float] | None]:
    """Return a run folder with the network that an adaptation chose without labels, and the seconds it took."""
    names = [entry.name for entry in DEFAULT_PORTFOLIO] if method == AUTO else [method]
    missing = [name for name in names if not finished(RunFolder(lot.home / name))]
    if missing and not train:
        yield Notice(
            f"{lot.pair.name}, seed {lot.seed}: {method} is left out, for {', '.join(missing)} is not trained; run the "
            f"adaptation benchmark first, or ask for it with --method {method}."
        )
        return None
    for name in missing:
        run = lot.home / name
        config = adapt_config(lot.pair, name, lot.source, run, lot.budget, lot.seed)
        yield from forward(adapt(config, resume=(run / "config.yaml").is_file()))
    runs = [RunFolder(lot.home / name) for name in names]
    out = lot.home / FOLDER / f"{method}-start"
    out.mkdir(parents=True, exist_ok=True)
    record, *_ = settle(out, runs, DEFAULT_CRITERIA)
    yield Notice(f"{lot.pair.name}, {method}: starts from {record.name}, step {record.step}, chosen without labels.")
    return out, sum(float(run.info()["result"]["seconds"]) for run in runs)


__all__ = ["FRACTIONS", "FractionRow", "grid", "write"]
