"""Which device computes, in which precision, and why; shared by training and inference."""

from __future__ import annotations

import os
from typing import Any

import psutil
import torch

from napari_em_da.errors import ConfigError, ResourceError

_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "cannot allocate memory")


def choose_device(name: str = "auto") -> torch.device:
    """Return the device to compute on.

    Parameters
    ----------
    name : str
        ``"auto"`` (CUDA, else Apple's MPS, else the CPU), ``"cpu"``, ``"cuda"``, ``"cuda:N"`` or ``"mps"``.

    Raises
    ------
    ConfigError
        If the name is none of these.
    ResourceError
        If this machine, or this build of torch, lacks the device.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (index and not index.isdigit()):
        raise ConfigError(f"Unknown device {name!r}; use auto, cpu, cuda, cuda:N or mps.")
    if kind == "cuda":
        _check_cuda(name, int(index or 0))
    elif kind == "mps" and not torch.backends.mps.is_available():
        raise ResourceError("Device 'mps' needs macOS on Apple silicon; use device='auto' or 'cpu'.")
    return torch.device(name)


def _check_cuda(name: str, index: int) -> None:
    if not torch.backends.cuda.is_built():
        raise ResourceError(
            f"Device {name!r}: this torch {torch.__version__} was built without CUDA; install a CUDA build "
            "(see pytorch.org/get-started) or use device='cpu'."
        )
    count = torch.cuda.device_count()
    if index >= count:
        raise ResourceError(
            f"Device {name!r}: torch sees {count} CUDA device(s); check the driver with nvidia-smi, "
            "or use device='auto' or 'cpu'."
        )


def choose_precision(name: str, device: torch.device) -> torch.dtype | None:
    """Return ``torch.bfloat16``, or None for plain float32.

    Parameters
    ----------
    name : {"auto", "bf16", "fp32"}
        ``"auto"`` picks bfloat16 where the hardware multiplies it natively.
    device : torch.device
    """
    if name not in ("auto", "bf16", "fp32"):
        raise ConfigError(f"Unknown precision {name!r}; use auto, bf16 or fp32.")
    if name == "bf16" or (name == "auto" and has_bf16(device)):
        return torch.bfloat16
    return None


def has_bf16(device: torch.device) -> bool:
    """Return True where bfloat16 products are computed in hardware: recent GPUs, CPUs with AMX or AVX512-BF16."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return device.type == "cpu" and _cpu_bf16() is not None


def _cpu_bf16() -> str | None:
    """Return the name of the CPU's bfloat16 instructions, if any."""
    probes = {"AMX": "_is_amx_tile_supported", "AVX512-BF16": "_is_avx512_bf16_supported"}
    for label, probe in probes.items():  # private in torch, hence the lookup by name
        if getattr(torch.cpu, probe, bool)():
            return label
    return None


def why(device: torch.device) -> str:
    """Return one sentence on the device and the precision that ``auto`` means there."""
    precision = "bf16" if has_bf16(device) else "fp32"
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        return f"GPU {properties.name} with {properties.total_memory / 2**30:.0f} GiB, computing in {precision}."
    if device.type == "mps":
        return f"Apple GPU through MPS, computing in {precision}."
    reason = "no CUDA device is visible" if torch.backends.cuda.is_built() else "this torch is built without CUDA"
    instructions = _cpu_bf16()
    detail = f" ({instructions})" if instructions else " (no bf16 instructions)"
    return f"CPU with {torch.get_num_threads()} thread(s), as {reason}; computing in {precision}{detail}."


def describe() -> dict[str, Any]:
    """Return what a bug report needs: torch, devices, cores, memory (GiB) and bfloat16 support."""
    device = choose_device("auto")
    return {
        "torch": torch.__version__,
        "device": str(device),
        "why": why(device),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "cores": os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "cpu_bf16": _cpu_bf16() or "no",
    }


def free_memory(device: torch.device) -> int:
    """Return the bytes that a job may plan with: 80 % of a GPU's free memory, half of the machine's available.

    Notes
    -----
    The CPU's share is smaller since the system kills a process rather than refusing it memory.
    """
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0] * 0.8)
    return int(psutil.virtual_memory().available * 0.5)


def is_out_of_memory(error: BaseException) -> bool:
    """Return True for every form in which torch and numpy report exhausted memory."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error).lower() for text in _OUT_OF_MEMORY)


__all__ = [
    "choose_device",
    "choose_precision",
    "describe",
    "free_memory",
    "has_bf16",
    "is_out_of_memory",
    "why",
]
