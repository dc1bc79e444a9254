"""Matching of objects against brute force over all pairs and against optimal assignment."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
from scipy import ndimage
from scipy.optimize import linear_sum_assignment

from napari_em_da.errors import DataError, ResourceError
from napari_em_da.metrics import evaluate_arrays
from napari_em_da.metrics.matching import match_objects

QUALITIES = ("pq", "sq", "rq", "ap", "ap50", "ap75", "f1")
COUNTS = ("objects_labels", "objects_prediction", "objects_missed", "objects_extra")
NO_LABEL = 2**64 - 1


def boxes(shape: tuple[int, ...], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Objects of a few voxels, and a copy in which borders moved, objects merged, split and vanished."""
    rng = np.random.default_rng(seed)
    size = [rng.integers(1, 4) for _ in shape]
    grid = [n // s + 1 for n, s in zip(shape, size, strict=True)]
    labels = np.kron(rng.integers(0, 12, grid), np.ones(size, int))[tuple(slice(n) for n in shape)]
    found = np.where(rng.random(shape) < 0.8, labels, rng.integers(0, 12, shape))
    found[found == 3] = 4
    found[found == 5] = 0
    return found, labels


def overlaps(found: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """IoU of all pairs, (T, F)."""
    rows, columns = (np.setdiff1d(ids, [0]) for ids in (labels, found))
    return np.array(
        [[((labels == t) & (found == f)).sum() / ((labels == t) | (found == f)).sum() for f in columns] for t in rows]
    ).reshape(len(rows), len(columns))


def hits(iou: np.ndarray, threshold: float) -> int:
    rows, columns = linear_sum_assignment(-((iou >= threshold) + iou / (2 * max(iou.shape))))
    return int((iou[rows, columns] >= threshold).sum())


def expected(iou: np.ndarray, thresholds: tuple[float, ...]) -> dict[str, float]:
    both = sum(iou.shape)
    matched = iou[iou > 0.5]
    at = {t: hits(iou, t) / (both - hits(iou, t)) for t in (*thresholds, 0.5, 0.75)}
    return {
        "pq": 2 * matched.sum() / both,
        "sq": matched.mean() if matched.size else 0,
        "rq": 2 * matched.size / both,
        "f1": 2 * hits(iou, 0.5) / both,
        "ap": float(np.mean([at[t] for t in thresholds])),
        "ap50": at[0.5],
        "ap75": at[0.75],
        "objects_labels": iou.shape[0],
        "objects_prediction": iou.shape[1],
        "objects_missed": iou.shape[0] - matched.size,
        "objects_extra": iou.shape[1] - matched.size,
    }


@pytest.mark.parametrize("seed", range(8))
def test_scores_agree_with_brute_force_on_any_shape_type_and_blocks(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape = tuple(int(n) for n in rng.integers(1, 13, rng.integers(2, 4)))
    found, labels = (ids.astype(rng.choice(["uint8", "int32", "uint64"])) for ids in boxes(shape, seed))
    found.flat[0] = labels.flat[0] = 1
    mask = rng.random(shape) < 0.9
    mask.flat[0] = True
    wanted = (*QUALITIES, *COUNTS)
    thresholds = (0.1, 0.3, 0.5, 0.55, 0.8)
    scores = evaluate_arrays(found, labels, wanted, mask=mask, overlaps=thresholds)
    assert scores == pytest.approx(expected(overlaps(found[mask], labels[mask]), thresholds))
    lazy = [da.from_array(volume, chunks=3) for volume in (found, labels, mask)]
    assert evaluate_arrays(*lazy[:2], wanted, mask=lazy[2], overlaps=thresholds) == scores


def test_numbers_by_hand() -> None:
    labels = np.array([[1] * 4 + [2] * 4 + [3] * 2 + [0] * 2])
    found = np.array([[9] * 3 + [0] + [8] * 4 + [0] * 2 + [7] * 2])  # IoU 0.75, 1, missed, extra
    scores = evaluate_arrays(found, labels, (*QUALITIES, *COUNTS))
    assert scores["sq"] == pytest.approx(0.875)
    assert scores["rq"] == scores["f1"] == pytest.approx(2 / 3)
    assert scores["pq"] == pytest.approx(0.875 * 2 / 3)
    assert scores["ap50"] == scores["ap75"] == 0.5
    assert scores["ap"] == pytest.approx((6 * 2 / 4 + 4 * 1 / 5) / 10)  # up to 0.75, and above
    assert [scores[name] for name in COUNTS] == [3, 3, 1, 1]


def test_an_object_cut_in_halves_matches_once() -> None:
    labels = np.ones((1, 8), int)
    found = np.repeat([[1, 2]], 4, 1)
    scores = evaluate_arrays(found, labels, QUALITIES, kind="instances")
    assert scores["pq"] == scores["rq"] == 0  # IoU is not above one half
    assert scores["f1"] == pytest.approx(2 / 3)
    assert scores["ap50"] == 0.5


def test_relabelling_changes_nothing_and_swapping_mirrors() -> None:
    found, labels = boxes((6, 11, 12), 1)
    wanted = (*QUALITIES, *COUNTS)
    scores = evaluate_arrays(found, labels, wanted)
    rng = np.random.default_rng(0)
    names = np.concatenate([[NO_LABEL], rng.choice(2**62, 11, replace=False).astype(np.uint64)]).astype(np.uint64)
    assert evaluate_arrays(names[found], rng.permutation(names[1:])[labels - 1] * (labels > 0), wanted) == scores
    swapped = evaluate_arrays(labels, found, wanted)
    for name in QUALITIES:
        assert swapped[name] == pytest.approx(scores[name])
    assert swapped["objects_missed"] == scores["objects_extra"]


def test_each_section_by_itself() -> None:
    found, labels = boxes((5, 9, 10), 2)
    labels[3] = 255  # an ordinary id
    scores = evaluate_arrays(found, labels, QUALITIES, per_section=True, overlaps=(0.4, 0.6))
    apart = np.arange(5)[:, None, None] * 1000
    names = [np.where(ids > 0, ids + apart, 0) for ids in (found, labels)]
    assert scores == pytest.approx(evaluate_arrays(*names, QUALITIES, overlaps=(0.4, 0.6)))
    partial = evaluate_arrays(found, labels, QUALITIES, per_section=True, ignore_index=255)
    kept = [0, 1, 2, 4]
    assert partial == pytest.approx(evaluate_arrays(found[kept], labels[kept], QUALITIES, per_section=True))


@pytest.mark.parametrize("kind", ["membrane", "object"])
@pytest.mark.parametrize("flat", [False, True])
def test_boundary_maps_are_matched_by_components(kind: str, flat: bool) -> None:
    rng = np.random.default_rng(3)
    truth = rng.random((4, 15, 16)) < 0.6
    guess = truth ^ (rng.random(truth.shape) < 0.03)
    structure = ndimage.generate_binary_structure(3, 1)
    if flat:
        structure[[0, 2]] = False
    ids = [ndimage.label(inside, structure)[0] for inside in (guess, truth)]
    maps = [(inside if kind == "object" else ~inside).astype(np.uint8) for inside in (guess, truth)]
    scores = evaluate_arrays(*maps, (*QUALITIES, *COUNTS), kind=kind, per_section=flat)
    assert scores == pytest.approx(evaluate_arrays(*ids, (*QUALITIES, *COUNTS)))
    probability = np.where(maps[0] > 0, 0.7, 0.2).astype(np.float32)
    assert evaluate_arrays(probability, maps[1], (*QUALITIES, *COUNTS), kind=kind, per_section=flat) == scores


def test_the_table_says_what_became_of_each_object() -> None:
    #                  matched    split            merged         missed     extra
    labels = np.array([1, 1, 1] + [2, 2, 2, 2] + [3, 3, 4, 4] + [5, 5] + [0, 0, 0])
    found = np.array([11, 11, 0] + [12, 12, 13, 16] + [14] * 4 + [0, 0] + [15] * 3)
    table = match_objects(found, labels)
    rows = {
        (int(a), int(b)): (str(s), round(float(i), 3), int(m), int(n))
        for a, b, s, i, m, n in zip(
            *(table[k] for k in ("label_id", "prediction_id", "status", "iou", "label_voxels", "prediction_voxels")),
            strict=True,
        )
    }
    assert len(table["status"]) == 5 + 5 == len(table["iou"])
    assert rows[1, 11] == ("matched", 0.667, 3, 2)
    assert rows[2, 12] == ("split", 0.5, 4, 2)
    assert rows[2, 13] == ("split", 0.25, 4, 1)
    assert rows[2, 16] == ("split", 0.25, 4, 1)
    assert rows[5, 0] == ("missed", 0, 2, 0)
    assert rows[0, 15] == ("extra", 0, 0, 3)
    assert rows[3, 14] == ("merged", 0.5, 2, 4)
    assert rows[4, 14] == ("merged", 0.5, 2, 4)
    assert (table["status"] == "merged").sum() == 3  # two annotated objects and the one that holds them
    assert table["label_id"].dtype == table["prediction_id"].dtype == np.uint64


@pytest.mark.parametrize("seed", range(4))
def test_the_table_agrees_with_the_counts(seed: int) -> None:
    found, labels = boxes((3, 10, 11), seed)
    table = match_objects(found, labels, ignored=7)
    scores = evaluate_arrays(found, labels, (*COUNTS, "sq"), ignore_index=7)
    matched = table["status"] == "matched"
    annotated = len(table["status"]) - int(scores["objects_extra"])
    assert annotated == scores["objects_labels"]
    assert (~matched[:annotated]).sum() == scores["objects_missed"]
    assert not matched[annotated:].any()
    assert table["iou"][matched].mean() == pytest.approx(scores["sq"])
    assert set(table["label_id"][:annotated]) == set(np.unique(labels)) - {0, 7}


def test_empty_sides_have_defined_scores() -> None:
    empty = np.zeros((2, 4, 4), np.uint16)
    some = empty.copy()
    some[0, :2, :2] = 300
    for found, labels in ((empty, some), (some, empty)):
        scores = evaluate_arrays(found, labels, (*QUALITIES, *COUNTS))
        assert all(scores[name] == 0 for name in QUALITIES)
        assert not scores.undefined
    neither = evaluate_arrays(empty, empty, (*QUALITIES, *COUNTS))
    assert neither.undefined == dict.fromkeys(QUALITIES, "neither volume holds an object")
    assert all(neither[name] == 0 for name in COUNTS)
    assert evaluate_arrays(empty, empty, ("pq",), empty=1)["pq"] == 1
    assert match_objects(empty, empty)["status"].size == 0


def test_bad_input_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = np.ones((2, 4, 4), np.int16)
    assert "kind='object'" in evaluate_arrays(ids, ids, ("pq",)).warnings[0]
    assert not evaluate_arrays(ids, ids, ("pq",), kind="instances").warnings
    for flat in (False, True):
        with pytest.raises(DataError, match="-1"):
            evaluate_arrays(-ids, ids, ("pq",), per_section=flat)
        with pytest.raises(DataError, match="annotated"):
            evaluate_arrays(ids, ids, ("pq",), mask=ids > 1, per_section=flat)
    monkeypatch.setattr("napari_em_da.metrics._objects._COMPONENT_BYTES", 1 << 60)
    with pytest.raises(ResourceError, match="per_section=True"):
        evaluate_arrays(ids, ids, ("pq",), kind="object")
