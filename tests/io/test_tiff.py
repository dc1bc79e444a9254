from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_em_da.errors import DataError
from napari_em_da.io import _sections, tiff
from napari_em_da.volume import Volume

REAL = Path(__file__).parents[3] / "shared" / "data"
TYPES = ["bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float32", "float64"]


def noise(shape, dtype="uint8", seed=0):
    return (np.random.default_rng(seed).random(shape) * 100).astype(dtype)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("compressible", [False, True])
def test_round_trip_keeps_voxels_type_and_voxel_size(tmp_path, dtype, compressible):
    array = noise((3, 40, 50), dtype)
    if compressible:
        array = np.zeros((3, 200, 50), dtype)
        array[1, 5:9] = 1
    saved = Volume.from_array(array, voxel_nm=(50, 4.6, 3.3)).save(tmp_path / "v.tif")
    opened = Volume.open(saved)
    assert opened.voxel_nm == (50, 4.6, 3.3)
    assert opened.dtype == ("uint8" if dtype == "bool" else dtype)
    np.testing.assert_array_equal(opened.read(), array)
    np.testing.assert_array_equal(tifffile.imread(saved), array)


@pytest.mark.parametrize(("dtype", "channels"), [("uint8", 3), ("uint8", 4), ("uint16", 3), ("float32", 2)])
def test_round_trip_of_channels(tmp_path, dtype, channels):
    array = noise((4, 30, 20, channels), dtype)
    opened = Volume.open(Volume.from_array(array, voxel_nm=(5, 5, 5)).save(tmp_path / "c.tif"))
    assert opened.voxel_nm == (5, 5, 5)
    np.testing.assert_array_equal(opened.read(), array)
    np.testing.assert_array_equal(opened.data[1:3, 2:9, ::2].compute(), array[1:3, 2:9, ::2])


def test_labels_are_compressed_and_images_are_mapped(tmp_path):
    labels = Volume.from_array(np.zeros((4, 256, 256), np.uint16)).save(tmp_path / "labels.tif")
    image = Volume.from_array(noise((4, 256, 256))).save(tmp_path / "image.tif")
    assert labels.stat().st_size < 4 * 256 * 256 * 2 / 20
    assert all(page.raw is not None for page in Volume.open(image).source.pages)


def test_large_volumes_become_bigtiff(tmp_path, monkeypatch):
    monkeypatch.setattr(tiff, "CLASSIC_BYTES", 1 << 20)
    saved = Volume.from_array(noise((3, 40, 50)), voxel_nm=(8, 4, 4)).save(tmp_path / "big.tif")
    assert saved.read_bytes()[2] == 43
    assert Volume.open(saved).voxel_nm == (8, 4, 4)


LAYOUTS = {
    "strips": {"rowsperstrip": 7, "compression": "zlib"},
    "tiles": {"tile": (16, 32)},
    "lzw tiles": {"tile": (16, 32), "compression": "lzw", "predictor": True},
    "raw strips": {"rowsperstrip": 7},
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("order", "<>")
def test_windows_of_any_layout(tmp_path, layout, order):
    array = noise((6, 75, 93), "uint16")
    with tifffile.TiffWriter(tmp_path / "k.tif", byteorder=order) as file:
        for section in array:
            file.write(section, contiguous=False, metadata=None, **LAYOUTS[layout])
    source = Volume.open(tmp_path / "k.tif").source
    rng = np.random.default_rng(1)
    for _ in range(20):
        window = tuple(slice(*sorted(rng.integers(0, n + 1, 2))) for n in array.shape)
        np.testing.assert_array_equal(source[window], array[window])
    np.testing.assert_array_equal(source[::-1, ::-2, 60:3:-3], array[::-1, ::-2, 60:3:-3])
    np.testing.assert_array_equal(source[-2, ..., 5], array[-2, ..., 5])
    assert source.dtype.isnative


def test_separate_colour_planes(tmp_path):
    array = noise((2, 40, 30, 3))
    planes = np.moveaxis(array, -1, 1)
    tifffile.imwrite(tmp_path / "p.tif", planes, photometric="rgb", planarconfig="separate", compression="zlib")
    np.testing.assert_array_equal(Volume.open(tmp_path / "p.tif").read(), array)


def test_bilevel_images_become_uint8(tmp_path):
    mask = noise((3, 20, 30)) > 50
    tifffile.imwrite(tmp_path / "m.tif", mask, photometric="minisblack")
    opened = Volume.open(tmp_path / "m.tif")
    assert opened.dtype == np.uint8
    np.testing.assert_array_equal(opened.read(), mask)


def test_folder_is_sorted_naturally_and_keeps_the_pixel_order(tmp_path):
    for number in (10, 2, 1):
        tifffile.imwrite(tmp_path / f"section_{number}.tif", np.full((20, 30), number, np.uint8), compression="zlib")
    (tmp_path / "notes.txt").write_text("not a section")
    volume = Volume.open(tmp_path)
    assert volume.shape == (3, 20, 30)
    assert volume.read()[:, 0, 0].tolist() == [1, 2, 10]


def test_folder_of_mixed_shapes_names_the_file(tmp_path):
    tifffile.imwrite(tmp_path / "1.tif", noise((20, 30)))
    tifffile.imwrite(tmp_path / "2.tif", noise((20, 31)))
    with pytest.raises(DataError, match=r"2\.tif is \(20, 31\)"):
        Volume.open(tmp_path)


def test_single_page_is_one_section_and_singleton_axes_go(tmp_path):
    tifffile.imwrite(tmp_path / "page.tif", noise((20, 30)))
    tifffile.imwrite(tmp_path / "hyper.tif", noise((1, 5, 1, 20, 30)), imagej=True, metadata={"axes": "TZCYX"})
    tifffile.imwrite(tmp_path / "time.tif", noise((5, 1, 1, 20, 30)), imagej=True, metadata={"axes": "TZCYX"})
    assert Volume.open(tmp_path / "page.tif").shape == (1, 20, 30)
    assert Volume.open(tmp_path / "hyper.tif").shape == (5, 20, 30)
    assert Volume.open(tmp_path / "time.tif").shape == (5, 20, 30)


def test_several_channels_are_refused(tmp_path):
    tifffile.imwrite(tmp_path / "c.tif", noise((5, 2, 20, 30)), imagej=True, metadata={"axes": "ZCYX"})
    with pytest.raises(DataError, match="C 2"):
        Volume.open(tmp_path / "c.tif")


PLAIN = {"metadata": None}
VOXELS = [
    ({"imagej": True, "resolution": (200, 250), "metadata": {"unit": "um", "spacing": 0.05}}, (50, 4, 5)),
    ({"imagej": True, "resolution": (200, 250), "metadata": {"unit": "\\u00B5m", "spacing": 0.05}}, (50, 4, 5)),
    ({"imagej": True, "resolution": (0.2, 0.25), "metadata": {"unit": "nm", "spacing": 50}}, (50, 4, 5)),
    ({"imagej": True, "resolution": (5080000, 5080000), "metadata": {"unit": "inch", "spacing": 2e-7}}, (5.08, 5, 5)),
    ({"imagej": True, "resolution": (1, 1), "metadata": {"unit": "pixel", "spacing": 1}}, None),
    ({"imagej": True, "resolution": (200, 250), "metadata": {"unit": "um"}}, None),
    ({"ome": True, "metadata": {"PhysicalSizeX": 5e-3, "PhysicalSizeY": 4e-3, "PhysicalSizeZ": 0.05}}, (50, 4, 5)),
    ({"ome": True, "metadata": {"PhysicalSizeX": 5e-3, "PhysicalSizeY": 4e-3}}, None),
    ({"resolution": (1, 1), "resolutionunit": "NONE", **PLAIN}, None),
    ({"resolution": (72, 72), "resolutionunit": "INCH", **PLAIN}, None),
    ({}, None),
]


@pytest.mark.parametrize(("options", "expected"), VOXELS)
def test_voxel_size_of_each_dialect(tmp_path, options, expected):
    tifffile.imwrite(tmp_path / "v.tif", noise((5, 20, 30)), **options)
    assert Volume.open(tmp_path / "v.tif").voxel_nm == (None if expected is None else pytest.approx(expected))


def test_single_section_in_centimetres(tmp_path):
    tifffile.imwrite(tmp_path / "v.tif", noise((20, 30)), resolution=(2e6, 2.5e6), resolutionunit="CENTIMETER")
    assert Volume.open(tmp_path / "v.tif").voxel_nm == pytest.approx((5, 4, 5))


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95, 0.9999])
def test_truncated_files_are_refused(tmp_path, compression, share):
    whole = tmp_path / "whole.tif"
    with tifffile.TiffWriter(whole) as file:
        for section in noise((8, 64, 64)):
            file.write(section, contiguous=False, compression=compression, metadata=None)
    data = whole.read_bytes()
    (tmp_path / "cut.tif").write_bytes(data[: int(len(data) * share)])
    with pytest.raises(DataError, match=r"cut\.tif"):
        Volume.open(tmp_path / "cut.tif")


@pytest.mark.parametrize("share", [0.1, 0.6, 0.95])
def test_truncated_imagej_stack_is_refused(tmp_path, share):
    data = Volume.from_array(noise((8, 64, 64))).save(tmp_path / "whole.tif").read_bytes()
    (tmp_path / "cut.tif").write_bytes(data[: int(len(data) * share)])
    with pytest.raises(DataError, match=r"cut\.tif is truncated"):
        Volume.open(tmp_path / "cut.tif")


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04 a zip", b"II*\0", b"II*\0\0\0\0\0", b"II*\0\xff\xff\0\0"])
def test_other_files_are_refused_with_their_name(tmp_path, data):
    (tmp_path / "fake.tif").write_bytes(data)
    with pytest.raises(DataError, match=r"fake\.tif"):
        Volume.open(tmp_path / "fake.tif")


def test_damaged_pixels_are_reported_when_read(tmp_path):
    tifffile.imwrite(tmp_path / "d.tif", noise((5, 64, 64)), compression="zlib", metadata=None)
    page = Volume.open(tmp_path / "d.tif").source.pages[1]
    data = bytearray((tmp_path / "d.tif").read_bytes())
    data[page.offsets[0] : page.offsets[0] + 40] = b"\xaa" * 40
    (tmp_path / "d.tif").write_bytes(data)
    volume = Volume.open(tmp_path / "d.tif")
    assert volume.read((slice(0, 1),)).shape == (1, 64, 64)
    with pytest.raises(DataError, match=r"d\.tif: section 1 cannot be decoded"):
        volume.read((slice(1, 2),))


def test_folder_without_sections_is_refused(tmp_path):
    with pytest.raises(DataError, match="holds no file"):
        Volume.open(tmp_path)


def test_pages_of_different_shapes_in_one_file_are_refused(tmp_path):
    with tifffile.TiffWriter(tmp_path / "mixed.tif") as file:
        file.write(noise((20, 30)), metadata=None)
        file.write(noise((20, 31)), metadata=None)
    with pytest.raises(DataError, match="different shapes"):
        Volume.open(tmp_path / "mixed.tif")


def test_threads_share_decoded_blocks(tmp_path, monkeypatch):
    array = noise((4, 200, 200), "uint16")
    tifffile.imwrite(tmp_path / "t.tif", array, compression="zlib", rowsperstrip=50, photometric="minisblack")
    volume = Volume.open(tmp_path / "t.tif")
    decoded: list[tuple[int, int]] = []
    original = _sections.Sections._decode
    monkeypatch.setattr(
        _sections.Sections, "_decode", lambda self, z, i: (decoded.append((z, i)), original(self, z, i))[1]
    )
    window = (slice(0, 4), slice(60, 140), slice(10, 90))
    with ThreadPoolExecutor(8) as pool:
        for block in pool.map(volume.read, [window] * 40):
            np.testing.assert_array_equal(block, array[window])
    assert sorted(decoded) == [(z, i) for z in range(4) for i in (1, 2)]  # once each, and only what was touched


def test_cache_keeps_its_limit_and_the_latest_blocks():
    cache = _sections.BlockCache(limit_bytes=250)
    calls = []

    def block(number):
        return cache.get((number,), lambda: (calls.append(number), np.zeros(100, np.uint8))[1])

    for number in (1, 2, 1, 3, 1, 2):
        block(number)
        assert cache.held_bytes <= 250
    assert calls == [1, 2, 3, 2]


def test_opened_volumes_can_be_pickled(tmp_path):
    array = noise((3, 30, 30))
    Volume.from_array(array, voxel_nm=(4, 4, 4)).save(tmp_path / "v.tif")
    copy = pickle.loads(pickle.dumps(Volume.open(tmp_path / "v.tif")))
    assert len(pickle.dumps(copy)) < 1000
    np.testing.assert_array_equal(copy.read(), array)


@pytest.mark.parametrize("name", ["epfl_hippocampus/image", "vnc_sstem/labels", "flyem_medulla/instances"])
def test_real_data(name):
    path = REAL / f"{name}.tif"
    if not path.exists():
        pytest.skip(f"{path} absent")
    volume = Volume.open(path)
    assert volume.voxel_nm is None
    window = (slice(2, 6), slice(100, 230), slice(30, 200))
    np.testing.assert_array_equal(volume.read(window), tifffile.imread(path)[window])
