"""The candidates of an adaptation: what is known of each without target labels, and which one is best so far."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from torch import Tensor

from napari_em_da.events import Event, Notice, Progress
from napari_em_da.lazy import computed
from napari_em_da.models._base import SegmentationNet
from napari_em_da.selection import DEFAULT_CRITERIA, possible, scores
from napari_em_da.selection._base import Probs, Reference
from napari_em_da.selection.evidence import collecting
from napari_em_da.selection.guards import Guards, collapsed, unlike, vitals
from napari_em_da.selection.ranking import SOURCE_ONLY, Candidate, Choice, choose, report
from napari_em_da.training import checkpoint
from napari_em_da.training.folder import RunFolder

CANDIDATES = "candidates"
REPORT = "choice.md"
REFERENCE_SECTIONS = 24  # of each labelled volume; shapes of more change nothing


@dataclass(frozen=True)
class Record:
    """What is kept of a candidate: its scores, and why what it finds on the target is refused.

    ``source_iou`` is the IoU on held-out source windows as they are, ``matched_iou`` on the same windows in the
    target's look and under the target's statistics.
    """

    name: str
    step: int
    scores: dict[str, float]
    refused: tuple[str, ...]
    source_iou: float | None
    matched_iou: float | None
    weights: Path

    def save(self) -> None:
        """Write it beside its weights."""
        data = {**asdict(self), "weights": self.weights.name}
        checkpoint.write_text(self.weights.with_suffix(".record.json"), json.dumps(data, indent=2) + "\n")


def read_records(folder: RunFolder) -> list[Record]:
    """Return the candidates of a run, by step."""
    found = []
    for path in sorted((folder.path / CANDIDATES).glob("*.record.json")):
        data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        found.append(Record(**{**data, "refused": tuple(data["refused"]), "weights": path.parent / data["weights"]}))
    return found


def candidates(records: Sequence[Record], guards: Guards) -> list[Candidate]:
    """Return records as candidates; which of them forgot their task is known once all are.

    Notes
    -----
    A departure from the guard as published, which looks at the source as it is: a network that was trained on source
    windows in the target's look may lose more than a tenth there while it doubles its score on the target. It has
    forgotten its task only if it falls behind the best candidate at both.
    """
    plain = max((r.source_iou for r in records if r.source_iou is not None), default=None)
    matched = max((r.matched_iou for r in records if r.matched_iou is not None), default=None)
    found = []
    for record in records:
        forgot = guards.forgotten(record.source_iou, plain)
        if forgot and record.matched_iou is not None and not guards.forgotten(record.matched_iou, matched):
            forgot = None
        refused = (forgot, *record.refused) if forgot else record.refused
        found.append(Candidate(record.name, record.step, record.scores, refused))
    return found


def decide(records: Sequence[Record], criteria: Sequence[str] = DEFAULT_CRITERIA) -> tuple[Record, Choice, str]:
    """Return the chosen record, the choice, and the report on it."""
    listed = candidates(records, Guards())
    choice = choose(listed, criteria)
    chosen = next(r for r in records if (r.name, r.step) == choice.candidate.key)
    lines = RunFolder(chosen.weights.parent.parent).metrics()
    strange = unlike({key: value for line in lines if line["step"] == chosen.step for key, value in line.items()})
    if strange:
        choice = replace(choice, warning=" ".join(filter(None, (choice.warning, strange))))
    return chosen, choice, report(listed, choice)


def told(why: str, warning: str | None) -> Iterator[Notice]:
    """Say what was chosen and why, and what to beware of."""
    yield Notice(why)
    if warning:
        yield Notice(warning, "warning")


class Judge:
    """Looks at a network on fixed target windows, keeps it as a candidate, and keeps ``best`` what is best so far.

    Parameters
    ----------
    folder : RunFolder
    windows : list of (B, 1, [Z,] Y, X) tensors
        Target images; there is no place for their labels.
    reference : Reference
        What the classes look like in the source's labels.
    """

    def __init__(self, folder: RunFolder, windows: list[Tensor], reference: Reference) -> None:
        self.folder = folder
        self.windows = windows
        self.reference = reference
        self.guards = Guards()

    def look(
        self,
        predict: Callable[[Tensor], Tensor],
        network: SegmentationNet,
        step: int,
        source_iou: float | None,
        matched_iou: float | None = None,
    ) -> Generator[Event, None, dict[str, float]]:
        """Judge one network, save it as a candidate, update ``best``, and return what to log; yield progress meanwhile.

        ``collapsed`` is among the values where the run should stop.
        """
        before = self._before() if step else None
        judging = Progress(0, 1, "networks", "judging")
        evidence = yield from collecting(predict, self.windows, self.reference, judging, before=before)
        if not step:
            self._keep_before(evidence.probs)
        (self.folder.path / CANDIDATES).mkdir(exist_ok=True)
        weights = self.folder.path / CANDIDATES / f"{step:06d}.safetensors"
        checkpoint.save(weights, checkpoint.prefixed("network", network.state_dict()), {"step": step})
        name = self.folder.path.name if step else SOURCE_ONLY
        found: dict[str, float] = {}
        for criterion in possible(evidence):
            found |= scores(evidence, [criterion])
            yield judging
        Record(name, step, found, self.guards.reasons(evidence), source_iou, matched_iou, weights).save()
        values = vitals(evidence) | {f"select/{key}": value for key, value in found.items()}
        records = [record for record in read_records(self.folder) if record.step <= step]
        chosen, _, text = decide(records)
        adopt(chosen, self.folder)
        checkpoint.write_text(self.folder.path / REPORT, text)
        if step and collapsed([*self.folder.metrics(), values]):
            values["collapsed"] = 1.0
        return {**values, "chosen_step": float(chosen.step)}

    def why_collapsed(self) -> str | None:
        """Return why the run was stopped, if it was."""
        return collapsed(self.folder.metrics())

    def _keep_before(self, probs: Probs) -> None:
        path = self.folder.path / CANDIDATES
        path.mkdir(exist_ok=True)
        np.save(path / "before.npy", probs.astype(np.float16))

    def _before(self) -> Probs | None:
        path = self.folder.path / CANDIDATES / "before.npy"
        return np.load(path).astype(np.float32) if path.is_file() else None


def adopt(record: Record, folder: RunFolder) -> None:
    """Make a candidate the run's ``best`` checkpoint."""
    pairs = ((record.weights, folder.best), (record.weights.with_suffix(".json"), folder.best.with_suffix(".json")))
    for source, goal in pairs:
        temporary = goal.with_name(f".{goal.name}.partial")
        shutil.copyfile(source, temporary)
        temporary.replace(goal)


def label_sections(labels: Any, factor: float | None) -> Iterator[npt.NDArray[np.uint8]]:
    """Yield up to 24 evenly spread sections of class indices, at the training's pixel size (nearest neighbour)."""
    depth = labels.shape[0]
    for z in np.unique(np.linspace(0, depth - 1, min(depth, REFERENCE_SECTIONS)).round().astype(int)):
        section = np.asarray(computed(labels[int(z)]))
        if factor is not None:
            size = tuple(max(1, round(n * factor)) for n in section.shape[::-1])
            section = cv2.resize(section, size, interpolation=cv2.INTER_NEAREST)
        yield np.asarray(section, np.uint8)
