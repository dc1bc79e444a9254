"""The physical scale of a job: its pixel size, its section spacing, and what is done where nobody knows them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import floor
from typing import Any

import numpy as np

from napari_em_da.config import AugmentConfig, TrainConfig
from napari_em_da.errors import DataError
from napari_em_da.methods._base import MethodSpec
from napari_em_da.sampling.source import section_step
from napari_em_da.training.folder import RunFolder
from napari_em_da.volume import Volume
from napari_em_da.workflows.source_record import SAME_SCALE, SourceRecord

UNKNOWN_SCALE = (0.5, 2.0)  # magnification that an adaptation allows for where a voxel size is unknown


@dataclass(frozen=True)
class Scale:
    """The scale that a job works at.

    Attributes
    ----------
    pixel_nm : float or None
        In-plane pixel size; None: every volume's own pixels.
    section_nm : float or None
        Section spacing of 3D windows; None: every volume's own sections, and always for 2D networks, which need
        nothing along z.
    augment : AugmentConfig
        The job's, its scale widened where sizes are unknown.
    notices, warnings : tuples of str
    """

    pixel_nm: float | None
    section_nm: float | None
    augment: AugmentConfig
    notices: tuple[str, ...]
    warnings: tuple[str, ...]


def find_scale(
    config: TrainConfig,
    method: MethodSpec,
    ndim: int,
    source: Sequence[Volume],
    target: Sequence[Volume],
    record: SourceRecord | None = None,
) -> Scale:
    """Return the scale of a job from the voxel sizes of its volumes.

    Parameters
    ----------
    config : TrainConfig
    method : MethodSpec
    ndim : int
        Of the network.
    source, target : sequences of Volume
        In the order of ``config``.
    record : SourceRecord, optional
        What is known of the source where it is not at hand.

    Raises
    ------
    ConfigError
        If a section spacing is asked for that is finer than that of a volume.
    DataError
        If a size is unknown and cannot be done without.

    Notes
    -----
    Where a voxel size is unknown, an adaptation that learns from source windows draws their magnification, and that of
    the target's, at random over at least half to double (log-uniform), unless the user set ``augment.scale``. Methods
    that learn from the target alone have no labels to teach other scales with, and sections are never randomised.
    """
    notices: list[str] = []
    warnings: list[str] = []
    augment = config.augment
    items = (*config.source, *config.target)
    missing = [str(i.image) for i, v in zip(items, (*source, *target), strict=True) if v.voxel_nm is None]
    if record:
        pixel_nm = inherited_pixel(record, config, target, missing, notices)
    elif missing:
        pixel_nm = None
        known = {volume.voxel_nm for volume in (*source, *target) if volume.voxel_nm}
        if config.sampling.pixel_nm is not None or (len(known) > 1 and not target):
            raise DataError(
                f"The voxel size of {', '.join(missing)} is unknown, so it cannot be brought to the others' pixel "
                "size; give it with --voxel-nm z,y,x."
            )
        magnified = ""
        if target and "source" in method.streams:
            augment, magnified = widened(augment)
        (warnings if known else notices).append(
            f"The voxel size of {', '.join(missing)} is unknown: scales and results are in pixels.{magnified} "
            "Give it with --voxel-nm z,y,x."
        )
    else:
        pixel_nm = training_pixel(config, source, target, notices)
    section_nm = training_section(config, ndim, (*source, *target), missing, notices, warnings)
    return Scale(pixel_nm, section_nm, augment, tuple(notices), tuple(warnings))


def widened(augment: AugmentConfig) -> tuple[AugmentConfig, str]:
    """Return the augmentation with a scale wide enough for unknown sizes, and a sentence; as it is if the user set it.

    A config that is read back from a run has every field set, so that a repetition uses what the run used.
    """
    low, high = augment.scale
    if "scale" in augment.model_fields_set:
        return augment, f" Windows are magnified by {low:g} to {high:g}, as augment.scale is set."
    low, high = min(low, UNKNOWN_SCALE[0]), max(high, UNKNOWN_SCALE[1])
    sentence = f" As scales may differ, windows are magnified at random by {low:g} to {high:g} (augment.scale)."
    return augment.model_copy(update={"scale": (low, high)}), sentence


def training_pixel(
    config: TrainConfig, source: Sequence[Volume], target: Sequence[Volume], notices: list[str]
) -> float:
    """Return the in-plane pixel size to train at: as configured, else the target's, else the source's own."""
    if config.sampling.pixel_nm is not None:
        return config.sampling.pixel_nm
    first = target[0] if target else source[0]
    size: float = in_plane(first.voxel_nm)
    others = [in_plane(volume.voxel_nm) for volume in source]
    if target and any(abs(other / size - 1) > SAME_SCALE for other in others):
        notices.append(f"The source ({others[0]:g} nm per pixel) is resampled to the target's {size:g} nm per pixel.")
    return size


def inherited_pixel(
    record: SourceRecord, config: TrainConfig, target: Sequence[Volume], missing: list[str], notices: list[str]
) -> float | None:
    """Return the pixel size of the source run: without the source the network learns no other scale."""
    notices.append(
        f"No source volume is read: class shares and shapes are those that {config.init} kept, and no candidate is "
        "checked against held-out windows of the source."
    )
    size = record.pixel_nm
    if size is None:
        notices.append("The source's voxel size is unknown: the target is taken pixel by pixel, whatever its size.")
    elif missing:
        raise DataError(
            f"The voxel size of {', '.join(missing)} is unknown, so it cannot be brought to the {size:g} nm per pixel "
            "of the source; give it with --voxel-nm z,y,x."
        )
    elif any(abs(in_plane(v.voxel_nm) / size - 1) > SAME_SCALE for v in target):
        notices.append(f"The target is resampled to the source's {size:g} nm per pixel.")
    return size


def training_section(
    config: TrainConfig,
    ndim: int,
    volumes: Sequence[Volume],
    missing: list[str],
    notices: list[str],
    warnings: list[str],
) -> float | None:
    """Return the section spacing that a 3D network trains at; None for 2D networks or unknown sizes.

    As configured, else the coarsest of all volumes and of what the network that the job starts from was trained at:
    sections can be left out, but none can be made up.
    """
    wanted, network = config.sampling.section_nm, config.network.name
    if ndim == 2:
        if wanted is not None:
            notices.append(f"sampling.section_nm has no effect: {network!r} is a 2D network and sees single sections.")
        return None
    if missing:
        if wanted is not None:
            raise DataError(
                f"The voxel size of {', '.join(missing)} is unknown, so its sections cannot be taken every "
                f"{wanted:g} nm; give it with --voxel-nm z,y,x."
            )
        return None
    before = None if config.init is None else RunFolder.open(config.init).info().get("section_nm")
    spacing = wanted or max(before or 0.0, *(volume.voxel_nm[0] for volume in volumes if volume.voxel_nm))
    depth = config.sampling.patch_px[0]
    for volume in volumes:
        step = section_step(volume, spacing)
        if step == 1 or volume.voxel_nm is None:
            continue
        notices.append(
            f"The sections of {volume.name} are {volume.voxel_nm[0]:g} nm apart: windows take those nearest to every "
            f"{spacing:g} nm."
        )
        left = floor((volume.shape[0] - 1) / step) + 1
        if left < depth:
            warnings.append(
                f"The {volume.shape[0]} sections of {volume.name} leave {left} at every {spacing:g} nm, fewer than the "
                f"{depth} of a window, which continues them mirrored; lower the z of sampling.patch_px if you can."
            )
    return spacing


def in_plane(voxel_nm: tuple[float, float, float] | None) -> Any:
    """Return the geometric mean of the y and x pixel sizes."""
    return None if voxel_nm is None else float(np.sqrt(voxel_nm[1] * voxel_nm[2]))
