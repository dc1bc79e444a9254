"""Objects that look like none of the source."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_em_da.suggestions._cells import Block, Layout

if TYPE_CHECKING:
    from napari_em_da.selection._base import Reference
    from napari_em_da.selection._shapes import Regions, Shapes

Float = npt.NDArray[np.float64]
USUAL = (0.01, 0.99)  # quantiles of the source's areas
FACTOR = 4.0  # times beyond these quantiles is as unlikely as can be
RAGGED = 0.5  # loss of solidity that is


def unlikely(
    probabilities: Any, layout: Layout, reference: Reference | None, magnification: float
) -> tuple[Float, dict[tuple[int, ...], str]]:
    """Return how unlikely the most unlikely object of each window is (0 to 1), and what it is.

    Windows are cut as the source's were, which changes sizes and shapes alike on both sides where they are as large.
    Classes that are nets, as membranes are, have no objects. Reasons hold ``{i}`` in the place of the i-th class.
    """
    found = np.zeros(layout.grid)
    reasons: dict[tuple[int, ...], str] = {}
    if reference is None:
        return found, reasons
    from napari_em_da.selection._shapes import find_regions

    classes = [(i, s) for i, s in enumerate(reference.shapes, start=1) if s.areas.size and not s.net]
    for rows, columns in layout.blocks():
        # one row and column of cells more: windows reach over the end of the block
        wide = [slice(p.start, min(p.stop + 1, n)) for p, n in zip((rows, columns), layout.cells[1:], strict=True)]
        block = Block(layout, wide[0], wide[1], 0)
        corner = [part.start for part in block.area]
        places = [
            (row, column)
            for row in range(rows.start, min(rows.stop, layout.grid[1]))
            for column in range(columns.start, min(columns.stop, layout.grid[2]))
        ]
        for z in range(layout.shape[0]):
            labels = block.read(probabilities, z).argmax(-1)
            cuts = []
            for place in places:
                _, y, x, height, width = layout.box(z, *place)
                y, x = y - corner[0], x - corner[1]
                cuts.append(labels[max(0, y) : y + height, max(0, x) : x + width])
            for index, shapes in classes:
                for number, cut in enumerate(cuts):
                    mask = cut == index
                    if not mask.any():
                        continue
                    score, what = oddest(find_regions(mask[None]), shapes, magnification)
                    at: tuple[int, ...] = (z, *places[number])
                    if score > found[at]:
                        found[at], reasons[at] = score, f"{what} {{{index}}}"
    return found, reasons


def oddest(regions: Regions, shapes: Shapes, magnification: float) -> tuple[float, str]:
    """Return the score of the most unlikely region, 0 to 1, and its description."""
    if not regions.area.size:
        return 0.0, ""
    area = regions.area * magnification**2
    low, high = np.quantile(shapes.areas, USUAL)
    kinds = {
        "an unusually large": np.log(area / high) / np.log(FACTOR),
        "an unusually small": np.log(low / area) / np.log(FACTOR),
        "an unusually ragged": (shapes.solidity - regions.area / regions.convex - RAGGED / 2) / (RAGGED / 2),
    }
    worst = {name: float(np.clip(values, 0, 1).max()) for name, values in kinds.items()}
    name = max(worst, key=lambda kind: worst[kind])
    return worst[name], name
