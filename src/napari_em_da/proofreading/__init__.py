"""Correct instance labels by operators that return the changed region, so that a viewer can apply and undo them.

Every operator is a pure function of a label volume (numpy, dask or zarr, of any size) and returns an `Edit`; what it
reads beyond the object's surroundings it reads block by block.
"""

from __future__ import annotations

from napari_em_da.proofreading.edits import Edit, History
from napari_em_da.proofreading.interpolation import interpolate
from napari_em_da.proofreading.objects import compact, delete, merge, relabel
from napari_em_da.proofreading.search import bounding_box, next_id
from napari_em_da.proofreading.shapes import fill, grow, shrink
from napari_em_da.proofreading.splits import split_by_plane, split_by_seeds, split_components

__all__ = ["Edit", "History", "bounding_box", "compact", "delete", "fill", "grow", "interpolate", "merge", "next_id"]
__all__ += ["relabel", "shrink", "split_by_plane", "split_by_seeds", "split_components"]
