"""The voxel size that a TIFF file declares, in whichever of four dialects."""

from __future__ import annotations

import math
from typing import Any
from xml.etree import ElementTree

import tifffile

VoxelSize = tuple[float, float, float]

UNIT_NM = {
    "nm": 1.0, "nanometer": 1.0, "nanometre": 1.0, "å": 0.1, "angstrom": 0.1, "pm": 1e-3,
    "um": 1e3, "µm": 1e3, "μm": 1e3, "\\u00b5m": 1e3, "micron": 1e3, "micrometer": 1e3, "micrometre": 1e3,
    "mm": 1e6, "cm": 1e7, "m": 1e9, "meter": 1e9, "inch": 2.54e7, "in": 2.54e7,
}  # fmt: skip
PLAUSIBLE_NM = (0.01, 1e5)  # outside, a number came from a printer's 72 dpi or an editor's default, not a microscope


def voxel_size(file: tifffile.TiffFile, depth: int) -> VoxelSize | None:
    """Return (z, y, x) in nm, or None where the file does not say or says something absurd.

    Parameters
    ----------
    file : open TiffFile
    depth : int
        Number of sections; a single section needs no z size and takes that of x.
    """
    if file.is_ome:
        z, y, x = _ome(file.ome_metadata or "")
    elif file.is_imagej:
        z, y, x = _imagej(file)
    elif file.is_shaped and (stored := (file.shaped_metadata or ({},))[0].get("voxel_nm")):
        z, y, x = stored
    else:
        z, (y, x) = None, _resolution(file.pages[0], {2: 2.54e7, 3: 1e7})
    if z is None and depth == 1:
        z = x
    sizes = [_plausible(v) for v in (z, y, x)]
    return None if None in sizes else (sizes[0], sizes[1], sizes[2])  # type: ignore[return-value]


def _plausible(size: float | None) -> float | None:
    if size is None or not math.isfinite(size) or not PLAUSIBLE_NM[0] <= size <= PLAUSIBLE_NM[1]:
        return None
    return float(f"{size:.7g}")  # undo the rounding of rational tags: 4.6, not 4.600000001


def _number(text: Any) -> float | None:
    try:
        return float(text)
    except (TypeError, ValueError):
        return None


def _unit(name: Any) -> float | None:
    return UNIT_NM.get(str(name).strip().strip("\0").lower().removesuffix("s"))


def _resolution(page: Any, unit_nm: dict[int, float] | float) -> tuple[float | None, float | None]:
    """Return the (y, x) pixel size from the resolution tags."""
    if isinstance(unit_nm, dict):
        tag = page.tags.get("ResolutionUnit")
        unit = unit_nm.get(int(tag.value)) if tag is not None else None
    else:
        unit = unit_nm
    sizes = []
    for name in ("YResolution", "XResolution"):
        tag = page.tags.get(name)
        numerator, denominator = tag.value if tag is not None else (0, 1)
        sizes.append(None if unit is None or numerator == 0 else unit * denominator / numerator)
    return sizes[0], sizes[1]


def _imagej(file: tifffile.TiffFile) -> tuple[float | None, float | None, float | None]:
    metadata = file.imagej_metadata or {}
    unit = _unit(metadata.get("unit"))
    if unit is None:
        return None, None, None
    y, x = _resolution(file.pages[0], unit)
    z = _number(metadata.get("spacing"))
    return None if z is None else abs(z) * (_unit(metadata.get("zunit")) or unit), y, x


def _ome(xml: str) -> tuple[float | None, float | None, float | None]:
    try:
        pixels = next((e for e in ElementTree.fromstring(xml).iter() if e.tag.endswith("}Pixels")), None)
    except ElementTree.ParseError:
        pixels = None
    if pixels is None:
        return None, None, None
    z, y, x = (
        None if (size := _number(pixels.get(f"PhysicalSize{axis}"))) is None
        or (unit := _unit(pixels.get(f"PhysicalSize{axis}Unit", "µm"))) is None
        else size * unit
        for axis in "ZYX"
    )  # fmt: skip
    return z, y, x
