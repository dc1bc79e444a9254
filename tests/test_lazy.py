"""Values of lazy arrays, computed without what other threads share."""

from __future__ import annotations

import pickle
from typing import Any

import dask.array as da
import numpy as np
from dask.callbacks import Callback
from dask.delayed import delayed

from napari_em_da import Volume
from napari_em_da.lazy import computed, once


def refuse(*_: Any) -> None:
    raise KeyError("the bookkeeping of another thread")


def test_no_global_callback_of_dask_is_called() -> None:
    values = np.arange(24).reshape(2, 3, 4)
    lazy = da.from_array(values, chunks=1) + 1
    with Callback(start=refuse, pretask=refuse, posttask=refuse, finish=refuse):
        np.testing.assert_array_equal(computed(lazy), values + 1)
        np.testing.assert_array_equal(Volume.from_array(lazy).read((slice(0, 1),)), values[:1] + 1)


def test_what_a_map_is_scaled_by_is_computed_once() -> None:
    reads = []

    def look(block: np.ndarray, block_info: Any = None) -> np.ndarray:
        reads.append(block_info[0]["chunk-location"])
        return block

    values = np.arange(1, 61, dtype=np.float64).reshape(3, 4, 5)
    source = da.from_array(values, chunks=(1, 4, 5))
    scaled = source / once(source.map_blocks(look, meta=np.empty((0, 0, 0))).max(), np.float64)
    assert not reads, "nothing is read before it is asked for"
    found = [computed(scaled[z]) for z in range(3)]
    np.testing.assert_array_equal(found, values / 60)
    assert sorted(reads) == [(0, 0, 0), (1, 0, 0), (2, 0, 0)]


def test_it_can_be_any_object_and_travel() -> None:
    total = delayed(dict)([("a", (1, 2))])
    lazy = pickle.loads(pickle.dumps(once(total, object)))
    taken = da.map_blocks(lambda block, table: block + table["a"][1], da.zeros(2, chunks=1), lazy, dtype=float)
    np.testing.assert_array_equal(computed(taken), [2, 2])


def test_other_arrays_stay_as_they_are() -> None:
    values = np.arange(3)
    assert computed(values) is values
