from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from skimage.exposure import match_histograms

from napari_em_da.augment.intensity import bend, blur, invert, jitter, match_histogram, robust_limits, shift_and_scale
from napari_em_da.config import AugmentConfig
from napari_em_da.volume import Volume

OFF = {"brightness": 0, "contrast": (1, 1), "gamma": (1, 1), "blur_px": 0, "noise": 0, "photometric": 1}
LIMITS = (-2.0, 3.0)


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(3, 40, 50)).astype(np.float32)


def run(image: np.ndarray, seed: int = 0, **changes: object) -> np.ndarray:
    return jitter(image, AugmentConfig(**{**OFF, **changes}), LIMITS, np.random.default_rng(seed))


def test_neutral_settings_and_probability_zero_change_nothing(image: np.ndarray) -> None:
    np.testing.assert_allclose(run(image), image, atol=1e-6)
    np.testing.assert_array_equal(jitter(image, AugmentConfig(photometric=0), LIMITS, np.random.default_rng(0)), image)


def test_shift_comes_before_gain() -> None:
    np.testing.assert_allclose(shift_and_scale(np.float32([0, 1, -2]), 0.5, 2.0), [1, 3, -3])


def test_brightness_is_a_fraction_of_the_robust_range_per_section(image: np.ndarray) -> None:
    shifts = np.array([(run(image, seed, brightness=0.12) - image).mean(axis=(1, 2)) for seed in range(60)])
    assert np.abs(shifts).max() <= 0.12 * 5 + 1e-5 and np.abs(shifts).max() > 0.11 * 5
    assert np.abs(shifts[:, 0] - shifts[:, 1]).min() > 0  # every section has its own


def test_contrast_stays_within_its_bounds(image: np.ndarray) -> None:
    gains = np.array([run(image, seed, contrast=(0.8, 1.2)).std() / image.std() for seed in range(60)])
    assert gains.min() > 0.8 and gains.max() < 1.2 and gains.std() > 0.03


def test_gamma_fixes_the_ends_and_inverts() -> None:
    x = np.linspace(-3, 4, 101, dtype=np.float32)
    np.testing.assert_allclose(bend(np.float32([-2, 3]), 1.4, LIMITS), [-2, 3], atol=1e-6)
    np.testing.assert_allclose(bend(np.float32([0.5]), 2.0, LIMITS), [-2 + 5 * 0.25], atol=1e-6)
    assert (np.diff(bend(x, 0.7, LIMITS)) > 0).all()
    np.testing.assert_allclose(bend(bend(x, 0.7, LIMITS), 1 / 0.7, LIMITS), x, atol=1e-4)


def test_blur_agrees_with_scipy(image: np.ndarray) -> None:
    np.testing.assert_allclose(blur(image[0], 1.0), gaussian_filter(image[0], 1.0, mode="mirror"), atol=2e-4)


def test_noise_has_the_bounded_spread(image: np.ndarray) -> None:
    sigmas = np.array([(run(image, seed, noise=0.05) - image).std(axis=(1, 2)) for seed in range(60)])
    assert sigmas.max() < 0.05 * 5 * 1.1 and sigmas.mean() == pytest.approx(0.025 * 5, rel=0.2)


def test_inversion_swaps_the_limits_and_undoes_itself(image: np.ndarray) -> None:
    np.testing.assert_allclose(invert(np.float32(LIMITS), LIMITS), LIMITS[::-1])
    np.testing.assert_allclose(run(image, invert=1), 1 - image, atol=1e-6)


def test_robust_limits_are_the_standardised_range() -> None:
    volume = Volume.from_array(np.random.default_rng(1).normal(100, 20, (4, 200, 200)).astype(np.float32))
    low, high = robust_limits(volume.intensity)
    out = volume.intensity.standardise(volume.read())
    assert (low, high) == (pytest.approx(float(out.min())), pytest.approx(float(out.max())))
    assert (low, high) == (pytest.approx(-3.1, abs=0.1), pytest.approx(3.1, abs=0.1))


def test_matching_a_volume_to_itself_is_the_identity() -> None:
    rng = np.random.default_rng(2)
    for data in (rng.integers(20, 200, (4, 200, 200), np.uint8), rng.normal(size=(4, 200, 200)).astype(np.float32)):
        own = Volume.from_array(data).intensity
        inside = np.clip(data, own.quantiles[0], own.quantiles[-1])
        np.testing.assert_allclose(match_histogram(data, own, own), inside, atol=1e-5)


def test_matched_quantiles_are_the_targets() -> None:
    rng = np.random.default_rng(3)
    source = Volume.from_array(rng.gamma(2.0, 20.0, (4, 256, 256)).astype(np.float32))
    target = Volume.from_array(rng.normal(500, 70, (4, 256, 256)).astype(np.float32))
    matched = match_histogram(source.read(), source.intensity, target.intensity)
    goal = np.sort(target.read(), axis=None)
    for q in np.linspace(0.02, 0.98, 33):
        reached = np.searchsorted(goal, np.quantile(matched, q)) / goal.size
        assert abs(reached - q) < 1 / 256


def test_eight_bit_matching_agrees_with_skimage() -> None:
    rng = np.random.default_rng(4)
    source = np.clip(rng.normal(100, 20, (2, 256, 256)), 0, 255).astype(np.uint8)
    target = np.clip(rng.normal(160, 35, (2, 256, 256)), 0, 255).astype(np.uint8)
    matched = match_histogram(source, *(Volume.from_array(a).intensity for a in (source, target)))
    expected = match_histograms(source, target)
    middle = (source > 60) & (source < 140)
    assert np.abs(matched - expected)[middle].mean() < 1.5
    assert matched.mean() == pytest.approx(target.mean(), abs=0.5)
    assert matched.std() == pytest.approx(target.std(), rel=0.03)
