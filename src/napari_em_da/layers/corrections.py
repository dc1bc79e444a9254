"""Suggestions, paint and rounds of corrections on layers, without a window."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from napari_em_da.config import CorrectConfig, parse
from napari_em_da.errors import ConfigError, DataError
from napari_em_da.events import Finished, Progress
from napari_em_da.jobs import Job
from napari_em_da.layers.analysis import class_probabilities
from napari_em_da.layers.learning import data_folder
from napari_em_da.layers.snapshot import LayerData, Snapshot, as_file, snapshot, unchanged
from napari_em_da.layers.view import class_look, run_classes, segment_view
from napari_em_da.volume import Volume

Window = tuple[int, int, int, int, int]  # section, y, x, height, width
UNPAINTED = 255
MOST_PAINT = 1 << 31  # bytes of a corrections layer, which is held in memory
BACKGROUND = "#f5f5f5"  # painted background must be seen


def suggest(
    probabilities: Any | Mapping[str, Any],
    *,
    image: Any = None,
    run: Path | str | None = None,
    seen: Iterable[Sequence[int]] = (),
    **options: Any,
) -> LayerData:
    """Return windows worth a look as a shapes layer, the most worthwhile first.

    Parameters
    ----------
    probabilities : {class name: image layer with its probability}, or such a layer, then of one class
    image : image layer, optional
        Lets the windows differ in what they show.
    run : Path, optional
        Run folder, whose record of the source says which objects are unlikely.
    seen : iterable of (section, y, x, height, width)
        Windows that were visited or dismissed.
    **options
        Of ``napari_em_da.suggestions.suggest``: ``window_px``, ``count``, ``weights``, …

    Returns
    -------
    LayerData
        Rectangles with the features ``rank``, ``score``, ``reason``, ``section``, ``y``, ``x``, ``height``, ``width``.
    """
    from napari_em_da.suggestions import suggest as find

    parts = probabilities if isinstance(probabilities, Mapping) else {"foreground": probabilities}
    taken = {name: snapshot(layer) for name, layer in parts.items()}
    first = next(iter(taken.values()))
    if run is not None:
        options = {**known_shapes(Path(run).expanduser(), first), **options}
    found = find(
        class_probabilities(taken, slice(None)),
        image=None if image is None else snapshot(image).volume.source,
        seen=[tuple(int(v) for v in box) for box in seen],  # type: ignore[misc]  # checked there
        names=list(taken),
        **options,
    )
    corners = []
    for item in found:
        rows, columns = (item.y, item.y + item.height - 1), (item.x, item.x + item.width - 1)
        plane = [(y, x) for y, x in zip(np.repeat(rows, 2), (*columns, *columns[::-1]), strict=True)]
        corners.append(np.array([p if first.flat else (item.section, *p) for p in plane], float))
    names = ("score", "reason", "section", "y", "x", "height", "width")
    features = {"rank": list(range(1, len(found) + 1)), **{n: [getattr(item, n) for item in found] for n in names}}
    about: dict[str, Any] = {"name": "suggestions", "features": features, "shape_type": "rectangle"}
    if not found:
        about = {"name": "suggestions", "ndim": 2 if first.flat else 3}
    look = {"face_color": "transparent", "edge_color": "yellow", "edge_width": 3}
    return corners, {**first.place, **about, **look}, "shapes"


def known_shapes(run: Path, taken: Snapshot) -> dict[str, Any]:
    """Return what a run knows of the source's objects, as options of ``suggest``; nothing where it kept nothing."""
    from napari_em_da.training.folder import RunFolder
    from napari_em_da.workflows.segment import scale_factor
    from napari_em_da.workflows.source_record import read

    try:
        record = read(RunFolder.open(run))
    except DataError:
        return {}
    factor = scale_factor(taken.volume, record.pixel_nm)
    return {"reference": record.reference, "magnification": factor or 1.0}


def correct(image: Any, corrections: Any, run: Path | str, out: Path | str | None = None, **options: Any) -> Job:
    """Learn from corrections painted in a labels layer and yield events; Finished carries a ``CorrectResult``.

    Parameters
    ----------
    image : image layer that ``run`` segmented
    corrections : labels layer of its shape
        The run's label values where painted, 255 elsewhere (``ignore_label``).
    run : Path
        Run folder, or the last round.
    out : Path, optional
        Run folder to create; the next ``rounds/round-N`` if absent.
    **options
        Further fields of ``CorrectConfig``: ``seconds``, ``steps``, ``view``, ``replay``, …

    Notes
    -----
    The layers are read when this is called, and the seconds count from there. An image that no file holds is saved in
    ``<out>-data`` beside the run folder, where later rounds find it; the paint itself is kept in the run folder.
    """
    started = time.perf_counter()
    taken = snapshot(image), snapshot(corrections, copy=True)
    folders = Path(run).expanduser(), None if out is None else Path(out).expanduser()
    return _correct(*taken, *folders, options, started)


def _correct(
    image: Snapshot, painted: Snapshot, run: Path, out: Path | None, options: dict[str, Any], started: float
) -> Job:
    from napari_em_da.training.folder import RunFolder
    from napari_em_da.workflows.correction_data import PAINT
    from napari_em_da.workflows.correction_plan import next_round
    from napari_em_da.workflows.corrections import correct as job
    from napari_em_da.workflows.painted import Painted

    RunFolder.open(run)
    classes = {name: tuple(members) for name, members in run_classes(run).items()}
    Painted.read(painted.volume, classes, options.get("ignore_label", UNPAINTED))  # errors come before files
    out = next_round(run) if out is None else out
    given = {"voxel_nm": image.volume.voxel_nm, **options}
    config = parse(CorrectConfig, {"run": run, "image": "image", "corrections": out / PAINT, "out": out, **given})
    path = yield from as_file(image, data_folder(out) / "image.tif", exact=False)
    yield from job(config.model_copy(update={"image": path}), paint=painted.volume, started=started)


def correct_config(
    image: Any, corrections: Any, run: Path | str, out: Path | str | None = None, **options: Any
) -> CorrectConfig:
    """Return the round of ``correct`` on files; paint that no file holds is saved in ``<out>-data``.

    Parameters
    ----------
    image, corrections, run, out, **options
        As in ``correct``.

    Raises
    ------
    ConfigError
        If no file holds the image as it is now.
    """
    from napari_em_da.training.folder import RunFolder
    from napari_em_da.workflows.correction_plan import next_round

    taken, painted = snapshot(image), snapshot(corrections)
    home = RunFolder.open(Path(run).expanduser()).path
    goal = next_round(home) if out is None else Path(out).expanduser()
    kept = data_folder(goal) / "image.tif"
    files = [item for item in (taken.path, kept) if item is not None and item.exists()]
    found = next((path for path in files if unchanged(replace(taken, path=path), exact=False)), None)
    if found is None:
        raise ConfigError(f"No file holds the image {taken.volume.name!r} as it is now; save it and open the file.")
    saved = painted.path is not None and unchanged(painted, exact=True)
    labels = painted.path if saved else data_folder(goal) / "corrections.tif"
    given = {"voxel_nm": taken.volume.voxel_nm, **({} if out is None else {"out": goal}), **options}
    config = parse(CorrectConfig, {"run": home, "image": found, "corrections": labels, **given})
    if not saved:
        config.corrections.parent.mkdir(parents=True, exist_ok=True)
        painted.volume.save(config.corrections, overwrite=True)
    return config


def blank_corrections(image: Any, classes: Mapping[str, Sequence[int]]) -> LayerData:
    """Return an empty layer to paint corrections in, at the image's place: 255 everywhere, which means not painted.

    Parameters
    ----------
    image : image layer
    classes : {name: label values}
        Of the run that will learn.

    Raises
    ------
    DataError
        If a class has the value 255, or the image is too large for paint that is held in memory.
    """
    taken = snapshot(image)
    values = [0, *(members[0] for members in classes.values())]
    if UNPAINTED in values:
        name = next(name for name, members in classes.items() if members[0] == UNPAINTED)
        raise DataError(f"The class {name!r} has the value {UNPAINTED}, which means not painted; train with another.")
    kind = np.min_scalar_type(max(*values, UNPAINTED))
    if (size := int(np.prod(taken.volume.shape, dtype=np.int64)) * kind.itemsize) > MOST_PAINT:
        raise DataError(f"Paint on all of this image would take {size / 2**30:.1f} GiB of memory; crop the image.")
    data = np.full(taken.volume.shape, UNPAINTED, kind)
    look = corrections_look(classes)
    return (data[0] if taken.flat else data), {**taken.place, "name": "corrections", **look}, "labels"


def corrections_look(classes: Mapping[str, Sequence[int]]) -> dict[str, Any]:
    """Return the colours and names of paint: background is white, what is not painted is transparent."""
    look = class_look(classes)
    features = {name: list(column) for name, column in look["features"].items()}
    features["index"].append(UNPAINTED)
    features["class"].append("not painted")
    return {"colormap": {**look["colormap"], 0: BACKGROUND, UNPAINTED: "transparent"}, "features": features}


def find_places(
    image: Any,
    run: Path | str | None = None,
    *,
    probabilities: Path | str | None = None,
    section: int = 0,
    box: tuple[slice, slice] | None = None,
    seen: Iterable[Sequence[int]] = (),
    **options: Any,
) -> Job:
    """Look for windows that are worth a look and yield events; Finished carries a list of ``Suggestion``.

    Parameters
    ----------
    image : image layer
    run : Path, optional
        Run folder; names the classes, and knows the shapes of the source's objects.
    probabilities : Path, optional
        Stored probabilities (Z, Y, X, C) of the image. Without them the run predicts the section.
    section, box : of the image, as in ``segment_view``
        Where to look without stored probabilities.
    seen, **options
        As in ``suggest``.
    """
    taken = snapshot(image)
    run = None if run is None else Path(run).expanduser()
    if probabilities is None and run is None:
        raise ConfigError("Choose stored probabilities, or the run folder that predicts the section in view.")
    boxes = [tuple(int(v) for v in item) for item in seen]
    where = Path(probabilities).expanduser() if probabilities is not None else (section, *(box or (slice(None),) * 2))
    return _find_places(taken, run, where, boxes, options)


def _find_places(taken: Snapshot, run: Path | None, where: Any, seen: list[Any], options: dict[str, Any]) -> Job:
    from napari_em_da.suggestions import Suggestion
    from napari_em_da.suggestions import suggest as find

    names = None if run is None else list(run_classes(run))
    corner: tuple[int, ...] = (0, 0, 0)
    picture = taken.volume.source
    if isinstance(where, Path):
        scores: Any = Volume.open(where).source
        if tuple(scores.shape[:3]) != taken.volume.shape:
            raise DataError(f"{where} has shape {tuple(scores.shape)}, the image {taken.volume.shape}; choose its own.")
    else:
        found = None
        for event in segment_view(taken, run or "", where[0], where[1:], probabilities=True):
            if isinstance(event, Finished):
                found = event.result
            else:
                yield event
        if found is None or found.probabilities is None:
            return
        scores = np.moveaxis(np.asarray(found.probabilities), 0, -1)
        corner = tuple(part.start or 0 for part in found.box)
        picture = np.asarray(taken.volume.read(found.box))
    yield Progress(0, 1, "volumes", "looking for places")
    if names is not None and len(names) != scores.shape[3] - 1:
        names = None
    shapes = {} if run is None else known_shapes(run, taken)
    size = tuple(min(px, n) for px, n in zip(options.pop("window_px", (256, 256)), scores.shape[1:3], strict=True))
    shift = np.array([*corner, 0, 0])
    inner = [tuple((np.array(item) - shift).tolist()) for item in seen if 0 <= item[0] - corner[0] < scores.shape[0]]
    places = find(scores, image=picture, seen=inner, names=names, window_px=size, **{**shapes, **options})
    yield Progress(1, 1, "volumes", "looking for places")
    back = [
        Suggestion(p.section + corner[0], p.y + corner[1], p.x + corner[2], p.height, p.width, p.score, p.reason)
        for p in places
    ]
    yield Finished(back)
