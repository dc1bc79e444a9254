"""What a run is scored on while it trains: held-out source windows, and label-free evidence on the target."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from napari_em_da.events import Event, Metric, Notice, Preview, Progress
from napari_em_da.methods._base import Method
from napari_em_da.metrics.overlap import confusion_matrix
from napari_em_da.models._base import SegmentationNet
from napari_em_da.sampling import Sample
from napari_em_da.workflows.judging import Judge
from napari_em_da.workflows.plan import Plan

# Shows more of the network at each validation: (plan, network, images to logits, step) -> events; see `watching.Watch`.
Look = Callable[[Plan, SegmentationNet, Callable[[Tensor], Tensor], int], Iterator[Event]]


class Validation:
    """Score a method on fixed windows.

    Without a target the score is the mean foreground IoU on held-out source windows. With a target the `Judge` keeps
    every validated network as a candidate and chooses among them; no target label is ever at hand here. The source is
    then looked at twice: as it is, and (``matched``) with the target's histogram and the target's statistics.
    ``look`` may show more of the network; it changes nothing.
    """

    def __init__(
        self,
        plan: Plan,
        held_out: list[Sample],
        judge: Judge | None = None,
        matched: Sequence[Sample] = (),
        look: Look | None = None,
    ) -> None:
        self.plan = plan
        self.held_out = held_out
        self.judge = judge
        self.matched = matched
        self.look = look

    def __call__(self, method: Method, step: int) -> Generator[Event, None, None]:
        """Yield previews and one Metric."""
        names = list(self.plan.config.classes)
        count = len(names) + 1
        values = iou_values((yield from self._matrix(method, self.held_out, "source", count)), names)
        if self.judge is not None:
            yield from self._judge(method, step, values)
            return
        for sample in self.held_out[:1]:
            predicted = self._predict(method, sample, "source")
            yield from previews(sample.image.numpy(), predicted, step)
        if self.look is not None:
            with method.segmenting("source") as network:
                yield from self._look(network, step)
        # where nothing is held out, the last weights are the best
        values["score"] = values.get("val/iou", 0.0) if self.held_out else float(step)
        yield Metric(step, values)

    def _matrix(
        self, method: Method, samples: Sequence[Sample], domain: str, count: int
    ) -> Generator[Event, None, np.ndarray]:
        matrix = np.zeros((count, count), np.int64)
        for done, sample in enumerate(samples):
            yield Progress(done, len(samples), "batches", "validating")  # a place to stop
            predicted = self._predict(method, sample, domain)
            if sample.labels is not None:
                matrix += confusion_matrix(predicted, sample.labels.numpy(), range(count))[:count, :count]
        return matrix

    def _judge(self, method: Method, step: int, values: dict[str, float]) -> Generator[Event, None, None]:
        judge = self.judge
        if judge is None:
            return
        count = len(self.plan.config.classes) + 1
        matrix = yield from self._matrix(method, self.matched, "target", count)
        matched = iou_values(matrix, list(self.plan.config.classes))
        values |= {name.replace("val/", "val_matched/", 1): value for name, value in matched.items()}
        with method.segmenting("target") as network:
            network.eval()
            scored = values.get("val/iou"), matched.get("val/iou")
            found = yield from judge.look(lambda image: self._logits(network, image), network, step, *scored)
            first = judge.windows[0][:1]
            with torch.inference_mode():
                predicted = self._logits(network, first).argmax(1).to(torch.uint8).cpu().numpy()
            shown = list(self._look(network, step))
        yield from shown
        yield from previews(first.numpy(), predicted, step)
        yield Metric(step, {**values, **found})
        if "collapsed" in found:
            yield Notice(f"Stopped at step {step}: {judge.why_collapsed()}", "warning")

    def _look(self, network: SegmentationNet, step: int) -> Iterator[Event]:
        if self.look is not None:
            network.eval()
            yield from self.look(self.plan, network, lambda image: self._logits(network, image), step)

    def _logits(self, network: torch.nn.Module, image: Tensor) -> Tensor:
        plan = self.plan
        on_device = Sample(image).to(plan.device).image
        with torch.autocast(plan.device.type, dtype=plan.dtype or torch.bfloat16, enabled=plan.dtype is not None):
            logits: Tensor = network(on_device)
        return logits.float().cpu()

    def _predict(self, method: Method, sample: Sample, domain: str) -> np.ndarray:
        with torch.inference_mode(), method.segmenting(domain) as network:
            network.eval()
            predicted: np.ndarray = self._logits(network, sample.image).argmax(1).to(torch.uint8).numpy()
        return predicted


def previews(images: np.ndarray, predicted: np.ndarray, step: int) -> Iterator[Event]:
    """Yield the first section of a batch (B, 1, [Z,] Y, X) and of its predicted classes."""
    yield Preview("image", "image", first_section(images[:, 0]).astype(np.float32), step)
    yield Preview("prediction", "labels", first_section(predicted), step)


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
