"""Checkpoints: round trip, atomic replacement, damaged files, hashes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from napari_em_da.errors import DataError
from napari_em_da.training import checkpoint


def test_round_trip_keeps_bits_and_header(tmp_path: Path) -> None:
    tensors = {"a/w": torch.randn(3, 4, generator=torch.Generator().manual_seed(0)), "n": torch.tensor(7)}
    checkpoint.save(tmp_path / "last.safetensors", tensors, {"step": 3})
    back, info = checkpoint.load(tmp_path / "last.safetensors")
    assert info == {"step": 3}
    assert all(torch.equal(back[name], tensors[name]) for name in tensors)
    assert json.loads((tmp_path / "last.json").read_text()) == {"step": 3}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["last.json", "last.safetensors"]


def test_a_failed_save_leaves_the_previous_file(tmp_path: Path) -> None:
    path = tmp_path / "last.safetensors"
    checkpoint.save(path, {"w": torch.ones(2)}, {"step": 1})

    class Unprintable:
        def __str__(self) -> str:
            raise ValueError("boom")

    with pytest.raises(ValueError, match="boom"):
        checkpoint.save(path, {"w": torch.zeros(2)}, {"step": Unprintable()})
    assert torch.equal(checkpoint.load(path)[0]["w"], torch.ones(2))


def test_damaged_and_missing_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "best.safetensors"
    with pytest.raises(DataError, match="no checkpoint"):
        checkpoint.load(path)
    checkpoint.save(path, {"w": torch.ones(100)}, {})
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(DataError, match="damaged"):
        checkpoint.load(path)


def test_digest_sees_one_bit_and_not_the_order() -> None:
    a = {"x": torch.zeros(3), "y": torch.ones(2)}
    assert checkpoint.digest(a) == checkpoint.digest(dict(reversed(list(a.items()))))
    b = {"x": torch.tensor([0.0, 0.0, 1e-30]), "y": torch.ones(2)}
    assert checkpoint.digest(a) != checkpoint.digest(b)


def test_optimiser_state_round_trip_continues_identically() -> None:
    def make() -> tuple[torch.nn.Parameter, torch.optim.Optimizer]:
        p = torch.nn.Parameter(torch.ones(4))
        return p, torch.optim.AdamW([p], 0.1)

    def step(p: torch.nn.Parameter, o: torch.optim.Optimizer) -> None:
        o.zero_grad()
        (p**2).sum().backward()
        o.step()

    p, o = make()
    step(p, o)
    q, r = make()
    q.data.copy_(p.data)
    checkpoint.load_optimiser(r, checkpoint.optimiser_tensors(o))
    step(p, o)
    step(q, r)
    assert torch.equal(p, q)
