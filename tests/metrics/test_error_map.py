"""Where Rand was lost: the map against a plain count per voxel, the losses against the terms of the score."""

from __future__ import annotations

import dask.array as da
import numpy as np
import numpy.typing as npt
import pytest

from napari_em_da.errors import ConfigError, DataError
from napari_em_da.metrics import evaluate_arrays
from napari_em_da.metrics._agreement import rand_terms
from napari_em_da.metrics._contingency import Contingency, contingency
from napari_em_da.metrics._error_map import rand_loss, split_merge_map

Labels = npt.NDArray[np.uint32]


def row(text: str) -> Labels:
    """Return a volume of one row: "1110 2220"."""
    return np.array([int(c) for c in text.replace(" ", "")], np.uint32).reshape(1, 1, -1)


def blobs(seed: int, shape: tuple[int, int, int] = (4, 13, 17), ids: int = 5) -> tuple[Labels, Labels]:
    """Return two volumes of random small boxes over each other."""
    rng = np.random.default_rng(seed)
    volumes = np.zeros((2, *shape), np.uint32)
    for volume in volumes:
        for label in rng.integers(0, ids, 12):
            corner = [rng.integers(0, n) for n in shape]
            volume[tuple(slice(c, c + int(rng.integers(1, 8))) for c in corner)] = label
    return volumes[0], volumes[1]


def slow_map(prediction: Labels, labels: Labels, counted: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint8]:
    out = np.zeros(labels.shape, np.uint8)

    def partner(ids: Labels, one: int, others: Labels) -> int:
        values, counts = np.unique(others[counted & (labels > 0) & (ids == one) & (others > 0)], return_counts=True)
        return int(values[counts.argmax()])

    for place in np.argwhere(counted & (labels > 0)):
        where = tuple(place)
        t, f = labels[where], prediction[where]
        if f == 0:
            out[where] = 4
        else:
            split = partner(labels, t, prediction) != f
            merge = partner(prediction, f, labels) != t
            out[where] = split + 2 * merge
    return out


@pytest.mark.parametrize(
    ("labels", "prediction", "expected"),
    [
        ("1111 2222", "5555 9999", "0000 0000"),
        ("1111 2222", "1111 1111", "0000 2222"),  # of equal objects the one with the smaller id is right
        ("1111 2222", "1122 3333", "0011 0000"),
        ("1111 2222", "1111 1122", "0000 2211"),  # of equal segments the one with the smaller id covers object 2
        ("1111 2222", "1110 2220", "0004 0004"),
        ("1111 1222 2222", "3333 4444 4444", "0000 3000 0000"),
        ("1110 0222", "1111 1222", "0000 0000"),  # outside annotated objects nothing counts
    ],
)
def test_what_the_map_says(labels: str, prediction: str, expected: str) -> None:
    np.testing.assert_array_equal(split_merge_map(row(prediction), row(labels)), row(expected))


@pytest.mark.parametrize("seed", range(6))
def test_the_map_equals_a_count_per_voxel(seed: int) -> None:
    prediction, labels = blobs(seed)
    labels[0, :3] = 77
    mask = np.random.default_rng(seed).random(labels.shape) > 0.2
    expected = slow_map(prediction, labels, mask & (labels != 77))
    np.testing.assert_array_equal(split_merge_map(prediction, labels, ignored=77, mask=mask), expected)


@pytest.mark.parametrize("chunks", [(1, 5, 4), (3, 13, 6), (4, 1, 17)])
def test_lazy_maps_are_the_same_in_any_blocks(chunks: tuple[int, int, int]) -> None:
    prediction, labels = blobs(3)
    whole = split_merge_map(prediction, labels, mask=labels != 2)
    lazy = split_merge_map(da.from_array(prediction, chunks), da.from_array(labels, (2, 7, 9)), mask=labels != 2)
    assert isinstance(lazy, da.Array)
    assert lazy.chunks[0] == (2, 2)
    np.testing.assert_array_equal(lazy, whole)
    half_lazy = split_merge_map(da.from_array(prediction, chunks), labels, mask=labels != 2)
    np.testing.assert_array_equal(half_lazy, whole)


def test_the_map_does_not_depend_on_the_numbers_of_ids() -> None:
    labels = row("1111 1222 2333 3333")
    prediction = row("1111 1122 2333 4444")
    renamed = split_merge_map(100 - prediction, (labels.astype(np.int64) * 7) % 5 + 1)
    np.testing.assert_array_equal(split_merge_map(prediction, labels), renamed)


def test_no_label_of_cremi_is_background_and_a_negative_value_can_be_ignored() -> None:
    missing = np.uint64(2**64 - 1)
    labels = np.array([[missing, 1, 1, 1]], np.uint64)
    np.testing.assert_array_equal(split_merge_map(np.array([[1, 1, missing, 1]], np.uint64), labels), [[0, 0, 4, 0]])
    signed = np.array([[-3, 1, 1, 1]], np.int32)
    found = split_merge_map(np.array([[9, 1, 1, 2]], np.int32), signed, ignored=-3)
    np.testing.assert_array_equal(found, [[0, 0, 0, 1]])


@pytest.mark.parametrize("lazy", [False, True])
def test_boundary_maps_are_parted_into_components_of_sections(lazy: bool) -> None:
    membrane = np.zeros((2, 7, 7), np.uint8)
    membrane[:, :, 3] = 1
    gap = membrane.copy()
    gap[1, 3, 3] = 0
    thick = membrane.copy()
    thick[0, :, 2:5] = 1
    for prediction, first, second in ((gap, {0}, {0, 2}), (thick, {0}, {0})):
        arrays = (da.from_array(a, (1, 4, 5)) if lazy else a for a in (prediction, membrane))
        found = np.asarray(split_merge_map(*arrays, kind="membrane"))
        assert set(found[0].ravel()) == first
        assert set(found[1].ravel()) == second
    unthinned = split_merge_map(thick, membrane, kind="membrane", thin=False)
    assert (unthinned[0] == 4).sum() == 14
    probability = 1 - 0.7 * membrane.astype(np.float32)
    inside = split_merge_map(probability, 1 - membrane, kind="object", threshold=0.2)
    assert (inside == 2).sum() == 2 * 21
    assert not split_merge_map(probability, 1 - membrane, kind="object", threshold=0.4).any()


def test_sections_that_do_not_count_stay_empty() -> None:
    membrane = np.zeros((3, 7, 7), np.uint8)
    membrane[:, :, 3] = 1
    labels = membrane.copy()
    labels[1] = 255
    for wrap in (np.asarray, da.from_array):
        found = np.asarray(split_merge_map(wrap(np.zeros_like(membrane)), wrap(labels), kind="membrane", ignored=255))
        assert not found[1].any()
        assert (found[0] == 2).sum() == 21
    flat = split_merge_map(np.zeros((7, 7), np.uint8), membrane[0], kind="membrane")
    assert flat.shape == (7, 7)


@pytest.mark.parametrize("seed", range(4))
def test_losses_add_up_to_the_terms_of_the_score(seed: int) -> None:
    prediction, labels = blobs(seed)
    table = contingency(prediction, labels)
    ab, a, b = rand_terms(table)
    loss = rand_loss(table)
    assert int(loss["pairs_split"].sum()) == a - ab
    assert int(loss["pairs_merged"].sum()) == b - ab
    assert loss["share_of_error"].sum() == pytest.approx(1)
    assert (np.diff(loss["share_of_error"]) <= 0).all()
    arand = evaluate_arrays(prediction, labels, ["arand"])["arand"]
    lost = loss["pairs_split"].sum() + loss["pairs_merged"].sum()
    assert arand == pytest.approx(lost / (a + b))
    on_map = np.unique(labels[np.isin(split_merge_map(prediction, labels), (1, 3, 4))])
    split = loss["label_id"][loss["pairs_split"] > 0]
    assert set(split) <= set(on_map)  # an object that loses pairs has voxels outside its main segment


def test_losses_of_the_oracle() -> None:
    loss = rand_loss(contingency(row("1111 1122"), row("1111 2222")))  # AB, A, B = 24, 32, 40
    assert {k: v.tolist() for k, v in loss.items()} == {
        "label_id": [0, 2],
        "prediction_id": [1, 0],
        "pairs_split": [0, 8],
        "pairs_merged": [16, 0],
        "share_of_error": [pytest.approx(2 / 3), pytest.approx(1 / 3)],
    }
    nothing = rand_loss(contingency(row("1122"), row("1122")))
    assert all(len(column) == 0 for column in nothing.values())


def test_losses_of_huge_objects_are_exact() -> None:
    size = 5_000_000_001
    ids = np.array([1, 1], np.uint64)
    loss = rand_loss(Contingency(ids, np.array([1, 2], np.uint64), np.array([size, size])))
    assert loss["pairs_split"].tolist() == [2 * size**2]


def test_empty_predictions_and_bad_input() -> None:
    labels = row("1122")
    assert (split_merge_map(np.zeros_like(labels), labels) == 4).all()
    assert not split_merge_map(labels, np.zeros_like(labels)).any()
    with pytest.raises(ConfigError, match="kind='cells'"):
        split_merge_map(labels, labels, kind="cells")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="shape"):
        split_merge_map(labels[..., 1:], labels)
    with pytest.raises(DataError, match="float"):
        split_merge_map(labels / 2, labels)
    with pytest.raises(DataError, match="-4"):
        split_merge_map(labels.astype(np.int64) - 5, labels)
