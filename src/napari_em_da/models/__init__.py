"""Networks: one public file per family, listed by name without importing torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_em_da.catalog import Catalog

if TYPE_CHECKING:
    from napari_em_da.models._base import ModelSpec

MODELS: Catalog[ModelSpec] = Catalog("napari_em_da.models", "MODEL")

__all__ = ["MODELS"]
