"""The ISBI 2012 procedure against the specification, scikit-image and sums written out pair by pair."""

from __future__ import annotations

from collections import deque

import dask.array as da
import numpy as np
import pytest
from scipy import ndimage
from skimage.measure import label
from skimage.segmentation import watershed

from napari_em_da.config import ScoringConfig
from napari_em_da.errors import ConfigError, DataError
from napari_em_da.metrics._agreement import rand_terms
from napari_em_da.metrics._base import Pair, Undefined
from napari_em_da.metrics._contingency import contingency
from napari_em_da.metrics._isbi import isbi_scores, thinned, threshold_curve
from napari_em_da.metrics._sections import components

RAND = ("vrand", "vrand_split", "vrand_merge", "arand")
INFO = ("vinfo", "vinfo_split", "vinfo_merge")
ALL = (*RAND, *INFO, "vi", "vi_split", "vi_merge", "rand_index", "cremi_score")
LEVELS = (0.2, 0.4, 0.5, 0.6, 0.8)


def membrane_at(*columns: int) -> np.ndarray:
    image = np.ones((7, 7), bool)
    image[:, list(columns)] = False
    return image


def make(prediction: object, labels: object, spacing: object = None, mask: object = None, **scoring: object) -> Pair:
    config = ScoringConfig(**scoring)  # type: ignore[arg-type]
    return Pair(prediction, labels, kind="object", spacing=spacing, mask=mask, scoring=config)  # type: ignore[arg-type]


def random_pair(shape: tuple[int, int, int], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Cells with membranes, predicted with noise that opens gaps."""
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.normal(size=shape), (0, 1.5, 1.5))
    labels = np.abs(smooth) > 0.4 * smooth.std()
    prediction = np.clip(0.5 + 0.5 * (labels - 0.5) + rng.normal(0, 0.2, shape), 0, 1)
    return prediction.astype(np.float32), labels.astype(np.uint8)


def plain_scores(found: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Rand and information scores with dense tables; predicted zeros are singletons."""
    found, truth = found[truth > 0].astype(np.int64), truth[truth > 0]
    zeros = found == 0
    found[zeros] = found.max(initial=0) + 1 + np.arange(zeros.sum())
    table = np.zeros((truth.max() + 1, found.max() + 1))
    np.add.at(table, (truth, found), 1)
    n, ab, a, b = len(truth), (table**2).sum(), (table.sum(1) ** 2).sum(), (table.sum(0) ** 2).sum()

    def entropy(p: np.ndarray) -> float:
        return float(-(p[p > 0] * np.log2(p[p > 0])).sum())

    joint, s, t = (entropy(x / n) for x in (table, table.sum(0), table.sum(1)))
    return {
        "vrand": 2 * ab / (a + b),
        "vrand_split": ab / a,
        "vrand_merge": ab / b,
        "arand": 1 - 2 * ab / (a + b),
        "vi": 2 * joint - s - t,
        "vi_split": joint - t,
        "vi_merge": joint - s,
        "vinfo": 2 * (s + t - joint) / (s + t),
    }


def test_specified_thinning() -> None:
    labels, prediction = membrane_at(3), membrane_at(2, 3, 4)
    table = contingency(components(prediction), components(labels))
    assert rand_terms(table) == (406, 882, 406)
    thick = isbi_scores(make(prediction[None], labels[None], thin=False), ALL)
    assert thick["vrand"] == pytest.approx(406 / 644)
    assert thick["vrand"] == pytest.approx(0.630435, abs=1e-6)
    thin = isbi_scores(make(prediction[None], labels[None]), ALL)
    assert thin["vrand"] == 1
    assert thin["vinfo"] == pytest.approx(1)
    assert thin["vi"] == 0
    np.testing.assert_array_equal(thinned(prediction) > 0, labels)


def sides(y: int, x: int, shape: tuple[int, ...]) -> list[tuple[int, int]]:
    near = [(y - 1, x), (y, x - 1), (y, x + 1), (y + 1, x)]
    return [(y, x) for y, x in near if 0 <= y < shape[0] and 0 <= x < shape[1]]


def flooded(objects: np.ndarray) -> np.ndarray:
    """Breadth-first search from all components, written out."""
    labels = label(objects, connectivity=1)
    starts = map(tuple, np.argwhere(labels == 0).tolist())
    queue = deque(p for p in starts if any(labels[q] for q in sides(*p, labels.shape)))
    queued = set(queue)
    while queue:
        here = queue.popleft()
        around = {int(labels[p]) for p in sides(*here, labels.shape)} - {0}
        if len(around) > 1:
            continue
        labels[here] = around.pop()
        fresh = [p for p in sides(*here, labels.shape) if not labels[p] and p not in queued]
        queue.extend(fresh)
        queued.update(fresh)
    return labels


@pytest.mark.parametrize("shape", [(30, 41), (1, 25), (22, 1), (2, 2)])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.8])
def test_thinning_is_a_watershed(shape: tuple[int, int], share: float) -> None:
    noise = ndimage.gaussian_filter(np.random.default_rng(0).random(shape), 1.0)
    objects = noise <= np.quantile(noise, share)
    thin, before = thinned(objects), components(objects)
    np.testing.assert_array_equal(thin, flooded(objects))
    np.testing.assert_array_equal(thin[objects], before[objects])  # each component grows, none moves
    for axis in (0, 1):  # and no two of them touch
        one, two = (np.take(thin, np.arange(k, shape[axis] - 1 + k), axis) for k in (0, 1))
        assert not ((one != two) & (one > 0) & (two > 0)).any()

    flood = watershed(~objects, before, connectivity=1, watershed_line=True)
    ids = range(1, before.max() + 1)
    steps = [ndimage.distance_transform_cdt(before != i, "taxicab") for i in ids]
    if len(steps) > 1:  # where one component is nearer than all others by two steps, no order of visits matters
        near = np.sort(steps, 0)
        clear = near[1] - near[0] >= 2
        nearest = np.argmin(steps, 0) + 1
        np.testing.assert_array_equal(thin[clear], nearest[clear])
        np.testing.assert_array_equal(flood[clear], nearest[clear])


def test_thinned_lines_are_one_pixel_wide() -> None:
    noise = ndimage.gaussian_filter(np.random.default_rng(3).random((60, 60)), 2)
    thin = np.pad(thinned(noise < np.quantile(noise, 0.6)), 1)
    line = (thin == 0)[1:-1, 1:-1]
    around = np.stack([thin[:-2, 1:-1], thin[2:, 1:-1], thin[1:-1, :-2], thin[1:-1, 2:]])
    highest = around.max(0)
    several = np.where(around > 0, around, highest).min(0) != highest
    assert line.any()
    assert np.all((several | (highest == 0))[line])


def test_thinning_without_objects_or_membrane() -> None:
    assert not thinned(np.zeros((4, 5), bool)).any()
    assert (thinned(np.ones((4, 5), bool)) == 1).all()


@pytest.mark.parametrize("thin", [True, False])
def test_best_threshold_of_the_mean_over_sections(thin: bool) -> None:
    prediction, labels = random_pair((3, 25, 27))
    pair = make(prediction, labels, thin=thin, thresholds=LEVELS)
    curve = {}
    for level in LEVELS:
        sections = []
        for p, t in zip(prediction, labels, strict=True):
            found = thinned(p > level) if thin else label(p > level, connectivity=1)
            sections.append(plain_scores(found, label(t, connectivity=1)))
        curve[level] = {name: np.mean([s[name] for s in sections]) for name in sections[0]}
        ours = threshold_curve(pair)[level]
        assert {name: ours[name] for name in curve[level]} == pytest.approx(curve[level])
    scores = isbi_scores(pair, ALL)
    best = max(LEVELS, key=lambda level: curve[level]["vrand"])
    assert scores["threshold/vrand"] == best
    for name in RAND:
        assert scores[name] == pytest.approx(curve[best][name])
    assert scores["arand"] == pytest.approx(min(c["arand"] for c in curve.values()))
    assert scores["vinfo"] == pytest.approx(max(c["vinfo"] for c in curve.values()))
    lowest = min(LEVELS, key=lambda level: curve[level]["vi"])
    assert scores["threshold/vi"] == lowest
    for name in ("vi", "vi_split", "vi_merge"):
        assert scores[name] == pytest.approx(curve[lowest][name])


def test_pooled_sections_sum_their_terms() -> None:
    prediction, labels = random_pair((3, 25, 27), 1)
    pair = make(prediction, labels, average="pooled", thresholds=LEVELS, thin=False)
    curve = threshold_curve(pair)
    for level in LEVELS:
        ab = a = b = 0.0
        truths, founds = [], []
        for z, (p, t) in enumerate(zip(prediction, labels, strict=True)):
            found, truth = (label(x, connectivity=1).astype(np.int32) for x in (p > level, t))
            terms = rand_terms(contingency(found, truth))
            ab, a, b = ab + terms[0], a + terms[1], b + terms[2]
            founds.append(np.where(found, found + 1000 * z, 0))
            truths.append(np.where(truth, truth + 1000 * z, 0))
        assert curve[level]["vrand"] == pytest.approx(2 * ab / (a + b))
        assert curve[level]["vrand_split"] == pytest.approx(ab / a)
        expected = plain_scores(np.stack(founds), np.stack(truths))
        assert {name: curve[level][name] for name in expected} == pytest.approx(expected)


def test_pooled_and_mean_agree_on_one_section() -> None:
    prediction, labels = random_pair((1, 25, 27), 2)
    pooled = isbi_scores(make(prediction, labels, average="pooled"), ALL)
    assert pooled == pytest.approx(isbi_scores(make(prediction, labels), ALL))
    flat = isbi_scores(make(prediction[0], labels[0]), ALL)
    assert flat == pooled


def test_keys_are_those_asked_for() -> None:
    prediction, labels = random_pair((2, 20, 21))
    assert set(isbi_scores(make(prediction, labels), ("arand",))) == {"arand", "threshold/vrand"}
    assert set(isbi_scores(make(prediction, labels), ("vi", "vinfo"))) == {
        "vi",
        "vinfo",
        "threshold/vi",
        "threshold/vinfo",
    }
    assert set(isbi_scores(make(prediction > 0.5, labels), ALL)) == set(ALL)


def test_perfect_predictions_are_perfect() -> None:
    _, labels = random_pair((2, 20, 21))
    for prediction in (labels, labels.astype(np.float32), labels * np.uint16(9)):
        scores = isbi_scores(make(prediction, labels), ALL)
        errors = dict.fromkeys(("arand", "vi", "vi_split", "vi_merge", "cremi_score"), 0)
        assert {name: scores[name] for name in ALL} == pytest.approx(dict.fromkeys(ALL, 1) | errors)


def test_thresholds_in_any_order_and_with_equal_masks() -> None:
    prediction, labels = random_pair((2, 20, 21))
    prediction = np.round(prediction * 4) / 4
    steps = threshold_curve(make(prediction, labels, thresholds=(0.6, 0.3, 0.4, 0.3)))
    assert list(steps) == [0.3, 0.4, 0.6]
    assert steps[0.3] == steps[0.4]
    assert steps[0.6] == threshold_curve(make(prediction > 0.6, labels))[0.5]


def test_membrane_is_the_complement_of_object() -> None:
    prediction, labels = random_pair((2, 20, 21))
    objects = make(prediction, labels, thresholds=LEVELS)
    membrane = Pair(1 - prediction, 1 - labels, kind="membrane", scoring=objects.scoring)
    assert isbi_scores(membrane, ALL) == isbi_scores(objects, ALL)


@pytest.mark.parametrize("average", ["slice", "pooled"])
def test_chunks_change_nothing(average: str) -> None:
    prediction, labels = random_pair((5, 20, 21))
    mask = np.random.default_rng(1).random(labels.shape) < 0.8
    whole = isbi_scores(make(prediction, labels, mask=mask, average=average), ALL)
    lazy = make(
        da.from_array(prediction, chunks=(3, 7, 9)),
        da.from_array(labels, chunks=(2, 20, 5)),
        mask=da.from_array(mask, chunks=(1, 20, 21)),
        average=average,
    )
    assert isbi_scores(lazy, ALL) == whole


def test_ignored_pixels_part_objects_and_do_not_count() -> None:
    labels = np.ones((1, 7, 7), np.uint8)
    labels[:, :, 3] = 255
    merged = isbi_scores(make(np.ones((1, 7, 7), bool), labels), ALL)
    assert merged["vrand_split"] == 1
    assert merged["vrand_merge"] == pytest.approx(0.5)
    mask = np.ones((1, 7, 7), bool)
    mask[:, :, 4:] = False
    half = isbi_scores(make(np.ones((1, 7, 7), bool), labels, mask=mask), ALL)
    assert half["vrand"] == 1


def test_sections_without_objects_are_left_out_and_said() -> None:
    prediction, labels = random_pair((3, 20, 21))
    labels[1] = 0
    pair = make(prediction, labels, thresholds=(0.5,))
    expected = isbi_scores(make(prediction[::2], labels[::2], thresholds=(0.5,)), ALL)
    assert isbi_scores(pair, ALL) == pytest.approx(expected)
    assert sum("1 of 3 sections" in sentence for sentence in pair.warnings) == 1


@pytest.mark.parametrize("average", ["slice", "pooled"])
def test_all_membrane_and_all_object(average: str) -> None:
    nothing, everything = np.zeros((2, 5, 6), np.uint8), np.ones((2, 5, 6), np.uint8)
    assert isinstance(isbi_scores(make(everything, nothing, average=average), ALL)["vrand"], Undefined)
    assert isbi_scores(make(everything, everything, average="slice"), ALL)["vrand"] == 1
    empty = isbi_scores(make(nothing, everything, average=average), ALL)  # 30 singletons in each section
    assert empty["vrand_split"] == pytest.approx(1 / 30)
    assert empty["vrand_merge"] == 1


def test_border_is_left_out() -> None:
    labels, prediction = membrane_at(3), membrane_at(2, 3, 4)
    pair = make(prediction[None], labels[None], spacing=(30, 4, 4), thin=False, border_nm=4.0)
    assert isbi_scores(pair, ALL)["vrand"] == 1
    with pytest.raises(ConfigError, match=r"spacing=\(z, y, x\)"):
        isbi_scores(make(prediction[None], labels[None], border_nm=4.0), ALL)


def test_bad_input() -> None:
    prediction, labels = random_pair((2, 9, 9))
    with pytest.raises(DataError, match="No voxel is annotated"):
        isbi_scores(make(prediction, np.full_like(labels, 255)), ALL)
    with pytest.raises(DataError, match="to 2"):
        isbi_scores(make(prediction + 1, labels), ALL)
