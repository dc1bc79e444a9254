"""The steps of morphological post-processing as streams of sections, of which few are in memory at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from napari_em_da.errors import ConfigError

Section = npt.NDArray[np.uint8]  # (Y, X), 0 or 1
Order = Literal["sequential", "simultaneous"]
_CROSS: Section = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], np.uint8)


@dataclass(frozen=True)
class Rule:
    """The options in pixels."""

    labelled: tuple[int, ...]
    least: int
    least_propagated: int
    erosions: int
    radii: tuple[int, ...]
    sequential: bool

    @classmethod
    def of(
        cls,
        spacing: Sequence[float],
        labelled: Iterable[int],
        *,
        min_area_nm2: float,
        propagation_area_nm2: float,
        erosion_nm: float,
        erosion_step_nm: float,
        radii: Sequence[int],
        order: Order,
    ) -> Rule:
        """Convert nm; sections are ``spacing[0]`` apart, and pixels ``spacing[1:]`` large."""
        if any(k < 1 for k in radii):
            raise ConfigError(f"radii={list(radii)} are distances in sections; each is at least 1.")
        area = spacing[1] * spacing[2]
        least, least_propagated = (
            int(np.ceil(size / area * (1 - 1e-9))) for size in (min_area_nm2, propagation_area_nm2)
        )
        erosions = int(erosion_nm * spacing[0] / erosion_step_nm / area**0.5 + 0.5)
        sections = tuple(sorted(set(labelled)))
        return cls(sections, least, least_propagated, erosions, tuple(radii), order == "sequential")


def repaired(sections: Iterable[Section], truth: Callable[[int], Section], rule: Rule) -> Iterator[Section]:
    """Run all steps as one stream, of which a few sections are in memory at a time; ``truth`` reads ahead."""
    stream = _between(sections, truth, rule)
    for k in rule.radii:
        for veto in (True, False):
            stream = _compared(stream, k, veto, rule)
    return stream


def _between(sections: Iterable[Section], truth: Callable[[int], Section], rule: Rule) -> Iterator[Section]:
    """Steps 0 to 3, from annotated section to annotated section."""
    following = dict(pairwise(rule.labelled))
    bracket: tuple[Section, Section] | None = None
    upward: Iterator[Section] = iter(())
    downward: list[Section] = []
    for z, section in enumerate(sections):
        if z in rule.labelled:
            yield section
            bracket = (section, truth(following[z])) if z in following else None
            if bracket:
                gap = following[z] - z - 1
                upward = _propagated(bracket[0], gap, rule)
                downward = list(_propagated(bracket[1], gap, rule))
            continue
        section = _without_small(section, rule.least)
        if bracket:
            section = section | next(upward) | downward.pop()
            section = _without_small(section & (bracket[0] | bracket[1]), rule.least)
            section = _without_small(section | (bracket[0] & bracket[1]), rule.least)
        yield section


def _propagated(section: Section, steps: int, rule: Rule) -> Iterator[Section]:
    """What is left of an annotated section 1, 2, … sections away; the same array again once nothing changes."""
    for _ in range(steps):
        if section.any():
            smaller = _without_small(_eroded(section, rule.erosions), rule.least_propagated)
            section = smaller if (smaller != section).any() else section
        yield section


def _compared(sections: Iterable[Section], k: int, veto: bool, rule: Rule) -> Iterator[Section]:
    """Steps 4 to 7: compare each section with those k before and k after it."""
    before: deque[Section] = deque(maxlen=k)
    ahead: deque[Section] = deque()
    for last, after in enumerate(sections):
        ahead.append(after)
        if last < k:
            continue
        section = changed = ahead.popleft()
        if len(before) == k and last - k not in rule.labelled:
            changed = section & (before[0] | after) if veto else section | (before[0] & after)
            changed = _without_small(changed, rule.least)
        before.append(changed if rule.sequential else section)
        yield changed
    yield from ahead  # they have no section k after them


def _eroded(section: Section, times: int) -> Section:
    """Erode by a cross, as if the section went on beyond its frame."""
    return np.asarray(cv2.erode(section, _CROSS, iterations=times), np.uint8) if times else section


def _without_small(section: Section, least: int) -> Section:
    """Drop the pieces, by edges of pixels, with fewer than so many pixels."""
    if least <= 1:
        return section
    _, ids, measured, _ = cv2.connectedComponentsWithStats(section, connectivity=4, ltype=cv2.CV_32S)
    keep = measured[:, cv2.CC_STAT_AREA] >= least
    keep[0] = False
    kept: Section = keep.astype(np.uint8)[ids]
    return kept
