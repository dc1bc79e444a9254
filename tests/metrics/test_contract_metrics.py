"""What every score of every family must do with good and with bad volumes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from napari_em_da.errors import ConfigError, DataError
from napari_em_da.metrics import Scores, evaluate_arrays, families, lower_is_better

Array = npt.NDArray[Any]
NAMES = [name for family in families().values() for name in family.scores]
KINDS = (None, "instances", "membrane", "object")
SPACING = (30.0, 4.0, 5.0)
NO_BEST = {
    "objects_labels": "a count of the annotation alone",
    "objects_prediction": "best where it equals the annotated number, whatever that is",
}


def volume(kind: str | None) -> Array:
    """Return an annotation of a kind: 3 x 3 cells in each of 4 sections, apart by one voxel."""
    cells = np.zeros((4, 12, 15), np.uint8)
    for y in range(3):
        for x in range(3):
            cells[:, 4 * y : 4 * y + 3, 5 * x : 5 * x + 4] = 1 + 3 * y + x
    if kind == "instances":
        return cells.astype(np.uint32)
    if kind is None:
        return (cells % 3).astype(np.uint8)
    return ((cells > 0) == (kind == "object")).astype(np.uint8)


def attempt(name: str, prediction: Array, labels: Array, kind: str | None, **options: Any) -> Scores | Exception:
    """Return the scores, or the refusal; any other exception fails the test, and so does a NaN without a reason."""
    try:
        found = evaluate_arrays(prediction, labels, [name], kind=kind, spacing=SPACING, **options)  # type: ignore[arg-type]
    except (ConfigError, DataError) as refusal:
        assert len(str(refusal)) > 20, "an error says what failed and what to do"
        return refusal
    assert name in found
    for key, value in found.items():
        if math.isnan(value):
            assert found.undefined[key], key
        else:
            assert math.isfinite(value), key
    assert set(found.undefined) <= set(found)
    return found


def accepted(name: str) -> list[str | None]:
    """Return the kinds of volumes that a score is defined on."""
    return [kind for kind in KINDS if isinstance(attempt(name, volume(kind), volume(kind), kind), Scores)]


def refused(name: str, prediction: Array, labels: Array, kind: str | None, **options: Any) -> str:
    outcome = attempt(name, prediction, labels, kind, **options)
    assert isinstance(outcome, DataError), f"{kind}: {outcome!r}"
    return str(outcome)


@pytest.mark.parametrize("name", NAMES)
def test_identical_volumes_score_best(name: str) -> None:
    kinds = accepted(name)
    assert kinds, "no kind of volume has this score"
    for kind in kinds:
        found = attempt(name, volume(kind), volume(kind), kind)
        assert isinstance(found, Scores)
        if name not in NO_BEST:
            assert found[name] == pytest.approx(0 if lower_is_better(name) else 1, abs=1e-12), (kind, found)


@pytest.mark.parametrize("name", NAMES)
def test_a_worse_prediction_never_scores_better(name: str) -> None:
    if name in NO_BEST:
        pytest.skip(NO_BEST[name])
    for kind in accepted(name):
        labels = volume(kind)
        worse = labels.copy()
        worse[:, :, 6:9] = 0 if kind != "membrane" else 1
        best, found = attempt(name, labels, labels, kind), attempt(name, worse, labels, kind)
        assert isinstance(best, Scores) and isinstance(found, Scores)
        if not math.isnan(found[name]):
            sign = -1 if lower_is_better(name) else 1
            assert sign * found[name] <= sign * best[name] + 1e-12, kind


@pytest.mark.parametrize("name", NAMES)
def test_one_section_and_flat_images(name: str) -> None:
    for kind in accepted(name):
        one = volume(kind)[:1]
        found = attempt(name, one, one, kind)
        assert isinstance(found, Scores), found
        flat = attempt(name, one[0], one[0], kind)
        if isinstance(flat, Scores) and name not in NO_BEST:
            best = 0 if lower_is_better(name) else 1
            assert flat[name] == pytest.approx(best, abs=1e-12) or flat.undefined


@pytest.mark.parametrize("name", NAMES)
def test_nothing_on_one_side_or_on_both(name: str) -> None:
    for kind in accepted(name):
        labels = volume(kind)
        for prediction, truth in (
            (np.zeros_like(labels), labels),
            (labels, np.zeros_like(labels)),
            (np.zeros_like(labels), np.zeros_like(labels)),
            (np.ones_like(labels), labels),
            (labels, np.ones_like(labels)),
        ):
            attempt(name, prediction, truth, kind)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_annotated_is_an_error(name: str) -> None:
    for kind in accepted(name):
        labels = volume(kind)
        refused(name, labels, np.full_like(labels, 7), kind, ignore_index=7)
        refused(name, labels, labels, kind, mask=np.zeros(labels.shape, bool))


@pytest.mark.parametrize("name", NAMES)
def test_mismatched_and_wrong_arrays_are_errors(name: str) -> None:
    for kind in KINDS:
        labels = volume(kind)
        message = refused(name, labels[:, 1:], labels, kind)
        assert str(labels.shape) in message and str(labels[:, 1:].shape) in message
        assert "float" in refused(name, labels, labels.astype(np.float32), kind)
        refused(name, labels[:0], labels[:0], kind)
        refused(name, labels, labels, kind, mask=np.ones(labels.shape[1:], bool))


@pytest.mark.parametrize("name", NAMES)
def test_probabilities_are_scored_or_refused(name: str) -> None:
    for kind in accepted(name):
        labels = volume(kind)
        attempt(name, labels.astype(np.float32) * 0.5, labels, kind)
        if kind in ("membrane", "object"):
            refused(name, labels * np.float32(255), labels, kind)
            refused(name, np.full(labels.shape, np.nan, np.float32), labels, kind)


@pytest.mark.parametrize("name", NAMES)
def test_negative_ids(name: str) -> None:
    for kind in accepted(name):
        labels = volume(kind).astype(np.int32)
        negative = labels.copy()
        negative[0, 0, 0] = -5
        if kind == "instances":
            assert "-5" in refused(name, labels, negative, kind)
            assert "-5" in refused(name, negative, labels, kind)
        else:
            attempt(name, labels, negative, kind)
            attempt(name, negative, labels, kind)
        found = attempt(name, labels, negative, kind, ignore_index=-5)
        assert isinstance(found, Scores)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [bool, np.uint16, np.int64, np.uint64, ">u4"])
def test_integers_of_any_type_score_the_same(name: str, dtype: Any) -> None:
    for kind in accepted(name):
        labels = volume(kind)
        prediction = np.roll(labels, 1, 2)
        if dtype is bool:
            labels, prediction = labels > 0, prediction > 0
        first = attempt(name, prediction.astype(np.uint8), labels.astype(np.uint8), kind)
        other = attempt(name, prediction.astype(dtype), labels.astype(dtype), kind)
        assert isinstance(first, Scores) and isinstance(other, Scores), (kind, other)
        np.testing.assert_equal(dict(other), dict(first))


@pytest.mark.parametrize("name", NAMES)
def test_inputs_are_not_written_to(name: str) -> None:
    for kind in accepted(name):
        prediction, labels = np.roll(volume(kind), 1, 2), volume(kind)
        for array in (prediction, labels):
            array.flags.writeable = False
        attempt(name, prediction, labels, kind)
        np.testing.assert_array_equal(labels, volume(kind))
