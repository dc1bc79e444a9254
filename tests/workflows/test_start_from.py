"""What a network takes over from another run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from napari_em_da.config import TrainConfig
from napari_em_da.errors import ConfigError
from napari_em_da.models import MODELS
from napari_em_da.training import checkpoint
from napari_em_da.training.folder import RunFolder
from napari_em_da.workflows.plan import start_from

OPTIONS = {"features": 4, "levels": 2}


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A run that knows mitochondria and vesicles, with weights that tell where they come from."""
    classes = {"mito": (2,), "vesicles": (5,)}
    network = MODELS["unet"].create(1, 3, OPTIONS)
    folder = RunFolder.create(tmp_path / "run")
    source = ({"image": tmp_path / "a.tif", "labels": tmp_path / "b.tif"},)
    folder.write_config(TrainConfig(run=folder.path, source=source, classes=classes, network={"options": OPTIONS}))
    folder.update_info({"network": {"name": "unet", "options": OPTIONS, "in_channels": 1, "classes": 3}})
    checkpoint.save(folder.best, checkpoint.prefixed("network", network.state_dict()), {"step": 1})
    return folder


def head(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items() if name.startswith("head.")}


def test_classes_of_the_same_name_keep_their_rows(run: RunFolder) -> None:
    network = MODELS["unet"].create(1, 4, OPTIONS)
    fresh, theirs = head(network), head(run.network())
    start_from(network, run, ["membrane", "vesicles", "mito"])
    for name, value in head(network).items():
        assert torch.equal(value[[0, 2, 3]], theirs[name][[0, 2, 1]])
        assert torch.equal(value[1], fresh[name][1])  # membranes are new
    others = {name: value for name, value in network.state_dict().items() if not name.startswith("head.")}
    assert all(torch.equal(value, run.network().state_dict()[name]) for name, value in others.items())


def test_without_a_common_class_the_head_is_new(run: RunFolder) -> None:
    network = MODELS["unet"].create(1, 2, OPTIONS)
    fresh = head(network)
    start_from(network, run, ["membrane"])
    start_from(network, run, ())  # as init_head: new asks for
    assert all(torch.equal(value, fresh[name]) for name, value in head(network).items())


def test_the_same_classes_take_all(run: RunFolder) -> None:
    network = MODELS["unet"].create(1, 3, OPTIONS)
    start_from(network, run, ["mito", "vesicles"])
    assert all(torch.equal(value, run.network().state_dict()[name]) for name, value in network.state_dict().items())


def test_another_network_is_refused(run: RunFolder) -> None:
    with pytest.raises(ConfigError, match="other layers"):
        start_from(MODELS["unet"].create(1, 3, {"features": 8, "levels": 2}), run, ["mito", "vesicles"])
