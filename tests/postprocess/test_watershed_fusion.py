"""Watershed fusion against the specification's numbers, and flood and minima against scikit-image."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
from scipy import ndimage
from skimage.morphology import h_minima

from napari_em_da.config import ChainConfig
from napari_em_da.errors import ConfigError, DataError
from napari_em_da.postprocess import Stack, apply_chain
from napari_em_da.postprocess._flood import deep_minima, flood
from napari_em_da.postprocess.watershed_fusion import contour, fit_weight, fuse

CROSS = ndimage.generate_binary_structure(2, 1)


def gapped() -> np.ndarray:
    p = np.full((1, 9, 9), 0.1, np.float32)
    p[:, :, 4] = 0.9
    p[:, 4, 4] = 0.3
    return p


def membranes(sections: int = 2, size: int = 48, seed: int = 0) -> np.ndarray:
    """Return a noisy membrane map of square cells."""
    p = np.full((sections, size, size), 0.1, np.float32)
    p[:, ::12] = p[:, :, ::12] = 0.85
    return np.clip(p + np.random.default_rng(seed).normal(0, 0.05, p.shape), 0, 1).astype(np.float32)


def stack_of(p: np.ndarray, **kwargs: object) -> Stack:
    return Stack(np.stack([1 - p, p], -1), "probabilities", classes=("background", "membrane"), **kwargs)


def chain(**options: object) -> ChainConfig:
    return ChainConfig(steps=[{"name": "watershed_fusion", "options": options}])


def cells(p: np.ndarray) -> int:
    return int(ndimage.label(p < 0.5)[1])


@pytest.mark.parametrize("sigma_px", [0.0, 1.0])
def test_specified_numbers(sigma_px: float) -> None:
    p = gapped()
    lines = contour(p, sigma_px=sigma_px)
    expected = np.zeros((1, 9, 9), bool)
    expected[:, :, 4] = True
    np.testing.assert_array_equal(lines, expected)
    fused = fuse(p, 0.3, sigma_px=sigma_px)
    assert fused[0, 4, 4] == pytest.approx(0.51)
    assert fused[0, 0, 4] == pytest.approx(0.93)
    assert fused[0, 0, 0] == pytest.approx(0.07)
    assert cells(p[0]) == 1
    assert cells(fused[0]) == 2


@pytest.mark.parametrize("kind", ["membrane", "object"])
def test_weights_0_and_1_are_exact_and_objects_are_the_complement(kind: str) -> None:
    p = membranes()
    p_w = contour(p)
    shown = p if kind == "membrane" else 1 - p
    np.testing.assert_array_equal(fuse(shown, 0, kind=kind), shown)
    expected = contour(1 - shown if kind == "object" else p)
    np.testing.assert_array_equal(fuse(shown, 1, kind=kind), expected if kind == "membrane" else ~expected)
    fused = fuse(shown, 0.4, kind=kind)
    np.testing.assert_allclose(fused if kind == "membrane" else 1 - fused, 0.4 * p_w + 0.6 * p, atol=1e-6)


def test_a_section_without_two_basins_has_no_contour() -> None:
    for value in (0.0, 0.5, 1.0):
        assert not contour(np.full((1, 6, 7), value, np.float32)).any()
    assert not contour(np.full((2, 1, 1), 0.2, np.float32)).any()


@pytest.mark.parametrize("channel", ["membrane", "mito"])
def test_channels_still_sum_to_1_and_keep_their_proportions(channel: str) -> None:
    rng = np.random.default_rng(1)
    p = rng.dirichlet([1, 1, 1], (2, 30, 31)).astype(np.float32)
    p[0, 5, 5:9] = [0, 1, 0], [0, 0, 1], [1, 0, 0], [0.5, 0.5, 0]
    before = p.copy()
    stack = Stack(p, "probabilities", classes=("background", "membrane", "mito"))
    fused = apply_chain(chain(channel=channel, weight=0.3), stack).data
    np.testing.assert_array_equal(p, before)
    assert fused.dtype == np.float32
    assert fused.min() >= 0
    np.testing.assert_allclose(fused.sum(-1), 1, atol=1e-5)
    c = stack.channel(channel)
    np.testing.assert_array_equal(fused[..., c], fuse(p[..., c], 0.3))
    a, b = (i for i in range(3) if i != c)
    np.testing.assert_allclose(fused[..., a] * p[..., b], fused[..., b] * p[..., a], atol=1e-5)
    np.testing.assert_array_equal(apply_chain(chain(channel=channel, weight=0), stack).data, p)


def test_blocks_do_not_matter_and_ground_truth_stays() -> None:
    stack = stack_of(membranes(5), labelled=(1, 3))
    whole = apply_chain(chain(weight=0.3), stack)
    np.testing.assert_array_equal(whole.data[[1, 3]], stack.data[[1, 3]])
    assert (whole.data[[0, 2, 4]] != stack.data[[0, 2, 4]]).any((1, 2, 3)).all()
    lazy = apply_chain(chain(weight=0.3), replace(stack, data=da.from_array(stack.data, chunks=(2, 17, 13, 1))))
    assert lazy.lazy
    np.testing.assert_array_equal(lazy.data.compute(), whole.data)


def test_more_than_two_classes_must_be_named() -> None:
    stack = Stack(np.full((1, 4, 4, 3), 1 / 3, np.float32), "probabilities", classes=("background", "a", "b"))
    with pytest.raises(ConfigError, match="name the one that is membrane"):
        apply_chain(chain(), stack)
    with pytest.raises(ConfigError, match="Did you mean 'a'"):
        apply_chain(chain(channel="aa"), stack)


@pytest.mark.parametrize("kind", ["membrane", "object"])
def test_the_fitted_weight_is_the_smallest_that_closes_the_gap(kind: str) -> None:
    p = np.repeat(gapped(), 2, 0)
    truth = np.zeros(p.shape, np.uint8)
    truth[:, :, 4] = 1
    if kind == "object":
        p, truth = 1 - p, 1 - truth
    fitted = fit_weight(p, truth, kind=kind)
    assert fitted.weight == pytest.approx(0.3)  # 0.3 + 0.7 w >= 0.5 from w = 0.286 on
    weights, errors = zip(*fitted.curve, strict=True)
    np.testing.assert_allclose(weights, np.arange(21) / 20)
    assert errors[0] > 0.3
    assert errors[6] == pytest.approx(0, abs=1e-12)


def test_a_fit_needs_objects_and_weights() -> None:
    p = gapped()
    for value in (1, 255):
        with pytest.raises(DataError, match="annotated"):
            fit_weight(p, np.full(p.shape, value, np.uint8), kind="membrane")
    with pytest.raises(ConfigError, match="between 0 and 1"):
        fit_weight(p, np.zeros(p.shape, np.uint8), kind="membrane", grid=(0, 1.5))
    with pytest.raises(DataError, match="between 0 and 1"):
        fit_weight(p * 255, np.zeros(p.shape, np.uint8), kind="membrane")


@pytest.mark.parametrize("shape", [(31, 40), (1, 50), (50, 1), (9, 11, 12)])
@pytest.mark.parametrize("levels", [4, 60, None])
@pytest.mark.parametrize("depth", [0.02, 0.1, 0.5])
def test_deep_minima_are_those_of_scikit_image(shape: tuple[int, ...], levels: int | None, depth: float) -> None:
    rng = np.random.default_rng(len(shape))
    height = ndimage.gaussian_filter(rng.random(shape), 0.7).astype(np.float32)
    height = (height - height.min()) / np.ptp(height)
    height = (np.round(height * levels) / levels if levels else height).astype(np.float32)
    footprint = ndimage.generate_binary_structure(len(shape), 1)
    np.testing.assert_array_equal(deep_minima(height, depth), h_minima(height, depth, footprint=footprint) > 0)


def test_deep_minima_of_real_membranes(real_data: Path) -> None:
    import tifffile

    labels = tifffile.imread(real_data / "vnc_sstem" / "labels.tif", key=0)[:300, :300]
    height = ndimage.gaussian_filter((labels == 1).astype(np.float32), 2)
    np.testing.assert_array_equal(deep_minima(height, 0.05), h_minima(height, 0.05, footprint=CROSS) > 0)


def test_a_flat_landscape_is_one_minimum() -> None:
    assert deep_minima(np.full((4, 5), 0.3, np.float32), 0.05).all()
    ramp = np.linspace(0, 0.01, 20, dtype=np.float32)[None]
    np.testing.assert_array_equal(np.flatnonzero(deep_minima(ramp, 0.05)), [0])


def test_flood_by_section_is_each_section_alone() -> None:
    rng = np.random.default_rng(3)
    height = rng.random((3, 20, 21)).astype(np.float32)
    markers = (rng.random(height.shape) < 0.03) * rng.integers(1, 9, height.shape)
    mask = rng.random(height.shape) < 0.9
    for line in (False, True):
        both = flood(height, markers, mask, line=line, sections=True)
        assert both.dtype == np.uint32
        for z in range(3):
            np.testing.assert_array_equal(both[z], flood(height[z], markers[z], mask[z], line=line))
    with pytest.raises(DataError, match="differ in shape"):
        flood(height, markers[:2])
    with pytest.raises(DataError, match="NaN"):
        flood(np.full((3, 3), np.nan), np.ones((3, 3), int))
