"""What a run is scored on while it trains: held-out source windows, and label-free guards on the target."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from napari_em_da.events import Event, Metric, Preview
from napari_em_da.methods._base import Method
from napari_em_da.metrics.overlap import confusion_matrix
from napari_em_da.sampling import Sample
from napari_em_da.training.folder import RunFolder
from napari_em_da.workflows.plan import Plan

FOREGROUND_BOUNDS = (0.25, 4.0)  # of the source's foreground share (D.11)
SOURCE_SHARE = 0.9  # of the best source score so far (D.11)


class Validation:
    """Score a method on fixed windows.

    Without a target the score is the mean foreground IoU on held-out source windows. With a target it is the step
    itself, given only where the guards pass: later is better, as long as the source score stays within 90 % of its best
    and the target's predicted foreground within a factor of 4 of the source's. No target label is ever at hand here.
    """

    def __init__(self, plan: Plan, folder: RunFolder, held_out: list[Sample], target: list[Sample]) -> None:
        self.plan = plan
        self.folder = folder
        self.held_out = held_out
        self.target = target

    def __call__(self, method: Method, step: int) -> Iterator[Event]:
        """Yield previews and one Metric."""
        names = list(self.plan.config.classes)
        count = len(names) + 1
        matrix = np.zeros((count, count), np.int64)
        for sample in self.held_out:
            predicted = self._predict(method, sample, "source")
            if sample.labels is not None:
                matrix += confusion_matrix(predicted, sample.labels.numpy(), range(count))[:count, :count]
        values = iou_values(matrix, names)
        shown = self.target[:1] or self.held_out[:1]
        for sample in shown:
            domain = "target" if self.target else "source"
            predicted = self._predict(method, sample, domain)
            yield Preview("image", "image", first_section(sample.image[:, 0].numpy()).astype(np.float32), step)
            yield Preview("prediction", "labels", first_section(predicted), step)
        if self.target:
            values |= self._guard(method, step, matrix, values)
        elif self.held_out:
            values["score"] = values.get("val/iou", 0.0)
        else:
            values["score"] = float(step)  # nothing is held out: the last weights are the best
        yield Metric(step, values)

    def _guard(self, method: Method, step: int, matrix: np.ndarray, values: dict[str, float]) -> dict[str, float]:
        counts = np.zeros(len(matrix), np.int64)
        for sample in self.target:
            predicted = self._predict(method, sample, "target")
            counts += np.bincount(predicted.ravel(), minlength=len(matrix))[: len(matrix)]
        share = counts[1:].sum() / max(1, counts.sum())
        prior = matrix[1:].sum() / max(1, matrix.sum())  # rows are the annotation
        score = values.get("val/iou", 1.0)
        # from the log and not from memory, so that a resumed run judges as an unstopped one does
        best = max([score, *(line["val/iou"] for line in self.folder.metrics() if "val/iou" in line)])
        low, high = FOREGROUND_BOUNDS
        passed = score >= SOURCE_SHARE * best and (not self.held_out or low * prior <= share <= high * prior)
        found = {"target/foreground": float(share), "source/foreground": float(prior), "guards": float(passed)}
        return {**found, "score": float(step)} if passed else found

    def _predict(self, method: Method, sample: Sample, domain: str) -> np.ndarray:
        plan = self.plan
        on_device = sample.to(plan.device)
        with torch.inference_mode(), method.segmenting(domain) as network:
            network.eval()
            with torch.autocast(plan.device.type, dtype=plan.dtype or torch.bfloat16, enabled=plan.dtype is not None):
                logits = network(on_device.image)
        predicted: np.ndarray = logits.argmax(1).to(torch.uint8).cpu().numpy()
        return predicted


def iou_values(matrix: np.ndarray, names: list[str]) -> dict[str, float]:
    """Return ``val/iou`` (mean over the foreground classes that occur) and one value per class."""
    hits = np.diag(matrix).astype(float)
    union = matrix.sum(0) + matrix.sum(1) - hits
    values = {f"val/iou/{n}": float(hits[i] / union[i]) for i, n in enumerate(names, start=1) if union[i]}
    if values:
        values["val/iou"] = float(np.mean(list(values.values())))
    return values


def first_section(windows: np.ndarray) -> np.ndarray:
    """Return one section (Y, X) of a batch (B, [Z,] Y, X)."""
    window = windows[0]
    return np.ascontiguousarray(window[len(window) // 2] if window.ndim == 3 else window)
