"""The one place that says how kernels are compiled: cached on disk, single-threaded, without the GIL."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
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


def thread_count() -> int:
    """Return how many threads there are to work with: ``NUMBA_NUM_THREADS``, all cores by default."""
    return int(vars(config)["NUMBA_NUM_THREADS"])


def in_threads(function: Callable[[S], T], items: Iterable[S]) -> list[T]:
    """Apply ``function`` to each item on ``NUMBA_NUM_THREADS`` threads (all cores by default), in order."""
    work = list(items)
    threads = min(thread_count(), len(work))
    if threads < 2:
        return [function(item) for item in work]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(function, work))


def in_bands(function: Callable[[int, int], object], length: int, threads: int) -> None:
    """Apply ``function(begin, end)`` to as many bands of ``length`` rows or columns as there are threads."""
    ends = [length * i // threads for i in range(threads + 1)]
    in_threads(lambda band: function(*band), [band for band in pairwise(ends) if band[0] < band[1]])
