"""Small pieces go, by size in nm, and what is around them may take their place."""

from __future__ import annotations

from collections import Counter
from itertools import product
from typing import Any

import dask.array as da
import numpy as np
import pytest
from scipy import ndimage
from skimage.morphology import remove_small_objects

from napari_em_da.config import ChainConfig
from napari_em_da.errors import ConfigError
from napari_em_da.postprocess import Stack, apply_chain
from napari_em_da.postprocess.remove_small import remove_small

CHUNKS = [None, (1, 7, 4), (3, 3, 5)]


def noise(values: int = 4, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(0, values, (5, 7, 8)).astype(np.uint8)


def lazily(labels: Any, chunks: Any) -> Any:
    return labels if chunks is None else da.from_array(labels, chunks=chunks)


def run(labels: Any, holds: str = "labels", labelled: tuple[int, ...] = (), **options: Any) -> Any:
    stack = Stack(labels, holds, (30.0, 5.0, 5.0), ("background", "a", "b", "c"), labelled)  # type: ignore[arg-type]
    result = apply_chain(ChainConfig.model_validate({"steps": [{"remove_small": options}]}), stack)
    assert result.holds == holds
    assert result.data.dtype == labels.dtype
    return result.data


def by_hand(labels: Any, least: int, sections: bool, values: tuple[int, ...], majority: bool, unannotated: int) -> Any:
    """Piece by piece, voxel by voxel."""
    structure = ndimage.generate_binary_structure(3, 1)
    if sections:
        structure[[0, 2]] = False
    small, pieces = np.zeros(labels.shape, bool), []
    for value in values:
        ids, count = ndimage.label(labels == value, structure)
        for piece in range(1, count + 1):
            if (ids == piece).sum() < least:
                small |= ids == piece
                pieces.append(ids == piece)
    result = labels.copy()
    for piece in pieces:
        votes: Counter[int] = Counter()
        for z, y, x in np.argwhere(piece):
            for axis, step in product((1, 2) if sections else (0, 1, 2), (-1, 1)):
                at = [z, y, x]
                at[axis] += step
                if all(0 <= i < n for i, n in zip(at, labels.shape, strict=True)):
                    there = tuple(at)
                    if not piece[there] and not small[there] and labels[there] != unannotated:
                        votes[int(labels[there])] += 1
        best = min(votes, key=lambda label: (-votes[label], label)) if votes else 0
        result[piece] = best if majority else 0
    return result


@pytest.mark.parametrize("chunks", CHUNKS)
@pytest.mark.parametrize(("sections", "fill"), list(product((False, True), ("background", "neighbour_majority"))))
def test_equals_the_definition(chunks: Any, sections: bool, fill: Any) -> None:
    for seed in range(3):
        labels = noise(seed=seed)
        labels[2, 3:5, 3:6] = 255
        got = remove_small(lazily(labels, chunks), 5, sections=sections, values=(1, 3), fill=fill, unannotated=255)
        assert isinstance(got, np.ndarray) == (chunks is None)
        expected = by_hand(labels, 5, sections, (1, 3), fill == "neighbour_majority", 255)
        np.testing.assert_array_equal(np.asarray(got), expected)


@pytest.mark.parametrize("connectivity", [1, 2, 3])
@pytest.mark.parametrize("chunks", CHUNKS)
def test_a_mask_equals_scikit_image(connectivity: int, chunks: Any) -> None:
    mask = noise(5) == 1
    got = np.asarray(remove_small(lazily(mask, chunks), 4, connectivity=connectivity))
    assert got.dtype == bool
    np.testing.assert_array_equal(got, remove_small_objects(mask, max_size=3, connectivity=connectivity))


def test_a_piece_of_exactly_the_size_stays() -> None:
    labels = np.zeros((1, 4, 9), np.uint8)
    labels[0, 0, :3], labels[0, 2, :2] = 1, 1
    assert remove_small(labels, 3).sum() == 3
    # 300 pixels of 5 nm are 7500 nm², and 0.1 * 0.1 * 3 is not 0.03 in floating point
    assert remove_small(labels, 75, spacing=(30, 5, 5), sections=True).sum() == 3
    assert remove_small(labels, 0.03, spacing=(1, 0.1, 0.1), sections=True).sum() == 3
    assert remove_small(labels, 75.1, spacing=(30, 5, 5), sections=True).sum() == 0


def test_of_equal_neighbours_the_smallest_label_wins() -> None:
    labels = np.array([[[3, 3, 3, 3], [2, 1, 2, 2], [2, 2, 2, 2], [2, 2, 3, 2]]], np.uint8)
    # the 1 has faces to 3 (above) and 2 (left, right, below); make it two against two
    labels[0, 2, 1] = 3
    result = remove_small(labels, 2, values=(1,), fill="neighbour_majority")
    assert result[0, 1, 1] == 2


def test_sizes_count_over_the_whole_volume_and_not_per_block() -> None:
    labels = np.zeros((8, 4, 4), np.uint32)
    labels[:, 1, 1] = 7
    labels[0, 3, 3] = 9
    lazy = remove_small(da.from_array(labels, chunks=(1, 2, 2)), 8)
    assert (lazy.compute() == np.where(labels == 7, 7, 0)).all()


def test_instances_lose_their_stray_pieces() -> None:
    ids = np.zeros((2, 5, 5), np.uint64)
    ids[:, :3, :3], ids[:, 4, 4], ids[:, 3:, :2] = 2**63, 2**63, 5
    result = run(ids, "instances", min_size_nm3=3 * 750.0)
    assert (result[:, 4, 4] == 0).all()
    assert (result[:, :3, :3] == 2**63).all()
    assert (result[:, 3:, :2] == 5).all()


@pytest.mark.parametrize("chunks", CHUNKS)
def test_the_step_works_in_nm_on_named_classes_and_keeps_ground_truth(chunks: Any) -> None:
    labels = noise(seed=5)
    got = np.asarray(run(lazily(labels, chunks), labelled=(1, 4), min_size_nm2=100.0, sections=True, classes=["b"]))
    expected = by_hand(labels, 4, True, (2,), False, 255)
    expected[[1, 4]] = labels[[1, 4]]
    np.testing.assert_array_equal(got, expected)


def test_relabelling_instances_relabels_the_result() -> None:
    ids = noise(6, seed=2).astype(np.uint32)
    shift = np.array([0, 11, 7, 90, 3, 1000], np.uint32)
    np.testing.assert_array_equal(remove_small(shift[ids], 4), shift[remove_small(ids, 4)])


def test_nothing_to_remove() -> None:
    empty = np.zeros((1, 3, 3), np.uint8)
    assert not remove_small(empty, 10, fill="neighbour_majority").any()
    full = np.ones((2, 3, 3), np.uint8)
    assert not remove_small(full, 19, fill="neighbour_majority").any()  # no neighbour at all: background
    assert remove_small(full, 18).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "min_size_nm3"),
        ({"min_size_nm2": 10.0}, "sections"),
        ({"sections": True, "min_size_nm3": 10.0}, "min_size_nm2"),
        ({"min_size_nm3": 10.0, "classes": ["d"]}, "Unknown class 'd'"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        run(noise(), **options)


def test_instances_have_no_classes() -> None:
    with pytest.raises(ConfigError, match="Instances have no classes"):
        run(noise().astype(np.uint32), "instances", min_size_nm3=10.0, classes=["a"])


def test_the_input_is_not_modified() -> None:
    labels = noise()
    before = labels.copy()
    run(labels, labelled=(1,), min_size_nm3=5000.0, fill="neighbour_majority")
    assert (labels == before).all()
