"""Blockwise inference: a lazy volume in, labels and probabilities in a zarr store out."""

from __future__ import annotations

from napari_em_da.inference.predict import predict
from napari_em_da.inference.store import Outputs, Prediction

__all__ = ["Outputs", "Prediction", "predict"]
