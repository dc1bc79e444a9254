"""Values of lazy arrays, computed without what other threads share."""

from __future__ import annotations

from typing import Any

import dask.array as da
import numpy as np
from dask.callbacks import Callback

from napari_em_da import Volume
from napari_em_da.lazy import computed


def refuse(*_: Any) -> None:
    raise KeyError("the bookkeeping of another thread")


def test_no_global_callback_of_dask_is_called() -> None:
    values = np.arange(24).reshape(2, 3, 4)
    lazy = da.from_array(values, chunks=1) + 1
    with Callback(start=refuse, pretask=refuse, posttask=refuse, finish=refuse):
        np.testing.assert_array_equal(computed(lazy), values + 1)
        np.testing.assert_array_equal(Volume.from_array(lazy).read((slice(0, 1),)), values[:1] + 1)


def test_other_arrays_stay_as_they_are() -> None:
    values = np.arange(3)
    assert computed(values) is values
