"""What a label-free criterion may look at, and what it is."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt

from napari_em_da.errors import DataError
from napari_em_da.selection._shapes import Shapes

Probs = npt.NDArray[np.float32]
Labels = npt.NDArray[np.uint8]
IGNORE = 255
_SUM_TOLERANCE = 0.02  # probabilities may come from half precision


@dataclass(frozen=True, eq=False)
class Reference:
    """What the classes look like in the source's labels, at the pixel size of the training and in windows as scored.

    Attributes
    ----------
    names : tuple of str
        Foreground classes; class 0 is the background and has no name.
    shapes : tuple of Shapes
        One per foreground class.
    """

    names: tuple[str, ...]
    shapes: tuple[Shapes, ...]

    @classmethod
    def from_labels(
        cls, sections: Iterable[npt.NDArray[np.integer]], classes: Sequence[str], window: tuple[int, int]
    ) -> Reference:
        """Measure the SOURCE's labels, cut into windows as large as those that will be scored.

        Parameters
        ----------
        sections : iterable of (Y, X) integer
            Class indices at the pixel size of the training; 255 is not annotated.
        classes : sequence of str
            Names of the classes 1, 2, …
        window : (y, x)
            Pixels of a scored window: cutting changes sizes and solidity, so both sides must be cut alike.

        Raises
        ------
        DataError
            If there is no section, or none of the classes occurs.
        """
        tiles = [tile for section in sections for tile in _tiles(np.asarray(section), window)]
        if not tiles:
            raise DataError("The source has no label sections to compare with; give at least one.")
        counts = np.array([(tile != IGNORE).sum() for tile in tiles])
        full = counts >= max(1, counts.max() / 2)  # a sliver at the rim or of sparse annotation has no typical shapes
        labels = np.stack([tile for tile, good in zip(tiles, full, strict=True) if good] or tiles[:1])
        known = labels != IGNORE
        shapes = tuple(Shapes.of(labels == index, known) for index in range(1, len(classes) + 1))
        if not any(shape.share for shape in shapes):
            raise DataError(f"None of the classes {', '.join(classes)} occurs in the source's labels; check them.")
        return cls(tuple(classes), shapes)

    def to_json(self) -> str:
        """Return it as text, from which ``from_json`` makes the same again, to the last bit."""
        shapes = [{**asdict(s), "areas": s.areas.tolist(), "cells": s.cells.tolist()} for s in self.shapes]
        return json.dumps({"names": self.names, "shapes": shapes})

    @classmethod
    def from_json(cls, text: str) -> Reference:
        """Read what ``to_json`` wrote; another text is a ValueError, TypeError or KeyError."""
        data = json.loads(text)
        arrays = ({name: np.array(shape[name], np.int64) for name in ("areas", "cells")} for shape in data["shapes"])
        shapes = tuple(Shapes(**{**shape, **own}) for shape, own in zip(data["shapes"], arrays, strict=True))
        return cls(tuple(data["names"]), shapes)

    @property
    def prior(self) -> npt.NDArray[np.float64]:
        """Share of each class among the annotated pixels, (C,), background first."""
        foreground = np.array([shape.share for shape in self.shapes])
        return np.concatenate([[max(0.0, 1 - foreground.sum())], foreground])

    @property
    def present(self) -> list[int]:
        """Indices (1, 2, …) of the classes that occur in the source: only these can be compared."""
        return [index for index, shape in enumerate(self.shapes, start=1) if shape.share > 0]


def _tiles(section: npt.NDArray[np.integer], window: tuple[int, int]) -> Iterable[npt.NDArray[np.integer]]:
    """Cut a section into windows side by side; what is missing at the far rims is not annotated."""
    (height, width), (y, x) = section.shape, window
    wide = np.full((-(-height // y) * y, -(-width // x) * x), IGNORE, np.int16)
    wide[:height, :width] = section
    return wide.reshape(len(wide) // y, y, -1, x).swapaxes(1, 2).reshape(-1, y, x)


@dataclass(frozen=True, eq=False)
class Evidence:
    """All that a choice without labels may see of one candidate; there is no field for target labels.

    Attributes
    ----------
    probs : (N, C, Y, X) float32
        Softmax of fixed target windows, the same for all candidates; sections of 3D windows count as windows.
    twins : (N, C, Y, X) float32 or None
        The same windows predicted under a symmetry of the square and an intensity jitter, mapped back.
    reference : Reference
        Of the source.
    before : (N, C, Y, X) float32 or None
        The same windows predicted by the source model.
    """

    probs: Probs
    twins: Probs | None
    reference: Reference
    before: Probs | None = None

    def __post_init__(self) -> None:
        channels = len(self.reference.names) + 1
        for name in ("probs", "twins", "before"):
            array = getattr(self, name)
            if array is None:
                continue
            if array.dtype.kind != "f" or array.ndim != 4 or array.shape[1] != channels or 0 in array.shape:
                raise DataError(
                    f"{name} has type {array.dtype} and shape {array.shape}; expected float probabilities "
                    f"(N, {channels}, Y, X) of the background and {', '.join(self.reference.names)}."
                )
            if array.shape != self.probs.shape:
                raise DataError(f"{name} has shape {array.shape}, but probs {self.probs.shape}; predict both alike.")
        total = self.probs.sum(1)
        if self.finite and (np.abs(total - 1).max() > _SUM_TOLERANCE or self.probs.min() < 0):
            raise DataError(
                f"The probabilities of a pixel add up to {total.min():.3g} to {total.max():.3g} instead of 1; "
                "take the softmax of the logits."
            )

    @cached_property
    def finite(self) -> bool:
        """Whether every predicted number is finite; a diverged network predicts NaN."""
        arrays = (a for a in (self.probs, self.twins) if a is not None)
        return all(bool(np.isfinite(a).all()) for a in arrays)

    @cached_property
    def labels(self) -> Labels:
        """Most probable class, (N, Y, X)."""
        return np.asarray(self.probs.argmax(1), np.uint8)

    @cached_property
    def shapes(self) -> tuple[Shapes, ...]:
        """What each foreground class looks like in the prediction."""
        return tuple(Shapes.of(self.labels == index) for index in range(1, self.probs.shape[1]))

    def class_mean(self, score: Callable[[Shapes, Shapes], float]) -> float:
        """Return the mean of ``score(predicted, source)`` over the classes that occur in the source."""
        pairs = [(self.shapes[index - 1], self.reference.shapes[index - 1]) for index in self.reference.present]
        return float(np.mean([score(predicted, source) for predicted, source in pairs]))

    def log_ratio(self, predicted: float, source: float) -> float:
        """Return |log(predicted / source)| of two shares; none at all counts as one pixel of the windows."""
        return abs(float(np.log(max(predicted, 1 / self.labels.size) / source)))


@dataclass(frozen=True)
class Criterion:
    """One entry of the catalog: a pure function of the evidence, higher is better.

    ``needs`` names the optional parts of the evidence that it reads.
    """

    symbol: str
    score: Callable[[Evidence], float]
    needs: tuple[Literal["twins", "before"], ...] = ()

    def possible(self, evidence: Evidence) -> bool:
        """Return whether the evidence has all that the criterion reads."""
        return all(getattr(evidence, name) is not None for name in self.needs)

    def __call__(self, evidence: Evidence) -> float:
        """Return the score, NaN for a network that diverged; a DataError where the evidence lacks what it reads."""
        if not self.possible(evidence):
            raise DataError(f"{self.symbol} reads {' and '.join(self.needs)}; gather the evidence with them.")
        return self.score(evidence) if evidence.finite else float("nan")


def agreement(one: Labels, other: Labels, classes: Sequence[int]) -> float:
    """Return the mean IoU of two label maps over ``classes``; a class that neither holds counts 0."""
    values = []
    for index in classes:
        a, b = one == index, other == index
        values.append(float((a & b).sum() / max(1, (a | b).sum())))
    return float(np.mean(values))
