"""Values of lazy arrays."""

from __future__ import annotations

from typing import Any


def computed(array: Any) -> Any:
    """Return the values of a dask array, computed in the calling thread; any other array as it is.

    Notes
    -----
    dask's global callbacks are left out: napari registers a cache among them for its own slicing, all threads share it,
    and when two compute at once its bookkeeping fails with a KeyError in either of them.
    """
    return array.compute(scheduler="synchronous", callbacks=()) if hasattr(array, "compute") else array


__all__ = ["computed"]
