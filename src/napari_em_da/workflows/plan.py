"""From a config to a checked plan: everything that can be known to fail fails here, before any work starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch

from napari_em_da.config import ImageConfig, LabelledConfig, TrainConfig
from napari_em_da.device import choose_device, choose_precision
from napari_em_da.errors import ConfigError, DataError
from napari_em_da.methods import METHODS
from napari_em_da.methods._base import MethodSpec
from napari_em_da.models import MODELS
from napari_em_da.models._base import SegmentationNet
from napari_em_da.seeding import seeded
from napari_em_da.training.folder import RunFolder
from napari_em_da.volume import Volume
from napari_em_da.weights._indices import class_indices as class_indices  # others take them from here
from napari_em_da.weights._indices import class_values as class_values
from napari_em_da.workflows.class_shares import check_classes
from napari_em_da.workflows.label_fraction import annotated_sections, chosen_sections, only
from napari_em_da.workflows.scale import find_scale
from napari_em_da.workflows.source_record import SourceRecord, recall
from napari_em_da.workflows.target_checks import check_target

IGNORE = 255


@dataclass(frozen=True)
class LabelledVolume:
    """An opened source: image and class indices (uint8, 255 where not annotated), lazy.

    ``sections`` are those whose labels are used, where a part of the labels was asked for.
    """

    image: Volume
    labels: Any  # dask array (Z, Y, X) uint8
    sections: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Plan:
    """A job that passed every check; ``config`` is what it really does, scales of unknown sizes widened."""

    config: TrainConfig
    source: tuple[LabelledVolume, ...]
    target: tuple[Volume, ...]
    method: MethodSpec
    network: SegmentationNet
    network_info: dict[str, Any]
    pixel_nm: float | None
    device: torch.device
    dtype: torch.dtype | None
    prior: tuple[float, ...]  # share of each class in the source's labels, background first
    notices: tuple[str, ...]
    record: SourceRecord | None = None  # of the source, where it is not at hand
    section_nm: float | None = None  # of 3D windows
    warnings: tuple[str, ...] = ()

    @property
    def patch(self) -> tuple[int, ...]:
        """Spatial window of the network: (Y, X) or (Z, Y, X)."""
        return self.config.sampling.patch_px[-self.network.ndim :]


def make_plan(config: TrainConfig) -> Plan:
    """Open the volumes (lazily), build the network and check that they fit each other.

    Raises
    ------
    ConfigError
        Unknown method, network or option; a window the network cannot take; missing target, or source.
    DataError
        Unreadable or mismatched volumes, absent or single classes, NaN.
    ResourceError
        A device that the machine lacks.
    """
    notices: list[str] = []
    device = choose_device(config.training.device)
    dtype = choose_precision(config.training.precision, device)
    method = METHODS[config.method.name]
    needs_target = "target" in method.streams
    if needs_target and not config.target:
        raise ConfigError(f"The method {config.method.name!r} adapts to a target; give at least one target volume.")
    if config.target and not needs_target:
        notices.append(f"The method {config.method.name!r} learns nothing from the target volumes itself.")
    record = None if config.source else recall(config, method)
    seed = config.training.seed
    source = tuple(open_labelled(item, config.classes, config.ignore_label, seed) for item in config.source)
    target = tuple(open_image(item) for item in config.target)
    prior = record.prior if record else check_classes([item.labels for item in source], config)
    network, info = build_network(config)
    patch = config.sampling.patch_px[-network.ndim :]
    if network.ndim == 2 and config.sampling.patch_px[0] != 1:
        raise ConfigError(
            f"sampling.patch_px is {config.sampling.patch_px}, but {config.network.name!r} is a 2D network; "
            "use 1 for z."
        )
    problem = network.patch_problem(patch)
    if problem:
        raise ConfigError(f"sampling.patch_px does not fit {config.network.name!r}: {problem}.")
    scale = find_scale(config, method, network.ndim, [item.image for item in source], target, record)
    config = config.model_copy(update={"augment": scale.augment})
    notices += scale.notices
    for item, volume in zip((*config.source, *config.target), (*(s.image for s in source), *target), strict=True):
        if volume.voxel_nm is not None:
            size = ", ".join(f"{v:g}" for v in volume.voxel_nm)
            origin = "as given" if item.voxel_nm else "from the file"
            notices.append(f"{item.image.name}: voxel size {size} nm ({origin}).")
        _ = volume.intensity  # NaN and constant volumes stop here
    for labelled, used in zip(config.source, source, strict=True):
        if used.sections is not None:
            which = ", ".join(map(str, used.sections))
            notices.append(f"{labelled.labels.name}: labels are used of {len(used.sections)} sections only ({which}).")
    for volume in target:
        notices += check_target(volume, [item.image for item in source])
    return Plan(
        config,
        source,
        target,
        method,
        network,
        info,
        scale.pixel_nm,
        device,
        dtype,
        prior,
        tuple(notices),
        record,
        scale.section_nm,
        scale.warnings,
    )


def open_image(item: ImageConfig) -> Volume:
    """Open an image stack (Z, Y, X) of one channel."""
    volume = Volume.open(item.image, voxel_nm=item.voxel_nm)
    if len(volume.shape) == 4:
        raise DataError(
            f"{item.image} has {volume.shape[3]} channels {volume.shape}; "
            "convert it to grey values (one channel) first."
        )
    return volume


def open_labelled(
    item: LabelledConfig, classes: Mapping[str, tuple[int, ...]], ignore: int | None, seed: int = 0
) -> LabelledVolume:
    """Open an image with its label map and translate label values into class indices.

    Where only a fraction of the labels is to be used, ``seed`` chooses the sections; all others are not annotated.

    Raises
    ------
    DataError
        If shapes differ, labels are not integers, or they hold none of the classes.
    """
    image = open_image(item)
    labels = Volume.open(item.labels)
    if labels.shape != image.shape:
        raise DataError(
            f"{item.labels} has shape {labels.shape}, but {item.image} has {image.shape}; "
            "labels need exactly the image's sections and pixels."
        )
    if labels.dtype.kind not in "uib":
        raise DataError(
            f"{item.labels} holds {labels.dtype} values; labels must be integers. Round and save them as uint8."
        )
    indices = class_indices(labels, classes, ignore)
    if item.fraction == 1:
        return LabelledVolume(image, indices)
    sections = chosen_sections(annotated_sections(indices), item.fraction, seed)
    return LabelledVolume(image, only(indices, sections), sections)


def build_network(config: TrainConfig) -> tuple[SegmentationNet, dict[str, Any]]:
    """Build the network (weights come from ``init`` later); the same seed gives the same first weights."""
    info = {
        "name": config.network.name,
        "options": config.network.options,
        "in_channels": 1,
        "classes": len(config.classes) + 1,
    }
    with seeded(config.training.seed):
        network = MODELS[config.network.name].create(1, len(config.classes) + 1, config.network.options)
    if config.init is not None:
        folder = RunFolder.open(config.init)
        start_from(network, folder, list(config.classes) if config.init_head == "by_class" else ())
    return network, info


def start_from(network: SegmentationNet, folder: RunFolder, classes: Sequence[str]) -> None:
    """Load another run's weights; of its classification layer what stands for classes of the same names.

    A class that the other run does not know starts from its own random weights.
    """
    other = folder.network()
    own, weights = network.state_dict(), other.state_dict()
    missing = [name for name in own if name not in weights]
    head = {f"head.{name}" for name in network.head.state_dict()}
    different = [
        name for name in own if name in weights and own[name].shape != weights[name].shape and name not in head
    ]
    if missing or different:
        raise ConfigError(
            f"The network of {folder.path} has other layers ({(missing + different)[0]!r} does not fit); "
            "start from a run with the same network and options."
        )
    before, now = ["background", *folder.config().classes], ["background", *classes]
    known = [name for name in now if name in before]
    ours, theirs = [now.index(name) for name in known], [before.index(name) for name in known]
    for name in head:
        if len(known) == 1 or own[name].shape[1:] != weights[name].shape[1:]:
            del weights[name]  # background alone means something else among other classes
            continue
        rows = own[name].clone()
        rows[ours] = weights[name][theirs]
        weights[name] = rows
    network.load_state_dict(weights, strict=False)


def memory_budget() -> int:
    """Bytes that one job may fill with volumes: a quarter of what is free now."""
    return int(psutil.virtual_memory().available // 4)


def describe_volume(item: ImageConfig, volume: Volume, sections: tuple[int, ...] | None = None) -> dict[str, Any]:
    """What a run records about a volume, and of which sections it used the labels if not of all."""
    found = {
        "path": str(Path(item.image)),
        "shape": volume.shape,
        "dtype": str(volume.dtype),
        "voxel_nm": volume.voxel_nm,
        "fingerprint": volume.fingerprint,
    }
    return found if sections is None else {**found, "sections": sections}
