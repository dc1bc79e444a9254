"""Files as layers, how large the voxels of a layer are, and layers changed so that they can be used."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from napari_em_da.errors import DataError
from napari_em_da.events import Finished, Progress
from napari_em_da.findings import Fix
from napari_em_da.jobs import Job
from napari_em_da.layers.jobs import IN_MEMORY
from napari_em_da.layers.samples import place_of
from napari_em_da.layers.snapshot import PLACE, LayerData, smallest, voxel_size
from napari_em_da.lazy import computed
from napari_em_da.volume import Volume, VoxelSize, check_voxel_size

if TYPE_CHECKING:
    import dask.array as da

AXES = "zyx"
GREY = (0.299, 0.587, 0.114)  # of red, green, blue: ITU-R BT.601
SIMPLE_PLACE = ("scale", "translate", "units", "axis_labels")  # one value per axis

FIXES: dict[Fix, str] = {
    "grey": "Make it grey",
    "frame": "Keep the one in view",
    "reorder": "Reorder to z, y, x",
    "integers": "Convert to integers",
    "labels": "Make it a labels layer",
    "align": "Place them on the image",
    "voxel": "Take the other image's size",
    "invert": "Invert it",
}


def open_layer(path: Path | str, kind: Literal["image", "labels"] = "image", *, name: str | None = None) -> Job:
    """Open a file or folder lazily and yield events; Finished carries its LayerData.

    Labels below 0.5 GB are read into memory, where they can be painted on. Labels that are no integers come as an
    image: napari shows no others.

    Raises
    ------
    DataError
        If no reader knows it, or it is damaged.
    """
    yield Progress(0, 1, "files", "opening")
    volume = Volume.open(Path(path).expanduser(), name=name)
    yield Finished(_opened(volume, kind))


def _opened(volume: Volume, kind: Literal["image", "labels"]) -> LayerData:
    about: dict[str, Any] = {**place_of(volume), "name": volume.name, "metadata": {"path": str(volume.path)}}
    if len(volume.shape) == 4:
        if volume.shape[3] in (3, 4) and volume.dtype == np.uint8:
            return volume.data, {**about, "rgb": True}, "image"
        for key, first in (("scale", 1.0), ("units", "pixel"), ("axis_labels", "c")):
            if key in about:
                about[key] = (first, *about[key])
        return volume.data.transpose((3, 0, 1, 2)), about, "image"
    if kind == "labels" and volume.dtype.kind in "ui":
        return volume.read() if volume.nbytes < IN_MEMORY else volume.data, about, "labels"
    with suppress(DataError):  # constant or NaN: napari shows it somehow, and the checks say it
        about["contrast_limits"] = (volume.intensity.quantiles[0], volume.intensity.quantiles[-1])
    return volume.data, about, "image"


def axis_order(layer: Any) -> str:
    """Return the order of a layer's last axes, ``"zyx"`` where its axis labels say nothing else."""
    expected = AXES[-min(axes_of(layer), 3) :]
    said = "".join(str(label).lower() for label in (get(layer, "axis_labels") or ())[-len(expected) :])
    return said if sorted(said) == sorted(expected) else expected


def layer_voxel(layer: Any) -> VoxelSize | None:
    """Return the voxel size (z, y, x) in nm of a layer, whatever the order of its axes; None in pixel units.

    Raises
    ------
    DataError
        If a unit is no length that is known here.
    """
    order, scale, units = axis_order(layer), get(layer, "scale"), get(layer, "units")
    if len(order) < 3 or scale is None or units is None or isinstance(units, str):
        return voxel_size(scale, units, name_of(layer))
    back = [order.index(axis) for axis in AXES]
    return voxel_size([scale[-3:][i] for i in back], [units[-3:][i] for i in back], name_of(layer))


def voxel_place(layer: Any, voxel_nm: VoxelSize) -> dict[str, Any]:
    """Return the ``scale``, ``units`` and ``translate`` that give a layer this voxel size; it stays in its voxel.

    Raises
    ------
    DataError
        If these are not three positive numbers.
    """
    sizes = dict(zip(AXES, check_voxel_size(voxel_nm), strict=True))
    order = axis_order(layer)
    old = [float(s) for s in get(layer, "scale")]
    rest = len(old) - len(order)
    scale = [*old[:rest], *(sizes[axis] for axis in order)]
    moved = [float(t) * new / was for t, new, was in zip(get(layer, "translate"), scale, old, strict=True)]
    units = [str(unit) for unit in get(layer, "units")[:rest]] + ["nm"] * len(order)
    return {"scale": scale, "units": units, "translate": moved}


def align_place(layer: Any, image: Any) -> dict[str, Any]:
    """Return the ``scale``, ``units``, ``translate`` and ``axis_labels`` that put a layer on an image of its axes."""
    axes = axes_of(layer)
    return {key: list(get(image, key))[-axes:] for key in ("scale", "units", "translate", "axis_labels")}


def fixed_layer(fix: Fix, layer: Any, *, at: Sequence[int] = ()) -> Job:
    """Make a layer that can be used out of one that cannot, and yield events; Finished carries its LayerData.

    What is in memory stays there; anything else is computed as it is looked at.

    Parameters
    ----------
    fix : "grey", "frame", "reorder", "integers", "labels" or "invert"
    layer : layer or LayerData
        Taken when this is called; it is not changed.
    at : sequence of int
        Place along the leading axes, for ``"frame"``.

    Raises
    ------
    DataError
        If labels with decimals are to be integers.
    """
    data, kind = finest(layer), "labels" if hasattr(layer, "selected_label") else "image"
    kind = layer[2] if isinstance(layer, tuple) and len(layer) > 2 else kind
    place = {key: get(layer, key) for key in PLACE if get(layer, key) is not None}
    return _fixed(fix, data, place, axis_order(layer), tuple(at), name_of(layer), kind)


def _fixed(fix: Fix, data: Any, place: dict[str, Any], order: str, at: tuple[int, ...], name: str, kind: str) -> Job:
    import dask.array as da

    yield Progress(0, 1, "layers", FIXES[fix])
    lazy = da.asarray(data)
    title = {"grey": "grey", "frame": ", ".join(map(str, at)), "reorder": "z, y, x", "invert": "inverted"}.get(fix)
    if fix == "grey":
        lazy = _grey(lazy)
    elif fix == "frame":
        leading = lazy.ndim - 3
        lazy = lazy[(*at, *(0,) * leading)[:leading]]
        place = {key: list(place[key])[-3:] for key in SIMPLE_PLACE if key in place}
    elif fix == "reorder":
        back = [order.index(axis) for axis in AXES[-len(order) :]]
        lazy = lazy.transpose(back)
        place = {key: [list(place[key])[i] for i in back] for key in SIMPLE_PLACE if key in place}
        place["axis_labels"] = list(AXES[-len(order) :])
    elif fix == "invert":
        lazy = _inverted(lazy)
    elif fix in ("integers", "labels"):
        kind = "labels"
        if lazy.dtype.kind == "f":
            yield from _check_whole(lazy, name)
            lazy = lazy.astype(np.int32)
    out: Any = lazy
    if kind == "labels" and lazy.nbytes < IN_MEMORY:  # so that it can be painted on
        small = smallest(Volume.from_array(computed(lazy))).read()
        out = small.reshape(lazy.shape)
    elif isinstance(data, np.ndarray):
        out = computed(lazy)
    about = {**place, "name": f"{name} ({title})" if title else f"{name} labels"}
    yield Finished((out, about, kind))


def _grey(colours: da.Array) -> da.Array:
    """Return the luma of (…, 3 or 4) colours in their own type; transparency is left out."""
    grey = (colours[..., :3].astype(np.float32) * np.array(GREY, np.float32)).sum(axis=-1)
    out: da.Array = (grey.round() if colours.dtype.kind in "ui" else grey).astype(colours.dtype)
    return out


def _inverted(image: da.Array) -> da.Array:
    """Return the image with bright and dark exchanged, in its own type."""
    out: da.Array
    if image.dtype.kind in "ui":
        out = ~image
    else:
        levels = Volume.from_array(image).intensity.quantiles
        out = (levels[0] + levels[-1] - image).astype(image.dtype)
    return out


def _check_whole(labels: da.Array, name: str) -> Job:
    """Raise a DataError where labels are no whole numbers that an int32 holds."""
    for index in range(labels.shape[0]):
        yield Progress(index, labels.shape[0], "sections", "looking at all values")
        section = computed(labels[index])
        wrong = section[~((section == np.round(section)) & (np.abs(section) < 2**31))]
        if wrong.size:
            raise DataError(
                f"{name} holds {wrong.flat[0]:g} (section {index}), which is no whole number, so these are no labels; "
                "choose the label file. Probabilities become labels by a threshold."
            )


def get(layer: Any, key: str) -> Any:
    """Return an attribute of a layer or of a LayerData tuple; None where it has none."""
    if isinstance(layer, tuple):
        return (layer[1] if len(layer) > 1 else {}).get(key)
    return getattr(layer, key, None)


def name_of(layer: Any) -> str:
    """Return a layer's name."""
    return str(get(layer, "name") or "layer")


def finest(layer: Any) -> Any:
    """Return the data; of a pyramid the full resolution."""
    data = layer[0] if isinstance(layer, tuple) else getattr(layer, "data", layer)
    return data[0] if get(layer, "multiscale") else data


def axes_of(layer: Any) -> int:
    """Return the number of axes, without that of the colours."""
    return len(finest(layer).shape) - bool(get(layer, "rgb"))
