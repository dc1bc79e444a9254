"""Run a post-processing chain on stored probabilities, labels or instances of any size."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from napari_em_da.config import PostprocessConfig
from napari_em_da.events import Event, Finished, Notice, Progress, Saved
from napari_em_da.io import check_output, writing
from napari_em_da.io.zarr_array import WRITER as ZARR
from napari_em_da.jobs import Job
from napari_em_da.postprocess import Holds, resolve, work_through
from napari_em_da.postprocess._files import CHAIN, chain_text, read_chain, write_chain
from napari_em_da.training.checkpoint import write_text
from napari_em_da.volume import Volume
from napari_em_da.workflows.sidecar import write_sidecar
from napari_em_da.workflows.stacks import open_stack, values_of


@dataclass(frozen=True)
class PostprocessResult:
    """The file written, what it holds, the label value of each class, and seconds."""

    output: Path
    holds: Holds
    classes: dict[str, tuple[int, ...]]
    seconds: float


def run_chain(config: PostprocessConfig) -> Job:
    """Run ``config.chain`` on ``config.input`` and yield events; Finished carries a PostprocessResult.

    Volumes above ``in_memory_gib`` are worked on block by block, with the same result; stopped half-way, the same call
    goes on with the blocks that are done.

    Raises
    ------
    ConfigError
        If the chain does not fit together or to the input, before any work.
    DataError
        If the input cannot be read, or the output exists or cannot be written.
    """
    started = time.perf_counter()
    check_output(config.output, overwrite=config.overwrite)
    stack, classes = open_stack(
        config.input,
        holds=config.holds,
        voxel_nm=config.voxel_nm,
        labelled=config.labelled,
        in_memory_gib=config.in_memory_gib,
    )
    for _, step, _ in resolve(config.chain, stack.holds):
        if advice := step.advice(stack):
            yield Notice(advice, "warning")
    how = "block by block" if stack.lazy else "in memory"
    yield Notice(f"{config.input.name} holds {stack.holds} ({', '.join(stack.classes)}); worked on {how}.")
    working = config.output.with_name(f".{config.output.name}.working")
    begin(working, f"{config.model_dump_json(exclude={'overwrite'})}{Volume.open(config.input).fingerprint}")
    stack = yield from work_through(config.chain, replace(stack, work=working / "blocks"))
    result = Volume.from_array(values_of(stack, classes), voxel_nm=stack.voxel_nm, name=config.output.stem)
    yield from save(result, config.output, working, overwrite=config.overwrite)
    write_sidecar(config.output, classes, stack.holds, chain=chain_text(config.chain), input=config.input)
    _remove(working)
    seconds = round(time.perf_counter() - started, 1)
    yield Finished(PostprocessResult(config.output, stack.holds, classes, seconds))


def save(volume: Volume, output: Path, working: Path, *, overwrite: bool) -> Iterator[Event]:
    """Compute a lazy volume into a zarr array first, with progress and a place to cancel, then write the output."""
    if isinstance(volume.source, _lazy()):
        working.mkdir(parents=True, exist_ok=True)
        store = working / "result.zarr"
        _remove(store)
        for done in ZARR.steps(volume, store):
            yield Progress(done, volume.shape[0], "sections", "computing")
        volume = replace(Volume.open(store), voxel_nm=volume.voxel_nm, name=volume.name)
    yield from writing(volume, output, overwrite=overwrite)
    yield Saved(output, "volume")


def begin(working: Path, job: str) -> None:
    """Keep a working folder that was begun for the same job; empty any other."""
    key = hashlib.sha256(job.encode()).hexdigest()
    if (working / "key").is_file() and (working / "key").read_text(encoding="utf-8") == key:
        return
    _remove(working)
    working.mkdir(parents=True)
    write_text(working / "key", key)


def _lazy() -> Any:
    import dask.array as da

    return da.Array


def _remove(path: Path) -> None:
    import shutil

    with suppress(FileNotFoundError):
        shutil.rmtree(path)


__all__ = ["CHAIN", "PostprocessResult", "begin", "chain_text", "read_chain", "run_chain", "write_chain"]
