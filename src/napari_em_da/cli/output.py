"""What the command line prints: results as text or JSON, errors, and whether a window can open."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import asdict, is_dataclass
from typing import Any

from napari_em_da.jobs import Job
from napari_em_da.jobs import run as run_job


def finish(job: Job, as_json: bool) -> None:
    """Drive a job, with a status line, and print its result."""
    result = run_job(job, progress=not as_json)
    plain = asdict(result) if is_dataclass(result) and not isinstance(result, type) else result
    if as_json:
        print(json.dumps(finite(plain), indent=2, default=str, allow_nan=False))
        return
    for key, value in flatten(plain).items():
        print(f"{key}: {f'{value:.4f}' if isinstance(value, float) else value}")


def finite(values: Any) -> Any:
    """Return nested values with null for NaN and infinity, which JSON does not have."""
    if isinstance(values, dict):
        return {str(key): finite(value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [finite(value) for value in values]
    return None if isinstance(values, float) and not math.isfinite(values) else values


def flatten(values: Any, prefix: str = "") -> dict[str, Any]:
    """Return nested dictionaries, and those in lists, as ``a.b`` and ``a.1`` keys."""
    if isinstance(values, list | tuple) and any(isinstance(value, dict) for value in values):
        values = {str(number): value for number, value in enumerate(values, start=1)}
    if not isinstance(values, dict):
        return {prefix or "result": values}
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= flatten(value, f"{prefix}.{key}" if prefix else str(key))
    return flat


def display_found() -> bool:
    """Return whether a window can open: a display, and napari with a Qt binding."""
    import importlib.util
    import os

    has_screen = sys.platform != "linux" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    bindings = ("PyQt6", "PySide6", "PyQt5", "PySide2")
    return has_screen and all(
        (importlib.util.find_spec("napari"), any(importlib.util.find_spec(name) for name in bindings))
    )


def fail(text: str, code: int) -> int:
    """Print an error and return its code."""
    print(f"error: {text}", file=sys.stderr)
    return code
