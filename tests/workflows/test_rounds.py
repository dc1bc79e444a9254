"""Pseudo-label rounds end to end: they help, they go on where they were stopped, and no label of the target is read."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import napari_em_da as em
from napari_em_da.config import (
    AdaptConfig,
    AdaptTrainingConfig,
    EvaluateConfig,
    MethodConfig,
    SamplingConfig,
    TrainConfig,
)
from napari_em_da.errors import ConfigError, DataError, JobFailed
from napari_em_da.events import Event, Metric, Notice, Progress
from napari_em_da.methods.pseudo_labels import PseudoLabelsOptions, accept, count_levels, thresholds_of
from napari_em_da.synthetic import DOMAINS, phantom
from napari_em_da.training.folder import RunFolder
from napari_em_da.volume import Volume
from napari_em_da.workflows import pseudo_labelling
from napari_em_da.workflows.adapt import adapt, expand
from napari_em_da.workflows.judging import read_records
from napari_em_da.workflows.pseudo_volumes import labels_path, read_manifest
from napari_em_da.workflows.replay import replay
from napari_em_da.workflows.rounds import learn, shared_out
from napari_em_da.workflows.train import train

SAMPLING = SamplingConfig(patch_px=(1, 32, 32), batch=2, validation_patches=2, selection_patches=4)
STEPS: dict[str, Any] = {"steps": 6, "validate_every": 2, "checkpoint_every": 1, "device": "cpu", "precision": "fp32"}

OPENED: list[str] = []
_watching: list[bool] = []


def _note(event: str, args: tuple[Any, ...]) -> None:
    if _watching and event == "open":
        OPENED.append(str(args[0]))


sys.addaudithook(_note)  # stays for good, but is silent outside of `watched`


@contextmanager
def watched() -> Iterator[list[str]]:
    """Collect the path of every file that this process opens, by whatever library."""
    OPENED.clear()
    _watching.append(True)
    try:
        yield OPENED
    finally:
        _watching.pop()


@pytest.fixture(scope="module")
def source(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("rounds") / "source"
    config = TrainConfig(
        run=run,
        source=({"image": tiny / "A.tif", "labels": tiny / "A-labels.tif"},),
        classes={"mito": (2,)},
        network={"options": {"features": 4, "levels": 2}},
        sampling=SAMPLING,
        training=em.TrainingConfig(**{**STEPS, "steps": 30, "validate_every": 10, "checkpoint_every": 30}),
    )
    em.run(em.train(config))
    return run


def job(source: Path, tiny: Path, out: Path, targets: tuple[str, ...] = ("B.tif",), **options: Any) -> AdaptConfig:
    return AdaptConfig(
        run=source,
        target=tuple({"image": tiny / name} for name in targets),
        out=out,
        method=MethodConfig(name="pseudo_labels", options=options),
        sampling=SAMPLING,
        training=AdaptTrainingConfig(**STEPS),
    )


def run_until(config: AdaptConfig, stop: Callable[[Event], bool]) -> None:
    running = adapt(config)
    assert any(stop(event) for event in running)
    running.close()


def contents(out: Path) -> dict[str, bytes]:
    """Return what a run has learned and made."""
    kept = [*out.rglob("*.safetensors"), *out.rglob("*.record.json"), *out.rglob("pseudo.json")]
    return {str(path.relative_to(out)): path.read_bytes() for path in kept}


@pytest.fixture(scope="module")
def whole(source: Path, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Event]]:
    """An uninterrupted adaptation, and its events."""
    out = tmp_path_factory.mktemp("whole") / "out"
    return out, list(adapt(job(source, tiny, out)))


def test_three_rounds_leave_an_ordinary_run(whole: tuple[Path, list[Event]], tiny: Path, tmp_path: Path) -> None:
    out, events = whole
    result = events[-1].result
    records = read_records(RunFolder(out))
    assert [r.step for r in records] == [0, 2, 4, 6]
    assert [r.name for r in records] == ["source_only", "out", "out", "out"]
    chosen = next(r for r in records if r.step == result.best_step)
    folder = RunFolder.open(out)
    assert folder.best.read_bytes() == chosen.weights.read_bytes()
    assert folder.info()["finished"] and folder.info()["result"]["steps"] == result.steps == 6
    steps = [e.done for e in events if isinstance(e, Progress) and e.unit == "steps"]
    assert steps == list(range(1, 7)) and all(e.total == 6 for e in events if getattr(e, "unit", "") == "steps")
    losses = [e.step for e in events if isinstance(e, Metric) and "pseudo_labels" in e.values]
    logged = [line["step"] for line in folder.metrics() if "pseudo_labels" in line]
    assert losses == logged == list(range(1, 7))
    texts = [e.text for e in events if isinstance(e, Notice)]
    assert sum("voxel size" in text for text in texts) == 2  # once, not in every round
    em.run(em.segment(em.SegmentConfig(image=tiny / "B.tif", run=out, output=tmp_path / "seg.tif")))
    assert set(np.unique(Volume.open(tmp_path / "seg.tif").read())) <= {0, 2}


def test_each_round_starts_from_the_one_before(whole: tuple[Path, list[Event]], source: Path) -> None:
    rounds = [RunFolder.open(whole[0] / "rounds" / str(n)) for n in (1, 2, 3)]
    assert [r.config().init for r in rounds] == [source, rounds[0].path, rounds[1].path]
    assert [r.config().training.steps for r in rounds] == [2, 2, 2]
    assert len({r.config().training.seed for r in rounds}) == 3
    befores = {(r.path / "candidates" / "before.npy").read_bytes() for r in rounds}
    assert len(befores) == 1  # all are compared with the source model
    for earlier, later in zip(rounds, rounds[1:], strict=False):
        first = read_records(later)[0]
        best = next(r for r in read_records(earlier) if r.weights.read_bytes() == first.weights.read_bytes())
        assert (first.step, first.name) == (0, "source_only")
        assert (first.scores, first.source_iou) == (best.scores, best.source_iou)


def probabilities(run: Path, image: Path, folder: Path) -> np.ndarray:
    out = {"output": folder / f"{image.stem}-s.tif", "probabilities": folder / f"{image.stem}-p.zarr"}
    em.run(em.segment(em.SegmentConfig(image=image, run=run, device="cpu", precision="fp32", smooth_z=0, **out)))
    return Volume.open(out["probabilities"]).read()


def test_pseudo_labels_are_those_of_the_whole_volume(
    whole: tuple[Path, list[Event]], source: Path, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    p = probabilities(source, tiny / "B.tif", tmp_path)
    prior = RunFolder.open(source).info()["prior"]
    levels = thresholds_of(count_levels(p), [0.6 * share for share in prior])
    expected = accept(p, PseudoLabelsOptions(), levels, continuity=True)
    found = Volume.open(labels_path(whole[0] / "rounds" / "1", 0))
    np.testing.assert_array_equal(found.read(), expected)
    assert found.voxel_nm == Volume.open(tiny / "B.tif").voxel_nm
    (made,) = read_manifest(whole[0] / "rounds" / "1") or ()
    assert made.counts == tuple(int((expected == c).sum()) for c in (0, 1)) and made.voxels == expected.size
    monkeypatch.setattr(pseudo_labelling, "SLAB_VOXELS", 1)  # section by section
    run_until(job(source, tiny, tmp_path / "out"), lambda e: isinstance(e, Metric))
    slabs = Volume.open(labels_path(tmp_path / "out" / "rounds" / "1", 0))
    np.testing.assert_array_equal(slabs.read(), expected)


@pytest.fixture
def two(tiny: Path, tmp_path: Path) -> Path:
    """Folder with B.tif, and one of its sections as one.tif."""
    image = Volume.open(tiny / "B.tif")
    image.save(tmp_path / "B.tif")
    Volume.from_array(image.read((slice(2, 3),)), voxel_nm=image.voxel_nm).save(tmp_path / "one.tif")
    return tmp_path


def test_several_volumes_share_thresholds_and_a_single_section_has_no_neighbour(source: Path, two: Path) -> None:
    config = job(source, two, two / "out", ("B.tif", "one.tif"), rounds=1)
    texts: list[str] = []

    def started(event: Event) -> bool:
        texts.append(event.text if isinstance(event, Notice) else "")
        return isinstance(event, Metric)

    run_until(config, started)
    assert any("one is a single section: nothing can be asked of an adjacent one" in text for text in texts)
    parts = [probabilities(source, two / name, two) for name in ("B.tif", "one.tif")]
    prior = RunFolder.open(source).info()["prior"]
    levels = thresholds_of(sum(count_levels(p) for p in parts), [0.6 * share for share in prior])
    for index, p in enumerate(parts):
        found = Volume.open(labels_path(two / "out" / "rounds" / "1", index)).read()
        np.testing.assert_array_equal(found, accept(p, PseudoLabelsOptions(), levels, continuity=index == 0))


def test_volumes_and_later_rounds_without_an_accepted_pixel_are_left_out(
    source: Path, two: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = []

    def strict(p: np.ndarray, *args: Any, **kwargs: Any) -> np.ndarray:
        return np.full(p.shape[:3], 255, np.uint8) if nothing or len(p) == 1 else accept(p, *args, **kwargs)

    monkeypatch.setattr(pseudo_labelling, "accept", strict)
    texts = []
    for event in adapt(job(source, two, two / "out", ("B.tif", "one.tif"))):
        if isinstance(event, Progress) and event.unit == "rounds" and event.done == 1:
            nothing.append(True)
        texts.append(event.text if isinstance(event, Notice) else "")
    assert any(text.startswith("Round 2 accepts 0.0%") for text in texts)
    assert event.result.steps == 2
    assert [r.step for r in read_records(RunFolder(two / "out"))] == [0, 2]
    assert RunFolder(two / "out").info()["finished"]


def in_round(number: int, stage: str, done: int) -> Callable[[Event], bool]:
    """Return what is true at the ``done``-th unit of a stage in a round."""
    at = [0]

    def reached(event: Event) -> bool:
        if isinstance(event, Progress) and event.unit == "rounds":
            at[0] = event.done + 1
        return isinstance(event, Progress) and at[0] == number and (event.stage, event.done) == (stage, done)

    return reached


@pytest.mark.parametrize(
    ("number", "stage", "done"),
    [(1, "training", 1), (2, "segment", 1), (2, "thresholds", 3), (2, "pseudo-labels", 6), (2, "training", 3)],
)
def test_a_stopped_adaptation_goes_on_to_the_same_weights(
    whole: tuple[Path, list[Event]], source: Path, tiny: Path, tmp_path: Path, number: int, stage: str, done: int
) -> None:
    config = job(source, tiny, tmp_path / "out")
    run_until(config, in_round(number, stage, done))
    if stage == "pseudo-labels":  # all of it is written, but it has not got its name yet
        home = tmp_path / "out" / "rounds" / "2" / "pseudo"
        assert (home / ".0.zarr.partial").is_dir() and not (home / "0.zarr").exists()
    first = list((tmp_path / "out" / "rounds" / "1").glob("*.safetensors")) if number > 1 else []
    times = [path.stat().st_mtime_ns for path in first]
    result = em.run(adapt(config, resume=True))
    assert result.digest == whole[1][-1].result.digest
    assert contents(tmp_path / "out") == contents(whole[0])
    assert times == [path.stat().st_mtime_ns for path in first]  # a finished round is kept
    assert not list((tmp_path / "out").rglob("*.working")) and not list((tmp_path / "out").rglob("*.partial"))


def test_a_cancelled_adaptation_can_be_used(source: Path, tiny: Path, tmp_path: Path) -> None:
    run_until(job(source, tiny, tmp_path / "out"), in_round(2, "training", 3))
    folder = RunFolder.open(tmp_path / "out")
    assert not folder.info()["finished"] and folder.network().classes == 2
    other = job(source, tiny, tmp_path / "out", accepted=0.5)
    with pytest.raises(ConfigError, match="started with another 'method'"):
        em.run(adapt(other, resume=True))


def test_no_label_of_the_target_is_opened(
    whole: tuple[Path, list[Event]], source: Path, tmp_path: Path, tiny: Path
) -> None:
    """Poison: unreadable labels beside the target are never touched, and change nothing."""
    (tmp_path / "B.tif").write_bytes((tiny / "B.tif").read_bytes())
    for name in ("B-labels.tif", "B_labels.tif", "labels.tif", "0.zarr"):
        (tmp_path / name).write_bytes(b"no labels")
    with watched() as opened:
        result = em.run(adapt(job(source, tmp_path, tmp_path / "out")))
    read = {Path(path).name for path in opened if Path(path).parent == tmp_path}
    assert read == {"B.tif"}
    assert any(str(tmp_path / "out") in path for path in opened)  # the watch works
    assert result.digest == whole[1][-1].result.digest


def test_training_alone_has_nothing_to_learn_from(source: Path, tiny: Path, tmp_path: Path) -> None:
    config = expand(job(source, tiny, tmp_path / "out"))
    with pytest.raises(
        ConfigError, match=r"in rounds, but .* no such pseudo-labels\. Run 'adapt --method pseudo_labels'"
    ):
        em.run(train(config))
    assert not (tmp_path / "out").exists()


def test_labels_that_a_round_did_not_make_are_refused(source: Path, tiny: Path, tmp_path: Path) -> None:
    config = job(source, tiny, tmp_path / "out")
    run_until(config, in_round(2, "training", 3))
    path = labels_path(tmp_path / "out" / "rounds" / "2", 0)
    import zarr

    zarr.open_array(str(path), mode="r+")[0] = 1
    with pytest.raises(DataError, match=r"0\.zarr was changed since a round"):
        em.run(adapt(config, resume=True))


def test_a_whole_adaptation_is_repeated_and_a_round_is_not(whole: tuple[Path, list[Event]], tmp_path: Path) -> None:
    assert em.run(replay(whole[0], tmp_path / "again")).identical
    with pytest.raises(DataError, match="one of several rounds"):
        em.run(replay(whole[0] / "rounds" / "2", tmp_path / "other"))


def test_nothing_accepted_ends_with_the_remedy(source: Path, tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(JobFailed, match=r"accepts 0\.0% of the target .*Lower tau"):
        em.run(adapt(job(source, tiny, tmp_path / "out", accepted=1e-9)))


def test_what_cannot_work_is_told_before_work(source: Path, tiny: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(ConfigError, match="6 steps cannot be shared out among 7 rounds"):
        em.run(adapt(job(source, tiny, out, rounds=7)))
    with pytest.raises(ConfigError, match="Did you mean 'rounds'"):
        em.run(adapt(job(source, tiny, out, round=2)))
    config = expand(job(source, tiny, out))
    with pytest.raises(ConfigError, match="needs a trained run"):
        em.run(learn(config.model_copy(update={"init": None})))
    with pytest.raises(ConfigError, match="finds mito, not membrane"):
        em.run(learn(config.model_copy(update={"classes": {"membrane": (1,)}})))
    assert not out.exists()
    assert shared_out(8, 3) == [3, 3, 2]


def test_auto_can_try_it(source: Path, tiny: Path, tmp_path: Path) -> None:
    config = job(source, tiny, tmp_path / "out")
    portfolio = [
        {"name": "statistics", "method": {"name": "adabn"}},
        {"name": "rounds", "method": {"name": "pseudo_labels", "options": {"rounds": 2}}},
    ]
    result = em.run(
        adapt(config.model_copy(update={"method": MethodConfig(name="auto", options={"portfolio": portfolio})}))
    )
    assert result.candidates == 1 + 3 + 4  # two rounds of 3 steps are each looked at twice
    assert json.loads((tmp_path / "out" / "run.json").read_text("utf-8"))["finished"]
    assert "rounds" in (tmp_path / "out" / "choice.md").read_text("utf-8")


def test_rounds_help_on_another_look(tmp_path: Path) -> None:
    look = DOMAINS["fibsem"].model_copy(update={"gamma": 1.5, "read": 0.075})
    for name, part in zip(
        "AB", (phantom((6, 160, 160), seed=6), phantom((6, 160, 160), seed=7, domain=look)), strict=True
    ):
        part.image.save(tmp_path / f"{name}.tif")
        part.labels.save(tmp_path / f"{name}-labels.tif")
    sampling = SamplingConfig(patch_px=(1, 64, 64), batch=4, validation_patches=4, selection_patches=8)
    steps = {"device": "cpu", "precision": "fp32"}
    em.run(
        em.train(
            TrainConfig(
                run=tmp_path / "source",
                source=({"image": tmp_path / "A.tif", "labels": tmp_path / "A-labels.tif"},),
                classes={"mito": (2,)},
                network={"options": {"features": 8, "levels": 2}},
                sampling=sampling,
                training=em.TrainingConfig(**steps, steps=150, validate_every=50),
            )
        )
    )
    training = AdaptTrainingConfig(**steps, steps=60, validate_every=20, learning_rate=3e-4)
    config = job(tmp_path / "source", tmp_path, tmp_path / "out")
    em.run(adapt(config.model_copy(update={"sampling": sampling, "training": training})))

    def iou(run: Path) -> float:
        out = tmp_path / f"{run.name}-B.tif"
        em.run(em.segment(em.SegmentConfig(image=tmp_path / "B.tif", run=run, output=out)))
        labels = EvaluateConfig(prediction=out, labels=tmp_path / "B-labels.tif", classes={"mito": (2,)})
        return float(em.run(em.evaluate(labels)).scores["iou"])

    assert iou(tmp_path / "out") >= iou(tmp_path / "source")
