"""A PNG drawn with matplotlib's objects, without pyplot's global state and without a window."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from napari_em_da.io import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH, DPI = 7.2, 200  # inches: two columns of a journal
# Okabe & Ito (2008): colours that people with any colour vision tell apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
FONT = 7  # points


@contextmanager
def drawing(path: Path, size: tuple[float, float]) -> Iterator[Figure]:
    """Give an empty figure of a size in inches, and write it to ``path`` when the block ends well, atomically."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.text import Text

    with replacing(path, overwrite=True) as temporary:
        figure = Figure(figsize=size, dpi=DPI, layout="constrained")
        canvas = FigureCanvasAgg(figure)
        yield figure
        for text in figure.findobj(Text):  # not rcParams: they are shared with every other figure of the process
            text.set_fontsize(FONT)
        for axis in figure.axes:
            axis.spines[["top", "right"]].set_visible(False)
        with temporary.open("wb") as file:
            canvas.print_png(file)
