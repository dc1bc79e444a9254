"""Averaging along z against scipy's Gaussian, known shapes, and gaps."""

import math

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter1d

from napari_em_da import postprocess
from napari_em_da.config import ChainConfig
from napari_em_da.errors import ConfigError
from napari_em_da.postprocess._along_z import Plan, Tally, pieces
from napari_em_da.postprocess._base import Stack

NM = (50.0, 5.0, 5.0)
NAMES = ("background", "thick", "thin")


def discs(depth=9, side=200, radius=40.0, seed=0, mistakes=0.5):
    """Return probabilities (Z, Y, X, 3): discs that drift slowly, lines that jump, and mistakes in blots."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side]
    blots = rng.normal(0, mistakes, (depth, side // 10, side // 10, 3))
    logits = blots.repeat(10, 1).repeat(10, 2) + rng.normal(0, 0.2, (depth, side, side, 3))
    for z in range(depth):
        logits[z, ..., 1] += np.where(np.hypot(y - 100 - 2 * z, x - 90) < radius, 3.0, -3.0)
        logits[z, ..., 2] += np.where((x + 37 * z) % 100 < 3, 3.0, -3.0)
    p = np.exp(logits)
    return (p / p.sum(-1, keepdims=True)).astype(np.float32)


def smoothed(data, voxel_nm=NM, **options):
    chain = ChainConfig(steps=[{"name": "smooth_z", "options": options}])
    return postprocess.apply_chain(chain, Stack(data, "probabilities", voxel_nm, NAMES[: data.shape[-1]])).data


def test_the_width_of_a_stripe_is_its_thickness_and_that_of_a_disc_two_thirds_of_its_diameter():
    y, x = np.mgrid[:300, :300]
    for size in (20, 60, 100):
        for shape, width in (
            (np.abs(x - 149.5) < size / 2, 5 * size),
            (np.hypot(y - 150, x - 150) < size, 20 / 3 * size),
        ):
            tally = Tally(2, 1, NM)
            tally.measure(shape.astype(np.uint8))
            assert tally.widths()[1] == pytest.approx(width, rel=0.06)
    tally = Tally(3, 1, NM)
    tally.measure(np.ones((30, 40), np.uint8))
    assert tally.widths().tolist() == [0, 4 * 75, 0]  # one that fills its section is as wide as can be told


def test_pieces_count_as_the_whole():
    data = discs(depth=3)
    whole, parts = (Tally(3, 3, NM) for _ in range(2))
    cut = pieces([[70, 130], [1, 99, 100]])
    assert len(cut) == 6
    for tally, places in ((whole, pieces([[200], [200]])), (parts, cut)):
        for y, x in places:
            for z in range(3):
                tally.compare(z, np.moveaxis(data[z, y, x], -1, 0))
    np.testing.assert_allclose(parts.correlations(), whole.correlations(), rtol=1e-5)


def test_correlations_are_pearsons():
    data = np.moveaxis(discs(depth=4), -1, 1)
    tally = Tally(3, 4, NM)
    for z in range(4):
        tally.compare(z, data[z])
    for c in range(3):
        for z in range(3):
            pair = [data[i, c].ravel() for i in (z, z + 1)]
            assert tally.correlations()[c, z] == pytest.approx(np.corrcoef(*pair)[0, 1], rel=1e-6)


def test_it_is_a_gaussian_of_which_more_than_half_stays_near():
    plan = Plan(np.array([0.0, 1.5]), np.zeros((2, 31), np.int64))
    maps = np.random.default_rng(1).random((31, 4, 4)).astype(np.float32)
    gaussian = gaussian_filter1d(maps, 1.5, axis=0, truncate=2.5, mode="nearest")
    own = gaussian_filter1d(np.eye(31), 1.5, truncate=2.5)[15, 15]  # of the weight, before more is given to it
    expected = gaussian * 0.49 / (1 - own) + maps * (1 - 0.49 / (1 - own))
    maps = np.stack([1 - maps, maps])
    found = np.stack([plan.average(lambda c, z: maps[c, z], z)[1] for z in range(31)])
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_of_many_thin_sections_few_are_read_and_the_spread_is_nearly_the_same():
    plan = Plan(np.array([0.0, 10.0]), np.zeros((2, 201), np.int64))
    places, weights = np.array(plan.weights(1, 100)).T
    assert len(places) <= 13 and weights.sum() == pytest.approx(1)
    assert weights[np.abs(places - 100) <= 5].sum() >= 0.51
    assert 8 < math.sqrt((weights * (places - 100) ** 2).sum()) < 10.5


def test_what_is_sure_is_not_overruled_where_sections_are_thick():
    truth = discs().argmax(-1)
    sure = np.eye(3, dtype=np.float32)[truth]
    np.testing.assert_array_equal(smoothed(sure, share=0.3, least_correlation=0.0).argmax(-1), truth)


def test_a_short_stack_of_thin_sections_is_averaged_too():
    plan = Plan(np.array([0.0, 10.0]), np.array([[0, 0, 0, 1, 1]] * 2))
    assert [place for place, _ in plan.weights(1, 0)] == [0, 2]  # the last one stands for all beyond it
    assert [place for place, _ in plan.weights(1, 4)] == [3, 4]
    assert sum(weight for _, weight in plan.weights(1, 1)) == pytest.approx(1)


def test_thick_objects_get_better_and_thin_ones_stay():
    data, (z, y, x) = discs(mistakes=1.5), np.ogrid[:9, :200, :200]
    disc = np.hypot(y - 100 - 2 * z, x - 90) < 40
    truth = np.where(disc, 1, np.where((x + 37 * z) % 100 < 3, 2, 0))
    found = smoothed(data, (20.0, 5.0, 5.0))
    before, after = (p.argmax(-1) for p in (data, found))

    def iou(labels, c):
        one, other = labels == c, truth == c
        return (one & other).sum() / (one | other).sum()

    assert iou(after, 1) > iou(before, 1) + 0.02
    assert iou(after, 2) > iou(before, 2) - 0.01


def test_probabilities_stay_probabilities_and_what_was_not_predicted_stays_so():
    data = discs()
    data[2, :30, :40] = 0
    found = smoothed(data)
    np.testing.assert_allclose(found.sum(-1), (data.any(-1)).astype(np.float32), atol=1e-5)
    assert found.min() >= 0


def test_nothing_is_averaged_across_a_gap():
    one, other = discs(depth=5, seed=1), discs(depth=5, seed=2)[:, ::-1, ::-1].copy()
    other = np.roll(other, 100, axis=2)
    data = np.concatenate([one, other])
    tally = Tally(3, 10, NM)
    for z, section in enumerate(np.moveaxis(data, -1, 1)):
        tally.compare(z, section)
        tally.measure(section.argmax(0))
    assert tally.correlations()[1, 4] < 0.25 < np.delete(tally.correlations()[1], 4).min()
    plan = Plan.of(tally, 0.2, 0.25)
    for z in range(10):
        assert {place < 5 for place, _ in plan.weights(1, z)} == {z < 5}


def test_a_single_section_and_an_absent_class_stay_as_they_are():
    one = discs(depth=1)
    np.testing.assert_allclose(smoothed(one), one, atol=1e-6)
    data = discs()[..., :2].copy()
    data[..., 1] = 0.01
    data[..., 0] = 0.99
    np.testing.assert_array_equal(smoothed(data), data)


def test_chosen_classes_and_bad_input():
    data = discs()
    same = smoothed(data, classes=["thin"])
    np.testing.assert_array_equal(same, data)  # too thin to be averaged
    with pytest.raises(ConfigError, match="background"):
        smoothed(data, classes=["background"])
    with pytest.raises(ConfigError, match="voxel size"):
        smoothed(data, voxel_nm=None)
