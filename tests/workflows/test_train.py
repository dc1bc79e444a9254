"""Training end to end on a tiny phantom: resume is bitwise, cancel is resumable, bad input stops before work."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from napari_em_da.config import (
    AdaptConfig,
    AdaptTrainingConfig,
    ImageConfig,
    LabelledConfig,
    LossConfig,
    MethodConfig,
    NetworkConfig,
    SamplingConfig,
    TrainConfig,
    TrainingConfig,
    WeightConfig,
)
from napari_em_da.errors import ConfigError, DataError, EmDaError, JobFailed, ResourceError
from napari_em_da.events import Event, Finished, Metric, Notice, Progress
from napari_em_da.jobs import run
from napari_em_da.training import checkpoint
from napari_em_da.training.folder import RunFolder
from napari_em_da.volume import Volume
from napari_em_da.workflows.adapt import adapt, expand
from napari_em_da.workflows.replay import replay
from napari_em_da.workflows.train import train

STEPS = 20


def config(folder: Path, run_folder: Path, **changes: Any) -> TrainConfig:
    base: dict[str, Any] = {
        "run": run_folder,
        "source": (LabelledConfig(image=folder / "A.tif", labels=folder / "A-labels.tif"),),
        "classes": {"mito": (2,)},
        "network": NetworkConfig(options={"features": 4, "levels": 2, "dropout": 0.1}),
        "sampling": SamplingConfig(patch_px=(1, 32, 32), batch=2, validation_patches=4),
        "training": TrainingConfig(steps=STEPS, validate_every=5, checkpoint_every=7, device="cpu", precision="fp32"),
    }
    return TrainConfig(**{**base, **changes})


def cancel_at(job: Any, step: int) -> list[Event]:
    seen = []
    for event in job:
        seen.append(event)
        if isinstance(event, Progress) and event.unit == "steps" and event.done == step:
            break
    job.close()
    return seen


@pytest.mark.parametrize("ema", [0.0, 0.9])
@pytest.mark.parametrize("threads", [0, 2])
def test_stop_and_resume_is_bitwise(tiny: Path, tmp_path: Path, ema: float, threads: int) -> None:
    training = TrainingConfig(
        steps=STEPS, validate_every=5, checkpoint_every=7, device="cpu", precision="fp32", ema=ema, seed=4
    )
    sampling = SamplingConfig(patch_px=(1, 32, 32), batch=2, validation_patches=4, threads=threads)
    whole = config(tiny, tmp_path / "whole", training=training, sampling=sampling)
    parts = whole.model_copy(update={"run": tmp_path / "parts"})
    first = run(train(whole))
    cancel_at(train(parts), 10)
    second = run(train(parts, resume=True))
    assert first.digest == second.digest
    assert (first.best_score, first.best_step) == (second.best_score, second.best_step)
    a, b = (RunFolder(p) for p in (tmp_path / "whole", tmp_path / "parts"))
    for name in ("best", "last"):
        x, _ = checkpoint.load(getattr(a, name))
        y, _ = checkpoint.load(getattr(b, name))
        assert x.keys() == y.keys()
        assert all(torch.equal(x[k], y[k]) for k in x)
    assert a.metrics() == b.metrics()


def test_caller_random_state_is_left_alone(tiny: Path, tmp_path: Path) -> None:
    torch.manual_seed(11)
    before = torch.get_rng_state()
    run(train(config(tiny, tmp_path / "run")))
    assert torch.equal(before, torch.get_rng_state())


def test_events_and_folder_tell_the_whole_story(tiny: Path, tmp_path: Path) -> None:
    events = list(train(config(tiny, tmp_path / "run")))
    assert isinstance(events[-1], Finished)
    steps = [e.done for e in events if isinstance(e, Progress) and e.unit == "steps"]
    assert steps == list(range(1, STEPS + 1))
    losses = [e for e in events if isinstance(e, Metric) and "cross_entropy" in e.values]
    assert len(losses) == STEPS
    folder = RunFolder.open(tmp_path / "run")
    info = folder.info()
    assert info["finished"]
    assert info["source"][0]["fingerprint"] == Volume.open(tiny / "A.tif").fingerprint
    assert info["pixel_nm"] == pytest.approx(8.0)
    assert folder.network().classes == 2
    assert folder.config().classes == {"mito": (2,)}


def test_replay_says_identical_and_notices_changed_data(tiny: Path, tmp_path: Path) -> None:
    run(train(config(tiny, tmp_path / "run")))
    result = run(replay(tmp_path / "run"))
    assert result.identical
    path = tmp_path / "run" / "config.yaml"
    path.write_text(path.read_text().replace("A.tif", "B.tif"))
    with pytest.raises(DataError, match="changed since the run"):
        run(replay(tmp_path / "run", tmp_path / "other"))


def test_not_finite_loss_names_step_and_remedy(tiny: Path, tmp_path: Path) -> None:
    wild = TrainingConfig(steps=50, learning_rate=1e30, clip_norm=0, optimiser="sgd", device="cpu", precision="fp32")
    with pytest.raises(JobFailed, match=r"at step \d+.*learning_rate"):
        run(train(config(tiny, tmp_path / "run", training=wild)))


def test_pixel_weights_reach_the_loss(tiny: Path, tmp_path: Path) -> None:
    none = run(train(config(tiny, tmp_path / "none")))
    weighted = run(train(config(tiny, tmp_path / "entropy", weights=WeightConfig(kind="entropy"))))
    assert none.digest != weighted.digest


def test_loss_terms_can_be_chosen(tiny: Path, tmp_path: Path) -> None:
    events = list(train(config(tiny, tmp_path / "run", loss=LossConfig(overlap="jaccard", cross_entropy=0.5))))
    first = next(e for e in events if isinstance(e, Metric))
    assert set(first.values) == {"cross_entropy", "jaccard"}


def adaptation(tiny: Path, source: Path, out: Path, **options: Any) -> AdaptConfig:
    return AdaptConfig(
        run=source,
        target=(ImageConfig(image=tiny / "B.tif"),),
        out=out,
        method=MethodConfig(name="adversarial", options=options),
        training=AdaptTrainingConfig(steps=8, validate_every=4, checkpoint_every=4, device="cpu", precision="fp32"),
    )


def test_adapt_takes_what_is_not_set_from_the_source_run(tiny: Path, tmp_path: Path) -> None:
    run(train(config(tiny, tmp_path / "source")))
    full = expand(
        adaptation(tiny, tmp_path / "source", tmp_path / "out").model_copy(update={"sampling": SamplingConfig(batch=3)})
    )
    assert (full.sampling.batch, full.sampling.patch_px) == (3, (1, 32, 32))
    assert full.network.options["features"] == 4
    assert full.init == tmp_path / "source"


@pytest.mark.parametrize("options", [{}, {"parity": True}, {"straight_through": True, "statistics": "shared"}])
def test_adapt_runs_resumes_bitwise_and_keeps_the_target_labels_out(
    tiny: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    run(train(config(tiny, tmp_path / "source")))
    first = run(adapt(adaptation(tiny, tmp_path / "source", tmp_path / "whole", **options)))
    parts = adaptation(tiny, tmp_path / "source", tmp_path / "parts", **options)
    cancel_at(adapt(parts), 3)
    second = run(adapt(parts, resume=True))
    assert first.digest == second.digest
    assert "labels" not in ImageConfig.model_fields
    assert RunFolder(tmp_path / "whole").best.is_file()


def test_target_of_another_pixel_size_sets_the_scale(tiny: Path, tmp_path: Path) -> None:
    run(train(config(tiny, tmp_path / "source")))
    job = adaptation(tiny, tmp_path / "source", tmp_path / "out")
    job = job.model_copy(update={"target": (ImageConfig(image=tiny / "B.tif", voxel_nm=(50.0, 4.0, 4.0)),)})
    events = list(adapt(job))
    assert any(isinstance(e, Notice) and "resampled to the target's 4 nm" in e.text for e in events)
    assert RunFolder(tmp_path / "out").info()["pixel_nm"] == pytest.approx(4.0)


def save(path: Path, array: np.ndarray) -> Path:
    return Volume.from_array(array, voxel_nm=(8, 8, 8)).save(path)


def test_bad_input_stops_before_work_with_the_remedy(tiny: Path, tmp_path: Path) -> None:
    labels = Volume.open(tiny / "A-labels.tif").read()
    image = Volume.open(tiny / "A.tif").read().astype(np.float32)
    holes = image.copy()
    holes[:, 3::4, 5::4] = np.nan
    a, good = tiny / "A.tif", tiny / "A-labels.tif"
    cases: list[tuple[dict[str, Any], type[EmDaError], str]] = [
        ({"labels": save(tmp_path / "short.tif", labels[:4])}, DataError, r"shape \(4, 160, 160\).*\(6, 160, 160\)"),
        (
            {"labels": save(tmp_path / "empty.tif", labels * 0)},
            DataError,
            r"'mito' \(label value 2\) does not occur.*\[0\]",
        ),
        ({"labels": save(tmp_path / "one.tif", labels * 0 + 2)}, DataError, "single class"),
        ({"labels": save(tmp_path / "float.tif", image)}, DataError, "float32.*integers"),
        ({"image": save(tmp_path / "nan.tif", holes)}, DataError, "NaN"),
        ({"image": save(tmp_path / "flat.tif", image * 0 + 5)}, DataError, "constant"),
        ({"image": tmp_path / "absent.tif"}, DataError, "does not exist"),
    ]
    for number, (change, kind, text) in enumerate(cases):
        source = LabelledConfig(**{"image": a, "labels": good, **change})
        with pytest.raises(kind, match=text):
            next(train(config(tiny, tmp_path / f"run{number}", source=(source,))))
        assert not (tmp_path / f"run{number}").exists()


def test_bad_options_stop_before_work_with_the_remedy(tiny: Path, tmp_path: Path) -> None:
    def sampling(**changes: Any) -> dict[str, Any]:
        return {"sampling": SamplingConfig(**{"patch_px": (1, 32, 32), "batch": 2, **changes})}

    def training(**changes: Any) -> dict[str, Any]:
        return {"training": TrainingConfig(**{"steps": 5, "device": "cpu", **changes})}

    cases: list[tuple[dict[str, Any], type[EmDaError], str]] = [
        (sampling(patch_px=(1, 30, 32)), ConfigError, "30.*28 or 32"),
        (sampling(patch_px=(4, 32, 32)), ConfigError, "2D network; use 1 for z"),
        (sampling(patch_px=(1, 4096, 4096), batch=4096), ResourceError, r"GB.*lower sampling.batch"),
        ({"network": NetworkConfig(name="unett")}, ConfigError, "Did you mean 'unet'"),
        ({"network": NetworkConfig(options={"featres": 4})}, ConfigError, "Did you mean 'features'"),
        ({"method": MethodConfig(name="adversrial")}, ConfigError, "Did you mean 'adversarial'"),
        ({"method": MethodConfig(name="adversarial")}, ConfigError, "give at least one target"),
        ({"classes": {"a": (2,), "b": (2,)}}, ConfigError, "Label value 2 is in two classes"),
        ({"classes": {"mito": (9,)}}, DataError, r"9\) does not occur"),
    ]
    if not torch.cuda.is_available():
        cases.append((training(device="cuda"), ResourceError, "cuda.*cpu"))
    for number, (change, kind, text) in enumerate(cases):
        with pytest.raises(kind, match=text):
            next(train(config(tiny, tmp_path / f"run{number}", **change)))
        assert not (tmp_path / f"run{number}").exists(), change


def test_full_or_unusable_places_stop_before_work(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("a file, not a folder")
    with pytest.raises(ConfigError, match="Cannot create the run folder"):
        next(train(config(tiny, tmp_path / "file" / "run")))
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(total=10, used=0, free=10))
    with pytest.raises(ResourceError, match="need about .* MB.* 0 MB free; free some space"):
        next(train(config(tiny, tmp_path / "run")))
    assert not (tmp_path / "run").exists()


def test_an_existing_run_folder_is_never_overwritten(tiny: Path, tmp_path: Path) -> None:
    job = config(tiny, tmp_path / "run")
    run(train(job))
    with pytest.raises(ConfigError, match="exists already.*resume"):
        next(train(job))
    other = job.model_copy(update={"classes": {"membrane": (1,)}})
    with pytest.raises(ConfigError, match="another 'classes'"):
        next(train(other, resume=True))


def test_metrics_are_json_lines(tiny: Path, tmp_path: Path) -> None:
    run(train(config(tiny, tmp_path / "run")))
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert all("step" in json.loads(line) for line in lines)
