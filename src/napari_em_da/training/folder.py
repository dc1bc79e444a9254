"""A run folder: the config, what it ran on, its metrics, checkpoints and previews."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from napari_em_da.config import TrainConfig, parse
from napari_em_da.errors import ConfigError, DataError
from napari_em_da.events import Preview
from napari_em_da.models import MODELS
from napari_em_da.models._base import SegmentationNet
from napari_em_da.training import checkpoint


@dataclass(frozen=True)
class RunFolder:
    """Paths and files of one run.

    ``config.yaml`` is the exact TrainConfig, ``run.json`` what the run found out (versions, fingerprints, network,
    pixel size, result), ``metrics.jsonl`` one line per step, ``best`` and ``last`` the checkpoints.
    """

    path: Path

    @classmethod
    def create(cls, path: Path) -> RunFolder:
        """Make a new run folder.

        Raises
        ------
        ConfigError
            If the folder exists and is not empty, or cannot be written.
        """
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise ConfigError(f"{path} exists already; choose another run folder, or continue it with resume.")
        try:
            path.mkdir(parents=True, exist_ok=True)
            (path / "previews").mkdir()
        except OSError as error:
            raise ConfigError(
                f"Cannot create the run folder {path}: {error.strerror}. Choose one you may write to."
            ) from None
        return cls(path)

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """Open an existing run folder; a DataError says what is missing."""
        if not (path / "config.yaml").is_file():
            raise DataError(f"{path} is no run folder: it has no config.yaml. Give the folder that 'train' made.")
        return cls(path)

    @property
    def best(self) -> Path:
        return self.path / "best.safetensors"

    @property
    def last(self) -> Path:
        return self.path / "last.safetensors"

    @property
    def metrics_path(self) -> Path:
        return self.path / "metrics.jsonl"

    def write_config(self, config: TrainConfig) -> None:
        """Save the config with absolute paths, so that the run can be repeated from any folder."""
        data = config.model_dump(mode="json")
        checkpoint.write_text(self.path / "config.yaml", yaml.safe_dump(data, sort_keys=False))

    def config(self) -> TrainConfig:
        """Read the config back; one that is damaged, or that this version does not know, is a DataError."""
        path = self.path / "config.yaml"
        try:
            return parse(TrainConfig, yaml.safe_load(path.read_text(encoding="utf-8")) or {})
        except (ConfigError, ValueError, yaml.YAMLError) as error:
            raise DataError(
                f"{path} is damaged, or was made by another version of this package: {error}. Mend the file, use that "
                "version, or make the run again in a new folder; nothing was changed."
            ) from error

    def info(self) -> dict[str, Any]:
        """Read ``run.json``."""
        path = self.path / "run.json"
        if not path.is_file():
            raise DataError(f"{self.path} has no run.json: the run stopped before it began. Train it again.")
        try:
            found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise DataError(f"{path} is damaged: {error}. Put back a copy of it, or train the run again.") from None
        return found

    def update_info(self, values: Mapping[str, Any]) -> None:
        """Merge ``values`` into ``run.json``."""
        path = self.path / "run.json"
        old = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        checkpoint.write_text(path, json.dumps({**old, **values}, indent=2, default=str) + "\n")

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Append one line of metrics."""
        line = json.dumps({"step": step, **{k: round(float(v), 7) for k, v in values.items()}})
        with self.metrics_path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def metrics(self) -> list[dict[str, float]]:
        """Return all logged lines; a line cut short by a crash is skipped."""
        if not self.metrics_path.is_file():
            return []
        lines = []
        for line in self.metrics_path.read_text(encoding="utf-8").splitlines():
            try:
                lines.append(json.loads(line))
            except json.JSONDecodeError:
                continue
        return lines

    def forget_after(self, step: int) -> None:
        """Drop metrics logged after ``step``: a resumed run logs them again."""
        kept = [json.dumps(line) + "\n" for line in self.metrics() if line["step"] <= step]
        checkpoint.write_text(self.metrics_path, "".join(kept))

    def preview(self, event: Preview) -> Path:
        """Save a preview as PNG: images from their 1 % to 99 % quantile, labels as evenly spread greys."""
        import cv2

        data = event.data.astype(np.float32)
        low, high = np.percentile(data, (1, 99)) if event.kind == "image" else (0, max(1, int(data.max())))
        picture = np.clip((data - low) / max(float(high - low), 1e-6) * 255, 0, 255).astype(np.uint8)
        path = self.path / "previews" / f"{event.step:06d}-{event.name}.png"
        path.parent.mkdir(exist_ok=True)
        temporary = path.with_name(f".{path.name}")
        cv2.imwrite(str(temporary), picture)
        os.replace(temporary, path)
        return path

    def network(self, which: str = "best") -> SegmentationNet:
        """Build the run's network and load its ``best`` or ``last`` weights (on the CPU, in eval mode)."""
        try:
            about = self.info()["network"]
            network = MODELS[about["name"]].create(about["in_channels"], about["classes"], about["options"])
        except (ConfigError, KeyError, TypeError) as error:
            why = f"run.json has no {error}" if isinstance(error, KeyError) else str(error)
            raise DataError(
                f"The network of {self.path} was made by another version of this package, or by an extension that is "
                f"not here: {why}. Use that version, or train the run again; nothing was changed."
            ) from error
        path = self.last if which == "last" or not self.best.is_file() else self.best
        tensors, _ = checkpoint.load(path)
        weights = checkpoint.unprefixed("network", tensors)
        try:
            network.load_state_dict(weights)
        except RuntimeError as error:
            raise DataError(f"{path} does not fit the network {about['name']}: {error}") from None
        return network.eval()
