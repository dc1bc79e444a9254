"""Random piecewise affine deformation: the nodes of a coarse grid move, and each triangle between them is affine."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
TRIES = 20


def piecewise_affine_displacement(
    shape: tuple[int, int], strength: float, rng: np.random.Generator, nodes: int = 4
) -> Array:
    """Draw a displacement field that is affine inside each triangle and folds nowhere.

    Node displacements are normal with standard deviation ``strength * (Y, X)``.

    Parameters
    ----------
    shape : (Y, X)
        In pixels.
    strength : float
        Fraction of the window; 0 is the identity.
    rng : numpy Generator
    nodes : int
        Per side, corners included.

    Returns
    -------
    (2, Y, X) float32
        Displacement (y, x) in pixels, to be added to the sampling positions.

    Notes
    -----
    A draw in which any triangle turns over is drawn again. After 20 such draws the strength is halved, so that
    no strength loops for ever.
    """
    sigma = strength * np.asarray(shape, float)
    while True:
        for _ in range(TRIES):
            moved = rng.normal(size=(nodes, nodes, 2)) * sigma
            if not folds(moved, shape):
                return interpolate_nodes(moved, shape)
        sigma = sigma / 2


def interpolate_nodes(displacement: Array, shape: tuple[int, int]) -> Array:
    """Interpolate node displacements linearly inside each triangle.

    Parameters
    ----------
    displacement : (n, n, 2)
        Of the nodes (y, x), which span the window from its first to its last pixel.
    shape : (Y, X)

    Returns
    -------
    (2, Y, X) float32

    Notes
    -----
    A regular grid leaves the diagonal of a Delaunay triangulation open; here it always runs from a cell's upper
    right to its lower left node.
    """
    corners, weights = _triangles(shape, displacement.shape[0])
    flat = np.ascontiguousarray(displacement.reshape(-1, 2).T, dtype=np.float32)  # 2, n²
    field = weights[0] * flat[:, corners[0]]
    for k in (1, 2):
        field += weights[k] * flat[:, corners[k]]
    return np.asarray(field, np.float32)


def folds(displacement: Array, shape: tuple[int, int]) -> bool:
    """Tell whether any triangle of the displaced (n, n, 2) nodes has turned over or collapsed."""
    n = displacement.shape[0]
    at = displacement + np.stack(
        np.meshgrid(*(np.linspace(0, max(length - 1, 1), n) for length in shape), indexing="ij"), axis=-1
    )
    upper = _cross(at[1:, :-1] - at[:-1, :-1], at[:-1, 1:] - at[:-1, :-1])
    lower = _cross(at[:-1, 1:] - at[1:, 1:], at[1:, :-1] - at[1:, 1:])
    return bool((upper <= 0).any() or (lower <= 0).any())


def _cross(a: Array, b: Array) -> Array:
    return np.asarray(a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0])


@lru_cache(maxsize=8)
def _triangles(shape: tuple[int, int], nodes: int) -> tuple[Array, Array]:
    """Node numbers (3, Y, X) and barycentric weights (3, 1, Y, X) of the triangle that holds each pixel."""
    cell, inside = [], []
    for length in shape:
        at = np.arange(length) * ((nodes - 1) / max(length - 1, 1))
        low = np.minimum(at.astype(np.intp), nodes - 2)
        cell.append(low)
        inside.append(at - low)
    a, b = np.meshgrid(*inside, indexing="ij")
    first = cell[0][:, None] * nodes + cell[1][None, :]  # upper left node
    upper = a + b <= 1
    corners = np.stack([np.where(upper, first, first + nodes + 1), first + nodes, first + 1])
    down = np.where(upper, a, 1 - b)  # weight of the lower left node
    right = np.where(upper, b, 1 - a)  # weight of the upper right node
    weights = np.stack([1 - down - right, down, right])[:, None].astype(np.float32)
    return corners, weights
