"""Background inside of an object becomes the object."""

from __future__ import annotations

from typing import Any

import dask.array as da
import fill_voids
import numpy as np
import pytest
from scipy import ndimage

from napari_em_da.config import ChainConfig
from napari_em_da.errors import ConfigError
from napari_em_da.postprocess import Stack, apply_chain
from napari_em_da.postprocess.fill_holes import fill_holes

CHUNKS = [None, (1, 9, 4), (3, 4, 5)]


def sponge(seed: int = 0, density: float = 0.7) -> Any:
    return np.random.default_rng(seed).random((6, 9, 10)) < density


def lazily(labels: Any, chunks: Any) -> Any:
    return labels if chunks is None else da.from_array(labels, chunks=chunks)


def run(labels: Any, holds: str = "labels", labelled: tuple[int, ...] = (), **options: Any) -> Any:
    stack = Stack(labels, holds, (30.0, 5.0, 5.0), ("background", "cell", "mito"), labelled)  # type: ignore[arg-type]
    return apply_chain(ChainConfig.model_validate({"steps": [{"fill_holes": options}]}), stack).data


def ring(outer: int = 7, value: int = 1, dtype: Any = np.uint8) -> Any:
    """One section: a ring one pixel wide and two off the frame, with 25 background pixels inside."""
    labels = np.zeros((1, outer + 4, outer + 4), dtype)
    labels[0, 2:-2, 2:-2] = value
    labels[0, 3:-3, 3:-3] = 0
    return labels


@pytest.mark.parametrize("chunks", CHUNKS)
@pytest.mark.parametrize("seed", range(4))
def test_a_mask_equals_scipy_and_fill_voids(chunks: Any, seed: int) -> None:
    mask = sponge(seed)
    whole = np.asarray(fill_holes(lazily(mask, chunks)))
    assert whole.dtype == bool
    np.testing.assert_array_equal(whole, ndimage.binary_fill_holes(mask))
    np.testing.assert_array_equal(whole, fill_voids.fill(mask))
    flat = np.asarray(fill_holes(lazily(mask, chunks), sections=True))
    np.testing.assert_array_equal(flat, np.stack([ndimage.binary_fill_holes(section) for section in mask]))


@pytest.mark.parametrize("chunks", CHUNKS)
@pytest.mark.parametrize("sections", [False, True])
def test_only_holes_up_to_the_size_are_filled(chunks: Any, sections: bool) -> None:
    mask = sponge(7, 0.65)
    structure = ndimage.generate_binary_structure(3, 1)
    if sections:
        structure[[0, 2]] = False
    gaps, count = ndimage.label(~mask, structure)
    rim = np.ones(mask.shape, bool)
    rim[slice(None) if sections else slice(1, -1), 1:-1, 1:-1] = False
    expected = mask.copy()
    for gap in range(1, count + 1):
        if (gaps == gap).sum() <= 2 and not (rim & (gaps == gap)).any():
            expected |= gaps == gap
    assert expected.sum() > mask.sum()
    np.testing.assert_array_equal(np.asarray(fill_holes(lazily(mask, chunks), 2, sections=sections)), expected)


def test_sizes_are_in_nm() -> None:
    labels = ring()
    inside = 25 * 25.0  # pixels times nm²
    assert run(labels, sections=True, max_size_nm2=inside).sum() == 49
    assert run(labels, sections=True, max_size_nm2=inside - 1).sum() == 24
    assert run(labels, max_size_nm3=1e9).sum() == 24  # in 3D the one section is all frame
    tall = np.concatenate([np.zeros_like(labels), np.pad(np.ones((1, 7, 7), np.uint8), ((0, 0), (2, 2), (2, 2)))])
    ball = np.concatenate([tall, labels, tall[::-1]])
    assert run(ball, max_size_nm3=25 * 750.0).sum() == 3 * 49
    assert run(ball, max_size_nm3=25 * 750.0 - 1).sum() == 2 * 49 + 24


@pytest.mark.parametrize("chunks", [None, (1, 4, 3)])
def test_another_object_inside_keeps_the_hole_unless_it_may_be_filled_over(chunks: Any) -> None:
    labels = ring(9)
    labels[0, 5:8, 5:8] = 2
    labels[0, 6, 6] = 0
    got = np.asarray(run(lazily(labels, chunks), sections=True))
    expected = labels.copy()
    expected[0, 6, 6] = 2  # the hole of the inner one only
    np.testing.assert_array_equal(got, expected)
    np.testing.assert_array_equal(np.asarray(run(lazily(labels, chunks), sections=True, classes=["cell"])), labels)
    over = np.asarray(run(lazily(labels, chunks), sections=True, over=["mito"]))
    assert (over[0, 2:-2, 2:-2] == 1).all()


def test_what_may_be_filled_over_stays_where_nothing_fills_it() -> None:
    labels = np.zeros((1, 6, 6), np.uint8)
    labels[0, :3, :3] = 2
    labels[0, 4, 4] = 1
    np.testing.assert_array_equal(run(labels, sections=True, over=["mito"]), labels)


def test_a_gap_between_two_objects_is_no_hole() -> None:
    labels = ring()
    labels[0, 2:-2, 6:] *= 2
    np.testing.assert_array_equal(run(labels, sections=True), labels)
    np.testing.assert_array_equal(run(labels.astype(np.uint32), "instances", sections=True), labels)


def test_not_annotated_is_no_background() -> None:
    labels = ring()
    labels[0, 5, 5] = 255
    np.testing.assert_array_equal(run(labels, sections=True), labels)
    np.testing.assert_array_equal(run(ring(value=255), sections=True), ring(value=255))


@pytest.mark.parametrize("chunks", [None, (1, 4, 3)])
def test_instances_are_filled_with_their_own_id(chunks: Any) -> None:
    ids = np.concatenate([ring(value=2**40, dtype=np.uint64), ring(value=3, dtype=np.uint64)])
    got = np.asarray(run(lazily(ids, chunks), "instances", sections=True))
    assert (got[:, 2:-2, 2:-2] == np.array([2**40, 3], np.uint64)[:, None, None]).all()
    assert got.dtype == np.uint64


def test_ground_truth_stays() -> None:
    labels = np.concatenate([ring(), ring()])
    got = run(labels, labelled=(1,), sections=True)
    assert got[0].sum() == 49
    np.testing.assert_array_equal(got[1], labels[1])


def test_a_tunnel_is_a_hole_of_sections_only() -> None:
    labels = np.concatenate([ring()] * 4)
    assert run(labels).sum() == 4 * 24
    assert run(labels, sections=True).sum() == 4 * 49


def test_empty_and_full_volumes_stay() -> None:
    for value in (0, 1):
        volume = np.full((2, 4, 5), value, np.uint8)
        np.testing.assert_array_equal(fill_holes(volume), volume)


def test_wrong_options_say_what_to_give() -> None:
    with pytest.raises(ConfigError, match="max_size_nm2"):
        run(ring(), sections=True, max_size_nm3=10.0)
    with pytest.raises(ConfigError, match="max_size_nm3"):
        run(ring(), max_size_nm2=10.0)
    with pytest.raises(ConfigError, match="voxel_nm"):
        chain = ChainConfig.model_validate({"steps": [{"fill_holes": {"max_size_nm3": 5.0}}]})
        apply_chain(chain, Stack(ring(), "labels"))


def test_without_a_size_no_voxel_size_is_needed() -> None:
    chain = ChainConfig.model_validate({"steps": [{"fill_holes": {"sections": True}}]})
    assert apply_chain(chain, Stack(ring(), "labels")).data.sum() == 49
