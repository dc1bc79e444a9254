"""Samples and demo results as layers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from napari_em_da.errors import DataError
from napari_em_da.layers.snapshot import LayerData
from napari_em_da.volume import Volume


def phantom_sample() -> list[LayerData]:
    """Return a phantom of neural tissue as two microscopes show it, with its labels (24 x 256 x 256 voxels of 8 nm)."""
    from napari_em_da.synthetic import phantom, render

    tissue = phantom((24, 256, 256), seed=1)
    other = render(tissue, "sbem", seed=2)
    return [
        _as_layer(tissue.image, "phantom FIB-SEM"),
        _as_layer(other, "phantom SBEM", visible=False),
        _as_layer(tissue.labels, "phantom labels", kind="labels"),
    ]


def flyem_sample() -> list[LayerData]:
    """Return a crop of the FlyEM medulla (FIB-SEM) with its neurons."""
    from napari_em_da import sample

    image, neurons = sample.flyem_sample()
    return [_as_layer(image, image.name), _as_layer(neurons, neurons.name, kind="labels")]


def _as_layer(volume: Volume, name: str, *, kind: str = "image", **look: Any) -> LayerData:
    data = volume.source if isinstance(volume.source, np.ndarray) else volume.data
    return data, {**place_of(volume), "name": name, **look}, kind


def place_of(volume: Volume) -> dict[str, Any]:
    """Return scale, units and axis labels of a volume as a layer takes them."""
    labels = ("z", "y", "x")
    if volume.voxel_nm is None:
        return {"axis_labels": labels}
    return {"scale": volume.voxel_nm, "units": ("nm",) * 3, "axis_labels": labels}


def demo_layers(folder: Path | str) -> list[LayerData]:
    """Return the volumes of a demo folder as LayerData, lazily: the scored volume B, its truth and what was found.

    In a folder without ``B.tif``, every volume that it holds. Integers in ``NAME-….tif`` beside a ``NAME.tif`` are
    labels of that image, and so are those named labels or segmentation.

    Raises
    ------
    DataError
        If the folder holds no volume.
    """
    paths = sorted(p for p in Path(folder).glob("*") if p.suffix in (".tif", ".tiff", ".zarr"))
    stems = {p.stem for p in paths}
    if "B" in stems:
        paths = [p for p in paths if p.stem.startswith("B") and not p.stem.startswith("B-train")]
    found: list[LayerData] = []
    for path in paths:
        volume = Volume.open(path)
        named = path.stem.partition("-")[0] in stems - {path.stem} or "label" in path.stem or "segment" in path.stem
        is_labels = named and volume.dtype.kind in "ui"
        visible = not is_labels or "B" not in stems or path.stem == "B-adapted"
        if len(volume.shape) == 3:
            found.append(_as_layer(volume, path.stem, kind="labels" if is_labels else "image", visible=visible))
    if not found:
        raise DataError(f"{folder} holds no volume (.tif or .zarr) to show; run 'napari-em-da demo' first.")
    return sorted(found, key=lambda layer: layer[2])  # images below labels


def open_demo(folder: Path | str, *, block: bool = True) -> Any:
    """Open a viewer with the volumes of a demo folder and, if ``block``, run napari until it is closed."""
    from napari.layers import Layer

    import napari

    layers = demo_layers(folder)
    viewer = napari.Viewer(title="napari-em-da demo")
    for data in layers:
        viewer.add_layer(Layer.create(*data))
    if block:
        napari.run()
    return viewer
