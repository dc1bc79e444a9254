"""Probabilities to classes: argmax, levels, ties, voxels without prediction."""

from __future__ import annotations

from dataclasses import replace

import dask.array as da
import numpy as np
import pytest

from napari_em_da.config import ChainConfig
from napari_em_da.errors import ConfigError, DataError
from napari_em_da.postprocess import Stack, apply_chain
from napari_em_da.postprocess.threshold import threshold

CLASSES = ("background", "mito", "vesicle")


def chain(**options: object) -> ChainConfig:
    return ChainConfig(steps=[{"name": "threshold", "options": options}])


def random_stack(seed: int = 0, shape: tuple[int, ...] = (3, 13, 17)) -> Stack:
    p = np.random.default_rng(seed).dirichlet([1, 1, 1], shape).astype(np.float32)
    return Stack(p, "probabilities", classes=CLASSES)


def test_the_most_probable_class_wins_by_default() -> None:
    stack = random_stack()
    before = stack.data.copy()
    result = apply_chain(chain(), stack)
    assert result.holds == "labels"
    assert result.data.dtype == np.uint8
    np.testing.assert_array_equal(result.data, stack.data.argmax(-1))
    np.testing.assert_array_equal(stack.data, before)


@pytest.mark.parametrize("level", [0.0, 0.3, 0.5, 1.0])
def test_one_level_of_two_classes_is_a_plain_threshold(level: float) -> None:
    p = np.random.default_rng(1).random((2, 9, 9)).astype(np.float32)
    p[0, 0, 0] = level
    stack = Stack(np.stack([1 - p, p], -1), "probabilities")
    np.testing.assert_array_equal(apply_chain(chain(level=level), stack).data, p > level)


def test_of_several_classes_above_their_level_the_largest_ratio_wins() -> None:
    stack = random_stack(2)
    levels = {"mito": 0.4, "vesicle": 0.1}
    result = apply_chain(chain(levels=levels), stack).data
    for voxel, p in zip(result.ravel(), stack.data.reshape(-1, 3).astype(float), strict=True):
        ratios = {c: p[c] / level for c, level in ((1, 0.4), (2, 0.1)) if p[c] > level}
        assert voxel == (max(ratios, key=lambda c: ratios[c]) if ratios else 0)


def test_a_class_without_a_level_takes_the_common_one_or_never_occurs() -> None:
    stack = random_stack(3)
    only = apply_chain(chain(levels={"vesicle": 0.2}), stack).data
    np.testing.assert_array_equal(only, np.where(stack.data[..., 2] > 0.2, 2, 0))
    both = apply_chain(chain(levels={"vesicle": 0.2}, level=0.2), stack).data
    np.testing.assert_array_equal(both, apply_chain(chain(level=0.2), stack).data)
    assert set(np.unique(both)) == {0, 1, 2}


def test_ties_go_to_the_smallest_class_and_nothing_predicted_stays_unlabelled() -> None:
    p = np.array([[0.4, 0.4, 0.2], [0.2, 0.4, 0.4], [0, 0, 0]], np.float32)
    np.testing.assert_array_equal(threshold(p), [0, 1, 255])
    np.testing.assert_array_equal(threshold(p, [None, 0.1, 0.1]), [1, 1, 255])
    np.testing.assert_array_equal(threshold(p, [None, 0.0, 0.0]), [1, 1, 255])


@pytest.mark.parametrize("options", [{}, {"level": 0.3}, {"levels": {"mito": 0.2, "vesicle": 0.4}}])
def test_blocks_do_not_matter(options: dict) -> None:
    stack = random_stack(4)
    lazy = apply_chain(chain(**options), replace(stack, data=da.from_array(stack.data, chunks=(2, 5, 7, 2))))
    assert lazy.lazy
    assert lazy.data.dtype == np.uint8
    np.testing.assert_array_equal(lazy.data.compute(), apply_chain(chain(**options), stack).data)


def test_wrong_names_are_told() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'mito'"):
        apply_chain(chain(levels={"mita": 0.2}), random_stack())
    with pytest.raises(ConfigError, match="is the background"):
        apply_chain(chain(levels={"background": 0.2}), random_stack())
    with pytest.raises(ConfigError, match="less than or equal to 1"):
        apply_chain(chain(level=1.5), random_stack())
    with pytest.raises(DataError, match="256 classes"):
        threshold(np.zeros((1, 1, 1, 256), np.float32))
