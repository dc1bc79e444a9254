"""Pixel error against the specification and a direct computation, and what the sections of a pair are checked for."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
from sklearn.metrics import f1_score

from napari_em_da.config import ScoringConfig
from napari_em_da.errors import ConfigError, DataError
from napari_em_da.metrics._base import Pair
from napari_em_da.metrics._sections import sections
from napari_em_da.metrics.pixel_error import FAMILY, compute, count_above, pixel_error

ALL = tuple(FAMILY.scores)
LEVELS = (0.05, 0.3, 0.5, 0.7)


def make(prediction: object, labels: object, **options: object) -> Pair:
    options.setdefault("kind", "object")
    return Pair(prediction, labels, **options)  # type: ignore[arg-type]


def scores(prediction: object, labels: object, **options: object) -> dict[str, float]:
    return compute(make(prediction, labels, **options), ALL)


def random_pair(shape: tuple[int, ...], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = (rng.random(shape) < 0.8).astype(np.uint8)
    return np.clip(0.3 + 0.4 * labels + rng.normal(0, 0.2, shape), 0, 1).astype(np.float32), labels


def test_specified_numbers() -> None:
    prediction = np.array([[[0.9, 0.6, 0.4, 0.1]]], np.float32)
    labels = np.array([[[1, 1, 1, 0]]], np.uint8)
    (section,) = sections(make(prediction, labels))
    hits, predicted = count_above(section, LEVELS)
    np.testing.assert_allclose(1 - pixel_error(hits, predicted, 3), [0.857143, 1, 0.8, 0.5], atol=1e-6)
    found = scores(prediction, labels, scoring=ScoringConfig(thresholds=LEVELS))
    assert found["pixel_error"] == 0
    assert found["threshold/pixel_error"] == 0.3
    assert found["pixel_error_squared"] == pytest.approx((0.01 + 0.16 + 0.36 + 0.01) / 4)


@pytest.mark.parametrize("shape", [(3, 9, 11), (1, 5, 1), (13, 8)])
def test_agrees_with_sklearn_at_every_threshold(shape: tuple[int, ...]) -> None:
    prediction, labels = random_pair(shape)
    prediction.flat[0] = 0.5  # not above 0.5
    for level in (0.0, 0.25, 0.5, 0.75):
        found = scores(prediction, labels, scoring=ScoringConfig(thresholds=(level,)))
        expected = f1_score(labels.ravel(), (prediction > level).ravel())
        assert found["pixel_error"] == pytest.approx(1 - expected)
        assert "threshold/pixel_error" not in found


def test_binary_predictions_have_one_threshold() -> None:
    prediction, labels = random_pair((2, 12, 13))
    for binary in (prediction > 0.5, (prediction > 0.5).astype(np.uint8), (prediction > 0.5) * np.uint64(7)):
        found = scores(binary, labels)
        assert found["pixel_error"] == pytest.approx(1 - f1_score(labels.ravel(), (prediction > 0.5).ravel()))
        assert found["pixel_error_squared"] == pytest.approx(np.mean(labels != (prediction > 0.5)))
        assert set(found) == {"pixel_error", "pixel_error_squared"}


def test_membrane_is_turned_into_object() -> None:
    prediction, labels = random_pair((2, 12, 13))
    objects = scores(prediction, labels)
    membrane = scores(1 - prediction, 1 - labels, kind="membrane")
    assert membrane == pytest.approx(objects)


def test_empty_sides() -> None:
    nothing, everything = np.zeros((1, 4, 5), np.uint8), np.ones((1, 4, 5), np.uint8)
    assert scores(nothing, nothing)["pixel_error"] == 0
    assert scores(everything, nothing)["pixel_error"] == 1
    assert scores(nothing, everything)["pixel_error"] == 1
    assert scores(everything, everything)["pixel_error"] == 0


def test_ignored_and_masked_pixels_do_not_count() -> None:
    prediction, labels = random_pair((3, 14, 15), 1)
    labels[:, 4:7] = 255
    mask = np.random.default_rng(2).random(labels.shape) < 0.5
    keep = mask & (labels != 255)
    found = scores(prediction, labels, mask=mask, scoring=ScoringConfig(thresholds=(0.5,)))
    assert found["pixel_error"] == pytest.approx(1 - f1_score(labels[keep], prediction[keep] > 0.5))
    assert found["pixel_error_squared"] == pytest.approx(np.mean((prediction[keep] - labels[keep]) ** 2))


def test_chunks_change_nothing() -> None:
    prediction, labels = random_pair((7, 14, 15), 3)
    mask = np.random.default_rng(2).random(labels.shape) < 0.5
    lazy = scores(
        da.from_array(prediction, chunks=(3, 5, 4)),
        da.from_array(labels, chunks=(2, 14, 7)),
        mask=da.from_array(mask, chunks=(4, 4, 15)),
    )
    assert lazy == pytest.approx(scores(prediction, labels, mask=mask), rel=1e-12)


def test_sections_hold_objects_whatever_the_kind() -> None:
    labels = np.array([[[0, 1, 3, 255]], [[3, 3, 0, 0]]], np.int32)
    prediction = np.array([[[3, 3, 0, 0]], [[3, 0, 0, 1]]], np.int32)
    pair = make(prediction, labels, kind="membrane", classes={"membrane": 3}, mask=labels != 1)
    first, second = sections(pair)
    assert (first.z, second.z) == (0, 1)
    assert first.truth.tolist() == [[True, True, False, False]]
    assert first.counted.tolist() == [[True, False, True, False]]
    assert first.probability.tolist() == [[0, 0, 1, 1]]
    assert second.truth.tolist() == [[False, False, True, True]]
    assert second.probability.tolist() == [[0, 1, 1, 1]]
    assert first.probability.dtype == np.float32


@pytest.mark.parametrize("kind", ["membrane", "object"])
def test_zero_and_255_without_a_class_is_an_error(kind: str) -> None:
    prediction, labels = random_pair((2, 8, 8))
    if kind == "membrane":
        labels = 1 - labels
        prediction = 1 - prediction
    with pytest.raises(DataError, match=rf"classes={{'{kind}': 255}} and ignore_index=None"):
        scores(prediction, labels * np.uint8(255), kind=kind)
    found = scores(prediction, labels * np.uint8(255), kind=kind, classes={kind: 255}, ignore_index=None)
    assert found == scores(prediction, labels, kind=kind)


@pytest.mark.parametrize(
    ("bad", "message"),
    [(np.nan, "1 NaN in section 1"), (1.2, "to 1.2 in section 1"), (-0.5, "from -0.5"), (np.inf, "to inf")],
)
def test_what_is_no_probability_is_an_error(bad: float, message: str) -> None:
    prediction, labels = random_pair((2, 8, 8))
    prediction[1, 2, 3] = bad
    with pytest.raises(DataError, match=message):
        scores(prediction, labels)


def test_rounding_outside_the_range_is_clipped() -> None:
    prediction, labels = random_pair((1, 8, 8))
    (section,) = sections(make(np.where(labels, 1.0005, -0.0005), labels))
    assert section.probability.min() == 0
    assert section.probability.max() == 1


def test_mixed_up_kinds_are_found() -> None:
    prediction, labels = random_pair((2, 10, 10))
    share = 100 * labels.mean()
    with pytest.raises(DataError, match=rf"{share:.1f} %.*kind='object'"):
        scores(prediction, labels, kind="membrane")
    pair = make(1 - prediction, 1 - labels)
    compute(pair, ALL)
    assert any("kind='membrane'" in sentence for sentence in pair.warnings)
    pair = make(1 - prediction, labels)
    compute(pair, ALL)
    compute(pair, ALL)
    assert len(pair.warnings) == 1
    assert "inverted" in pair.warnings[0]
    pair = make(prediction, labels)
    compute(pair, ALL)
    assert pair.warnings == []


def test_values_that_are_no_boundary_map() -> None:
    prediction, labels = random_pair((2, 10, 10))
    ids = labels.astype(np.int32)
    ids[:, 5:] *= 7
    pair = make(prediction, ids)
    assert compute(pair, ALL) == scores(prediction, labels)
    assert "from 1 to 7" in pair.warnings[0]
    few = (1 - labels).astype(np.int32)
    few[:, 5:] *= 7
    with pytest.raises(DataError, match="holds 1 and 7"):
        scores(1 - prediction, few, kind="membrane")
    pair = make(labels, labels * np.uint8(3), classes={"object": 3})
    compute(pair, ALL)
    assert any("never 3" in sentence for sentence in pair.warnings)


def test_bad_input() -> None:
    prediction, labels = random_pair((2, 8, 8))
    with pytest.raises(ConfigError, match="kind=None"):
        scores(prediction, labels, kind=None)
    with pytest.raises(ConfigError, match="2 classes"):
        scores(prediction, labels, classes={"a": 1, "b": 2})
    with pytest.raises(ConfigError, match="ignored value"):
        scores(prediction, labels, classes={"object": 255})
    with pytest.raises(DataError, match="No voxel is annotated"):
        scores(prediction, np.full_like(labels, 255))
    with pytest.raises(DataError, match="No voxel is annotated"):
        scores(prediction, labels, mask=np.zeros(labels.shape, bool))
    with pytest.raises(DataError, match="4 axes"):
        scores(prediction[None], labels[None])
