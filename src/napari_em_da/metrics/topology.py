"""Topology of classes: errors of the Betti numbers (components, tunnels, cavities) and of the Euler number.

Objects are 6-connected and the background 26-connected (4 and 8 with ``per_section``), as for the warping error.
The volumes are surrounded by background, and voxels that do not count are background on both sides. ``name/class``
stands beside ``name``, which is the sum over the foreground classes. Boundary maps (``kind``) are scored by their
objects: what is not membrane.

Volumes are read once, in slabs of whole sections.
"""

from __future__ import annotations

import inspect

from napari_em_da.metrics._base import Family, Pair, Undefined
from napari_em_da.metrics._betti import BettiCounter, betti_numbers
from napari_em_da.metrics._classes import Mask, Part, named, parts, read, slabs, stacked

Numbers = tuple[int, int, int]


def betti0_error(prediction: Numbers, labels: Numbers) -> int:
    """Difference in the number of connected components: |b0(prediction) − b0(annotation)|.

    Range 0 to infinity, lower is better; it compares counts, not places.

    References
    ----------
    Hu, Li, Samaras & Chen (2019), Topology-preserving deep image segmentation (Betti error).
    """
    return abs(prediction[0] - labels[0])


def betti1_error(prediction: Numbers, labels: Numbers) -> int:
    """Difference in the number of tunnels (holes, in a section): |b1(prediction) − b1(annotation)|.

    Range 0 to infinity, lower is better; it compares counts, not places.

    References
    ----------
    Hu, Li, Samaras & Chen (2019), Topology-preserving deep image segmentation (Betti error).
    """
    return abs(prediction[1] - labels[1])


def betti2_error(prediction: Numbers, labels: Numbers) -> int:
    """Difference in the number of cavities: |b2(prediction) − b2(annotation)|; undefined in sections.

    Range 0 to infinity, lower is better; it compares counts, not places.

    References
    ----------
    Kong & Rosenfeld (1989), Digital topology: introduction and survey.
    """
    return abs(prediction[2] - labels[2])


def euler_error(prediction: Numbers, labels: Numbers) -> int:
    """Difference of the Euler numbers χ = b0 − b1 + b2: |χ(prediction) − χ(annotation)|.

    Range 0 to infinity, lower is better; errors of different kinds may cancel.

    References
    ----------
    Kong & Rosenfeld (1989), Digital topology: introduction and survey.
    """
    return abs(prediction[0] - prediction[1] + prediction[2] - (labels[0] - labels[1] + labels[2]))


_SCORES = {f.__name__: f for f in (betti0_error, betti1_error, betti2_error, euler_error)}


def compute(pair: Pair, wanted: tuple[str, ...]) -> dict[str, float | Undefined]:
    """Compute the wanted topology errors; with ``per_section``, the sum over sections of their errors.

    Raises
    ------
    ConfigError, DataError
        As the overlap scores do.
    """
    if pair.kind == "instances":
        why = "the topology is of classes; instances have counts (objects_missed, objects_extra) and matches (pq)"
        return {name: Undefined(why) for name in wanted}
    pair = stacked(pair)
    chosen = parts(pair)
    numbers = _numbers(pair, chosen)
    flat = pair.scoring.per_section
    result: dict[str, float | Undefined] = {}
    for name in wanted:
        if name == "betti2_error" and flat:
            result[name] = Undefined("a section has no cavities; leave out per_section")
            continue
        errors = {part: float(sum(_SCORES[name](*both) for both in pairs)) for part, pairs in numbers.items()}
        result[name] = sum(errors.values()) if errors else Undefined("no class but background occurs")
        result |= {named(name, part): error for part, error in errors.items()}
    return result


def _numbers(pair: Pair, chosen: dict[str, Part]) -> dict[str, list[tuple[Numbers, Numbers]]]:
    """Return the Betti numbers of prediction and annotation of every part: once, or of every section."""
    flat = pair.scoring.per_section
    counters = {name: (BettiCounter(), BettiCounter()) for name in chosen}
    numbers: dict[str, list[tuple[Numbers, Numbers]]] = {name: [] for name in chosen}
    for sections, _ in slabs(pair.labels):
        prediction, labels, counted = read(pair, sections)
        for name, part in chosen.items():
            found, truth = (_inside(part(values), counted, pair) for values in (prediction, labels))
            if flat:
                numbers[name] += [(betti_numbers(a), betti_numbers(b)) for a, b in zip(found, truth, strict=True)]
            else:
                counters[name][0].add(found)
                counters[name][1].add(truth)
    return numbers if flat else {name: [(a.numbers(), b.numbers())] for name, (a, b) in counters.items()}


def _inside(marked: Mask, counted: Mask, pair: Pair) -> Mask:
    return (~marked if pair.kind == "membrane" else marked) & counted


FAMILY = Family({name: inspect.getdoc(score) or "" for name, score in _SCORES.items()}, compute)
