"""Partition scores: Rand, variation of information and the CREMI score of instance ids or boundary maps.

Ids compare as one volume, from one contingency table; boundary maps (``kind="membrane"`` or ``"object"``) follow
the protocol of the ISBI 2012 challenge.
"""

from __future__ import annotations

import inspect

import numpy as np

from napari_em_da.errors import ConfigError
from napari_em_da.metrics._agreement import SCORES, agreement
from napari_em_da.metrics._base import Family, Pair, Undefined
from napari_em_da.metrics._contingency import Contingency, contingency


def compute(pair: Pair, wanted: tuple[str, ...]) -> dict[str, float | Undefined]:
    """Compute the wanted partition scores of a pair of volumes.

    Raises
    ------
    ConfigError
        If ``border_nm`` is set and the voxel size is unknown.
    DataError
        If the prediction is not integer, an id is negative or above 2^63, or no voxel is annotated.
    """
    if pair.kind in ("membrane", "object"):
        from napari_em_da.metrics._isbi import isbi_scores

        return isbi_scores(pair, wanted)
    border = None
    if pair.scoring.border_nm:
        if pair.spacing is None:
            raise ConfigError(
                f"border_nm={pair.scoring.border_nm:g} needs the voxel size; pass spacing=(z, y, x) in nm, "
                "or border_nm=0."
            )
        border = (pair.scoring.border_nm, pair.spacing)
    table = contingency(pair.prediction, pair.labels, ignored=pair.ignored(ids=True), mask=pair.mask, border=border)
    if pair.kind is None and _looks_like_masks(table):
        pair.warnings.append(
            "Both volumes hold only the ids 0 and 1, like masks, and were compared as ids: all of 1 is one object. "
            "If they are masks, pass kind='membrane' or kind='object'; if not, kind='instances'."
        )
    scores = agreement(table, pair.scoring)
    return {name: scores[name] for name in wanted}


def _looks_like_masks(table: Contingency) -> bool:
    return all(np.isin(ids, (0, 1)).all() for ids in (table.truth, table.found))


FAMILY = Family({name: inspect.getdoc(score) or "" for name, score in SCORES.items()}, compute, ids=True)
