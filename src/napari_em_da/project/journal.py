"""What is about to be written into an array, on the disk before the array is touched."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from napari_em_da.project.files import PARTIAL, replace_file, sync_folder

MAGIC = b"EMDAJ1\n"
DIGEST = hashlib.sha256().digest_size
KEY = re.compile(r"zarr\.json|c(/\d+)+")  # nothing outside the array's folder


@dataclass(frozen=True)
class Entry:
    """One save: the files that it writes, by their path in the array's folder."""

    path: Path
    files: Mapping[str, bytes] = field(repr=False)

    @property
    def nbytes(self) -> int:
        return sum(map(len, self.files.values()))


class Journal:
    """A folder with one file per save that is not yet in the array, numbered in order.

    Parameters
    ----------
    folder : Path
        Made when the first entry is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, files: Mapping[str, bytes]) -> Entry:
        """Write an entry; when this returns, it survives a crash. An OSError leaves no entry."""
        self.folder.mkdir(parents=True, exist_ok=True)
        last = max((int(path.stem) for path in self._paths()), default=0)
        entry = Entry(self.folder / f"{last + 1:08d}.entry", dict(files))
        replace_file(entry.path, _pack(files))
        return entry

    def remove(self, entry: Entry) -> None:
        """Remove an entry whose files are all in the array."""
        entry.path.unlink(missing_ok=True)
        sync_folder(self.folder)

    def recover(self) -> list[Entry]:
        """Return the complete entries in order; what a crash has left incomplete is removed."""
        entries = []
        for path in self._paths():
            files = _unpack(path.read_bytes())
            if files is None:
                path.unlink()
            else:
                entries.append(Entry(path, files))
        for path in self.folder.glob(f".*{PARTIAL}"):
            path.unlink()
        return entries

    def _paths(self) -> list[Path]:
        return sorted(path for path in self.folder.glob("*.entry") if path.stem.isdecimal())


def _pack(files: Mapping[str, bytes]) -> bytes:
    head = json.dumps([[key, len(data)] for key, data in files.items()]).encode()
    body = b"".join((MAGIC, len(head).to_bytes(8, "little"), head, *files.values()))
    return body + hashlib.sha256(body).digest()


def _unpack(text: bytes) -> dict[str, bytes] | None:
    """Return the files of an entry, or None if it is incomplete."""
    body, digest = text[:-DIGEST], text[-DIGEST:]
    if not body.startswith(MAGIC) or hashlib.sha256(body).digest() != digest:
        return None
    start = len(MAGIC) + 8
    end = start + int.from_bytes(body[len(MAGIC) : start], "little")
    files = {}
    for key, size in json.loads(body[start:end]):
        if not KEY.fullmatch(key):
            return None
        files[key] = body[end : end + size]
        end += size
    return files
