"""Copied scripts and commands: run by a real interpreter and a real shell, they mean the config they were made of."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import numpy as np
import pytest
import torch
from pydantic import BaseModel

import napari_em_da as em
from napari_em_da import config as configs
from napari_em_da.cli import configs as verbs
from napari_em_da.copying import CALLS, WeightMapConfig, as_command, as_python
from napari_em_da.errors import ConfigError

BASH = shutil.which("bash")
HERE = Path("/data/a folder")
IMAGE, LABELS = HERE / 'it\'s "é" $x.tif', HERE / "labels;#1.tif"
PAIR = em.LabelledConfig(image=IMAGE, labels=LABELS)
FINE = em.LabelledConfig(image=HERE / "b.tif", labels=HERE / "b-labels.tif", voxel_nm=(50, 4.6, 1 / 3), fraction=0.3)
CHAIN = em.ChainConfig(
    steps=({"name": "threshold", "options": {"value": 0.1 + 0.2}}, "components", {"remove_small": {"voxels": 30}})
)
TRICKY = {"a": [1, 2.0, None, True, "true", "1e3"], "b": {"c": {"d": "x: y, 'z'"}}, "e": "", "f": 1e-05, "g": (1, "é")}


def train(**more: Any) -> em.TrainConfig:
    return em.TrainConfig(**{"run": HERE / "run", "source": (PAIR,), "classes": {"mito": (2,)}, **more})


def adapt(**more: Any) -> em.AdaptConfig:
    target = (em.ImageConfig(image=IMAGE),)
    return em.AdaptConfig(**{"run": HERE / "run", "target": target, "out": HERE / "out", **more})


def finetune(**more: Any) -> em.FinetuneConfig:
    return em.FinetuneConfig(**{"run": HERE / "run", "source": (PAIR,), "out": HERE / "out", **more})


def evaluate(**more: Any) -> em.EvaluateConfig:
    return em.EvaluateConfig(prediction=IMAGE, labels=LABELS, **more)


def tune(**more: Any) -> em.TuneConfig:
    given = {"input": IMAGE, "labels": LABELS, "chain": CHAIN, "option": "threshold.value", "values": (0.1, 0.5)}
    return em.TuneConfig(**{**given, "output": HERE / "tuned.yaml", **more})


def weights(**more: Any) -> WeightMapConfig:
    return WeightMapConfig(**{"labels": LABELS, "kind": "entropy", "output": HERE / "w.tif", **more})


SMALLEST: dict[str, configs.Config] = {
    "check": em.CheckConfig(source=IMAGE, labels=LABELS),
    "train": train(),
    "adapt": adapt(),
    "finetune": finetune(),
    "segment": em.SegmentConfig(image=IMAGE, run=HERE / "run", output=HERE / "seg.tif"),
    "evaluate": evaluate(),
    "postprocess": em.PostprocessConfig(input=IMAGE, chain=CHAIN, output=HERE / "objects.tif"),
    "tune": tune(),
    "measure": em.MeasureConfig(labels=LABELS, output=HERE / "table.csv"),
    "correct": em.CorrectConfig(run=HERE / "run", image=IMAGE, corrections=LABELS),
    "weight_map": weights(),
}
CASES: list[tuple[str, configs.Config]] = [
    ("check", em.CheckConfig(target=IMAGE, truth=LABELS, target_voxel_nm=(50, 4.6, 4.6))),
    ("train", train(classes={"b": (3, 4), "a": (1,)}, ignore_label=-1, init=HERE / "earlier")),
    ("train", train(classes={"a, b=c": (1, 2), "é {x}": (3,)})),
    ("train", train(source=(FINE,))),
    ("train", train(source=(FINE, FINE))),
    ("train", train(source=(PAIR, FINE))),
    ("train", train(source=(), init=HERE / "earlier")),
    ("train", train(target=(em.ImageConfig(image=IMAGE),), method={"name": "adversarial", "options": TRICKY})),
    ("train", train(network={"name": "unet", "options": {"features": 4, "levels": 2}})),
    ("train", train(weights={"kind": "distance", "floor": 0.0, "scale": "max1", "params": {"mode": "inside_edt"}})),
    ("train", train(augment={"scale": (0.8, 1.25)})),  # set, though it is the default: it is not widened then
    ("train", train(augment={"flip": False, "scale": (1 / 3, 2 / 3), "elastic": 1e-7})),
    ("adapt", adapt(method={"name": "auto", "options": {"portfolio": [{"name": "x", "method": {"name": "adabn"}}]}})),
    ("adapt", adapt(method=em.MethodConfig(), source_free=True)),
    ("adapt", adapt(target=(em.ImageConfig(image=IMAGE, voxel_nm=(5, 5, 5)), em.ImageConfig(image=LABELS)))),
    ("adapt", adapt(training={"seed": 0, "steps": 7}, sampling={"batch": 8}, augment={"flip": True, "blur_px": 0})),
    ("finetune", finetune(source=(FINE,), classes={"mito": (1, 5)}, ignore_label=9)),
    ("finetune", finetune(ignore_label=None)),  # not the run's
    ("finetune", finetune(classes={"mito": (1,)}, ignore_label=None)),
    ("finetune", finetune(sampling={"pixel_nm": None})),  # not the run's
    ("finetune", finetune(training={"steps": 2000, "learning_rate": 1e-3})),
    ("evaluate", evaluate(metrics=("vi", "arand"), scoring={"subsets": {"a.b c": ("x", "y,z"), "d": ("x",)}})),
    ("evaluate", evaluate(classes={}, metrics=())),
    ("evaluate", evaluate(scoring={"overlaps": (0.5,), "thresholds": (0, 0.25, 1)})),
    ("tune", tune(values=(-1.0, 1e-9, 0.1 + 0.2), scoring={"parity": "elf"}, classes={"m": (1,)})),
    ("measure", em.MeasureConfig(labels=LABELS, output=HERE / "t.csv", columns=())),
    ("weight_map", weights(kind="distance", params={"mode": "inside_edt"}, floor=0, scale="none", overwrite=True)),
    ("weight_map", weights(ignore_label=0, params={"normalise": False})),
]


def others(model: BaseModel, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each optional field's place and a valid value that is not its default; sections field by field."""
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        if isinstance(value, BaseModel):
            yield from others(value, f"{prefix}{name}.")
        elif not field.is_required() and (other := other_value(f"{prefix}{name}", field.annotation, value)) is not None:
            yield f"{prefix}{name}", other


def other_value(place: str, annotation: Any, value: Any) -> Any:
    special = {
        "target": (em.ImageConfig(image=IMAGE),),
        "classes": {"mito": (1, 2), "er": (3,)},
        "view": (3, 0, 17, 64),
        "labelled": (0, 3),
        "scoring.subsets": {"both": ("a", "b")},
        "network.name": "unet3d",
        "method.name": "mmd",
    }
    if place in special and Path not in get_args(annotation):
        return special[place]
    kinds = [kind for kind in (annotation, *get_args(annotation)) if kind is not type(None)]
    choices = [text for kind in kinds if get_origin(kind) is Literal for text in get_args(kind) if text != value]
    if choices:
        return choices[-1]
    if isinstance(value, bool):
        return not value
    if isinstance(value, dict):
        return {"value": 3}
    if isinstance(value, tuple):
        return value[:2] if len(value) > 3 else (*value[:-1], value[-1] * 2)
    if isinstance(value, int | float):
        return type(value)(value * 0.5 + (0.125 if isinstance(value, float) else 3))
    if Path in kinds:
        return HERE / "another"
    if any("VoxelSize" in str(kind) or get_origin(kind) is tuple for kind in kinds):
        return ("volume", "surface") if place == "columns" else (50.0, 4.6, 4.6)
    return 2 if value is None and not set(kinds) & {str} else "cuda:1" if place.endswith("device") else "border"


def with_value(model: configs.Config, place: str, value: Any) -> configs.Config:
    """Return the config with one more field set, and nothing else set that was not."""
    section, _, name = place.rpartition(".")
    if section:
        part = getattr(model, section)
        name, value = section, type(part)(**{**set_in(part), name: value})
    return type(model)(**{**set_in(model), name: value})


def set_in(model: BaseModel) -> dict[str, Any]:
    return {name: getattr(model, name) for name in model.model_fields_set}


FIELDS = [
    pytest.param(call, with_value(model, place, value), id=f"{call}-{place}")
    for call, model in SMALLEST.items()
    for place, value in others(model)
]


def in_python(text: str, call: str) -> Any:
    """Run a script with a recorder in the place of the workflow, and return what it was called with."""
    seen: list[Any] = []
    name = {"postprocess": "run_chain"}.get(call, call)

    class Recorder:
        def __getattr__(self, attribute: str) -> Any:
            return getattr(em, attribute)

        def run(self, job: Any) -> str:
            assert job == "the job"
            return "the result"

    setattr(Recorder, name, lambda self, config: seen.append(config) or "the job")
    assert text.startswith("import napari_em_da as em\n")
    assert text.endswith(f"result = em.run(em.{name}(config))\nprint(result)\n")
    exec(text.removeprefix("import napari_em_da as em\n"), {"em": Recorder(), "print": seen.append})
    config, printed = seen
    assert printed == "the result"
    return config


def in_shell(text: str, call: str, folder: Path) -> Any:
    """Run a command in bash with a recorder in the place of the program; return the config that its words mean."""
    (folder / "bin").mkdir(exist_ok=True)
    program = folder / "bin" / "napari-em-da"
    program.write_text('#!/bin/sh\nprintf "%s\\0" "$@" > "$RECORD"\n')
    program.chmod(0o755)
    record = folder / "record"
    path = f"{program.parent}{os.pathsep}{os.environ['PATH']}"
    env = {"PATH": path, "RECORD": str(record)}
    done = subprocess.run([str(BASH), "-e"], input=text, text=True, encoding="utf-8", cwd=folder, env=env)
    assert done.returncode == 0
    words = record.read_text(encoding="utf-8").split("\0")[:-1]
    verb, given = verbs.read(words)
    assert verb == {"weight_map": "weights"}.get(call, call)
    if call == "weight_map":
        return given
    if call in {"postprocess", "tune"}:
        from napari_em_da.workflows.postprocess import read_chain

        given["chain"] = read_chain(given["chain"])
    return verbs.CONFIGS[call](given)


def moved(config: configs.Config, folder: Path) -> configs.Config:
    """Return the config with its files in a folder that exists, and the same fields set."""

    def place(value: Any) -> Any:
        if isinstance(value, BaseModel):
            return type(value).model_validate({name: place(getattr(value, name)) for name in value.model_fields_set})
        if isinstance(value, tuple):
            return tuple(place(item) for item in value)
        return folder / value.relative_to("/data") if isinstance(value, Path) else value

    moved_config: configs.Config = place(config)
    return moved_config


def dumped(config: Any) -> str:
    """All values, in their order; lists and tuples alike."""
    return repr(config.model_dump(mode="json"))


def set_fields(call: str, config: Any) -> dict[str, set[str]]:
    """What a job treats otherwise when it is set than when it is the default: it takes the rest from a run."""
    found = {name: set(getattr(config, name).model_fields_set) for name in ("augment", "sampling", "training")}
    if call == "adapt":
        found["training"] &= {"seed"}
    return found


@pytest.mark.parametrize(("call", "config"), [*SMALLEST.items(), *CASES, *FIELDS])
def test_both_texts_mean_the_config(call: str, config: configs.Config, tmp_path: Path) -> None:
    if BASH is None:
        pytest.skip("no bash")
    (tmp_path / "a folder").mkdir()
    config = moved(config, tmp_path)
    command = as_command(call, config)
    found = in_shell(command, call, tmp_path)
    if isinstance(config, WeightMapConfig):
        params = dict(word.split("=") for word in found.pop("option") or ())
        assert params == {name: str(value).lower() for name, value in config.params.items()}
        assert {name: found[name] for name in found if name != "as_json"} == config.model_dump(exclude={"params"})
        return
    assert dumped(found) == dumped(config)
    script = as_python(call, config)
    assert in_python(script, call) == config
    if call in {"adapt", "finetune"}:
        assert set_fields(call, found) == set_fields(call, in_python(script, call)) == set_fields(call, config)
    if call == "train":
        assert ("scale" in found.augment.model_fields_set) == ("scale" in config.augment.model_fields_set)
    if call == "finetune" and config.classes is None:
        assert ("ignore_label" in found.model_fields_set) == ("ignore_label" in config.model_fields_set)


def test_the_sweep_holds_every_option() -> None:
    """The generator of cases itself: another value for every optional field, for those of sections too."""
    places = {param.id for param in FIELDS}
    for call, model in SMALLEST.items():
        for name, field in type(model).model_fields.items():
            value = getattr(model, name)
            if isinstance(value, configs.Config):
                inner = type(value).model_fields
                missing = {f"{call}-{name}.{one}" for one, f in inner.items() if not f.is_required()} - places
            else:
                missing = set() if field.is_required() else {f"{call}-{name}"} - places
            assert not missing
    for param in FIELDS:
        call, config = param.values
        assert dumped(config) != dumped(SMALLEST[call]), param.id


def test_a_script_as_it_reads() -> None:
    config = train(source=(PAIR, FINE), training={"steps": 500}, network={"options": {"features": 4}})
    assert (
        as_python("train", config, HERE)
        == """\
import napari_em_da as em

config = em.TrainConfig(
    run="run",
    source=(
        em.LabelledConfig(image='it\\'s "é" $x.tif', labels="labels;#1.tif"),
        em.LabelledConfig(
            image="b.tif",
            labels="b-labels.tif",
            voxel_nm=(50.0, 4.6, 0.3333333333333333),
            fraction=0.3,
        ),
    ),
    classes={"mito": (2,)},
    network=em.NetworkConfig(options={"features": 4}),
    training=em.TrainingConfig(steps=500),
)
result = em.run(em.train(config))
print(result)
"""
    )


def test_commands_as_they_read() -> None:
    seg = em.SegmentConfig(image="em.tif", run="runs/mito", output="seg.tif", voxel_nm=(50, 4.6, 5))
    here = Path.cwd()
    line = "napari-em-da segment em.tif --run runs/mito --output seg.tif --voxel-nm 50,4.6,5"
    assert as_command("segment", seg, here) == line
    two = train(source=(PAIR, FINE), run="/x/run").model_copy(update={"init": None})
    assert as_command("train", two).startswith("mkdir -p /x && \\\ncat > /x/run.train.yaml <<'END'\nrun: /x/run\n")
    assert as_command("train", two).endswith("\nEND\nnapari-em-da train --config /x/run.train.yaml")
    chain = em.PostprocessConfig(input="p.tif", chain=em.ChainConfig(steps=("watershed",)), output="o.tif")
    assert as_command("postprocess", chain, here) == (
        "cat > o.tif.postprocess.yaml <<'END'\nsteps: [watershed]\nEND\n"
        "napari-em-da postprocess p.tif --chain o.tif.postprocess.yaml --output o.tif"
    )
    long = train(run="r", augment={"flip": False}, weights={"kind": "entropy", "params": {"normalise": False}})
    assert as_command("train", long, HERE).splitlines()[1:] == [
        f"    --run {here / 'r'} \\",
        "    --classes mito=2 \\",
        "    --weights.kind entropy \\",
        "    --weight-option normalise=false \\",
        "    --augment.no-flip",
    ]


def test_paths_are_absolute_or_below_the_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    seg = em.SegmentConfig(image="-x.tif", run="../run", output="~/seg.tif")
    home = Path.home() / "seg.tif"
    assert in_python(as_python("segment", seg), "segment") == em.SegmentConfig(
        image=tmp_path / "-x.tif", run=tmp_path.parent / "run", output=home
    )
    assert "segment ./-x.tif --run" in as_command("segment", seg, tmp_path).replace(" \\\n   ", "")
    strange = em.SegmentConfig(image=tmp_path / "~x" / "a.tif", run="r", output=home)
    found = in_python(as_python("segment", strange, tmp_path), "segment")
    assert (found.image, found.run) == (tmp_path / "~x" / "a.tif", Path("r"))


def test_a_line_like_the_end_of_the_document_does_not_end_it(tmp_path: Path) -> None:
    if BASH is None:
        pytest.skip("no bash")
    config = train(run=tmp_path / "run", source=(PAIR, FINE), method={"options": {"text": "a\nEND\nb", "END": None}})
    assert dumped(in_shell(as_command("train", config), "train", tmp_path)) == dumped(config)


def test_numpy_and_models_in_options_become_plain() -> None:
    options = {"a": np.float32(0.5), "b": np.int64(3), "c": [em.MethodConfig(name="mmd")], "d": Path("x")}
    config = adapt(method={"name": "mmd", "options": options})
    plain = {"a": 0.5, "b": 3, "c": [{"name": "mmd"}], "d": "x"}
    assert in_python(as_python("adapt", config), "adapt").method.options == plain
    assert "np." not in as_command("adapt", config)


def test_what_cannot_be_said_is_refused() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'train'"):
        as_python("trian", train())
    with pytest.raises(ConfigError, match="adapt takes a AdaptConfig, not a TrainConfig"):
        as_command("adapt", train())
    for write in (as_python, as_command):
        with pytest.raises(ConfigError, match="cannot be written"):
            write("train", train(method={"options": {"x": object()}}))
    with pytest.raises(ConfigError, match="give an output"):
        as_command("weight_map", weights(output=None))


def test_every_call_is_public() -> None:
    assert set(CALLS) == set(SMALLEST)
    assert {"postprocess": "run_chain"}.keys() | set(em.__all__) >= set(CALLS)


@pytest.mark.parametrize("module", ["napari_em_da.copying"])
def test_it_loads_neither_torch_nor_qt(module: str) -> None:
    code = f"import {module}, sys; print(*{{'torch', 'qtpy', 'napari', 'cyclopts'}} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "\n"


# ---- Whole jobs: the copied text runs in a process of its own and gives the same bytes as the workflow itself.


ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Compute here as in the programs that are started: sums depend on how many threads share them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def run_script(text: str, folder: Path) -> None:
    done = subprocess.run([sys.executable, "-c", text], cwd=folder, env=ONE_THREAD, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def run_command(text: str, folder: Path) -> None:
    (folder / "bin").mkdir(exist_ok=True)
    program = folder / "bin" / "napari-em-da"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m napari_em_da.cli "$@"\n')
    program.chmod(0o755)
    path = f"{program.parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [str(BASH), "-e"], input=text, cwd=folder, env={**ONE_THREAD, "PATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def content(path: Path) -> tuple[bytes, Any, Any]:
    """Every byte of a volume's voxels, its type and its scale: the header of an OME-TIFF has a UUID of its own."""
    volume = em.Volume.open(path)
    return volume.read().tobytes(), volume.dtype, volume.voxel_nm


@pytest.fixture(scope="module")
def small_run(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> em.TrainConfig:
    """A config that trains in seconds; two sources at two voxel sizes, so that its command needs YAML."""
    pair = {"image": tiny / "A.tif", "labels": tiny / "A-labels.tif"}
    return em.TrainConfig(
        run=tmp_path_factory.mktemp("copied") / "direct",
        source=(pair, {**pair, "voxel_nm": (8.5, 8, 8)}),
        classes={"mito": (2,)},
        network={"options": {"features": 4, "levels": 2}},
        sampling={"patch_px": (1, 32, 32), "batch": 2, "validation_patches": 2},
        training={"steps": 4, "validate_every": 2, "checkpoint_every": 2, "device": "cpu", "precision": "fp32"},
    )


def test_training_gives_the_same_weights(small_run: em.TrainConfig, one_thread: None) -> None:
    folder = small_run.run.parent
    em.run(em.train(small_run))
    expected = (small_run.run / "best.safetensors").read_bytes()
    script = small_run.model_copy(update={"run": folder / "by script"})
    run_script(as_python("train", script, folder), folder)
    assert (script.run / "best.safetensors").read_bytes() == expected
    if BASH is not None:
        command = small_run.model_copy(update={"run": folder / "by command"})
        run_command(as_command("train", command, folder), folder)
        assert (command.run / "best.safetensors").read_bytes() == expected
        one = command.model_copy(update={"run": folder / "by options", "source": small_run.source[:1]})
        text = as_command("train", one)
        assert "<<" not in text
        run_command(text, folder)
        em.run(em.train(one.model_copy(update={"run": folder / "one"})))
        assert (one.run / "best.safetensors").read_bytes() == (folder / "one" / "best.safetensors").read_bytes()


def test_segmenting_and_weight_maps_give_the_same_bytes(
    small_run: em.TrainConfig, tiny: Path, tmp_path: Path, one_thread: None
) -> None:
    if not small_run.run.exists():
        em.run(em.train(small_run))

    def seg(name: str) -> em.SegmentConfig:
        probs = tmp_path / f"{name}-probs.tif"
        run, image, output = small_run.run, tiny / "B.tif", tmp_path / f"{name}.tif"
        return em.SegmentConfig(image=image, run=run, output=output, probabilities=probs, tta=True, device="cpu")

    em.run(em.segment(seg("direct")))
    run_script(as_python("segment", seg("script"), tmp_path), tmp_path)
    names = ["script"]
    if BASH is not None:
        run_command(as_command("segment", seg("command"), tmp_path), tmp_path)
        names.append("command")
    for name in names:
        for kind in ("", "-probs"):
            assert content(tmp_path / f"{name}{kind}.tif") == content(tmp_path / f"direct{kind}.tif")

    made = WeightMapConfig(labels=tiny / "A-labels.tif", kind="entropy", output=tmp_path / "w.tif", floor=0.25)
    made = made.model_copy(update={"params": {"normalise": False}})
    run_script(as_python("weight_map", made, tmp_path), tmp_path)
    labels = em.Volume.open(made.labels)
    expected = em.weight_map(labels.read(), "entropy", floor=0.25, normalise=False)
    np.testing.assert_allclose(em.Volume.open(tmp_path / "w.tif").read(), expected, atol=1e-6)
    script = content(tmp_path / "w.tif")
    run_script(as_python("weight_map", made.model_copy(update={"output": None})), tmp_path)
    if BASH is not None:
        run_command(as_command("weight_map", made.model_copy(update={"overwrite": True})), tmp_path)
        assert content(tmp_path / "w.tif") == script


def test_a_round_of_corrections_gives_the_same_weights_and_view(
    small_run: em.TrainConfig, tiny: Path, tmp_path: Path, one_thread: None
) -> None:
    if not small_run.run.exists():
        em.run(em.train(small_run))
    truth = em.Volume.open(tiny / "B-labels.tif").read()
    paint = np.full(truth.shape, 255, np.uint8)
    paint[2, 20:60, 30:70] = truth[2, 20:60, 30:70] == 2
    em.Volume.from_array(paint * np.where(paint == 1, 2, 1).astype(np.uint8)).save(tmp_path / "paint.tif")

    def round_in(name: str) -> em.CorrectConfig:
        where = {"run": small_run.run, "image": tiny / "B.tif", "corrections": tmp_path / "paint.tif"}
        how = {"steps": 3, "view": (2, 10, 20, 64), "forget": 0.5, "voxel_nm": (30, 8, 8), "precision": "fp32"}
        return em.CorrectConfig(**where, **how, out=tmp_path / name, device="cpu")

    em.run(em.correct(round_in("direct")))
    run_script(as_python("correct", round_in("script"), tmp_path), tmp_path)
    names = ["script"]
    if BASH is not None:
        run_command(as_command("correct", round_in("command"), tmp_path), tmp_path)
        names.append("command")
    for name in names:
        for kept in ("best.safetensors", "last.safetensors"):
            assert (tmp_path / name / kept).read_bytes() == (tmp_path / "direct" / kept).read_bytes()
        assert content(tmp_path / name / "view.tif") == content(tmp_path / "direct" / "view.tif")


def printed(text: str, folder: Path, as_script: bool) -> str:
    """What the copied text prints."""
    if as_script:
        done = subprocess.run([sys.executable, "-c", text], cwd=folder, env=ONE_THREAD, capture_output=True, text=True)
    else:
        path = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
        env = {**ONE_THREAD, "PATH": path}
        words = [str(BASH), "-e"]
        done = subprocess.run(words, input=text + " --json", cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_an_adaptation_gives_the_same_weights(
    small_run: em.TrainConfig, tiny: Path, tmp_path: Path, one_thread: None
) -> None:
    if not small_run.run.exists():
        em.run(em.train(small_run))

    def adapted(name: str) -> em.AdaptConfig:
        target = (em.ImageConfig(image=tiny / "B.tif"),)
        training = {"steps": 4, "validate_every": 2, "checkpoint_every": 2, "device": "cpu", "precision": "fp32"}
        more = {"method": {"name": "adabn"}, "training": training, "sampling": {"selection_patches": 2}}
        return em.AdaptConfig(run=small_run.run, target=target, out=tmp_path / name, **more)

    em.run(em.adapt(adapted("direct")))
    run_script(as_python("adapt", adapted("script"), tmp_path), tmp_path)
    names = ["script"]
    if BASH is not None:
        run_command(as_command("adapt", adapted("command"), tmp_path), tmp_path)
        names.append("command")
    for name in names:
        for kept in ("best.safetensors", "last.safetensors"):
            assert (tmp_path / name / kept).read_bytes() == (tmp_path / "direct" / kept).read_bytes()
        chosen = (tmp_path / name / "choice.md").read_text(encoding="utf-8").replace(f"| {name} |", "| direct |")
        assert chosen == (tmp_path / "direct" / "choice.md").read_text(encoding="utf-8")


def test_a_check_says_the_same(tiny: Path, tmp_path: Path, one_thread: None) -> None:
    config = em.CheckConfig(source=tiny / "A.tif", labels=tiny / "A-labels.tif", target=tiny / "A.tif")
    expected = em.run(em.check(config))
    assert not expected.fits and "is the labelled image itself" in expected.findings[0].text
    assert printed(as_python("check", config, tmp_path), tmp_path, True) == f"{expected}\n"
    if BASH is not None:
        run_command(as_command("check", config, tmp_path), tmp_path)
        found = json.loads(printed(as_command("check", config, tmp_path), tmp_path, False))
        assert [item["text"] for item in found["findings"]] == [finding.text for finding in expected.findings]


def test_refining_measuring_and_scoring_give_the_same(tiny: Path, tmp_path: Path, one_thread: None) -> None:
    steps = em.ChainConfig(steps=("components", {"remove_small": {"min_size_nm3": 30000}}))
    mask = em.Volume.open(tiny / "A-labels.tif")
    ids = (mask.read() == 2).astype(np.uint8)
    em.Volume.from_array(ids, voxel_nm=mask.voxel_nm).save(tmp_path / "mask.tif")

    def refined(name: str) -> em.PostprocessConfig:
        return em.PostprocessConfig(input=tmp_path / "mask.tif", chain=steps, output=tmp_path / f"{name}.tif")

    def measured(name: str) -> em.MeasureConfig:
        return em.MeasureConfig(labels=tmp_path / "direct.tif", image=tiny / "A.tif", output=tmp_path / f"{name}.csv")

    em.run(em.run_chain(refined("direct")))
    em.run(em.measure(measured("direct")))
    scored = em.EvaluateConfig(prediction=tmp_path / "mask.tif", labels=tiny / "A-labels.tif", classes={"m": (1, 2)})
    expected = em.run(em.evaluate(scored))
    run_script(as_python("postprocess", refined("script"), tmp_path), tmp_path)
    run_script(as_python("measure", measured("script"), tmp_path), tmp_path)
    assert printed(as_python("evaluate", scored, tmp_path), tmp_path, True) == f"{expected}\n"
    names = ["script"]
    if BASH is not None:
        run_command(as_command("postprocess", refined("command"), tmp_path), tmp_path)
        run_command(as_command("measure", measured("command"), tmp_path), tmp_path)
        names.append("command")
        found = json.loads(printed(as_command("evaluate", scored, tmp_path), tmp_path, False))
        assert found["scores"] == pytest.approx(dict(expected.scores))
    for name in names:
        assert content(tmp_path / f"{name}.tif") == content(tmp_path / "direct.tif")
        assert (tmp_path / f"{name}.csv").read_bytes() == (tmp_path / "direct.csv").read_bytes()
