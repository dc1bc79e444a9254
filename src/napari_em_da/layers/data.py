"""What would not work with the layers that were chosen, or would surprise, said before any work starts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from napari_em_da.config import CheckConfig, parse
from napari_em_da.errors import ConfigError, DataError
from napari_em_da.events import Finished, Progress
from napari_em_da.findings import PAIRS, Finding, in_order, mismatched, no_integers, pixel_sizes, same_labels
from napari_em_da.jobs import Job
from napari_em_da.jobs import run as run_job
from napari_em_da.layers.opening import AXES, axes_of, axis_order, finest, get, name_of
from napari_em_da.layers.snapshot import NM_PER_UNIT, Snapshot, snapshot, unchanged
from napari_em_da.volume import Volume


def check_data(**layers: Any) -> list[Finding]:
    """Return what would not work with these layers, or would surprise.

    Parameters
    ----------
    source, labels, target, truth : layer, optional
        The labelled image, its labels, the image to segment, and the ground truth of that image.
    """
    found: list[Finding] = run_job(checking(layers))
    return found


def checking(layers: Mapping[str, Any], *, contrast: bool = True) -> Job:
    """Look at the layers of these roles, as ``check_data`` does, and yield events; Finished carries the findings.

    The layers are taken when this is called. Of large volumes a few sections are read, and of these the middle; none
    without ``contrast``, which takes no time.
    """
    layers = {role: layer for role, layer in layers.items() if layer is not None}
    found: list[Finding] = []
    taken: dict[str, Snapshot] = {}
    for role, layer in layers.items():
        refused = _refused(role, layer)
        if refused is None:
            taken[role] = snapshot(layer)
            found += _handled(role, layer, taken[role].volume)
        else:
            found.append(refused)
    if "labels" in layers and layers["labels"] is layers.get("truth"):
        found.append(same_labels())
    return _checking(found, taken, contrast)


def check_config(**layers: Any) -> CheckConfig:
    """Return the check of the files that these layers of ``check_data`` show.

    Raises
    ------
    ConfigError
        If no file holds a layer as it is now.
    """
    values: dict[str, Any] = {}
    for role, layer in layers.items():
        if layer is not None:
            taken = snapshot(layer)
            if taken.path is None or not unchanged(taken, exact=False):
                raise ConfigError(
                    f"No file holds the layer {taken.volume.name!r} as it is now; save it (File > Save Selected "
                    "Layers) and open that file."
                )
            values[role] = taken.path
            if role in ("source", "target"):
                values[f"{role}_voxel_nm"] = taken.volume.voxel_nm
    return parse(CheckConfig, values)


def _checking(found: list[Finding], taken: dict[str, Snapshot], contrast: bool) -> Job:
    found = list(found)
    volumes = {role: item.volume for role, item in taken.items()}
    yield Progress(0, 2, "checks", "looking at the data")
    found += [*_labels(taken), *pixel_sizes(volumes)]
    yield Progress(1, 2, "checks", "looking at the data")
    if contrast:
        from napari_em_da.workflows.check import contrasts

        found += contrasts(volumes)
    yield Finished(in_order(found))


def _refused(role: str, layer: Any) -> Finding | None:
    name, axes = name_of(layer), axes_of(layer)
    if get(layer, "rgb"):
        return Finding(f"{name} is a colour picture; grey values are needed.", "error", "grey", role)
    if axes > 3:
        shape = tuple(int(n) for n in finest(layer).shape)
        text = f"{name} has {axes} axes {shape}: a time series, or several channels. One stack of sections is needed."
        return Finding(text, "error", "frame", role)
    if axis_order(layer) != AXES[-axes:]:
        text = f"The axes of {name} are in the order {', '.join(axis_order(layer))}; z, y, x is needed."
        return Finding(text, "error", "reorder", role)
    try:
        snapshot(layer)
    except DataError as error:
        return Finding(str(error), "error", role=role)
    return None


def _handled(role: str, layer: Any, volume: Volume) -> Iterator[Finding]:
    if get(layer, "multiscale"):
        yield Finding(f"{volume.name} has several resolutions; the full one is used.", "info", role=role)
    if role in ("labels", "truth"):
        decimal = no_integers(volume, role)
        if decimal is not None:
            yield decimal
        elif isinstance(layer, tuple) and layer[2:] == ("image",) or hasattr(layer, "contrast_limits"):
            text = f"{volume.name} is open as an image; labels have to be a labels layer."
            yield Finding(text, "error", "labels", role)


def _labels(taken: Mapping[str, Snapshot]) -> Iterator[Finding]:
    for image_role, role in PAIRS:
        if image_role not in taken or role not in taken:
            continue
        image, labels = taken[image_role], taken[role]
        unlike = mismatched(image.volume, labels.volume, role)
        if unlike is not None:
            yield unlike
        elif not _same_place(image, labels):
            text = (
                f"{labels.volume.name} is drawn shifted or scaled against {image.volume.name}. Both have the same "
                "voxels, and training goes voxel by voxel."
            )
            yield Finding(text, "warning", "align" if image.flat == labels.flat else None, role)


def _same_place(one: Snapshot, other: Snapshot) -> bool:
    """Whether the first and the last voxel are drawn within a hundredth of a voxel of each other."""
    if (one.volume.voxel_nm is None) != (other.volume.voxel_nm is None):
        return False
    (scale, start), (other_scale, other_start) = _drawn(one), _drawn(other)
    axes = min(len(scale), len(other_scale))
    step, sides = scale[-axes:], np.array(one.volume.shape[-axes:])
    first = np.abs(start[-axes:] - other_start[-axes:]) / np.abs(step)
    growth = np.abs(other_scale[-axes:] / step - 1) * sides
    return bool((first < 0.01).all() and (growth < 0.01).all())


def _drawn(taken: Snapshot) -> tuple[np.ndarray, np.ndarray]:
    """Return scale and translation in nm, or in pixels where nobody said."""
    axes = 2 if taken.flat else 3
    scale = np.array(taken.place.get("scale", (1.0,) * axes), float)
    start = np.array(taken.place.get("translate", (0.0,) * axes), float)
    units = taken.place.get("units")
    if taken.volume.voxel_nm is None or units is None:
        return scale, start
    names = [units] * axes if isinstance(units, str) else units
    factor = np.array([NM_PER_UNIT[str(unit).lower()] for unit in names])
    return scale * factor, start * factor
