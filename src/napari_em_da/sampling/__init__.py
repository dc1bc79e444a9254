"""Volumes become batches: where windows are drawn, what is done to them, and how they are prepared ahead."""

from __future__ import annotations

from napari_em_da.sampling.positions import jittered_grid
from napari_em_da.sampling.prefetch import Prefetch
from napari_em_da.sampling.sample import Sample
from napari_em_da.sampling.sampler import Sampler
from napari_em_da.sampling.source import Source

__all__ = ["Prefetch", "Sample", "Sampler", "Source", "jittered_grid"]
