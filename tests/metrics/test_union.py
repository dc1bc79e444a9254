"""Disjoint sets against scipy's connected components."""

import numpy as np
import pytest
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from napari_em_da.metrics._union import united
from napari_em_da.postprocess._seams import distinct, joined, paired, summed


@pytest.mark.parametrize("links", [0, 1, 300, 5000])
def test_sets_are_those_of_a_graph_and_are_numbered_by_their_first_pieces(links):
    rng = np.random.default_rng(links)
    first, second = rng.integers(0, 1000, (2, links))
    graph = coo_array((np.ones(links, bool), (first, second)), shape=(1000, 1000))
    count, groups = connected_components(graph, directed=False)
    found = united(1000, first, second)
    assert found.max() + 1 == count
    assert len(set(zip(found, groups, strict=True))) == count  # one number for one group, and the other way round
    _, starts = np.unique(found, return_index=True)
    assert (np.diff(starts) > 0).all()


def test_a_long_chain_is_one_set():
    n = 100_000
    order = np.random.default_rng(0).permutation(n)
    assert not united(n, order[:-1], order[1:]).any()


def test_nothing_to_unite():
    assert united(0, np.zeros(0, int), np.zeros(0, int)).size == 0
    assert joined(3, np.zeros(0, np.uint64)).tolist() == [0, 1, 2]


def test_distinct_values_are_those_of_numpy():
    values = np.random.default_rng(1).integers(0, 50, (7, 9)).astype(np.uint32)
    assert distinct(values).tolist() == np.unique(values).tolist()
    assert distinct(np.zeros((0,), np.uint64)).size == 0


def test_contacts_of_joined_pieces_add_up():
    # Pieces 1 and 2 are one component; both touch piece 3, and piece 1 touches the background.
    faces = [(paired(*np.uint32([[0, 1], [1, 3]])), np.array([4, 5])), (paired(*np.uint32([[2], [3]])), np.array([7]))]
    roots = joined(4, paired(*np.uint32([[1], [2]])))
    assert roots.tolist() == [0, 1, 1, 2]
    assert summed(faces, roots).tolist() == [[1, 0, 4], [1, 2, 12], [2, 1, 12]]


def test_no_contacts():
    assert summed([], np.zeros(1, np.uint32)).shape == (0, 3)
