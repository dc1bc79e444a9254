"""Averaging along z: what a network that looks at single sections finds is averaged with what it finds next to them.

Its mistakes differ from section to section, thick objects go on. Each class is averaged over a share of its own width,
which is measured on the prediction itself: mitochondria over some ten nanometres, membranes not at all. More than half
of the weight stays close by, so that what the network is sure of is not overruled, and nothing is averaged across a gap
in the stack, where the maps of two sections have nothing in common.

``segment`` does this by default: its probabilities need it no more, unless it was told ``--smooth-z 0``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from napari_em_da.config import Fraction
from napari_em_da.config import Options as Base
from napari_em_da.errors import ConfigError
from napari_em_da.events import Progress
from napari_em_da.lazy import computed
from napari_em_da.postprocess._along_z import LEAST_CORRELATION, Plan, Tally, looked_at, pieces
from napari_em_da.postprocess._base import Stack, Step, Work


class Options(Base):
    """Options of the averaging along z."""

    share: Fraction = Field(0.2, description="Standard deviation along z, as a share of each class's width")
    least_correlation: Fraction = Field(
        LEAST_CORRELATION,
        description="Of a class's maps of two sections: below it there is a gap, and nothing is averaged across",
    )
    classes: tuple[str, ...] = Field((), description="Classes that are averaged; all but the background if none")


def apply(stack: Stack, options: Options) -> Work:
    """Average the probabilities; sections that hold ground truth stay as they are.

    Raises
    ------
    ConfigError
        If the voxel size is unknown.
    """
    data, depth, classes = stack.data, stack.shape[0], stack.data.shape[3]
    tally = Tally(classes, depth, stack.nm())
    looks = looked_at(depth)
    parts = pieces(data.chunks[1:3] if stack.lazy else [[n] for n in stack.shape[1:]])
    for number, z in enumerate(looks):
        yield Progress(number, len(looks), "sections", "measuring widths")
        tally.measure(computed(data[z]).argmax(-1))
    for number, (y, x) in enumerate(parts):
        for z in range(depth):
            yield Progress(number * depth + z, len(parts) * depth, "sections", "comparing sections")
            tally.compare(z, np.moveaxis(np.asarray(computed(data[z, y, x]), np.float32), -1, 0))
    plan = Plan.of(tally, options.share, options.least_correlation)
    if options.classes:
        chosen = [stack.channel(name) for name in options.classes]
        if 0 in chosen:
            raise ConfigError("The background is what the others leave; name classes that are averaged.")
        plan.sigmas[~np.isin(np.arange(classes), chosen)] = 0
    if plan.idle:
        return stack
    if not stack.lazy:
        result = np.empty(data.shape, np.float32)
        for z in range(depth):
            yield Progress(z, depth, "sections", "averaging along z")
            result[z] = np.moveaxis(plan.average(lambda c, at: data[at, ..., c], z), 0, -1)
        return stack.with_data(stack.outside_labelled(result.astype(data.dtype, copy=False)))
    yield Progress(depth, depth, "sections", "averaging along z")
    return stack.with_data(stack.outside_labelled(_lazily(data, plan)))


def _lazily(data: Any, plan: Plan) -> Any:
    """Return the average as a dask array of single sections; each reads the few that it is made of."""
    import dask.array as da

    def section(z: int) -> Any:
        places = sorted({z, *(p for c in np.flatnonzero(plan.sigmas) for p, _ in plan.weights(int(c), z))})

        def average(block: npt.NDArray[Any]) -> npt.NDArray[Any]:
            found = plan.average(lambda c, at: block[places.index(at), ..., c], z)
            return np.moveaxis(found, 0, -1)[None].astype(block.dtype, copy=False)

        few = data[places].rechunk({0: -1, 3: -1})
        return few.map_blocks(average, chunks=((1,), *few.chunks[1:]), dtype=data.dtype)

    return da.concatenate([section(z) for z in range(data.shape[0])])


def advice(stack: Stack) -> str | None:
    """Return a sentence for the user if there is nothing to average, or None."""
    return "One section has no neighbours; nothing is averaged." if stack.shape[0] == 1 else None


STEP = Step(Options, ("probabilities",), None, apply, advice)
