"""The one place that says how kernels are compiled: cached on disk, single-threaded, without the GIL."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar, cast

import numba
from numba.core import config

F = TypeVar("F", bound=Callable[..., object])
S = TypeVar("S")
T = TypeVar("T")


def compiled(function: F) -> F:
    """Compile a kernel on first use.

    Notes
    -----
    Kernels are sequential and threads run one section each. numba's own parallel loops may abort the process where
    two threads enter them at once (its fallback threading layer), and that is just what dask does.
    """
    return cast(F, numba.njit(cache=True, nogil=True)(function))


def in_threads(function: Callable[[S], T], items: Iterable[S]) -> list[T]:
    """Apply ``function`` to each item on ``NUMBA_NUM_THREADS`` threads (all cores by default), in order."""
    work = list(items)
    threads = min(int(vars(config)["NUMBA_NUM_THREADS"]), len(work))
    if threads < 2:
        return [function(item) for item in work]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(function, work))
