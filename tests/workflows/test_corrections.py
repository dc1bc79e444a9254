"""Rounds of corrections: what is painted is learned, what was known stays, and a round is a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import napari_em_da as em
from napari_em_da.config import CorrectConfig, LossConfig
from napari_em_da.errors import ConfigError, DataError
from napari_em_da.events import Finished, Notice, Progress
from napari_em_da.losses import segmentation_loss
from napari_em_da.methods._base import Setup
from napari_em_da.methods._corrections import SPEC, kept
from napari_em_da.models import MODELS
from napari_em_da.sampling import Sample
from napari_em_da.training import checkpoint
from napari_em_da.training.folder import RunFolder
from napari_em_da.volume import Volume
from napari_em_da.workflows.correction_check import changes
from napari_em_da.workflows.correction_data import read_rounds
from napari_em_da.workflows.correction_plan import next_round
from napari_em_da.workflows.correction_result import CorrectResult
from napari_em_da.workflows.correction_time import Clock, Parts
from napari_em_da.workflows.painted import Painted

MACHINE: dict[str, Any] = {"device": "cpu", "precision": "fp32"}


@pytest.fixture(scope="module")
def source(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained well enough on A to have something to forget."""
    out = tmp_path_factory.mktemp("corrections") / "source"
    config = em.TrainConfig(
        run=out,
        source=({"image": tiny / "A.tif", "labels": tiny / "A-labels.tif"},),
        classes={"membrane": (1,), "mito": (2,)},
        network={"options": {"features": 8, "levels": 2}},
        sampling={"patch_px": (1, 64, 64), "batch": 4, "validation": 0.3, "validation_patches": 4},
        training={"steps": 150, "learning_rate": 1e-2, "validate_every": 150, "seed": 2, **MACHINE},
    )
    em.run(em.train(config))
    return out


@pytest.fixture(scope="module")
def paint(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The truth of one window of section 2 and of a few voxels of section 4; 255 elsewhere."""
    truth = Volume.open(tiny / "B-labels.tif").read()
    labels = np.full(truth.shape, 255, np.uint8)
    labels[2, 20:100, 30:110] = truth[2, 20:100, 30:110]
    labels[4, 50:53, 60:140] = truth[4, 50:53, 60:140]
    path = tmp_path_factory.mktemp("paint") / "paint.tif"
    Volume.from_array(labels).save(path)
    return path


def job(source: Path, tiny: Path, paint: Path, out: Path, **changes: Any) -> CorrectConfig:
    base = {"run": source, "image": tiny / "B.tif", "corrections": paint, "out": out, "steps": 4, "seed": 1, **MACHINE}
    return CorrectConfig(**{**base, **changes})


def weights(run: Path) -> dict[str, torch.Tensor]:
    return checkpoint.unprefixed("network", checkpoint.load(RunFolder(run).last)[0])


def held_out_iou(run: Path, tiny: Path, out: Path) -> float:
    """Mean IoU on the columns of A that the training held out, counted here."""
    em.run(em.segment(em.SegmentConfig(image=tiny / "A.tif", run=run, output=out, **MACHINE)))
    found, truth = (Volume.open(path).read() for path in (out, tiny / "A-labels.tif"))
    cut = round(truth.shape[2] * 0.7)
    found, truth = found[..., cut:], truth[..., cut:]
    pairs = [(found == value, truth == value) for value in (1, 2)]
    return float(np.mean([(a & b).sum() / (a | b).sum() for a, b in pairs]))


@pytest.mark.parametrize("rate", [pytest.param(None, id="default rate"), pytest.param(1e-2, id="three times that")])
def test_painted_voxels_are_learned_and_the_source_is_not_forgotten(
    source: Path, tiny: Path, paint: Path, tmp_path: Path, rate: float | None
) -> None:
    strong = {"steps": 60, "learning_rate": rate}
    bounded: CorrectResult = em.run(em.correct(job(source, tiny, paint, tmp_path / "with", **strong)))
    free = {"replay": 0, "keep": 0, "forget": 1}
    alone_events = list(em.correct(job(source, tiny, paint, tmp_path / "alone", **free, **strong)))
    assert isinstance(alone_events[-1], Finished)
    alone: CorrectResult = alone_events[-1].result
    assert bounded.accuracy[0] == alone.accuracy[0] < 0.85
    for learned in (alone, bounded):
        assert learned.accuracy[1] > learned.accuracy[0] + 0.15 and learned.iou[1] > learned.iou[0] + 0.2
    before, after = bounded.source_iou
    assert before == alone.source_iou[0] == bounded.source_first > 0.5
    assert alone.source_iou[1] < before - 0.2 and alone.kept == 1, "the source is forgotten where nothing forbids it"
    assert after >= before - 0.05 and 0 < bounded.kept <= 1
    # the windows that the bound looks at stand for all that was held out
    columns = [held_out_iou(run, tiny, tmp_path / f"{i}.tif") for i, run in enumerate((source, bounded.run, alone.run))]
    assert columns[1] > columns[0] - 0.07 > columns[2]
    warnings = [e.text for e in alone_events if isinstance(e, Notice) and e.level == "warning"]
    assert any("no labelled source is replayed" in text for text in warnings)


@pytest.mark.parametrize("forget", [0.02, 0.05])
def test_rounds_together_forget_no_more_than_one(
    source: Path, tiny: Path, paint: Path, tmp_path: Path, forget: float
) -> None:
    run, first, previous = source, None, None
    for number in range(1, 4):
        strong = {"steps": 12, "learning_rate": 1e-2, "seed": number, "replay": 0, "forget": forget}
        config = job(run, tiny, paint, tmp_path / "rounds" / f"round-{number}", **strong)
        found: CorrectResult = em.run(em.correct(config))
        before, after = found.source_iou
        first = before if first is None else first
        assert found.source_first == first and after >= min(before, first - forget)
        assert previous is None or before == previous, "the same windows, round after round"
        run, previous = found.run, after


def test_a_round_that_ruins_the_network_keeps_nothing_and_says_so(
    source: Path, tiny: Path, paint: Path, tmp_path: Path
) -> None:
    events = list(em.correct(job(source, tiny, paint, tmp_path / "out", learning_rate=0.5, steps=3, replay=0)))
    found: CorrectResult = events[-1].result
    assert (found.kept, found.changed["all"]) == (0, 0) and found.source_iou[0] == found.source_iou[1]
    start, end = RunFolder.open(source).network().state_dict(), RunFolder.open(found.run).network().state_dict()
    assert all(torch.equal(start[name], end[name]) for name in start)
    trained = weights(found.run)
    assert any(not torch.equal(start[name], trained[name]) for name in start), "the last weights are the trained ones"
    assert any(e.text.startswith("Nothing was learned") for e in events if isinstance(e, Notice))


def test_a_round_is_a_run_and_says_what_it_changed(source: Path, tiny: Path, paint: Path, tmp_path: Path) -> None:
    config = job(source, tiny, paint, tmp_path / "one", view=(2, 16, 32, 96), learning_rate=1e-2, steps=8)
    found: CorrectResult = em.run(em.correct(config))
    assert (found.round, found.steps, found.painted) == (1, 8, 80 * 80 + 3 * 80)
    for run, name in ((source, "before"), (found.run, "after")):
        out = tmp_path / f"{name}.tif"
        em.run(em.segment(em.SegmentConfig(image=tiny / "B.tif", run=run, output=out, smooth_z=0, **MACHINE)))
    before, after = (Volume.open(tmp_path / f"{n}.tif").read()[2, 16:112, 32:128] for n in ("before", "after"))
    # the view is what segmenting each section of the volume for itself gives there, before and after
    np.testing.assert_array_equal(Volume.open(found.view_labels).read()[0], after)
    assert found.changed["all"] == pytest.approx((before != after).mean()) and found.changed["all"] > 0
    for value, name in ((1, "membrane"), (2, "mito")):
        assert found.changed[name] == pytest.approx(((before == value) != (after == value)).mean())


def test_batch_norm_statistics_stay(source: Path, tiny: Path, paint: Path, tmp_path: Path) -> None:
    em.run(em.correct(job(source, tiny, paint, tmp_path / "out")))
    start, end = RunFolder.open(source).network().state_dict(), weights(tmp_path / "out")
    running = [name for name in start if "running" in name or "num_batches" in name]
    assert running and all(torch.equal(start[name], end[name]) for name in running)
    assert any(not torch.equal(start[name], end[name]) for name in start)


def test_a_stopped_round_resumes_and_repeats_bit_for_bit(source: Path, tiny: Path, paint: Path, tmp_path: Path) -> None:
    whole: CorrectResult = em.run(em.correct(job(source, tiny, paint, tmp_path / "whole", steps=6)))
    stopped = em.correct(job(source, tiny, paint, tmp_path / "parts", steps=6))
    for event in stopped:
        if isinstance(event, Progress) and event.stage == "training" and event.done == 3:
            break
    stopped.close()
    resumed: CorrectResult = em.run(em.correct(job(source, tiny, paint, tmp_path / "parts", steps=6), resume=True))
    assert (resumed.steps, resumed.digest) == (6, whole.digest)
    again = em.run(em.replay(tmp_path / "whole", tmp_path / "again"))
    assert again.identical and weights(tmp_path / "again").keys() == weights(tmp_path / "whole").keys()


def test_the_clock_stops_a_round_that_can_be_used_and_repeated(
    source: Path, tiny: Path, paint: Path, tmp_path: Path
) -> None:
    events = list(em.correct(job(source, tiny, paint, tmp_path / "out", steps=None, seconds=0.01)))
    found: CorrectResult = events[-1].result
    assert found.steps == 1, "no time, but one step is always done"
    assert RunFolder.open(found.run).config().training.steps == 1
    assert all(e.unit == "seconds" for e in events if isinstance(e, Progress) and e.stage == "training")
    em.run(em.segment(em.SegmentConfig(image=tiny / "B.tif", run=found.run, output=tmp_path / "x.tif", **MACHINE)))
    assert em.run(em.replay(found.run, tmp_path / "again")).identical


def test_the_clock_leaves_no_step_that_would_end_too_late() -> None:
    times = iter([0.0, 2.0, 2.0, 4.0, 4.0, 6.0, 6.0, 8.0, 8.0])
    clock = Clock(7.0, lambda: next(times))
    assert [clock(step) for step in range(4)] == [False, False, False, True]  # 2 s a step: the fourth ends at 8
    never = Clock(None, lambda: 0.0)
    assert not any(never(step) for step in range(9))


def test_the_parts_add_up_to_the_whole() -> None:
    times = iter([3.0, 4.5, 5.0, 7.0])
    parts = Parts(1.0, lambda: next(times))
    assert [parts.note(name) for name in ("reading", "looking", "reading")] == [2.0, 1.5, 0.5]
    assert parts.seconds == {"reading": 2.5, "looking": 1.5} and parts.total == 6.0


def test_rounds_are_chained(source: Path, tiny: Path, paint: Path, tmp_path: Path) -> None:
    first: CorrectResult = em.run(em.correct(job(source, tiny, paint, tmp_path / "rounds" / "round-1")))
    labels = Volume.open(paint).read()
    old = labels[2, 40, 50]
    labels[2, 40, 50] = 1 if old != 1 else 2  # changed my mind
    labels[5, 10, 10:20] = 2  # new
    Volume.from_array(labels).save(tmp_path / "more.tif")
    assert next_round(first.run) == tmp_path / "rounds" / "round-2"
    config = job(first.run, tiny, tmp_path / "more.tif", tmp_path / "x").model_copy(update={"out": None})
    second: CorrectResult = em.run(em.correct(config))
    assert second.run == tmp_path / "rounds" / "round-2" and second.round == 2
    older, newer = read_rounds(second.run)
    assert (older.painted.voxels, newer.painted.voxels) == (first.painted - 1, 11)
    one, two = (RunFolder.open(run).config() for run in (first.run, second.run))
    base = RunFolder.open(source).config()
    assert one.training.learning_rate == two.training.learning_rate == pytest.approx(base.training.learning_rate / 3)
    assert one.source == two.source == base.source
    start = RunFolder.open(first.run).network().state_dict()
    assert (RunFolder.open(second.run).config().init, len(start)) == (first.run, len(weights(second.run)))


def test_unpainted_voxels_give_no_gradient() -> None:
    network = MODELS["unet"].create(1, 3, {"features": 4, "levels": 2})
    method = SPEC.create(Setup(network, segmentation_loss(LossConfig()), (16, 16), 4, 1e-3), {"keep": 0})
    image = torch.randn(2, 1, 16, 16)
    labels = torch.full((2, 16, 16), 255)
    ((_, losses),) = method.step({"corrections": Sample(image, labels)}, 0)
    sum(term.weight * term.value for term in losses.values()).backward()
    assert all(p.grad is None or not p.grad.any() for p in network.parameters())
    labels[0, 4, 5] = 2
    logits = torch.randn(2, 3, 16, 16, requires_grad=True)
    terms = method.loss(logits, labels, None)
    sum(term.weight * term.value for term in terms.values()).backward()
    touched = logits.grad.abs().sum(1) > 0
    assert touched.nonzero().tolist() == [[0, 4, 5]]


def test_the_start_is_kept_where_nothing_is_painted() -> None:
    logits, before = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    labels = torch.full((2, 4, 4), 255)
    labels[0] = 1
    p = np.exp(before.numpy()) / np.exp(before.numpy()).sum(1, keepdims=True)
    q = np.exp(logits.numpy()) / np.exp(logits.numpy()).sum(1, keepdims=True)
    assert kept(logits, before, labels).item() == pytest.approx(-(p * np.log(q)).sum(1)[1].mean(), rel=1e-5)
    assert kept(logits, before, torch.zeros(2, 4, 4)).item() == 0


def test_paint_is_sliced_as_the_array_it_stands_for(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    values = rng.choice([9, 3, 7, 0], (4, 30, 40), p=[0.97, 0.01, 0.01, 0.01]).astype(np.uint8)
    values[1] = 9
    painted = Painted.read(Volume.from_array(values), {"a": (3,), "b": (7,)}, 9)
    expected = np.select([values == 9, values == 3, values == 7], [255, 1, 2], 0).astype(np.uint8)
    painted.save(tmp_path / "paint.npz")
    loaded = Painted.load(tmp_path / "paint.npz")
    assert sorted(loaded.sections) == [0, 2, 3] and loaded.voxels == (values != 9).sum()
    for part in (painted, loaded):
        for _ in range(30):
            low = [int(rng.integers(0, n)) for n in values.shape]
            key = tuple(slice(a, int(rng.integers(a + 1, n + 1))) for a, n in zip(low, values.shape, strict=True))
            np.testing.assert_array_equal(part[key], expected[key])
            np.testing.assert_array_equal(part[low[0], key[1], key[2]], expected[low[0], key[1], key[2]])
    assert painted.groups(1) == [[0], [2, 3]] and painted.groups(2) == [[0, 2, 3]]
    inside = np.full(expected.shape, 255, np.uint8)
    region = painted.region([2, 3])
    inside[region] = expected[region]
    np.testing.assert_array_equal(inside[2:], expected[2:])


def test_newer_paint_wins_and_nothing_counts_twice() -> None:
    rng = np.random.default_rng(1)
    old, new = (rng.choice([1, 2, 255], (3, 9, 9), p=[0.2, 0.2, 0.6]).astype(np.uint8) for _ in range(2))
    classes = {"a": (1,), "b": (2,)}
    older, newer = (Painted.read(Volume.from_array(a), classes, 255) for a in (old, new))
    first, second = newer.after(older)
    everywhere = (slice(None),) * 3
    differs = (old != 255) & (new != 255) & (old != new)
    np.testing.assert_array_equal(first[everywhere], np.where(differs, 255, old))
    np.testing.assert_array_equal(second[everywhere], np.where(old == new, 255, new))


def test_changes_are_shares_of_the_view() -> None:
    before, after = np.array([[0, 1], [2, 2]], np.uint8), np.array([[0, 2], [2, 0]], np.uint8)
    assert changes(before, after, ["a", "b"]) == {"all": 0.5, "a": 0.25, "b": 0.5}


def test_errors_say_what_to_do(source: Path, tiny: Path, paint: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty.tif"
    Volume.from_array(np.full((6, 160, 160), 255, np.uint8)).save(empty)
    strange, wrong = tmp_path / "strange.tif", np.full((6, 160, 160), 255, np.uint8)
    wrong[3, 5, 5:8] = 1, 9, 7
    Volume.from_array(wrong).save(strange)
    small = tmp_path / "small.tif"
    Volume.from_array(np.zeros((6, 10, 10), np.uint8)).save(small)
    out = tmp_path / "out"
    for changed, error, message in (
        ({"corrections": empty}, DataError, "no painted voxel: all are 255"),
        ({"corrections": small}, DataError, r"shape \(6, 10, 10\)"),
        ({"corrections": strange}, DataError, "hold 7, 9 in section 3, which is no class of the run"),
        ({"ignore_label": 2}, ConfigError, "ignore_label 2 is the label of a class"),
        ({"run": tmp_path}, DataError, "no run folder"),
    ):
        with pytest.raises(error, match=message):
            em.run(em.correct(job(source, tiny, paint, out, **changed)))
        assert not out.exists()


def test_without_the_sources_files_only_corrections_are_learned(
    source: Path, tiny: Path, paint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("napari_em_da.workflows.correction_plan.at_hand", lambda _: ())
    events = list(em.correct(job(source, tiny, paint, tmp_path / "out")))
    found: CorrectResult = events[-1].result
    assert found.source_iou == (None, None) and found.accuracy[1] > 0 and found.kept == 1
    said = [e.text for e in events if isinstance(e, Notice) and e.level == "warning"]
    assert any("Nor can it be seen how much is forgotten. Put the source's files back" in text for text in said)
    assert not any(name.startswith("source/") for line in RunFolder(found.run).metrics() for name in line)
