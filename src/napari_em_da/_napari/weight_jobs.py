"""The jobs of the Weights page: one section at once and then exactly, or the whole volume."""

from __future__ import annotations

from typing import Any

from napari_em_da import layers
from napari_em_da.events import Finished, Preview, Progress
from napari_em_da.jobs import Job, unattended


def section_job(sections: layers.SectionWeights, kind: str, z: int, params: dict[str, Any]) -> Job:
    """Compute one section; Finished carries it with what is needed to show it.

    Where all sections have to be counted first, a Preview is the section scaled by its own numbers, at once.
    """
    yield Progress(0, 1, "sections", "weights")
    for weights, share in sections.steps(z, kind, **params):
        if share == 1:
            yield Finished((z, weights, sections.taken.place, kind, params))
        elif weights is not None:
            yield Preview(kind, "image", weights, origin=(z, 0, 0))
        else:
            yield Progress(round(share * sections.depth), sections.depth, "sections", "counting")


def volume_job(taken: layers.Snapshot, kind: str, params: dict[str, Any]) -> Job:
    """Compute the whole map; Finished carries the layer."""
    computing = Progress(0, 1, "volumes", "weights")
    yield computing
    found = yield from unattended(lambda: layers.weight_map_layer(taken, kind, **params), computing)
    yield Finished(found)


__all__ = ["section_job", "volume_job"]
