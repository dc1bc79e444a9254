"""Batches prepared ahead in threads, in order and always the same."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Self

from napari_em_da.sampling.sample import Sample
from napari_em_da.sampling.sampler import Sampler


class Prefetch:
    """Iterates over the batches of a range of steps, one sample per stream, prepared ahead in threads.

    Parameters
    ----------
    samplers : mapping of stream name to Sampler
    steps : iterable of int
    threads : int
        0 draws when asked.
    depth : int
        Most batches held ready or in preparation.

    Notes
    -----
    Batches come in the order of ``steps`` and are the same for any number of threads. An exception of a draw is
    raised by the ``next`` that would have returned that batch. Close it, or use it as a context manager.
    """

    def __init__(
        self, samplers: Mapping[str, Sampler], steps: Iterable[int], *, threads: int = 1, depth: int = 4
    ) -> None:
        self._samplers = dict(samplers)
        self._steps = iter(steps)
        self._depth = max(depth, threads, 1)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="sampling") if threads else None
        self._ahead: deque[Future[dict[str, Sample]]] = deque()

    def __iter__(self) -> Iterator[dict[str, Sample]]:
        return self

    def __next__(self) -> dict[str, Sample]:
        if self._pool is None:
            return self._draw(next(self._steps))
        for step in itertools.islice(self._steps, self._depth - len(self._ahead)):
            self._ahead.append(self._pool.submit(self._draw, step))
        if not self._ahead:
            raise StopIteration
        return self._ahead.popleft().result()

    def close(self) -> None:
        """Drop what is prepared and join the threads; iterating further ends at once."""
        self._steps = iter(())
        self._ahead.clear()
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _draw(self, step: int) -> dict[str, Sample]:
        return {name: sampler.draw(step) for name, sampler in self._samplers.items()}
