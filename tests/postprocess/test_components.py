"""Connected components as a step: classes, sections, and one id through eight blocks."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
from scipy import ndimage

from napari_em_da.config import ChainConfig
from napari_em_da.errors import ConfigError
from napari_em_da.postprocess import Stack, apply_chain

NAMES = ("background", "cell", "mito")


def found(data, **options):
    return apply_chain(ChainConfig(steps=[{"components": options}]), Stack(data, "labels", classes=NAMES))


def same_partition(a, b):
    pairs = np.unique(np.stack([np.ravel(a), np.ravel(b)], 1), axis=0)
    return len(pairs) == len(np.unique(a)) == len(np.unique(b)) and ((pairs > 0).all(1) | (pairs == 0).all(1)).all()


def expected(labels, classes=(1, 2), connectivity=1, sections=False):
    """Label each class with scipy, in sections or as a whole, and number the pieces through."""
    structure = ndimage.generate_binary_structure(3, connectivity)
    if sections:
        structure[[0, 2]] = False
    out = np.zeros(labels.shape, np.int64)
    for number in classes:
        pieces = ndimage.label(labels == number, structure)[0]
        out[pieces > 0] = pieces[pieces > 0] + out.max()
    return out


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("connectivity", [1, 3])
@pytest.mark.parametrize("sections", [False, True])
def test_components_agree_with_scipy_in_memory_and_in_blocks(seed, connectivity, sections):
    rng = np.random.default_rng(seed)
    shape = tuple(int(n) for n in rng.integers(1, 24, 3))
    labels = rng.choice(np.array([0, 1, 2, 255], np.uint8), shape, p=(0.5, 0.3, 0.15, 0.05))
    before = labels.copy()
    options = {"connectivity": connectivity, "sections": sections}
    truth = expected(labels, connectivity=connectivity, sections=sections)
    whole = found(labels, **options)
    chunks = tuple(int(n) for n in rng.integers(1, 9, 3))
    blocks = found(da.from_array(labels, chunks=chunks), **options)
    assert whole.holds == blocks.holds == "instances" and (labels == before).all()
    assert same_partition(whole.data, truth)
    assert same_partition(blocks.data.compute(), truth)


def test_chosen_classes_only():
    labels = np.array([[[1, 1, 2, 2, 0, 1, 255]]], np.uint8)
    assert same_partition(found(labels, classes=["cell"]).data, [[[1, 1, 0, 0, 0, 2, 0]]])
    assert same_partition(found(labels).data, [[[1, 1, 2, 2, 0, 3, 0]]])
    assert same_partition(found(labels, classes=["background", "mito"]).data, [[[0, 0, 1, 1, 2, 0, 0]]])
    with pytest.raises(ConfigError, match="Did you mean 'mito'"):
        found(labels, classes=["mitos"])


def test_an_object_through_eight_blocks_has_one_id():
    labels = np.zeros((8, 8, 8), np.uint8)
    labels[2:6, 2:6, 2:6] = 1
    labels[0, 0, 0] = 1
    result = found(da.from_array(labels, chunks=(4, 4, 4))).data
    assert hasattr(result, "dask")
    assert np.unique(result.compute()[2:6, 2:6, 2:6]).size == 1
    assert same_partition(result.compute(), ndimage.label(labels)[0])


def test_an_empty_volume_has_no_objects():
    assert not found(np.zeros((1, 3, 3), np.uint8)).data.any()
    assert not found(da.zeros((2, 3, 3), chunks=(1, 2, 2), dtype=np.uint8)).data.compute().any()
