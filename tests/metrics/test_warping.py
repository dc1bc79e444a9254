"""Warping error against the specification's cases, the sequential definition and the components it is defined by."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
from scipy import ndimage

from napari_em_da.config import ScoringConfig
from napari_em_da.errors import ConfigError
from napari_em_da.metrics._base import Pair
from napari_em_da.metrics._warping import KINDS, classify, simple_points, warp
from napari_em_da.metrics.warping import FAMILY, compute, mismatch_map

ALL = tuple(FAMILY.scores)
EIGHT = np.ones((3, 3), bool)
SIZE = 49


def membrane_at(*columns: int) -> np.ndarray:
    image = np.ones((7, 7), bool)
    image[:, list(columns)] = False
    return image


def scores(prediction: np.ndarray, labels: np.ndarray, **options: object) -> dict[str, float]:
    options.setdefault("kind", "object")
    return compute(Pair(prediction, labels, **options), ALL)  # type: ignore[arg-type]


def ring(code: int) -> np.ndarray:
    """The 3x3 neighbourhood with this index, centre 0."""
    image = np.zeros((3, 3), bool)
    for k, place in enumerate([(0, 1), (0, 2), (1, 2), (2, 2), (2, 1), (2, 0), (1, 0), (0, 0)]):
        image[place] = code >> k & 1
    return image


def simple_by_definition(neighbours: np.ndarray) -> bool:
    """T4 = T8 = 1: components of the 8 neighbours that touch the centre."""
    background = ~neighbours
    background[1, 1] = False
    objects = neighbours.copy()
    objects[1, 1] = False
    labels4, labels8 = ndimage.label(objects)[0], ndimage.label(background, EIGHT)[0]
    touching4 = {labels4[p] for p in [(0, 1), (1, 0), (1, 2), (2, 1)]} - {0}
    touching8 = set(labels8.ravel()) - {0}
    return len(touching4) == 1 and len(touching8) == 1


def test_simple_points_are_those_with_one_component_of_either_kind() -> None:
    table = simple_points()
    assert [bool(v) for v in table] == [simple_by_definition(ring(code)) for code in range(256)]
    assert table.sum() == 116


def test_simple_points_of_the_dual_connectivity_are_as_many() -> None:
    assert sum(simple_by_definition(~ring(code)) for code in range(256)) == 116


CASES = {
    "shifted": (membrane_at(3), membrane_at(4), 0, 0, 0, 0),
    "thick": (membrane_at(3), membrane_at(2, 3, 4), 0, 0, 0, 0),
    "gap": (membrane_at(3), None, 1, 0, 1, 1),
    "no membrane": (membrane_at(3), membrane_at(), 7, 0, 7, 7),
    "isolated pixel": (membrane_at(3), None, 0, 0, 0, 1),
    "extra membrane": (membrane_at(), membrane_at(3), 1, 1, 0, 1),
    "all object": (membrane_at(), membrane_at(), 0, 0, 0, 0),
    "all membrane": (~membrane_at(), ~membrane_at(), 0, 0, 0, 0),
    "objects out of nothing": (~membrane_at(), membrane_at(3), 0, 0, 0, 42),
}


@pytest.mark.parametrize("name", CASES)
def test_specified_cases(name: str) -> None:
    labels, prediction, error, splits, merges, remaining = CASES[name]
    if prediction is None:
        prediction = labels.copy()
        prediction[(3, 3) if name == "gap" else (3, 1)] ^= True
    found = scores(prediction[None], labels[None])
    assert {k: v * SIZE for k, v in found.items()} == pytest.approx(
        {
            "warping_error": error,
            "warping_splits": splits,
            "warping_merges": merges,
            "warping_all": remaining,
        }
    )


def test_isolated_pixel_is_a_hole() -> None:
    labels = membrane_at(3)
    predicted = labels.copy()
    predicted[3, 1] = False
    counts, kinds = classify(labels, predicted)
    assert counts == dict.fromkeys(KINDS, 0) | {"hole_addition": 1}
    assert kinds[3, 1] == 1 + KINDS.index("hole_addition")
    assert np.count_nonzero(kinds) == 1


def sequential(labels: np.ndarray, prediction: np.ndarray, threshold: float, mask: np.ndarray) -> np.ndarray:
    """Warp by the definition: full sweeps over all mismatches, sorted anew each time."""
    image = np.pad(labels, 1)
    target = np.pad(prediction > threshold, 1)
    inside = np.pad(mask, 1)
    sure = np.pad(np.abs(prediction - np.float32(threshold)), 1)
    previous = -1
    while True:
        wrong = np.argwhere((image != target) & inside)
        if len(wrong) in (0, previous):
            return image[1:-1, 1:-1]
        previous = len(wrong)
        for y, x in sorted(map(tuple, wrong), key=lambda p: -sure[p]):
            if simple_by_definition(image[y - 1 : y + 2, x - 1 : x + 2]):
                image[y, x] ^= True


def random_section(seed: int, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = ndimage.gaussian_filter(rng.normal(size=shape), 1.2) > -0.1
    noise = ndimage.gaussian_filter(rng.normal(size=shape), 0.8)
    prediction = np.clip(0.5 + 0.3 * (labels - 0.5) + noise, 0, 1)
    return labels, (np.round(prediction * 8) / 8).astype(np.float32)  # many equal values


@pytest.mark.parametrize("seed", range(6))
def test_warp_equals_the_sequential_definition(seed: int) -> None:
    shape = [(17, 19), (1, 23), (20, 4), (16, 16), (13, 22), (18, 15)][seed]
    labels, prediction = random_section(seed, shape)
    masks = np.ones(shape, bool), np.random.default_rng(seed).random(shape) < 0.9
    for threshold, mask in zip((0.5, 0.3), masks, strict=True):
        before, copy = labels.copy(), prediction.copy()
        warped = warp(labels, prediction, threshold, mask)
        np.testing.assert_array_equal(warped, sequential(labels, prediction, threshold, mask))
        np.testing.assert_array_equal(labels, before)
        np.testing.assert_array_equal(prediction, copy)


@pytest.mark.parametrize("seed", range(4))
def test_warp_keeps_objects_and_holes_and_reaches_no_further(seed: int) -> None:
    labels, prediction = random_section(seed, (40, 50))
    warped = warp(labels, prediction, 0.5)
    assert ndimage.label(warped)[1] == ndimage.label(labels)[1]
    assert (
        ndimage.label(np.pad(~warped, 1, constant_values=True), EIGHT)[1]
        == (ndimage.label(np.pad(~labels, 1, constant_values=True), EIGHT)[1])
    )
    target = prediction > 0.5
    assert np.all((warped == labels) | (warped == target))
    np.testing.assert_array_equal(warp(warped, prediction, 0.5), warped)


def kind_by_definition(warped: np.ndarray, y: int, x: int) -> str:
    image = np.pad(warped, 1)
    y, x = y + 1, x + 1
    near = slice(y - 1, y + 2), slice(x - 1, x + 2)

    def ids(of: np.ndarray) -> set[int]:
        labels = ndimage.label(of)[0][near].ravel()
        return {int(v) for v in np.delete(labels, 4)}

    found, here = ids(image), image[y, x]
    if found == {0}:
        return "object_deletion" if here else "object_addition"
    if len(found - {0}) > 1:
        return "split" if here else "merge"
    if 0 not in found:
        return "hole_addition" if here else "hole_deletion"
    if not here:
        return "hole_addition"
    image[y, x] = False
    return "split" if len(ids(image)) > 2 else "hole_deletion"


@pytest.mark.parametrize("seed", range(4))
def test_classify_equals_its_definition(seed: int) -> None:
    labels, prediction = random_section(seed + 20, (23, 31))
    for warped in (warp(labels, prediction, 0.5), labels):
        counts, kinds = classify(warped, prediction > 0.5)
        np.testing.assert_array_equal(kinds > 0, warped != (prediction > 0.5))
        for y, x in np.argwhere(kinds):
            assert KINDS[kinds[y, x] - 1] == kind_by_definition(warped, y, x)
        assert counts == {name: np.count_nonzero(kinds == code) for code, name in enumerate(KINDS, 1)}
        wide, _ = classify(warped, prediction > 0.5, window=100)
        assert wide == counts


def test_window_calls_a_detour_a_split() -> None:
    ring_of_objects = np.ones((41, 41), bool)
    ring_of_objects[1:-1, 1:-1] = False
    predicted = ring_of_objects.copy()
    predicted[0, 20] = False
    assert classify(ring_of_objects, predicted)[0]["hole_deletion"] == 1
    assert classify(ring_of_objects, predicted, window=5)[0]["split"] == 1


def test_best_threshold_is_reported() -> None:
    labels = np.repeat(membrane_at(3)[None], 2, 0)
    prediction = np.where(labels, 0.9, 0.1).astype(np.float32)
    prediction[0, 3, 3] = 0.65  # a gap in the membrane up to 0.6
    prediction[1, :, 1] = 0.85  # a false membrane from 0.9
    found = scores(prediction, labels, scoring=ScoringConfig(thresholds=(0.88, 0.2, 0.8, 1.0)))
    assert found["warping_error"] == 0
    assert found["threshold/warping_error"] == 0.8
    worse = scores(prediction, labels, scoring=ScoringConfig(thresholds=(0.6,)))
    assert worse["warping_merges"] == pytest.approx(1 / 98)
    assert "threshold/warping_error" not in worse


def test_membrane_is_the_complement_of_object() -> None:
    labels, prediction = random_section(3, (30, 32))
    labels[:18] = True
    objects = scores(prediction[None], labels[None].astype(np.uint8))
    membrane = scores(1 - prediction[None], (~labels[None]).astype(np.uint8), kind="membrane")
    assert membrane == objects


def test_ignored_and_masked_pixels_do_not_count() -> None:
    labels = membrane_at(3)[None].astype(np.uint8)
    prediction = np.ones((1, 7, 7), bool)
    ignoring = labels.copy()
    ignoring[:, 4:] = 255
    assert scores(prediction, ignoring)["warping_error"] == pytest.approx(4 / 28)
    mask = np.ones(labels.shape, bool)
    mask[:, 4:] = False
    assert scores(prediction, labels, mask=mask)["warping_error"] == pytest.approx(4 / 28)


def test_chunks_change_nothing() -> None:
    pairs = [random_section(seed, (21, 33)) for seed in range(5)]
    labels, prediction = (np.stack(arrays) for arrays in zip(*pairs, strict=True))
    labels = labels.astype(np.uint8)
    whole = scores(prediction, labels)
    lazy = scores(da.from_array(prediction, chunks=(3, 10, 7)), da.from_array(labels, chunks=(2, 8, 33)))
    assert lazy == whole


def test_mismatch_map_shows_every_kind_in_its_place() -> None:
    labels = np.stack([membrane_at(3), membrane_at()]).astype(np.uint8)
    prediction = np.stack([membrane_at(3), membrane_at(3)])
    prediction[0, 3, 3] = True
    kinds = mismatch_map(Pair(prediction, labels, kind="object"))
    assert kinds.shape == labels.shape
    assert np.argwhere(kinds[0]).tolist() == [[3, 3]]
    assert KINDS[kinds[0, 3, 3] - 1] == "merge"
    assert np.count_nonzero(kinds[1]) == 1
    assert KINDS[kinds[1].max() - 1] == "split"
    flat = mismatch_map(Pair(prediction[0], labels[0], kind="object"))
    np.testing.assert_array_equal(flat, kinds[0])


@pytest.mark.parametrize("kind", [None, "instances"])
def test_kind_must_say_which_side_is_one(kind: str | None) -> None:
    with pytest.raises(ConfigError, match=r"kind='membrane'.*kind='object'"):
        scores(membrane_at(3)[None], membrane_at(3)[None], kind=kind)
