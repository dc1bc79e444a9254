"""Overlap scores against the specification's numbers and scikit-learn."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
from sklearn import metrics as sk

from napari_em_da.errors import ConfigError, DataError
from napari_em_da.metrics import evaluate_arrays, score_names
from napari_em_da.metrics.overlap import confusion_matrix, dice, iou, mean_over, precision, recall

TRUTH = np.array([[[0, 0, 1, 1, 2, 2]]], np.uint8)
GUESS = np.array([[[0, 1, 1, 1, 2, 0]]], np.uint8)
ALL = ("iou", "miou", "dice", "precision", "recall", "pixel_accuracy")


def random_pair(shape: tuple[int, ...], classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = np.repeat(rng.integers(0, classes, (*shape[:-1], -(-shape[-1] // 3))), 3, -1)[..., : shape[-1]]
    guess = np.where(rng.random(shape) < 0.7, truth, rng.integers(0, classes, shape))
    return guess.astype(np.uint8), truth.astype(np.uint8)


def test_specified_numbers() -> None:
    scores = evaluate_arrays(GUESS, TRUTH, ALL)
    assert scores["iou/background"] == pytest.approx(1 / 3)
    assert scores["iou/1"] == pytest.approx(2 / 3)
    assert scores["iou/2"] == pytest.approx(1 / 2)
    assert scores["miou"] == pytest.approx(0.5)
    assert scores["iou"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    for name in ("background", "1", "2"):
        jaccard = scores[f"iou/{name}"]
        assert scores[f"dice/{name}"] == pytest.approx(2 * jaccard / (1 + jaccard))


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"])
def test_agrees_with_sklearn_for_every_integer_type(dtype: str) -> None:
    guess, truth = random_pair((3, 20, 31), 5)
    matrix = confusion_matrix(guess.astype(dtype), truth, range(5))
    np.testing.assert_array_equal(matrix[:5, :5], sk.confusion_matrix(truth.ravel(), guess.ravel()))
    assert matrix[5].sum() == matrix[:, 5].sum() == 0
    flat = truth.ravel(), guess.ravel()
    np.testing.assert_allclose(iou(matrix[:5, :5]), sk.jaccard_score(*flat, average=None))
    np.testing.assert_allclose(dice(matrix[:5, :5]), sk.f1_score(*flat, average=None))
    np.testing.assert_allclose(precision(matrix[:5, :5]), sk.precision_score(*flat, average=None))
    np.testing.assert_allclose(recall(matrix[:5, :5]), sk.recall_score(*flat, average=None))


def test_ignored_and_masked_voxels_do_not_count() -> None:
    guess, truth = random_pair((4, 17, 19), 3, 1)
    truth[:, 3:6] = 255
    mask = np.random.default_rng(2).random(truth.shape) < 0.5
    scores = evaluate_arrays(guess, truth, ALL, mask=mask)
    keep = mask & (truth != 255)
    expected = sk.jaccard_score(truth[keep], guess[keep], average=None)
    np.testing.assert_allclose([scores["iou/background"], scores["iou/1"], scores["iou/2"]], expected)
    assert scores["pixel_accuracy"] == pytest.approx(sk.accuracy_score(truth[keep], guess[keep]))


def test_dask_blocks_give_the_same_as_numpy() -> None:
    guess, truth = random_pair((7, 30, 41), 4, 3)
    mask = truth != 2
    lazy = evaluate_arrays(
        da.from_array(guess, chunks=(3, 16, 16)),
        da.from_array(truth, chunks=(2, 13, 41)),
        ALL,
        mask=da.from_array(mask, chunks=5),
    )
    np.testing.assert_equal(lazy, evaluate_arrays(guess, truth, ALL, mask=mask))  # NaN equals NaN here


def test_named_class_against_the_rest() -> None:
    guess, truth = random_pair((2, 20, 20), 6, 4)
    scores = evaluate_arrays(guess, truth, ALL, classes={"mito": 2})
    expected = sk.jaccard_score(truth.ravel() == 2, guess.ravel() == 2)
    assert scores["iou"] == scores["iou/mito"] == pytest.approx(expected)
    assert scores["pixel_accuracy"] == pytest.approx(((truth == 2) == (guess == 2)).mean())
    assert scores["miou"] == pytest.approx((scores["iou/mito"] + scores["iou/background"]) / 2)


def test_class_zero_with_a_name_is_foreground() -> None:
    scores = evaluate_arrays(GUESS, TRUTH, ["iou"], classes={"boundary": 0, "cell": 1, "other": 2})
    assert scores["iou"] == pytest.approx(0.5)
    assert "iou/background" not in scores


@pytest.mark.parametrize(("empty", "expected"), [("nan", 1.0), (1, 1.0), (0, 0.5)])
def test_class_that_occurs_nowhere(empty: str | int, expected: float) -> None:
    one = np.ones((1, 4, 4), np.uint8)
    scores = evaluate_arrays(one, one, ["iou"], classes={"a": 1, "b": 2}, empty=empty)
    assert scores["iou"] == expected
    assert np.isnan(scores["iou/b"]) == (empty == "nan")


def test_mean_over_a_subset() -> None:
    scores = iou(confusion_matrix(GUESS, TRUTH, range(3))[:3, :3])
    assert mean_over(scores, [1, 2]) == pytest.approx(7 / 12)
    assert np.isnan(mean_over(np.array([np.nan])))


def test_binary_masks_of_bool_and_255() -> None:
    truth = np.array([[[0, 255, 255, 0]]], np.uint8)
    scores = evaluate_arrays(truth, truth, ["iou"], classes={"object": 255}, ignore_index=None)
    assert scores["iou"] == 1
    assert evaluate_arrays(truth > 0, truth > 0, ["iou"])["iou/1"] == 1
    with pytest.raises(DataError, match="ignore_index=None"):
        evaluate_arrays(truth, truth[..., ::-1] * np.array([1, 0, 1, 0], np.uint8), ["iou"])


@pytest.mark.parametrize(
    ("error", "message", "arguments"),
    [
        (ConfigError, "Did you mean 'iou'", {"metrics": ["iuo"]}),
        (ConfigError, "also the ignored value", {"classes": {"object": 255}}),
        (ConfigError, "different", {"classes": {"a": 1, "b": 1}}),
        (ConfigError, "empty=2", {"empty": 2}),
        (DataError, r"\(1, 1, 5\).*crop", {"prediction": GUESS[..., :5]}),
        (DataError, "float32.*threshold", {"prediction": GUESS.astype(np.float32)}),
        (DataError, "float64.*integers", {"labels": TRUTH.astype(float)}),
        (DataError, "No voxel is annotated", {"labels": np.full_like(TRUTH, 255)}),
        (DataError, "look like instances", {"labels": TRUTH.astype(np.uint32) * 900}),
    ],
)
def test_errors_name_the_remedy(error: type[Exception], message: str, arguments: dict) -> None:
    with pytest.raises(error, match=message):
        evaluate_arrays(**({"prediction": GUESS, "labels": TRUTH, "metrics": ["iou"]} | arguments))


def test_each_score_has_help() -> None:
    assert set(ALL) <= set(score_names())
    assert all(text.strip() for text in score_names().values())


def test_a_mask_counts_even_on_a_single_voxel() -> None:
    one = np.ones((1, 1, 1), np.uint8)
    assert confusion_matrix(one, one, [1], mask=one == 0).sum() == 0
    assert confusion_matrix(one, one, [1], mask=one == 1).sum() == 1
