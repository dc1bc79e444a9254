"""The method that CONTRIBUTING.md shows is a real one: it joins the catalog as a file and trains."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path

import pytest
import torch

from napari_em_da import methods
from napari_em_da.config import LossConfig
from napari_em_da.losses import segmentation_loss
from napari_em_da.methods import METHODS
from napari_em_da.methods._base import Setup
from napari_em_da.models import MODELS
from napari_em_da.sampling import Sample

ROOT = Path(__file__).parents[1]
NAME = "soft_labels"


@pytest.fixture
def installed_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert f"methods/{NAME}.py" in text
    (code,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    (tmp_path / "methods").mkdir()
    (tmp_path / "methods" / f"{NAME}.py").write_text(code, encoding="utf-8")
    monkeypatch.setenv("NAPARI_EM_DA_EXTENSIONS", str(tmp_path))
    monkeypatch.setattr(methods, "__path__", list(methods.__path__))
    monkeypatch.setitem(sys.modules, f"napari_em_da.methods.{NAME}", None)  # so that it is forgotten afterwards
    monkeypatch.delitem(sys.modules, f"napari_em_da.methods.{NAME}")
    importlib.invalidate_caches()
    return NAME


def test_the_example_is_listed(installed_example: str) -> None:
    assert installed_example in METHODS
    assert METHODS.summary(installed_example).startswith("Entropy minimisation: ")


def test_the_example_trains(installed_example: str) -> None:
    torch_rng = torch.Generator().manual_seed(0)
    image = torch.randn(2, 1, 32, 32, generator=torch_rng)
    labels = (torch.rand(2, 32, 32, generator=torch_rng) > 0.5).long()
    network = MODELS["unet"].create(1, 2)
    setup = Setup(network=network, loss=segmentation_loss(LossConfig()), patch=(32, 32), steps=1, learning_rate=1e-3)
    method = METHODS[installed_example].create(setup, {"strength": 0.5})
    batch = {"source": Sample(image, labels), "target": Sample(image.flip(0))}
    ((player, losses),) = method.step(batch, 0)
    assert player == "network"
    value, weight = losses["entropy"]
    assert weight == 0.5
    assert 0 < value.item() <= torch.log(torch.tensor(2.0)) + 1e-6  # at most the entropy of a fair coin, in nats
    total = sum(term.weight * term.value for term in losses.values())
    total.backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in network.parameters())
