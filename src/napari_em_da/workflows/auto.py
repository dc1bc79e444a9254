"""Try several adaptations within a time budget, and choose among all their checkpoints without target labels."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from napari_em_da.catalog import unknown
from napari_em_da.config import AdaptConfig, AugmentConfig, Config, MethodConfig, Positive, SamplingConfig, parse
from napari_em_da.errors import ConfigError, JobFailed
from napari_em_da.events import Finished, Notice, Progress, Saved
from napari_em_da.jobs import Job, forward
from napari_em_da.methods import METHODS
from napari_em_da.selection import CRITERIA, DEFAULT_CRITERIA
from napari_em_da.selection.guards import Guards
from napari_em_da.selection.ranking import SOURCE_ONLY
from napari_em_da.training import checkpoint
from napari_em_da.training.folder import RunFolder
from napari_em_da.workflows.expected import expected
from napari_em_da.workflows.judging import REPORT, Record, adopt, candidates, decide, read_records, told
from napari_em_da.workflows.plan import open_image
from napari_em_da.workflows.rounds import learn
from napari_em_da.workflows.scale import in_plane
from napari_em_da.workflows.source_record import REFERENCE
from napari_em_da.workflows.train import full
from napari_em_da.workflows.validation import Look

AUTO = "auto"
SOURCE = "source"
PORTFOLIO = "portfolio"


class Entry(Config):
    """One adaptation of the portfolio."""

    name: str = Field(description="Name in the report, and of its folder")
    method: MethodConfig = Field(description="Method and its options")
    augment: dict[str, Any] = Field(default_factory=dict, description="Augmentation of this adaptation")
    pixel_factor: Positive = Field(1.0, description="Working pixel, a multiple of pixel_nm or else of the target's own")
    start: str = Field(
        SOURCE, description="Start from the source model, or from an adaptation before this one, at its pixel"
    )


MATCHED = {
    "scale": (0.7, 1.4),
    "rotate_deg": 180,
    "photometric": 0.6,
    "contrast": (0.6, 1.5),
    "gamma": (0.6, 1.7),
    "blur_px": 1.5,
    "noise": 0.08,
    "match_target": 0.5,
}
TEACHER = {"statistics": "shared", "clean_statistics": False, "prior_factor": 3}
DEFAULT_PORTFOLIO = (
    Entry(name="adabn", method=MethodConfig(name="adabn")),
    Entry(name="source_free", method=MethodConfig(name="source_free")),
    Entry(name="coarse", method=MethodConfig(name="supervised"), augment=MATCHED, pixel_factor=1.3),
    Entry(
        name="coarse_teacher",
        method=MethodConfig(name="mean_teacher", options=TEACHER),
        augment=MATCHED,
        start="coarse",
    ),
)


class AutoOptions(Config):
    """Options of ``auto``."""

    minutes: Positive | None = Field(None, description="Time budget; no further adaptation starts after it")
    portfolio: tuple[Entry, ...] = Field(DEFAULT_PORTFOLIO, min_length=1, description="Adaptations to try, in order")
    criteria: Annotated[tuple[str, ...], Field(min_length=1)] = Field(
        DEFAULT_CRITERIA, description="Label-free scores to rank the candidates by"
    )


@dataclass(frozen=True)
class AutoResult:
    """The folder, the adaptation and step that were chosen, why, how many candidates there were, and seconds.

    ``expected`` is the IoU to expect on the target with the lower and upper end of its range; None where the source
    holds nothing to measure it on.
    """

    run: Path
    chosen: str
    step: int
    why: str
    warning: str | None
    candidates: int
    seconds: float
    expected: tuple[float, float, float] | None = None


def auto(config: AdaptConfig, *, resume: bool = False, look: Look | None = None) -> Job:
    """Adapt with every entry of the portfolio, choose one checkpoint of all and yield events; see ``adapt``.

    The folder ``config.out`` is a run like any other: it holds the chosen network as ``best``, the report
    ``choice.md``, and the single adaptations under ``portfolio``. With ``resume``, finished ones are kept.

    Raises
    ------
    ConfigError
        If an entry of the portfolio or a criterion is unknown, or two entries have one name.
    """
    from napari_em_da.workflows.adapt import expand

    started = time.perf_counter()
    options = parse(AutoOptions, config.method.options, "option of auto")
    check(options)
    out = full(config.out)
    if not resume:
        RunFolder.create(out)
    runs: list[RunFolder] = []
    for number, entry in enumerate(options.portfolio):
        yield Progress(number, len(options.portfolio), "adaptations", entry.name)
        if options.minutes is not None and runs and time.perf_counter() - started > 60 * options.minutes:
            left = ", ".join(item.name for item in options.portfolio[number:])
            yield Notice(f"The budget of {options.minutes:g} minutes is spent; not tried: {left}.", "warning")
            break
        given = config.augment.model_dump(include=config.augment.model_fields_set)
        augment = parse(AugmentConfig, {**entry.augment, **given})  # what the user set wins
        base, sampling = starting_point(entry, config, runs, out / PORTFOLIO)
        single = config.model_copy(
            update={
                "run": base,
                "out": out / PORTFOLIO / entry.name,
                "method": entry.method,
                "augment": augment,
                "sampling": sampling,
            }
        )
        folder = RunFolder(out / PORTFOLIO / entry.name)
        if not (finished(folder) and resume):
            try:
                again = resume and (folder.path / "config.yaml").is_file()
                yield from forward(learn(expand(single), resume=again, look=look))
            except JobFailed as error:  # one that diverges must not take the others with it
                yield Notice(f"{entry.name} failed and is left out: {error}", "warning")
                continue
        runs.append(folder)
    if not runs:
        raise JobFailed("Every adaptation of the portfolio failed; see the notices above.")
    record, why, warning, count = settle(out, runs, options.criteria)
    estimate, sentence = yield from expected(RunFolder(out), record)
    checkpoint.write_text(out / REPORT, f"{(out / REPORT).read_text(encoding='utf-8')}\n{sentence}\n")
    yield Saved(out / REPORT, "report")
    yield from told(why, warning)
    yield Notice(sentence)
    yield Progress(len(options.portfolio), len(options.portfolio), "adaptations", "done")
    seconds = round(time.perf_counter() - started, 1)
    info = {"chosen": record.name, "step": record.step, "expected": estimate}
    RunFolder(out).update_info({"finished": True, **info, "seconds": seconds})
    yield Finished(AutoResult(out, record.name, record.step, why, warning, count, seconds, estimate))


def starting_point(
    entry: Entry, config: AdaptConfig, runs: Sequence[RunFolder], home: Path
) -> tuple[Path, SamplingConfig]:
    """Return the run that an entry starts from, and the sampling at its working pixel.

    From an adaptation it takes the last candidate that passes the guards, and not the one that was chosen: what is
    built on it may need a step that by itself does not look better. Such a start is kept in ``home`` as a run folder.
    Where there is none, the entry starts from the source model.
    """
    before = next((run for run in runs if run.path.name == entry.start), None)
    passing = [] if before is None else [c.key for c in candidates(read_records(before), Guards()) if not c.refused]
    last = max((step for _, step in passing), default=0)
    if before is None or not last:
        return config.run, at_pixel(config, entry.pixel_factor)
    start = RunFolder(home / f"{entry.name}-start")
    start.path.mkdir(exist_ok=True)
    become(start, before, next(r for r in read_records(before) if r.step == last))
    pixel = before.config().sampling.pixel_nm
    return start.path, config.sampling if pixel is None else with_pixel(config, pixel)


def at_pixel(config: AdaptConfig, factor: float) -> SamplingConfig:
    """Return the sampling at a multiple of the pixel that the other entries work at; unchanged where none is known.

    That is the configured one, else the target's own. Coarser pixels show a network more of the surroundings and less
    of the noise and texture that differ between microscopes; the source model's weights are what it starts from.
    """
    sizes = [in_plane(open_image(item).voxel_nm) for item in config.target]
    trained = RunFolder.open(full(config.run)).info().get("pixel_nm")  # None: the source's own size is unknown
    own = config.sampling.pixel_nm or (trained and sizes[0])
    if factor == 1 or own is None or None in sizes:
        return config.sampling
    return with_pixel(config, own * factor)


def with_pixel(config: AdaptConfig, pixel_nm: float) -> SamplingConfig:
    """Return the sampling at another working pixel; what the user set stays set."""
    given = config.sampling.model_dump(include=config.sampling.model_fields_set)
    return parse(SamplingConfig, {**given, "pixel_nm": pixel_nm})


def check(options: AutoOptions) -> None:
    """Raise a ConfigError unless all entries and criteria exist."""
    names = [entry.name for entry in options.portfolio]
    if len(set(names)) < len(names) or {SOURCE, SOURCE_ONLY} & set(names):
        raise ConfigError(f"The portfolio's names {names} must differ from each other, {SOURCE!r} and {SOURCE_ONLY!r}.")
    for number, entry in enumerate(options.portfolio):
        if entry.start not in (SOURCE, *names[:number]):
            raise ConfigError(unknown("start", entry.start, (SOURCE, *names[:number])))
        parse(METHODS[entry.method.name].options_type, entry.method.options, f"option of {entry.method.name}")
        parse(AugmentConfig, entry.augment)
    for criterion in options.criteria:
        CRITERIA.check(criterion)


def settle(out: Path, runs: list[RunFolder], criteria: tuple[str, ...]) -> tuple[Record, str, str | None, int]:
    """Choose among the candidates of all runs and make ``out`` a run folder with the chosen network."""
    records = gather(runs)
    record, choice, text = decide(records, criteria)
    become(RunFolder(out), next((run for run in runs if run.path.name == record.name), runs[0]), record)
    checkpoint.write_text(out / REPORT, text)
    return record, choice.why, choice.warning, len(records)


def become(folder: RunFolder, run: RunFolder, record: Record) -> None:
    """Make a folder a run like the one that a candidate is of, with that candidate as its ``best``."""
    shutil.copyfile(run.path / "config.yaml", folder.path / "config.yaml")
    checkpoint.write_text(folder.path / "run.json", (run.path / "run.json").read_text(encoding="utf-8"))
    if (run.path / REFERENCE).is_file():
        shutil.copyfile(run.path / REFERENCE, folder.path / REFERENCE)
    adopt(record, folder)


def gather(runs: Sequence[RunFolder]) -> list[Record]:
    """Return the candidates of several adaptations, each network once: what a run starts from is known from others."""
    found: list[Record] = []
    for run in runs:
        found += [r for r in read_records(run) if r.step or all(f.name != SOURCE_ONLY for f in found)]
    return found


def finished(folder: RunFolder) -> bool:
    """Return whether a run came to its end."""
    path = folder.path / "run.json"
    return path.is_file() and bool(json.loads(path.read_text(encoding="utf-8")).get("finished"))


__all__ = ["AUTO", "DEFAULT_PORTFOLIO", "MATCHED", "TEACHER", "AutoOptions", "AutoResult", "Entry", "auto", "gather"]
