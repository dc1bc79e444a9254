"""Gaussian smoothing that agrees with scipy's, at the speed of OpenCV."""

from __future__ import annotations

import cv2
import numpy as np

from napari_em_da.weights._stack import Weights

TRUNCATE = 4.0


def radius(sigma: float) -> int:
    """Half-width in pixels of the kernel, cut at four sigma."""
    return int(TRUNCATE * sigma + 0.5)


def smooth(image: Weights, sigmas: tuple[float, float, float]) -> None:
    """Smooth (Z, Y, X) in place, reflecting at the border (``d c b a | a b c d | d c b a``).

    Parameters
    ----------
    image : (Z, Y, X) float32
    sigmas : (z, y, x)
        Standard deviations in voxels; 0 for none.
    """
    _, sigma_y, sigma_x = sigmas
    size = (2 * radius(sigma_x) + 1, 2 * radius(sigma_y) + 1)
    for section in image:
        section[...] = cv2.GaussianBlur(section, size, sigma_x, sigmaY=sigma_y, borderType=cv2.BORDER_REFLECT)
    if sigmas[0] > 0 and len(image) > 1:
        from scipy.ndimage import gaussian_filter1d

        gaussian_filter1d(image, sigmas[0], axis=0, output=image, mode="reflect", truncate=TRUNCATE)
    np.maximum(image, 0, out=image)
