"""One section of a weight map, without computing the others."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from napari_em_da.weights._stack import Block, Depth, LabelStack


@dataclass(frozen=True, eq=False)
class OneSection(LabelStack):
    """Labels of a whole volume whose maps hold one section: (1, Y, X), in memory.

    Attributes
    ----------
    z : int
        The section.
    memory : mapping
        What was counted over the whole volume, by what was counted.

    Notes
    -----
    A map reads the section with the neighbours that it asks for. Blocks end at borders of the volume or lie ``depth``
    sections off the one that is kept, so the result is that of the whole volume.
    """

    z: int = 0
    memory: MutableMapping[object, Any] = field(default_factory=dict)

    @property
    def lazy(self) -> bool:
        """What comes out is in memory, even where the labels are not."""
        return False

    @property
    def whole(self) -> LabelStack:
        """The volume itself."""
        return LabelStack(self.array, self.ignore_index, self.spacing, self.reading)

    @property
    def covered(self) -> Any:
        """Labels (1, Y, X) of the section."""
        return self._read(self.z, self.z + 1)

    def map(
        self, function: Callable[..., None], *scalars: Any, depth: Depth = (0, 0, 0), whole_sections: bool = False
    ) -> Any:
        """Compute float32 weights (1, Y, X) of the section."""
        low, high = max(0, self.z - depth[0]), min(self.array.shape[0], self.z + depth[0] + 1)
        block = self._read(low, high)
        out = np.empty(block.shape, np.float32)
        function(block, out, *scalars)
        return out[self.z - low : self.z - low + 1]

    def tally(self, count: Callable[[Block], Any], merge: Callable[[Any, Any], Any]) -> Any:
        """Reduce the labels of the whole volume, once."""
        what = count.func if isinstance(count, partial) else count
        how = tuple(sorted(count.keywords.items())) if isinstance(count, partial) else ()
        return self.kept(("tally", what, how), lambda: self.whole.tally(count, merge))

    def over_volume(self, key: object, reduce: Callable[[LabelStack], Any], here: Callable[[], float]) -> float:
        """Return the number that the whole map is scaled by."""
        return float(self.kept(key, lambda: reduce(self.whole)))

    def kept(self, key: object, compute: Callable[[], Any]) -> Any:
        """Return what is remembered, or compute it now."""
        if key not in self.memory:
            found = compute()
            self.memory[key] = found.compute(scheduler="synchronous") if hasattr(found, "dask") else found
        return self.memory[key]

    def _read(self, low: int, high: int) -> Block:
        labels = self.array[low:high]
        block: Block = labels.compute(scheduler="synchronous") if hasattr(labels, "dask") else labels
        return block
