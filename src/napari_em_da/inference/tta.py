"""Average over the eight in-plane symmetries of the square (the group D4)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

ELEMENTS = tuple((mirror, turns) for mirror in (False, True) for turns in range(4))
"""(mirror along x first, then quarter turns): all eight elements, each once; the first is the identity."""


def apply(image: Tensor, element: tuple[bool, int]) -> Tensor:
    """Transform (…, Y, X) by one element; odd numbers of turns swap Y and X."""
    mirror, turns = element
    return torch.rot90(image.flip(-1) if mirror else image, turns, (-2, -1))


def invert(image: Tensor, element: tuple[bool, int]) -> Tensor:
    """Undo `apply`, exactly."""
    mirror, turns = element
    image = torch.rot90(image, -turns, (-2, -1))
    return image.flip(-1) if mirror else image


def average(function: Callable[[Tensor], Tensor], image: Tensor) -> Tensor:
    """Return the mean of ``invert(function(apply(image)))`` over all eight elements, (…, Y, X)."""
    total = function(image)
    for element in ELEMENTS[1:]:
        total = total + invert(function(apply(image, element)), element)
    return total / len(ELEMENTS)
