"""The label-free guards of an adaptation: collapse, explosion and forgetting are refused, whatever came before."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from napari_em_da.config import LossConfig, TrainConfig
from napari_em_da.events import Metric
from napari_em_da.losses import segmentation_loss
from napari_em_da.methods import METHODS
from napari_em_da.methods._base import Setup
from napari_em_da.models._base import SegmentationNet
from napari_em_da.sampling import Sample
from napari_em_da.selection._base import Reference
from napari_em_da.selection.guards import Guards
from napari_em_da.training.folder import RunFolder
from napari_em_da.workflows.judging import Judge, Record, candidates, decide, read_records
from napari_em_da.workflows.validation import Validation


class Threshold(SegmentationNet):
    """Foreground where the image is positive."""

    divisor, halo_px, margin_px, classes = (1, 1), (0, 0), (0, 0), 2

    def forward_taps(self, image: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        return torch.cat([-image, image], 1), {}


def squares(share: float, count: int = 4) -> torch.Tensor:
    """Windows of 40x40 with one bright square of this share of the pixels each, (count, 1, 40, 40)."""
    image = torch.full((count, 1, 40, 40), -1.0)
    side = round((share * 1600) ** 0.5)
    image[:, :, :side, :side] = 1.0
    return image


class Run:
    """A validation with squares in source and target."""

    def __init__(self, folder: Path, source: float = 0.2, wrong: float = 0.0) -> None:
        image = squares(source)
        truth = (squares(source * (1 - wrong))[:, 0] > 0).long()
        config = SimpleNamespace(classes={"mito": (1,)})
        plan: Any = SimpleNamespace(config=config, device=torch.device("cpu"), dtype=None)
        labels = (image[:, 0] > 0).numpy().astype(np.uint8)
        self.reference = Reference.from_labels(list(labels), ["mito"], (40, 40))
        self.folder = RunFolder(folder)
        self.plan, self.held_out = plan, [Sample(image, truth)]

    def look(self, target: float, step: int) -> dict[str, float]:
        """Validate a network that finds squares of this share on the target."""
        method = METHODS["supervised"].create(Setup(Threshold(), segmentation_loss(LossConfig()), (40, 40), 1, 1e-3))
        judge = Judge(self.folder, [squares(target)], self.reference)
        check = Validation(self.plan, self.held_out, judge)
        (metric,) = [e for e in check(method, step) if isinstance(e, Metric)]
        self.folder.log(step, metric.values)
        return dict(metric.values)


def test_the_source_model_is_the_first_candidate_and_best(tmp_path: Path) -> None:
    run = Run(tmp_path)
    values = run.look(target=0.2, step=0)
    assert values["val/iou"] == 1.0 and values["chosen_step"] == 0
    assert values["target/foreground"] == pytest.approx(0.2, rel=0.1)
    (record,) = read_records(run.folder)
    assert record.name == "source_only" and record.refused == ()
    assert run.folder.best.is_file() and "**source_only** (chosen)" in (tmp_path / "choice.md").read_text("utf-8")


@pytest.mark.parametrize("target", [0.0, 0.02, 0.95])
def test_collapse_and_explosion_are_refused(tmp_path: Path, target: float) -> None:
    run = Run(tmp_path)
    run.look(target=0.2, step=0)
    values = run.look(target=target, step=50)
    assert values["chosen_step"] == 0
    assert read_records(run.folder)[1].refused


def test_a_run_that_loses_the_target_is_stopped(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.look(target=0.2, step=0)
    assert "collapsed" in run.look(target=0.0, step=50)
    (tmp_path / "b").mkdir()
    healthy = Run(tmp_path / "b")
    healthy.look(target=0.2, step=0)
    assert "collapsed" not in healthy.look(target=0.25, step=50)


def test_forgetting_the_source_is_refused(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.look(target=0.2, step=0)
    run.held_out = Run(tmp_path, wrong=0.5).held_out
    assert run.look(target=0.2, step=50)["val/iou"] < 0.6
    listed = candidates(read_records(run.folder), Guards())
    assert "held-out source windows" in listed[1].refused[0] and not listed[0].refused
    assert decide(read_records(run.folder))[0].step == 0


def test_a_choice_that_finds_far_less_of_a_class_than_the_source_holds_warns(tmp_path: Path) -> None:
    run = Run(tmp_path)
    values = run.look(target=0.2, step=0)
    key = next(key for key in values if key.startswith("source/foreground/"))
    run.folder.log(0, values)
    assert decide(read_records(run.folder))[1].warning is None
    run.folder.metrics_path.unlink()
    run.folder.log(0, {"loss": 1.0})  # the step's own line, before what its validation found
    run.folder.log(0, values | {key.replace("source", "target"): 0.3 * values[key]})
    _, choice, text = decide(read_records(run.folder))
    assert "at most 0.30" in str(choice.warning) and str(choice.warning) in text


def test_candidates_survive_a_restart(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.look(target=0.2, step=0)
    run.look(target=0.22, step=10)
    again = Run(tmp_path)
    again.look(target=0.21, step=20)
    assert [record.step for record in read_records(run.folder)] == [0, 10, 20]
    assert "agreement" in read_records(run.folder)[2].scores  # the source model's prediction was kept, too


def test_labels_of_the_target_have_no_place_in_a_job() -> None:
    from napari_em_da.config import ImageConfig

    assert TrainConfig.model_fields["target"].annotation == tuple[ImageConfig, ...]
    assert set(ImageConfig.model_fields) == {"image", "voxel_nm"}


def test_who_learned_the_targets_look_may_lose_a_little_of_the_sources(tmp_path: Path) -> None:
    def record(step: int, plain: float, matched: float | None) -> Record:
        return Record("run", step, {}, (), plain, matched, tmp_path / "w")

    start, adapted, lost = record(0, 0.95, 0.31), record(1, 0.83, 0.62), record(2, 0.5, 0.2)
    passed = [not c.refused for c in candidates([start, adapted, lost], Guards())]
    assert passed == [True, True, False]
    assert [not c.refused for c in candidates([start, record(1, 0.83, None)], Guards())] == [True, False]
