"""How the phantoms' tissue grows: neurites, mitochondria and vesicles as distance fields in nanometres."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numba
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_em_da.volume import VoxelSize

Float = npt.NDArray[np.float32]
Int = npt.NDArray[np.int32]
MITO_GAP_NM = 30.0  # cytoplasm between a mitochondrion and the membrane of its cell
VESICLE_NM = 21.0  # radius
VESICLE_STEPS, GRAIN, CRISTAE = np.float32(4), np.float32(32), np.float32(255)  # per nm, per deviation, per unit


@dataclass(frozen=True)
class Brightness:
    """How bright each part is, from 0 (black) to 1 (white), and how wide membranes look."""

    cytoplasm: float
    membrane: float
    matrix: float
    cristae: float
    lumen: float
    texture: float
    cell_contrast: float
    membrane_nm: float


@dataclass(frozen=True, eq=False)
class Tissue:
    """Distance fields (nm, positive inside) and identities, all (Z, Y, X).

    ``boundary`` is the distance to the nearest other neurite's territory; ``mito_depth`` and ``vesicle`` (in quarters
    of a nm) are negative outside their organelles; ``cristae`` runs from 0 to 255; ``grain`` is noise of mean 0 and
    deviation 32; ``tone`` holds one standard normal number per neurite.
    """

    voxel_nm: VoxelSize
    boundary: Float
    neurite: Int
    mito_depth: Float
    mito_id: Int
    cristae: npt.NDArray[np.uint8]
    vesicle: npt.NDArray[np.int8]
    grain: npt.NDArray[np.int8]
    tone: Float


def grow(
    shape: tuple[int, int, int],
    voxel_nm: VoxelSize,
    rng: np.random.Generator,
    *,
    neurite_nm: float,
    mitochondria: float,
    vesicles: float,
) -> Tissue:
    """Grow the tissue; see ``synthetic.phantom``."""
    voxel = np.array(voxel_nm, np.float32)
    warp = np.empty((3, *shape), np.float32)
    for axis in range(3):
        _bend(warp[axis], voxel_nm, neurite_nm, rng)
    margin = 3  # cells of the seed grid around the volume
    cells = tuple(int(np.ceil(n * v / neurite_nm)) + 2 * margin for n, v in zip(shape, voxel_nm, strict=True))
    seeds = (np.indices(cells).transpose(1, 2, 3, 0) + rng.uniform(0.12, 0.88, (*cells, 3)) - margin) * neurite_nm
    weight = (neurite_nm * rng.uniform(0, 0.5, cells)) ** 2  # heavier seeds claim more: calibres differ
    following, neurite = _chains(cells, rng)
    boundary, owner = _territories(
        shape, voxel, neurite_nm, margin, seeds.astype(np.float32), weight.astype(np.float32), neurite, warp
    )
    depth, mito_id = np.full(shape, -1e4, np.float32), np.zeros(shape, np.int32)
    cristae = np.zeros(shape, np.uint8)
    rough = smooth_noise(shape, voxel_nm, 90.0, rng)
    for number, (points, radius, period, tilt) in enumerate(_mitochondria(seeds, following, mitochondria, rng), 1):
        cell = neurite[points[3]]
        _place(number, cell, np.stack(points[:3]).astype(np.float32), radius, period, tilt, voxel, warp, rough,
               boundary, owner, depth, mito_id, cristae)  # fmt: skip
    vesicle = np.full(shape, -128, np.int8)
    for centres in _vesicles(shape, voxel, vesicles, boundary, owner, depth, rng):
        _spheres(centres, voxel, vesicle)
    grain = np.clip(smooth_noise(shape, voxel_nm, 18.0, rng) * GRAIN, -127, 127).astype(np.int8)
    tone = rng.standard_normal(int(neurite.max()) + 1).astype(np.float32)
    return Tissue(voxel_nm, boundary, owner, depth, mito_id, cristae, vesicle, grain, tone)


def smooth_noise(shape: tuple[int, ...], voxel_nm: VoxelSize, scale_nm: float, rng: np.random.Generator) -> Float:
    """Return noise of mean 0, deviation about 1 and features of ``scale_nm``: cubic interpolation of a coarse grid."""
    coarse = tuple(int(np.ceil(n * v / scale_nm)) + 4 for n, v in zip(shape, voxel_nm, strict=True))
    grid = rng.standard_normal(coarse, np.float32)
    at = (np.arange(shape[0]) + 0.5) * (voxel_nm[0] / scale_nm) + 1
    slabs = ndimage.spline_filter1d(grid, 3, axis=0, mode="mirror")
    out = np.empty(shape, np.float32)
    y, x = voxel_nm[1] / scale_nm, voxel_nm[2] / scale_nm
    matrix = np.array([[x, 0, 1 + x / 2], [0, y, 1 + y / 2]], np.float32)
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    for z, height in enumerate(at):
        base = int(height)
        t = height - base
        taps = np.array([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3]) / 6
        plane = np.tensordot(taps, slabs[base - 1 : base + 3], 1).astype(np.float32)
        out[z] = cv2.warpAffine(plane, matrix, (shape[2], shape[1]), flags=flags, borderMode=cv2.BORDER_REFLECT)
    return out


def _bend(out: Float, voxel_nm: VoxelSize, neurite_nm: float, rng: np.random.Generator) -> None:
    """Fill in the displacement along one axis in nm: broad bends plus ripples, so that no membrane is straight."""
    out[...] = 0
    for scale, amplitude in ((neurite_nm, 0.17 * neurite_nm), (0.5 * neurite_nm, 0.08 * neurite_nm), (110.0, 9.0)):
        part = smooth_noise(out.shape, voxel_nm, scale, rng)
        part *= np.float32(amplitude)
        out += part


def _chains(cells: tuple[int, ...], rng: np.random.Generator) -> tuple[npt.NDArray[np.int64], Int]:
    """Join seeds to neurites: paths through the seed grid that prefer to go straight on.

    Returns
    -------
    following : (gz, gy, gx, 3)
        Grid index of the next seed of the path, or -1.
    neurite : (gz, gy, gx)
        Number of each seed's neurite, from 1.
    """
    following = np.full((*cells, 3), -1)
    neurite = np.zeros(cells, np.int32)
    free = [tuple(index) for index in rng.permutation(np.argwhere(neurite == 0))]
    number = 0
    for start in free:
        if neurite[start]:
            continue
        number += 1
        neurite[start] = number
        here, heading = np.array(start), rng.standard_normal(3)
        for _ in range(int(rng.geometric(0.16)) - 1):
            steps = rng.integers(-1, 2, (8, 3))
            steps = steps[np.argsort(-(steps @ heading) / (1e-6 + np.linalg.norm(steps, axis=1)))]
            there = next((here + s for s in steps if s.any() and _is_free(here + s, neurite)), None)
            if there is None:
                break
            following[tuple(here)] = there
            neurite[tuple(there)] = number
            here, heading = there, 0.5 * heading + (there - here)
    return following, neurite


def _is_free(index: npt.NDArray[np.int64], taken: Int) -> bool:
    inside = bool((index >= 0).all() and (index < taken.shape).all())
    return inside and not taken[tuple(index)]


@numba.njit(cache=True, fastmath=False)
def _territories(shape, voxel, spacing, margin, seeds, weight, neurite, warp):  # type: ignore[no-untyped-def]
    """For each voxel the neurite of the heaviest-nearest seed and the distance to the next neurite's territory."""
    boundary = np.empty(shape, np.float32)
    owner = np.empty(shape, np.int32)
    last = np.array(seeds.shape[:3]) - 2
    for z in range(shape[0]):
        for y in range(shape[1]):
            for x in range(shape[2]):
                pz = (z + np.float32(0.5)) * voxel[0] + warp[0, z, y, x]
                py = (y + np.float32(0.5)) * voxel[1] + warp[1, z, y, x]
                px = (x + np.float32(0.5)) * voxel[2] + warp[2, z, y, x]
                cz = min(max(int(np.floor(pz / spacing)) + margin, 1), last[0])
                cy = min(max(int(np.floor(py / spacing)) + margin, 1), last[1])
                cx = min(max(int(np.floor(px / spacing)) + margin, 1), last[2])
                e1, e2 = np.float32(1e12), np.float32(1e12)
                n1, n2 = -1, -1
                az, ay, ax = cz, cy, cx
                bz, by, bx = cz, cy, cx
                for iz in range(cz - 1, cz + 2):
                    for iy in range(cy - 1, cy + 2):
                        for ix in range(cx - 1, cx + 2):
                            dz = pz - seeds[iz, iy, ix, 0]
                            dy = py - seeds[iz, iy, ix, 1]
                            dx = px - seeds[iz, iy, ix, 2]
                            e = dz * dz + dy * dy + dx * dx - weight[iz, iy, ix]
                            if e >= e2:
                                continue
                            n = neurite[iz, iy, ix]
                            if e < e1:
                                if n != n1:
                                    e2, n2 = e1, n1
                                    bz, by, bx = az, ay, ax
                                e1, n1 = e, n
                                az, ay, ax = iz, iy, ix
                            elif n != n1:
                                e2, n2 = e, n
                                bz, by, bx = iz, iy, ix
                gz = seeds[az, ay, ax, 0] - seeds[bz, by, bx, 0]
                gy = seeds[az, ay, ax, 1] - seeds[bz, by, bx, 1]
                gx = seeds[az, ay, ax, 2] - seeds[bz, by, bx, 2]
                apart = np.sqrt(gz * gz + gy * gy + gx * gx)
                boundary[z, y, x] = (e2 - e1) / (2 * apart) if n2 >= 0 else np.float32(1e4)
                owner[z, y, x] = n1
    return boundary, owner


def _mitochondria(
    seeds: npt.NDArray[np.float64], following: npt.NDArray[np.int64], chance: float, rng: np.random.Generator
) -> list[tuple[Any, float, float, Float]]:
    """Choose curved axes (start, bend, end, seed index), radii, crista spacings and directions."""
    found = []
    for index in np.ndindex(*seeds.shape[:3]):
        draw, radius, period = rng.random(), rng.uniform(105, 185), rng.uniform(52, 75)
        direction, tilt = rng.standard_normal(3), rng.standard_normal(3)
        if draw >= chance:
            continue
        centre, after = seeds[index], following[index]
        along = seeds[tuple(after)] - centre if after[0] >= 0 else direction
        along = along / np.linalg.norm(along)
        half = rng.uniform(0.6, 2.2) * radius
        bend = centre + rng.normal(0, 0.25, 3) * radius
        tilt = 0.35 * tilt + along * rng.choice([0.0, 1.0])  # lengthwise or crosswise lamellae
        points = (bend - half * along, bend, bend + half * along, index)
        found.append((points, radius, period, (tilt / np.linalg.norm(tilt)).astype(np.float32)))
    return found


@numba.njit(cache=True)
def _place(number, cell, points, radius, period, tilt, voxel, warp, rough,  # type: ignore[no-untyped-def]
           boundary, owner, depth, mito_id, cristae):  # fmt: skip
    """Grow one mitochondrion along a bent axis, kept inside its neurite."""
    shape = depth.shape
    reach = np.float32(1.3 * radius + 260)  # the warp moves it further than its radius
    low, high = np.empty(3, np.int64), np.empty(3, np.int64)
    for a in range(3):
        least = min(points[0, a], points[1, a], points[2, a]) - reach
        most = max(points[0, a], points[1, a], points[2, a]) + reach
        low[a] = max(0, int(least / voxel[a]))
        high[a] = min(shape[a], int(most / voxel[a]) + 1)
    p = np.empty(3, np.float32)
    for z in range(low[0], high[0]):
        for y in range(low[1], high[1]):
            for x in range(low[2], high[2]):
                if owner[z, y, x] != cell:
                    continue
                p[0] = (z + 0.5) * voxel[0] + warp[0, z, y, x]
                p[1] = (y + 0.5) * voxel[1] + warp[1, z, y, x]
                p[2] = (x + 0.5) * voxel[2] + warp[2, z, y, x]
                nearest = np.float32(1e12)
                for s in range(2):
                    dot, length = np.float32(0), np.float32(0)
                    for a in range(3):
                        side = points[s + 1, a] - points[s, a]
                        dot += (p[a] - points[s, a]) * side
                        length += side * side
                    t = min(max(dot / length, np.float32(0)), np.float32(1))
                    d = np.float32(0)
                    for a in range(3):
                        off = p[a] - points[s, a] - t * (points[s + 1, a] - points[s, a])
                        d += off * off
                    nearest = min(nearest, d)
                here = radius * (1 + 0.10 * rough[z, y, x]) - np.sqrt(nearest)
                here = min(here, boundary[z, y, x] - MITO_GAP_NM)
                if here > depth[z, y, x]:
                    depth[z, y, x] = here
                    mito_id[z, y, x] = number
                    along = (p[0] - points[1, 0]) * tilt[0] + (p[1] - points[1, 1]) * tilt[1]
                    along += (p[2] - points[1, 2]) * tilt[2]
                    wave = np.cos(2 * np.pi * (along / period + 0.22 * rough[z, y, x]))
                    cristae[z, y, x] = int(255 * min(max((wave - 0.25) * 2, 0.0), 1.0))


def _vesicles(
    shape: tuple[int, int, int], voxel: Float, density: float, boundary: Float, owner: Int, depth: Float,
    rng: np.random.Generator,
) -> list[Float]:  # fmt: skip
    """Return the centres (nm) of each cluster's vesicles: inside one neurite, apart from one another."""
    extent = np.array(shape) * voxel
    clusters = []
    for _ in range(rng.poisson(density * float(np.prod(extent)) * 1e-9)):
        middle = rng.uniform(0, 1, 3) * extent
        at = tuple((middle / voxel).astype(int))
        spread = rng.uniform(90, 170)
        points = middle + spread * rng.standard_normal((rng.integers(60, 260), 3))
        if boundary[at] < 60:
            continue
        points = points[((points >= 0) & (points < extent)).all(1)]
        where = tuple((points / voxel).astype(int).T)
        fits = (owner[where] == owner[at]) & (boundary[where] > VESICLE_NM + 12) & (depth[where] < -VESICLE_NM - 6)
        kept: list[npt.NDArray[Any]] = []
        for point in points[fits]:
            if not kept or ((np.array(kept) - point) ** 2).sum(1).min() > (2.1 * VESICLE_NM) ** 2:
                kept.append(point)
        if kept:
            clusters.append(np.array(kept, np.float32))
    return clusters


@numba.njit(cache=True)
def _spheres(centres, voxel, depth):  # type: ignore[no-untyped-def]
    """Raise ``depth`` (in steps) to the distance below each sphere's surface."""
    shape = depth.shape
    reach = np.float32(VESICLE_NM + 12)
    for i in range(len(centres)):
        cz, cy, cx = centres[i, 0], centres[i, 1], centres[i, 2]
        for z in range(max(0, int((cz - reach) / voxel[0])), min(shape[0], int((cz + reach) / voxel[0]) + 1)):
            for y in range(max(0, int((cy - reach) / voxel[1])), min(shape[1], int((cy + reach) / voxel[1]) + 1)):
                for x in range(max(0, int((cx - reach) / voxel[2])), min(shape[2], int((cx + reach) / voxel[2]) + 1)):
                    dz = (z + 0.5) * voxel[0] - cz
                    dy = (y + 0.5) * voxel[1] - cy
                    dx = (x + 0.5) * voxel[2] - cx
                    here = VESICLE_STEPS * (VESICLE_NM - np.sqrt(dz * dz + dy * dy + dx * dx))
                    depth[z, y, x] = max(depth[z, y, x], int(max(np.floor(here), -128)))


def paint(grown: Tissue, look: Brightness) -> Float:
    """Return the brightness (0 black, 1 white) of the tissue without optics or noise, (Z, Y, X) float32."""
    edge = 0.5 * max(grown.voxel_nm[1:])  # antialiasing over about a pixel
    painted: Float = _paint(
        grown.boundary, grown.neurite, grown.mito_depth, grown.cristae, grown.vesicle, grown.grain, grown.tone,
        np.float32(look.membrane_nm / 2), np.float32(edge),
        np.array([look.cytoplasm, look.membrane, look.matrix, look.cristae, look.lumen, look.texture,
                  look.cell_contrast], np.float32),
    )  # fmt: skip
    return painted


@numba.njit(cache=True)
def _ramp(value, edge):  # type: ignore[no-untyped-def]
    """0 below -edge, 1 above edge, smooth between."""
    t = min(max((value + edge) / (2 * edge), np.float32(0)), np.float32(1))
    return t * t * (3 - 2 * t)


@numba.njit(cache=True)
def _paint(boundary, neurite, depth, cristae, vesicle, grain, tone, half, edge, levels):  # type: ignore[no-untyped-def]
    out = np.empty(boundary.shape, np.float32)
    cytoplasm, membrane, matrix, crista, lumen, texture, contrast = levels
    for z in range(out.shape[0]):
        for y in range(out.shape[1]):
            for x in range(out.shape[2]):
                speck = texture * grain[z, y, x] / GRAIN
                value = cytoplasm + contrast * tone[neurite[z, y, x]] + speck
                m = depth[z, y, x]
                if m > -edge:
                    inside = matrix + 0.5 * speck
                    inside += (crista - inside) * cristae[z, y, x] / CRISTAE * _ramp(m - 34, np.float32(8))
                    value += (inside - value) * _ramp(m, edge)
                    shell = _ramp(m, edge) * (1 - _ramp(m - 15, edge))  # the outer membrane, dark
                    value += (membrane + 0.06 - value) * 0.85 * shell
                v = vesicle[z, y, x] / VESICLE_STEPS
                if v > -edge:
                    value += (lumen - value) * _ramp(v - 10, edge)
                    ring = _ramp(v, edge) * (1 - _ramp(v - 10, edge))
                    value += (membrane + 0.05 - value) * 0.8 * ring
                b = boundary[z, y, x]
                value += (membrane - value) * (1 - _ramp(b - half, max(edge, np.float32(0.5) * half)))
                out[z, y, x] = value
    return out
