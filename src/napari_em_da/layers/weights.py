"""Weight maps as image layers, and single sections of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from napari_em_da.layers.snapshot import LayerData, snapshot
from napari_em_da.lazy import computed

IN_MEMORY = 1 << 30  # bytes of class indices that are kept in memory


def weight_map_layer(
    labels_layer: Any, kind: str, *, classes: Mapping[str, Sequence[int]] | None = None, **params: Any
) -> LayerData:
    """Compute the weight map of a labels layer exactly as the loss uses it.

    Parameters
    ----------
    labels_layer : labels layer, LayerData or array
    kind : str
        Name in the catalog of weight maps.
    classes : {name: label values}, optional
        As in training; see `SectionWeights`.
    **params
        ``floor``, ``scale``, ``ignore_index``, ``spacing`` and the kind's own; see ``weight_map``.

    Returns
    -------
    LayerData
        A float32 image of the labels' shape and place; lazy if the labels are.
    """
    from napari_em_da.weights import weight_map

    taken = snapshot(labels_layer)
    source, ignore = SectionWeights(taken, classes, params.pop("ignore_index", 255)).indices()
    weights = weight_map(source[0] if taken.flat else source, kind, ignore_index=ignore, **params)
    section = weights if weights.ndim == 2 else weights[len(weights) // 2]
    high = float(computed(section.max()) if hasattr(weights, "dask") else weights.max())
    return weight_layer(weights, f"{taken.volume.name} {kind} weights", high, taken.place, kind, params)


def weight_layer(
    weights: Any, name: str, high: float, place: Mapping[str, Any], kind: str, params: Mapping[str, Any]
) -> LayerData:
    """Return weights as LayerData in the colours that all weight maps share."""
    limits = (0.0, high if high > 0 and math.isfinite(high) else 1.0)
    look = {"colormap": "magma", "contrast_limits": limits, "blending": "translucent", "opacity": 0.7}
    return weights, {**place, **look, "name": name, "metadata": {"kind": kind, "params": dict(params)}}, "image"


class SectionWeights:
    """Sections of the weight map that the loss will use, quick enough to follow a slider.

    Parameters
    ----------
    labels : labels layer, Snapshot, LayerData or array
    classes : {name: label values}, optional
        As in training: the map is made of class indices, 0 for what is in no class. Of the label values themselves if
        absent.
    ignore_label : int, optional
        Label value that is not annotated.

    Notes
    -----
    What a kind counts over the volume is kept, so make a new one when labels or classes change.
    """

    def __init__(
        self, labels: Any, classes: Mapping[str, Sequence[int]] | None = None, ignore_label: int | None = 255
    ) -> None:
        self.taken = snapshot(labels)
        self._classes = {name: tuple(values) for name, values in (classes or {}).items()}
        self.ignore_label = ignore_label
        self._indices: Any = None
        self._memory: dict[object, Any] = {}

    @property
    def depth(self) -> int:
        """Number of sections."""
        return self.taken.volume.shape[0]

    def section(self, z: int, kind: str, **params: Any) -> Any:
        """Return section ``z`` (Y, X) float32; ``params`` are those of ``weight_map``, less ``ignore_index``."""
        from napari_em_da.weights import weight_section

        indices, ignore = self.indices()
        return weight_section(indices, kind, z, self._memory, ignore_index=ignore, **params)

    def steps(self, z: int, kind: str, **params: Any) -> Iterator[tuple[Any, float]]:
        """Yield (section or None, share done) as ``weights.section_steps`` does: at once, then to the last bit."""
        from napari_em_da.weights import section_steps

        indices, ignore = self.indices()
        yield from section_steps(indices, kind, z, self._memory, ignore_index=ignore, **params)

    def indices(self) -> tuple[Any, int | None]:
        """Return what the map is made of (Z, Y, X), in memory where it is small, and its value of no annotation."""
        if not self._classes:
            volume = self.taken.volume
            return (volume.source if isinstance(volume.source, np.ndarray) else volume.data), self.ignore_label
        from napari_em_da.weights._indices import IGNORE, class_indices

        if self._indices is None:
            lazy = class_indices(self.taken.volume, self._classes, self.ignore_label)
            self._indices = computed(lazy) if lazy.nbytes < IN_MEMORY else lazy
        return self._indices, IGNORE


def weight_section(
    labels: Any, kind: str, z: int, *, classes: Mapping[str, Sequence[int]] | None = None, **params: Any
) -> Any:
    """Return section ``z`` (Y, X) float32 of the weight map of the whole volume; see `SectionWeights`."""
    ignore = params.pop("ignore_index", 255)
    return SectionWeights(labels, classes, ignore).section(z, kind, **params)
