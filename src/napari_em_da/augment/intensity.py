"""Random changes of brightness, contrast, gamma, sharpness and noise, and matching of histograms."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from napari_em_da.config import AugmentConfig
from napari_em_da.volume import Intensity

Array = npt.NDArray[Any]
Limits = tuple[float, float]
SMALLEST_BLUR_PX = 0.2  # a narrower Gaussian changes float32 pixels by less than the noise of any detector


def robust_limits(intensity: Intensity) -> Limits:
    """Return the ends of a volume's robust range in standardised units."""
    low, high = intensity.quantiles[0], intensity.quantiles[-1]
    return (low - intensity.mean) / intensity.std, (high - intensity.mean) / intensity.std


def jitter(image: Array, augment: AugmentConfig, limits: Limits, rng: np.random.Generator) -> Array:
    """Change each section by shift and gain, gamma, blur and noise, each with its own coin; then maybe invert all.

    Parameters
    ----------
    image : (Z, Y, X) float32
        Standardised; not modified.
    augment : AugmentConfig
    limits : (low, high)
        The robust range in standardised units, see `robust_limits`.
    rng : numpy Generator

    Returns
    -------
    (Z, Y, X) float32
    """
    out = np.stack([_jitter_section(section, augment, limits, rng) for section in image])
    return invert(out, limits) if rng.random() < augment.invert else out


def _jitter_section(section: Array, augment: AugmentConfig, limits: Limits, rng: np.random.Generator) -> Array:
    width = limits[1] - limits[0]
    chosen = rng.random(5) < augment.photometric
    shift = rng.uniform(-augment.brightness, augment.brightness) * width if chosen[0] else 0.0
    gain = rng.uniform(*augment.contrast) if chosen[1] else 1.0
    section = shift_and_scale(section, shift, gain)
    if chosen[2]:
        section = bend(section, rng.uniform(*augment.gamma), limits)
    if chosen[3]:
        section = blur(section, rng.uniform(0, augment.blur_px))
    if chosen[4]:
        sigma = rng.uniform(0, augment.noise) * width
        section = section + np.float32(sigma) * rng.standard_normal(section.shape, dtype=np.float32)
    return section


def shift_and_scale(image: Array, shift: float, gain: float) -> Array:
    """Return ``(image + shift) * gain``, in this order; 0 is the volume's mean in standardised units.

    References
    ----------
    Guay M.D. et al., Dense cellular segmentation for EM using 2D-3D neural network ensembles, Sci. Rep. 11, 2021.
    """
    return np.asarray((image + np.float32(shift)) * np.float32(gain))


def bend(image: Array, gamma: float, limits: Limits) -> Array:
    """Raise intensities, as fractions of the robust range, to the power ``gamma``.

    Notes
    -----
    Fractions below 0 keep their sign instead of being cut off, so the curve is invertible everywhere.
    """
    low, width = np.float32(limits[0]), np.float32(limits[1] - limits[0])
    fraction = (image - low) / width
    return np.asarray(np.copysign(np.power(np.abs(fraction), np.float32(gamma)), fraction) * width + low)


def blur(image: Array, sigma_px: float) -> Array:
    """Smooth one section (Y, X) with a Gaussian, mirrored at its edges."""
    if sigma_px < SMALLEST_BLUR_PX:
        return image
    return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma_px, borderType=cv2.BORDER_REFLECT_101))


def invert(image: Array, limits: Limits) -> Array:
    """Mirror intensities about the middle of the robust range."""
    return np.asarray(np.float32(limits[0] + limits[1]) - image)


def match_histogram(raw: Array, source: Intensity, target: Intensity) -> Array:
    """Give raw intensities the target volume's distribution, by the quantiles of the two whole volumes.

    Parameters
    ----------
    raw : array of any shape
        In the source's raw units.
    source, target : Intensity

    Returns
    -------
    float32, shape of ``raw``
        In the target's raw units, inside its robust range; standardise it with ``target``.

    Notes
    -----
    A grey level that fills several quantiles (8-bit data) goes to the mean of the target's; matching a volume to
    itself is the identity inside the robust range.
    """
    levels, group = np.unique(np.asarray(source.quantiles), return_inverse=True)
    mapped = np.bincount(group, weights=np.asarray(target.quantiles)) / np.bincount(group)
    if raw.dtype == np.uint8:
        table = np.interp(np.arange(256), levels, mapped).astype(np.float32)
        return np.asarray(table[raw])
    return np.interp(raw, levels, mapped).astype(np.float32)
