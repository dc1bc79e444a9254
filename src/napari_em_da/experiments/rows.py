"""The tables of the benchmarks: one row per run, added atomically."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from napari_em_da.errors import DataError
from napari_em_da.training.checkpoint import write_text

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

SUPERVISED = "target_supervised"
AUTO = "auto"


@dataclass(frozen=True)
class Row:
    """One line of the adaptation benchmark; ``oracle_*`` use the target's test labels and are for comparison only.

    ``expected_*`` is what ``auto`` announced: the IoU to expect, over all classes, and the ends of its range. The other
    columns are of sections segmented each for itself; ``smoothed_iou`` is with the averaging along z of ``segment``.
    """

    pair: str
    method: str
    seed: int
    iou: float
    dice: float
    chosen_without_labels: str
    step_cost_ratio: float
    seconds: float
    oracle_iou: float
    oracle_step: str
    candidates: int
    profile: str
    expected_iou: float = float("nan")
    expected_low: float = float("nan")
    expected_high: float = float("nan")
    smoothed_iou: float = float("nan")


def read_table(path: Path) -> list[dict[str, str]]:
    """Return the rows of a table; none if there is no table yet."""
    if not path.is_file():
        return []
    return list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))


def append(path: Path, row: DataclassInstance) -> None:
    """Add one row, a flat dataclass whose fields are the table's columns, atomically.

    Several processes may do so at once: each waits until the other has written (a file beside the table says who may).

    Raises
    ------
    DataError
        If the table has other columns.
    """
    names = [field.name for field in fields(row)]
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow([getattr(row, name) for name in names])
    with FileLock(path.with_name(path.name + ".lock")):
        write_text(path, _table(path, names) + line.getvalue())


def _table(path: Path, names: list[str]) -> str:
    text = path.read_text(encoding="utf-8") if path.is_file() else ",".join(names) + "\n"
    if text.splitlines()[0] != ",".join(names):
        raise DataError(f"{path} has other columns than {', '.join(names)}; move it away.")
    return text
