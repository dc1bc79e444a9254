"""Sparse labels: what was painted in a few places of a volume of any size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_em_da.errors import ConfigError, DataError
from napari_em_da.volume import Volume
from napari_em_da.workflows.plan import IGNORE, class_values

Labels = npt.NDArray[np.uint8]
Region = tuple[slice, slice, slice]


@dataclass(frozen=True, eq=False)
class Painted:
    """Class indices where something is painted, 255 elsewhere; slices like an array (Z, Y, X) uint8.

    Attributes
    ----------
    shape : (z, y, x)
        Of the volume.
    sections : {z: (y, x, (h, w) uint8)}
        Corner and content of the smallest box around the paint of every section that has any.
    """

    shape: tuple[int, int, int]
    sections: Mapping[int, tuple[int, int, Labels]]

    @classmethod
    def read(cls, volume: Volume, classes: Mapping[str, tuple[int, ...]], ignore: int) -> Painted:
        """Read a label volume section by section; 0 is background.

        Raises
        ------
        ConfigError
            If the value of unpainted voxels is that of a class.
        DataError
            If the volume is not one of integers (Z, Y, X), or holds a value of no class, which would otherwise be
            learned as background.
        """
        values = class_values(classes)
        if any(ignore in members for members in values):
            raise ConfigError(f"ignore_label {ignore} is the label of a class; give the value of unpainted voxels.")
        if volume.dtype.kind not in "uib" or len(volume.shape) != 3:
            found = f"{volume.dtype} of shape {volume.shape}"
            raise DataError(f"The corrections {volume.name} hold {found}; they must be integer labels (Z, Y, X).")
        sections = {}
        for z in range(volume.shape[0]):
            section = volume.read((slice(z, z + 1),))[0]
            if (section == ignore).all():
                continue
            indices = np.zeros(section.shape, np.uint8)
            for index, members in enumerate(values, start=1):
                indices[np.isin(section, members)] = index
            indices[section == ignore] = IGNORE
            strange = section[(indices == 0) & (section != 0)]
            if strange.size:
                found = ", ".join(str(value) for value in np.unique(strange)[:5])
                raise DataError(
                    f"The corrections {volume.name!r} hold {found} in section {z}, which is no class of the run. Paint "
                    "it over with a class, or erase it; nothing was learned from it."
                )
            sections[z] = (0, 0, indices)
        depth, height, width = volume.shape
        return cls((depth, height, width), sections).trimmed()

    @property
    def voxels(self) -> int:
        """Number of painted voxels."""
        return sum(int((part != IGNORE).sum()) for _, _, part in self.sections.values())

    def count(self, z: int) -> int:
        """Return the number of painted voxels of a section."""
        return int((self.sections[z][2] != IGNORE).sum())

    def trimmed(self) -> Painted:
        """Return the same paint in the smallest boxes."""
        found = {}
        for z, (y, x, part) in self.sections.items():
            rows, columns = (np.flatnonzero((part != IGNORE).any(axis)) for axis in (1, 0))
            if rows.size:
                box = part[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
                found[z] = (y + int(rows[0]), x + int(columns[0]), box.copy())
        return Painted(self.shape, found)

    def region(self, sections: Sequence[int]) -> Region:
        """Return the box around the paint of some sections."""
        parts = [self.sections[z] for z in sections]
        y, x = min(part[0] for part in parts), min(part[1] for part in parts)
        far_y, far_x = (max(part[axis] + part[2].shape[axis] for part in parts) for axis in (0, 1))
        return slice(min(sections), max(sections) + 1), slice(y, far_y), slice(x, far_x)

    def groups(self, gap: int) -> list[list[int]]:
        """Return the painted sections, in groups whose sections are at most ``gap`` apart."""
        groups: list[list[int]] = []
        for z in sorted(self.sections):
            if groups and z - groups[-1][-1] <= gap:
                groups[-1].append(z)
            else:
                groups.append([z])
        return groups

    def __getitem__(self, key: tuple[Any, ...]) -> Labels:
        depth, *plane = key
        rows, columns = (slice(*s.indices(n)[:2]) for s, n in zip(plane, self.shape[1:], strict=True))
        if not isinstance(depth, slice):
            return self._section(int(depth), rows, columns)
        return np.stack([self._section(z, rows, columns) for z in range(*depth.indices(self.shape[0]))])

    def _section(self, z: int, rows: slice, columns: slice) -> Labels:
        out = np.full((rows.stop - rows.start, columns.stop - columns.start), IGNORE, np.uint8)
        if z not in self.sections:
            return out
        y, x, part = self.sections[z]
        top, left = max(y, rows.start), max(x, columns.start)
        bottom, right = min(y + part.shape[0], rows.stop), min(x + part.shape[1], columns.stop)
        if bottom > top and right > left:
            inner = part[top - y : bottom - y, left - x : right - x]
            out[top - rows.start : bottom - rows.start, left - columns.start : right - columns.start] = inner
        return out

    def after(self, older: Painted) -> tuple[Painted, Painted]:
        """Return (older, newer) without doubles: equal paint stays with the older, of different paint the newer counts.

        What the newer leaves unpainted stays as the older has it.
        """
        old, new = dict(older.sections), dict(self.sections)
        for z in old.keys() & new.keys():
            (y, x, first), (v, u, second) = old[z], new[z]
            before = older._section(z, slice(v, v + second.shape[0]), slice(u, u + second.shape[1]))
            now = self._section(z, slice(y, y + first.shape[0]), slice(x, x + first.shape[1]))
            old[z] = (y, x, np.where((now != IGNORE) & (now != first), np.uint8(IGNORE), first))
            new[z] = (v, u, np.where(before == second, np.uint8(IGNORE), second))
        return Painted(self.shape, old).trimmed(), Painted(self.shape, new).trimmed()

    def save(self, path: Path) -> None:
        """Write a compressed ``.npz``."""
        parts = {f"{z} {y} {x}": part for z, (y, x, part) in self.sections.items()}
        temporary = path.with_name(f".{path.name}")
        with temporary.open("wb") as file:
            np.savez_compressed(file, shape=np.array(self.shape), **parts)  # type: ignore[arg-type]  # numpy's stub
        temporary.replace(path)

    @classmethod
    def load(cls, path: Path) -> Painted:
        """Read what ``save`` wrote."""
        try:
            with np.load(path) as file:
                depth, height, width = (int(n) for n in file["shape"])
                sections = {}
                for name in file.files:
                    if name != "shape":
                        z, y, x = map(int, name.split())
                        sections[z] = (y, x, file[name])
        except (OSError, ValueError, KeyError) as error:
            raise DataError(f"The paint in {path} is missing or damaged ({error}); correct again.") from None
        return cls((depth, height, width), sections)
