"""How much of the labels each class takes, and whether every class is there to be learned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_em_da.config import LabelledConfig, TrainConfig
from napari_em_da.errors import DataError
from napari_em_da.lazy import computed
from napari_em_da.sampling.positions import IGNORE
from napari_em_da.volume import Volume
from napari_em_da.workflows.label_fraction import why_absent


def check_classes(labels: Sequence[Any], config: TrainConfig) -> tuple[float, ...]:
    """Count the classes over all sources' class indices: each must occur, beside another; return their shares."""
    counts = np.zeros(256, np.int64)
    for indices in labels:
        counts += count_classes(indices)
    for index, (name, members) in enumerate(config.classes.items(), start=1):
        if counts[index] == 0:
            what = f"Class {name!r} (label value {', '.join(map(str, members))})"
            if reason := why_absent(members, config.source):
                raise DataError(f"{what} {reason}")
            present = sorted({int(v) for item in config.source for v in label_values(item)})
            raise DataError(
                f"{what} does not occur in the labels; they hold the values {present}. "
                "Set --classes to values that occur."
            )
    if np.count_nonzero(counts[:IGNORE]) < 2:
        part = any(item.fraction < 1 for item in config.source)
        raise DataError(
            f"The labels hold a single class ({int(counts[:IGNORE].sum())} voxels); nothing can be told apart. "
            f"Annotate at least one voxel of another class{', or raise the label fraction' * part}."
        )
    own = counts[: len(config.classes) + 1]
    return tuple(float(share) for share in own / own.sum())


def count_classes(labels: Any) -> npt.NDArray[np.int64]:
    """Count class indices block by block."""
    total = np.zeros(256, np.int64)
    for block in labels.to_delayed().ravel():
        total += np.bincount(computed(block).ravel(), minlength=256)
    return total


def label_values(item: LabelledConfig) -> npt.NDArray[Any]:
    """Return the values in the first sections of a label file, for an error message."""
    labels = Volume.open(item.labels)
    return np.unique(labels.read((slice(0, 8),)))[:32]
