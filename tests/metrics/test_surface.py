"""Surface scores against brute-force distances between all pairs of surface voxels."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.distance import cdist

from napari_em_da.errors import ConfigError, DataError
from napari_em_da.metrics import evaluate_arrays
from napari_em_da.metrics.surface import borders, surface_distances

DISTANCES = ("hd95", "hd", "assd")
BOUNDARY = ("boundary_f", "boundary_precision", "boundary_recall")
SPACING = (40.0, 5.0, 7.0)


def surface(mask: np.ndarray) -> np.ndarray:
    return mask & ~ndimage.binary_erosion(mask, border_value=1)


def between(a: np.ndarray, b: np.ndarray, spacing: tuple[float, ...] = SPACING) -> tuple[np.ndarray, np.ndarray]:
    pairs = cdist(np.argwhere(a) * spacing, np.argwhere(b) * spacing)
    return pairs.min(1), pairs.min(0)


def blobs(shape: tuple[int, ...], seed: int, classes: int = 2) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.normal(size=(2, *shape)), (0, 1, 2, 2))
    smooth[1] += 2 * smooth[0]
    found, truth = (np.digitize(s, np.quantile(s, np.linspace(0.6, 1, classes + 1)[:-1])) for s in smooth)
    return found.astype(np.uint8), truth.astype(np.uint8)


def test_distances_of_shifted_plates() -> None:
    truth, found = np.zeros((2, 6, 9, 9), np.uint8)
    truth[2:4] = 1
    found[3:5] = 1
    scores = evaluate_arrays(found, truth, (*DISTANCES, *BOUNDARY), spacing=SPACING, tolerance_nm=39)
    assert [scores[name] for name in DISTANCES] == pytest.approx([40, 40, 20])
    assert scores["boundary_f"] == scores["boundary_precision"] == scores["boundary_recall"] == 0.5
    assert evaluate_arrays(found, truth, BOUNDARY, spacing=SPACING, tolerance_nm=40)["boundary_f"] == 1


@pytest.mark.parametrize("seed", range(5))
def test_scores_agree_with_all_pairs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape = (int(rng.integers(1, 8)), *map(int, rng.integers(8, 22, 2)))
    found, truth = blobs(shape, seed)
    scores = evaluate_arrays(found, truth, (*DISTANCES, *BOUNDARY), spacing=SPACING, tolerance_nm=41)
    kept: dict[str, list[float]] = {name: [] for name in (*DISTANCES, *BOUNDARY)}
    for c in (1, 2):
        there, back = between(surface(found == c), surface(truth == c))
        precision, recall = (there <= 41).mean(), (back <= 41).mean()
        expected = {
            "hd": max(there.max(), back.max()),
            "hd95": max(np.percentile(there, 95), np.percentile(back, 95)),
            "assd": (there.sum() + back.sum()) / (len(there) + len(back)),
            "boundary_precision": precision,
            "boundary_recall": recall,
            "boundary_f": 2 * precision * recall / (precision + recall),
        }
        for name, value in expected.items():
            assert scores[f"{name}/{c}"] == pytest.approx(value, rel=1e-5)
            kept[name].append(value)
    for name, values in kept.items():
        assert scores[name] == pytest.approx(np.mean(values), rel=1e-5)


def test_grid_and_tree_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    found, truth = (np.argwhere(surface(volume > 0)).astype(np.int32) for volume in blobs((6, 30, 30), 3))
    grid = surface_distances(found, truth, SPACING)
    monkeypatch.setattr("napari_em_da.metrics.surface._GRID_VOXELS", 1)
    np.testing.assert_allclose(surface_distances(found, truth, SPACING), grid, rtol=1e-5)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("flat", [False, True])
def test_blocks_of_any_size_and_symmetry(seed: int, flat: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    found, truth = blobs((9, 14, 17), seed)
    mask = np.random.default_rng(seed).random(truth.shape) < 0.95
    names = (*DISTANCES, *BOUNDARY)
    options = {"spacing": (10.0, 5.0, 5.0), "tolerance_nm": 21, "per_section": flat}
    whole = evaluate_arrays(found, truth, names, mask=mask, **options)
    swapped = evaluate_arrays(truth, found, names, mask=mask, **options)
    for name in ("boundary_f", *DISTANCES):
        assert swapped[name] == pytest.approx(whole[name])
    assert swapped["boundary_precision"] == whole["boundary_recall"]
    monkeypatch.setattr("napari_em_da.metrics._classes.BLOCK_VOXELS", 1)
    lazy = [da.from_array(volume, chunks=(2, 5, 17)) for volume in (found, truth, mask)]
    assert evaluate_arrays(*lazy[:2], names, mask=lazy[2], **options) == whole
    assert evaluate_arrays(found, truth, names, mask=mask, **options) == whole


def test_sections_are_measured_by_themselves() -> None:
    truth = np.zeros((3, 20, 20), np.uint8)
    truth[:, 5:10, 5:10] = 1
    found = np.roll(truth, 3, axis=2)
    found[2] = 0
    scores = evaluate_arrays(found, truth, (*DISTANCES, *BOUNDARY), per_section=True, spacing=SPACING, tolerance_nm=0)
    there, back = between(*(surface(volume[0]) for volume in (found, truth)), SPACING[1:])
    assert scores["hd"] == pytest.approx(max(there.max(), back.max()))
    assert scores["assd"] == pytest.approx((there.mean() + back.mean()) / 2)
    assert scores["boundary_recall"] == pytest.approx((back == 0).mean() * 2 / 3)
    assert "1 section" in scores.warnings[0]
    assert evaluate_arrays(found[0], truth[0], DISTANCES, spacing=SPACING[1:]) == pytest.approx(
        evaluate_arrays(found[:1], truth[:1], DISTANCES, spacing=SPACING)
    )


def test_the_frame_and_what_does_not_count_are_no_surface() -> None:
    full = np.ones((3, 8, 8), np.uint8)
    assert not borders(full).any()
    half = full.copy()
    half[:, :, 4:] = 0
    expected = np.zeros(half.shape, bool)
    expected[:, :, 3] = True
    np.testing.assert_array_equal(borders(half), expected)
    assert not borders(half, half > 0).any()
    ignored = np.where(half > 0, half, 255).astype(np.uint8)
    scores = evaluate_arrays(full, ignored, ("boundary_f",))
    assert "no boundary in either volume" in scores.undefined["boundary_f"]


def test_instances_are_scored_by_all_borders_whatever_their_ids() -> None:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 5, (2, 3, 4, 4))
    found, truth = (np.kron(ids, np.ones((2, 4, 4), int)) for ids in coarse)
    options = {"kind": "instances", "spacing": SPACING}
    scores = evaluate_arrays(found, truth, (*BOUNDARY, *DISTANCES), **options)
    edges = []
    for ids in (found, truth):
        edges.append(np.any([surface(ids == i) for i in range(1, 5)], 0))
    there, back = between(*edges)
    assert scores["hd"] == pytest.approx(max(there.max(), back.max()))
    assert scores["boundary_precision"] == pytest.approx((there <= 14).mean())  # 2 in-plane pixels of 7 nm
    renamed = np.array([2**64 - 1, 7, 2**40, 3, 9], np.uint64)[truth]
    assert evaluate_arrays(found, renamed, (*BOUNDARY, *DISTANCES), **options) == scores
    with pytest.raises(DataError, match="-3 is negative"):
        evaluate_arrays(found - 3, truth, BOUNDARY, **options)


def test_membranes_are_boundaries_themselves() -> None:
    truth, found = np.zeros((2, 4, 16, 16), np.uint8)
    truth[..., 7:10] = 1
    found[..., 8] = 1
    scores = evaluate_arrays(found, truth, BOUNDARY, kind="membrane", spacing=SPACING, tolerance_nm=6)
    assert scores["boundary_precision"] == 1
    assert scores["boundary_recall"] == pytest.approx(1 / 3)


def test_empty_sides_are_defined_or_say_why() -> None:
    empty = np.zeros((2, 8, 8), np.uint8)
    block = empty.copy()
    block[:, 2:5, 2:5] = 1
    names = (*BOUNDARY, *DISTANCES)
    for found, truth, side, defined in (
        (empty, block, "prediction", "boundary_recall"),
        (block, empty, "annotation", "boundary_precision"),
    ):
        scores = evaluate_arrays(found, truth, names, spacing=SPACING)
        assert scores["boundary_f"] == scores[defined] == 0
        assert f"no surface in the {side}" in scores.undefined["hd95/1"]
        assert len(scores.undefined) == 8
    neither = evaluate_arrays(empty, empty, names, spacing=SPACING, classes={"mito": 1})
    assert len(neither.undefined) == len(neither) == 12
    assert "class 'mito'" in neither.undefined["assd"]
    assert evaluate_arrays(empty, empty, BOUNDARY, spacing=SPACING, classes={"mito": 1}, empty=1)["boundary_f"] == 1
    assert all(name in evaluate_arrays(empty, empty, names, spacing=SPACING).undefined for name in names)


def test_without_a_voxel_size_distances_are_in_voxels_and_say_so() -> None:
    truth = np.zeros((1, 12, 12), np.uint8)
    truth[:, 3:9, 3:9] = 1
    scores = evaluate_arrays(np.roll(truth, 2, 2), truth, ("hd", "boundary_f"))
    assert scores["hd"] == 2
    assert scores["boundary_f"] == 1
    assert "in voxels" in scores.warnings[0]
    with pytest.raises(ConfigError, match="tolerance_nm=10"):
        evaluate_arrays(truth, truth, BOUNDARY, tolerance_nm=10)
    with pytest.raises(ConfigError, match="above 0"):
        evaluate_arrays(truth, truth, BOUNDARY, spacing=(0, 5, 5))
