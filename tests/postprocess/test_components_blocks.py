"""Components over blocks equal components in memory, whatever the blocks."""

from __future__ import annotations

from itertools import product
from typing import Any

import dask.array as da
import numpy as np
import pytest
from scipy import ndimage
from skimage.measure import label

import napari_em_da.postprocess._components as blocks
from napari_em_da.errors import ConfigError, DataError, ResourceError
from napari_em_da.events import Progress
from napari_em_da.postprocess._components import components, find_components, scan_components

CHUNKS = [(5, 6, 7), (1, 6, 4), (3, 2, 5), (2, 4, 3)]


def noise(values: int = 3, shape: tuple[int, ...] = (5, 6, 7), seed: int = 0, dtype: Any = np.uint8) -> Any:
    return np.random.default_rng(seed).integers(0, values, shape).astype(dtype)


def same_partition(a: Any, b: Any) -> bool:
    """Whether two id volumes differ by their numbers only."""
    pairs = np.unique(np.stack([np.ravel(a).astype(np.int64), np.ravel(b).astype(np.int64)]), axis=1)
    return all(len(np.unique(side)) == pairs.shape[1] for side in pairs) and bool(
        ((pairs[0] == 0) == (pairs[1] == 0)).all()
    )


def oracle(labels: Any, connectivity: int, sections: bool) -> Any:
    """Label each value, in 3D or in each section, with scipy: another algorithm than ours."""
    structure = ndimage.generate_binary_structure(3, connectivity)
    if sections:
        structure[[0, 2]] = False
    result, total = np.zeros(labels.shape, np.int64), 0
    for value in np.unique(labels[labels != 0]):
        found, count = ndimage.label(labels == value, structure)
        result[found > 0] = found[found > 0] + total
        total += count
    return result


@pytest.mark.parametrize("chunks", CHUNKS)
@pytest.mark.parametrize(("connectivity", "sections"), list(product((1, 2, 3), (False, True))))
def test_any_blocks_give_the_components_of_scipy(chunks: tuple[int, ...], connectivity: int, sections: bool) -> None:
    labels = noise(values=5 if connectivity > 1 else 3)
    expected = oracle(labels, connectivity, sections)
    whole = components(labels, connectivity=connectivity, sections=sections)
    lazy = components(da.from_array(labels, chunks=chunks), connectivity=connectivity, sections=sections)
    assert whole.dtype == lazy.dtype == np.uint32
    assert same_partition(whole, expected)
    assert same_partition(lazy.compute(), expected)
    assert set(np.unique(whole)) == set(range(int(expected.max()) + 1))


def test_numpy_is_streamed_in_slabs(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = noise(shape=(9, 8, 8))
    monkeypatch.setattr("napari_em_da.metrics._base.BLOCK_VOXELS", 128)
    assert same_partition(components(labels), label(labels, connectivity=1))


def test_blocks_of_one_voxel() -> None:
    labels = noise(shape=(3, 3, 4))
    for connectivity in (1, 2, 3):
        lazy = components(da.from_array(labels, chunks=(1, 1, 1)), connectivity=connectivity)
        assert same_partition(lazy.compute(), oracle(labels, connectivity, sections=False))


def test_a_spiral_through_all_blocks_is_one_component() -> None:
    line = np.zeros((6, 9, 9), np.uint8)
    line[::2] = 1
    line[1, 0, 0] = line[3, 8, 8] = 1
    line[5, 0, 0] = 1
    found = find_components(da.from_array(line, chunks=(2, 2, 4)))
    assert len(found.sizes) == 2
    assert found.sizes[1] == line.sum()


@pytest.mark.parametrize("dtype", [np.bool_, np.int8, np.uint16, np.int32, np.uint32, np.int64, np.uint64, ">u2"])
def test_any_integer_type(dtype: Any) -> None:
    labels = noise(2 if dtype is np.bool_ else 4).astype(dtype)
    ids = components(da.from_array(labels, chunks=(3, 4, 5))).compute()
    assert same_partition(ids, label(labels.astype(np.int64), connectivity=1))


def test_ids_up_to_2_to_the_64() -> None:
    labels = np.zeros((2, 3, 4), np.uint64)
    labels[..., 0], labels[..., 2:] = 2**64 - 1, 2**63
    found = find_components(labels)
    assert found.values.tolist() == [0, 2**64 - 1, 2**63]


@pytest.mark.parametrize("chunks", [None, *CHUNKS])
@pytest.mark.parametrize("sections", [False, True])
def test_tables_of_sizes_values_and_frame(chunks: Any, sections: bool) -> None:
    labels = noise(seed=3)
    found = find_components(labels if chunks is None else da.from_array(labels, chunks=chunks), sections=sections)
    ids = np.asarray(found.ids)
    assert found.sizes.tolist() == np.bincount(ids.ravel()).tolist()
    assert (found.values[ids] == labels).all()
    inner = (slice(None) if sections else slice(1, -1), slice(1, -1), slice(1, -1))
    rim = np.ones(labels.shape, bool)
    rim[inner] = False
    assert set(np.flatnonzero(found.frame)) - {0} == set(np.unique(ids[rim])) - {0}
    assert (np.asarray(found.map(found.values)) == labels).all()


@pytest.mark.parametrize("chunks", [None, *CHUNKS])
@pytest.mark.parametrize(("sections", "background"), list(product((False, True), (False, True))))
def test_contacts_are_the_faces_between_components(chunks: Any, sections: bool, background: bool) -> None:
    labels = noise(seed=4)
    data = labels if chunks is None else da.from_array(labels, chunks=chunks)
    found = find_components(data, sections=sections, background=background, contacts=True)
    ids = np.asarray(found.ids).astype(np.int64)
    assert (ids.min() > 0) == background
    counted: dict[tuple[int, int], int] = {}
    for axis in (1, 2) if sections else (0, 1, 2):
        for a, b in zip(
            ids.take(range(ids.shape[axis] - 1), axis).flat, ids.take(range(1, ids.shape[axis]), axis).flat, strict=True
        ):
            for pair in ((a, b), (b, a)):
                if a != b and pair[0]:
                    counted[pair] = counted.get(pair, 0) + 1
    assert found.contacts is not None
    assert {(a, b): n for a, b, n in found.contacts.tolist()} == counted


def test_background_forms_components_of_its_own() -> None:
    labels = np.zeros((1, 5, 5), np.uint8)
    labels[0, 1:4, 1:4] = 2
    labels[0, 2, 2] = 0
    found = find_components(labels, background=True, sections=True)
    assert sorted(zip(found.values.tolist(), found.sizes.tolist(), found.frame.tolist(), strict=True))[1:] == [
        (0, 1, False),
        (0, 16, True),
        (2, 8, False),
    ]


def test_empty_labels_have_no_component() -> None:
    empty = np.zeros((2, 3, 4), np.uint8)
    for data in (empty, da.from_array(empty, chunks=(1, 2, 2))):
        found = find_components(data, contacts=True)
        assert len(found.sizes) == 1
        assert not np.asarray(found.ids).any()
        assert found.contacts is not None and found.contacts.shape == (0, 3)


def test_the_scan_reports_each_block_and_reads_each_once() -> None:
    labels, reads = noise(), []

    def read(block: Any) -> Any:
        reads.append(block.shape)
        return block

    data = da.from_array(labels, chunks=(4, 5, 7)).map_blocks(read, dtype=labels.dtype, meta=labels[:0, :0, :0])
    steps = list(scan_components(data))
    assert [(step.done, step.total) for step in steps] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert all(isinstance(step, Progress) for step in steps)
    assert len(reads) == 4


def test_the_input_is_not_modified() -> None:
    labels = noise()
    before = labels.copy()
    find_components(labels, background=True, contacts=True)
    assert (labels == before).all()


def test_read_only_input_in_any_memory_order() -> None:
    labels = np.asfortranarray(noise())
    labels.flags.writeable = False
    for data in (labels, da.from_array(labels, chunks=(2, 3, 7))):
        assert same_partition(np.asarray(components(data)), label(labels, connectivity=1))


def test_bad_input_says_what_is_wrong() -> None:
    with pytest.raises(DataError, match="float64"):
        components(noise().astype(float))
    with pytest.raises(DataError, match="shape"):
        components(noise()[0])
    with pytest.raises(ConfigError, match="connectivity=0"):
        components(noise(), connectivity=0)


def test_too_many_pieces_are_a_resource_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "_MOST", 3)
    with pytest.raises(ResourceError, match="more than 3 pieces"):
        components(noise())
