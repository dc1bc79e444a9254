"""Post-processing of a segmentation that is a layer: one section at once, the volume as a job."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from napari_em_da.config import ChainConfig, PostprocessConfig, VoxelSize
from napari_em_da.errors import ConfigError, DataError
from napari_em_da.jobs import Job
from napari_em_da.layers.jobs import IN_MEMORY
from napari_em_da.layers.snapshot import LayerData, Snapshot, as_file, snapshot
from napari_em_da.metrics._base import load
from napari_em_da.postprocess import Holds, Stack, apply_chain, resolve
from napari_em_da.volume import Volume

AROUND = 8  # sections on either side of the one in view, for steps whose result any section may decide
SAME_VOXEL = 0.01


@dataclass(frozen=True, eq=False)
class Refinable:
    """What a chain works on.

    Attributes
    ----------
    stack : lazy Stack
        As `napari_em_da.run_chain` opens it.
    classes : {name: label values}
    place : Snapshot
        Of the segmentation's layer: where results are shown.
    path : Path or None
        The file of the stack, if one holds it.
    """

    stack: Stack
    classes: dict[str, tuple[int, ...]]
    place: Snapshot
    path: Path | None = None


@dataclass(frozen=True)
class Preview:
    """One refined section, and the sections ``first`` to ``last`` that it was computed from.

    ``exact`` says that the section of the refined volume is the same (up to the numbers of objects).
    """

    layer: LayerData
    section: int
    first: int
    last: int
    exact: bool
    advice: tuple[str, ...] = ()


def path_of(layer: Any, what: str = "path") -> Path | None:
    """Return the file that a layer came from; ``what="probabilities"``: those of the segmentation, if stored."""
    recorded = (getattr(layer, "metadata", None) or {}).get(what)
    if recorded is None and what == "path":
        recorded = getattr(getattr(layer, "source", None), "path", None)
    return None if recorded is None else Path(recorded)


def with_path(layer: Any) -> Snapshot:
    """Take what a job needs of a layer, with the file that a job of ours wrote it to."""
    taken = snapshot(layer)
    return taken if isinstance(layer, Snapshot) else replace(taken, path=path_of(layer))


def refinable(
    layer: Any, probabilities: Path | str | None = None, *, holds: Holds | None = None, labelled: Sequence[int] = ()
) -> Refinable:
    """Open the probabilities of a segmentation, or the segmentation itself where they are not stored.

    Parameters
    ----------
    layer : labels layer, or what ``with_path`` took of it
        The segmentation.
    probabilities : Path, optional
        Volume that ``segment`` wrote.
    holds : optional
        What is opened; from its type, or from the file beside it, if absent.
    labelled : sequence of int
        Sections that hold ground truth, which no step changes.

    Raises
    ------
    DataError
        If the file cannot be read or is of another shape than the layer.
    """
    from napari_em_da.workflows.sidecar import read_sidecar
    from napari_em_da.workflows.stacks import stack_of

    taken = with_path(layer)
    own, path = taken.path, taken.path
    voxel = taken.volume.voxel_nm
    if probabilities is not None:
        path = file = Path(probabilities).expanduser()
        volume, recorded = Volume.open(file, voxel_nm=voxel), read_sidecar(file)
        if volume.shape[:3] != taken.volume.shape:
            raise DataError(
                f"{file.name} has shape {volume.shape[:3]}, but the segmentation {taken.volume.name!r} "
                f"{taken.volume.shape}; choose the probabilities that were stored with it."
            )
    else:
        volume = taken.volume
        recorded = None if own is None else read_sidecar(own)
    stack, classes = stack_of(volume, recorded, holds=holds, labelled=tuple(labelled))
    return Refinable(stack, classes, taken, path)


def reach_of(chain: ChainConfig, holds: Holds) -> int | None:
    """Return how many sections above and below a section decide the outcome of a chain; None: any may.

    Raises
    ------
    ConfigError
        If the chain does not fit together.
    """
    total = 0
    for _, step, options in resolve(chain, holds):
        own = step.reach(options)
        if own is None:
            return None
        total += own
    return total


def postprocess_section(source: Refinable, chain: ChainConfig, section: int, *, around: int = AROUND) -> Preview:
    """Refine one section as the volume would be refined, from the sections that decide it.

    Parameters
    ----------
    source : Refinable
    chain : ChainConfig
    section : int
        Clipped to the volume.
    around : int
        Sections on either side for steps in which any section may decide, such as objects in 3D.

    Returns
    -------
    Preview
        With a labels layer (Y, X) of label values or ids, or an image with the probability of the last class.

    Raises
    ------
    ConfigError, DataError
        As `napari_em_da.run_chain`.
    """
    from napari_em_da.workflows.stacks import values_of

    stack = source.stack
    depth = stack.shape[0]
    z = min(max(section, 0), depth - 1)
    reach = reach_of(chain, stack.holds)
    wide = around if reach is None else reach
    first, last = max(0, z - wide), min(depth - 1, z + wide)
    labelled = tuple(s - first for s in stack.labelled if first <= s <= last)
    slab = replace(stack, data=load(stack.data, (slice(first, last + 1),)), labelled=labelled)
    advice = tuple(a for _, step, _ in resolve(chain, stack.holds) if (a := step.advice(stack)))
    done = apply_chain(chain, slab)
    place = {k: tuple(v)[-2:] for k, v in source.place.place.items() if k in ("scale", "translate", "units")}
    look: dict[str, Any] = {**place, "name": "refined preview", "metadata": {"preview": True, "holds": done.holds}}
    exact = reach is not None or (first == 0 and last == depth - 1)
    if done.holds == "probabilities":
        look |= {"contrast_limits": (0.0, 1.0), "colormap": "magma"}
        layer: LayerData = (done.data[z - first, ..., -1], look, "image")
    else:
        values = values_of(done.with_data(done.data[z - first][None]), source.classes)
        layer = (np.asarray(values)[0], look, "labels")
    return Preview(layer, z, first, last, exact, advice)


def postprocess_config(
    source: Refinable, chain: ChainConfig, output: Path | str, *, holds: Holds | None = None, overwrite: bool = False
) -> PostprocessConfig:
    """Return the call that refines the volume from its file.

    Raises
    ------
    ConfigError
        If no file holds the segmentation.
    """
    if source.path is None:
        raise ConfigError(
            f"No file holds the layer {source.place.volume.name!r}; save it (File > Save selected layers), and open "
            "that file, to have a call that works without the window."
        )
    voxel = source.place.volume.voxel_nm
    return _config(source.path, chain, Path(output).expanduser(), voxel, source, holds, overwrite)


def _config(
    path: Path,
    chain: ChainConfig,
    output: Path,
    voxel: VoxelSize | None,
    source: Refinable,
    holds: Holds | None,
    overwrite: bool,
) -> PostprocessConfig:
    known = Volume.open(path).voxel_nm if path.exists() else None
    same = known is not None and voxel is not None and np.allclose(known, voxel, rtol=SAME_VOXEL, atol=0)
    return PostprocessConfig(
        input=path,
        chain=chain,
        output=output,
        holds=holds,
        labelled=source.stack.labelled,
        voxel_nm=None if same else voxel,
        overwrite=overwrite,
    )


def postprocess(
    source: Refinable, chain: ChainConfig, output: Path | str, *, holds: Holds | None = None, overwrite: bool = False
) -> Job:
    """Refine the volume into a new file and yield the events of ``run_chain``; Finished carries its result.

    Notes
    -----
    A layer that is not what its file holds (painted on, or never saved) is first written beside the output, into a
    folder that goes away at the end.
    """
    from napari_em_da.workflows.postprocess import run_chain
    from napari_em_da.workflows.sidecar import write_sidecar

    where = Path(output).expanduser()
    resolve(chain, source.stack.holds)  # before anything is written
    voxel = source.place.volume.voxel_nm
    if source.stack.holds == "probabilities" and source.path is not None:
        yield from run_chain(_config(source.path, chain, where, voxel, source, holds, overwrite))
        return
    where.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".layer-", dir=where.parent, ignore_cleanup_errors=True) as folder:
        copy = Path(folder) / "labels.tif"
        path = yield from as_file(source.place, copy, exact=True)
        if path == copy and source.classes:
            write_sidecar(copy, source.classes, source.stack.holds)
        yield from run_chain(_config(path, chain, where, voxel, source, holds or source.stack.holds, overwrite))


def refined_layers(result: Any, like: Refinable) -> list[LayerData]:
    """Turn a ``PostprocessResult`` into LayerData at the place of the segmentation.

    Labels below 0.5 GB are read into memory, where they can be edited; larger ones stay lazy.
    """
    volume, flat = Volume.open(result.output), like.place.flat
    about: dict[str, Any] = {**like.place.place, "metadata": {"path": str(result.output), "holds": result.holds}}
    name = f"{like.place.volume.name} refined"
    data: Any = volume.data
    if result.holds == "probabilities":
        look = {"contrast_limits": (0.0, 1.0), "colormap": "magma", "blending": "additive"}
        parts = [data[..., i] for i in range(1, data.shape[3])]
        names = [f"p({c}) refined" for c in result.classes]
        return [(p[0] if flat else p, {**about, **look, "name": n}, "image") for p, n in zip(parts, names, strict=True)]
    if volume.nbytes < IN_MEMORY:
        data = volume.read()
    if result.holds == "labels" and result.classes:
        values = {values[0]: name for name, values in result.classes.items()}
        about["features"] = {"index": [0, *values], "class": ["background", *values.values()]}
    return [(data[0] if flat else data, {**about, "name": name}, "labels")]


__all__ = [
    "Preview",
    "Refinable",
    "path_of",
    "postprocess",
    "postprocess_config",
    "postprocess_section",
    "reach_of",
    "refinable",
    "refined_layers",
    "with_path",
]
