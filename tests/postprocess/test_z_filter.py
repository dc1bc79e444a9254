"""Continuity along z: signals of one pixel per section against the definition, by hand and by table."""

from __future__ import annotations

from collections import Counter
from typing import Any

import dask.array as da
import numpy as np
import pytest
from scipy import ndimage

from napari_em_da.config import ChainConfig
from napari_em_da.errors import ConfigError
from napari_em_da.postprocess import Stack, apply_chain
from napari_em_da.postprocess.z_filter import advice, z_filter

MODES = ["veto", "fill", "veto_fill", "median"]


def signal(*values: int) -> Any:
    return np.array(values, np.uint8)[:, None, None]


def filtered(values: tuple[int, ...], mode: Any, radius: int = 1) -> list[int]:
    return z_filter(signal(*values), radius, mode).ravel().tolist()


def noise(values: int = 3, depth: int = 11, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(0, values, (depth, 5, 6)).astype(np.uint8)


def run(labels: Any, labelled: tuple[int, ...] = (), **options: Any) -> Any:
    stack = Stack(labels, "labels", classes=("background", "a", "b", "c"), labelled=labelled)
    result = apply_chain(ChainConfig.model_validate({"steps": [{"z_filter": options}]}), stack).data
    assert result.dtype == labels.dtype
    return result


def by_hand(labels: Any, k: int, mode: str, fixed: tuple[int, ...] = (), labelled: tuple[int, ...] = ()) -> Any:
    """Voxel by voxel; ``fixed`` labels neither come nor go, 255 among them does not vote."""
    if mode == "veto_fill":
        return by_hand(by_hand(labels, k, "veto", fixed, labelled), k, "fill", fixed, labelled)
    result = labels.copy()
    for z, y, x in np.ndindex(labels.shape):
        line, here = labels[:, y, x].tolist(), int(labels[z, y, x])
        if z in labelled or here in fixed:
            continue
        if mode == "median":
            votes = Counter(v for v in line[max(0, z - k) : z + k + 1] if v != 255)
            most = [v for v in votes if votes[v] == max(votes.values())]
            if len(most) == 1 and most[0] not in fixed:
                result[z, y, x] = most[0]
        elif k <= z < len(line) - k:
            before, after = line[z - k], line[z + k]
            if mode == "veto" and here not in (before, after):
                result[z, y, x] = 0
            if mode == "fill" and here == 0 and before == after and before not in fixed:
                result[z, y, x] = before
    return result


def test_the_tables_of_the_specification() -> None:
    first = (1, 0, 1, 1, 0, 0, 1, 0, 0, 1)
    assert filtered(first, "veto") == [1, 0, 1, 1, 0, 0, 0, 0, 0, 1]
    assert filtered(first, "veto_fill") == [1, 1, 1, 1, 0, 0, 0, 0, 0, 1]
    assert filtered(first, "median") == [1, 1, 1, 1, 0, 0, 0, 0, 0, 1]
    second = (1, 0, 1, 0, 0, 1, 0, 1)
    assert filtered(second, "veto_fill") == [1, 0, 0, 0, 0, 0, 0, 1]
    assert filtered(second, "median") == [1, 1, 0, 0, 0, 0, 1, 1]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("radius", [1, 2, 3])
def test_equals_the_definition(mode: Any, radius: int) -> None:
    for values in (2, 4):
        labels = noise(values)
        np.testing.assert_array_equal(z_filter(labels, radius, mode), by_hand(labels, radius, mode))


def test_the_majority_of_a_mask_is_its_median_away_from_the_ends() -> None:
    mask = noise(2) > 0
    expected = ndimage.median_filter(mask.astype(np.uint8), (5, 1, 1), mode="nearest")
    np.testing.assert_array_equal(z_filter(mask, 2, "median")[2:-2], expected[2:-2])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("chunks", [(1, 5, 6), (2, 3, 4), (11, 2, 2), (4, 5, 6)])
@pytest.mark.parametrize("labelled", [(), (0, 4, 5)])
def test_blocks_and_ground_truth(mode: str, chunks: tuple[int, ...], labelled: tuple[int, ...]) -> None:
    labels = noise(4, seed=1)
    labels[3:6, 2, 2:4] = 255
    got = run(da.from_array(labels, chunks=chunks), labelled, radius=2, mode=mode)
    assert isinstance(got, da.Array)
    expected = by_hand(labels, 2, mode, (255,), labelled)
    np.testing.assert_array_equal(got.compute(), expected)
    np.testing.assert_array_equal(run(labels, labelled, radius=2, mode=mode), expected)
    assert (expected[list(labelled)] == labels[list(labelled)]).all()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("chunks", [None, (3, 5, 6)])
def test_other_classes_neither_come_nor_go(mode: str, chunks: Any) -> None:
    labels = noise(4, seed=2)
    data = labels if chunks is None else da.from_array(labels, chunks=chunks)
    got = np.asarray(run(data, mode=mode, classes=["b"]))
    np.testing.assert_array_equal(got, by_hand(labels, 1, mode, (1, 3, 255)))
    for other in (1, 3):
        np.testing.assert_array_equal(got == other, labels == other)


def test_a_filled_gap_never_overwrites_a_class() -> None:
    assert filtered((1, 2, 1), "fill") == [1, 2, 1]
    assert filtered((1, 2, 1), "veto_fill") == [1, 1, 1]


def test_a_tie_keeps_the_voxel() -> None:
    assert filtered((1, 2, 3), "median") == [1, 2, 3]
    assert filtered((2, 1, 1, 2, 3), "median", 2) == [1, 1, 1, 1, 3]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_volumes_thinner_than_the_window(mode: str, depth: int) -> None:
    labels = noise(3, depth)
    expected = by_hand(labels, 3, mode)
    np.testing.assert_array_equal(run(labels, radius=3, mode=mode), expected)
    lazy = run(da.from_array(labels, chunks=(1, 5, 6)), radius=3, mode=mode)
    np.testing.assert_array_equal(lazy.compute(), expected)


def test_it_commutes_with_turning_the_volume_over() -> None:
    labels = noise(3, seed=4)
    for mode in MODES:
        np.testing.assert_array_equal(z_filter(labels[::-1], 2, mode), z_filter(labels, 2, mode)[::-1])  # type: ignore[arg-type]


def test_the_input_is_not_modified() -> None:
    labels = noise()
    before = labels.copy()
    for mode in MODES:
        run(labels, (2,), mode=mode)
    assert (labels == before).all()


def test_thick_sections_are_advised_against() -> None:
    labels = noise()
    assert advice(Stack(labels, "labels")) is None
    assert advice(Stack(labels, "labels", (30, 5, 5))) is None
    text = advice(Stack(labels, "labels", (50, 5, 5)))
    assert text is not None and "50 nm" in text


def test_wrong_options() -> None:
    with pytest.raises(ConfigError, match="radius"):
        run(noise(), radius=0)
    with pytest.raises(ConfigError, match="radius=0"):
        z_filter(noise(), 0)
    with pytest.raises(ConfigError, match="mode"):
        run(noise(), mode="open")
    with pytest.raises(ConfigError, match="Unknown class"):
        run(noise(), classes=["mito"])
