"""Regions, their convex hulls, and what tells a membrane from an object."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage
from skimage.measure import label, regionprops
from skimage.morphology import convex_hull_image, disk

from napari_em_da.errors import DataError
from napari_em_da.selection._base import Reference
from napari_em_da.selection._shapes import SPECK_PX, Shapes, find_regions


@pytest.mark.parametrize("seed", range(5))
def test_regions_are_those_of_scikit_image(seed: int) -> None:
    rng = np.random.default_rng(seed)
    masks = ndimage.gaussian_filter(rng.standard_normal((4, 48, 40)), (0, 1 + seed % 3, 1)) > 0.1
    found = find_regions(masks)
    expected = []
    for section, mask in enumerate(masks):
        for region in regionprops(label(mask, connectivity=1)):
            if region.area > SPECK_PX and min(region.image.shape) > 1:  # its hull fails on a line
                hull = convex_hull_image(region.image, offset_coordinates=False)
                expected.append((section, region.area, hull.sum()))
    lines = found.area == found.convex
    rows = zip(found.section, found.area, found.convex, strict=True)
    assert [row for row in expected if row[1] != row[2]] == [
        row for row, line in zip(rows, lines, strict=True) if not line
    ]
    assert len(found.area) >= len(expected)


def test_solid_forms_are_exactly_solid() -> None:
    masks = np.zeros((3, 31, 31), bool)
    masks[0, 3:9, 4:25] = True
    masks[1, 5:26, 5:26] = disk(10)
    masks[2, 7, 2:20] = True  # a line
    found = find_regions(masks)
    assert list(found.area) == list(found.convex) == [6 * 21, disk(10).sum(), 18]
    assert list(found.section) == [0, 1, 2]


def test_an_l_of_known_hull() -> None:
    mask = np.zeros((1, 12, 12), bool)
    mask[0, :10, 0] = mask[0, 9, :10] = True
    found = find_regions(mask)
    assert (found.area[0], found.convex[0]) == (19, 55)  # a triangle with 10 points a side


def test_regions_touch_along_edges_only_and_never_across_sections() -> None:
    masks = np.zeros((2, 10, 10), bool)
    masks[:, :5, :5] = masks[:, 5:, 5:] = True
    assert list(find_regions(masks).area) == [25] * 4


def test_specks_and_nothing() -> None:
    masks = np.zeros((2, 8, 8), bool)
    masks[0, 0, :5] = masks[0, 1, :5] = True  # 10 pixels
    shapes = Shapes.of(masks)
    assert (shapes.areas.size, shapes.solidity, shapes.share, shapes.empty) == (0, 0.0, 10 / 128, 0.5)
    assert find_regions(np.zeros((1, 4, 4), bool)).area.size == 0


def blobs(n: int = 4, size: int = 64) -> np.ndarray:
    labels = np.zeros((n, size, size), np.uint8)
    for y, x, r in ((14, 14, 9), (44, 20, 7), (30, 48, 11)):
        labels[:, y - r : y + r + 1, x - r : x + r + 1] |= disk(r).astype(np.uint8)
    return labels


def grid(n: int = 4, size: int = 64, step: int = 16) -> np.ndarray:
    labels = np.zeros((n, size, size), np.uint8)
    labels[:, ::step] = labels[:, 1::step] = 1
    labels[:, :, ::step] = labels[:, :, 1::step] = 1
    return labels


def test_membranes_are_told_from_objects() -> None:
    assert not Shapes.of(blobs() == 1).net
    assert Shapes.of(grid() == 1).net
    assert not Shapes.of(grid() == 0).net  # the cells themselves are solid
    tree = np.zeros((1, 64, 64), bool)
    tree[0, 30:33, 4:60] = tree[0, 4:60, 30:33] = True  # branched but dividing little into cells that stay apart
    assert not Shapes.of(np.pad(tree, ((0, 0), (20, 20), (20, 20)))).net


def test_a_reference_is_measured_in_windows_of_the_scored_size() -> None:
    labels = grid(1, 96)
    reference = Reference.from_labels(labels, ["membrane"], (32, 32))
    tiles = labels.reshape(3, 32, 3, 32).swapaxes(1, 2).reshape(9, 32, 32)
    expected = Shapes.of(tiles == 1)
    assert reference.shapes[0].share == pytest.approx(expected.share)
    assert sorted(reference.shapes[0].cells) == sorted(expected.cells)
    np.testing.assert_allclose(reference.prior, [1 - expected.share, expected.share])


def test_what_is_not_annotated_does_not_count() -> None:
    labels = blobs(1)
    padded = np.full((1, 70, 130), 255, np.uint8)
    padded[:, :64, :64] = labels
    whole = Reference.from_labels(labels, ["mito", "other"], (64, 64))
    sparse = Reference.from_labels(padded, ["mito", "other"], (64, 64))
    np.testing.assert_array_equal(whole.prior, sparse.prior)
    assert whole.present == sparse.present == [1]
    assert list(whole.shapes[0].areas) == list(sparse.shapes[0].areas)


def test_a_source_without_the_classes_is_refused() -> None:
    with pytest.raises(DataError, match="None of the classes mito"):
        Reference.from_labels(np.zeros((1, 8, 8), np.uint8), ["mito"], (8, 8))
    with pytest.raises(DataError, match="no label sections"):
        Reference.from_labels([], ["mito"], (8, 8))
