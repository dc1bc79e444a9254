"""Domain-adaptive segmentation of electron microscopy volumes: scripts, command line and napari."""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

# OpenMP threads that spin while they wait slow training up to tenfold as soon as something else wants a core, a viewer
# for example; sleeping ones cost about a tenth. It counts only where torch is not loaded yet.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

if TYPE_CHECKING:
    from napari_em_da.config import (
        AdaptConfig,
        AdaptTrainingConfig,
        AugmentConfig,
        ChainConfig,
        CheckConfig,
        CorrectConfig,
        EvaluateConfig,
        FinetuneConfig,
        ImageConfig,
        LabelledConfig,
        LossConfig,
        MeasureConfig,
        MethodConfig,
        NetworkConfig,
        PostprocessConfig,
        SamplingConfig,
        ScoringConfig,
        SegmentConfig,
        StepConfig,
        TrainConfig,
        TrainingConfig,
        TuneConfig,
        WeightConfig,
    )
    from napari_em_da.errors import ConfigError, DataError, EmDaError, JobFailed, ResourceError
    from napari_em_da.events import Finished, Metric, Notice, Preview, Progress, Saved
    from napari_em_da.jobs import run
    from napari_em_da.metrics import evaluate_arrays
    from napari_em_da.postprocess import Stack, apply_chain
    from napari_em_da.sample import flyem_sample
    from napari_em_da.synthetic import phantom
    from napari_em_da.volume import Volume
    from napari_em_da.weights import weight_map
    from napari_em_da.workflows import (
        adapt,
        check,
        correct,
        evaluate,
        finetune,
        measure,
        pipeline,
        replay,
        run_chain,
        segment,
        train,
        tune,
    )

    __version__: str

_PUBLIC = {
    "config": (
        "AdaptConfig AdaptTrainingConfig AugmentConfig ChainConfig CheckConfig CorrectConfig EvaluateConfig "
        "FinetuneConfig ImageConfig LabelledConfig LossConfig MeasureConfig MethodConfig NetworkConfig "
        "PostprocessConfig SamplingConfig ScoringConfig SegmentConfig StepConfig TrainConfig TrainingConfig TuneConfig "
        "WeightConfig"
    ),
    "errors": "ConfigError DataError EmDaError JobFailed ResourceError",
    "events": "Finished Metric Notice Preview Progress Saved",
    "jobs": "run",
    "metrics": "evaluate_arrays",
    "postprocess": "Stack apply_chain",
    "sample": "flyem_sample",
    "synthetic": "phantom",
    "volume": "Volume",
    "weights": "weight_map",
    "workflows": "adapt check correct evaluate finetune measure pipeline replay run_chain segment train tune",
}
_HOME = {name: module for module, names in _PUBLIC.items() for name in names.split()}

__all__ = [
    "AdaptConfig",
    "AdaptTrainingConfig",
    "AugmentConfig",
    "ChainConfig",
    "CheckConfig",
    "ConfigError",
    "CorrectConfig",
    "DataError",
    "EmDaError",
    "EvaluateConfig",
    "FinetuneConfig",
    "Finished",
    "ImageConfig",
    "JobFailed",
    "LabelledConfig",
    "LossConfig",
    "MeasureConfig",
    "MethodConfig",
    "Metric",
    "NetworkConfig",
    "Notice",
    "PostprocessConfig",
    "Preview",
    "Progress",
    "ResourceError",
    "SamplingConfig",
    "Saved",
    "ScoringConfig",
    "SegmentConfig",
    "Stack",
    "StepConfig",
    "TrainConfig",
    "TrainingConfig",
    "TuneConfig",
    "Volume",
    "WeightConfig",
    "__version__",
    "adapt",
    "apply_chain",
    "check",
    "correct",
    "evaluate",
    "evaluate_arrays",
    "finetune",
    "flyem_sample",
    "measure",
    "phantom",
    "pipeline",
    "replay",
    "run",
    "run_chain",
    "segment",
    "train",
    "tune",
    "weight_map",
]


def __getattr__(name: str) -> Any:
    """Load a public name on first use, so that importing the package loads neither torch, Qt nor napari (PEP 562)."""
    if name == "__version__":
        value: Any = _version()
    elif name in _HOME:
        value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value  # the next use is a plain look-up
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("napari-em-da")
    except PackageNotFoundError:  # run from a source tree that was never installed
        return "0+unknown"
