"""What every score of every family must do with good and with bad volumes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytest

from napari_em_da.errors import ConfigError, DataError
from napari_em_da.metrics import Scores, evaluate_arrays, families, lower_is_better

Array = npt.NDArray[Any]
Kind = Literal["instances", "membrane", "object"] | None
Outcome = Scores | ConfigError | DataError
KINDS: tuple[Kind, ...] = (None, "instances", "membrane", "object")
FAMILIES = sorted(families())
SPACING = (30.0, 4.0, 5.0)
NO_BEST = {
    "objects_labels": "a count of the annotation alone",
    "objects_prediction": "best where it equals the annotated number, whatever that is",
}


def volume(kind: Kind) -> Array:
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


def attempt(names: str | Sequence[str], prediction: Array, labels: Array, kind: Kind, **options: Any) -> Outcome:
    """Return the scores, or the refusal; any other exception fails the test, and so does a NaN without a reason."""
    names = [names] if isinstance(names, str) else names
    try:
        found = evaluate_arrays(prediction, labels, names, kind=kind, spacing=SPACING, **options)
    except (ConfigError, DataError) as refusal:
        assert len(str(refusal)) > 20, "an error says what failed and what to do"
        return refusal
    assert set(names) <= set(found)
    for key, value in found.items():
        if math.isnan(value):
            assert found.undefined[key], key
        else:
            assert math.isfinite(value), key
    assert set(found.undefined) <= set(found)
    return found


def scored(names: str | Sequence[str], prediction: Array, labels: Array, kind: Kind, **options: Any) -> Scores:
    outcome = attempt(names, prediction, labels, kind, **options)
    assert isinstance(outcome, Scores), f"{kind}: {outcome!r}"
    return outcome


@cache
def accepted(family: str) -> dict[Kind, list[str]]:
    """Return the scores of a family that identical volumes of each kind have; the kinds without any are left out."""
    found: dict[Kind, list[str]] = {}
    for kind in KINDS:
        for name in families()[family].scores:
            outcome = attempt(name, volume(kind), volume(kind), kind)
            if isinstance(outcome, Scores) and name not in outcome.undefined:
                found.setdefault(kind, []).append(name)
    return found


EACH = pytest.mark.parametrize(
    ("family", "kind", "names"),
    [(family, kind, names) for family in FAMILIES for kind, names in accepted(family).items()],
    ids=lambda value: str(value) if not isinstance(value, list) else "",
)


def refused(names: str | Sequence[str], prediction: Array, labels: Array, kind: Kind, **options: Any) -> str:
    outcome = attempt(names, prediction, labels, kind, **options)
    assert isinstance(outcome, DataError), f"{kind}: {outcome!r}"
    return str(outcome)


def best(name: str) -> int:
    return 0 if lower_is_better(name) else 1


@pytest.mark.parametrize("family", FAMILIES)
def test_every_score_has_volumes_that_it_is_defined_on(family: str) -> None:
    assert {name for names in accepted(family).values() for name in names} == set(families()[family].scores)


@EACH
def test_identical_volumes_score_best(family: str, kind: Kind, names: list[str]) -> None:
    found = scored(names, volume(kind), volume(kind), kind)
    for name in set(names) - set(NO_BEST):
        assert found[name] == pytest.approx(best(name), abs=1e-12), name


@EACH
def test_a_worse_prediction_never_scores_better(family: str, kind: Kind, names: list[str]) -> None:
    worse = volume(kind)
    worse[:, :, 6:9] = kind == "membrane"
    found = scored(names, worse, volume(kind), kind)
    for name in set(names) - set(NO_BEST) - set(found.undefined):
        assert found[name] >= -1e-12 if lower_is_better(name) else found[name] <= 1 + 1e-12, name


@EACH
def test_one_section_and_flat_images(family: str, kind: Kind, names: list[str]) -> None:
    one = volume(kind)[:1]
    for labels in (one, one[0]):
        found = scored(names, labels, labels, kind)
        for name in set(names) - set(NO_BEST) - set(found.undefined):
            assert found[name] == pytest.approx(best(name), abs=1e-12), name


@EACH
def test_nothing_on_one_side_or_on_both(family: str, kind: Kind, names: list[str]) -> None:
    labels = volume(kind)
    for prediction, truth in (
        (np.zeros_like(labels), labels),
        (labels, np.zeros_like(labels)),
        (np.zeros_like(labels), np.zeros_like(labels)),
        (np.ones_like(labels), labels),
        (labels, np.ones_like(labels)),
    ):
        for name in names:
            attempt(name, prediction, truth, kind)


@EACH
def test_nothing_annotated_is_an_error(family: str, kind: Kind, names: list[str]) -> None:
    labels = volume(kind)
    for name in names:
        refused(name, labels, np.full_like(labels, 7), kind, ignore_index=7)
        refused(name, labels, labels, kind, mask=np.zeros(labels.shape, bool))


@EACH
def test_mismatched_and_wrong_arrays_are_errors(family: str, kind: Kind, names: list[str]) -> None:
    labels = volume(kind)
    message = refused(names, labels[:, 1:], labels, kind)
    assert str(labels.shape) in message and str(labels[:, 1:].shape) in message
    assert "float" in refused(names, labels, labels.astype(np.float32), kind)
    refused(names, labels[:0], labels[:0], kind)
    refused(names, labels, labels, kind, mask=np.ones(labels.shape[1:], bool))


@EACH
def test_probabilities_are_scored_or_refused(family: str, kind: Kind, names: list[str]) -> None:
    labels = volume(kind)
    for name in names:
        outcome = attempt(name, labels.astype(np.float32) * 0.5, labels, kind)
        if kind in (None, "instances"):
            assert isinstance(outcome, DataError), f"{name} takes floats as integers"
        elif family in ("partition", "warping", "pixel_error"):
            refused(name, labels * np.float32(255), labels, kind)
            refused(name, np.full(labels.shape, np.nan, np.float32), labels, kind)


@EACH
def test_negative_ids(family: str, kind: Kind, names: list[str]) -> None:
    labels = volume(kind).astype(np.int32)
    negative = labels.copy()
    negative[0, 0, 0] = -5
    for name in names:
        if kind == "instances" and families()[family].ids:
            assert "-5" in refused(name, labels, negative, kind)
            assert "-5" in refused(name, negative, labels, kind)
        else:
            attempt(name, labels, negative, kind)
            attempt(name, negative, labels, kind)
    ignoring = scored(names, labels, negative, kind, ignore_index=-5)
    for name in set(names) - set(NO_BEST):
        assert ignoring[name] == pytest.approx(best(name), abs=1e-12), name


@EACH
@pytest.mark.parametrize("dtype", [np.uint16, np.int64, np.uint64, ">u4"])
def test_integers_of_any_type_score_the_same(family: str, kind: Kind, names: list[str], dtype: Any) -> None:
    labels = volume(kind).astype(np.uint8)
    prediction = np.roll(labels, 1, 2)
    first = scored(names, prediction, labels, kind)
    other = scored(names, prediction.astype(dtype), labels.astype(dtype), kind)
    np.testing.assert_equal(dict(other), dict(first))


@EACH
def test_masks_of_bool_score_as_ones(family: str, kind: Kind, names: list[str]) -> None:
    labels = volume(kind) > 0
    prediction = np.roll(labels, 1, 2)
    first = scored(names, prediction.astype(np.uint8), labels.astype(np.uint8), kind)
    np.testing.assert_equal(dict(scored(names, prediction, labels, kind)), dict(first))


@EACH
def test_blocks_do_not_change_a_score(family: str, kind: Kind, names: list[str]) -> None:
    import dask.array as da

    labels = volume(kind)
    prediction = np.roll(labels, (1, 1), (1, 2))
    labels[1, 2] = 255 if kind != "instances" else 0
    whole = scored(names, prediction, labels, kind)
    lazy = scored(names, da.from_array(prediction, (3, 5, 4)), da.from_array(labels, (2, 12, 7)), kind)
    assert set(lazy) == set(whole)
    for name, value in whole.items():
        assert lazy[name] == pytest.approx(value, rel=1e-12, nan_ok=True), name


@EACH
def test_inputs_are_not_written_to(family: str, kind: Kind, names: list[str]) -> None:
    prediction, labels = np.roll(volume(kind), 1, 2), volume(kind)
    prediction.flags.writeable = labels.flags.writeable = False
    scored(names, prediction, labels, kind)
    np.testing.assert_array_equal(labels, volume(kind))
