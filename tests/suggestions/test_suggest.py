"""Suggestions on hand-made probabilities whose answer is known."""

from __future__ import annotations

from typing import Any

import dask.array as da
import numpy as np
import pytest

from napari_em_da.errors import ConfigError, DataError
from napari_em_da.selection._base import Reference
from napari_em_da.suggestions import Suggestion, SuggestWeights, suggest
from napari_em_da.suggestions._cells import Layout, measure
from napari_em_da.suggestions._choice import choose, overlap

SHAPE = (5, 256, 256)


def sure(shape: tuple[int, int, int] = SHAPE, classes: int = 2) -> np.ndarray:
    """Background everywhere, with certainty."""
    probs = np.zeros((*shape, classes), np.float32)
    probs[..., 0] = 1
    return probs


def put(probs: np.ndarray, z: int, y: int, x: int, radius: int, *values: float) -> None:
    rows, columns = np.ogrid[: probs.shape[1], : probs.shape[2]]
    probs[z, (rows - y) ** 2 + (columns - x) ** 2 <= radius**2] = values


def boundary(probs: np.ndarray, z: int, x: int, width: int = 4) -> None:
    """A straight boundary along y between background (left) and class 1 (right), a ramp of ``width`` pixels."""
    ramp = np.clip((np.arange(probs.shape[2]) - x) / width + 0.5, 0, 1).astype(np.float32)
    probs[z] = np.stack([1 - ramp, ramp], -1)


def holds(item: Suggestion, z: int, y: int, x: int) -> bool:
    return item.section == z and item.y <= y < item.y + item.height and item.x <= x < item.x + item.width


def test_a_blob_beats_a_long_sharp_boundary() -> None:
    probs = sure()
    for z in range(5):
        boundary(probs, z, 200)  # in all sections: 256 px long, so more uncertain pixels than the blob has
    put(probs, 2, 60, 50, 10, 0.5, 0.5)
    uncertain = 1 - np.abs(probs[..., 0] - probs[..., 1])
    assert uncertain[2, :, 150:].sum() > uncertain[2, :, :100].sum()  # the plain sum would choose the boundary
    found = suggest(probs, window_px=(64, 64), count=3)
    assert holds(found[0], 2, 60, 50)
    assert found[0].reason == "uncertain between class 1 and background"
    assert all(item.x + item.width <= 150 for item in found), "a boundary alone is no reason to look"


def test_the_reason_names_the_two_contested_classes() -> None:
    probs = sure(classes=4)
    put(probs, 1, 128, 128, 14, 0.02, 0.48, 0.02, 0.48)
    found = suggest(probs, window_px=(64, 64), count=1, names=["mito", "membrane", "vesicle"])
    assert found[0].reason == "uncertain between vesicle and mito"


def test_what_is_in_one_section_only_is_found_and_named() -> None:
    probs = sure()
    put(probs, 2, 200, 40, 15, 0.0, 1.0)  # certain, but alone
    for z in range(5):
        put(probs, z, 60, 180, 15, 0.0, 1.0)  # as certain, in all sections
    put(probs, 3, 60, 180, 15, 1.0, 0.0)
    found = suggest(probs, window_px=(64, 64), count=2, names=["mito"])
    by_place = {(item.section, item.y > 128): item.reason for item in found}
    assert by_place == {
        (2, True): "mito appears in one section only",
        (3, False): "mito is missing in one section only",
    }


def test_an_object_unlike_those_of_the_source_is_found() -> None:
    labels = np.zeros((4, 128, 128), np.uint8)
    for y, x in ((20, 20), (60, 90), (100, 40)):
        labels[:, y - 5 : y + 6, x - 5 : x + 6] = 1  # 121 px each
    reference = Reference.from_labels(labels, ["mito"], (64, 64))
    probs = sure((1, 256, 256))
    probs[0, 40:51, 40:51] = (0, 1)
    probs[0, 150:200, 150:200] = (0, 1)  # 2500 px
    probs[0, 20:31, 200:211] = (0, 1)
    assert suggest(probs, window_px=(64, 64)) == []
    (best, *_) = suggest(probs, window_px=(64, 64), count=4, reference=reference, names=["mito"])
    assert best.reason == "an unusually large mito"
    assert best.y < 200 and best.y + 64 > 150 and best.x < 200 and best.x + 64 > 150
    # at a fifth of the resolution it is as large as those of the source
    assert not suggest(probs, window_px=(64, 64), reference=reference, magnification=0.2)[0].reason.endswith(
        "large class 1"
    )


def test_equal_blobs_are_spread_over_sections_and_places() -> None:
    probs = sure((12, 256, 256))
    for z in range(12):
        put(probs, z, 60, 60, 10, 0.5, 0.5)
    found = [item.section for item in suggest(probs, window_px=(64, 64), count=4)]
    assert found[:2] == [0, 11] and np.diff(sorted(found)).min() >= 2
    plain = suggest(probs, window_px=(64, 64), count=4, weights=SuggestWeights(diversity=0))
    assert [item.section for item in plain] == [0, 1, 2, 3]
    put(probs, 5, 200, 200, 10, 0.5, 0.5)
    assert any(holds(item, 5, 200, 200) for item in suggest(probs, window_px=(64, 64), count=3))


def test_seen_windows_never_return() -> None:
    rng = np.random.default_rng(0)
    probs = sure()
    for z in range(5):
        for _ in range(4):
            put(probs, z, *rng.integers(20, 236, 2), 9, 0.5, 0.5)
    seen: list[Suggestion] = []
    for _ in range(6):
        found = suggest(probs, window_px=(64, 64), count=5, seen=seen)
        assert all(overlap(item.box, other.box) <= 0.25 for item in found for other in seen)
        seen += found
    boxes = [item.box for item in seen]
    assert len(set(boxes)) == len(boxes) > 15
    assert suggest(probs, window_px=(64, 64), count=5, seen=boxes) == suggest(
        probs, window_px=(64, 64), count=5, seen=seen
    )


def test_the_neighbour_of_a_seen_window_comes_later() -> None:
    probs = sure((9, 256, 256))
    for z in (3, 4):
        put(probs, z, 60, 60, 10, 0.5, 0.5)
    put(probs, 4, 200, 200, 10, 0.5, 0.5)
    (first,) = suggest(probs, window_px=(64, 64), count=1, seen=[(3, 32, 32, 64, 64)])
    assert holds(first, 4, 200, 200)


class Counting:
    """An array that remembers how large the blocks were that were read from it."""

    def __init__(self, data: np.ndarray) -> None:
        self.data, self.shape, self.dtype = data, data.shape, data.dtype
        self.largest = 0
        self.read = 0

    def __getitem__(self, key: Any) -> np.ndarray:
        block = self.data[key]
        self.largest, self.read = max(self.largest, block.size), self.read + block.size
        return block


def test_blocks_are_read_one_by_one_and_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    logits = rng.normal(0, 2, (3, 13, 13, 3)).repeat(24, 1).repeat(24, 2)[:, :300, :300]
    probs = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    probs = probs.astype(np.float32)
    whole = suggest(probs, window_px=(64, 64), count=6, image=probs[..., 0])
    lazy = da.from_array(probs, chunks=(1, 100, 128, 3))
    assert suggest(lazy, window_px=(64, 64), count=6, image=lazy[..., 0]) == whole
    monkeypatch.setattr("napari_em_da.suggestions._cells.BLOCK_PX", 96)
    counted = Counting(probs)
    cut = suggest(counted, window_px=(64, 64), count=6, image=probs[..., 0])
    assert [(item.box, item.reason) for item in cut] == [(item.box, item.reason) for item in whole]
    np.testing.assert_allclose([item.score for item in cut], [item.score for item in whole], rtol=1e-6)
    assert counted.largest <= (96 + 2 * 12 + 32) ** 2 * 3 < probs[0].size
    assert counted.read < 3 * probs.size


def test_cells_are_means_over_their_pixels() -> None:
    rng = np.random.default_rng(1)
    probs = rng.random((2, 64, 96, 3)).astype(np.float32)
    probs /= probs.sum(-1, keepdims=True)
    layout = Layout.of((2, 64, 96), (32, 32))
    assert (layout.cell, layout.cells, layout.grid) == ((16, 16), (2, 4, 6), (2, 3, 5))
    cells = measure(probs, None, layout, 1)
    labels = probs.argmax(-1)
    for z in range(2):
        for row in range(4):
            for column in range(6):
                y, x = slice(16 * row, 16 * row + 16), slice(16 * column, 16 * column + 16)
                expected = np.bincount(labels[z, y, x].ravel(), minlength=3) / labels[z, y, x].size
                np.testing.assert_allclose(cells.shares[z, row, column], expected)


@pytest.mark.parametrize("shape", [(1, 20, 30), (2, 64, 64), (1, 65, 400), (1, 127, 100)])
def test_windows_cover_the_section_and_stay_inside(shape: tuple[int, int, int]) -> None:
    layout = Layout.of(shape, (64, 64))
    covered = np.zeros(shape, bool)
    for index in np.ndindex(*layout.grid):
        z, y, x, height, width = layout.box(*index)
        assert y >= 0 and x >= 0 and y + height <= shape[1] and x + width <= shape[2]
        covered[z, y : y + height, x : x + width] = True
        assert layout.nearest((z, y, x, height, width)) == index
    assert covered.all()


def test_the_choice_is_greedy_by_score_times_novelty() -> None:
    features = np.array([[0.0], [0.05], [1.0], [2.0]])
    boxes = [(z, 0, 0, 8, 8) for z in range(4)]
    scores = np.array([1.0, 0.9, 0.5, 0.4])
    none = np.zeros((0, 1))
    assert choose(scores, features, boxes, 4, seen=none) == [0, 2, 3, 1]
    assert choose(scores, features, boxes, 4, seen=none, strength=0) == [0, 1, 2, 3]
    assert choose(scores, features, boxes, 1, seen=np.array([[0.0]])) == [2]
    assert choose(scores, features, [(0, 0, 0, 8, 8)] * 4, 4, seen=none) == [0]


def test_overlap() -> None:
    assert overlap((0, 0, 0, 10, 10), (0, 5, 5, 10, 10)) == 0.25
    assert overlap((0, 0, 0, 10, 10), (0, 2, 2, 2, 2)) == 1
    assert overlap((0, 0, 0, 10, 10), (1, 0, 0, 10, 10)) == 0
    assert overlap((0, 0, 0, 10, 10), (0, 10, 0, 10, 10)) == 0


def test_certainty_is_no_reason_to_look() -> None:
    assert suggest(sure()) == []


@pytest.mark.parametrize(
    ("array", "options", "error", "message"),
    [
        (np.zeros((2, 8, 8), np.float32), {}, DataError, "expected floats"),
        (np.zeros((2, 8, 8, 2), np.uint8), {}, DataError, "uint8; expected floats"),
        (sure(), {"image": np.zeros((5, 9, 9))}, DataError, r"\(5, 9, 9\), its probabilities"),
        (sure(), {"names": ["a", "b"]}, DataError, "2 probabilities but 2 names"),
        (sure(), {"count": 0}, ConfigError, "must be positive"),
        (sure(), {"seen": [(1, 2, 3)]}, ConfigError, r"not \(1, 2, 3\)"),
    ],
)
def test_errors(array: Any, options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        suggest(array, **options)
