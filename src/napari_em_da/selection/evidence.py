"""Predict the fixed target windows of a candidate, and their twins: the one place here that runs a network."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence

import numpy as np
import torch
from torch import Tensor

from napari_em_da.errors import DataError
from napari_em_da.events import Event, Progress
from napari_em_da.inference import tta
from napari_em_da.jobs import finish
from napari_em_da.selection._base import Evidence, Probs, Reference

GAIN = (0.8, 1.25)  # the jitter, in standardised grey values
SHIFT = (-0.25, 0.25)
NOISE = 0.05

Predict = Callable[[Tensor], Tensor]


def collect(
    predict: Predict,
    windows: Sequence[Tensor],
    reference: Reference,
    *,
    twins: bool = True,
    before: Probs | None = None,
    seed: int = 0,
) -> Evidence:
    """Return the evidence about one candidate.

    Parameters
    ----------
    predict : callable
        (B, 1, [Z,] Y, X) float32 to logits (B, C, [Z,] Y, X), with the network in eval mode.
    windows : sequence of (B, 1, [Z,] Y, X) float32
        Batches of target images, standardised; the same for all candidates.
    reference : Reference
        Of the source, in windows of the same size.
    twins : bool
        Predict each window once more under a symmetry and a jitter of its own, which doubles the cost.
    before : (N, C, Y, X) float32, optional
        ``probs`` of the source model's evidence.
    seed : int
        Of symmetries and jitter; keep it for all candidates.

    Raises
    ------
    DataError
        If there is no window, or the predictions are not what `Evidence` expects.
    """
    looking = Progress(0, 1, "networks", "judging")
    return finish(collecting(predict, windows, reference, looking, twins=twins, before=before, seed=seed))


def collecting(
    predict: Predict,
    windows: Sequence[Tensor],
    reference: Reference,
    progress: Progress,
    *,
    twins: bool = True,
    before: Probs | None = None,
    seed: int = 0,
) -> Generator[Event, None, Evidence]:
    """Collect as ``collect`` does, and yield ``progress`` after each batch: a job can stop there."""
    if not windows:
        raise DataError("There is no target window to judge a candidate by; give at least one.")
    rng = np.random.default_rng(seed)
    probs, others = [], []
    for batch in windows:
        with torch.inference_mode():  # not across a yield: whoever is asked for the next step would be in it
            probs.append(_sections(predict(batch)))
            if twins:
                others.append(_sections(_twin(predict, batch, rng)))
        yield progress
    return Evidence(np.concatenate(probs), np.concatenate(others) if others else None, reference, before)


def _sections(logits: Tensor) -> Probs:
    """Softmax as (B * Z, C, Y, X) float32 numpy."""
    probs = logits.float().softmax(1)
    if probs.ndim == 5:
        probs = probs.movedim(2, 1).flatten(0, 1)  # (B, C, Z, Y, X) -> (B * Z, C, Y, X)
    return np.asarray(probs.cpu().numpy(), np.float32)


def _twin(predict: Predict, batch: Tensor, rng: np.random.Generator) -> Tensor:
    """Predict a batch with each window turned and jittered on its own, and turn the logits back."""
    square = batch.shape[-1] == batch.shape[-2]
    turning = [e for e in tta.ELEMENTS[1:] if square or e[1] % 2 == 0]  # odd turns would swap the sides
    elements = [turning[int(rng.integers(len(turning)))] for _ in batch]
    shape = (len(batch),) + (1,) * (batch.ndim - 1)
    gain, shift = (torch.tensor(rng.uniform(*limits, shape), dtype=batch.dtype) for limits in (GAIN, SHIFT))
    noise = torch.from_numpy(rng.standard_normal(batch.shape, np.float32)) * NOISE
    jittered = batch * gain.to(batch.device) + shift.to(batch.device) + noise.to(batch.device)
    logits = predict(torch.stack([tta.apply(window, e) for window, e in zip(jittered, elements, strict=True)]))
    return torch.stack([tta.invert(window, e) for window, e in zip(logits, elements, strict=True)])
