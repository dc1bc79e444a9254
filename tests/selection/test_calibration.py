"""The expected quality: a rising curve, a range that covers, and honesty about few points."""

from __future__ import annotations

import numpy as np
import pytest

from napari_em_da.errors import DataError
from napari_em_da.selection.calibration import Calibration


def test_a_rising_curve_through_rising_points() -> None:
    fitted = Calibration.fit([(s, 0.2 + 0.1 * s) for s in range(6)])
    for score in (0, 2.5, 5):
        mean, low, high = fitted.predict(score)
        assert mean == pytest.approx(0.2 + 0.1 * score)
        assert low <= mean <= high


def test_falling_points_are_pooled() -> None:
    fitted = Calibration.fit([(0, 0.2), (1, 0.6), (2, 0.4), (3, 0.8), (3, 0.6)])
    np.testing.assert_allclose(fitted.ious, [0.2, 0.5, 0.5, 0.7])
    assert np.all(np.diff([fitted.predict(s).mean for s in np.linspace(-1, 4, 30)]) >= 0)


def test_the_range_covers_what_it_says() -> None:
    rng = np.random.default_rng(0)

    def draw(count: int) -> list[tuple[float, float]]:
        scores = rng.uniform(0, 1, count)
        return list(zip(scores, np.clip(0.3 + 0.4 * scores + rng.normal(0, 0.08, count), 0, 1), strict=True))

    inside = []
    for _ in range(60):
        fitted = Calibration.fit(draw(15))
        for score, iou in draw(20):
            _, low, high = fitted.predict(score)
            inside.append(low <= iou <= high)
    assert 0.76 < np.mean(inside) < 0.95


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_points_give_no_range(count: int) -> None:
    fitted = Calibration.fit([(i, 0.5) for i in range(count)])
    assert fitted.predict(0) == (0.5, 0.0, 1.0)
    assert "too few" in fitted.sentence(0)


def test_outside_what_was_measured_the_range_is_open() -> None:
    fitted = Calibration.fit([(s, 0.2 + 0.1 * s) for s in range(6)])
    assert fitted.predict(-1).low == 0 and fitted.predict(-1).high < 1
    assert fitted.predict(9).high == 1 and fitted.predict(9).low > 0
    assert fitted.predict(float("nan"))[1:] == (0, 1)
    assert "outside" in fitted.sentence(9) and "outside" not in fitted.sentence(2)


def test_pairs_that_cannot_be() -> None:
    with pytest.raises(DataError, match="finite score"):
        Calibration.fit([(float("nan"), 0.5)])
    with pytest.raises(DataError, match=r"\[0, 1\]"):
        Calibration.fit([(1, 50.0)])
