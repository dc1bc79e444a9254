"""Colours of the overlay."""

from __future__ import annotations

import numpy as np
import pytest

from napari_em_da.errors import DataError
from napari_em_da.metrics.overlay import FALSE_ALARM, HIT, MISS, overlay

LABELS = np.array([[0, 1, 1, 0, 2, 255]], np.uint8)
GUESS = np.array([[0, 1, 0, 1, 1, 1]], np.uint8)


def test_each_outcome_has_its_colour() -> None:
    rgb = overlay(np.zeros((1, 6)), GUESS, LABELS, opacity=1.0)
    assert [tuple(int(v) for v in pixel) for pixel in rgb[0]] == [(0, 0, 0), HIT, MISS, FALSE_ALARM, MISS, (0, 0, 0)]


def test_blends_over_the_gray_image() -> None:
    image = np.linspace(-3, 40, 6)[None]
    rgb = overlay(image, np.zeros_like(GUESS), np.zeros_like(GUESS))
    assert (rgb == rgb[..., :1]).all() and (np.diff(rgb[0, :, 0].astype(int)) > 0).all()
    half = overlay(np.zeros((1, 6)), GUESS, LABELS)
    np.testing.assert_allclose(half[0, 1], np.array(HIT) / 2, atol=1)


def test_wrong_shapes_are_named() -> None:
    with pytest.raises(DataError, match="one section"):
        overlay(np.zeros((2, 6)), GUESS, LABELS)
