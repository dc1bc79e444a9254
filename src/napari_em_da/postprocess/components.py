"""Connected components: every connected piece of a class becomes an instance (Rosenfeld & Pfaltz 1966).

Exact on volumes of any size: pieces that meet at the faces of blocks get one id.
"""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from pydantic import Field

from napari_em_da.config import Options
from napari_em_da.postprocess._base import Stack, Step, Work
from napari_em_da.postprocess._components import components, scan_components

UNANNOTATED = 255


class ComponentsOptions(Options):
    """Options of connected components."""

    classes: tuple[str, ...] = Field((), description="Classes whose pieces become instances; all but the first if none")
    connectivity: Annotated[int, Field(ge=1, le=3)] = Field(
        1, description="Voxels are neighbours if they differ by one step on at most this many axes"
    )
    sections: bool = Field(False, description="In each section for itself: no object spans two sections")


def apply(stack: Stack, options: ComponentsOptions) -> Stack | Work:
    """Give each connected piece of the chosen classes its own id.

    Touching voxels of different classes belong to different instances. 255, not annotated, is background.
    """
    chosen = [stack.channel(name) for name in options.classes] or range(1, UNANNOTATED)
    table = np.zeros(256, np.uint8)
    table[list(chosen)] = np.add(chosen, 1)  # so that the first class can be chosen, too: cells between membranes

    def selected(block: Any) -> Any:
        return table[block.astype(np.uint8, copy=False)]

    if stack.lazy:
        return _by_block(stack, stack.data.map_blocks(selected, dtype=np.uint8), options)
    ids = components(selected(stack.data), connectivity=options.connectivity, sections=options.sections)
    return stack.with_data(ids, "instances")


def _by_block(stack: Stack, kept: Any, options: ComponentsOptions) -> Work:
    found = yield from scan_components(kept, connectivity=options.connectivity, sections=options.sections)
    return stack.with_data(found.ids, "instances")


def reach(options: ComponentsOptions) -> int | None:
    """Return 0 where each section is looked at for itself."""
    return 0 if options.sections else None


STEP = Step(ComponentsOptions, ("labels",), "instances", apply, reach=reach)
