"""Proofreading operators: what each does against scipy and brute force, and what none may do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dask.array as da
import numpy as np
import pytest
import zarr
from scipy import ndimage

from napari_em_da.errors import ConfigError, DataError, ResourceError
from napari_em_da.proofreading import (
    Edit,
    History,
    bounding_box,
    compact,
    delete,
    fill,
    grow,
    interpolate,
    merge,
    next_id,
    relabel,
    shrink,
    split_by_plane,
    split_by_seeds,
    split_components,
)

SPACING = (30.0, 5.0, 6.0)


def ball(shape: tuple[int, ...], centre: tuple[float, ...], radius: float, spacing: Any = (1, 1, 1)) -> np.ndarray:
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    return (((grid - centre) * spacing) ** 2).sum(-1) <= radius**2


@pytest.fixture
def labels() -> np.ndarray:
    """Object 5: two balls joined by a neck, with a hole that holds 8; 2 touches it; 9 has three pieces; 4 is drawn."""
    volume = np.zeros((16, 40, 50), np.uint16)
    volume[ball(volume.shape, (8, 12, 12), 6) | ball(volume.shape, (8, 12, 24), 6)] = 5
    volume[7:10, 10:14, 10:14] = 0
    volume[8, 11, 11] = 8
    volume[4:12, 19:25, 8:30] = np.where(volume[4:12, 19:25, 8:30], volume[4:12, 19:25, 8:30], 2)
    volume[1:3, 1:4, 40:45] = volume[14, 30:33, 3:9] = volume[15, 36, 49] = 9
    volume[3, 30:36, 30:40] = volume[9, 28:38, 32:44] = 4
    return volume


OPERATORS: dict[str, tuple[Callable[[Any], Edit], set[int]]] = {
    "merge": (lambda a: merge(a, [5, 2]), {5, 2}),
    "merge_smallest": (lambda a: merge(a, [5, 9, 2], keep="smallest"), {2, 5, 9}),
    "delete": (lambda a: delete(a, 5), {5}),
    "delete_neighbours": (lambda a: delete(a, 2, fill="neighbours"), {2}),
    "relabel": (lambda a: relabel(a, 9, 77), {9}),
    "seeds": (lambda a: split_by_seeds(a, 5, [(8, 12, 8), (8, 12, 28)]), {5}),
    "plane": (lambda a: split_by_plane(a, 5, (8, 12, 18), (0, 0, 1)), {5}),
    "components": (lambda a: split_components(a, 9), {9}),
    "fill": (lambda a: fill(a, 5), set()),
    "fill_3d": (lambda a: fill(a, 5, sections=False), set()),
    "grow": (lambda a: grow(a, 5, 20, SPACING), set()),
    "shrink": (lambda a: shrink(a, 2, 5, SPACING), {2}),
    "interpolate": (lambda a: interpolate(a, 4), set()),
}


def applied(edit: Edit, labels: np.ndarray) -> np.ndarray:
    copy = labels.copy()
    edit.apply(copy)
    return copy


@pytest.mark.parametrize("name", OPERATORS)
def test_every_operator_returns_a_small_reversible_change(name: str, labels: np.ndarray) -> None:
    operator, may_lose = OPERATORS[name]
    original = labels.copy()
    edit = operator(labels)
    np.testing.assert_array_equal(labels, original)  # nothing happens before apply
    changed = applied(edit, labels)
    differs = changed != labels
    assert edit.changed == differs.sum() > 0 and edit.text
    box = ndimage.find_objects(differs.astype(int))[0]
    assert edit.region == box  # hence nothing outside of it changes, and it is no larger than needed
    assert set(np.unique(labels[differs]).tolist()) <= may_lose | {0}  # other objects stay
    edit.undo(changed)
    np.testing.assert_array_equal(changed, original)


@pytest.mark.parametrize("name", OPERATORS)
def test_numpy_zarr_and_dask_give_the_same_edit(name: str, labels: np.ndarray, monkeypatch: Any) -> None:
    operator, _ = OPERATORS[name]
    expected = operator(labels)
    monkeypatch.setattr("napari_em_da.measurements._blocks.BLOCK_VOXELS", 1000)
    stored = zarr.create_array(zarr.storage.MemoryStore(), shape=labels.shape, chunks=(5, 16, 16), dtype=labels.dtype)
    stored[:] = labels
    for array in (stored, da.from_array(labels, chunks=(7, 13, 50)), labels):
        edit = operator(array)
        assert edit.region == expected.region and edit.text == expected.text
        np.testing.assert_array_equal(edit.after, expected.after)
    edit.apply(stored)
    np.testing.assert_array_equal(stored[:], applied(expected, labels))
    edit.undo(stored)
    np.testing.assert_array_equal(stored[:], labels)


def test_merge(labels: np.ndarray) -> None:
    np.testing.assert_array_equal(applied(merge(labels, [5, 2]), labels), np.where(labels == 2, 5, labels))
    np.testing.assert_array_equal(
        applied(merge(labels, [5, 2, 9], keep="smallest"), labels), np.where(np.isin(labels, [5, 9]), 2, labels)
    )


def test_seeds_cut_at_the_neck(labels: np.ndarray) -> None:
    after = applied(split_by_seeds(labels, 5, [(8, 12, 8), [(8, 12, 28), (9, 12, 28)]]), labels)
    columns = np.nonzero(after == 5)[2], np.nonzero(after == 10)[2]
    assert columns[0].max() <= 19 and columns[1].min() >= 17  # the balls' centres are at 12 and 24
    np.testing.assert_array_equal((after == 5) | (after == 10), labels == 5)
    ridge = np.zeros(labels.shape)
    ridge[:, :, 26] = 1
    along = applied(split_by_seeds(labels, 5, [(8, 12, 20), (8, 12, 29)], image=ridge, new_id=50), labels)
    columns = np.nonzero(along == 5)[2], np.nonzero(along == 50)[2]
    assert columns[0].max() <= 26 and columns[1].min() >= 26


def test_a_component_without_a_seed_keeps_the_id(labels: np.ndarray) -> None:
    after = applied(split_by_seeds(labels, 9, [(1, 1, 40), (1, 1, 44)]), labels)
    assert after[15, 36, 49] == 9 and (after[14, 30:33, 3:9] == 9).all() and (after == 10).any()


def test_an_object_that_fills_the_volume_can_be_cut() -> None:
    full = np.ones((1, 1, 9), np.uint8)
    assert applied(split_by_seeds(full, 1, [(0, 0, 0), (0, 0, 8)]), full).ravel().tolist() in (
        [1] * 4 + [2] * 5,
        [1] * 5 + [2] * 4,
    )
    assert shrink(full, 1, 3, (1, 1, 1)).changed == 0


def test_plane_in_physical_space() -> None:
    full = np.full((6, 7, 8), 3, np.uint8)
    point, normal = (2, 3, 4), (1.0, -2.0, 0.5)
    side = sum(n * s * (g - p) for n, s, g, p in zip(normal, SPACING, np.indices(full.shape), point, strict=True))
    after = applied(split_by_plane(full, 3, point, normal, spacing=SPACING), full)
    np.testing.assert_array_equal(after, np.where(side > 0, 4, 3))


@pytest.mark.parametrize("connectivity", [6, 18, 26])
def test_components_against_scipy(connectivity: Any) -> None:
    noise = (np.random.default_rng(0).random((9, 20, 21)) < 0.2).astype(np.uint32) * 7
    after = applied(split_components(noise, 7, connectivity=connectivity), noise)
    found, count = ndimage.label(noise, ndimage.generate_binary_structure(3, {6: 1, 18: 2, 26: 3}[connectivity]))
    pairs = {(int(a), int(b)) for a, b in zip(found.ravel(), after.ravel(), strict=True)}
    assert len(pairs) == count + 1  # one to one
    sizes = np.bincount(after.ravel())[7:]
    assert (np.diff(sizes) <= 0).all() and len(sizes) == count  # the largest keeps 7, the others follow by size


def test_delete_gives_each_voxel_to_the_nearest_neighbour() -> None:
    row = np.array([1, 1, 3, 3, 3, 3, 3, 2, 0, 4], np.uint8).reshape(1, 1, -1)
    assert applied(delete(row, 3), row).ravel().tolist() == [1, 1, 0, 0, 0, 0, 0, 2, 0, 4]
    after = applied(delete(row, 3, fill="neighbours"), row).ravel().tolist()
    assert after[2:4] == [1, 1] and after[5:7] == [2, 2] and after[4] in (1, 2) and after[7:] == [2, 0, 4]
    after = applied(delete(row, 4, fill="neighbours"), row).ravel().tolist()
    assert after == [1, 1, 3, 3, 3, 3, 3, 2, 0, 0]  # 2 is near but does not touch


def test_fill_against_scipy(labels: np.ndarray) -> None:
    mask = labels == 5
    per_section = np.stack([ndimage.binary_fill_holes(section) for section in mask])
    for sections, expected in ((True, per_section), (False, ndimage.binary_fill_holes(mask))):
        after = applied(fill(labels, 5, sections=sections), labels)
        np.testing.assert_array_equal(after, np.where(expected & (labels == 0), 5, labels))
        assert after[8, 11, 11] == 8


def test_grow_against_brute_force() -> None:
    volume = np.zeros((5, 12, 13), np.uint8)
    volume[2, 5:7, 5:7] = 1
    inside = np.argwhere(volume)
    distance = np.linalg.norm((np.argwhere(volume == volume)[:, None] - inside) * SPACING, axis=-1).min(1)
    for radius in (5.0, 12.0, 30.0, 31.0):  # 5 and 30 are exactly one voxel
        expected = (distance <= radius).reshape(volume.shape)
        np.testing.assert_array_equal(applied(grow(volume, 1, radius, SPACING), volume), expected)
        back = applied(grow(volume, 1, radius, SPACING), volume)
        assert (applied(shrink(back, 1, 5, SPACING), back) <= back).all()


def test_grow_does_not_jump_over_another_object() -> None:
    row = np.array([0, 1, 0, 2, 0, 0], np.uint8).reshape(1, 1, -1)
    assert applied(grow(row, 1, 4, (1, 1, 1)), row).ravel().tolist() == [1, 1, 1, 2, 0, 0]


def test_shrink_against_scipy(labels: np.ndarray) -> None:
    depth = ndimage.distance_transform_edt(labels == 5, sampling=SPACING)
    for radius in (5.0, 6.0, 11.0, 30.0):
        after = applied(shrink(labels, 5, radius, SPACING), labels)
        np.testing.assert_array_equal(after, np.where((labels == 5) & (depth <= radius), 0, labels))
    with pytest.raises(DataError, match="Nothing of object 5 would be left"):
        shrink(labels, 5, 300, SPACING)


def signed(mask: np.ndarray, pixel: Any) -> np.ndarray:
    inside, outside = (ndimage.distance_transform_edt(m, sampling=pixel) for m in (mask, ~mask))
    return inside - outside


@pytest.mark.parametrize("pixel", [(1.0, 1.0), (4.0, 7.0)])
def test_interpolate_against_the_formula(labels: np.ndarray, pixel: tuple[float, float]) -> None:
    first, last = signed(labels[3] == 4, pixel), signed(labels[9] == 4, pixel)
    labels[5, 30:34, 34:36] = 6  # in the way
    after = applied(interpolate(labels, 4, pixel=pixel), labels)
    for z in range(4, 9):
        inside = (first * (9 - z) + last * (z - 3)) / 6 > 1e-8
        np.testing.assert_array_equal(after[z], np.where(inside & (labels[z] == 0), 4, labels[z]))
    np.testing.assert_array_equal(after[[3, 9]], labels[[3, 9]])


def test_interpolated_discs_change_their_radius_linearly() -> None:
    volume = np.zeros((9, 81, 81), np.uint8)
    volume[0], volume[8] = ball((81, 81), (40, 40), 10, (1, 1)), ball((81, 81), (40, 40), 34, (1, 1))
    after = applied(interpolate(volume, 1), volume)
    radius = np.sqrt(after.sum((1, 2)) / np.pi)
    np.testing.assert_allclose(radius, np.linspace(10, 34, 9), atol=0.7)


def test_sections_between_are_replaced_and_only_between_the_named_ones(labels: np.ndarray) -> None:
    labels[6, 2:4, 2:4] = 4
    labels[12, 28:38, 32:44] = 4
    after = applied(interpolate(labels, 4, [3, 9]), labels)
    assert not (after[6, 2:4, 2:4] == 4).any() and (after[6] == 4).any()
    np.testing.assert_array_equal(after[9:], labels[9:])


def test_thin_objects_that_drift_need_alignment() -> None:
    volume = np.zeros((5, 9, 40), np.uint8)
    volume[0, 3:6, 2:5] = volume[4, 3:6, 30:33] = 1
    with pytest.raises(DataError, match="align=True"):
        interpolate(volume, 1)
    after = applied(interpolate(volume, 1, align=True), volume)
    for z in range(5):
        assert (after[z] == 1).sum() == 9 and np.allclose(ndimage.center_of_mass(after[z]), (4, 3 + 7 * z))


def test_bounding_box(labels: np.ndarray) -> None:
    for i, box in enumerate(ndimage.find_objects(labels), start=1):
        if box is not None:
            assert bounding_box(labels, i) == box
    assert bounding_box(labels, [5, 9]) == ndimage.find_objects(np.isin(labels, [5, 9]).astype(int))[0]


def test_a_near_search_follows_the_object_but_not_its_other_parts() -> None:
    long = np.zeros((4, 170, 400), np.uint8)
    long[1:3, 130:140, 5:390] = long[0, 0, 0] = 3
    assert bounding_box(long, 3, near=(1, 130, 200)) == (slice(1, 3), slice(130, 140), slice(5, 390))
    assert bounding_box(long, 3, near=(0, 0, 0)) == (slice(0, 1),) * 3
    with pytest.raises(DataError, match="holds 0, not 3"):
        bounding_box(long, 3, near=(3, 0, 0))
    with pytest.raises(DataError, match="outside"):
        bounding_box(long, 3, near=(9, 0, 0))


def test_a_given_region_spares_the_search(labels: np.ndarray) -> None:
    for name in ("delete_neighbours", "fill", "grow", "shrink"):
        operator, _ = OPERATORS[name]
        whole = operator(labels)
        i = 2 if name in ("delete_neighbours", "shrink") else 5
        box = bounding_box(labels, i)
        call: dict[str, Callable[[], Edit]] = {
            "delete_neighbours": lambda box=box: delete(labels, 2, fill="neighbours", region=box),
            "fill": lambda box=box: fill(labels, 5, region=box),
            "grow": lambda box=box: grow(labels, 5, 20, SPACING, region=box),
            "shrink": lambda box=box: shrink(labels, 2, 5, SPACING, region=box),
        }
        edit = call[name]()
        assert edit.region == whole.region
        np.testing.assert_array_equal(edit.after, whole.after)
    with pytest.raises(DataError, match="no object 5"):
        delete(labels, 5, region=(slice(0, 1), slice(0, 1), slice(0, 1)))


def test_an_absent_id_names_its_neighbours(labels: np.ndarray) -> None:
    with pytest.raises(DataError, match=r"no object 6; the nearest ids are 5 and 8"):
        delete(labels, 6)
    with pytest.raises(DataError, match=r"no object 1; the nearest ids are 2\."):
        delete(labels, 1)
    with pytest.raises(DataError, match="holds no object"):
        delete(np.zeros((1, 2, 3), np.uint64), 1)
    for bad in (0, -4, 2**63):
        with pytest.raises(DataError, match="no id of an object"):
            delete(labels, bad)


def test_large_ids() -> None:
    labels = np.zeros((2, 3, 4), np.uint64)
    labels[0, 0], labels[0, 1], labels[1, 2] = 2**63 - 2, 5, 2**64 - 1
    assert next_id(labels) == 2**63 - 1
    after = applied(merge(labels, [2**63 - 2, 5]), labels)
    assert (after[0, :2] == 2**63 - 2).all() and (after[1, 2] == 2**64 - 1).all()
    after = applied(compact(labels), labels)
    assert np.unique(after).tolist() == [0, 1, 2, 2**64 - 1] and (after[0, 1] == 1).all()


def test_new_ids_must_fit_the_type() -> None:
    labels = np.full((1, 2, 4), 255, np.uint8)
    for call in (lambda: next_id(labels), lambda: split_by_plane(labels, 255, (0, 0, 1), (0, 0, 1))):
        with pytest.raises(DataError, match=r"256.*astype"):
            call()
    with pytest.raises(DataError, match="300"):
        relabel(labels, 255, 300)
    assert next_id(np.zeros((1, 1, 1), np.uint8)) == 1


def test_compact_keeps_the_order(labels: np.ndarray) -> None:
    found, numbers = np.unique(labels, return_inverse=True)
    np.testing.assert_array_equal(applied(compact(labels), labels), numbers.reshape(labels.shape))
    dense = applied(compact(labels), labels)
    assert compact(dense).changed == 0 and compact(dense).before.size == 0


def test_an_edit_is_only_written_where_it_was_made(labels: np.ndarray) -> None:
    edit = merge(labels, [5, 2])
    moved = labels.copy()
    moved[8, 21, 15] = 9  # inside the box
    for array, message in ((moved, "1 voxels"), (labels.astype(np.int32), "int32"), (labels[:3], "gives")):
        original = array.copy()
        with pytest.raises(DataError, match=message):
            edit.apply(array)
        np.testing.assert_array_equal(array, original)
    with pytest.raises(DataError, match="cannot be undone"):
        edit.undo(labels)
    with pytest.raises(DataError, match="dask"):
        edit.apply(da.from_array(labels))


def test_history(labels: np.ndarray) -> None:
    states, history = [labels.copy()], History()
    for operator, _ in (OPERATORS[n] for n in ("merge", "fill", "seeds", "delete")):
        history.do(labels, operator(labels))
        states.append(labels.copy())
    for state in states[-2::-1]:
        assert history.undo(labels) is not None
        np.testing.assert_array_equal(labels, state)
    assert history.undo(labels) is None
    for state in states[1:]:
        assert history.redo(labels) is not None
        np.testing.assert_array_equal(labels, state)
    assert history.redo(labels) is None
    history.undo(labels)
    history.do(labels, relabel(labels, 9, 30))
    assert history.redo(labels) is None and not history.undone


def test_a_history_forgets_its_oldest_edits() -> None:
    labels = np.zeros((1, 1, 20), np.uint8)
    labels[0, 0] = np.arange(1, 21)
    history = History(max_bytes=6)
    for i in range(1, 6):
        history.do(labels, delete(labels, i))
        assert history.nbytes <= 6
    assert [edit.text for edit in history.done] == ["Delete 3", "Delete 4", "Delete 5"]
    with pytest.raises(ResourceError, match="raise max_bytes"):
        history.do(labels, merge(labels, [6, 20, 7, 8]))
    assert labels[0, 0, 5:].tolist() == list(range(6, 21))


def test_wrong_arguments(labels: np.ndarray) -> None:
    calls: list[tuple[type[Exception], str, Callable[[], Any]]] = [
        (ConfigError, "at least two", lambda: merge(labels, [5, 5])),
        (ConfigError, "keep", lambda: merge(labels, [5, 2], keep="last")),  # type: ignore[arg-type]
        (ConfigError, "fill", lambda: delete(labels, 5, fill="x")),  # type: ignore[arg-type]
        (DataError, "merge 9 and 5", lambda: relabel(labels, 9, 5)),
        (ConfigError, "at least two", lambda: split_by_seeds(labels, 5, [(8, 12, 8)])),
        (DataError, "outside of object 5", lambda: split_by_seeds(labels, 5, [(8, 12, 8), (0, 0, 0)])),
        (DataError, "share a voxel", lambda: split_by_seeds(labels, 5, [(8, 12, 8), (8, 12, 8)])),
        (DataError, "image", lambda: split_by_seeds(labels, 5, [(8, 12, 8), (8, 12, 28)], image=np.zeros((1, 1, 1)))),
        (DataError, "belongs to another", lambda: split_components(labels, 9, new_id=5)),
        (DataError, "misses object 5", lambda: split_by_plane(labels, 5, (8, 12, 49), (0, 0, 1))),
        (ConfigError, "normal", lambda: split_by_plane(labels, 5, (8, 12, 18), (0, 0, 0))),
        (ConfigError, "connectivity", lambda: split_components(labels, 9, connectivity=8)),  # type: ignore[arg-type]
        (ConfigError, "spacing", lambda: grow(labels, 5, 20, (1, 0, 1))),
        (ConfigError, "radius_nm", lambda: grow(labels, 5, -1, SPACING)),
        (DataError, "not on section 5", lambda: interpolate(labels, 4, [3, 5])),
        (DataError, "at least two", lambda: interpolate(labels, 4, [3])),
        (ConfigError, "pixel", lambda: interpolate(labels, 4, pixel=(0, 1))),
        (DataError, "float64", lambda: delete(labels.astype(float), 5)),
        (DataError, "labels\\[None\\]", lambda: next_id(labels[0])),
        (ConfigError, "max_bytes", lambda: History(0)),
    ]
    for error, message, call in calls:
        with pytest.raises(error, match=message):
            call()
