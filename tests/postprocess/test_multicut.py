"""Multicut: graph, costs, solvers against brute force, and the whole step in memory and in blocks."""

from __future__ import annotations

import sys

import dask.array as da
import numpy as np
import pytest

from napari_em_da.config import ChainConfig
from napari_em_da.errors import ConfigError
from napari_em_da.postprocess import Stack, apply_chain, work_through
from napari_em_da.postprocess._rag import Graph, adjacency, merged
from napari_em_da.postprocess.multicut import edge_costs, greedy, multicut, superpixels

needs_library = pytest.mark.skipif(
    not __import__("importlib.util").util.find_spec("bioimage_cpp"), reason="bioimage-cpp absent"
)
SOLVERS = ["greedy", pytest.param("kernighan_lin", marks=needs_library)]


def complete(nodes):
    return np.array([(u, v) for u in range(nodes) for v in range(u + 1, nodes)])


def random_graph(rng, nodes, share=0.5):
    pairs = complete(nodes)
    return pairs[rng.random(len(pairs)) < share]


def partitions(nodes):
    """Yield every partition as labels in order of first appearance."""

    def grow(labels):
        if len(labels) == nodes:
            yield labels
            return
        for part in range(max(labels, default=-1) + 2):
            yield from grow([*labels, part])

    yield from map(np.array, grow([]))


def cut(pairs, costs, parts):
    return costs[parts[pairs[:, 0]] != parts[pairs[:, 1]]].sum()


def faces_by_hand(regions, boundary):
    found = {}
    for here in np.ndindex(regions.shape):
        for axis in range(3):
            there = tuple(i + (a == axis) for a, i in enumerate(here))
            if there[axis] < regions.shape[axis]:
                a, b = sorted((int(regions[here]), int(regions[there])))
                if a and a != b:
                    found.setdefault((a, b), []).append(max(boundary[here], boundary[there]))
    return found


def check_graph(graph, regions, boundary):
    truth = faces_by_hand(regions, boundary)
    assert list(map(tuple, graph.pairs.tolist())) == sorted(truth)
    assert graph.size.tolist() == [len(truth[pair]) for pair in sorted(truth)]
    np.testing.assert_allclose(graph.mean, [np.mean(truth[pair]) for pair in sorted(truth)], rtol=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_the_graph_holds_every_face_once_in_one_piece_and_in_blocks(seed):
    rng = np.random.default_rng(seed)
    shape = tuple(int(n) for n in rng.integers(1, 10, 3))
    regions = rng.integers(0, 12, shape, dtype=np.uint32)
    boundary = rng.random(shape, np.float32)
    check_graph(adjacency(regions, boundary), regions, boundary)
    steps = [int(n) for n in rng.integers(1, 6, 3)]
    parts = []
    for start in np.ndindex(*(-(-n // s) for n, s in zip(shape, steps, strict=True))):
        low = [i * s for i, s in zip(start, steps, strict=True)]
        core = tuple(int(i > 0) for i in low)
        box = tuple(slice(i - c, i + s) for i, c, s in zip(low, core, steps, strict=True))
        parts.append(adjacency(regions[box], boundary[box], core))
    check_graph(merged(parts), regions, boundary)


def test_ids_up_to_32_bits_are_told_apart():
    regions = np.array([[[2**32 - 1, 2**32 - 2, 1]]], np.uint32)
    assert adjacency(regions, np.zeros((1, 1, 3))).pairs.tolist() == [[1, 2**32 - 2], [2**32 - 2, 2**32 - 1]]


def test_costs_repeat_the_formula():
    graph = Graph(complete(3), np.array([0.5, 0.2, 1.0]), np.array([2, 4, 1]))
    assert edge_costs(graph) == pytest.approx([0, np.log(4), np.log(1e-3 / 0.999)])
    assert edge_costs(graph, beta=0.8) == pytest.approx(edge_costs(graph) - np.log(4))
    assert edge_costs(graph, weight_by_size=True) == pytest.approx(edge_costs(graph) * [0.5, 1, 0.25])


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("seed", range(5))
def test_a_planted_partition_is_found_and_is_the_optimum(solver, seed):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 3, 7)
    pairs = complete(7)
    rng.shuffle(pairs)
    together = truth[pairs[:, 0]] == truth[pairs[:, 1]]
    costs = np.where(together, 1, -1) * rng.uniform(0.5, 1.5, len(pairs))
    costs[rng.integers(len(pairs))] *= -0.2  # one wrong, weak edge
    parts = multicut(pairs, costs, 7, solver=solver)
    best = min(cut(pairs, costs, p) for p in partitions(7))
    assert cut(pairs, costs, parts) == pytest.approx(best)
    assert ((parts[:, None] == parts) == (truth[:, None] == truth)).all()


@needs_library
@pytest.mark.parametrize("seed", range(20))
def test_solvers_on_random_graphs_lie_between_the_optimum_and_greedy(seed):
    rng = np.random.default_rng(seed)
    pairs = random_graph(rng, 7)
    costs = rng.normal(size=len(pairs))
    best = min(cut(pairs, costs, p) for p in partitions(7))
    first, second = (cut(pairs, costs, multicut(pairs, costs, 7, solver=s)) for s in ("greedy", "kernighan_lin"))
    assert best - 1e-9 <= second <= first + 1e-9 <= 2e-9  # nothing cut costs 0


@needs_library
@pytest.mark.parametrize("nodes", [1, 2, 9, 60, 300])
def test_our_greedy_answers_as_bioimage_cpp(nodes, monkeypatch):
    rng = np.random.default_rng(nodes)
    pairs = random_graph(rng, nodes, min(1, 8 / nodes)).reshape(-1, 2)
    costs = rng.normal(0.1, 1, len(pairs))
    library = multicut(pairs, costs, nodes, solver="greedy")
    monkeypatch.setitem(sys.modules, "bioimage_cpp", None)
    monkeypatch.setitem(sys.modules, "bioimage_cpp.graph", None)
    assert (multicut(pairs, costs, nodes, solver="greedy") == library).all()


def test_without_the_library_kernighan_lin_names_the_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "bioimage_cpp.graph", None)
    monkeypatch.setitem(sys.modules, "bioimage_cpp", None)
    with pytest.raises(ConfigError, match=r"napari-em-da\[instances\].*'greedy'"):
        multicut(complete(2), np.ones(1), 2)


def test_greedy_sums_the_costs_of_pairs_that_become_one():
    pairs = np.array([(0, 1), (0, 2), (1, 2)])
    assert len(set(greedy(pairs, np.array([2, 1.0, -1.5]), 3).tolist())) == 2
    assert len(set(greedy(pairs, np.array([2, 1.0, -0.5]), 3).tolist())) == 1


# the whole step


def cells(shape=(24, 48, 48), pitch=(12, 24, 24), seed=0):
    """Return boxes with membranes between them (none across z if they are as high as the volume), and noisy p."""
    rng = np.random.default_rng(seed)
    index = np.indices(shape)
    inner = np.ones(shape, bool)
    which = np.zeros(shape, int)
    for axis, (n, step) in enumerate(zip(shape, pitch, strict=True)):
        which = which * (n // step) + index[axis] // step
        if axis or step < n:
            inner &= (index[axis] % step > 0) & (index[axis] % step < step - 1)
    noise = rng.uniform(0, 0.2, shape)
    return which + 1, inner, np.where(inner, noise, 1 - noise).astype(np.float32)


def stack_of(p, chunks=None, **options):
    data = np.stack([1 - p, p], -1).astype(np.float32)
    stack = Stack(data, "probabilities", **{"voxel_nm": (8, 8, 8), **options})
    return stack if chunks is None else stack.with_data(da.from_array(data, chunks=(*chunks, 1)))


def run(stack, **options):
    return apply_chain(ChainConfig(steps=[{"multicut": {"solver": "greedy", **options}}]), stack)


def check_cells(ids, which, inner):
    found = [np.unique(ids[inner & (which == cell)]) for cell in np.unique(which)]
    assert all(len(f) == 1 and f[0] > 0 for f in found)
    assert len({int(f[0]) for f in found}) == len(found)


@pytest.mark.parametrize("mode", ["sections", "volume", "auto"])
@pytest.mark.parametrize("chunks", [None, (12, 24, 24), (10, 17, 48)])
def test_cells_are_found_whole(mode, chunks):
    which, inner, p = cells(pitch=(24 if mode == "sections" else 12, 24, 24))
    result = run(stack_of(p, chunks), superpixels=mode)
    ids = np.asarray(result.data)
    assert result.holds == "instances" and ids.dtype.kind == "u" and (chunks is None or hasattr(result.data, "dask"))
    check_cells(ids, which, inner)
    assert (ids > 0).all() and set(np.unique(ids)) == set(range(1, ids.max() + 1))


@pytest.mark.parametrize("solver", SOLVERS)
def test_an_object_through_eight_blocks_has_one_id(solver):
    which, inner, p = cells((24, 32, 32), (24, 32, 32))
    result = run(stack_of(p, (12, 16, 16)), solver=solver, fill=False)
    ids = result.data.compute()
    assert result.data.numblocks == (2, 2, 2)
    check_cells(ids, which, inner)
    assert ((ids == 0) == ~inner).all()


def test_superpixels_over_segment_and_cover_everything():
    which, inner, p = cells(pitch=(24, 24, 24))
    for sections in (True, False):
        found = superpixels(p, sections=sections, smooth_px=0.5, seed_distance_px=3)
        assert (found > 0).all() and found.max() == len(np.unique(found))
        assert all(len(np.unique(which[inner & (found == i)])) == 1 for i in np.unique(found[inner]))
        if sections:
            assert not set(np.unique(found[0])) & set(np.unique(found[1]))


def test_sections_without_an_object_or_without_a_boundary():
    p = np.zeros((3, 10, 10), np.float32)
    p[1] = 1
    found = superpixels(p, sections=True)
    assert not found[1].any() and len(np.unique(found[0])) == len(np.unique(found[2])) == 1
    assert found[0, 0, 0] != found[2, 0, 0]
    ids = run(stack_of(p)).data
    assert (ids[0] == ids[0, 0, 0]).all() and not run(stack_of(np.ones((1, 5, 5)))).data.any()


def test_the_step_can_be_tuned_without_new_superpixels(tmp_path):
    _, _, p = cells(seed=3)
    first = run(stack_of(p, (12, 16, 24), work=tmp_path), beta=0.5)
    expected = first.data.compute()
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npz")}
    other = run(stack_of(p, (12, 16, 24), work=tmp_path), beta=0.999)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npz")} == stamps and len(stamps) == 12
    assert other.data.max().compute() > expected.max()
    assert (first.data.compute() == expected).all()


def test_an_interrupted_run_goes_on(tmp_path):
    which, inner, p = cells(seed=4)
    chain = ChainConfig(steps=[{"multicut": {"solver": "greedy"}}])
    work = work_through(chain, stack_of(p, (12, 24, 24), work=tmp_path))
    while len(list(tmp_path.rglob("*.npz"))) < 3:
        next(work)
    work.close()
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npz")}
    check_cells(apply_chain(chain, stack_of(p, (12, 24, 24), work=tmp_path)).data.compute(), which, inner)
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items()) and len(stamps) == 3


def test_objects_leave_their_background_empty():
    p = np.zeros((4, 30, 30), np.float32)
    p[:, 3:12, 3:27] = p[:, 16:27, 3:27] = 0.95
    ids = run(stack_of(p), kind="object").data
    assert ((ids > 0) == (p > 0.5)).all() and len(np.unique(ids)) == 3


def test_thick_sections_get_superpixels_of_their_own_and_unknown_voxels_say_so():
    _, _, p = cells(pitch=(24, 24, 24))
    thick = run(stack_of(p, voxel_nm=(50, 5, 5))).data
    assert (thick == run(stack_of(p, voxel_nm=(50, 5, 5)), superpixels="sections").data).all()
    with pytest.raises(ConfigError, match="voxel size is unknown"):
        run(stack_of(p, voxel_nm=None))
    assert run(stack_of(p[:1], voxel_nm=None)).data.any()
    with pytest.raises(ConfigError, match="Unknown class"):
        run(stack_of(p), channel="membran")
