"""What a round of corrections changed: the prediction of one view, the painted voxels, and what was known before."""

from __future__ import annotations

import tempfile
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from napari_em_da.events import Event
from napari_em_da.inference import Outputs, Prediction, predict
from napari_em_da.jobs import forward
from napari_em_da.lazy import computed
from napari_em_da.metrics.overlap import confusion_matrix
from napari_em_da.models._base import SegmentationNet
from napari_em_da.sampling import Sample
from napari_em_da.volume import Volume
from napari_em_da.workflows.correction_data import Round
from napari_em_da.workflows.plan import Plan
from napari_em_da.workflows.segment import resample, resize_sections, scale_factor, spacing_step
from napari_em_da.workflows.validation import iou_values

View = tuple[int, int, int, int]  # section, y, x, size
VIEW_PX = 512


@dataclass(frozen=True)
class Found:
    """What a network makes of the view (h, w) uint8, of the painted windows and of the source's.

    ``painted`` and ``source`` are confusion matrices (C, C), rows annotated; of ``source`` all 0 where there is none.
    """

    view: npt.NDArray[np.uint8]
    painted: npt.NDArray[np.int64]
    source: npt.NDArray[np.int64]

    @property
    def accuracy(self) -> float:
        """Share of the painted voxels that are predicted as painted."""
        return float(np.trace(self.painted) / max(1, self.painted.sum()))

    def iou(self, what: str, names: Sequence[str]) -> float | None:
        """Return the mean IoU of the foreground classes on ``painted`` or ``source``; None where none occurs."""
        return mean_iou(getattr(self, what), names)

    def with_source(self, matrix: npt.NDArray[np.int64]) -> Found:
        """Return the same with what was found on the source."""
        return replace(self, source=matrix)


def mean_iou(matrix: npt.NDArray[np.int64], names: Sequence[str]) -> float | None:
    """Return the mean IoU of the foreground classes of a confusion matrix; None where none occurs."""
    return iou_values(matrix, list(names)).get("val/iou")


def look(network: SegmentationNet, plan: Plan, view: View, painted: Sequence[Sample]) -> Generator[Event, None, Found]:
    """Let a network predict the view and the painted windows; those of the source are looked at on their own."""
    network.eval()
    shown = yield from predict_view(network, plan, view)
    return Found(shown, tally(network, plan, painted), tally(network, plan, ()))


def tally(network: SegmentationNet, plan: Plan, samples: Sequence[Sample]) -> npt.NDArray[np.int64]:
    """Count the annotated voxels of some windows by (annotated, predicted) class."""
    classes = len(plan.config.classes) + 1
    matrix = np.zeros((classes, classes), np.int64)
    for sample in samples:
        image = sample.to(plan.device).image
        kind = plan.device.type
        with torch.inference_mode(), torch.autocast(kind, plan.dtype or torch.bfloat16, enabled=plan.dtype is not None):
            found = network(image).argmax(1).to(torch.uint8).cpu().numpy()
        matrix += confusion_matrix(found, sample.annotation.numpy(), range(classes))[:classes, :classes]
    return matrix


def find_view(view: View | None, rounds: Sequence[Round], plan: Plan) -> View:
    """Return a view inside the target; by default 512 pixels around the latest round's most painted section."""
    depth, height, width = plan.target[0].shape[:3]
    if view is None:
        painted = rounds[-1].painted
        z = max(painted.sections, key=painted.count)
        y, x, part = painted.sections[z]
        centre = y + part.shape[0] // 2, x + part.shape[1] // 2
        view = (z, centre[0] - VIEW_PX // 2, centre[1] - VIEW_PX // 2, VIEW_PX)
    z, y, x, size = view
    y, x = (max(0, min(at, n - size)) for at, n in ((y, height), (x, width)))
    return max(0, min(z, depth - 1)), y, x, size


def predict_view(network: SegmentationNet, plan: Plan, view: View) -> Generator[Event, None, npt.NDArray[np.uint8]]:
    """Return the classes (h, w) uint8 of a window, as a segmentation of the whole volume would have them there."""
    volume = plan.target[0]
    z, y, x, size = view
    factor = scale_factor(volume, plan.pixel_nm)
    step, _ = spacing_step(volume, plan.section_nm)
    depth, rows, columns = context(network, factor)
    inner = (slice(y, min(y + size, volume.shape[1])), slice(x, min(x + size, volume.shape[2])))
    sections = around(slice(z, z + 1), ceil(depth * step), 1, volume.shape[0])
    unit = network.divisor[-2:] if factor is None else (1, 1)  # so that pooling falls as in the whole section
    area = [
        around(part, halo, grid, n)
        for part, halo, grid, n in zip(inner, (rows, columns), unit, volume.shape[1:], strict=False)
    ]
    crop = Volume(volume.read((sections, *area)), volume.voxel_nm, volume.name)
    at_scale = crop if factor is None else resample(crop, factor)
    with tempfile.TemporaryDirectory(prefix="view-", ignore_cleanup_errors=True) as store:
        outputs = Outputs(Path(store) / "view", labels=False, probabilities=True)
        prediction: Prediction = yield from forward(
            predict(
                network,
                at_scale,
                outputs,
                intensity=volume.intensity,
                classes=len(plan.config.classes) + 1,
                section_step=step,
                precision=plan.config.training.precision,
                device=plan.config.training.device,
            )
        )
        section: Any = prediction.probabilities().data[z - sections.start : z - sections.start + 1]
        section = section if factor is None else resize_sections(section, crop.shape[1:3])
        probs = np.asarray(computed(section))[0]
    own = tuple(slice(i.start - a.start, i.stop - a.start) for i, a in zip(inner, area, strict=True))
    return np.asarray(probs[own].argmax(-1), np.uint8)


def context(network: SegmentationNet, factor: float | None) -> tuple[int, int, int]:
    """Return how many voxels of the volume an output voxel sees on each side."""
    reach = [halo + margin for halo, margin in zip(network.halo_px, network.margin_px, strict=True)]
    z, y, x = reach if network.ndim == 3 else (0, *reach)
    return z, ceil(y / (factor or 1)), ceil(x / (factor or 1))


def around(part: slice, halo: int, grid: int, length: int) -> slice:
    """Widen a slice by ``halo``, to a start on the grid, within the volume."""
    return slice(max(0, part.start - halo) // grid * grid, min(length, part.stop + halo))


def changes(before: npt.NDArray[np.uint8], after: npt.NDArray[np.uint8], names: Sequence[str]) -> dict[str, float]:
    """Return the share of pixels whose class changed (``all``), and of those that became or ceased to be each class."""
    found = {"all": float((before != after).mean())}
    for index, name in enumerate(names, start=1):
        found[name] = float(((before == index) != (after == index)).mean())
    return found
