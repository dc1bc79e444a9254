"""One section of a weight map, without computing the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping
from dataclasses import dataclass, field, replace
from functools import partial
from threading import Lock
from typing import Any

import numpy as np

from napari_em_da.lazy import computed
from napari_em_da.weights._stack import Block, Depth, LabelStack, T

KEPT_BYTES = 1 << 28  # of what was prepared for sections, the last one looked at among them
PREPARED = "prepared"


@dataclass(frozen=True)
class Count:
    """A number over the volume that a section was computed without: its key, and how to get it."""

    key: object
    part: Callable[[LabelStack], Any]
    merge: Callable[[Any, Any], Any]


@dataclass(frozen=True, eq=False)
class OneSection(LabelStack):
    """Labels of a whole volume whose maps hold one section: (1, Y, X), in memory.

    Attributes
    ----------
    z : int
        The section.
    memory : mapping
        What was counted over the whole volume, by what was counted, and what was prepared of sections.
    missing : list of Count, optional
        Numbers over the volume that are not in ``memory`` go here, and the section's own stand in for them; they are
        counted at once if absent.
    in_view : bool
        It is looked at: threads share it, and what was prepared for it is kept.

    Notes
    -----
    A map reads the section with the neighbours that it asks for. Blocks end at borders of the volume or lie ``depth``
    sections off the one that is kept, so the result is that of the whole volume.
    """

    z: int = 0
    memory: MutableMapping[object, Any] = field(default_factory=dict)
    missing: list[Count] | None = None
    in_view: bool = True

    @property
    def lazy(self) -> bool:
        """What comes out is in memory, even where the labels are not."""
        return False

    @property
    def threads(self) -> int:
        """How many threads share the section."""
        from napari_em_da.weights._compiled import thread_count

        return thread_count() if self.in_view else 1

    @property
    def whole(self) -> LabelStack:
        """The volume itself."""
        return LabelStack(self.array, self.ignore_index, self.spacing, self.reading)

    @property
    def covered(self) -> Any:
        """Labels (1, Y, X) of the section."""
        return self._read(self.z, self.z + 1)

    def map(
        self,
        function: Callable[..., None],
        *scalars: Any,
        depth: Depth = (0, 0, 0),
        whole_sections: bool = False,
        prepare: partial[Any] | None = None,
    ) -> Any:
        """Compute float32 weights (1, Y, X) of the section."""
        low, high = max(0, self.z - depth[0]), min(self.array.shape[0], self.z + depth[0] + 1)
        block = self._read(low, high)
        out = np.empty(block.shape, np.float32)
        if prepare is None:
            function(block, out, *scalars)
        else:
            function(block, out, self._prepared(prepare, block, low), *scalars)
        return out[self.z - low : self.z - low + 1]

    def tally(self, count: Callable[[Block], Any], merge: Callable[[Any, Any], Any]) -> Any:
        """Reduce the labels of the whole volume, once."""
        what, how = named(count)
        return self._kept(("tally", what, how), lambda: self.whole.tally(count, merge))

    def over_volume(
        self, key: object, part: Callable[[LabelStack], T], merge: Callable[[T, T], T], here: Callable[[], T]
    ) -> T:
        """Return what the whole map is scaled by, or this section's own part where that is missing."""
        if key not in self.memory:
            count = Count(key, part, merge)
            if self.missing is not None:
                self.missing.append(count)
                return here()
            for _ in self.counting(count):
                pass
        found: T = self.memory[key]
        return found

    def counting(self, count: Count) -> Iterator[int]:
        """Count over all sections, and yield after every few how many are done; the result is in ``memory``."""
        from napari_em_da.weights._compiled import in_threads, thread_count

        total, at_once = None, thread_count()
        for begin in range(0, self.array.shape[0], at_once):
            sections = range(begin, min(begin + at_once, self.array.shape[0]))
            others = [replace(self, z=z, missing=None, in_view=False) for z in sections]
            for found in in_threads(count.part, others):
                total = found if total is None else count.merge(total, found)
            yield sections.stop
        self.memory[count.key] = total

    def _kept(self, key: object, compute: Callable[[], Any]) -> Any:
        if key not in self.memory:
            self.memory[key] = computed(compute())
        return self.memory[key]

    def _prepared(self, prepare: partial[Any], block: Block, low: int) -> Any:
        """Return what is kept, or prepare it now; a section that is not in view makes no other one go."""
        kept: Prepared = self.memory.setdefault(PREPARED, Prepared())
        key = (low, len(block), *named(prepare))
        found = kept.get(key)
        if found is None:
            found = prepare(block)
            kept.put(key, found, make_room=self.in_view)
        return found

    def _read(self, low: int, high: int) -> Block:
        block: Block = computed(self.array[low:high])
        return block


class Prepared:
    """Arrays by key, up to a number of bytes; the ones that were not asked for longest go first."""

    def __init__(self) -> None:
        self._arrays: dict[object, Any] = {}
        self._lock = Lock()

    def get(self, key: object) -> Any:
        """Return an array, or None where it is not kept."""
        with self._lock:
            found = self._arrays.pop(key, None)
            if found is not None:
                self._arrays[key] = found
            return found

    def put(self, key: object, array: Any, *, make_room: bool) -> None:
        """Keep an array if there is room for it, or can be made."""
        with self._lock:
            while make_room and self._arrays and self._size() + array.nbytes > KEPT_BYTES:
                del self._arrays[next(iter(self._arrays))]
            if self._size() + array.nbytes <= KEPT_BYTES:
                self._arrays[key] = array

    def _size(self) -> int:
        return sum(int(array.nbytes) for array in self._arrays.values())


def named(function: Callable[..., Any]) -> tuple[object, object]:
    """Return what tells a partial function of plain keywords from others."""
    if isinstance(function, partial):
        return function.func, tuple(sorted(function.keywords.items()))
    return function, ()
