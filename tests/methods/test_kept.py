"""What a method says of its memory against the tensors that autograd really keeps."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from napari_em_da.config import LossConfig
from napari_em_da.losses import segmentation_loss
from napari_em_da.methods import METHODS
from napari_em_da.methods._base import Setup
from napari_em_da.models import MODELS
from napari_em_da.sampling import Sample


def kept_bytes(name: str, **options: Any) -> int:
    """Return the most bytes of saved tensors, parameters aside, that live at the end of a player's turn."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = MODELS["unet"].create(1, 2, {"features": 16})
        setup = Setup(network, segmentation_loss(LossConfig()), (96, 96), 10, 1e-3, (0.9, 0.1))
        method = METHODS[name].create(setup, options)
        images, labels = torch.randn(2, 4, 1, 96, 96), torch.randint(0, 2, (4, 96, 96))
    owned = {p.untyped_storage()._cdata for p in method.parameters()}
    living: dict[int, list[int]] = {}  # storage: how often it is kept, its bytes

    class Kept:
        def __init__(self, tensor: torch.Tensor) -> None:
            self.tensor = tensor
            storage = tensor.untyped_storage()
            self.key = storage._cdata
            living.setdefault(self.key, [0, storage.nbytes()])[0] += 1

        def __del__(self) -> None:
            living[self.key][0] -= 1
            if not living[self.key][0]:
                del living[self.key]

    most = 0
    method.train()
    data = {"source": Sample(images[0], labels), "target": Sample(images[1], labels)}
    with torch.random.fork_rng(devices=[]), torch.autograd.graph.saved_tensors_hooks(Kept, lambda kept: kept.tensor):
        torch.manual_seed(1)
        for _ in method.step(data, 8):
            most = max(most, sum(size for key, (_, size) in living.items() if key not in owned))
    return most


CASES: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in METHODS.names() if name not in ("supervised", "adabn", "two_stream")),
    ("two_stream", {"positions": 64}),  # what grows with their square is nothing beside windows of a usual size
    ("mmd", {"decoder_taps": ("dec0",), "positions": 64, "windows": 0.5}),
    ("coral", {"windows": 1.0}),
    ("mean_teacher", {"windows": 0.5}),
    ("combined", {"parts": [{"name": "coral"}, {"name": "mean_teacher"}, {"name": "entropy"}]}),
]


@pytest.mark.parametrize(("name", "options"), CASES, ids=lambda value: value if isinstance(value, str) else "")
def test_what_a_step_keeps_is_what_the_method_says(name: str, options: dict[str, Any]) -> None:
    really = kept_bytes(name, **options) / kept_bytes("supervised")
    said = METHODS[name].kept(options)
    assert 0.8 * said < really < 1.1 * said


def test_a_method_without_gradients_keeps_nothing() -> None:
    assert kept_bytes("adabn") == 0
    assert 0 < METHODS["adabn"].kept() < 1
