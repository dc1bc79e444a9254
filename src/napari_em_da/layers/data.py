"""What would not work with the layers that were chosen, or would surprise, said before any work starts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from napari_em_da.errors import DataError
from napari_em_da.events import Finished, Progress
from napari_em_da.jobs import Job
from napari_em_da.jobs import run as run_job
from napari_em_da.layers.opening import AXES, Fix, axes_of, axis_order, finest, get, name_of
from napari_em_da.layers.snapshot import NM_PER_UNIT, Snapshot, snapshot
from napari_em_da.volume import Volume

SAME_SIZE = 0.02  # pixel sizes that differ by less are not resampled
IMPLAUSIBLE = 4.0  # between the pixel sizes of two microscopes
LOOKED_AT = 1024  # pixels per side of the middle of a section that is looked at
PAIRS = (("source", "labels"), ("target", "truth"))


@dataclass(frozen=True)
class Finding:
    """What a check has found.

    Attributes
    ----------
    text : str
        One or two sentences: what is the matter, and what to do.
    level : "info", "warning" or "error"
        An error stops the work, a warning may spoil the result.
    fix_name : str or None
        Key of ``FIXES``: what can be done about it at once.
    role : str
        Of the layer that it is about, and that a fix changes.
    """

    text: str
    level: Literal["info", "warning", "error"]
    fix_name: Fix | None = None
    role: str = ""


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
        text = "The same layer is the labels of the one image and the ground truth of the other; choose another one."
        found.append(Finding(text, "error", role="truth"))
    return _checking(found, taken, contrast)


def _checking(found: list[Finding], taken: dict[str, Snapshot], contrast: bool) -> Job:
    found = list(found)
    checks = (_labels, _sizes, _contrast) if contrast else (_labels, _sizes)
    for done, check in enumerate(checks):
        yield Progress(done, len(checks), "checks", "looking at the data")
        found += check(taken)
    order = ("error", "warning", "info")
    yield Finished(sorted(found, key=lambda finding: order.index(finding.level)))


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
        if volume.dtype.kind == "f":
            text = f"{volume.name} is stored as decimal numbers ({volume.dtype}); labels must be whole numbers."
            yield Finding(text, "error", "integers", role)
        elif isinstance(layer, tuple) and layer[2:] == ("image",) or hasattr(layer, "contrast_limits"):
            text = f"{volume.name} is open as an image; labels have to be a labels layer."
            yield Finding(text, "error", "labels", role)


def _labels(taken: Mapping[str, Snapshot]) -> Iterator[Finding]:
    for image_role, role in PAIRS:
        if image_role not in taken or role not in taken:
            continue
        image, labels = taken[image_role], taken[role]
        if image.volume.shape != labels.volume.shape:
            sizes = [" x ".join(map(str, item.volume.shape)) for item in (labels, image)]
            text = (
                f"{labels.volume.name} has {sizes[0]} voxels, {image.volume.name} {sizes[1]}; choose labels of the "
                "same region."
            )
            yield Finding(text, "error", role=role)
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


def _sizes(taken: Mapping[str, Snapshot]) -> Iterator[Finding]:
    images = {role: taken[role].volume for role in ("source", "target") if role in taken}
    unknown = [role for role, volume in images.items() if volume.voxel_nm is None]
    if unknown:
        names = " and ".join(images[role].name for role in unknown)
        one = len(unknown) == 1
        text = f"The voxel size of {names} is unknown; type it above. Without it, scales are guessed."
        yield Finding(text, "warning", "voxel" if one and len(images) == 2 else None, unknown[0])
    elif len(images) == 2:
        ours, theirs = (float(np.sqrt(v.voxel_nm[1] * v.voxel_nm[2])) for v in images.values() if v.voxel_nm)
        ratio = max(ours / theirs, theirs / ours)
        pixels = f"A pixel is {ours:g} nm in {images['source'].name} and {theirs:g} nm in {images['target'].name}"
        if ratio > IMPLAUSIBLE:
            text = f"{pixels}, {ratio:.3g} times different. Is one of them wrong? Then type the right one above."
            yield Finding(text, "warning", "voxel", "target")
        elif ratio > 1 + SAME_SIZE:
            yield Finding(f"{pixels}: one is resampled to the other, nothing is to be done.", "info", role="target")


def _contrast(taken: Mapping[str, Snapshot]) -> Iterator[Finding]:
    from napari_em_da.workflows import target_checks

    images = {role: _middle(taken[role].volume) for role in ("source", "target") if role in taken}
    source, target = images.get("source"), images.get("target")
    if source and target and source.shape == target.shape and source.fingerprint == target.fingerprint:
        text = f"The image to segment, {target.name}, is the labelled image itself; choose another one."
        yield Finding(text, "error", role="target")
        return
    role = ""
    try:
        for role, volume in images.items():
            if role == "target":
                target_checks.check_grey(volume)
            if blank := target_checks.blank_sections(volume):
                text = f"Some sections of {volume.name} are blank ({', '.join(map(str, blank[:8]))} …); crop them away."
                yield Finding(text, "warning", role=role)
            _ = volume.intensity
        if source and target:
            yield from _polarity(target, source)
    except DataError as error:
        yield Finding(str(error), "error", role=role)


def _polarity(target: Volume, source: Volume) -> Iterator[Finding]:
    from napari_em_da.workflows.contrast import contrast

    found = contrast(target, source)
    if found == "inverted":
        text = (
            f"The contrast of {target.name} looks inverted against {source.name}. Are membranes dark in one and "
            "bright in the other? Then invert it."
        )
        yield Finding(text, "warning", "invert", "target")
    elif found == "unknown":
        text = (
            f"Whether {target.name} has the contrast of {source.name} cannot be told from the images. Look at the "
            "membranes: if they are dark in one and bright in the other, invert it."
        )
        yield Finding(text, "info", "invert", "target")


def _middle(volume: Volume) -> Volume:
    """Return the middle of large sections, lazily."""
    if max(volume.shape[1:]) <= LOOKED_AT:
        return volume
    y, x = (slice(max(0, (n - LOOKED_AT) // 2), max(0, (n - LOOKED_AT) // 2) + LOOKED_AT) for n in volume.shape[1:])
    return Volume(volume.data[:, y, x], volume.voxel_nm, volume.name)
