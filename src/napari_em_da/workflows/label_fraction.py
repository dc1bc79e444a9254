"""Training on a share of the labelled sections: which ones, chosen so that a larger share holds every smaller one."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from napari_em_da.config import LabelledConfig
from napari_em_da.lazy import computed
from napari_em_da.sampling.positions import IGNORE
from napari_em_da.volume import Volume

STREAM = zlib.crc32(b"label fraction")


def chosen_sections(annotated: Sequence[int], fraction: float, seed: int) -> tuple[int, ...]:
    """Return a share of the sections, chosen at random.

    They are the first of one permutation of all, so that for one seed 5 % is part of 15 % and 15 % of 30 %.

    Parameters
    ----------
    annotated : sequence of int
        The sections to choose from.
    fraction : float
        Above 0, up to 1; the number is rounded up, so that at least one section is chosen.
    seed : int

    Returns
    -------
    tuple of int
        In ascending order.
    """
    order = np.random.default_rng((seed, STREAM)).permutation(sorted(annotated))
    count = math.ceil(round(fraction * len(order), 9))  # 0.07 x 100 is 7.000000000000001
    return tuple(sorted(int(z) for z in order[:count]))


def annotated_sections(labels: Any) -> tuple[int, ...]:
    """Return the sections of class indices (Z, Y, X; dask, 255 where not annotated) that hold any annotation."""
    known = computed((labels != IGNORE).any(axis=(1, 2)))
    return tuple(int(z) for z in np.flatnonzero(known))


def only(labels: Any, sections: Sequence[int]) -> Any:
    """Return class indices (Z, Y, X; dask) with 255, not annotated, in all other sections, lazily."""
    import dask.array as da

    keep = np.zeros(labels.shape[0], bool)
    keep[list(sections)] = True
    return da.where(keep[:, None, None], labels, np.uint8(IGNORE))


def why_absent(members: Sequence[int], source: Sequence[LabelledConfig]) -> str | None:
    """Return why a class with these label values is missing, if its sections are among those that were not chosen."""
    hit = [item for item in source if item.fraction < 1 and _holds(item, members)]
    if not hit:
        return None
    return (
        f"does not occur in the sections that the label fraction {hit[0].fraction:g} of {hit[0].labels} leaves, but in "
        "others; raise the label fraction, or choose other sections with another training.seed."
    )


def _holds(item: LabelledConfig, members: Sequence[int]) -> bool:
    import dask.array as da

    return bool(computed(da.isin(Volume.open(item.labels).data, list(members)).any()))
