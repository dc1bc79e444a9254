"""Measurements against scikit-image, brute force over voxels, and the closed forms of boxes and balls."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
from skimage.measure import regionprops_table

from napari_em_da.errors import ConfigError, DataError
from napari_em_da.events import Progress
from napari_em_da.measurements import contact_table, features, groups, measure, measure_steps, write_csv

SPACING = (40.0, 5.0, 8.0)


@pytest.fixture(scope="module")
def cells() -> np.ndarray:
    """Touching cells with a gap of background, some in several pieces."""
    rng = np.random.default_rng(0)
    seeds = rng.uniform(0, (7, 31, 45), (40, 3))
    grid = np.stack(np.meshgrid(*map(np.arange, (7, 31, 45)), indexing="ij"), -1)
    labels = ((grid[..., None, :] - seeds) ** 2).sum(-1).argmin(-1) + 1
    labels[labels % 7 == 0] = 0
    labels[rng.random(labels.shape) < 0.01] = 3
    return labels.astype(np.uint32)


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 65536, (7, 31, 45)).astype(np.uint16)


def same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> None:
    assert list(a) == list(b)
    for name in a:
        assert a[name].dtype == b[name].dtype, name
        np.testing.assert_array_equal(a[name], b[name], name)


def test_against_scikit_image(cells: np.ndarray, image: np.ndarray) -> None:
    table = measure(cells, image=image, spacing=SPACING)
    names = ("label", "num_pixels", "area", "bbox", "centroid", "equivalent_diameter_area")
    names += ("intensity_mean", "intensity_std", "intensity_min", "intensity_max", "inertia_tensor_eigvals")
    peer = regionprops_table(cells, image, properties=names, spacing=SPACING)
    np.testing.assert_array_equal(table["id"], peer["label"])
    np.testing.assert_array_equal(table["voxels"], peer["num_pixels"])
    np.testing.assert_allclose(table["volume_nm3"], peer["area"])
    for i, axis in enumerate("zyx"):
        np.testing.assert_array_equal(table[f"{axis}_start"], peer[f"bbox-{i}"])
        np.testing.assert_array_equal(table[f"{axis}_stop"], peer[f"bbox-{i + 3}"])
        np.testing.assert_allclose(table[f"centroid_{axis}_nm"], peer[f"centroid-{i}"], atol=1e-9)
        np.testing.assert_allclose(table[f"extent_{axis}_nm"], SPACING[i] * (peer[f"bbox-{i + 3}"] - peer[f"bbox-{i}"]))
    np.testing.assert_allclose(table["equivalent_diameter_nm"], peer["equivalent_diameter_area"])
    for name in ("mean", "std", "min", "max"):
        np.testing.assert_allclose(table[f"intensity_{name}"], peer[f"intensity_{name}"], rtol=1e-9)


def test_axes_are_those_of_scikit_image_but_for_the_voxels_own_extent(cells: np.ndarray) -> None:
    """With cubic voxels of size 1 ours add 1/12 to each eigenvalue of the covariance."""
    table = measure(cells, columns=["shape"])
    peer = regionprops_table(cells, properties=("axis_major_length", "axis_minor_length"))
    for ours, theirs in (("major", "axis_major_length"), ("minor", "axis_minor_length")):
        np.testing.assert_allclose(table[f"{ours}_axis_px"] ** 2 - 20 / 12, peer[theirs] ** 2, atol=1e-6)


def brute_faces(labels: np.ndarray, spacing: tuple[float, ...]) -> tuple[Counter[int], Counter[int], Counter[Any]]:
    """Area of the faces inside the volume, of those on its border, and of every contact, voxel by voxel."""
    area, cut, pairs = Counter[int](), Counter[int](), Counter[Any]()
    face = [np.prod(spacing) / s for s in spacing]
    for at in zip(*np.nonzero(labels), strict=True):
        own = int(labels[at])
        for axis in range(3):
            for step in (-1, 1):
                other = list(at)
                other[axis] += step
                if not 0 <= other[axis] < labels.shape[axis]:
                    cut[own] += face[axis]
                elif (there := int(labels[tuple(other)])) != own:
                    area[own] += face[axis]
                    if there:
                        pairs[min(own, there), max(own, there)] += face[axis] / 2
    return area, cut, pairs


def test_faces_and_contacts_against_brute_force(cells: np.ndarray) -> None:
    table, contacts = measure(cells, spacing=SPACING), contact_table(cells, SPACING)
    area, cut, pairs = brute_faces(cells, SPACING)
    ids = table["id"].tolist()
    np.testing.assert_allclose(table["area_nm2"], [area[i] for i in ids])
    np.testing.assert_allclose(table["cut_area_nm2"], [cut[i] for i in ids])
    np.testing.assert_array_equal(table["touches_border"], [cut[i] > 0 for i in ids])
    assert list(zip(contacts["id_a"].tolist(), contacts["id_b"].tolist(), strict=True)) == sorted(pairs)
    np.testing.assert_allclose(contacts["area_nm2"], [pairs[pair] for pair in sorted(pairs)])
    np.testing.assert_array_equal(table["neighbours"], [sum(i in pair for pair in pairs) for i in ids])
    np.testing.assert_allclose(
        table["contact_area_nm2"], [sum(a for pair, a in pairs.items() if i in pair) for i in ids]
    )


def test_a_box_has_its_closed_forms() -> None:
    labels = np.zeros((9, 20, 30), np.uint8)
    labels[2:6, 5:17, 3:28] = 7  # 4 x 12 x 25 voxels
    table = measure(labels, spacing=SPACING)
    sides = np.array([160.0, 60.0, 200.0])
    assert table["area_nm2"][0] == 2 * (60 * 200 + 160 * 200 + 160 * 60)
    axes = [table[f"{name}_axis_nm"][0] for name in ("minor", "middle", "major")]
    np.testing.assert_allclose(axes, np.sort(sides) * np.sqrt(20 / 12))
    np.testing.assert_allclose(table["elongation"], 200 / 160)
    np.testing.assert_allclose(table["flatness"], 160 / 60)
    assert not table["touches_border"][0] and table["cut_area_nm2"][0] == 0


@pytest.mark.parametrize(("spacing", "tolerance"), [((1.0, 1.0, 1.0), 0.02), ((5.0, 2.0, 2.0), 0.05)])
def test_a_ball_has_its_closed_forms(spacing: tuple[float, ...], tolerance: float) -> None:
    radius = 24.0
    half = [int(radius / s) + 3 for s in spacing]
    grid = np.stack(np.meshgrid(*(np.arange(-h, h + 1) for h in half), indexing="ij"), -1) * spacing
    ball = ((grid**2).sum(-1) <= radius**2).astype(np.uint16)
    table = measure(ball, spacing=spacing)
    assert table["smooth_area_nm2"][0] == pytest.approx(4 * np.pi * radius**2, rel=tolerance)
    assert table["area_nm2"][0] == pytest.approx(6 * np.pi * radius**2, rel=0.03)  # of a staircase
    assert table["sphericity"][0] == pytest.approx(1, abs=tolerance + 0.02)
    for name in ("major", "middle", "minor"):
        assert table[f"{name}_axis_nm"][0] == pytest.approx(2 * radius, rel=0.03)
    cut = measure(ball[half[0] :], spacing=spacing)  # the lower half, cut by the border of the volume
    assert cut["smooth_area_nm2"][0] == pytest.approx(2 * np.pi * radius**2, rel=0.1)
    assert cut["cut_area_nm2"][0] == pytest.approx(np.pi * radius**2, rel=0.04)


@pytest.mark.parametrize("chunks", [(1, 31, 45), (3, 7, 11), (7, 31, 45), ((2, 5), (30, 1), (44, 1))])
def test_the_blocks_do_not_matter(
    cells: np.ndarray, image: np.ndarray, chunks: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, contacts = measure(cells, image=image, spacing=SPACING), contact_table(cells, SPACING)
    monkeypatch.setattr("napari_em_da.measurements._blocks.BLOCK_VOXELS", 100)
    lazy = da.from_array(cells, chunks=chunks)
    same(measure(lazy, image=da.from_array(image, chunks=(2, 31, 45)), spacing=SPACING), whole)
    same(measure(cells, image=image, spacing=SPACING), whole)
    same(contact_table(lazy, SPACING), contacts)


def test_only_the_ids_change_when_objects_are_relabelled(cells: np.ndarray, image: np.ndarray) -> None:
    new = np.random.default_rng(2).integers(1, 2**63 - 1, cells.max() + 1, dtype=np.uint64)
    new[0], new[1] = 0, 2**63 - 1
    before, after = measure(cells, image=image), measure(new[cells], image=image)
    order = np.argsort(new[before["id"]])
    np.testing.assert_array_equal(after["id"], new[before["id"]][order].astype(np.int64))
    same({k: v for k, v in after.items() if k != "id"}, {k: v[order] for k, v in before.items() if k != "id"})


def test_many_objects_fill_several_tables() -> None:
    labels = np.random.default_rng(3).permutation(30 * 40 * 50).reshape(30, 40, 50) + 1
    table = measure(labels, columns=["size", "centroid", "contacts"])
    np.testing.assert_array_equal(table["id"], np.arange(1, labels.size + 1))
    assert (table["voxels"] == 1).all() and table["neighbours"].sum() == 2 * len(contact_table(labels)["id_a"])
    assert len(contact_table(labels)["id_a"]) == 29 * 40 * 50 + 30 * 39 * 50 + 30 * 40 * 49
    place = np.stack([table[f"centroid_{axis}_px"] for axis in "zyx"], 1).astype(int)
    np.testing.assert_array_equal(labels[tuple(place.T)], table["id"])


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint8", "int16", "uint16", "int32", "int64", "uint64", ">u2"])
def test_every_integer_type(dtype: str) -> None:
    labels = np.zeros((2, 3, 4), dtype)
    labels[1, 1:, 2:] = 1
    table = measure(labels, image=labels)
    assert table["id"].tolist() == [1] and table["voxels"].tolist() == [4] and table["intensity_mean"].tolist() == [1]


@pytest.mark.parametrize(
    "dtype", ["bool", "uint8", "int16", "uint16", "uint32", "int64", "float16", "float32", "float64"]
)
def test_every_type_of_image(dtype: str, cells: np.ndarray) -> None:
    values = np.random.default_rng(4).integers(0, 200, cells.shape)
    values = (values % 2 if dtype == "bool" else values % 100).astype(dtype)
    table = measure(cells, image=values, columns=["intensity"])
    for i, mean, std, low, high in zip(*table.values(), strict=True):
        inside = values[cells == i].astype(float)
        np.testing.assert_allclose([mean, std, low, high], [inside.mean(), inside.std(), inside.min(), inside.max()])


def test_a_large_constant_does_not_swamp_the_spread(cells: np.ndarray) -> None:
    noise = np.random.default_rng(5).normal(size=cells.shape)
    wide, narrow = (measure(cells, image=noise + c, columns=["intensity"])["intensity_std"] for c in (1e6, 0))
    np.testing.assert_allclose(wide, narrow, rtol=1e-6)


def test_one_section() -> None:
    labels = np.zeros((1, 6, 8), np.uint8)
    labels[0, 1:4, 2:7] = 5
    table = measure(labels, spacing=(30, 2, 2))
    assert table["area_nm2"].tolist() == [2 * (3 + 5) * 2 * 30]
    assert table["cut_area_nm2"].tolist() == [2 * 15 * 4]
    assert all(np.isfinite(column).all() for column in table.values())


@pytest.mark.parametrize("shape", [(3, 4, 5), (0, 4, 5), (1, 1, 1)])
def test_an_empty_volume_gives_an_empty_table_with_all_columns(shape: tuple[int, ...], tmp_path: Path) -> None:
    full = measure(np.ones((2, 2, 2), np.uint8), image=np.ones((2, 2, 2)), spacing=SPACING)
    table = measure(np.zeros(shape, np.uint8), image=np.zeros(shape), spacing=SPACING)
    assert list(table) == list(full) and all(len(column) == 0 for column in table.values())
    assert write_csv(table, tmp_path / "t.csv").read_text().strip() == ",".join(full)
    assert all(len(column) == 0 for column in contact_table(np.zeros(shape, np.uint8)).values())


def test_unlabelled_counts_as_background() -> None:
    labels = np.full((2, 2, 2), 2**64 - 1, np.uint64)
    labels[0, 0, 0] = 9
    assert measure(labels)["id"].tolist() == [9] and len(contact_table(labels)["id_a"]) == 0


def test_units() -> None:
    labels = np.ones((2, 3, 4), np.uint8)
    nm, um = (measure(labels, spacing=(40, 4, 4), unit=unit) for unit in ("nm", "um"))
    assert nm["volume_nm3"][0] == 24 * 640
    assert um["volume_um3"][0] == pytest.approx(24 * 640e-9) and um["cut_area_um2"][0] == pytest.approx(
        nm["cut_area_nm2"][0] * 1e-6
    )
    assert measure(labels, spacing=(40, 4, 4), unit="px")["volume_px3"][0] == 24 == measure(labels)["volume_px3"][0]


def test_progress_reports_every_block(cells: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("napari_em_da.measurements._blocks.BLOCK_VOXELS", 31 * 45)
    steps, seen = measure_steps(cells), []
    with pytest.raises(StopIteration) as end:
        while True:
            seen.append(next(steps))
    assert seen == [Progress(i, 7, "blocks", "measure") for i in range(1, 8)]
    same(end.value.value, measure(cells))


def test_csv_and_features(cells: np.ndarray, tmp_path: Path) -> None:
    table = measure(cells, spacing=SPACING)
    path = write_csv(table, tmp_path / "objects.csv")
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["id"]) for row in rows] == table["id"].tolist()
    assert [float(row["volume_nm3"]) for row in rows] == table["volume_nm3"].tolist()
    with pytest.raises(DataError, match="exists"):
        write_csv(table, path)
    write_csv(measure(np.zeros((1, 1, 1), int)), path, overwrite=True)
    assert len(path.read_text().splitlines()) == 1 and list(tmp_path.iterdir()) == [path]
    columns = features(table)
    assert list(columns) == ["index", *list(table)[1:]] and columns["index"] is table["id"]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.ones((2, 2, 2)), "float64"),
        (np.full((2, 2, 2), -5), "-5"),
        (np.full((2, 2, 2), 2**63, np.uint64), "9223372036854775808"),
        (np.ones((2, 2), int), "labels\\[None\\]"),
    ],
)
def test_labels_that_are_none(labels: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        measure(labels)


def test_wrong_arguments(cells: np.ndarray) -> None:
    with pytest.raises(ConfigError, match="Did you mean 'surface'"):
        measure(cells, columns=["surfaces"])
    with pytest.raises(ConfigError, match="needs an image"):
        measure(cells, columns=["intensity"])
    with pytest.raises(ConfigError, match="three positive"):
        measure(cells, spacing=(1, 0, 1))
    with pytest.raises(ConfigError, match="unit"):
        measure(cells, unit="mm")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="shape"):
        measure(cells, image=np.zeros((1, 2, 3)))
    broken = np.where(cells == 5, np.nan, 0)
    with pytest.raises(DataError, match="not finite inside object 5"):
        measure(cells, image=broken)
    assert set(groups()) >= {"size", "surface", "shape", "centroid", "bounding_box", "intensity", "contacts"}


def test_sums_that_wrap_around_come_out_right(cells: np.ndarray) -> None:
    """The same cells, near the origin and so far from it that the sums of squares exceed 64 bits."""
    from napari_em_da.measurements import _kernels
    from napari_em_da.measurements._columns import Objects
    from napari_em_da.measurements._tally import Tally

    found = []
    for corner in (0, 4_000_000_000):
        tally = Tally(cells.shape, edges=False)
        firsts, rows = tally.ids.runs(cells)
        tally._make_room()
        origin = np.full(3, corner, np.int64)
        _kernels.moments(firsts, rows, cells.shape, origin, tally.sums, tally.low, tally.high)
        found.append(Objects.of(tally, np.ones(3), "px").about_centre)
    np.testing.assert_allclose(found[1][0] - 4e9, found[0][0], atol=1e-6)
    np.testing.assert_array_equal(found[1][1], found[0][1])
