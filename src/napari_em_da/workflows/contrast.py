"""Whether membranes are dark or bright in an electron micrograph, from shapes alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from napari_em_da.errors import DataError
from napari_em_da.volume import Volume, spread

Contrast = Literal["same", "inverted", "unknown"]
SECTIONS = 8
SIDE = 768  # pixels of the middle of a section that are looked at
SMOOTHED = (3.0, 4.0)  # px; finer is noise, and coarser are mitochondria and nuclei
GROUND = 5.0  # times as wide: what is slower than that is illumination, and whole cells
LEVELS = (0.4, 0.5, 0.6)
CLEAR = 0.1  # below this, blur and noise can turn the sign
CHANCE = 3.0  # times the square root of the number of islands: what chance may do


def contrast(target: Volume, source: Volume) -> Contrast:
    """Return whether two images have the same contrast, membranes dark in both or bright in both."""
    signs = [polarity(volume).sign for volume in (target, source)]
    if 0 in signs:
        return "unknown"
    return "same" if signs[0] == signs[1] else "inverted"


@dataclass(frozen=True)
class Polarity:
    """How many bright and dark islands the sections of an image have.

    Cells are islands in a net of membranes. Where membranes are dark, as in most electron micrographs, levels near the
    median leave many bright islands and few dark ones, whatever the histogram looks like. The inverted image has the
    two numbers exchanged, and Gaussian noise has as many of both.

    References
    ----------
    Adler, Taylor (2007), Random fields and geometry: islands less holes is the Euler characteristic of a level set,
    and its mean at the median is 0 for a Gaussian field.
    """

    bright: int
    dark: int

    @property
    def lean(self) -> float:
        """(bright - dark) / both, -1 to 1: above 0 where membranes are dark."""
        return (self.bright - self.dark) / max(self.bright + self.dark, 1)

    @property
    def sign(self) -> int:
        """1 where membranes are dark, -1 where they are bright, 0 where that cannot be told."""
        both = self.bright + self.dark
        clear = abs(self.lean) >= max(CLEAR, CHANCE / np.sqrt(max(both, 1)))
        return int(np.sign(self.lean)) if clear else 0


def polarity(volume: Volume) -> Polarity:
    """Count the islands of up to 8 evenly spread sections, in the middle of large ones.

    Raises
    ------
    DataError
        If they hold NaN or infinity.
    """
    islands = np.zeros(2, np.int64)
    for z in spread(volume.shape[0], SECTIONS):
        rows, columns = (slice(max(0, (n - SIDE) // 2), max(0, (n - SIDE) // 2) + SIDE) for n in volume.shape[1:3])
        section = volume.read((slice(z, z + 1), rows, columns))[0].astype(np.float32)
        if not np.isfinite(section).all():
            raise DataError(f"{volume.name} holds NaN or infinite intensities in section {z}; replace them first.")
        if np.ptp(section) > 0:
            islands += sum(_islands(section, sigma) for sigma in SMOOTHED)
    return Polarity(int(islands[0]), int(islands[1]))


def _islands(image: npt.NDArray[np.float32], sigma: float) -> npt.NDArray[np.int64]:
    """Return the number of bright and of dark islands over a few levels."""
    import cv2

    near = cv2.GaussianBlur(image, (0, 0), sigma)
    fine = np.subtract(near, cv2.GaussianBlur(near, (0, 0), GROUND * sigma))
    counts = np.zeros(2, np.int64)
    for level in np.quantile(fine, LEVELS):
        for index, mask in enumerate((fine > level, fine < level)):
            counts[index] += cv2.connectedComponents(mask.view(np.uint8), connectivity=4)[0] - 1
    return counts
