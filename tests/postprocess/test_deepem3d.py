"""DeepEM3D's watershed: membranes given away, floods against scikit-image, filling against brute force."""

from __future__ import annotations

from dataclasses import replace

import dask.array as da
import numpy as np
import pytest
from scipy import ndimage
from skimage.morphology import h_minima
from skimage.segmentation import watershed

from napari_em_da.config import ChainConfig
from napari_em_da.postprocess import Stack, apply_chain
from napari_em_da.postprocess.deepem3d import deepem3d_watershed, fill_by_majority


def rooms(shape: tuple[int, int, int] = (6, 40, 40), wall: int = 20) -> np.ndarray:
    p = np.full(shape, 0.05, np.float32)
    p[:, wall - 1 : wall + 1] = p[:, :, wall - 1 : wall + 1] = 0.95
    return p


def same_partition(a: np.ndarray, b: np.ndarray) -> bool:
    pairs = np.unique(np.stack([a.ravel(), b.ravel()]), axis=1)
    return len(np.unique(pairs[0])) == len(np.unique(pairs[1])) == pairs.shape[1]


def brute_fill(section: np.ndarray) -> np.ndarray:
    section = section.copy()
    while True:
        framed = np.pad(section, 1)
        new = section.copy()
        for y, x in np.argwhere(section == 0):
            ids, votes = np.unique(framed[y : y + 3, x : x + 3], return_counts=True)
            ids, votes = ids[ids > 0], votes[-len(ids[ids > 0]) :] if (ids > 0).any() else []
            if len(ids):
                new[y, x] = ids[np.argmax(votes)]
        if (new == section).all():
            return section
        section = new


def test_walls_go_to_the_rooms_beside_them() -> None:
    p = rooms()
    ids = deepem3d_watershed(p)
    assert ids.dtype == np.uint32
    assert set(np.unique(ids)) == {1, 2, 3, 4}
    for y in (slice(19), slice(21, None)):
        for x in (slice(19), slice(21, None)):
            assert len(np.unique(ids[:, y, x])) == 1


def test_the_first_three_steps_are_those_of_scikit_image() -> None:
    rng = np.random.default_rng(0)
    p = ndimage.gaussian_filter(rng.random((7, 30, 31)), 1.5)
    p = ((p - p.min()) / np.ptp(p)).astype(np.float32)
    footprint = ndimage.generate_binary_structure(3, 1)
    smooth = ndimage.gaussian_filter(p, 0.105)
    markers = ndimage.label(h_minima(smooth, 0.19, footprint=footprint))[0]
    expected = watershed(smooth, markers, connectivity=1)
    expected[p >= 0.8] = 0
    assert expected.max() > 5
    ids = deepem3d_watershed(p)
    np.testing.assert_array_equal(ids, [brute_fill(section) for section in expected])


def test_shallow_minima_make_no_object() -> None:
    p = rooms()
    p[:, 5, 5] = 0.0  # 0.05 deep
    assert deepem3d_watershed(p).max() == 4
    p[:] = 0.2
    assert deepem3d_watershed(p).max() == 1


@pytest.mark.parametrize("density", [0.02, 0.3, 0.8])
def test_filling_against_brute_force(density: float) -> None:
    rng = np.random.default_rng(1)
    for shape in ((2, 14, 15), (1, 1, 20), (1, 9, 1)):
        ids = (rng.random(shape) < density) * rng.integers(1, 5, shape)
        before = ids.copy()
        np.testing.assert_array_equal(fill_by_majority(ids), [brute_fill(section) for section in ids])
        np.testing.assert_array_equal(ids, before)


def test_ties_go_to_the_smallest_id_and_an_empty_section_stays_empty() -> None:
    np.testing.assert_array_equal(fill_by_majority(np.array([[[9, 0, 4]]])), [[[9, 4, 4]]])
    assert not fill_by_majority(np.zeros((2, 3, 4), int)).any()
    p = np.full((2, 5, 5), 0.9, np.float32)
    p[1] = 0.1
    ids = deepem3d_watershed(p)
    assert not ids[0].any()
    assert (ids[1] == 1).all()


def test_object_maps_and_blocks() -> None:
    p = rooms((9, 40, 40), 16)
    membrane = Stack(np.stack([1 - p, p], -1), "probabilities", classes=("background", "membrane"))
    chain = ChainConfig(steps=["deepem3d"])
    whole = apply_chain(chain, membrane)
    assert whole.holds == "instances"
    turned = ChainConfig(steps=[{"deepem3d": {"kind": "object"}}])
    objects = Stack(membrane.data[..., ::-1], "probabilities", classes=("background", "cell"))
    np.testing.assert_array_equal(apply_chain(turned, objects).data, whole.data)
    blocks = ChainConfig(steps=[{"deepem3d": {"halo_px": 8, "halo_sections": 2}}])
    lazy = apply_chain(blocks, replace(membrane, data=da.from_array(membrane.data, chunks=(5, 23, 21, 2))))
    assert lazy.lazy
    assert same_partition(lazy.data.compute(), whole.data)
