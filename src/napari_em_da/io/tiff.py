"""TIFF: single files, ImageJ and OME stacks, BigTIFF, and folders with one section per file."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile

from napari_em_da.errors import DataError
from napari_em_da.io._sections import Page, Sections
from napari_em_da.io._stepwise import stepwise
from napari_em_da.io._tiff_voxels import voxel_size
from napari_em_da.volume import Volume, spread

SUFFIXES = (".tif", ".tiff", ".btf", ".tf8")
CLASSIC_BYTES = 4 << 30  # offsets of classic TIFF have 32 bits; room for the headers is kept below this
COMPRESS_RATIO = 4.0


class TiffReader:
    """Reads TIFF files and folders of TIFF sections."""

    def cannot_read(self, path: Path) -> str | None:
        """Return why ``path`` is no TIFF; a folder counts if it holds a file with a TIFF suffix."""
        if path.is_dir():
            return None if section_files(path) else f"the folder holds no file ending in {', '.join(SUFFIXES)}"
        if path.suffix.lower() in SUFFIXES:
            return None
        with path.open("rb") as file:
            return None if _byte_order(file.read(4)) else "it does not begin like a TIFF file"

    def read(self, path: Path) -> Volume:
        """Open a stack lazily.

        Raises
        ------
        DataError
            If a file is damaged or truncated, sections differ in shape or type, or there is more than one
            channel or time point.
        """
        sections, voxel_nm = _open_folder(path) if path.is_dir() else _open_file(path)
        return Volume(sections, voxel_nm, path.name.split(".")[0] or path.name, path)


class TiffWriter:
    """Writes ImageJ TIFF where its types allow, OME-TIFF otherwise, BigTIFF above 4 GB."""

    suffixes = SUFFIXES[:2]

    def size(self, volume: Volume) -> int:
        """Return the bytes needed, estimated from one section where the volume will be compressed."""
        ratio = compression_ratio(volume)
        # half of what the sample promises: other sections may be busier
        return int(volume.nbytes / (ratio / 2 if ratio >= COMPRESS_RATIO else 1)) + (1 << 16)

    def steps(self, volume: Volume, path: Path) -> Iterator[int]:
        """Write section by section, never more than a few in memory, and yield how many tifffile has taken.

        Notes
        -----
        Volumes that compress at least four-fold, as labels do, are zlib-compressed; images are not, so that they
        can be memory-mapped. 64-bit integers fit neither ImageJ nor OME; their voxel size goes into a JSON
        description.
        """
        big = volume.nbytes > CLASSIC_BYTES - (volume.shape[0] << 10) - (1 << 20)
        color = volume.dtype == np.uint8 and volume.shape[3:] in ((3,), (4,))
        kind, options = _metadata(volume, big, color)
        compress = compression_ratio(volume) >= COMPRESS_RATIO

        def write(sections: Iterator[npt.NDArray[Any]]) -> None:
            with tifffile.TiffWriter(path, bigtiff=big, **kind) as file:
                file.write(
                    sections,
                    shape=volume.shape,
                    dtype=volume.dtype,
                    photometric="rgb" if color else "minisblack",
                    planarconfig="contig" if len(volume.shape) == 4 else None,
                    compression="zlib" if compress else None,
                    **options,
                )

        yield from stepwise(write, _each_section(volume))


READER = TiffReader()
WRITER = TiffWriter()


def section_files(folder: Path) -> list[Path]:
    """Return the TIFF files of a folder in natural order: 1, 2, 10."""
    found = [f for f in folder.iterdir() if f.suffix.lower() in SUFFIXES and not f.name.startswith(".")]
    return sorted(found, key=_natural)


def compression_ratio(volume: Volume) -> float:
    """Return how many times smaller zlib makes a section, the worst of three."""
    ratios = []
    for z in spread(volume.shape[0], 3):
        section = np.ascontiguousarray(volume.read((slice(z, z + 1), slice(0, 1024), slice(0, 1024))))
        ratios.append(section.nbytes / len(zlib.compress(section.data, 1)))
    return min(ratios)


def _natural(path: Path) -> list[tuple[int, int, str]]:
    parts = re.split(r"(\d+)", path.name.lower())
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts if part]


def _open_folder(folder: Path) -> tuple[Sections, tuple[float, float, float] | None]:
    files = section_files(folder)
    if not files:
        raise DataError(f"{folder} holds no file ending in {', '.join(SUFFIXES)}.")
    first, voxel_nm = _open_file(files[0])
    pages: list[Page] = []
    for file in files:
        one = first if file == files[0] else _open_file(file)[0]
        if one.shape[0] != 1:
            raise DataError(f"{file} holds {one.shape[0]} sections; a folder of sections has one per file.")
        if one.shape != first.shape or one.dtype != first.dtype:
            raise DataError(
                f"{file} is {one.shape[1:]} {one.dtype}, but {files[0].name} is {first.shape[1:]} {first.dtype}; "
                "all sections of a folder need one shape and type."
            )
        pages += one.pages
    return Sections(pages, first.shape[1:], first.dtype, (_reopen, folder)), voxel_nm


def _reopen(path: Path) -> Sections:
    return (_open_folder(path) if path.is_dir() else _open_file(path))[0]


def _open_file(path: Path) -> tuple[Sections, tuple[float, float, float] | None]:
    try:
        _check_chain(path)
        with tifffile.TiffFile(path) as file:
            return _open_series(path, file)
    except DataError:
        raise
    except Exception as error:  # tifffile meets a damaged file with whatever exception comes first
        raise DataError(f"{path} is not a readable TIFF file ({type(error).__name__}: {error}).") from error


def _open_series(path: Path, file: tifffile.TiffFile) -> tuple[Sections, tuple[float, float, float] | None]:
    if not file.series:
        raise DataError(f"{path} holds no image.")
    series = file.series[0]
    if len(file.series) > 1 and not file.is_ome:
        shapes = sorted({str(s.keyframe.shape) for s in file.series})
        raise DataError(f"{path} mixes pages of different shapes or types ({', '.join(shapes)}); split it into stacks.")
    depth = _stack_depth(path, series)
    keyframe = series.keyframe
    if keyframe.imagedepth != 1 or keyframe.is_subsampled:
        raise DataError(f"{path} stores volumetric or subsampled pages; save it as one page per section.")
    dtype = np.dtype(keyframe.dtype).newbyteorder("=") if keyframe.dtype is not None else np.dtype("V")
    if dtype.kind not in "buif":
        raise DataError(f"{path} holds {keyframe.bitspersample}-bit {dtype.name} pixels; expected integers or floats.")
    planes, _, length, width, samples = keyframe.shaped
    channels = planes * samples
    section = (length, width) if channels == 1 else (length, width, channels)
    pages = list(_pages(path, file, series, depth))
    kept = np.dtype(np.uint8) if dtype.kind == "b" else dtype
    return Sections(pages, section, kept, (_reopen, path)), voxel_size(file, depth)


def _stack_depth(path: Path, series: tifffile.TiffPageSeries) -> int:
    """Return the number of sections; whatever single axis is longer than one is the stack, T and C included."""
    stack = [(a, n) for a, n in zip(series.axes, series.shape, strict=True) if a not in "YXS" and n > 1]
    if len(stack) > 1:
        axes = ", ".join(f"{a} {n}" for a, n in zip(series.axes, series.shape, strict=True))
        raise DataError(f"{path} has more than one channel or time point ({axes}); save one of them as a stack.")
    if 0 in series.shape or "X" not in series.axes or "Y" not in series.axes:
        raise DataError(f"{path} is no stack of sections: its axes are {series.axes} {tuple(series.shape)}.")
    return int(stack[0][1]) if stack else 1


def _pages(path: Path, file: tifffile.TiffFile, series: tifffile.TiffPageSeries, depth: int) -> Iterator[Page]:
    """Yield where each section lies; sections must lie inside the file."""
    keyframe = series.keyframe
    size = path.stat().st_size
    mappable = keyframe.is_memmappable and keyframe.shaped[0] == 1
    dtype = np.dtype(keyframe.dtype)
    raw = dtype.newbyteorder(file.byteorder) if mappable else None
    section = int(np.prod(keyframe.shaped, dtype=np.int64)) * dtype.itemsize
    if mappable and series.dataoffset is not None:
        _check_inside(path, depth - 1, series.dataoffset + depth * section, size)
        for z in range(depth):
            yield Page(path, keyframe, (series.dataoffset + z * section,), (section,), raw)
        return
    if len(series.pages) != depth:
        raise DataError(f"{path} promises {depth} sections but holds {len(series.pages)} pages; it is damaged.")
    keyframe.init_decode()
    jpeg = {"jpegtables": keyframe.jpegtables, "jpegheader": keyframe.jpegheader}
    jpeg = jpeg if keyframe.compression in (6, 7, 34892, 33007) else {}
    for z, page in enumerate(series.pages):
        if page is None:
            raise DataError(f"{path}: section {z} is missing.")
        where = Path(page.parent.filehandle.path)
        end = max((o + n for o, n in zip(page.dataoffsets, page.databytecounts, strict=True)), default=0)
        _check_inside(where, z, end, size if where == path else where.stat().st_size)
        counts = (section,) if raw is not None else page.databytecounts
        yield Page(where, keyframe, page.dataoffsets, counts, raw, jpeg)


def _check_inside(path: Path, z: int, end: int, size: int) -> None:
    if end > size:
        raise DataError(f"{path} is truncated: section {z} ends at byte {end}, but the file has {size}; copy it again.")


def _byte_order(start: bytes) -> str | None:
    return {b"II*\0": "<", b"MM\0*": ">", b"II+\0": "<", b"MM\0+": ">"}.get(start)


def _check_chain(path: Path) -> None:
    """Walk the list of pages: where it leaves the file, tifffile would silently return fewer sections.

    Raises
    ------
    DataError
        If this is no TIFF file, or its list of pages is empty or broken.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(16)
        order = _byte_order(start[:4])
        if order is None or len(start) < 8:
            what = f"begins with {start[:4]!r}" if start else "is empty"
            raise DataError(f"{path} is not a TIFF file: it {what}.")
        big = b"+" in start[:4]
        count_format, entry, offset_format = ("Q", 20, "Q") if big else ("H", 12, "I")
        offset = struct.unpack(order + offset_format, start[8:16] if big else start[4:8])[0]
        if offset == 0:
            raise DataError(f"{path} holds no page.")
        pages = 0
        while offset:
            file.seek(offset)
            head = file.read(struct.calcsize(count_format))
            tags = struct.unpack(order + count_format, head)[0] if len(head) == struct.calcsize(count_format) else 0
            end = offset + len(head) + tags * entry
            file.seek(min(end, size))
            tail = file.read(struct.calcsize(offset_format))
            if len(tail) < struct.calcsize(offset_format) or pages > size // entry:
                raise DataError(f"{path} is truncated or damaged: page {pages} leaves the file's {size} bytes.")
            offset = struct.unpack(order + offset_format, tail)[0]
            pages += 1


def _each_section(volume: Volume) -> Iterator[npt.NDArray[Any]]:
    for z in range(volume.shape[0]):
        yield volume.read((slice(z, z + 1),))[0]


def _metadata(volume: Volume, big: bool, color: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """Choose the flavour of TIFF and express the voxel size in it."""
    axes = "ZYX" if len(volume.shape) == 3 else "ZYXS"
    size = volume.voxel_nm
    imagej = not big and (color or (axes == "ZYX" and volume.dtype in (np.uint8, np.uint16, np.float32)))
    if imagej:
        spacing = {} if size is None else {"unit": "nm", "spacing": size[0]}
        options: dict[str, Any] = {"metadata": {"axes": axes, **spacing}}
        if size is not None:
            options |= {"resolution": (1 / size[2], 1 / size[1]), "resolutionunit": "NONE"}
        return {"imagej": True}, options
    if volume.dtype.itemsize == 8 and volume.dtype.kind in "ui":
        return {}, {"metadata": {"axes": axes, "voxel_nm": size}}
    return {"ome": True}, {"metadata": {"axes": axes, **_ome_sizes(size)}}


def _ome_sizes(size: Sequence[float] | None) -> dict[str, Any]:
    if size is None:
        return {}
    return {
        key: value
        for axis, length in zip("ZYX", size, strict=True)
        for key, value in ((f"PhysicalSize{axis}", length), (f"PhysicalSize{axis}Unit", "nm"))
    }
