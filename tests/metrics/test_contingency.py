"""The contingency table against direct counts: types, ids at the limits, blocks, masks and borders."""

from __future__ import annotations

from collections import Counter
from typing import Any

import dask.array as da
import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt

from napari_em_da.errors import ConfigError, DataError
from napari_em_da.metrics import _contingency
from napari_em_da.metrics._contingency import Contingency, contingency, near_border


def ids(shape: tuple[int, ...], count: int, seed: int) -> np.ndarray:
    """Ids 0 to count − 1 in runs of random length."""
    rng = np.random.default_rng(seed)
    size = int(np.prod(shape))
    runs = np.repeat(rng.integers(0, count, size), rng.integers(1, 9, size))
    return runs[:size].reshape(shape)


def counted(prediction: np.ndarray, labels: np.ndarray) -> dict[tuple[int, int], int]:
    return dict(Counter(zip(labels.ravel().tolist(), prediction.ravel().tolist(), strict=True)))


def as_dict(table: Contingency) -> dict[tuple[int, int], int]:
    keys = zip(table.truth.tolist(), table.found.tolist(), strict=True)
    return dict(zip(keys, table.counts.tolist(), strict=True))


@pytest.mark.parametrize("shape", [(1, 1, 1), (7,), (1, 40), (1, 23, 31), (5, 40, 57), (2, 3, 4, 500)])
def test_counts_every_pair_once(shape: tuple[int, ...]) -> None:
    prediction, labels = ids(shape, 9, 0), ids(shape, 7, 1)
    table = contingency(prediction, labels)
    assert as_dict(table) == counted(prediction, labels)
    assert table.truth.dtype == table.found.dtype == np.uint64
    assert table.counts.dtype == np.int64
    pairs = list(as_dict(table))
    assert pairs == sorted(pairs)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        *((t, t) for t in ("uint8", "int8", "int16", "uint16", "uint32", "int64", "uint64", ">u2", ">i8")),
        ("bool", "uint32"),
        ("int8", "uint64"),
        ("int32", "int16"),
    ],
)
def test_every_integer_type(first: str, second: str) -> None:
    prediction, labels = ids((3, 20, 20), 9, 2).astype(first), ids((3, 20, 20), 7, 3).astype(second)
    assert as_dict(contingency(prediction, labels)) == counted(prediction, labels)


def test_more_pairs_than_the_first_table_holds() -> None:
    rng = np.random.default_rng(4)
    prediction, labels = rng.integers(0, 2**40, (2, 300, 200)), rng.integers(0, 400, (2, 300, 200))
    table = contingency(prediction, labels)
    assert len(table.counts) > 100_000
    assert as_dict(table) == counted(prediction, labels)


def test_blocks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    shape = (7, 33, 41)
    prediction, labels, mask = ids(shape, 30, 5), ids(shape, 20, 6), ids(shape, 2, 7).astype(bool)
    options: list[dict[str, Any]] = [{}, {"border": (12.0, (40.0, 4.0, 4.0))}]
    whole = [as_dict(contingency(prediction, labels, mask=mask, **option)) for option in options]
    monkeypatch.setattr(_contingency, "BLOCK_VOXELS", 3000)
    chunked = [da.from_array(a, chunks=c) for a, c in ((prediction, (3, 10, 41)), (labels, (2, 9, 13)))]
    lazy_mask = da.from_array(mask, chunks=(7, 5, 5))
    for option, expected in zip(options, whole, strict=True):
        assert as_dict(contingency(*chunked, mask=lazy_mask, **option)) == expected
        assert as_dict(contingency(prediction, chunked[1], mask=mask, **option)) == expected


def test_masked_and_ignored_voxels_do_not_count() -> None:
    prediction, labels, mask = ids((4, 30, 30), 9, 8), ids((4, 30, 30), 7, 9), ids((4, 30, 30), 2, 10).astype(bool)
    keep = mask & (labels != 3)
    assert as_dict(contingency(prediction, labels, ignored=3, mask=mask)) == counted(prediction[keep], labels[keep])


def test_a_mask_of_one_voxel_is_a_mask() -> None:
    one = np.ones((1, 1, 1), np.uint8)
    assert as_dict(contingency(one, one, mask=one)) == {(1, 1): 1}
    with pytest.raises(DataError, match="No voxel is annotated"):
        contingency(one, one, mask=one == 0)


@pytest.mark.parametrize("ignored", [300, -1])
def test_an_ignored_value_that_the_type_cannot_hold(ignored: int) -> None:
    labels = np.array([[44, 255, 1]], np.uint8)  # 300 − 256 = 44, and −1 wraps to 255
    assert as_dict(contingency(labels, labels, ignored=ignored)) == {(1, 1): 1, (44, 44): 1, (255, 255): 1}


def test_all_ignored_is_an_error() -> None:
    with pytest.raises(DataError, match="No voxel is annotated.*value 5"):
        contingency(np.ones((2, 3), np.uint8), np.full((2, 3), 5, np.uint8), ignored=5)


def test_ids_up_to_two_to_the_63_and_no_label() -> None:
    labels = np.array([[2**63, 2**63 - 1, 2**64 - 1, 0, 2**53 + 1]], np.uint64)
    prediction = np.array([[2**64 - 1, 2**63, 7, 7, 2**53]], np.uint64)
    expected = {(0, 7): 2, (2**53 + 1, 2**53): 1, (2**63 - 1, 2**63): 1, (2**63, 0): 1}
    assert as_dict(contingency(prediction, labels)) == expected
    assert (0, 7) not in as_dict(contingency(prediction[:, :3], labels[:, :3], ignored=2**64 - 1))


@pytest.mark.parametrize("value", [2**63 + 1, 2**64 - 2])
def test_ids_above_two_to_the_63_are_refused(value: int) -> None:
    good, bad = np.array([[2**64 - 1, 1]], np.uint64), np.array([[0, value]], np.uint64)
    with pytest.raises(DataError, match=f"annotation holds the id {value}, above 2\\^63; renumber"):
        contingency(good, bad)
    with pytest.raises(DataError, match=f"prediction holds the id {value}"):
        contingency(bad, good)


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "int64"])
@pytest.mark.parametrize("other", ["uint8", "uint64"])
def test_negative_ids_are_refused_unless_ignored(dtype: str, other: str) -> None:
    good, bad = np.array([[4, 1, 1]], other), np.array([[0, -1, 2]], dtype)
    with pytest.raises(DataError, match="annotation holds the id -1.*not negative"):
        contingency(good, bad)
    with pytest.raises(DataError, match="prediction holds the id -1"):
        contingency(bad, good)
    assert as_dict(contingency(good, bad, ignored=-1)) == {(0, 4): 1, (2, 1): 1}


def test_numbers_that_are_not_ids_are_refused() -> None:
    good = np.ones((2, 2), np.uint8)
    with pytest.raises(DataError, match="prediction has type float32.*kind='membrane'"):
        contingency(good.astype(np.float32), good)


def direct_border(labels: np.ndarray, distance: float, spacing: tuple[float, ...]) -> np.ndarray:
    """Section by section: pad with the edge, compare 4 neighbours, exact distances in nm."""
    near = np.zeros(labels.shape, bool)
    for section, out in zip(labels, near, strict=True):
        p = np.pad(section, 1, mode="edge")
        alike = (section == p[:-2, 1:-1]) & (section == p[2:, 1:-1])
        alike &= (section == p[1:-1, :-2]) & (section == p[1:-1, 2:])
        if not alike.all():
            out[:] = distance_transform_edt(alike, sampling=spacing[-2:]) <= distance
    return near


@pytest.mark.parametrize("spacing", [(40.0, 4.0, 4.0), (40.0, 7.0, 4.1), (30.0, 3.3, 9.7)])
@pytest.mark.parametrize("distance", [0.0, 4.0, 12.4, 25.0, 1000.0])
def test_border_mask_is_the_direct_one(spacing: tuple[float, ...], distance: float) -> None:
    labels = np.kron(np.random.default_rng(11).integers(0, 4, (3, 4, 5)), np.ones((1, 13, 11), np.int64))
    labels[2] = 1  # no border at all
    near = near_border(labels, distance, spacing)
    np.testing.assert_array_equal(near, direct_border(labels, distance, spacing))
    assert not near[2].any()


def test_border_voxels_become_background() -> None:
    labels = np.zeros((2, 1, 21), np.uint16)
    labels[0, 0, :10], labels[0, 0, 10:] = 5, 6
    table = contingency(np.ones_like(labels), labels, border=(4.0, (40.0, 4.0, 2.0)))
    assert as_dict(table) == {(0, 1): 21 + 6, (5, 1): 7, (6, 1): 8}  # 2 border voxels, and 2 more on either side
    section = contingency(np.ones_like(labels[0]), labels[0], border=(4.0, (4.0, 2.0)))
    assert as_dict(section) == {(0, 1): 6, (5, 1): 7, (6, 1): 8}
    ignored = contingency(np.ones_like(labels[0]), labels[0], border=(4.0, (4.0, 2.0)), ignored=6)
    assert as_dict(ignored) == {(0, 1): 3, (5, 1): 7}
    with pytest.raises(ConfigError, match="needs sections"):
        contingency(labels[0, 0], labels[0, 0], border=(4.0, (2.0,)))
