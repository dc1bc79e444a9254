"""What a round of corrections did, and what is said about it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from napari_em_da.config import CorrectConfig
from napari_em_da.events import Event, Notice
from napari_em_da.workflows.correction_check import View

FEW_STEPS = 5  # fewer hardly change a network


@dataclass(frozen=True)
class CorrectResult:
    """A round of corrections: a run like any other, and what it changed.

    Attributes
    ----------
    run : Path
    round, steps, painted : int
        Number of the round, steps done, painted voxels of all rounds.
    view : (section, y, x, size), and ``view_labels``, a file with the label values predicted there
    changed : dict of str to float
        Share of the view's pixels whose class changed (``all``), and that became or ceased to be each class.
    accuracy, iou, source_iou : (before, after)
        On painted voxels, and on windows of the source that the run held out; None where no class occurs.
    source_first : float or None
        IoU on those windows before the first of all rounds; ``CorrectConfig.forget`` counts from there.
    kept : float
        Share of the way from the start's weights to the trained ones that is kept: 1 where all of it is.
    digest : str
        Hash of the final weights.
    seconds : float
    parts : dict of str to float
        What the seconds were spent on.
    """

    run: Path
    round: int
    steps: int
    painted: int
    view: View
    view_labels: Path
    changed: dict[str, float]
    accuracy: tuple[float, float]
    iou: tuple[float | None, float | None]
    source_iou: tuple[float | None, float | None]
    source_first: float | None
    kept: float
    digest: str
    seconds: float
    parts: dict[str, float]


def missing_source(config: CorrectConfig, replayed: bool, held: bool) -> Iterator[Event]:
    """Warn where nothing of the source is replayed, and say whether forgetting would be noticed."""
    if replayed:
        return
    known = "" if held else " Nor can it be seen how much is forgotten."
    yield Notice(
        "Only the corrections are learned: no labelled source is replayed, so what the network knew may be lost."
        f"{known} " + ("Put the source's files back." if config.replay else "Set replay above 0."),
        "warning",
    )


def tell(outcome: CorrectResult, config: CorrectConfig) -> Iterator[Event]:
    """Say what a round changed, how much of it is kept, and warn where it learned next to nothing."""
    steps = f"{outcome.steps} step{'s' if outcome.steps != 1 else ''}"
    yield Notice(
        f"Round {outcome.round}, {steps}: {100 * outcome.changed['all']:.1f} % of the view changed; "
        f"{100 * outcome.accuracy[0]:.0f} % of the painted voxels were right before, {100 * outcome.accuracy[1]:.0f} % "
        "are now."
    )
    if config.steps is None and outcome.steps < FEW_STEPS:
        yield Notice(f"There was time for {steps} only: raise seconds, which are {config.seconds:g} now.", "warning")
    before, after = outcome.source_iou
    if outcome.kept == 0:
        yield Notice(
            f"Nothing was learned: any step towards the paint costs more than {config.forget:g} IoU on the source. "
            "Raise replay or forget, or lower the learning rate.",
            "warning",
        )
    elif outcome.kept < 1:
        yield Notice(
            f"{outcome.kept:.0%} of the way is kept, so that the IoU on the source stays ({before:.3f} before, "
            f"{after:.3f} now). Raise forget if the source no longer matters."
        )
