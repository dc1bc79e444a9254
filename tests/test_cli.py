"""The command line as a user types it: whole jobs, exit codes, JSON, and entries that a laboratory adds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_em_da import cli
from napari_em_da.cli.output import flatten
from napari_em_da.volume import Volume

SMALL = [
    *("--network-option", "features=4", "--network-option", "levels=2"),
    *("--sampling.patch-px", "1", "32", "32", "--sampling.batch", "2", "--sampling.validation-patches", "2"),
    *("--training.steps", "6", "--training.validate-every", "3", "--training.checkpoint-every", "3"),
    *("--training.device", "cpu", "--training.precision", "fp32"),
]


def call(*arguments: Any) -> int:
    return cli.main([str(a) for a in arguments])


@pytest.fixture(scope="module")
def trained(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("cli") / "run"
    code = call("train", tiny / "A.tif", tiny / "A-labels.tif", "--classes", "mito=2", "--run", run, *SMALL)
    assert code == 0
    return run


def test_train_segment_evaluate(tiny: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seg, probs = tmp_path / "seg.tif", tmp_path / "probs.tif"
    assert call("segment", tiny / "B.tif", "--run", trained, "-o", seg, "--probabilities", probs, "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["classes"] == {"mito": [2]}
    labels, p = Volume.open(seg), Volume.open(probs)
    assert labels.shape == Volume.open(tiny / "B.tif").shape
    assert labels.voxel_nm == pytest.approx((8, 8, 8))
    assert set(np.unique(labels.read())) <= {0, 2}
    np.testing.assert_allclose(p.read().sum(-1), 1, atol=1e-4)
    np.testing.assert_array_equal(p.read().argmax(-1) == 1, labels.read() == 2)

    assert call("evaluate", seg, tiny / "B-labels.tif", "--overlay", tmp_path / "o.png", "--json") == 0
    scores = json.loads(capsys.readouterr().out)["scores"]
    truth, found = Volume.open(tiny / "B-labels.tif").read() == 2, labels.read() == 2
    assert scores["iou"] == pytest.approx((truth & found).sum() / (truth | found).sum())
    assert (tmp_path / "o.png").is_file()


def test_outputs_are_refused_before_work_unless_overwritten(tiny: Path, trained: Path, tmp_path: Path) -> None:
    seg = tmp_path / "seg.tif"
    seg.write_bytes(b"precious")
    assert call("segment", tiny / "B.tif", "--run", trained, "-o", seg) == 3
    assert seg.read_bytes() == b"precious"
    assert call("segment", tiny / "B.tif", "--run", trained, "-o", tmp_path / "no" / "seg.tif") == 3
    assert call("segment", tiny / "B.tif", "--run", trained, "-o", seg, "--overwrite") == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["seg.tif", "seg.tif.json"]


def test_segmenting_at_another_pixel_size_gives_the_volumes_own_grid(
    tiny: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seg = tmp_path / "seg.tif"
    assert call("segment", tiny / "B.tif", "--run", trained, "-o", seg, "--voxel-nm", "50,4,4") == 0
    assert "resampled to the run's 8 nm" in capsys.readouterr().err
    assert Volume.open(seg).shape == Volume.open(tiny / "B.tif").shape
    assert Volume.open(seg).voxel_nm == pytest.approx((50, 4, 4))


def test_adapt_and_replay(tiny: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "adapted"
    steps = ["--training.steps", "4", "--training.validate-every", "2", "--training.device", "cpu"]
    steps += ["--training.precision", "fp32"]
    options = ["--method", "adversarial", "--option", "lambda_adv=0.1"]
    assert call("adapt", "--run", trained, "--target", tiny / "B.tif", "--out", out, *options, *steps) == 0
    assert json.loads((out / "run.json").read_text())["finished"]
    capsys.readouterr()
    assert call("replay", out, "--out", tmp_path / "again", "--json") == 0
    assert json.loads(capsys.readouterr().out)["identical"] is True


def test_resume_from_the_command_line(tiny: Path, trained: Path) -> None:
    before = json.loads((trained / "run.json").read_text())["result"]["digest"]
    assert call("train", "--resume", trained) == 0
    assert json.loads((trained / "run.json").read_text())["result"]["digest"] == before


def test_weights(tiny: Path, tmp_path: Path) -> None:
    from napari_em_da.weights import weight_map

    out = tmp_path / "w.tif"
    command = ["weights", tiny / "A-labels.tif", "entropy", "-o", out, "--floor", "0", "--option", "normalise=false"]
    assert call(*command) == 0
    expected = weight_map(Volume.open(tiny / "A-labels.tif").read(), "entropy", floor=0, normalise=False)
    np.testing.assert_allclose(Volume.open(out).read(), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["train", "{A}", "--run", "r", "--classes", "mito=2"], 2, "1 volumes given"),
        (["train", "{A}", "{L}", "--classes", "mito"], 2, "not name=value"),
        (["train", "{A}", "{L}", "--classes", "mito=2", "--run", "{T}/r", "--voxel-nm", "5,5"], 2, "three numbers"),
        (
            ["train", "{A}", "{L}", "--classes", "mito=2", "--run", "{T}/r", "--training.steps", "0"],
            2,
            "greater than or",
        ),
        (["train", "{A}", "{T}/no.tif", "--classes", "mito=2", "--run", "{T}/r"], 3, "does not exist"),
        (["segment", "{A}", "--run", "{T}/none", "-o", "{T}/s.tif"], 3, "no run folder"),
        (["adapt", "--run", "{T}/none", "--target", "{A}", "--out", "{T}/o"], 3, "no run folder"),
        (["evaluate", "{A}", "{L}", "--metrics", "iuo"], 2, "iou"),
        (["evaluate", "{T}/text.tif", "{L}"], 3, "text.tif"),
        (["pipeline"], 2, "--template"),
    ],
)
def test_errors_have_their_exit_code_and_say_what_to_do(
    tiny: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], arguments: list[str], code: int, text: str
) -> None:
    (tmp_path / "text.tif").write_text("not a TIFF")
    fill = {"A": tiny / "A.tif", "L": tiny / "A-labels.tif", "T": tmp_path}
    assert call(*(a.format(**fill) for a in arguments)) == code
    out, err = capfd.readouterr()
    assert text in out + err
    assert "Traceback" not in out + err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["text.tif"]


def test_adapt_help_lists_the_methods(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("adapt", "--help") == 0
    assert "adversarial" in capsys.readouterr().out


TOY_METHOD = '''
"""Toy method: the segmentation loss twice."""
from napari_em_da.config import Options
from napari_em_da.methods._base import Method, MethodSpec, Term

class ToyOptions(Options):
    twice: float = 2.0

class Toy(Method):
    def __init__(self, setup, options):
        super().__init__(setup)
        self.factor = options.twice

    def step(self, batch, step):
        source, target = batch["source"], batch["target"]
        terms = self.loss(self.network(source.image), source.annotation, source.weights)
        quiet = self.network(target.image).float().softmax(1).var()
        twice = {k: Term(t.value, self.factor * t.weight) for k, t in terms.items()}
        yield "network", twice | {"quiet": Term(quiet, 0.1)}

METHOD = MethodSpec(Toy, ToyOptions, streams=("source", "target"))
'''
TOY_NETWORK = '''
"""Toy network: three convolutions."""
from torch import nn
from napari_em_da.config import Options
from napari_em_da.models._base import ModelSpec, SegmentationNet

class ToyOptions(Options):
    width: int = 4

class ToyNet(SegmentationNet):
    divisor, halo_px, margin_px = (1, 1), (2, 2), (0, 0)

    def __init__(self, in_channels, classes, options):
        super().__init__()
        self.in_channels, self.classes = in_channels, classes
        self.body = nn.Sequential(nn.Conv2d(in_channels, options.width, 3, padding=1), nn.ReLU(),
                                  nn.Conv2d(options.width, options.width, 3, padding=1), nn.ReLU())
        self.head = nn.Conv2d(options.width, classes, 1)

    def forward_taps(self, image):
        features = self.body(image)
        return self.head(features), {"dec0": features}

MODEL = ModelSpec(ToyNet, ToyOptions)
'''


def test_one_new_file_each_adds_a_method_and_a_network(tiny: Path, tmp_path: Path) -> None:
    """A laboratory's own files train, adapt, save, load and appear in the choices without another edit."""
    for folder, name, text in (("methods", "toy_method", TOY_METHOD), ("models", "toy_network", TOY_NETWORK)):
        (tmp_path / "lab" / folder).mkdir(parents=True)
        (tmp_path / "lab" / folder / f"{name}.py").write_text(text)
    environment = {**os.environ, "NAPARI_EM_DA_EXTENSIONS": str(tmp_path / "lab")}

    def shell(*arguments: Any) -> str:
        command = [sys.executable, "-m", "napari_em_da.cli", *map(str, arguments)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert "toy_method" in shell("adapt", "--help")
    assert "toy_network" in shell("train", "--help")
    small = [*SMALL[4:], "--network", "toy_network", "--network-option", "width=3"]
    shell("train", tiny / "A.tif", tiny / "A-labels.tif", "--classes", "mito=2", "--run", tmp_path / "run", *small)
    out = ["--out", tmp_path / "out", "--training.steps", "3", "--training.device", "cpu"]
    shell("adapt", "--run", tmp_path / "run", "--target", tiny / "B.tif", "--method", "toy_method", *out)
    shell("segment", tiny / "B.tif", "--run", tmp_path / "out", "-o", tmp_path / "seg.tif")
    assert Volume.open(tmp_path / "seg.tif").shape == (6, 160, 160)


def test_results_in_lists_are_printed_one_by_one() -> None:
    found = flatten({"fits": True, "findings": [{"text": "one"}, {"text": "two"}], "shape": (3, 4)})
    assert found == {"fits": True, "findings.1.text": "one", "findings.2.text": "two", "shape": (3, 4)}
