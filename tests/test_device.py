"""Choice of device and precision."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_em_da import device
from napari_em_da.errors import ConfigError, ResourceError


def test_missing_device_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ResourceError, match="sees 1 CUDA device.*device='auto'"):
        device.choose_device("cuda:3")
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: False)
    with pytest.raises(ResourceError, match="built without CUDA; install"):
        device.choose_device("cuda")


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "", "auto:1"])
def test_unknown_device(name: str) -> None:
    with pytest.raises(ConfigError, match="use auto, cpu, cuda"):
        device.choose_device(name)


def test_auto_prefers_cuda_then_mps_then_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert device.choose_device("auto").type == "cuda"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert device.choose_device("auto").type == "mps"
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert device.choose_device("auto").type == "cpu"


@pytest.mark.parametrize(("amx", "avx", "expected"), [(1, 0, "AMX"), (0, 1, "AVX512-BF16"), (0, 0, None)])
def test_precision_follows_the_instructions(
    monkeypatch: pytest.MonkeyPatch, amx: int, avx: int, expected: str | None
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: bool(amx))
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: bool(avx))
    cpu = torch.device("cpu")
    assert device.choose_precision("auto", cpu) == (torch.bfloat16 if expected else None)
    assert device.choose_precision("fp32", cpu) is None
    assert device.choose_precision("bf16", cpu) is torch.bfloat16
    assert (expected or "no bf16") in device.why(cpu)
    assert device.describe()["cpu_bf16"] == (expected or "no")


def test_out_of_memory_is_told_from_other_errors() -> None:
    assert device.is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory."))
    assert device.is_out_of_memory(np.exceptions.AxisError("x")) is False
    assert device.is_out_of_memory(RuntimeError("shape '[2]' is invalid")) is False
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60)
    assert device.is_out_of_memory(caught.value)
