"""What came of an adaptation: the chosen checkpoint and why, and what it changed on a section."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_em_da.events import Finished
from napari_em_da.jobs import Job, forward
from napari_em_da.layers.snapshot import snapshot
from napari_em_da.layers.view import segment_view

Region = tuple[slice, slice, slice]


@dataclass(frozen=True)
class Adapted:
    """A finished adaptation, as a person wants to read it.

    Attributes
    ----------
    run : Path
        Its run folder.
    chosen : str
        Adaptation and step of the chosen checkpoint.
    why : str
        Why this one, without target labels.
    warning : str or None
        Why not to trust it.
    expected : (IoU, low, high) or None
        What to expect on the target, where it could be measured.
    report : str
        Markdown table of all candidates.
    seconds : float
    """

    run: Path
    chosen: str
    why: str
    warning: str | None
    expected: tuple[float, float, float] | None
    report: str
    seconds: float


def adapted(result: Any) -> Adapted:
    """Return what to say about the result of ``adapt``: an ``AutoResult`` or a ``TrainResult``."""
    from napari_em_da.training.folder import RunFolder
    from napari_em_da.workflows.judging import REPORT, decide, read_records

    folder = RunFolder.open(result.run)
    report = (folder.path / REPORT).read_text(encoding="utf-8") if (folder.path / REPORT).is_file() else ""
    if hasattr(result, "chosen"):
        chosen = f"{result.chosen}, step {result.step}"
        return Adapted(result.run, chosen, result.why, result.warning, result.expected, report, result.seconds)
    _, choice, text = decide(read_records(folder))
    return Adapted(result.run, str(choice.candidate), choice.why, choice.warning, None, report or text, result.seconds)


def compare_section(image: Any, runs: Mapping[str, Path | str], region: Region, **options: Any) -> Job:
    """Segment one window of one section with several runs; Finished carries {name: label values (Y, X)}.

    Parameters
    ----------
    image : layer
    runs : {name: run folder}
    region : (z, y, x) slices
        In voxels, of one section.
    **options
        As of ``segment_view``.
    """
    taken = snapshot(image)
    return _compare(taken, dict(runs), region, options)


def _compare(taken: Any, runs: dict[str, Path | str], region: Region, options: dict[str, Any]) -> Job:
    found = {}
    for name, run in runs.items():
        result = yield from forward(segment_view(taken, run, region[0], region[1:], **options))
        found[name] = result.labels[0]
    yield Finished(found)
