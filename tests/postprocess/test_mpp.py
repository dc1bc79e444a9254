"""Morphological post-processing: the tables of the specification, a slow version of its text, and a broken tube."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
from scipy import ndimage

from napari_em_da.config import ChainConfig
from napari_em_da.errors import ConfigError, DataError
from napari_em_da.metrics import evaluate_arrays
from napari_em_da.postprocess import Stack, apply_chain
from napari_em_da.postprocess.mpp import mpp

NM = (5.0, 5.0, 5.0)
OFF: dict[str, Any] = {"min_area_nm2": 0.0, "propagation_area_nm2": 1e9}  # no removal, and so no propagation
ORDERS = ["sequential", "simultaneous"]
CROSS = ndimage.generate_binary_structure(2, 1)


def signal(*values: int) -> Any:
    return np.array(values, bool)[:, None, None]


def blobs(depth: int = 14, seed: int = 0, size: int = 24) -> Any:
    noise = np.random.default_rng(seed).normal(size=(depth, size, size))
    return ndimage.gaussian_filter(noise, (0.7, 2, 2)) > 0.03


def without_small(section: Any, least: int) -> Any:
    ids, _ = ndimage.label(section, CROSS)
    sizes = np.bincount(ids.ravel())
    return (ids > 0) & (sizes[ids] >= least)


def eroded(section: Any, times: int) -> Any:
    """Three erosions are the release's: pad by the edge, erode, cut."""
    if not times:
        return section
    padded = np.pad(section, times, mode="edge")
    return ndimage.binary_erosion(padded, CROSS, times, border_value=1)[times:-times, times:-times]


def by_the_text(
    mask: Any, labelled: tuple[int, ...], least: int, least_propagated: int, erosions: int, order: str
) -> Any:
    """The steps on the whole volume, one after the other, as they are written down."""
    m = mask.copy()
    free = [z for z in range(len(m)) if z not in labelled]
    for z in free:
        m[z] = without_small(m[z], least)
    if labelled:
        first, last = min(labelled), max(labelled)
        for walk in (range(last, first - 1, -1), range(first, last + 1)) * 2:  # twice, as released
            for z in walk:
                if z in labelled:
                    e = m[z]
                else:
                    e = without_small(eroded(e, erosions), least_propagated)
                    m[z] |= e
        for fill in (False, True):
            for z in free:
                if first < z < last:
                    a, b = m[max(a for a in labelled if a < z)], m[min(b for b in labelled if b > z)]
                    m[z] = without_small(m[z] | (a & b) if fill else m[z] & (a | b), least)
    for k in (1, 2):
        for fill in (False, True):
            before = m if order == "sequential" else m.copy()
            after = m.copy()
            for z in free:
                if k <= z < len(m) - k:
                    a, b = before[z - k], after[z + k]
                    m[z] = without_small(m[z] | (a & b) if fill else m[z] & (a | b), least)
    return m


def run(labels: Any, labelled: tuple[int, ...] = (), work: Path | None = None, **options: Any) -> Any:
    classes = ("background", "cell", "mito")
    stack = Stack(labels, "labels", NM, classes, labelled, work)
    chain = ChainConfig.model_validate({"steps": [{"mpp": {"channel": "mito"} | options}]})
    result = apply_chain(chain, stack).data
    assert result.dtype == labels.dtype
    return result


@pytest.mark.parametrize("order", ORDERS)
def test_the_tables_of_the_specification(order: Any) -> None:
    def repaired(*values: int) -> list[int]:
        return mpp(signal(*values), (0, 5), spacing=NM, order=order, **OFF).ravel().astype(int).tolist()

    assert repaired(1, 1, 1, 0, 1, 0) == [1, 1, 1, 0, 0, 0]
    assert repaired(1, 0, 0, 1, 0, 1) == [1, 1, 1, 1, 1, 1]
    for predicted in np.ndindex(2, 2, 2, 2):
        assert repaired(0, *predicted, 0) == [0] * 6
    sequence = signal(1, 0, 1, 1, 0, 0, 1, 0, 0, 1)
    result = mpp(sequence, spacing=NM, radii=(1,), order=order, **OFF)
    assert result.ravel().astype(int).tolist() == [1, 1, 1, 1, 0, 0, 0, 0, 0, 1]


def test_an_annotated_square_propagates_one_section_and_then_vanishes() -> None:
    mask = np.zeros((6, 50, 50), bool)
    mask[0, 10:40, 10:40] = True
    # what only one annotated section knows does not survive the comparison of neighbours: look at step 1 alone
    grown = mpp(mask, (0, 5), spacing=NM, radii=())
    assert grown.sum((1, 2)).tolist() == [900, 576, 0, 0, 0, 0]
    assert grown[1, 13:37, 13:37].all()
    smaller = mpp(mask, (0, 5), spacing=NM, radii=(), propagation_area_nm2=324 * 25.0)
    assert smaller.sum((1, 2)).tolist() == [900, 576, 324, 0, 0, 0]
    assert mpp(mask[::-1], (0, 5), spacing=NM, radii=()).sum((1, 2)).tolist() == [0, 0, 0, 0, 576, 900]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("labelled", [(), (6,), (0, 5, 10), (2, 3, 9), (0, 13)])
@pytest.mark.parametrize("seed", [0, 1])
def test_equals_the_text(order: Any, labelled: tuple[int, ...], seed: int) -> None:
    mask = blobs(seed=seed)
    options = {"min_area_nm2": 12 * 25.0, "propagation_area_nm2": 20 * 25.0, "erosion_nm": 5.0}
    got = mpp(mask, labelled, spacing=NM, order=order, **options)  # type: ignore[arg-type]
    np.testing.assert_array_equal(got, by_the_text(mask, labelled, 12, 20, 1, order))
    assert (got[list(labelled)] == mask[list(labelled)]).all()
    assert (got != mask).any()


def test_everything_is_measured_in_nm() -> None:
    mask = blobs(size=32)
    coarse = mpp(mask, (0, 5, 10), spacing=(20.0, 10.0, 10.0), min_area_nm2=1000.0, propagation_area_nm2=2500.0)
    np.testing.assert_array_equal(coarse, by_the_text(mask, (0, 5, 10), 10, 25, 6, "sequential"))
    square = np.zeros((3, 20, 20), bool)
    square[:, :10, :10] = square[1, 15:18, 15:18] = True
    kept = mpp(square, spacing=NM, min_area_nm2=100 * 25.0, radii=())
    np.testing.assert_array_equal(kept.sum((1, 2)), [100, 100, 100])  # exactly the smallest area stays


def test_the_frame_does_not_erode() -> None:
    mask = np.zeros((4, 30, 30), bool)
    mask[0] = True
    mask[0, :, 20:] = False
    grown = mpp(mask, (0, 3), spacing=NM, radii=(), min_area_nm2=0, propagation_area_nm2=0)
    assert [int(section.sum()) for section in grown] == [600, 30 * 17, 30 * 14, 0]


def test_a_tube_with_drop_outs_is_mended() -> None:
    z, y, x = np.ogrid[:30, :64, :64]
    tube = ((y - 32 - 6 * np.sin(z / 8)) ** 2 + (x - 30 - z / 5) ** 2 < 14**2).astype(np.uint8)
    rng = np.random.default_rng(0)
    broken = tube.copy()
    broken[[4, 9, 10, 17, 23]] = 0
    broken[rng.random(tube.shape) < 0.01] = 1
    truth = tuple(range(0, 30, 5))
    broken[list(truth)] = tube[list(truth)]
    for labelled in ((), truth):
        for order in ORDERS:
            mended = mpp(broken, labelled, spacing=NM, order=order).astype(np.uint8)  # type: ignore[arg-type]
            before, after = (evaluate_arrays(m, tube, ["dice"])["dice"] for m in (broken, mended))
            assert after > before + 0.05
            assert after > 0.97


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("labelled", [(), (1, 6, 12)])
@pytest.mark.parametrize("chunks", [(1, 24, 24), (4, 10, 24), (14, 7, 5)])
def test_blocks_do_not_matter(order: str, labelled: tuple[int, ...], chunks: tuple[int, ...]) -> None:
    labels = blobs(seed=3).astype(np.uint8) * 2
    labels[:, 3:6] = 1
    labels[2:5, 10:12, 4:9] = 255
    options = {"order": order, "min_area_nm2": 250.0, "propagation_area_nm2": 500.0, "erosion_nm": 5.0}
    whole = run(labels, labelled, **options)
    lazy = run(da.from_array(labels, chunks=chunks), labelled, **options)
    assert isinstance(lazy, da.Array)
    np.testing.assert_array_equal(lazy.compute(), whole)
    expected = mpp(labels == 2, labelled, spacing=NM, **options) & ((labels == 0) | (labels == 2))  # type: ignore[arg-type]
    np.testing.assert_array_equal(whole == 2, expected)
    for other in (1, 255):
        np.testing.assert_array_equal(whole == other, labels == other)


def test_a_lazy_result_is_kept_in_the_work_folder(tmp_path: Path) -> None:
    labels = blobs().astype(np.uint8) * 2
    lazy = run(da.from_array(labels, chunks=(4, 24, 24)), work=tmp_path / "0-mpp", min_area_nm2=250.0)
    assert (tmp_path / "0-mpp").is_dir()
    assert lazy.chunks == ((4, 4, 4, 2), (24,), (24,))
    expected = run(labels, min_area_nm2=250.0)
    assert expected.any()
    np.testing.assert_array_equal(lazy[5:9, 3:7].compute(), expected[5:9, 3:7])


def test_a_temporary_folder_goes_with_the_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import gc
    import tempfile

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    lazy = run(da.from_array(blobs().astype(np.uint8) * 2, chunks=(4, 24, 24)), min_area_nm2=250.0)
    part = lazy[:3]
    del lazy
    gc.collect()
    assert part.compute().any()
    del part
    gc.collect()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("order", ORDERS)
def test_thin_and_empty_volumes(order: Any) -> None:
    for depth in (1, 2, 3):
        mask = blobs(depth)
        result = mpp(mask, spacing=NM, order=order, min_area_nm2=250.0)
        np.testing.assert_array_equal(result, by_the_text(mask, (), 10, 450, 3, order))
        assert not mpp(np.zeros_like(mask), (0,), spacing=NM, order=order).any()
        assert mpp(np.ones_like(mask), (0,), spacing=NM, order=order).all()
        lazy = run(da.from_array(mask.astype(np.uint8) * 2, chunks=(1, 24, 24)), order=order, min_area_nm2=100.0)
        np.testing.assert_array_equal(lazy.compute() == 2, mpp(mask, spacing=NM, order=order, min_area_nm2=100.0))


def test_the_input_is_not_modified() -> None:
    mask = blobs().astype(np.uint8)
    before = mask.copy()
    mask.flags.writeable = False  # and nothing tries to
    for labelled in ((), (0, 5)):
        mpp(mask, labelled, spacing=NM)
        run(mask * 2, labelled)
    assert (mask == before).all()


def test_bad_input_says_what_to_do() -> None:
    with pytest.raises(DataError, match="holds 2"):
        mpp(blobs().astype(np.uint8) * 2, spacing=NM)
    with pytest.raises(ConfigError, match=r"\[14\] lie outside 0 to 13"):
        mpp(blobs(), (14,), spacing=NM)
    with pytest.raises(ConfigError, match="radii"):
        mpp(blobs(), spacing=NM, radii=(0,))
    with pytest.raises(ConfigError, match="say which one"):
        run(blobs().astype(np.uint8), channel=None)
    with pytest.raises(ConfigError, match="voxel_nm"):
        apply_chain(ChainConfig.model_validate({"steps": ["mpp"]}), Stack(blobs().astype(np.uint8), "labels"))
