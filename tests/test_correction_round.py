"""The documented round of corrections works, and what it gains is on sections that nobody painted."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

import napari_em_da as em
from napari_em_da import layers

SCRIPT = Path(__file__).parents[1] / "docs" / "correction_round.py"


def test_a_round_without_a_window(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = importlib.util.spec_from_file_location("correction_round", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    fixed = {"steps": 40, "device": "cpu", "precision": "fp32", "learning_rate": 3e-3}
    scores = module.run(tmp_path, shape=(6, 128, 128), window=64, train=100, **fixed)
    assert scores["after"] > scores["before"] + 0.02
    assert capsys.readouterr().out.startswith("2 windows suggested: ")
    assert (tmp_path / "run" / "rounds" / "round-1" / "best.safetensors").is_file()


@pytest.mark.parametrize("flat", [False, True])
def test_suggestions_are_a_shapes_layer(flat: bool) -> None:
    probability = np.zeros((1 if flat else 3, 96, 128), np.float32)
    probability[-1, 20:50, 70:100] = 0.5
    data = probability[0] if flat else probability
    place = {"scale": (8.0, 8.0) if flat else (50.0, 8.0, 8.0), "units": ("nm",) * data.ndim}
    corners, about, kind = layers.suggest({"mito": (data, place, "image")}, window_px=(48, 48), count=1)
    assert kind == "shapes" and about["features"]["reason"] == ["uncertain between mito and background"]
    assert about["scale"] == place["scale"] and about["features"]["rank"] == [1]
    (z,), (y,), (x,) = (about["features"][n] for n in ("section", "y", "x"))
    plane = [(y, x), (y, x + 47), (y + 47, x + 47), (y + 47, x)]
    assert corners[0].tolist() == [list(p if flat else (z, *p)) for p in plane]
    assert z == len(probability) - 1 and y <= 35 < y + 48 and x <= 85 < x + 48
    napari_layers = pytest.importorskip("napari.layers")
    assert napari_layers.Shapes(corners, **about).nshapes == 1
    empty, about, _ = layers.suggest({"mito": (np.zeros_like(data), place, "image")})
    assert empty == [] and napari_layers.Shapes(empty, **about).ndim == data.ndim


def test_correct_is_a_verb(capsys: pytest.CaptureFixture[str]) -> None:
    from napari_em_da.cli.app import app
    from napari_em_da.cli.configs import CONFIGS, read

    verb, given = read(["correct", "a.tif", "p.tif", "--run", "r", "--view", "1", "2", "3", "64", "--steps", "5"])
    assert verb == "correct" and CONFIGS[verb](given) == em.CorrectConfig(
        run=Path("r"), image=Path("a.tif"), corrections=Path("p.tif"), view=(1, 2, 3, 64), steps=5
    )
    app("correct --help", result_action="return_value")
    assert "without forgetting the source" in " ".join(capsys.readouterr().out.split())
