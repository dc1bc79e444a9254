"""Presets, and the arithmetic of the time they take."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_em_da import run
from napari_em_da.config import AdaptConfig, AdaptTrainingConfig, TrainConfig, TrainingConfig, parse
from napari_em_da.errors import ConfigError
from napari_em_da.events import Preview
from napari_em_da.layers.presets import ADAPT_PRESETS, TRAIN_PRESETS, auto_options
from napari_em_da.workflows import speed
from napari_em_da.workflows.auto import AutoOptions
from napari_em_da.workflows.watching import Watch, indices, within


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "_KNOWN", {})


def config(**changes: Any) -> TrainConfig:
    values: dict[str, Any] = {
        "run": Path("run"),
        "source": ({"image": "a.tif", "labels": "b.tif"},),
        "classes": {"mito": (1,)},
        "network": {"options": {"features": 4, "levels": 2}},
        "sampling": {"patch_px": (1, 32, 32), "batch": 2, "validation_patches": 6, "selection_patches": 10},
        "training": {"steps": 100, "validate_every": 30, "device": "cpu", "precision": "fp32"},
    }
    return TrainConfig(**{**values, **changes})


class Clock:
    """A clock that passes a given time at each look, in turn."""

    def __init__(self, *passes: float) -> None:
        self.passes = list(passes)
        self.now = 0.0

    def __call__(self) -> float:
        self.now += self.passes.pop(0) if self.passes else 0.0
        return self.now


@pytest.mark.parametrize("presets", [TRAIN_PRESETS, ADAPT_PRESETS])
def test_presets_are_valid_and_grow(presets: Any) -> None:
    model = TrainingConfig if presets is TRAIN_PRESETS else AdaptTrainingConfig
    for method in ("supervised", "auto"):
        read = [parse(model, preset.values(method)) for preset in presets.values()]
        assert [r.steps for r in read] == sorted({r.steps for r in read})
        assert all(r.steps % r.validate_every == 0 for r in read)
    assert [ADAPT_PRESETS[name].values("auto")["steps"] for name in ADAPT_PRESETS] == [60, 240, 600]
    assert [TRAIN_PRESETS[name].network["unet"]["features"] for name in TRAIN_PRESETS] == [16, 16, 32]


def test_the_time_of_a_training() -> None:
    """100 steps, validated after 30, 60, 90 and 100, each on 6 windows."""
    seconds, validations = speed.total(config(), speed.Speed(0.5, 0.01, 9.0))
    assert validations == 4
    assert seconds == pytest.approx(100 * 0.5 + 4 * 6 * 0.01)
    alone = config(sampling={"patch_px": (1, 32, 32), "validation": 0})
    assert speed.total(alone, speed.Speed(0.5, 0.01))[0] == pytest.approx(50)


def test_the_time_of_an_adaptation() -> None:
    """Judged before the first step too; source windows twice, target windows twice and judged."""
    adapting = config(target=({"image": "c.tif"},), method={"name": "adversarial"})
    seconds, validations = speed.total(adapting, speed.Speed(0.5, 0.01, 0.2))
    assert validations == 5
    assert seconds == pytest.approx(50 + 5 * (2 * 6 + 2 * 10) * 0.01 + 5 * 10 * 0.2)


def test_the_median_step_is_taken_and_the_first_left_out() -> None:
    """Three steps of 0.1, 0.5 and 0.2 s; then a batch of two windows in 0.06 s."""
    clock = Clock(0, *(0, 0.1), 0, *(0, 0.5), 0, *(0, 0.2), *(0, 0.06))
    found = run(speed.estimate(config(), clock=clock))
    assert found.step_s == pytest.approx((100 * 0.2 + 4 * 6 * 0.03) / 100)
    assert found.seconds == pytest.approx(20.72) and found.steps == 100 and found.validations == 4
    assert str(found).startswith("About 20 seconds on this machine. CPU") and "fp32 as you set" in found.why


def test_slow_steps_are_measured_once() -> None:
    clock = Clock(0, *(0, 7.0), 0, *(0, 1.0))
    assert run(speed.estimate(config(), clock=clock)).seconds == pytest.approx(700 + 4 * 6 * 0.5)


def test_what_is_known_is_not_measured_again(monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[TrainConfig] = []

    def measure(job: TrainConfig, clock: Any) -> Iterator[Any]:
        counted.append(job)
        yield from ()
        return speed.Speed(1.0, 0.0)

    monkeypatch.setattr(speed, "measure", measure)
    longer = {"steps": 1000, "validate_every": 30, "device": "cpu", "precision": "fp32"}
    assert run(speed.estimate(config())).seconds == 100
    assert run(speed.estimate(config(training=longer))).seconds == 1000 and len(counted) == 1
    run(speed.estimate(config(network={"options": {"features": 8, "levels": 2}})))
    run(speed.estimate(config(sampling={"patch_px": (1, 64, 64), "batch": 2})))
    assert len(counted) == 3
    run(speed.estimate(config(), again=True))
    assert len(counted) == 4


def test_auto_is_the_sum_of_what_the_budget_lets_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from napari_em_da.training.folder import RunFolder

    for name in "ab":
        (tmp_path / f"{name}.tif").touch()
    folder = RunFolder.create(tmp_path / "run")
    source = {"image": tmp_path / "a.tif", "labels": tmp_path / "b.tif"}
    folder.write_config(config(run=tmp_path / "run", source=(source,)))

    def measure(job: TrainConfig, clock: Any) -> Iterator[Any]:
        yield from ()
        return speed.Speed(2.0 if job.method.name == "mean_teacher" else 1.0, 0.0, 0.0)

    monkeypatch.setattr(speed, "measure", measure)
    costs = [120 if e.method.name == "mean_teacher" else 60 for e in AutoOptions().portfolio]

    def auto(minutes: float | None) -> AdaptConfig:
        return AdaptConfig(
            run=folder.path,
            target=({"image": "c.tif"},),
            out=Path("out"),
            method={"name": "auto", "options": auto_options(minutes)},
            training={"steps": 60, "validate_every": 30, "device": "cpu", "precision": "fp32"},
        )

    assert run(speed.estimate(auto(None))).seconds == sum(costs)
    assert run(speed.estimate(auto(1.5))).seconds == costs[0] + costs[1], "the third would start too late"
    assert run(speed.estimate(auto(None))).steps == 60 * len(costs)


def test_the_real_measurement_runs() -> None:
    found = run(speed.estimate(config(target=({"image": "c.tif"},), method={"name": "adversarial"})))
    assert found.seconds > 0 and found.step_s > 0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(1, "10 seconds"), (44, "40 seconds"), (100, "2 minutes"), (3000, "50 minutes"), (7300, "2.0 hours")],
)
def test_durations_read_as_a_person_says_them(seconds: float, text: str) -> None:
    assert speed.duration(seconds) == text


def test_the_options_of_auto() -> None:
    found = parse(AutoOptions, auto_options(5, ("adabn", "coarse"), ("sizes",)))
    assert [entry.name for entry in found.portfolio] == ["adabn", "coarse"] and found.minutes == 5
    known = next(e for e in AutoOptions().portfolio if e.name == "coarse")
    assert found.portfolio[1].model_dump(mode="json") == known.model_dump(mode="json")
    assert auto_options() == {}
    with pytest.raises(ConfigError, match="Did you mean 'coarse'"):
        auto_options(entries=("coarze",))


def test_a_view_is_the_middle_of_what_is_seen() -> None:
    assert within((10, 100, 200), (slice(4, 5), slice(-5, 300), slice(50, 150)), 60) == (
        slice(4, 5),
        slice(20, 80),
        slice(70, 130),
    )
    assert within((10, 100, 200), (slice(10, 11), slice(0, 5), slice(0, 5)), 60) is None


def test_a_view_is_predicted_in_the_volumes_own_pixels() -> None:
    """A network that says whether a pixel is bright, at its own and at half the resolution."""
    import torch

    from napari_em_da.volume import Volume

    class Bright:
        ndim, margin_px = 2, (2, 2)

    def predict(image: torch.Tensor) -> torch.Tensor:
        inner = image[..., 2:-2, 2:-2]
        return torch.cat([-inner, inner], 1)

    data = np.full((3, 40, 60), 100, np.uint8)
    data[1, 8:24, 20:40] = 200
    data[1, 30:36, 4:12] = 200
    volume = Volume.from_array(data)
    bright: Any = Bright()
    region = (slice(1, 2), slice(4, 38), slice(2, 50))
    exact = (volume.intensity.standardise(data[1]) > 0)[4:38, 2:50]
    np.testing.assert_array_equal(indices(predict, bright, volume, region), exact)
    coarse = indices(predict, bright, volume, region, factor=0.5)
    assert coarse.shape == exact.shape and (coarse == exact).mean() > 0.9


def test_nothing_in_view_predicts_nothing() -> None:
    from types import SimpleNamespace

    nobody: Any = SimpleNamespace(target=(), source=())
    assert not [e for e in Watch(lambda: None)(nobody, nobody, lambda x: x, 1) if isinstance(e, Preview)]
