"""The microscope pairs of the adaptation benchmark, cut as the protocol says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from napari_em_da.config import ImageConfig, LabelledConfig
from napari_em_da.errors import ConfigError
from napari_em_da.postprocess.boundaries import boundary_map
from napari_em_da.volume import Volume, VoxelSize

TRAIN_SHARE = 0.67  # of the target along x: its unlabelled training part; the rest is scored
Values = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Labelled:
    """An image and its labels, in files."""

    image: Path
    labels: Path
    voxel_nm: VoxelSize

    def config(self) -> LabelledConfig:
        """Return it as a labelled volume of a training job."""
        return LabelledConfig(image=self.image, labels=self.labels, voxel_nm=self.voxel_nm)


@dataclass(frozen=True)
class Pair:
    """One source, one target in a training and a test part, and what is segmented.

    A network learns every large annotated structure (``classes`` of the source; ``bound_classes`` of the target, for
    the supervised bound): knowing the others, it mistakes fewer of them for what is scored. ``target_classes`` are
    scored.
    """

    name: str
    source: tuple[Labelled, ...]
    target: Labelled
    test: Labelled
    classes: Values
    bound_classes: Values
    target_classes: Values
    pixel_nm: float

    def unlabelled(self) -> ImageConfig:
        """Return the target's training part without its labels."""
        return ImageConfig(image=self.target.image, voxel_nm=self.target.voxel_nm)


EPFL: Values = {"mito": (2,), "membrane": (1,), "vesicles": (5,)}
VNC: Values = {"mito": (3,), "membrane": (1,)}
EPFL_NM, VNC_NM, FLYEM_NM = (5.0, 5.0, 5.0), (50.0, 4.6, 4.6), (10.0, 10.0, 10.0)


def _epfl(data: Path, work: Path) -> tuple[tuple[Labelled, ...], Labelled]:
    folder = data / "epfl_hippocampus"
    train = tuple(Labelled(folder / f"image{s}.tif", folder / f"labels{s}.tif", EPFL_NM) for s in ("", "_sparse"))
    return train, Labelled(folder / "image_test.tif", folder / "labels_test.tif", EPFL_NM)


def _vnc(data: Path, work: Path) -> tuple[tuple[Labelled, ...], Labelled]:
    folder = data / "vnc_sstem"
    return (Labelled(folder / "image.tif", folder / "labels.tif", VNC_NM),), _parts(folder, work, "test", VNC_NM)


def _flyem(data: Path, work: Path) -> tuple[Labelled, ...]:
    """Return FlyEM with membranes derived from its instances: the two voxels between neighbours."""
    folder = data / "flyem_medulla"
    path = work / "flyem-membranes.tif"
    if not path.exists():
        ids = Volume.open(folder / "instances.tif").read()
        edges = boundary_map(ids, mode="between", thickness=2, pixel=(1.0, 1.0))
        Volume.from_array((np.asarray(edges) > 0).astype(np.uint8), voxel_nm=FLYEM_NM).save(path)
    return (Labelled(folder / "image.tif", path, FLYEM_NM),)


def _parts(folder: Path, work: Path, part: str, voxel_nm: VoxelSize) -> Labelled:
    """Cut a target along x into its training and its test part, once."""
    paths = {name: work / f"{folder.name}-{name}-{part}.tif" for name in ("image", "labels")}
    for name, path in paths.items():
        if not path.exists():
            data = Volume.open(folder / f"{name}.tif", voxel_nm=voxel_nm).data
            cut = round(data.shape[2] * TRAIN_SHARE)
            piece = data[:, :, :cut] if part == "train" else data[:, :, cut:]
            Volume.from_array(piece, voxel_nm=voxel_nm).save(path)
    return Labelled(paths["image"], paths["labels"], voxel_nm)


def _epfl_to_vnc(data: Path, work: Path) -> Pair:
    target = _parts(data / "vnc_sstem", work, "train", VNC_NM)
    return Pair("epfl->vnc mito", _epfl(data, work)[0], target, _vnc(data, work)[1], EPFL, VNC, {"mito": (3,)}, 10)


def _vnc_to_epfl(data: Path, work: Path) -> Pair:
    train, test = _epfl(data, work)
    return Pair("vnc->epfl mito", _vnc(data, work)[0], train[0], test, {"mito": (3,)}, EPFL, {"mito": (2,)}, 10)


def _flyem_to_vnc(data: Path, work: Path) -> Pair:
    target, test = _parts(data / "vnc_sstem", work, "train", VNC_NM), _vnc(data, work)[1]
    membrane: Values = {"membrane": (1,)}
    return Pair("flyem->vnc membrane", _flyem(data, work), target, test, membrane, VNC, membrane, 6)


def _epfl_to_vnc_membrane(data: Path, work: Path) -> Pair:
    target, test = _parts(data / "vnc_sstem", work, "train", VNC_NM), _vnc(data, work)[1]
    source = _epfl(data, work)[0]
    return Pair("epfl->vnc membrane", source, target, test, EPFL, VNC, {"membrane": (1,)}, 6)


PAIRS: dict[str, Callable[[Path, Path], Pair]] = {
    "epfl->vnc mito": _epfl_to_vnc,
    "vnc->epfl mito": _vnc_to_epfl,
    "flyem->vnc membrane": _flyem_to_vnc,
    "epfl->vnc membrane": _epfl_to_vnc_membrane,
}


def make_pair(name: str, data: Path, work: Path) -> Pair:
    """Return a pair by its name, cutting its volumes into ``work`` where that was not done yet.

    Raises
    ------
    ConfigError
        If there is no such pair, or the data folder is missing.
    """
    if name not in PAIRS:
        from napari_em_da.catalog import unknown

        raise ConfigError(unknown("pair", name, tuple(PAIRS)))
    if not data.is_dir():
        raise ConfigError(
            f"{data} is no folder; give --data, a folder with epfl_hippocampus, vnc_sstem and flyem_medulla."
        )
    work.mkdir(parents=True, exist_ok=True)
    pair: Any = PAIRS[name](data, work)
    return pair  # type: ignore[no-any-return]
