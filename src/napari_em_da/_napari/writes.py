"""What a project's keeper saves, and how each thing is written in its thread."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from napari.layers import Labels, Layer

from napari_em_da._napari.edits import Edits, Patch
from napari_em_da.project import Edited, LayerRecord, Project, StrokeStore
from napari_em_da.project.files import free_path
from napari_em_da.volume import Volume

COPIED_BYTES = 1 << 29  # an image that is in no file is copied into the project up to this size


@dataclass
class Kept:
    """A layer of the viewer that is followed, and what the project has of it."""

    layer: Layer
    known_as: str | None = None  # where the project knows it, or will after the next save
    store: StrokeStore | None = None
    edits: Edits | None = None
    path: Path | None = None
    changed: bool = False  # something about the layer that the project does not know yet
    last: LayerRecord | None = None  # of a layer that left before its changes were saved
    settled: bool = False  # the name is free in the project, or already this layer's

    @property
    def unsaved(self) -> bool:
        """Whether there are strokes to be saved, and a place for them."""
        return self.store is not None and self.edits is not None and self.edits.any

    @property
    def lazy(self) -> bool:
        """Whether the labels have to be wrapped before they can be painted on."""
        data = type(self.layer.data).__module__.split(".")[0]
        return self.edits is not None and self.path is not None and data == "dask" and bool(self.layer.editable)


@dataclass
class Write:
    """Something to be written in the thread, and what to do on the main thread when that has failed, or succeeded."""

    run: Callable[[], object]
    again: Callable[[], object]
    after: Callable[[], object] = lambda: None


def run_all(writes: list[Write]) -> list[tuple[Write, Exception | None]]:
    """Do all writes, and return what each has met."""
    outcome: list[tuple[Write, Exception | None]] = []
    for write in writes:
        try:
            write.run()
        except Exception as error:  # noqa: BLE001 - all of them are shown, and tried again
            outcome.append((write, error))
        else:
            outcome.append((write, None))
    return outcome


def strokes(kept: Kept) -> list[Write]:
    """Return the saving of what was painted: of a copy of each box, so that painting may go on meanwhile."""
    store, edits, data = kept.store, kept.edits, kept.layer.data
    if store is None or edits is None or not edits.any:
        return []
    boxes, everywhere = taken = edits.take()
    if everywhere or isinstance(data, Edited):
        whole = [None] if everywhere else list(boxes.values())
        return [Write(lambda: [store.save(data, box) for box in whole], lambda: edits.give_back(taken))]
    patches = [(Patch(data, store.chunks.around(box)), box) for box in boxes.values()]
    return [Write(lambda: [store.save(patch, box) for patch, box in patches], lambda: edits.give_back(taken))]


def remembered(project: Project, kept: Kept, record: LayerRecord, again: Callable[[], object]) -> Write:
    """Return what brings the project's record of a layer up to date, and begins its strokes or its copy."""
    layer = kept.layer

    def aside() -> None:
        if not kept.settled:  # the project may know another layer of this name that could not be opened
            step_aside(project, record.name)
            kept.settled = True

    def simply() -> None:
        aside()
        project.remember(record)

    def begin() -> None:
        aside()
        known = next((old.strokes for old in project.layers() if old.name == record.name), None)
        if known is None:
            kept.store = project.start_strokes(record, layer.data)
        else:  # an earlier try came this far
            kept.store = project.strokes(record.name)
            kept.store.save(layer.data)
            project.remember(record)

    def copy() -> None:
        aside()
        source = Volume.from_array(layer.data).source
        path = free_path(project.folder / "layers", record.name, ".zarr")
        path.parent.mkdir(exist_ok=True)
        kept.path = Volume(source, record.voxel_nm, record.name).save(path)
        project.remember(record.model_copy(update={"path": kept.path}))

    def watch() -> None:
        if kept.edits is not None:
            kept.edits.watchful = True
        if kept.lazy and kept.store is not None:
            layer.data = kept.store.load()
            if kept.edits is not None:
                kept.edits.forget_data()

    unsaved = kept.edits is not None and (kept.edits.any or kept.path is None)
    if kept.store is None and (kept.lazy or (unsaved and isinstance(layer.data, np.ndarray))):
        return Write(begin, again, watch)
    plain = not isinstance(layer, Labels) and not layer.multiscale and not layer.rgb and layer.ndim in (2, 3)
    if kept.path is None and plain and layer.data.nbytes <= COPIED_BYTES:
        return Write(copy, again)
    return Write(simply, again)


def rename(project: Project, old: str, new: str) -> None:
    """Follow a layer that was renamed, whatever an earlier try has done."""
    if old in names(project):
        step_aside(project, new)
        project.rename(old, new)
    else:
        project.save()


def step_aside(project: Project, name: str) -> None:
    """Give a layer that could not be opened another name, where a new layer needs its own, so that nothing is lost."""
    if any(record.name == name and record.strokes is not None for record in project.layers()):
        project.rename(name, next(n for n in _spares(name) if n not in names(project)))


def names(project: Project) -> set[str]:
    """Return the names of the layers that a project remembers."""
    return {record.name for record in project.layers()}


def _spares(name: str) -> list[str]:
    return [f"{name} (missing{'' if i == 1 else f' {i}'})" for i in range(1, 1000)]
