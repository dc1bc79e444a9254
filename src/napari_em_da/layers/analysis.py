"""Post-processing, scores, error maps, measurements and edits of layers, without a window."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from napari_em_da.config import ChainConfig, parse
from napari_em_da.errors import DataError
from napari_em_da.layers.snapshot import LayerData, Snapshot, snapshot
from napari_em_da.lazy import computed
from napari_em_da.metrics._base import Kind
from napari_em_da.postprocess import Holds, Stack, apply_chain

RIGHT, MISSED, FALSE_ALARM = 1, 2, 3


def postprocess_layer(
    source: Any,
    chain: ChainConfig | Sequence[Any],
    *,
    holds: Holds | None = None,
    labelled: Sequence[int] = (),
    section: int | None = None,
) -> LayerData:
    """Run a post-processing chain on layers and return its outcome at their place.

    Parameters
    ----------
    source : layer, or {class name: image layer with its probability}
        An image layer is the probability of one class, ``foreground``.
    chain : ChainConfig, or a list of ``name`` and ``{name: options}``
    holds : {"probabilities", "labels", "instances"}, optional
        Of a single layer: floats are probabilities, 8-bit integers labels and wider ones instances, unless said.
    labelled : sequence of int
        Sections that hold ground truth.
    section : int, optional
        Only this section, for a preview.

    Returns
    -------
    LayerData
        Labels (classes or instances), or an image (the probability of the last class).

    Raises
    ------
    ConfigError
        If the chain does not fit together, or needs the voxel size and the layer has none.
    DataError
        If the layers differ in shape or are no probabilities.
    """
    steps = chain if isinstance(chain, ChainConfig) else parse(ChainConfig, {"steps": tuple(chain)}, "field of a chain")
    parts = source if isinstance(source, Mapping) else {"foreground": source}
    taken = {name: snapshot(layer) for name, layer in parts.items()}
    first = next(iter(taken.values()))
    if holds is None:
        holds = _guess(first.volume.dtype) if not isinstance(source, Mapping) else "probabilities"
    where = slice(None) if section is None else slice(section, section + 1)
    data = class_probabilities(taken, where) if holds == "probabilities" else first.volume.source[where]
    names = ("background", *taken)
    if holds == "labels":
        names = ("background", *(str(v) for v in range(1, int(computed(data.max())) + 1)))
    stack = Stack(data, holds, first.volume.voxel_nm, names, tuple(labelled) if section is None else ())
    return _layer(apply_chain(steps, stack), first)


def _guess(dtype: np.dtype[Any]) -> Holds:
    if dtype.kind == "f":
        return "probabilities"
    return "labels" if dtype.itemsize == 1 else "instances"


def class_probabilities(taken: Mapping[str, Snapshot], where: slice) -> Any:
    """Return (Z, Y, X, C) with the background first, from the classes' probabilities."""
    shapes = {name: item.volume.shape for name, item in taken.items()}
    if len(set(shapes.values())) > 1:
        raise DataError(f"The probability layers have different shapes: {shapes}.")
    parts = [item.volume.source[where].astype(np.float32) for item in taken.values()]
    if any(hasattr(part, "dask") for part in parts):
        import dask.array as da

        rest = da.clip(1 - sum(parts), 0, 1)
        return da.stack([rest, *parts], axis=-1)
    return np.stack([np.clip(1 - sum(parts), 0, 1), *parts], axis=-1)


def _layer(stack: Stack, like: Snapshot) -> LayerData:
    data = stack.data
    if stack.holds == "probabilities":
        data = data[..., -1]
        about: dict[str, Any] = {"name": f"p({stack.classes[-1]})", "contrast_limits": (0.0, 1.0), "colormap": "magma"}
        return (data[0] if like.flat else data), {**like.place, **about}, "image"
    about = {"name": f"{like.volume.name} {stack.holds}"}
    return (data[0] if like.flat else data), {**like.place, **about}, "labels"


def error_layer(
    prediction: Any, labels: Any, *, kind: Kind | None = None, ignore_label: int | None = None
) -> LayerData:
    """Return a labels layer of where Rand was lost: 1 split, 2 merge, 3 both, 4 missed.

    Parameters
    ----------
    prediction, labels : layers of one shape
    kind : {"membrane", "object", "instances"}, optional
        What they hold; ids by default.
    """
    from napari_em_da.metrics._error_map import split_merge_map

    found, truth = snapshot(prediction), snapshot(labels)
    data = split_merge_map(found.volume.source, truth.volume.source, kind=kind, ignored=ignore_label)
    features = {"index": [0, 1, 2, 3, 4], "error": ["none", "split", "merge", "split and merge", "missed"]}
    about = {"name": f"{found.volume.name} splits and merges", "features": features}
    return (data[0] if truth.flat else data), {**truth.place, **about}, "labels"


def overlay_layer(prediction: Any, labels: Any, *, ignore_label: int | None = None) -> LayerData:
    """Return a labels layer of hits (1, green), misses (2, red) and false alarms (3, blue)."""
    found, truth = snapshot(prediction), snapshot(labels)
    if found.volume.shape != truth.volume.shape:
        raise DataError(f"The layers have shapes {found.volume.shape} and {truth.volume.shape}; crop one to the other.")
    guess, wanted = found.volume.source, truth.volume.source
    data = RIGHT * ((wanted > 0) & (guess == wanted)) + MISSED * ((wanted > 0) & (guess != wanted))
    data = (data + FALSE_ALARM * ((wanted == 0) & (guess > 0))).astype(np.uint8)
    if ignore_label is not None:
        data = data * (wanted != ignore_label)
    colours = {None: "transparent", RIGHT: "#3cc850", MISSED: "#e63232", FALSE_ALARM: "#3c6eff"}
    features = {"index": [0, 1, 2, 3], "agreement": ["background", "hit", "miss", "false alarm"]}
    about = {"name": f"{found.volume.name} agreement", "colormap": colours, "features": features}
    return (data[0] if truth.flat else data), {**truth.place, **about}, "labels"


def plot_layers(
    prediction: Any,
    labels: Any,
    folder: Path | str,
    *,
    image: Any = None,
    kind: Kind | None = None,
    classes: Mapping[str, int] | None = None,
    ignore_label: int | None = None,
) -> list[Path]:
    """Draw where a prediction is right and wrong as PNG files: curves, confusion and montages.

    Parameters
    ----------
    prediction, labels : layers of one shape
    folder : Path
        Made if absent.
    image : image layer, optional
        Shown below the montages.
    kind : {"membrane", "object", "instances"}, optional
        What the layers hold; classes if absent, which must then be named.
    classes : {name: label value}, optional

    Returns
    -------
    list of Path
    """
    from napari_em_da.workflows.plots import plots

    found, truth = snapshot(prediction).volume, snapshot(labels).volume
    below = None if image is None else snapshot(image).volume.source
    drawn = plots(
        Path(folder),
        found.source,
        truth.source,
        kind=kind,
        classes=classes,
        ignored=ignore_label,
        image=below,
        spacing=truth.voxel_nm,
    )
    return [saved.path for saved in drawn]


def measure_layer(
    labels: Any, image: Any = None, *, columns: Sequence[str] | None = None, unit: Literal["nm", "um", "px"] = "nm"
) -> LayerData:
    """Return the labels again with one row of measurements per object as features.

    Parameters
    ----------
    labels : labels layer
    image : image layer of its shape, optional
        Whose intensities are measured.
    columns : groups of measurements; all if absent
    unit : {"nm", "um", "px"}
        Pixels where the layer has no physical scale.
    """
    from napari_em_da.measurements import features, measure

    taken = snapshot(labels)
    spacing = None if unit == "px" else taken.volume.voxel_nm
    table = measure(
        taken.volume.source,
        spacing=spacing,
        image=None if image is None else snapshot(image).volume.source,
        columns=None if columns is None else tuple(columns),
        unit="px" if spacing is None else unit,
    )
    data = taken.volume.source
    about = {"name": taken.volume.name, "features": features(table)}
    return (data[0] if taken.flat else data), {**taken.place, **about}, "labels"


def apply_edit(layer: Any, edit: Any) -> None:
    """Write the changed region of a proofreading edit into a labels layer, so that its undo knows about it.

    Raises
    ------
    DataError
        If the layer no longer holds what the edit was made for.
    """
    data = layer.data
    if not np.array_equal(np.asarray(computed(data[edit.region])), edit.before):
        raise DataError("The labels were changed since this edit was prepared; make it again.")
    changed = np.nonzero(edit.before != edit.after)
    where = tuple(index + part.start for index, part in zip(changed, edit.region, strict=True))
    if hasattr(layer, "data_setitem"):
        layer.data_setitem(where, edit.after[changed])
    else:
        edit.apply(data)
