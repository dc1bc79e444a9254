"""A volume: lazy voxels with a voxel size, a name and a fingerprint."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_em_da.errors import DataError
from napari_em_da.lazy import computed

if TYPE_CHECKING:
    import dask.array as da

VoxelSize = tuple[float, float, float]
SAMPLE_VOXELS = 1 << 21  # enough for a percentile to be stable to < 0.1 % of the range
SAMPLE_READ = 1 << 26  # voxels that a sample may have to decode, however large the sections
NAN_REMEDY = "replace them, for example with numpy.nan_to_num, before opening the volume."


@dataclass(frozen=True)
class Intensity:
    """How one volume's raw intensities become network input.

    Attributes
    ----------
    quantiles : tuple of 257 floats
        Raw intensities at the probabilities 0, 1/256, …, 1, between the robust limits (0.1 % and 99.9 %).
    mean, std : float
        Of the raw intensities inside the limits.
    """

    quantiles: tuple[float, ...]
    mean: float
    std: float

    def standardise(self, raw: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Clip to the robust range, then shift and scale to mean 0 and standard deviation 1; any shape.

        Raises
        ------
        DataError
            If ``raw`` holds NaN.
        """
        # 32-bit integers around 1e9 would lose their contrast in float32 before the mean is subtracted
        out: npt.NDArray[Any]
        out = np.clip(raw, self.quantiles[0], self.quantiles[-1], dtype=np.float32 if raw.itemsize <= 2 else np.float64)
        out -= self.mean
        out /= self.std
        if raw.dtype.kind == "f" and np.isnan(out).any():
            raise DataError(f"{int(np.isnan(out).sum())} of {out.size} voxels are NaN; {NAN_REMEDY}")
        return out.astype(np.float32, copy=False)


@dataclass(frozen=True, eq=False)
class Volume:
    """A stack of sections, read when asked for.

    Attributes
    ----------
    source : array-like (Z, Y, X) or (Z, Y, X, C)
        Whatever has ``shape``, ``dtype`` and slicing: a numpy, dask or zarr array, or the sections of a file.
    voxel_nm : (z, y, x) in nanometres, or None where nobody said
    name : str
    path : Path or None
        Where it was opened from.
    """

    source: Any = field(repr=False)
    voxel_nm: VoxelSize | None = None
    name: str = "volume"
    path: Path | None = None

    @classmethod
    def open(cls, path: str | Path, *, voxel_nm: Sequence[float] | None = None, name: str | None = None) -> Volume:
        """Open a file or a folder of sections lazily with the reader that knows it.

        Parameters
        ----------
        path : str or Path
        voxel_nm : (z, y, x), optional
            Overrides what the file says.

        Raises
        ------
        DataError
            If the path does not exist, no reader knows it, it is damaged, or it is not a stack of sections.
        """
        from napari_em_da.io import read

        volume = read(Path(path).expanduser())
        if voxel_nm is not None:
            volume = replace(volume, voxel_nm=check_voxel_size(voxel_nm))
        return volume if name is None else replace(volume, name=name)

    @classmethod
    def from_array(cls, array: Any, *, voxel_nm: Sequence[float] | None = None, name: str = "array") -> Volume:
        """Wrap a numpy, dask or zarr array (Z, Y, X[, C]); a single section (Y, X) becomes (1, Y, X).

        Booleans become uint8. The array is not copied.

        Raises
        ------
        DataError
            If the array is empty, of another number of axes, or not of real numbers.
        """
        if not hasattr(array, "shape"):
            array = np.asarray(array)
        if len(array.shape) not in (2, 3, 4):
            raise DataError(f"{name} has {len(array.shape)} axes {array.shape}; expected (Z, Y, X) or (Z, Y, X, C).")
        if not all(np.isfinite(n) and n > 0 for n in array.shape):
            raise DataError(f"{name} is empty or of unknown size: its shape is {tuple(array.shape)}.")
        if np.dtype(array.dtype).kind not in "buif":
            raise DataError(f"{name} is of type {array.dtype}; expected integers, floats or booleans.")
        if len(array.shape) == 2 or array.dtype == bool:
            if not isinstance(array, np.ndarray):
                array = _dask(array)
            array = array[None] if array.ndim == 2 else array
            array = array.astype(np.uint8) if array.dtype == bool else array
        return cls(array, None if voxel_nm is None else check_voxel_size(voxel_nm), name)

    @cached_property
    def data(self) -> da.Array:
        """The voxels as a dask array, one section per chunk unless the source has chunks of its own."""
        return _dask(self.source)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(int(n) for n in self.source.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the voxels in this machine's byte order."""
        dtype: np.dtype[Any] = np.dtype(self.source.dtype).newbyteorder("=")
        return dtype

    @property
    def nbytes(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    def read(self, region: tuple[slice, ...] | None = None) -> npt.NDArray[Any]:
        """Read a region (all of it by default) into memory: a fresh, writable, contiguous array.

        Notes
        -----
        The region is sliced from the source itself. Building a dask graph for a training window costs ten to
        twenty times more than reading it from a memory-mapped file.
        """
        block = computed(self.source[(slice(None),) if region is None else region])
        return np.array(block, dtype=self.dtype, order="C")

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write the volume with its voxel size, atomically: the file is whole, or it is not there.

        Raises
        ------
        DataError
            If the file exists and ``overwrite`` is false, or no writer knows the suffix.
        ResourceError
            If the disk has too little space.
        """
        from napari_em_da.io import write

        return write(self, Path(path), overwrite=overwrite)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of shape, type and a fixed sample of the voxels (16 hex digits).

        Up to 64 sections (fewer where they are huge), evenly spread, are hashed whole; two volumes that differ
        elsewhere only collide.
        """
        digest = hashlib.sha256(f"{self.shape}{self.dtype.str}".encode())
        for z in self._sampled_sections(64):
            digest.update(self.read((slice(z, z + 1),)).data)
        return digest.hexdigest()[:16]

    @cached_property
    def intensity(self) -> Intensity:
        """Robust range, quantiles, mean and standard deviation from a fixed sample of about 2 M voxels.

        Raises
        ------
        DataError
            If the sample holds NaN or infinity, or one single value.
        """
        sample = self._sample()
        if not np.isfinite(sample).all():
            bad = int((~np.isfinite(sample)).sum())
            raise DataError(
                f"{self.name} holds NaN or infinite intensities ({bad} of {sample.size} sampled voxels); " + NAN_REMEDY
            )
        low, high = np.percentile(sample, (0.1, 99.9))
        if high <= low:
            low, high = sample.min(), sample.max()
        if high <= low:
            raise DataError(f"{self.name} is constant: every sampled voxel is {low:g}; there is nothing to segment.")
        inside = sample[(sample >= low) & (sample <= high)].astype(np.float64)
        quantiles = np.quantile(inside, np.linspace(0, 1, 257))
        return Intensity(tuple(float(q) for q in quantiles), float(inside.mean()), float(inside.std()) or 1.0)

    def _sample(self) -> npt.NDArray[Any]:
        sections = self._sampled_sections(32)
        stride = max(1, int(np.sqrt(len(sections) * self.shape[1] * self.shape[2] / SAMPLE_VOXELS)))
        inner = slice(None, None, stride)
        return np.concatenate([self.read((slice(z, z + 1), inner, inner)).ravel() for z in sections])

    def _sampled_sections(self, most: int) -> list[int]:
        section = int(np.prod(self.shape[1:], dtype=np.int64))
        return spread(self.shape[0], min(most, max(2, SAMPLE_READ // section)))


def _dask(array: Any) -> da.Array:
    import dask.array as da

    if isinstance(array, da.Array):
        return array
    whole = (1, *array.shape[1:]) if array.ndim > 2 else array.shape
    wrapped: da.Array = da.from_array(array, chunks=getattr(array, "chunks", None) or whole, name=False)
    return wrapped


def spread(length: int, count: int) -> list[int]:
    """Return at most ``count`` evenly spread indices below ``length``."""
    return sorted({int(i) for i in np.linspace(0, length - 1, min(length, count)).round()})


def check_voxel_size(voxel_nm: Sequence[float]) -> VoxelSize:
    """Return (z, y, x) in nm, or raise a DataError."""
    sizes = tuple(float(v) for v in voxel_nm)
    if len(sizes) != 3 or not all(np.isfinite(v) and v > 0 for v in sizes):
        raise DataError(f"Voxel size {tuple(voxel_nm)} is not three positive numbers (z, y, x) in nanometres.")
    return sizes[0], sizes[1], sizes[2]
