"""Learning-rate schedules: end points, shape, and the published staircase."""

from __future__ import annotations

import pytest

from napari_em_da.config import TrainingConfig
from napari_em_da.training.schedule import learning_rate_factor


def test_onecycle_rises_to_one_and_falls_to_nearly_zero() -> None:
    config = TrainingConfig(steps=1001, schedule="onecycle")
    factors = [learning_rate_factor(config, step) for step in range(1001)]
    assert factors[0] == pytest.approx(1 / 25)
    assert max(factors) == pytest.approx(1.0)
    assert factors.index(max(factors)) == 300
    assert factors[-1] == pytest.approx(1e-4)


def test_cosine_is_half_way_at_half_time() -> None:
    config = TrainingConfig(steps=101, schedule="cosine")
    assert learning_rate_factor(config, 50) == pytest.approx((1 + 1e-4) / 2)


def test_step_schedule_gives_the_published_staircase() -> None:
    # Guay et al.: 1e-3 x 0.75 every 10^3.4 = 2512 steps; 7.5e-4 from step 2512, 2.376e-5 at step 33120
    config = TrainingConfig(steps=40_000, schedule="step", learning_rate=1e-3)
    rate = [1e-3 * learning_rate_factor(config, step) for step in (0, 2511, 2512, 33_120)]
    assert rate == pytest.approx([1e-3, 1e-3, 7.5e-4, 2.376e-5], rel=1e-3)


@pytest.mark.parametrize("steps", [5, 1000])
def test_warm_rises_over_twenty_steps_whatever_their_number(steps: int) -> None:
    config = TrainingConfig(steps=steps, schedule="warm")
    assert [learning_rate_factor(config, step) for step in (0, 9, 19, 20, 999)] == [0.05, 0.5, 1, 1, 1]
