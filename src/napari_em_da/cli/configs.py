"""From what a verb was given to the config of its workflow; nothing runs here, so a command can be read back as one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from napari_em_da.cli.app import app
from napari_em_da.cli.values import options, read_yaml
from napari_em_da.config import (
    AdaptConfig,
    CheckConfig,
    Config,
    CorrectConfig,
    EvaluateConfig,
    FinetuneConfig,
    ImageConfig,
    LabelledConfig,
    M,
    MeasureConfig,
    MethodConfig,
    NetworkConfig,
    PostprocessConfig,
    SegmentConfig,
    TrainConfig,
    TuneConfig,
    parse,
)
from napari_em_da.errors import ConfigError

Given = Mapping[str, Any]  # the arguments of a verb by name, defaults included


def read(tokens: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """Return the verb of a command line and its arguments, without running it.

    Raises
    ------
    CycloptsError, ConfigError
        Where the same command would end with wrong usage.
    """
    verb, bound, *_ = app.parse_args(list(tokens), exit_on_error=False, print_error=False)
    bound.apply_defaults()
    return verb.__name__, dict(bound.arguments)


def train(given: Given) -> TrainConfig:
    """Read ``config``, or put the options together."""
    if given["config"] is not None:
        return parse(TrainConfig, read_yaml(given["config"]))
    source = labelled(given["volumes"], given["voxel_nm"], given["label_fraction"])
    if given["run"] is None or not given["classes"]:
        raise ConfigError("Give --run FOLDER and --classes name=value (for example --classes mito=2).")
    weights = given["weights"]
    return TrainConfig(
        run=given["run"],
        source=source,
        classes=given["classes"],
        ignore_label=given["ignore_label"],
        init=given["init"],
        network=NetworkConfig(name=given["network"], options=options(given["network_option"])),
        method=MethodConfig(name=given["method"], options=options(given["method_option"])),
        weights=weights.model_copy(update={"params": {**weights.params, **options(given["weight_option"])}}),
        loss=given["loss"],
        augment=given["augment"],
        sampling=given["sampling"],
        training=given["training"],
    )


def labelled(
    volumes: Sequence[Path], voxel_nm: tuple[float, float, float] | None, fraction: float
) -> tuple[LabelledConfig, ...]:
    """Return the pairs of an image and its labels that were given."""
    if not volumes or len(volumes) % 2:
        raise ConfigError(f"{len(volumes)} volumes given; give IMAGE LABELS, or several such pairs.")
    pairs = zip(volumes[::2], volumes[1::2], strict=True)
    common = {"voxel_nm": voxel_nm, "fraction": fraction}
    return tuple(parse(LabelledConfig, {"image": image, "labels": labels, **common}) for image, labels in pairs)


def adapt(given: Given) -> AdaptConfig:
    """Read ``config``, or put the options together."""
    if given["config"] is not None:
        return parse(AdaptConfig, read_yaml(given["config"]))
    if given["run"] is None or not given["target"] or given["out"] is None:
        raise ConfigError("Give --run FOLDER, --target IMAGE and --out FOLDER.")
    return AdaptConfig(
        run=given["run"],
        target=tuple(ImageConfig(image=path, voxel_nm=given["voxel_nm"]) for path in given["target"]),
        out=given["out"],
        method=MethodConfig(name=given["method"], options=options(given["option"])),
        source_free=given["source_free"],
        augment=given["augment"],
        sampling=given["sampling"],
        training=given["training"],
    )


def finetune(given: Given) -> FinetuneConfig:
    """Read ``config``, or put the options together; an ``ignore_label`` that is not given is the run's."""
    if given["config"] is not None:
        return parse(FinetuneConfig, read_yaml(given["config"]))
    if given["run"] is None or given["out"] is None:
        raise ConfigError("Give --run FOLDER and --out FOLDER.")
    left = set() if given["ignore_label"] is not None else {"ignore_label"}
    source = labelled(given["volumes"], given["voxel_nm"], given["label_fraction"])
    return parse(FinetuneConfig, {**named(FinetuneConfig, given, left), "source": source})


def correct(given: Given) -> CorrectConfig:
    """Return the config whose fields the options are."""
    return parse(CorrectConfig, named(CorrectConfig, given))


def segment(given: Given) -> SegmentConfig:
    """Return the config whose fields the options are."""
    return parse(SegmentConfig, named(SegmentConfig, given))


def evaluate(given: Given) -> EvaluateConfig:
    """Return the config whose fields the options are."""
    return parse(EvaluateConfig, named(EvaluateConfig, given))


def postprocess(given: Given) -> PostprocessConfig:
    """Return the config; ``chain`` is the chain itself, read before."""
    return parse(PostprocessConfig, {**named(PostprocessConfig, given), "input": given["volume"]})


def tune(given: Given) -> TuneConfig:
    """Return the config; ``chain`` is the chain itself, read before."""
    return parse(TuneConfig, {**named(TuneConfig, given), "input": given["volume"]})


def check(given: Given) -> CheckConfig:
    """Return the config whose fields the options are."""
    return parse(CheckConfig, named(CheckConfig, given))


def measure(given: Given) -> MeasureConfig:
    """Return the config whose fields the options are."""
    return parse(MeasureConfig, named(MeasureConfig, given))


def named(model: type[M], given: Given, left: set[str] | frozenset[str] = frozenset()) -> dict[str, Any]:
    """Return what was given under the names of a model's fields, without those ``left`` open."""
    return {name: value for name, value in given.items() if name in model.model_fields and name not in left}


CONFIGS: dict[str, Callable[[Given], Config]] = {
    "check": check,
    "train": train,
    "adapt": adapt,
    "finetune": finetune,
    "correct": correct,
    "segment": segment,
    "evaluate": evaluate,
    "postprocess": postprocess,
    "tune": tune,
    "measure": measure,
}
