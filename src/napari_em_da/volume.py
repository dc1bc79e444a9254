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

if TYPE_CHECKING:
    import dask.array as da

VoxelSize = tuple[float, float, float]
SAMPLE_VOXELS = 1 << 21  # enough for a percentile to be stable to < 0.1 % of the range


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
        """Clip to the robust range, then shift and scale to mean 0 and standard deviation 1; any shape."""
        out = np.clip(raw.astype(np.float32, copy=False), self.quantiles[0], self.quantiles[-1])
        out -= np.float32(self.mean)
        out /= np.float32(self.std)
        return out


@dataclass(frozen=True)
class Volume:
    """A stack of sections, read when asked for.

    Attributes
    ----------
    data : dask array (Z, Y, X) or (Z, Y, X, C)
    voxel_nm : (z, y, x) in nanometres, or None where nobody said
    name : str
    path : Path or None
        Where it was opened from.
    """

    data: da.Array = field(repr=False)
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
        from napari_em_da.catalog import Catalog

        path = Path(path).expanduser()
        if not path.exists():
            raise DataError(f"{path} does not exist.")
        reader_names: Catalog[Any] = Catalog("napari_em_da.io", "READER")
        reasons = []
        for entry in reader_names.names():
            reader = reader_names[entry]
            reason = reader.cannot_read(path)
            if reason is None:
                volume: Volume = reader.read(path)
                if voxel_nm is not None:
                    volume = replace(volume, voxel_nm=check_voxel_size(voxel_nm))
                return volume if name is None else replace(volume, name=name)
            reasons.append(f"{entry}: {reason}")
        raise DataError(f"No reader can open {path} ({'; '.join(reasons)}).")

    @classmethod
    def from_array(
        cls, array: Any, *, voxel_nm: Sequence[float] | None = None, name: str = "array"
    ) -> Volume:
        """Wrap a numpy or dask array (Z, Y, X[, C]); a single section (Y, X) becomes (1, Y, X)."""
        import dask.array as da

        if array.ndim == 2:
            array = array[None]
        if array.ndim not in (3, 4):
            raise DataError(f"{name} has {array.ndim} axes {tuple(array.shape)}; expected (Z, Y, X) or (Z, Y, X, C).")
        if 0 in array.shape:
            raise DataError(f"{name} is empty: its shape is {tuple(array.shape)}.")
        if not isinstance(array, da.Array):
            array = da.from_array(array, chunks=(1, *array.shape[1:]), name=False)
        return cls(array, None if voxel_nm is None else check_voxel_size(voxel_nm), name)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(int(n) for n in self.data.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(self.data.dtype)

    @property
    def nbytes(self) -> int:
        return int(self.data.nbytes)

    def read(self, region: tuple[slice, ...] | None = None) -> npt.NDArray[Any]:
        """Read a region (all of it by default) into memory."""
        block = self.data if region is None else self.data[region]
        return np.asarray(block.compute(scheduler="synchronous"))

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write the volume with its voxel size, atomically: the file is whole, or it is not there.

        Raises
        ------
        DataError
            If the file exists and ``overwrite`` is false, or no writer knows the suffix.
        """
        from napari_em_da.io import write

        return write(self, Path(path), overwrite=overwrite)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of shape, type and a fixed sample of the voxels (16 hex digits).

        Up to 64 sections, evenly spread, are hashed whole; two volumes that differ elsewhere only collide.
        """
        digest = hashlib.sha256(f"{self.shape}{self.dtype.str}".encode())
        for z in spread(self.shape[0], 64):
            digest.update(np.ascontiguousarray(self.read((slice(z, z + 1),))).tobytes())
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
                f"{self.name} holds NaN or infinite intensities ({bad} of {sample.size} sampled voxels); "
                "replace them, for example with numpy.nan_to_num, before opening it here."
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
        sections = spread(self.shape[0], 32)
        stride = max(1, int(np.sqrt(len(sections) * self.shape[1] * self.shape[2] / SAMPLE_VOXELS)))
        parts = [self.read((slice(z, z + 1), slice(None), slice(None)))[:, ::stride, ::stride].ravel() for z in sections]
        return np.concatenate(parts)


def spread(length: int, count: int) -> list[int]:
    """Return at most ``count`` evenly spread indices below ``length``."""
    return sorted({int(i) for i in np.linspace(0, length - 1, min(length, count)).round()})


def check_voxel_size(voxel_nm: Sequence[float]) -> VoxelSize:
    """Return (z, y, x) in nm, or raise a DataError."""
    sizes = tuple(float(v) for v in voxel_nm)
    if len(sizes) != 3 or not all(np.isfinite(v) and v > 0 for v in sizes):
        raise DataError(f"Voxel size {tuple(voxel_nm)} is not three positive numbers (z, y, x) in nanometres.")
    return sizes[0], sizes[1], sizes[2]
