"""Checkpoints as one safetensors file each: weights, optimiser state and a JSON header; nothing is unpickled."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from napari_em_da.errors import DataError, ResourceError

HEADER = "napari_em_da"


def save(path: Path, tensors: Mapping[str, Tensor], info: Mapping[str, Any]) -> None:
    """Write ``path`` (.safetensors) and a readable ``.json`` beside it; a crash leaves the previous file whole.

    Raises
    ------
    ResourceError
        If the disk is full or not writable.
    """
    owned = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    temporary = path.with_name(f".{path.name}.partial")
    text = json.dumps(dict(info), indent=2, default=str)
    try:
        temporary.touch()
        mode = temporary.stat().st_mode  # safetensors makes files for their owner alone; laboratories share folders
        save_file(owned, temporary, metadata={HEADER: text})
        temporary.chmod(mode)
        os.replace(temporary, path)
        write_text(path.with_suffix(".json"), text + "\n")
    except (OSError, SafetensorError) as error:
        temporary.unlink(missing_ok=True)
        size = sum(t.nbytes for t in owned.values()) / 1e6
        raise ResourceError(f"Cannot write the checkpoint {path} ({size:.0f} MB): {error}. Free disk space.") from error


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors (on the CPU) and the header of a checkpoint; a damaged or missing file is a DataError."""
    if not path.is_file():
        raise DataError(f"There is no checkpoint {path}; the run stopped before its first one. Train it again.")
    try:
        with safe_open(path, framework="pt") as file:
            info = json.loads((file.metadata() or {}).get(HEADER, "{}"))
            return {name: file.get_tensor(name) for name in file.keys()}, info  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError, ValueError) as error:
        raise DataError(
            f"The checkpoint {path} is damaged: {error}. Use the other checkpoint, or train again."
        ) from error


def write_text(path: Path, text: str) -> None:
    """Replace a small text file atomically."""
    temporary = path.with_name(f".{path.name}.partial")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors under ``prefix/``."""
    return {f"{prefix}/{name}": tensor for name, tensor in tensors.items()}


def unprefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors stored under ``prefix/``, without it."""
    start = f"{prefix}/"
    return {name.removeprefix(start): tensor for name, tensor in tensors.items() if name.startswith(start)}


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Flatten the per-parameter state of an optimiser into ``index/key`` tensors."""
    state = optimiser.state_dict()["state"]
    return {f"{i}/{key}": torch.as_tensor(value) for i, values in state.items() for key, value in values.items()}


def load_optimiser(optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put back what ``optimiser_tensors`` returned; the groups' hyper-parameters stay as configured."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        index, key = name.split("/")
        state.setdefault(int(index), {})[key] = tensor.clone()
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})


def digest(tensors: Mapping[str, Tensor] | Iterable[tuple[str, Tensor]]) -> str:
    """Hash of names and bits (16 hex digits): equal digests mean identical weights."""
    result = hashlib.sha256()
    for name, tensor in sorted(dict(tensors).items()):
        result.update(name.encode())
        result.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return result.hexdigest()[:16]
