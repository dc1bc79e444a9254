"""Betti numbers against known solids, scikit-image's Euler number and scipy's components."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
from scipy import ndimage
from skimage.measure import euler_number

from napari_em_da.metrics import evaluate_arrays
from napari_em_da.metrics._betti import BettiCounter, betti_numbers

ERRORS = ("betti0_error", "betti1_error", "betti2_error", "euler_error")
Z, Y, X = np.ogrid[-12:13, -12:13, -12:13]
BALL = Z**2 + Y**2 + X**2 <= 64
SHELL = BALL & (Z**2 + Y**2 + X**2 > 25)


def torus(z: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    return (np.hypot(y, x) - 6) ** 2 + z**2 <= 4.5


def in_slabs(mask: np.ndarray, step: int) -> tuple[int, int, int]:
    counter = BettiCounter()
    for start in range(0, len(mask), step):
        counter.add(mask[start : start + step])
    return counter.numbers()


def oracle(mask: np.ndarray) -> tuple[int, int, int]:
    b0 = ndimage.label(mask)[1]
    b2 = ndimage.label(np.pad(~mask, 1, constant_values=True), np.ones((3, 3, 3)))[1] - 1
    return b0, b0 + b2 - euler_number(mask, connectivity=1), b2


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        (BALL, (1, 0, 0)),
        (SHELL, (1, 0, 1)),
        (torus(Z, Y, X), (1, 1, 0)),
        (torus(Z, Y, X - 3) | torus(Y, Z, X + 3), (2, 2, 0)),  # two links of a chain
        (~BALL, (1, 0, 1)),
        (np.zeros((3, 4, 5), bool), (0, 0, 0)),
        (np.ones((3, 4, 5), bool), (1, 0, 0)),
    ],
)
def test_known_solids(mask: np.ndarray, expected: tuple[int, int, int]) -> None:
    assert betti_numbers(mask) == expected
    for step in (1, 2, 7):
        assert in_slabs(mask, step) == expected


@pytest.mark.parametrize("seed", range(12))
def test_random_masks_agree_with_skimage_and_scipy_in_slabs_of_any_size(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(1, 14, 3))
    mask = rng.random(shape) < rng.uniform(0.1, 0.95)
    expected = oracle(mask)
    assert betti_numbers(mask) == expected
    for step in (1, 2, 5):
        assert in_slabs(mask, step) == expected
    section = mask[0]
    b0 = ndimage.label(section)[1]
    assert betti_numbers(section) == (b0, b0 - euler_number(section, connectivity=1), 0)


def test_diagonal_neighbours_are_two_objects_around_which_the_background_is_one() -> None:
    mask = np.zeros((2, 2, 2), bool)
    mask[0, 0, 0] = mask[1, 1, 1] = True
    assert betti_numbers(mask) == (2, 0, 0)
    ring = np.ones((3, 3), bool)
    ring[1, 1] = ring[2, 2] = False
    assert betti_numbers(ring) == (1, 0, 0)  # the hole leaks through the corner


def test_errors_per_class_and_their_sum() -> None:
    truth = np.where(SHELL, 1, 0)[:, :, :].astype(np.uint8)
    found = np.where(BALL, 1, 0).astype(np.uint8)
    truth[0, 0, :3] = found[0, 0, :3] = found[0, 0, 5] = 2
    scores = evaluate_arrays(found, truth, ERRORS, classes={"organelle": 1, "vesicle": 2})
    assert [scores[f"{e}/organelle"] for e in ERRORS] == [0, 0, 1, 1]
    assert [scores[f"{e}/vesicle"] for e in ERRORS] == [1, 0, 0, 1]
    assert [scores[e] for e in ERRORS] == [1, 0, 1, 2]


def test_sections_are_compared_one_by_one() -> None:
    truth = np.stack([SHELL[12], BALL[12]]).astype(np.uint8)
    scores = evaluate_arrays(truth[::-1], truth, ERRORS, per_section=True)
    assert scores["betti1_error"] == 2  # a hole too few, then one too many
    assert scores["betti0_error"] == 0
    assert "betti2_error" in scores.undefined
    single = evaluate_arrays(truth[1], truth[0], ERRORS)
    assert single["betti1_error"] == 1
    assert single["betti2_error"] == 0


def test_membranes_are_scored_by_the_cells_between() -> None:
    truth = np.zeros((3, 9, 9), np.uint8)
    truth[:, 4] = 1
    gap = truth.copy()
    gap[1, 4, 4] = 0
    scores = evaluate_arrays(gap, truth, ERRORS, kind="membrane")
    assert scores["betti0_error"] == 1
    assert evaluate_arrays(1 - gap, 1 - truth, ERRORS, kind="object") == scores


@pytest.mark.parametrize("seed", range(4))
def test_blocks_symmetry_and_voxels_that_do_not_count(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(1, 12, 3))
    truth, found = rng.integers(0, 3, (2, *shape)).astype(rng.choice(["uint8", "int16", "uint64"]))
    mask = rng.random(shape) < 0.9
    names = {"a": 1, "b": 2}
    whole = evaluate_arrays(found, truth, ERRORS, mask=mask, classes=names)
    numbers = [betti_numbers((volume == 1) & mask) for volume in (found, truth)]
    assert whole["betti1_error/a"] == abs(numbers[0][1] - numbers[1][1])
    assert evaluate_arrays(truth, found, ERRORS, mask=mask, classes=names) == whole
    monkeypatch.setattr("napari_em_da.metrics._classes.BLOCK_VOXELS", 1)
    lazy = [da.from_array(volume, chunks=(2, 3, 5)) for volume in (found, truth, mask)]
    assert evaluate_arrays(*lazy[:2], ERRORS, mask=lazy[2], classes=names) == whole


def test_instances_and_empty_volumes_have_defined_answers() -> None:
    empty = np.zeros((2, 3, 4), np.uint8)
    assert set(evaluate_arrays(empty, empty, ERRORS).undefined) == set(ERRORS)
    named = evaluate_arrays(empty, empty, ERRORS, classes={"mito": 1})
    assert all(named[e] == named[f"{e}/mito"] == 0 for e in ERRORS)
    assert "objects_missed" in evaluate_arrays(empty, empty, ERRORS, kind="instances").undefined["euler_error"]
