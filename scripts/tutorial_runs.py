"""Jobs of the tutorial that have finished before: what the pages are given when they end."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any


def trained(run: Path) -> Any:
    """Return what a training that has finished in this folder gave."""
    return SimpleNamespace(run=run, **json.loads((run / "run.json").read_text(encoding="utf-8"))["result"])


def adapted(run: Path) -> Any:
    """Return what an ``auto`` that has finished in this folder gave."""
    from napari_em_da.layers import Adapted

    about = json.loads((run / "run.json").read_text(encoding="utf-8"))
    report = (run / "choice.md").read_text(encoding="utf-8")
    why = re.findall(r"^[^|\s].*$", report, re.MULTILINE)[0]
    chosen = f"{about['chosen']}, step {about['step']}"
    expected = about.get("expected")
    return Adapted(run, chosen, why, None, expected and tuple(expected), report, about["seconds"])


def keep(name: str, here: Path, there: Path) -> None:
    """Copy a segmentation and what lies beside it, its probabilities too."""
    for path in here.glob(f"{Path(name).stem}*"):
        (shutil.copytree if path.is_dir() else shutil.copy)(path, there / path.name)


def segmented(output: Path, target: Any, run: Path) -> Any:
    """Return what the Segment page is given for a volume that was segmented with this run."""
    import numpy as np

    from napari_em_da import Volume, layers
    from napari_em_da.workflows.segment import SegmentResult

    image, classes = layers.snapshot(target), layers.run_classes(run)
    labels = Volume.open(output).read()
    shares = {name: float(np.isin(labels, values[:1]).mean()) for name, values in classes.items()}
    seconds = float(output.with_name(f"{output.name}.seconds").read_text(encoding="utf-8"))
    scores = output.with_name(f"{output.stem}-probabilities.zarr")
    result = SegmentResult(output, scores, classes, shares, seconds)
    return result, image, layers.result_layers(result, image)
