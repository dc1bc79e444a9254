"""Train, adapt and resume on layers: the workflows with layers in the place of files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_em_da.config import AdaptConfig, TrainConfig, VoxelSize, parse
from napari_em_da.errors import ConfigError
from napari_em_da.jobs import Job
from napari_em_da.layers.snapshot import Snapshot, as_file, snapshot, unchanged

if TYPE_CHECKING:
    from napari_em_da.workflows.validation import Look as Hook

EXACT = 1 << 28  # bytes of labels up to which every voxel is compared with the file before a call is copied

Region = tuple[slice, slice, slice]


class Look:
    """Where the user looks; a page moves it while a job reads it in its thread.

    Attributes
    ----------
    region : (z, y, x) slices or None
        Section and window in voxels of the target, or of the labelled image where a training has no target.
    """

    def __init__(self, region: Region | None = None) -> None:
        self.region = region  # one reference, replaced as a whole: no lock is needed

    def hook(self) -> Hook:
        """Return what predicts this region at each validation of ``train`` or ``adapt``."""
        from napari_em_da.workflows.watching import Watch

        return Watch(lambda: self.region)


def train(
    image: Any,
    labels: Any,
    classes: Mapping[str, Sequence[int]],
    run: Path | str,
    *,
    target: Any = None,
    look: Look | None = None,
    **sections: Any,
) -> Job:
    """Train on layers and yield the events of ``workflows.train``; with a target layer, adapt to it.

    The layers are read when this is called, so they may change afterwards.

    Parameters
    ----------
    image, labels : layers of one shape
    classes : {name: label values}
    run : Path
        Run folder to create.
    target : layer, optional
        Unlabelled volume, for a method that adapts.
    look : Look, optional
        Predict this region at each validation; it comes as a Preview named ``view``.
    **sections
        Further fields of ``TrainConfig``: ``network``, ``method``, ``training``, ``sampling``, ``init``, …

    Notes
    -----
    A layer that still equals the file it was opened from is read from that file. Any other is saved in
    ``<run>-data`` beside the run folder, so that the run can be resumed and replayed without napari.
    """
    return _train(taken_for(image, labels, target), dict(classes), Path(run).expanduser(), sections, look)


def train_config(
    image: Any,
    labels: Any,
    classes: Mapping[str, Sequence[int]],
    run: Path | str,
    *,
    target: Any = None,
    saved: Path | None = None,
    **sections: Any,
) -> TrainConfig:
    """Return the job of ``train`` on the files that hold the layers; nothing is written.

    Parameters
    ----------
    saved : Path, optional
        Folder in which an earlier start has saved layers: ``<run>-data``.

    Raises
    ------
    ConfigError
        If no file holds a layer as it is now.
    """
    taken = taken_for(image, labels, target)
    files = {what: kept_file(item, what, saved) for what, item in taken.items()}
    return _train_config(files, taken, classes, Path(run).expanduser(), sections)


def adapt(
    run: Path | str,
    target: Any,
    out: Path | str,
    *,
    method: str | Mapping[str, Any] = "auto",
    resume: bool = False,
    look: Look | None = None,
    **sections: Any,
) -> Job:
    """Adapt a trained run to a layer and yield the events of ``workflows.adapt``.

    Parameters
    ----------
    run : Path
        Run folder of the source model.
    target : layer
        Unlabelled volume, read when this is called.
    out : Path
        Run folder to create, or with ``resume`` to go on with.
    method : str or {"name", "options"}
        ``"auto"`` tries several and chooses among all their checkpoints without target labels.
    look : Look, optional
        Predict this region of the target at each validation; it comes as a Preview named ``view``.
    **sections
        Further fields of ``AdaptConfig``: ``training``, ``sampling``, ``augment``, ``source_free``.

    Notes
    -----
    As ``train``, it saves a layer that no file holds in ``<out>-data`` beside the run folder.
    """
    where = Path(out).expanduser()
    return _adapt(Path(run).expanduser(), snapshot(target), where, _named(method), resume, sections, look)


def adapt_config(
    run: Path | str,
    target: Any,
    out: Path | str,
    *,
    method: str | Mapping[str, Any] = "auto",
    saved: Path | None = None,
    **sections: Any,
) -> AdaptConfig:
    """Return the job of ``adapt`` on the file that holds the layer; nothing is written. See ``train_config``."""
    taken = snapshot(target)
    file = kept_file(taken, "target", saved)
    return _adapt_config(file, taken, Path(run).expanduser(), Path(out).expanduser(), _named(method), sections)


def resume(run: Path | str, *, look: Look | None = None) -> Job:
    """Continue a run folder from its last checkpoint with its own config."""
    from napari_em_da.training.folder import RunFolder
    from napari_em_da.workflows.rounds import learn as job

    config = RunFolder.open(Path(run).expanduser()).config()
    yield from job(config, resume=True, look=look.hook() if look else None)


def estimate(config: TrainConfig | AdaptConfig, *, again: bool = False) -> Job:
    """Measure how long a job will take on this machine and yield events; Finished carries an ``Estimate``."""
    from napari_em_da.workflows.speed import estimate as job

    with closing(job(config, again=again)) as events:
        yield from events


def at_voxel_size(layer: Any, voxel_nm: VoxelSize | None) -> Snapshot:
    """Take a layer at another voxel size than its scale says; unchanged if None."""
    taken = snapshot(layer)
    return taken if voxel_nm is None else replace(taken, volume=replace(taken.volume, voxel_nm=voxel_nm))


def taken_for(image: Any, labels: Any, target: Any) -> dict[str, Snapshot]:
    """Take the layers of a training at once, the labels as a copy."""
    taken = {"image": snapshot(image), "labels": snapshot(labels, copy=True)}
    return taken if target is None else {**taken, "target": snapshot(target)}


def kept_file(taken: Snapshot, what: str, saved: Path | None) -> Path:
    """Return the file that holds a layer as it is now: its own, or the one that an earlier start has saved."""
    exact = what == "labels" and taken.volume.nbytes < EXACT
    for path in (taken.path, None if saved is None else saved / f"{what}.tif"):
        if path is not None and unchanged(replace(taken, path=path), exact=exact):
            return path
    raise ConfigError(
        f"No file holds the layer {taken.volume.name!r} as it is now. Save the layer first (File > Save Selected "
        "Layers), or start once, which saves it beside the run folder."
    )


def _train(
    taken: dict[str, Snapshot],
    classes: Mapping[str, Sequence[int]],
    run: Path,
    sections: dict[str, Any],
    look: Look | None,
) -> Job:
    if run.exists() and (not run.is_dir() or any(run.iterdir())):  # before anything is written beside it
        raise ConfigError(f"{run} exists already; choose another run folder, or resume it.")
    files = {}
    for what, item in taken.items():
        files[what] = yield from as_file(item, data_folder(run) / f"{what}.tif", exact=what == "labels")
    config = _train_config(files, taken, classes, run, sections)
    from napari_em_da.workflows.rounds import learn as job

    yield from job(config, look=look.hook() if look else None)


def _train_config(
    files: Mapping[str, Path],
    taken: Mapping[str, Snapshot],
    classes: Mapping[str, Sequence[int]],
    run: Path,
    sections: Mapping[str, Any],
) -> TrainConfig:
    names = {name: tuple(int(v) for v in values) for name, values in classes.items()}
    source = {"image": files["image"], "labels": files["labels"], "voxel_nm": taken["image"].volume.voxel_nm}
    targets = ({"image": files["target"], "voxel_nm": taken["target"].volume.voxel_nm},) if "target" in taken else ()
    return parse(TrainConfig, {"run": run, "source": (source,), "target": targets, "classes": names, **sections})


def _adapt(
    run: Path,
    taken: Snapshot,
    out: Path,
    method: Mapping[str, Any],
    resume: bool,
    sections: dict[str, Any],
    look: Look | None,
) -> Job:
    if not resume and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out} exists already; choose another run folder, or resume it.")
    if resume and not out.is_dir():
        raise ConfigError(f"There is nothing to resume at {out}; choose the folder of the adaptation, or start one.")
    from napari_em_da.training.folder import RunFolder
    from napari_em_da.workflows.adapt import adapt as job

    RunFolder.open(run)  # before anything is written
    path = yield from as_file(taken, data_folder(out) / "target.tif", exact=False)
    config = _adapt_config(path, taken, run, out, method, sections)
    yield from job(config, resume=resume, look=look.hook() if look else None)


def _adapt_config(
    file: Path, taken: Snapshot, run: Path, out: Path, method: Mapping[str, Any], sections: Mapping[str, Any]
) -> AdaptConfig:
    target = ({"image": file, "voxel_nm": taken.volume.voxel_nm},)
    return parse(AdaptConfig, {"run": run, "target": target, "out": out, "method": method, **sections})


def data_folder(run: Path) -> Path:
    """Return where layers are saved that no file holds."""
    return run.with_name(f"{run.name}-data")


def _named(method: str | Mapping[str, Any]) -> Mapping[str, Any]:
    return {"name": method} if isinstance(method, str) else method


__all__ = [
    "Look",
    "adapt",
    "adapt_config",
    "at_voxel_size",
    "data_folder",
    "estimate",
    "resume",
    "train",
    "train_config",
]
