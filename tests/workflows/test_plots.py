"""Plots: each returns what it drew, which is compared with the scores; the files are whole pictures."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import dask.array as da
import numpy as np
import numpy.typing as npt
import pytest

from napari_em_da.errors import ConfigError, DataError
from napari_em_da.metrics import evaluate_arrays
from napari_em_da.metrics._base import Pair
from napari_em_da.metrics._error_map import split_merge_map
from napari_em_da.workflows.montage import bar_length, errors, grid, overlays, spread
from napari_em_da.workflows.plots import confusion, plots, section_curves, thresholds

Labels = npt.NDArray[np.uint8]


def membranes() -> tuple[npt.NDArray[np.float32], Labels]:
    """Return the probability of membrane and the annotated membrane: a grid with a weak wall in some sections."""
    labels = np.zeros((5, 24, 30), np.uint8)
    labels[:, ::8] = 1
    labels[:, :, ::10] = 1
    probability = 0.1 + 0.8 * labels.astype(np.float32)
    probability[2:, 4, 10] = 0.45  # a gap above thresholds of 0.55
    probability[:, 3, 5] = 0.35
    return probability, labels


def classes_pair() -> tuple[Labels, Labels]:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.repeat(rng.integers(0, 3, (4, 4, 5), np.uint8), 6, 1), 6, 2)
    prediction = np.where(rng.random(labels.shape) < 0.1, rng.integers(0, 3, labels.shape), labels).astype(np.uint8)
    labels[1] = 255
    return prediction, labels


def size_of(path: Path) -> tuple[int, int]:
    picture = cv2.imread(str(path))
    assert picture is not None
    assert picture.std() > 5  # not blank
    return picture.shape[0], picture.shape[1]


def test_curves_are_the_scores_of_each_section(tmp_path: Path) -> None:
    prediction, labels = classes_pair()
    classes = {"mito": 1, "vesicle": 2}
    for chunks in (None, (3, 10, 7)):
        arrays = [a if chunks is None else da.from_array(a, chunks) for a in (prediction, labels)]
        curves = section_curves(tmp_path / "a.png", Pair(*arrays, classes), ("iou", "precision/mito"))
        assert list(curves) == ["iou", "iou/mito", "iou/vesicle", "precision/mito"]
        for name, curve in curves.items():
            assert np.isnan(curve[1])  # nothing is annotated there
            for z in (0, 2, 3):
                alone = evaluate_arrays(prediction[z], labels[z], [name.partition("/")[0]], classes=classes)
                assert curve[z] == alone[name]
    assert size_of(tmp_path / "a.png")[1] == 1440


def test_a_mistake_in_every_section_is_an_error(tmp_path: Path) -> None:
    prediction, labels = classes_pair()
    with pytest.raises(DataError, match="annotated"):
        section_curves(tmp_path / "a.png", Pair(prediction, np.full_like(labels, 255)), ("iou",))
    assert not list(tmp_path.iterdir())


def test_the_chosen_threshold_is_the_one_of_the_score(tmp_path: Path) -> None:
    probability, labels = membranes()
    drawn, chosen = thresholds(tmp_path / "t.png", Pair(probability, labels, kind="membrane"))
    scores = evaluate_arrays(probability, labels, ["vrand", "vrand_split"], kind="membrane")
    assert chosen == scores["threshold/vrand"]
    assert drawn["vrand"][chosen] == scores["vrand"] == max(drawn["vrand"].values())
    assert drawn["vrand_split"][chosen] == scores["vrand_split"]
    assert list(drawn["vrand"]) == pytest.approx([i / 10 for i in range(11)])
    size_of(tmp_path / "t.png")


def test_confusion_counts_voxels(tmp_path: Path) -> None:
    prediction, labels = classes_pair()
    matrix = confusion(tmp_path / "c.png", Pair(prediction, labels, {"mito": 1, "vesicle": 2}))
    counted = labels != 255
    for row in range(3):
        for column in range(3):
            assert matrix[row, column] == (counted & (labels == row) & (prediction == column)).sum()
    assert matrix.shape == (3, 3)
    with_other = confusion(tmp_path / "c.png", Pair(prediction, labels, {"mito": 1}))
    assert with_other.shape == (3, 3)
    assert with_other[-1, -1] == matrix[2, 2]
    size_of(tmp_path / "c.png")
    with pytest.raises(ConfigError, match="named classes"):
        confusion(tmp_path / "c.png", Pair(prediction, labels))


def test_overlays_colour_the_foreground_of_either_kind(tmp_path: Path) -> None:
    probability, labels = membranes()
    pair = Pair(probability, labels, kind="membrane")
    low = overlays(tmp_path / "o.png", pair, (0, 4), threshold=0.5)
    assert low.shape == (2, 24, 30, 3)
    gap = overlays(tmp_path / "o.png", pair, (4,), threshold=0.5)[0, 4, 10]
    assert gap[0] > gap[2]  # red: annotated as membrane, and its probability of object is 0.55
    hit = overlays(tmp_path / "o.png", pair, (4,), threshold=0.6)[0, 4, 10]
    assert hit[1] > hit[0]
    objects = overlays(tmp_path / "o.png", Pair(1 - probability, 1 - labels, kind="object"), (4,), threshold=0.5)
    assert objects[0, 4, 10, 2] > objects[0, 4, 10, 0]  # as object it is a false alarm
    np.testing.assert_array_equal(low[0, 1, 1], 0)
    size_of(tmp_path / "o.png")


def test_values_that_are_not_named_are_background_in_overlays(tmp_path: Path) -> None:
    labels = np.array([[[2, 2, 7, 255, 0]]], np.uint8).repeat(5, 1)
    prediction = np.array([[[2, 7, 0, 2, 2]]], np.uint8).repeat(5, 1)
    colours = overlays(tmp_path / "o.png", Pair(prediction, labels, {"mito": 2}), (0,))[0, 0]
    assert [int(c.argmax()) if c.any() else None for c in colours] == [1, 0, None, None, 2]


def test_error_montages_show_the_map(tmp_path: Path) -> None:
    probability, labels = membranes()
    drawn = errors(tmp_path / "e.png", Pair(probability, labels, kind="membrane"), (1, 3), threshold=0.5)
    whole = split_merge_map(probability, labels, kind="membrane", threshold=0.5)
    np.testing.assert_array_equal(drawn, whole[[1, 3]])
    assert not drawn[0].any()
    assert (drawn[1] == 2).any()
    ids = np.arange(8, dtype=np.uint32).repeat(25).reshape(2, 10, 10)
    pair = Pair(da.from_array(ids // 2, (1, 4, 10)), ids, kind="instances", spacing=(40, 4, 4))
    drawn = errors(tmp_path / "e.png", pair, (0, 1), np.zeros((2, 10, 10)))
    np.testing.assert_array_equal(drawn, split_merge_map(ids // 2, ids))
    size_of(tmp_path / "e.png")


@pytest.mark.parametrize("lazy", [False, True])
def test_all_plots_of_a_boundary_map(tmp_path: Path, lazy: bool) -> None:
    arrays = [da.from_array(a, (2, 24, 30)) if lazy else a for a in membranes()]
    saved = list(plots(tmp_path / "plots", *arrays, kind="membrane", spacing=(50, 4, 4), image=arrays[0]))
    names = ["thresholds.png", "sections-boundaries.png", "overlay.png", "splits-merges.png"]
    assert [event.path.name for event in saved] == names
    assert sorted(p.name for p in (tmp_path / "plots").iterdir()) == sorted(names)  # nothing temporary is left
    for event in saved:
        size_of(event.path)


def test_binary_maps_have_no_threshold_curve(tmp_path: Path) -> None:
    labels = membranes()[1]
    saved = list(plots(tmp_path, 1 - labels, 1 - labels, kind="object"))
    assert [event.path.name for event in saved] == ["sections-boundaries.png", "overlay.png", "splits-merges.png"]


def test_all_plots_of_classes_and_instances_fit_in_one_folder(tmp_path: Path) -> None:
    prediction, labels = classes_pair()
    of_classes = list(plots(tmp_path, prediction, labels, classes={"mito": 1, "vesicle": 2}, scores=("dice", "hd95")))
    of_ids = list(plots(tmp_path, prediction, labels, kind="instances", ignored=255, scores=("vi_split", "arand")))
    names = [event.path.name for event in of_classes + of_ids]
    expected = "sections-classes confusion overlay sections-instances splits-merges"
    assert names == [f"{name}.png" for name in expected.split()]
    assert len(set(names)) == len(list(tmp_path.iterdir()))


def test_one_section_without_a_volume_axis(tmp_path: Path) -> None:
    probability, labels = membranes()
    assert len(list(plots(tmp_path, probability[3], labels[3], kind="membrane"))) == 4


def test_pictures_are_replaced(tmp_path: Path) -> None:
    prediction, labels = classes_pair()
    for _ in range(2):
        confusion(tmp_path / "c.png", Pair(prediction, labels, {"mito": 1}))
    assert [p.name for p in tmp_path.iterdir()] == ["c.png"]


def test_no_window_and_no_global_figures(tmp_path: Path) -> None:
    before = set(sys.modules)
    prediction, labels = classes_pair()
    confusion(tmp_path / "c.png", Pair(prediction, labels, {"mito": 1}))
    assert "matplotlib.pyplot" not in set(sys.modules) - before


def test_sections_are_spread_evenly() -> None:
    assert spread(1) == (0,)
    assert spread(9) == tuple(range(9))
    assert spread(18) == tuple(range(1, 18, 2))
    assert spread(100, 4) == (12, 37, 62, 87)


@pytest.mark.parametrize(
    ("count", "ratio", "expected"), [(9, 1, (3, 3)), (1, 3, (1, 1)), (9, 3, (2, 5)), (4, 1, (2, 2))]
)
def test_grids_are_compact(count: int, ratio: float, expected: tuple[int, int]) -> None:
    assert grid(count, ratio) == expected


@pytest.mark.parametrize(("width", "bar"), [(1555, 500), (5120, 1000), (30, 10), (6000, 2000), (4.6, 1)])
def test_scale_bars_have_round_lengths(width: float, bar: float) -> None:
    assert bar_length(width) == pytest.approx(bar)
