"""Elastic deformation: smooth random displacements of a coarse grid, interpolated to every pixel."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
SMOOTHING_CELLS = 0.6
REACH = 2  # cells on each side that the smoothing looks at: four standard deviations


def elastic_displacement(
    shape: tuple[int, int], rng: np.random.Generator, amplitude_px: float = 20.0, spacing_px: float = 40.0
) -> Array:
    """Draw the smoothed-noise deformation of dense cellular segmentation.

    On a grid of ``spacing_px``, uniform noise in [-1, 1] is smoothed with a Gaussian of 0.6 cells and multiplied by
    ``amplitude_px``; between the nodes it is interpolated linearly. The displacements of the nodes have a standard
    deviation of 0.286 times the amplitude (5.72 px for 20 px).

    Parameters
    ----------
    shape : (Y, X)
        In pixels.
    rng : numpy Generator
    amplitude_px : float
        Bound of the displacement; 0 is the identity.
    spacing_px : float
        Between nodes.

    Returns
    -------
    (2, Y, X) float32
        Displacement (y, x) in pixels, to be added to the sampling positions.

    References
    ----------
    Guay M.D. et al., Dense cellular segmentation for EM using 2D-3D neural network ensembles, Sci. Rep. 11, 2021.

    Notes
    -----
    The grid keeps its spacing and a random phase whatever the window's size, and its noise extends beyond the
    window, so that borders move as much as the middle. Every window has its own field, where the source draws one
    per epoch for the whole volume.
    """
    phase = rng.random(2)
    counts = [int(np.ceil((length - 1) / spacing_px + 1)) + 1 for length in shape]
    nodes = smooth_nodes((counts[0], counts[1]), rng, amplitude_px)
    down, right = (
        interpolation_weights(np.arange(length) / spacing_px + phase[axis], counts[axis], order=1)
        for axis, length in enumerate(shape)
    )
    return np.asarray(down @ nodes @ right.T, np.float32)  # 2, Y, X


def smooth_nodes(counts: tuple[int, int], rng: np.random.Generator, amplitude_px: float = 20.0) -> Array:
    """Draw smoothed uniform noise on a grid; (2, n, m) float32, its absolute value below ``amplitude_px``."""
    width = 2 * REACH + 1
    noise = rng.uniform(-1, 1, (2, counts[0] + 2 * REACH, counts[1] + 2 * REACH)).astype(np.float32)
    smooth = [cv2.GaussianBlur(plane, (width, width), SMOOTHING_CELLS) for plane in noise]
    return np.asarray(amplitude_px * np.stack(smooth)[:, REACH:-REACH, REACH:-REACH], np.float32)


def coarse_displacement(
    shape: tuple[int, int], rng: np.random.Generator, sigma_px: float = 10.0, nodes: int = 3
) -> Array:
    """Draw the coarse-grid deformation of the original U-Net: normal node displacements, bicubic between them.

    Parameters
    ----------
    shape : (Y, X)
    rng : numpy Generator
    sigma_px : float
        Standard deviation of the node displacements; 0 is the identity.
    nodes : int
        Per side, corners included.

    Returns
    -------
    (2, Y, X) float32

    References
    ----------
    Ronneberger O., Fischer P., Brox T., U-Net, MICCAI 2015, section 3.1.
    """
    grid = rng.normal(0, sigma_px, (2, nodes, nodes)).astype(np.float32)
    down, right = (interpolation_weights(np.linspace(0, nodes - 1, length), nodes, order=3) for length in shape)
    return np.asarray(down @ grid @ right.T, np.float32)


def interpolation_weights(at: Array, nodes: int, order: int) -> Array:
    """Weights (len(at), nodes) float32 that interpolate node values at positions in node units.

    ``order`` 1 is linear, 3 is Keys' cubic convolution (a = -1/2); nodes beyond the ends repeat the last one.
    """
    reach = np.arange(-1, 3)
    first = np.floor(at).astype(np.intp)
    distance = np.abs(at[:, None] - first[:, None] - reach)
    if order == 1:
        kernel = np.maximum(1 - distance, 0)
    else:
        near = 1.5 * distance**3 - 2.5 * distance**2 + 1
        far = -0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2
        kernel = np.where(distance <= 1, near, np.where(distance < 2, far, 0))
    weights = np.zeros((len(at), nodes), np.float32)
    index = np.clip(first[:, None] + reach, 0, nodes - 1)
    np.add.at(weights, (np.arange(len(at))[:, None], index), kernel)
    return weights
