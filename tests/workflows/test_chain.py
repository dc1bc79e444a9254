"""Chains on stored volumes: from files, in memory and block by block, tuned, from a run folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import napari_em_da as em
from napari_em_da import cli, layers
from napari_em_da.config import ChainConfig, PostprocessConfig, StepConfig, TuneConfig
from napari_em_da.errors import ConfigError, DataError
from napari_em_da.postprocess import Stack, apply_chain
from napari_em_da.volume import Volume
from napari_em_da.workflows.postprocess import chain_text, read_chain, write_chain
from napari_em_da.workflows.sidecar import write_sidecar
from napari_em_da.workflows.stacks import open_stack

NM = (20.0, 8.0, 8.0)
CHAIN = {"steps": ["threshold", {"remove_small": {"min_size_nm3": 40_000}}, "components"]}


def blobs(shape: tuple[int, int, int] = (6, 48, 64)) -> np.ndarray:
    """Probabilities of two large objects and specks between them."""
    p = np.full(shape, 0.1, np.float32)
    p[:, 6:20, 6:58] = 0.9
    p[1:, 28:44, 10:50] = 0.8
    p[2, 24, 30] = p[4, 3, 3] = 0.95
    return p


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    """A probability file as ``segment`` writes it: the class mito has the label value 7."""
    p = blobs()
    path = Volume.from_array(np.stack([1 - p, p], -1), voxel_nm=NM).save(tmp_path / "probs.tif")
    write_sidecar(path, {"mito": (7,)}, "probabilities")
    return path


def config(path: Path, **more: Any) -> PostprocessConfig:
    return PostprocessConfig(input=path, **{"output": path.with_name("out.tif"), "chain": ChainConfig(**CHAIN), **more})


def test_a_chain_makes_objects_of_probabilities(stored: Path) -> None:
    result = em.run(em.run_chain(config(stored)))
    assert result.holds == "instances"
    out = Volume.open(result.output)
    assert out.voxel_nm == pytest.approx(NM)
    ids = out.read()
    assert sorted(np.unique(ids)) == [0, 1, 2]
    assert (ids[:, 6:20, 6:58] == ids[0, 10, 10]).all()
    assert ids[2, 24, 30] == 0 and ids[4, 3, 3] == 0
    assert not list(stored.parent.glob(".*.working"))


def test_labels_come_out_with_the_values_of_the_training_labels(stored: Path) -> None:
    result = em.run(em.run_chain(config(stored, chain=ChainConfig(steps=("threshold",)))))
    assert set(np.unique(Volume.open(result.output).read())) == {0, 7}
    again, classes = open_stack(result.output)
    assert again.holds == "labels" and classes == {"mito": (7,)} and set(np.unique(again.data)) == {0, 1}
    scores = em.run(em.evaluate(em.EvaluateConfig(prediction=result.output, labels=result.output)))
    assert scores.scores["iou/mito"] == 1


def test_block_by_block_equals_in_memory(stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Volume.open(em.run(em.run_chain(config(stored))).output).read()
    monkeypatch.setattr("napari_em_da.workflows.stacks.BLOCK", (2, 16, 24))
    lazy = config(stored, in_memory_gib=0, output=stored.with_name("lazy.zarr"))
    blocks = Volume.open(em.run(em.run_chain(lazy)).output).read()
    table = np.unique(np.stack([whole.ravel(), blocks.ravel()]), axis=1)
    assert len(np.unique(table[0])) == len(np.unique(table[1])) == table.shape[1]  # equal but for the numbers


def test_python_layers_and_files_agree(stored: Path) -> None:
    filed = Volume.open(em.run(em.run_chain(config(stored))).output).read()
    p = blobs()
    stack = Stack(np.stack([1 - p, p], -1), "probabilities", NM, ("background", "mito"))
    np.testing.assert_array_equal(apply_chain(ChainConfig(**CHAIN), stack).data, filed)
    layer = (p, {"scale": NM, "units": "nm", "name": "p"}, "image")
    data, about, kind = layers.postprocess_layer({"mito": layer}, CHAIN["steps"])
    assert kind == "labels" and about["scale"] == NM
    np.testing.assert_array_equal(data, filed)


def test_chain_files_are_read_in_both_forms(tmp_path: Path) -> None:
    file = tmp_path / "chain.yaml"
    file.write_text("steps:\n- threshold\n- remove_small: {min_size_nm3: 9}\n- name: components\n  options: {}\n")
    chain = read_chain(file)
    assert chain.steps[1] == StepConfig(name="remove_small", options={"min_size_nm3": 9})
    write_chain(chain, file)
    assert read_chain(file) == chain and chain_text(chain)[0] == "threshold"
    file.write_text("- threshold\n")
    assert read_chain(file).steps == (StepConfig(name="threshold"),)


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        (["treshold"], "Did you mean 'threshold'"),
        ([{"threshold": {"levle": 1}}], "Did you mean 'level"),
        (["components"], "takes labels.*would be given probabilities"),
        (["threshold", "watershed_fusion"], "Step 2, watershed_fusion, takes probabilities"),
    ],
)
def test_a_chain_that_does_not_fit_fails_before_work(stored: Path, steps: list[Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        em.run(em.run_chain(config(stored, chain=ChainConfig(steps=tuple(steps)))))
    assert not stored.with_name("out.tif").exists()
    assert not list(stored.parent.glob(".*.working"))


def test_bad_input_is_named(stored: Path, tmp_path: Path) -> None:
    logits = Volume.from_array(blobs() * 9 - 4, voxel_nm=NM).save(tmp_path / "logits.tif")
    with pytest.raises(DataError, match="between 0 and 1"):
        em.run(em.run_chain(config(logits)))
    unknown = Volume.from_array(blobs()).save(tmp_path / "unknown.tif")
    with pytest.raises(ConfigError, match="voxel size is unknown"):
        em.run(em.run_chain(config(unknown)))
    stored.with_name("out.tif").write_bytes(b"")
    with pytest.raises(DataError, match="exists already"):
        em.run(em.run_chain(config(stored)))
    with pytest.raises(ConfigError, match=r"Labelled sections \[9\]"):
        em.run(em.run_chain(config(stored, labelled=(9,), output=tmp_path / "o.tif")))


def test_tuning_finds_the_value_that_scores_best(stored: Path, tmp_path: Path) -> None:
    truth = Volume.from_array(np.where(blobs() > 0.85, 7, 0).astype(np.uint8), voxel_nm=NM).save(tmp_path / "t.tif")
    job = TuneConfig(
        input=stored,
        labels=truth,
        chain=ChainConfig(steps=({"threshold": {"level": 0.5}},)),
        option="threshold.level",
        values=(0.05, 0.5, 0.85, 0.97),
        metric="iou",
        output=tmp_path / "tuned.yaml",
    )
    result = em.run(em.tune(job))
    assert result.value == 0.85 and result.score == 1
    assert result.curve[0.05] < result.curve[0.5] < 1 and result.curve[0.97] == 0
    assert read_chain(result.output).steps[0].options == {"level": 0.85}
    with pytest.raises(ConfigError, match=r"not step\.option"):
        em.run(em.tune(job.model_copy(update={"option": "level", "output": tmp_path / "x.yaml"})))


def test_the_command_line_tunes_and_takes_the_chain_of_a_run_folder(
    stored: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, chain = tmp_path / "run", tmp_path / "chain.yaml"
    run.mkdir()
    chain.write_text("steps:\n- threshold: {level: 0.5}\n")
    truth = Volume.from_array(np.where(blobs() > 0.85, 7, 0).astype(np.uint8), voxel_nm=NM).save(tmp_path / "t.tif")
    arguments = ["tune", stored, truth, "--chain", chain, "--option", "threshold.level", "--values", "0.25:0.85:0.3"]
    assert cli.main([str(a) for a in [*arguments, "--metric", "iou", "-o", run / "chain.yaml", "--json"]]) == 0
    assert json.loads(capsys.readouterr().out)["curve"].keys() == {"0.25", "0.55", "0.85"}
    out = tmp_path / "out.tif"
    assert cli.main([str(a) for a in ["postprocess", stored, "--run", run, "-o", out]]) == 0
    np.testing.assert_array_equal(Volume.open(out).read() == 7, blobs() > 0.85)
    assert cli.main([str(a) for a in ["postprocess", stored, "-o", tmp_path / "no.tif"]]) == 2
    assert "Give either --chain" in capsys.readouterr().err
