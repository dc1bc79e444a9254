"""One generator of events per verb."""

from __future__ import annotations

from napari_em_da.workflows.adapt import adapt
from napari_em_da.workflows.check import check
from napari_em_da.workflows.corrections import correct
from napari_em_da.workflows.evaluate import evaluate
from napari_em_da.workflows.finetune import finetune
from napari_em_da.workflows.measure import measure
from napari_em_da.workflows.pipeline import pipeline
from napari_em_da.workflows.postprocess import run_chain
from napari_em_da.workflows.replay import replay
from napari_em_da.workflows.segment import segment
from napari_em_da.workflows.train import train
from napari_em_da.workflows.tune import tune

__all__ = [
    "adapt",
    "check",
    "correct",
    "evaluate",
    "finetune",
    "measure",
    "pipeline",
    "replay",
    "run_chain",
    "segment",
    "train",
    "tune",
]
