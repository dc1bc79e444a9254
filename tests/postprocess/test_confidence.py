"""Pseudo-labels: confident, and continuous along z."""

from __future__ import annotations

from dataclasses import replace

import dask.array as da
import numpy as np
import pytest

from napari_em_da.config import ChainConfig
from napari_em_da.errors import ConfigError
from napari_em_da.postprocess import Stack, apply_chain
from napari_em_da.postprocess.confidence import confident


def chain(**options: object) -> ChainConfig:
    return ChainConfig(steps=[{"name": "confidence", "options": options}])


def random_stack(sections: int = 7, **kwargs: object) -> Stack:
    p = np.random.default_rng(0).dirichlet([0.4] * 3, (sections, 11, 12)).astype(np.float32)
    return Stack(p, "probabilities", classes=("background", "a", "b"), **kwargs)


def test_definition_voxel_by_voxel() -> None:
    p = random_stack().data
    result = confident(p, 0.8)
    best = p.argmax(-1)
    for z, y, x in np.ndindex(best.shape):
        near = [best[n, y, x] for n in (z - 1, z + 1) if 0 <= n < len(best)]
        accepted = p[z, y, x].max() >= np.float32(0.8) and best[z, y, x] in near
        assert result[z, y, x] == (best[z, y, x] if accepted else 255)
    assert 0.05 < (result != 255).mean() < 0.95


def test_the_level_itself_is_enough() -> None:
    p = np.broadcast_to(np.array([0.1, 0.9], np.float32), (2, 1, 1, 2))
    np.testing.assert_array_equal(confident(p, 0.9), np.ones((2, 1, 1)))
    np.testing.assert_array_equal(confident(p, 0.91), np.full((2, 1, 1), 255))


def test_one_section_has_no_continuity() -> None:
    stack = random_stack(1)
    with pytest.raises(ConfigError, match="continuity=False"):
        apply_chain(chain(), stack)
    result = apply_chain(chain(continuity=False, min_probability=0.7), stack).data
    expected = np.where(stack.data.max(-1) >= np.float32(0.7), stack.data.argmax(-1), 255)
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("continuity", [True, False])
@pytest.mark.parametrize("chunks", [(1, 11, 12, 3), (2, 5, 7, 1), (3, 4, 4, 2)])
def test_blocks_do_not_matter_and_ground_truth_is_accepted(chunks: tuple[int, ...], continuity: bool) -> None:
    stack = random_stack(labelled=(0, 4))
    options = {"continuity": continuity, "min_probability": 0.8}
    whole = apply_chain(chain(**options), stack)
    np.testing.assert_array_equal(whole.data[[0, 4]], stack.data[[0, 4]].argmax(-1))
    np.testing.assert_array_equal(whole.data[1:4], confident(stack.data, 0.8, continuity=continuity)[1:4])
    lazy = apply_chain(chain(**options), replace(stack, data=da.from_array(stack.data, chunks=chunks)))
    assert lazy.lazy
    assert lazy.data.dtype == np.uint8
    np.testing.assert_array_equal(lazy.data.compute(), whole.data)
