"""Sections of a volume side by side, with what a prediction has right and wrong in colour."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_em_da.lazy import computed
from napari_em_da.metrics._base import Pair, load
from napari_em_da.metrics._error_map import NAMES, of_section, split_merge_map
from napari_em_da.metrics._sections import Section, sections
from napari_em_da.metrics.overlay import FALSE_ALARM, HIT, MISS, overlay
from napari_em_da.workflows.figure import DPI, WIDTH, drawing

Rgb = npt.NDArray[np.uint8]
Plane = npt.NDArray[Any]
Colour = tuple[int, int, int]
PANELS = 9
# Okabe & Ito (2008): colours that people with any colour vision tell apart.
ERRORS: dict[int, Colour] = {1: (230, 159, 0), 2: (0, 114, 178), 3: (204, 121, 167), 4: (240, 228, 66)}
OPACITY = 0.7
_NOT_COUNTED = 255


def spread(depth: int, most: int = PANELS) -> tuple[int, ...]:
    """Return up to ``most`` sections of a volume, evenly spread, each in the middle of its share."""
    count = min(depth, most)
    return tuple((2 * i + 1) * depth // (2 * count) for i in range(count))


def overlays(
    path: Path, pair: Pair, shown: Sequence[int], image: Any = None, *, threshold: float = 0.5
) -> npt.NDArray[np.uint8]:
    """Draw sections with hits (green), misses (red) and false alarms (blue).

    Parameters
    ----------
    path : Path
        PNG file, replaced if it exists.
    pair : Pair
        Volumes (Z, Y, X) of class ids, or boundary maps.
    shown : sequence of int
        Sections to draw.
    image : (Z, Y, X) array, optional
        Shown below in gray; black if absent.
    threshold : float
        On the probability of object of a boundary map.

    Returns
    -------
    (N, Y, X, 3) uint8
    """
    pictures = []
    for z in shown:
        below = _plane(image, z)
        if pair.kind is None:
            ignored = pair.ignored()
            found, truth = (_named(_plane(a, z), pair.classes, ignored) for a in (pair.prediction, pair.labels))
        else:
            found, truth = _foreground(_section(pair, z), pair.kind == "object", threshold)
            ignored = _NOT_COUNTED
        opacity = 0.5 if image is not None else 0.9
        below = np.zeros(truth.shape, np.uint8) if below is None else below
        pictures.append(overlay(below, found, truth, ignore_index=ignored, opacity=opacity))
    what = {"hit": HIT, "missed": MISS, "false alarm": FALSE_ALARM}
    montage(path, pictures, shown, what, pair.spacing)
    return np.stack(pictures)


def errors(
    path: Path, pair: Pair, shown: Sequence[int], image: Any = None, *, threshold: float = 0.5
) -> npt.NDArray[np.uint8]:
    """Draw sections with the places where the Rand score was lost to splits, merges and misses.

    Parameters
    ----------
    path, pair, shown, image, threshold
        As in `overlays`, of instance ids or boundary maps. Without an image, what counts is white.

    Returns
    -------
    (N, Y, X) uint8
        As `napari_em_da.metrics._error_map.split_merge_map`.
    """
    if pair.kind in ("membrane", "object"):
        maps = [of_section(_section(pair, z), threshold, pair.scoring.thin) for z in shown]
    else:
        ignored = pair.ignored(ids=True)
        whole = split_merge_map(pair.prediction, pair.labels, kind=pair.kind, ignored=ignored, mask=pair.mask)
        maps = [np.asarray(computed(whole[z])) for z in shown]
    pictures = [_coloured(codes, _plane(image, z)) for z, codes in zip(shown, maps, strict=True)]
    what = {NAMES[code]: colour for code, colour in ERRORS.items()}
    montage(path, pictures, shown, what, pair.spacing)
    return np.stack(maps)


def montage(
    path: Path,
    pictures: Sequence[Rgb],
    shown: Sequence[int],
    legend: Mapping[str, Colour],
    spacing: tuple[float, ...] | None = None,
) -> None:
    """Draw pictures (Y, X, 3) side by side, with their sections, a legend and a scale bar."""
    import cv2
    from matplotlib.patches import Patch

    height, width = pictures[0].shape[:2]
    aspect = spacing[-2] / spacing[-1] if spacing else 1.0  # of a pixel
    rows, columns = grid(len(pictures), aspect * height / width)
    panel = WIDTH / columns
    size = (WIDTH, rows * (panel * aspect * height / width + 0.2) + 0.3)
    with drawing(path, size) as figure:
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02)  # type: ignore[call-arg, union-attr]
        for axis in axes:
            axis.set_axis_off()
        scale = min(1.0, 2 * panel * DPI / width)
        for axis, picture, z in zip(axes, pictures, shown, strict=False):
            small = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
            axis.imshow(small, extent=(0, width, height, 0), aspect=aspect)
            axis.set_title(f"z = {z}", pad=2)
        if spacing:
            _scale_bar(axes[0], width, height, spacing[-1])
        patches = [Patch(facecolor=_hex(colour), label=name) for name, colour in legend.items()]
        figure.legend(handles=patches, loc="outside lower center", ncols=len(patches), frameon=False)


def grid(count: int, ratio: float) -> tuple[int, int]:
    """Return rows and columns for panels of a height-to-width ratio: near a figure of 4 to 3, with few empty places."""
    shapes = [(math.ceil(count / columns), columns) for columns in range(1, count + 1)]
    return min(shapes, key=lambda s: abs(math.log(s[0] * ratio / s[1] / 0.75)) + (s[0] * s[1] - count) / count)


def bar_length(width_nm: float) -> float:
    """Return the length in nm of a scale bar: 1, 2 or 5 times a power of ten, at most a third of the width."""
    power = 10.0 ** math.floor(math.log10(width_nm / 3))
    return max(step * power for step in (1, 2, 5) if step * power <= width_nm / 3)


def _hex(colour: Colour) -> str:
    return "#" + bytes(colour).hex()


def _scale_bar(axis: Any, width: int, height: int, nm: float) -> None:
    from matplotlib import patheffects

    outline = [patheffects.withStroke(linewidth=2.5, foreground="black")]
    length = bar_length(width * nm)
    x, y = 0.05 * width, height - 0.05 * width
    line = axis.plot([x, x + length / nm], [y, y], color="white", linewidth=2, solid_capstyle="butt")[0]
    line.set_path_effects([patheffects.withStroke(linewidth=3.5, foreground="black")])
    text = f"{length / 1000:g} µm" if length >= 1000 else f"{length:g} nm"
    axis.text(x, y - 0.03 * width, text, color="white", va="bottom", path_effects=outline)


def _named(values: Plane, classes: Mapping[str, int] | None, ignored: int | None) -> Plane:
    """Return class ids in which other values than the named ones, and the ignored one, are background."""
    if classes is None:
        return values
    kept = [*classes.values(), *([] if ignored is None else [ignored])]
    return np.where(np.isin(values, kept), values, 0)


def _coloured(codes: npt.NDArray[np.uint8], image: Plane | None) -> Rgb:
    """Return a gray section, faint so that colours stand out, with the errors on it."""
    gray = np.full(codes.shape, 255.0, np.float32)
    if image is not None:
        low, high = np.percentile(image, (0.1, 99.9))
        gray = np.clip((image.astype(np.float32) - low) / max(float(high - low), 1e-12), 0, 1)
        gray = 255 * (0.25 + 0.75 * gray)
    rgb = np.repeat(gray[..., None], 3, axis=-1)
    for code, colour in ERRORS.items():
        rgb[codes == code] += OPACITY * (np.asarray(colour, np.float32) - rgb[codes == code])
    return rgb.round().astype(np.uint8)


def _foreground(section: Section, objects: bool, threshold: float) -> tuple[Plane, Plane]:
    """Return the predicted and the annotated foreground, membrane or object; 255 where nothing counts."""
    found = (section.probability > threshold) == objects
    truth = np.where(section.counted, section.truth == objects, _NOT_COUNTED)
    return found.astype(np.uint8), truth.astype(np.uint8)


def _section(pair: Pair, z: int) -> Section:
    """Return one section of boundary maps; the stream is left before it judges it as if it were the volume."""
    only: Callable[[Any], Any] = lambda a: None if a is None else load(a, (slice(z, z + 1),))  # noqa: E731
    part = replace(pair, prediction=only(pair.prediction), labels=only(pair.labels), mask=only(pair.mask))
    return next(sections(part))


def _plane(array: Any, z: int) -> Any:
    return None if array is None else load(array, (slice(z, z + 1),))[0]
