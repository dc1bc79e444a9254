"""Pixel weight maps: where the loss looks. One public file per kind, listed by name without importing numba."""

from __future__ import annotations

from napari_em_da.weights._map import WEIGHTS, section_steps, weight_map, weight_section

__all__ = ["WEIGHTS", "section_steps", "weight_map", "weight_section"]
