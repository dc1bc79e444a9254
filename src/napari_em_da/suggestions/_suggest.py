"""From a probability volume of any size to a short list of windows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_em_da.config import Config, NonNegative
from napari_em_da.errors import ConfigError, DataError
from napari_em_da.suggestions._cells import Cells, Layout, measure
from napari_em_da.suggestions._choice import Box, Suggestion, choose, overlap
from napari_em_da.suggestions._objects import unlikely

if TYPE_CHECKING:
    from napari_em_da.selection._base import Reference

Float = npt.NDArray[np.float64]
FLOOR = 2e-3  # mean evidence of a window below which there is hardly any; it is not blown up to full score
LEAST = 0.02  # of a score, whose parts are at most their weights
SEEN_OVERLAP = 0.25  # of a window that was looked at: more, and it is the same place


class SuggestWeights(Config):
    """How much each kind of evidence counts."""

    uncertain: NonNegative = 1.0
    single: NonNegative = 0.5
    unlikely: NonNegative = 0.5
    diversity: NonNegative = 1.0


def suggest(
    probabilities: Any,
    *,
    window_px: tuple[int, int] = (256, 256),
    count: int = 20,
    seen: Iterable[Box | Suggestion] = (),
    weights: SuggestWeights | None = None,
    image: Any = None,
    reference: Reference | None = None,
    magnification: float = 1.0,
    names: Sequence[str] | None = None,
    rim_px: int = 4,
) -> list[Suggestion]:
    """Propose windows to look at, the most worthwhile first.

    Parameters
    ----------
    probabilities : array-like (Z, Y, X, C) float
        numpy, dask or zarr, background first. It is read once, in blocks of at most about 2048 pixels and one section.
    window_px : (y, x)
    count : int
        Fewer are returned where nothing else is suspicious.
    seen : iterable of (section, y, x, height, width) or Suggestion
        Windows that were visited or dismissed; they never come back, and what resembles them is damped.
    weights : SuggestWeights, optional
    image : array-like (Z, Y, X), optional
        Lets windows differ in their intensities, too.
    reference : Reference, optional
        What the classes look like in the source's labels; objects of other sizes and shapes are then suspicious.
    magnification : float
        Pixels of the reference per pixel of the probabilities.
    names : sequence of str, optional
        Foreground classes, for the reasons.
    rim_px : int
        Half the width of the uncertain rim that every boundary may have.

    Returns
    -------
    list of Suggestion
        The same for the same input.

    Raises
    ------
    DataError
        If the array is no probability volume, or the image has another shape.
    ConfigError
        If the window, the count or a seen window is impossible.

    Notes
    -----
    Uncertainty is the mean of the normalised entropy and of one minus the margin of the two largest probabilities. A
    grey opening by a disc of ``rim_px`` removes whatever is narrower, as the rims of all boundaries are, however long;
    what is left after that is uncertain as a region. Disagreement between sections is opened in the same way.

    References
    ----------
    Sener O. and Savarese S. (2018), Active learning for convolutional neural networks: a core-set approach, ICLR.
    """
    shape = tuple(int(n) for n in probabilities.shape)
    if len(shape) != 4 or shape[3] < 2 or np.dtype(probabilities.dtype).kind != "f":
        raise DataError(
            f"Probabilities have shape {shape} and type {probabilities.dtype}; expected floats (Z, Y, X, C) of two or "
            "more classes, background first."
        )
    if image is not None and tuple(image.shape) != shape[:3]:
        raise DataError(f"The image has shape {tuple(image.shape)}, its probabilities {shape}; crop one to the other.")
    if min(window_px) < 2 or count < 1 or rim_px < 1:
        raise ConfigError(f"Windows of {window_px} pixels, {count} of them, rim {rim_px}: all must be positive.")
    boxes = [_box(item) for item in seen]
    weights = weights or SuggestWeights()
    names = ["background", *(names or (f"class {i}" for i in range(1, shape[3])))]
    if len(names) != shape[3]:
        raise DataError(f"There are {shape[3]} probabilities but {len(names) - 1} names besides the background.")
    layout = Layout.of(shape[:3], window_px)
    cells = measure(probabilities, image, layout, rim_px)
    objects, odd = unlikely(probabilities, layout, reference, magnification)
    evidence = {
        "uncertain": layout.windows(cells.uncertain),
        "single": layout.windows(cells.single),
        "unlikely": objects,
    }
    parts = {name: getattr(weights, name) * levelled(values) for name, values in evidence.items()}
    score = sum(parts.values(), np.zeros(layout.grid))
    listed = [tuple(index) for index in np.argwhere(score > LEAST)]
    candidates = [layout.box(*index) for index in listed]
    free = [i for i, box in enumerate(candidates) if not any(overlap(box, other) > SEEN_OVERLAP for other in boxes)]
    described = describe(cells, layout)
    at = np.array([listed[i] for i in free], int).reshape(-1, 3)
    known = np.array([layout.nearest(box) for box in boxes], int).reshape(-1, 3)
    order = choose(
        score[tuple(at.T)],
        described[tuple(at.T)],
        [candidates[i] for i in free],
        count,
        seen=described[tuple(known.T)],
        strength=weights.diversity,
    )
    found = []
    for i in order:
        index = listed[free[i]]
        kind = max(parts, key=lambda name: (parts[name][index], name == "uncertain"))
        reason = {
            "uncertain": lambda at: doubt(cells, layout, at, names),
            "single": lambda at: lonely(cells, layout, at, names),
            "unlikely": lambda at: odd.get(at, "an unlikely object").format(*names),
        }[kind](index)
        found.append(Suggestion(*candidates[free[i]], float(score[index]), reason))
    return found


def levelled(values: Float) -> Float:
    """Scale evidence so that its highest per cent is 1; hardly any evidence stays small."""
    high = float(np.quantile(values, 0.99)) if values.size else 0.0
    scaled: Float = np.minimum(values / max(high, float(values.max(initial=0)) / 2, FLOOR), 1.0)
    return scaled


def describe(cells: Cells, layout: Layout) -> Float:
    """Return what windows are compared by, (Z, rows, columns, D): classes, entropies, intensities and place.

    Distances in it are about 1 between windows that have nothing in common in one of the four.
    """
    content = [layout.windows(values) for values in (cells.shares, cells.entropies, cells.intensities)]
    content = [np.sqrt(part / np.maximum(part.sum(-1, keepdims=True), 1e-9)) for part in content]  # Hellinger
    axes = [np.linspace(0, 1, n) if n > 1 else np.zeros(1) for n in layout.grid]
    place = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    return np.concatenate([*(part / np.sqrt(2) for part in content), place], axis=-1)


def doubt(cells: Cells, layout: Layout, index: tuple[int, ...], names: Sequence[str]) -> str:
    """Say between which classes a window is uncertain."""
    pairs = layout.windows(cells.pairs)[index]
    one, other = sorted(divmod(int(pairs.argmax()), len(names)), reverse=True)
    return f"uncertain between {names[one]} and {names[other]}"


def lonely(cells: Cells, layout: Layout, index: tuple[int, ...], names: Sequence[str]) -> str:
    """Say what appears, or is missing, in this section alone."""
    votes = layout.windows(cells.flips)[index]
    own, around = divmod(int(votes.argmax()), len(names))
    return f"{names[own]} appears in one section only" if own else f"{names[around]} is missing in one section only"


def _box(item: Box | Suggestion) -> Box:
    values = item.box if isinstance(item, Suggestion) else tuple(int(v) for v in item)
    if len(values) != 5 or min(values[3:]) < 1:
        raise ConfigError(f"A seen window is (section, y, x, height, width), not {item}.")
    return values[0], values[1], values[2], values[3], values[4]
