"""Multicut: distance-transform superpixels, joined where the cheapest consistent set of cuts leaves them together.

Superpixels (per section, or in 3D where voxels are nearly cubes) over-segment the volume; neighbours get a cost from
the mean membrane probability on the faces that they share, and the multicut chooses the partition of least cost over
the whole volume at once (Beier et al. 2017; Andres et al. 2012).
"""

from __future__ import annotations

import heapq
import importlib
from collections.abc import Generator
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from napari_em_da.config import Fraction, NonNegative, Options
from napari_em_da.errors import ConfigError, DataError
from napari_em_da.events import Progress
from napari_em_da.metrics._base import load, regions
from napari_em_da.postprocess._affinities import boundary_of
from napari_em_da.postprocess._base import Stack, Step, Work
from napari_em_da.postprocess._blocks import Blocks
from napari_em_da.postprocess._rag import Graph, adjacency, merged

Solver = Literal["kernighan_lin", "greedy"]
Array = npt.NDArray[np.float32]
Ids = npt.NDArray[Any]
CLIP = 1e-3  # edge probabilities are kept this far from 0 and 1, whose costs are infinite
ANISOTROPIC = 3.0  # from this ratio of section thickness to pixel on, superpixels are made per section


class MulticutOptions(Options):
    """Options of the multicut."""

    kind: Literal["membrane", "object"] = Field("membrane", description="What the class is: membranes, or objects")
    channel: str | None = Field(None, description="Name of that class; the second one of two if absent")
    beta: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.5, description="Prior of a boundary: larger cuts more, smaller joins more"
    )
    weight_by_size: bool = Field(False, description="Multiply the cost of a pair by the number of faces it shares")
    solver: Solver = Field("kernighan_lin", description="Greedy joining, with or without Kernighan-Lin's improvement")
    superpixels: Literal["auto", "sections", "volume"] = Field(
        "auto", description="Made per section or in 3D; auto: per section where voxels are 3 times thicker than wide"
    )
    threshold: Fraction = Field(0.5, description="Boundary probability from which on a voxel is boundary")
    smooth_px: NonNegative = Field(2.0, description="Gaussian sigma of the distance before its peaks are found")
    seed_distance_px: Annotated[int, Field(ge=1)] = Field(5, description="Smallest distance of two superpixel seeds")
    fill: bool = Field(True, description="Membranes go to the objects beside them; else, and for objects, they are 0")


def superpixels(
    boundary: Array,
    *,
    sections: bool,
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0),
    threshold: float = 0.5,
    smooth_px: float = 2.0,
    seed_distance_px: int = 5,
) -> npt.NDArray[np.uint32]:
    """Over-segment a boundary map by a watershed of the distance to its boundaries.

    Parameters
    ----------
    boundary : (Z, Y, X) float32 from 0 to 1
    sections : bool
        Each section for itself; its ids are its own.
    spacing : (z, y, x)
        In any unit; distances are measured in pixels in x.

    Returns
    -------
    (Z, Y, X) uint32
        Ids from 1; every voxel has one, boundaries too. All 0 in a section (or volume) without anything below the
        threshold.

    Notes
    -----
    Seeds are the peaks of the smoothed distance, and what has no peak is one seed as a whole. The flood rises from the
    middle of objects (minus the smoothed distance) to their boundaries (the probability).

    References
    ----------
    Beier et al. (2017), Multicut brings automated neurite segmentation closer to human performance.
    """
    if not sections:
        return _superpixels(boundary, spacing, threshold, smooth_px, seed_distance_px)
    out = np.zeros(boundary.shape, np.uint32)
    last = 0
    for z, section in enumerate(boundary):
        found = _superpixels(section, spacing[1:], threshold, smooth_px, seed_distance_px)
        out[z] = np.where(found > 0, found + np.uint32(last), 0)
        last = max(last, int(out[z].max()))
    return out


def _superpixels(
    boundary: Array, spacing: tuple[float, ...], threshold: float, smooth_px: float, seed_distance_px: int
) -> npt.NDArray[np.uint32]:
    import edt
    from scipy import ndimage
    from skimage.feature import peak_local_max

    from napari_em_da.postprocess._flood import flood

    inside = boundary < threshold
    if not inside.any():
        return np.zeros(boundary.shape, np.uint32)
    in_pixels = tuple(s / spacing[-1] for s in spacing)
    distance = edt.edt(np.ascontiguousarray(inside), anisotropy=in_pixels, black_border=False, parallel=1)
    np.minimum(distance, np.float32(sum(boundary.shape)), out=distance)  # it is infinite where nothing is boundary
    distance = ndimage.gaussian_filter(distance, [smooth_px / s for s in in_pixels])
    peaks = peak_local_max(distance, min_distance=seed_distance_px, exclude_border=False)
    seeds = np.zeros(boundary.shape, np.uint32)
    seeds[tuple(peaks.T)] = 1
    seeds *= inside
    parts, count = ndimage.label(inside)
    seeded = np.zeros(count + 1, np.bool_)
    seeded[parts[seeds > 0]] = True
    seeds, count = ndimage.label((seeds > 0) | ~(seeded[parts] | ~inside), np.ones((3,) * boundary.ndim))
    return flood(np.where(inside, -distance, boundary), seeds)


def edge_costs(graph: Graph, *, beta: float = 0.5, weight_by_size: bool = False) -> npt.NDArray[np.float64]:
    """Return what it costs to cut each pair: log((1 − e)/e) + log((1 − β)/β), positive where they attract.

    e is the mean boundary probability on the faces of the pair, kept within 0.001 and 0.999; β is the prior of a
    boundary. With ``weight_by_size`` times the number of faces, in units of the largest one.

    References
    ----------
    Andres et al. (2012), Globally optimal closed-surface segmentation for connectomics, section 2.
    """
    e = np.clip(graph.mean, CLIP, 1 - CLIP)
    costs: npt.NDArray[np.float64] = np.log((1 - e) / e) + np.log((1 - beta) / beta)
    return costs * (graph.size / graph.size.max(initial=1)) if weight_by_size else costs


def multicut(
    pairs: npt.NDArray[np.int64], costs: npt.NDArray[np.float64], nodes: int, *, solver: Solver = "kernighan_lin"
) -> npt.NDArray[np.int64]:
    """Partition a graph so that the costs of the cut pairs sum to little.

    Parameters
    ----------
    pairs : (E, 2) node numbers from 0, each pair once
    costs : (E,) float
        Positive: together; negative: apart.
    solver : "kernighan_lin" or "greedy"
        Greedy additive edge contraction, with or without Kernighan & Lin's exchanges of nodes after it. Both are
        heuristics. bioimage-cpp does both; without it, greedy is done here, slower and with the same answer.

    Returns
    -------
    (nodes,) int64
        Number of the part of each node, from 0, in the order of their first nodes.

    Raises
    ------
    ConfigError
        If Kernighan-Lin is asked for without bioimage-cpp.

    References
    ----------
    Keuper et al. (2015), Efficient decomposition of image and mesh graphs by lifted multicuts (both heuristics).
    """
    pairs = np.sort(pairs.astype(np.int64), axis=1)
    order = np.lexsort((pairs[:, 1], pairs[:, 0]))
    pairs, costs = pairs[order], costs[order]
    try:
        library = importlib.import_module("bioimage_cpp.graph")
    except ImportError:
        if solver != "greedy":
            raise ConfigError(
                "The solver kernighan_lin needs bioimage-cpp; pip install 'napari-em-da[instances]', "
                "or choose solver 'greedy'."
            ) from None
        return _in_order(greedy(pairs, costs, nodes))
    if not len(pairs):
        return np.arange(nodes)
    methods = library.multicut
    problem = library.UndirectedGraph.from_unique_edges(nodes, pairs.astype(np.uint64))
    solvers = [methods.GreedyAdditiveMulticut(), *([methods.KernighanLinMulticut()] if solver != "greedy" else [])]
    parts = methods.ChainedMulticutSolvers(solvers).optimize(methods.MulticutObjective(problem, costs))
    return _in_order(np.asarray(parts))


def greedy(pairs: npt.NDArray[np.int64], costs: npt.NDArray[np.float64], nodes: int) -> npt.NDArray[np.int64]:
    """Join the most attractive pair, sum the costs of pairs that so become one, and repeat while any attracts."""
    parent = list(range(nodes))
    near: list[dict[int, float]] = [{} for _ in range(nodes)]
    for (u, v), cost in zip(pairs.tolist(), costs.tolist(), strict=True):
        near[u][v] = near[v][u] = cost
    heap = [(-cost, u, v) for (u, v), cost in zip(pairs.tolist(), costs.tolist(), strict=True) if cost > 0]
    heapq.heapify(heap)
    while heap:
        negative, u, v = heapq.heappop(heap)
        if near[u].get(v) != -negative:  # the pair has changed since, or is gone
            continue
        if len(near[u]) < len(near[v]):
            u, v = v, u
        parent[v] = u
        for other, cost in near[v].items():
            del near[other][v]
            if other != u:
                total = cost + near[u].get(other, 0.0)
                near[u][other] = near[other][u] = total
                if total > 0:
                    heapq.heappush(heap, (-total, *sorted((u, other))))
        near[v] = {}
    for node in range(nodes):
        while parent[node] != parent[parent[node]]:
            parent[node] = parent[parent[node]]
    return np.array(parent, np.int64)


def _in_order(parts: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    _, first, part = np.unique(parts, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[part]


def apply(stack: Stack, options: MulticutOptions) -> Stack | Work:
    """Find instances in a probability map.

    Notes
    -----
    A lazy stack's superpixels are made block by block without a halo, so they end at the faces of blocks; the graph
    and its solution are those of the whole volume, and so an object has one id everywhere. The graph must fit into
    memory: about 100 bytes per pair of neighbours. Superpixels on disk are used again when only beta, the weights or
    the solver change.
    """
    boundary_of(stack, options.kind, options.channel)  # a class that does not exist is told before any work
    sections = _by_section(stack, options)
    if stack.lazy:
        return _by_block(stack, options, sections)
    boundary = boundary_of(stack, options.kind, options.channel)
    regions_ = _over_segmented(stack, options, sections)
    table = _solved(adjacency(regions_, boundary), int(regions_.max(initial=0)), options)
    ids = np.concatenate([[0], table]).astype(np.uint32)[regions_]
    return stack.with_data(_emptied(ids, boundary, options), "instances")


def _by_block(stack: Stack, options: MulticutOptions, sections: bool) -> Generator[Progress, None, Stack]:
    chosen = (options.kind, options.channel, options.threshold, options.smooth_px, options.seed_distance_px)
    blocks = Blocks(stack, (0, 0, 0), repr(("superpixels", *chosen, sections, stack.classes, stack.voxel_nm)))
    yield from blocks.run(lambda block: _over_segmented(block, options, sections))
    nodes = int(blocks.offsets[-1])
    if nodes >= 1 << 32:
        raise DataError(f"{nodes} superpixels are too many for one graph; enlarge seed_distance_px or smooth_px.")
    lazy, boundary = blocks.array(np.arange(1, nodes + 1)), boundary_of(blocks.stack, options.kind, options.channel)
    graphs, boxes = [], list(regions(lazy))
    for number, box in enumerate(boxes):
        core = tuple(int(s.start > 0) for s in box)
        grown = tuple(slice(s.start - c, s.stop) for s, c in zip(box, core, strict=True))
        graphs.append(adjacency(load(lazy, grown), load(boundary, grown), (core[0], core[1], core[2])))
        yield Progress(number + 1, len(boxes), "blocks", "neighbours")
    ids = blocks.array(_solved(merged(graphs), nodes, options))
    return stack.with_data(_emptied(ids, boundary, options), "instances")


def _over_segmented(stack: Stack, options: MulticutOptions, sections: bool) -> npt.NDArray[np.uint32]:
    return superpixels(
        boundary_of(stack, options.kind, options.channel),
        sections=sections,
        spacing=stack.voxel_nm or (1.0, 1.0, 1.0),
        threshold=options.threshold,
        smooth_px=options.smooth_px,
        seed_distance_px=options.seed_distance_px,
    )


def _solved(graph: Graph, nodes: int, options: MulticutOptions) -> npt.NDArray[np.int64]:
    costs = edge_costs(graph, beta=options.beta, weight_by_size=options.weight_by_size)
    return multicut(graph.pairs - 1, costs, nodes, solver=options.solver) + 1


def _emptied(ids: Any, boundary: Any, options: MulticutOptions) -> Any:
    """Return the ids with 0 on boundaries, unless membranes are to be filled."""
    if options.fill and options.kind == "membrane":
        return ids
    return ids * (boundary < options.threshold)


def _by_section(stack: Stack, options: MulticutOptions) -> bool:
    if stack.shape[0] == 1 or options.superpixels != "auto":
        return options.superpixels != "volume" or stack.shape[0] == 1
    z, _, x = stack.nm()
    return z / x > ANISOTROPIC


STEP = Step(MulticutOptions, ("probabilities",), "instances", apply)
