"""Where benchmark results go, and what machine made them."""

from __future__ import annotations

import json
import platform
import sys
from pathlib import Path
from typing import Any

import torch

from napari_em_da.device import describe

RESULTS = Path(__file__).parent / "results"
DATA = Path(__file__).parents[2] / "shared" / "data"


def cpu_model() -> str:
    """Return the processor's name where the system tells it."""
    path = Path("/proc/cpuinfo")
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def record(name: str, results: Any) -> Path:
    """Write ``results`` with the command and the machine class to ``benchmarks/results/<name>.json``."""
    command = " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]])
    machine = {"cpu": cpu_model(), "torch_threads": torch.get_num_threads(), **describe()}
    path = RESULTS / f"{name}.json"
    RESULTS.mkdir(exist_ok=True)
    path.write_text(
        json.dumps({"command": command, "machine": machine, "results": results}, indent=2, default=str) + "\n"
    )
    return path
