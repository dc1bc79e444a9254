"""Forms generated from the configs: what goes in comes out, and errors name the field."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("napari")
from napari_em_da import config
from napari_em_da._napari.form import Form, title
from napari_em_da.errors import ConfigError
from napari_em_da.weights import WEIGHTS

SECTIONS: list[Any] = [
    config.TrainingConfig(steps=123456, learning_rate=3.25e-5, seed=7),
    config.SamplingConfig(patch_px=(8, 96, 160), pixel_nm=4.75),
    config.AugmentConfig(scale=(0.5, 2.0), flip=False),
    config.LossConfig(overlap="none"),
    config.WeightConfig(kind="entropy", floor=0.05, params={"window": [1, 7, 7], "edge": "reflect"}),
    config.NetworkConfig(options={"features": 8, "norm": "none"}),
    *(WEIGHTS[name].options_type() for name in WEIGHTS),
]


@pytest.mark.parametrize("instance", SECTIONS, ids=lambda s: type(s).__name__)
def test_round_trip_of_every_section(qtbot: Any, instance: Any) -> None:
    """A form that nobody touched returns its model: no value is cut or rounded."""
    form = Form(instance)
    qtbot.addWidget(form)
    assert form.read() == instance
    assert set(form.editors) == set(type(instance).model_fields)


def test_values_are_typed_and_checked(qtbot: Any) -> None:
    form = Form(config.SamplingConfig(), only=("patch_px", "batch", "pixel_nm"))
    qtbot.addWidget(form)
    form.show()
    with qtbot.waitSignal(form.changed):
        form.editors["patch_px"].widget.setText("16, 64, 64")
    form.editors["pixel_nm"].widget.setText(" ")
    assert form.read(threads=3) == config.SamplingConfig(patch_px=(16, 64, 64), threads=3)
    form.editors["patch_px"].widget.setText("16, 0, [")
    with pytest.raises(ConfigError, match="patch_px"):
        form.read()
    assert form._message.is_error and "patch_px" in form._message.text() and form._message.isVisible()
    form.editors["patch_px"].widget.setText("1, 64, 64")
    assert not form._message.isVisible()


def test_bounds_choices_and_help(qtbot: Any) -> None:
    form = Form(config.SamplingConfig())
    qtbot.addWidget(form)
    threads = form.editors["threads"].widget
    assert (threads.minimum(), threads.maximum()) == (0, 64)
    assert threads.toolTip() == config.SamplingConfig.model_fields["threads"].description
    form = Form(config.TrainingConfig())
    qtbot.addWidget(form)
    schedule = form.editors["schedule"].widget
    assert [schedule.itemText(i) for i in range(schedule.count())] == ["onecycle", "cosine", "constant", "step", "warm"]


def test_titles() -> None:
    assert [title(n) for n in ("voxel_nm", "learning_rate", "w_0", "rotate_deg")] == [
        "Voxel (nm)", "Learning rate", "W 0", "Rotate (deg)",
    ]  # fmt: skip
