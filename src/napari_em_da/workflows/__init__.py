"""One generator of events per verb: train, adapt, segment, evaluate, replay, pipeline."""

from __future__ import annotations

from napari_em_da.workflows.adapt import adapt
from napari_em_da.workflows.evaluate import evaluate
from napari_em_da.workflows.pipeline import pipeline
from napari_em_da.workflows.replay import replay
from napari_em_da.workflows.segment import segment
from napari_em_da.workflows.train import train

__all__ = ["adapt", "evaluate", "pipeline", "replay", "segment", "train"]
