"""What would not work with volumes that belong together, or would surprise, said before any work starts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from napari_em_da.volume import Volume

Fix = Literal["grey", "frame", "reorder", "integers", "labels", "align", "voxel", "invert"]
SAME_SIZE = 0.02  # pixel sizes that differ by less are not resampled
IMPLAUSIBLE = 4.0  # between the pixel sizes of two microscopes
PAIRS = (("source", "labels"), ("target", "truth"))
ORDER = ("error", "warning", "info")


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


def mismatched(image: Volume, labels: Volume, role: str) -> Finding | None:
    """Return what is the matter where labels have not the voxels of their image."""
    if image.shape == labels.shape:
        return None
    sizes = [" x ".join(map(str, volume.shape)) for volume in (labels, image)]
    text = f"{labels.name} has {sizes[0]} voxels, {image.name} {sizes[1]}; choose labels of the same region."
    return Finding(text, "error", role=role)


def no_integers(labels: Volume, role: str) -> Finding | None:
    """Return what is the matter where labels are decimal numbers."""
    if labels.dtype.kind != "f":
        return None
    text = f"{labels.name} is stored as decimal numbers ({labels.dtype}); labels must be whole numbers."
    return Finding(text, "error", "integers", role)


def pixel_sizes(volumes: Mapping[str, Volume]) -> Iterator[Finding]:
    """Compare the pixel sizes of source and target."""
    images = {role: volumes[role] for role in ("source", "target") if role in volumes}
    unknown = [role for role, volume in images.items() if volume.voxel_nm is None]
    if unknown:
        names = " and ".join(images[role].name for role in unknown)
        one = len(unknown) == 1
        text = f"The voxel size of {names} is unknown; give it. Without it, scales are guessed."
        yield Finding(text, "warning", "voxel" if one and len(images) == 2 else None, unknown[0])
    elif len(images) == 2:
        ours, theirs = (float(np.sqrt(v.voxel_nm[1] * v.voxel_nm[2])) for v in images.values() if v.voxel_nm)
        ratio = max(ours / theirs, theirs / ours)
        pixels = f"A pixel is {ours:g} nm in {images['source'].name} and {theirs:g} nm in {images['target'].name}"
        if ratio > IMPLAUSIBLE:
            text = f"{pixels}, {ratio:.3g} times different. Is one of them wrong? Then give the right one."
            yield Finding(text, "warning", "voxel", "target")
        elif ratio > 1 + SAME_SIZE:
            yield Finding(f"{pixels}: one is resampled to the other, nothing is to be done.", "info", role="target")


def same_labels() -> Finding:
    """Return what is the matter where both images are given the same labels."""
    text = "The same labels are those of the one image and the ground truth of the other; choose others."
    return Finding(text, "error", role="truth")


def in_order(findings: list[Finding]) -> list[Finding]:
    """Return errors first, then warnings."""
    return sorted(findings, key=lambda finding: ORDER.index(finding.level))


__all__ = ["PAIRS", "Finding", "Fix", "in_order", "mismatched", "no_integers", "pixel_sizes", "same_labels"]
