"""Label values as class indices: what training, its weight maps and their previews are made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_em_da.errors import ConfigError
from napari_em_da.volume import Volume

IGNORE = 255


def class_indices(labels: Volume, classes: Mapping[str, tuple[int, ...]], ignore: int | None) -> Any:
    """Return a lazy uint8 array: 0 background, 1… the classes in their order, 255 where ``ignore``."""
    values = class_values(classes)

    def translate(block: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
        out = np.zeros(block.shape, np.uint8)
        for index, members in enumerate(values, start=1):
            for value in members:
                out[block == value] = index
        if ignore is not None:
            out[block == ignore] = IGNORE
        return out

    return labels.data.map_blocks(translate, dtype=np.uint8)  # type: ignore[call-arg, arg-type]  # dask's wrapper


def class_values(classes: Mapping[str, tuple[int, ...]]) -> list[tuple[int, ...]]:
    """Return the label values per class; a value in two classes is a ConfigError."""
    seen: dict[int, str] = {}
    for name, members in classes.items():
        for value in members:
            if value in seen:
                raise ConfigError(
                    f"Label value {value} is in two classes, {seen[value]!r} and {name!r}; give it to one."
                )
            seen[value] = name
    if len(classes) > 254:
        raise ConfigError(f"{len(classes)} classes are too many; at most 254 fit.")
    return list(classes.values())
