"""Values of lazy arrays."""

from __future__ import annotations

import threading
from typing import Any


def computed(array: Any, scheduler: str = "synchronous") -> Any:
    """Return the values of a dask array, computed in the calling thread by default; any other array as it is.

    Notes
    -----
    dask's global callbacks are left out: napari registers a cache among them for its own slicing, all threads share it,
    and when two compute at once its bookkeeping fails with a KeyError in either of them.
    """
    return array.compute(scheduler=scheduler, callbacks=()) if hasattr(array, "compute") else array


def once(value: Any, dtype: Any) -> Any:
    """Return a dask array of no axes whose value, a Delayed or such an array, is computed once, when first asked for.

    A map that is read section by section asks for what it is scaled by with every section; as a part of its graph that
    would be computed each time, from all sections.
    """
    import dask.array as da
    import numpy as np
    from dask.delayed import delayed

    return da.from_delayed(delayed(_Once(value))(), (), dtype, np.empty((), dtype))


class _Once:
    def __init__(self, value: Any) -> None:
        self.value = value
        self._lock = threading.Lock()
        self._found: list[Any] = []

    def __call__(self) -> Any:
        with self._lock:
            if not self._found:
                self._found.append(computed(self.value, "threads"))
        return self._found[0]

    def __reduce__(self) -> Any:
        return _Once, (self.value,)


__all__ = ["computed", "once"]
