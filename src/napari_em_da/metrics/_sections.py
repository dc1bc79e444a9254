"""A pair of boundary maps as a stream of 2D sections in which 1 is always the inside of objects.

Mixing up membrane and object maps is the most frequent mistake in this field, so the conversion happens only here,
and what the whole stream shows about the two maps is checked at its end.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from napari_em_da.errors import ConfigError, DataError
from napari_em_da.metrics._base import BLOCK_VOXELS, Pair, load

Mask = npt.NDArray[np.bool_]
Components = npt.NDArray[np.int32]
Probability = npt.NDArray[np.float32]
_TOLERANCE = 1e-3  # how far outside [0, 1] rounding may carry a probability


@dataclass(frozen=True)
class Section:
    """One section of a pair.

    Attributes
    ----------
    z : position in the volume
    truth : (Y, X) bool, True inside annotated objects; False where nothing is annotated
    counted : (Y, X) bool, True where a pixel is annotated and inside the mask
    probability : (Y, X) float32 in [0, 1], the predicted probability of *object*
    """

    z: int
    truth: Mask
    counted: Mask
    probability: Probability


def sections(pair: Pair) -> Iterator[Section]:
    """Stream the sections of a pair of boundary maps, a few at a time in memory.

    Raises
    ------
    ConfigError
        If `kind` does not say which side of the boundary map is 1, or several classes are named.
    DataError
        If the maps are not volumes or sections; while streaming: if probabilities leave [0, 1]; at the end: if
        nothing is annotated, or the annotation contradicts `kind`.
    """
    if pair.kind not in ("membrane", "object"):
        raise ConfigError(
            f"kind={pair.kind!r} does not say which side of a boundary map is 1; pass kind='membrane' if 1 marks the "
            "membrane between objects, or kind='object' if 1 marks their inside."
        )
    if pair.labels.ndim not in (2, 3):
        raise DataError(
            f"Boundary maps are scored section by section, but these have {pair.labels.ndim} axes; "
            "pass (Z, Y, X) or (Y, X), for example array[0]."
        )
    return _stream(pair, _class(pair))


def thresholds(pair: Pair) -> tuple[float, ...]:
    """Return the thresholds on the probability to try, ascending; one where the prediction is binary."""
    if np.dtype(pair.prediction.dtype).kind in "iub":
        return (0.5,)
    return tuple(sorted(set(pair.scoring.thresholds)))


def components(objects: npt.NDArray[np.bool_ | np.uint8]) -> Components:
    """Number the 4-connected components of a section.

    Parameters
    ----------
    objects : (Y, X) bool or uint8

    Returns
    -------
    (Y, X) int32
        0 is background.
    """
    image = np.ascontiguousarray(objects).view(np.uint8)
    return np.asarray(cv2.connectedComponents(image, connectivity=4, ltype=cv2.CV_32S)[1], np.int32)


def _class(pair: Pair) -> int | None:
    """Return the one named class of the maps, or None where every value but 0 is foreground."""
    if pair.classes is None:
        return None
    if len(pair.classes) != 1:
        raise ConfigError(
            f"A boundary map has one foreground, but {len(pair.classes)} classes are named; "
            f"name the {pair.kind} alone, for example classes={{{pair.kind!r}: 1}}."
        )
    value = next(iter(pair.classes.values()))
    if value == pair.ignored():
        raise ConfigError(f"Class id {value} is also the ignored value; pass ignore_index=None, or another value.")
    return value


def _stream(pair: Pair, value: int | None) -> Iterator[Section]:
    labels, prediction, mask = (_volume(array) for array in (pair.labels, pair.prediction, pair.mask))
    depth, height, width = labels.shape
    step = max(1, BLOCK_VOXELS // (height * width))
    if hasattr(labels, "numblocks"):
        step = min(step, max(labels.chunks[0]))
    findings = _Findings(pair)
    for start in range(0, depth, step):
        slab = (slice(start, start + step),)
        annotated, predicted = load(labels, slab), load(prediction, slab)
        inside = None if mask is None else load(mask, slab)
        for i, label in enumerate(annotated):
            known = np.ones(label.shape, np.bool_) if pair.ignored() is None else label != pair.ignored()
            counted = known if inside is None else known & inside[i].astype(np.bool_, copy=False)
            truth = _foreground(label, value)
            probability = _probability(predicted[i], value, start + i)
            if pair.kind == "membrane":
                truth, probability = ~truth, 1 - probability
            section = Section(start + i, truth & known, counted, probability)
            findings.add(section, label, predicted[i])
            yield section
    findings.conclude()


def _volume(array: Any) -> Any:
    return array[None] if array is not None and array.ndim == 2 else array


def _foreground(values: npt.NDArray[Any], value: int | None) -> Mask:
    if values.dtype == np.bool_:
        return values
    return np.asarray(values != 0 if value is None else values == value)


def _probability(values: npt.NDArray[Any], value: int | None, z: int) -> Probability:
    """Return the probability of the foreground of one section."""
    if values.dtype.kind in "iub":
        return _foreground(values, value).astype(np.float32)
    missing = int(np.isnan(values).sum())
    if missing:
        raise DataError(
            f"The prediction holds {missing} NaN in section {z}; replace them, for example with numpy.nan_to_num, "
            "or crop them away."
        )
    low, high = float(values.min()), float(values.max())
    if low < -_TOLERANCE or high > 1 + _TOLERANCE:
        raise DataError(
            f"The prediction ranges from {low:.4g} to {high:.4g} in section {z}, but probabilities from 0 to 1; "
            "divide grey values by 255, or apply the sigmoid to logits."
        )
    return np.asarray(np.clip(values, 0, 1), np.float32)


@dataclass
class _Findings:
    """What the sections show about the whole pair: errors and warnings that no single section can give."""

    pair: Pair
    pixels: int = 0  # counted
    objects: int = 0  # of them, annotated as object
    on_objects: float = 0.0  # sum of the probability over these
    on_membrane: float = 0.0  # and over the others
    zeros: bool = False  # the annotation has some 0
    ignored: bool = False  # and some ignored value
    values: dict[str, set[int]] = field(default_factory=lambda: {"annotation": set(), "prediction": set()})

    def add(self, section: Section, labels: npt.NDArray[Any], predicted: npt.NDArray[Any]) -> None:
        inside = section.truth & section.counted
        outside = section.counted & ~section.truth
        self.pixels += int(np.count_nonzero(section.counted))
        self.objects += int(np.count_nonzero(inside))
        self.on_objects += float(section.probability.sum(where=inside, dtype=np.float64))
        self.on_membrane += float(section.probability.sum(where=outside, dtype=np.float64))
        known = labels if self.pair.ignored() is None else labels[labels != self.pair.ignored()]
        self.ignored |= known.size < labels.size
        self.zeros |= not known.all()
        for name, array in (("annotation", known), ("prediction", predicted)):
            foreground = array[array != 0] if array.dtype.kind in "iu" else array[:0]
            if foreground.size:
                self.values[name] |= {int(foreground.min()), int(foreground.max())}

    def conclude(self) -> None:
        self._check_values()
        if not self.pixels:
            raise DataError(
                f"No voxel is annotated: each one is masked or has the ignored value {self.pair.ignored()}; "
                "check ignore_index and the mask."
            )
        self._check_kind()

    def _check_values(self) -> None:
        pair, kind = self.pair, self.pair.kind
        if pair.classes is not None:
            (name, value), found = next(iter(pair.classes.items())), self.values["prediction"]
            if found and not min(found) <= value <= max(found):
                self._warn(f"The prediction holds {max(found)} but never {value}, the class {name!r}; renumber it.")
            return
        if pair.ignored() == 255 and self.ignored and self.zeros and not self.values["annotation"]:
            raise DataError(
                f"255 is the ignored value, but the annotation holds only 0 and 255; if 255 is the {kind}, "
                f"pass classes={{{kind!r}: 255}} and ignore_index=None."
            )
        for name, found in self.values.items():
            if len(found) < 2:
                continue
            if kind == "membrane":
                raise DataError(
                    f"A membrane map has one value beside 0, but the {name} holds {min(found)} and {max(found)}; name "
                    f"the membrane, for example classes={{'membrane': 1}}, or divide grey values by 255."
                )
            self._warn(
                f"The {name} holds values from {min(found)} to {max(found)}, which all count as object: touching "
                "objects merge (kind='instances' keeps ids apart) and grey values are lost (divide them by 255)."
            )

    def _check_kind(self) -> None:
        pair, membrane = self.pair, self.pixels - self.objects
        if 2 * membrane > self.pixels:
            share = f"{100 * membrane / self.pixels:.1f} % of the annotated voxels are membrane"
            if pair.kind == "membrane":
                raise DataError(f"With kind='membrane', {share}; if 1 marks objects instead, pass kind='object'.")
            self._warn(f"With kind='object', {share} or background; if 1 marks membrane, pass kind='membrane'.")
        if not membrane or not self.objects:
            return
        on_objects, on_membrane = self.on_objects / self.objects, self.on_membrane / membrane
        wrong = membrane * on_membrane + self.objects * (1 - on_objects)
        if on_objects < on_membrane and 2 * wrong > self.pixels:  # inverting helps in both classes, and altogether
            self._warn(
                f"The prediction agrees better with the annotation when inverted (mean probability of object "
                f"{on_objects:.2f} inside annotated objects, {on_membrane:.2f} outside); check that both are "
                f"{pair.kind} maps."
            )

    def _warn(self, sentence: str) -> None:
        if sentence not in self.pair.warnings:  # several families stream the same pair
            self.pair.warnings.append(sentence)
