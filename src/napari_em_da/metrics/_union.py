"""Disjoint sets: which of many pieces belong together, told from pairs that do. Nothing here holds the interpreter."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import numpy.typing as npt

Table = npt.NDArray[Any]


def united(total: int, first: Table, second: Table) -> npt.NDArray[np.int64]:
    """Return the set of each of ``total`` pieces, counted from 0 in the order of their first pieces.

    Parameters
    ----------
    first, second : (n,) integers from 0 to total - 1
        Pairs of pieces that belong together.

    References
    ----------
    Tarjan (1975), Efficiency of a good but not linear set union algorithm.
    """
    parent = np.arange(total)
    _unite(parent, first, second)
    roots(parent)
    number: npt.NDArray[np.int64] = np.cumsum(parent == np.arange(total))[parent] - 1  # a set's root is its first piece
    return number


@numba.njit(nogil=True, cache=True)
def root(parent, node):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Return the root of a piece, and shorten the way to it."""
    while parent[node] != node:
        parent[node] = parent[parent[node]]
        node = parent[node]
    return node


@numba.njit(nogil=True, cache=True)
def roots(parent):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Let every piece point to its root."""
    for node in range(parent.shape[0]):
        parent[node] = root(parent, node)
    return parent


@numba.njit(nogil=True, cache=True)
def _unite(parent, first, second):  # type: ignore[no-untyped-def]  # pragma: no cover
    for i in range(first.shape[0]):
        a, b = root(parent, np.int64(first[i])), root(parent, np.int64(second[i]))
        if a != b:
            parent[max(a, b)] = min(a, b)
