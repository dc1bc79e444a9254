"""Methods: how a batch becomes losses. One public file per method, listed by name without importing torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_em_da.catalog import Catalog

if TYPE_CHECKING:
    from napari_em_da.methods._base import MethodSpec

METHODS: Catalog[MethodSpec] = Catalog("napari_em_da.methods", "METHOD")

__all__ = ["METHODS"]
