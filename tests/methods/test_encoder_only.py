"""Methods that read only the encoder's features of the target: what runs, on how many windows, whose statistics."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from napari_em_da.config import LossConfig, TrainingConfig
from napari_em_da.losses import segmentation_loss
from napari_em_da.methods import METHODS
from napari_em_da.methods._base import Setup
from napari_em_da.methods._parts import Adaptation
from napari_em_da.models import MODELS
from napari_em_da.sampling import Sample
from napari_em_da.training.loop import make_optimiser, train_step

CPU = torch.device("cpu")


def make(name: str, norm: str = "batch", **options: Any) -> Adaptation:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = MODELS["unet"].create(1, 2, {"features": 4, "levels": 2, "norm": norm})
        setup = Setup(network, segmentation_loss(LossConfig()), (32, 32), 10, 1e-3, (0.8, 0.2))
        method = METHODS[name].create(setup, options)
    assert isinstance(method, Adaptation)
    return method


def batch(windows: int = 4, step: int = 0) -> dict[str, Sample]:
    g = torch.Generator().manual_seed(step)
    image, other = torch.randn(2, windows, 1, 32, 32, generator=g)
    return {"source": Sample(image, torch.randint(0, 2, (windows, 32, 32), generator=g)), "target": Sample(2 * other)}


def passes(method: Adaptation, windows: int = 4, step: int = 8) -> tuple[list[int], list[int]]:
    """Return how many windows each pass through the encoder and through the decoder had in one step."""
    runs: tuple[list[int], list[int]] = [], []
    network = method.network
    for module, found in zip((network.encoder, network.decoder), runs, strict=True):
        assert isinstance(module, torch.nn.Module)
        module.register_forward_hook(lambda _m, _i, out, found=found: found.append(len(out[0])))
    method.train()
    for _ in method.step(batch(windows), step):
        pass
    return runs


def parts(*names: str) -> dict[str, Any]:
    return {"parts": [{"name": name} for name in names]}


@pytest.mark.parametrize(
    ("name", "options", "encoder", "decoder"),
    [
        ("coral", {}, [8, 3], [8, 3]),
        ("mmd", {"windows": 0.3}, [8, 3], [8, 3]),
        ("mmd", {"windows": 0.01}, [8, 2], [8, 2]),
        ("mmd", {}, [8, 2], [8, 2]),
        ("mean_teacher", {"windows": 0.75}, [8, 6], [8, 6]),
        ("coral", {"profile": "geometric", "windows": 0.5}, [8, 4], [8, 4]),
        ("coral", {"decoder_taps": ("dec0",)}, [8, 3], [8, 3]),
        ("dann", {}, [8, 8], [8, 8]),
        ("ynet", {}, [8, 4], [8, 4]),
        ("adversarial", {}, [8, 4], [8, 4]),
        ("adversarial", {"parity": True}, [8], [8]),  # on all of the target, and without the source
        ("combined", parts("coral", "entropy"), [8, 8], [8, 8]),  # one pass serves both
        ("combined", parts("coral", "dann"), [8, 8], [8, 8]),
        ("combined", parts("coral", "adversarial"), [8, 4], [8, 4]),
        ("combined", parts("coral", "mean_teacher"), [8, 3, 8], [8, 8]),  # the student's pass fills the statistics
    ],
)
def test_nothing_runs_in_vain(name: str, options: dict[str, Any], encoder: list[int], decoder: list[int]) -> None:
    assert passes(make(name, **options), 8) == (encoder, decoder)


@pytest.mark.parametrize("name", ["coral", "mmd", "dann", "ynet"])
def test_every_other_step_leaves_the_decoder_out(name: str) -> None:
    assert [len(passes(make(name), step=step)[1]) for step in (0, 1, 2, 3)] == [2, 1, 2, 1]
    assert [len(passes(make(name, statistics="shared"), step=step)[1]) for step in (0, 1)] == [2, 2]
    assert [len(passes(make(name, norm="group"), step=step)[1]) for step in (0, 1)] == [1, 1]  # nothing to fill


def test_the_decoders_statistics_are_those_of_the_targets_windows() -> None:
    """As if the whole network had seen them; and the source's stay what the source makes them."""
    method, plain = make("coral", windows=0.5), make("coral", windows=0.5)
    twin = copy.deepcopy(plain.network).train()
    twin(batch()["target"].image[:2])
    method.train()
    for _ in method.step(batch(), 0):
        pass
    with method.segmenting("target") as network:
        filled = {name: buffer.clone() for name, buffer in network.named_buffers()}
    expected = dict(twin.named_buffers())
    assert any("decoder" in name and "running_mean" in name for name in filled)
    assert all(torch.equal(buffer, expected[name]) for name, buffer in filled.items())
    plain.network.train()(batch()["source"].image)
    assert all(torch.equal(a, b) for a, b in zip(method.network.buffers(), plain.network.buffers(), strict=True))


def test_no_gradient_of_the_decoder_comes_from_the_target() -> None:
    method = make("coral", lambda_sup=0.0)
    method.train()
    ((_, losses),) = method.step(batch(), 0)
    losses["coral_bottleneck"].value.backward()
    assert {name.split(".")[0] for name, p in method.network.named_parameters() if p.grad is not None} == {"encoder"}


@pytest.mark.parametrize("name", ["coral", "ynet"])
@pytest.mark.parametrize("stop", [1, 2])
def test_resume_is_bitwise(name: str, stop: int) -> None:
    def run(method: Adaptation, start: int, end: int, state: dict[str, Any] | None = None) -> dict[str, Any]:
        config, players = TrainingConfig(), method.players()
        optimisers = {key: make_optimiser(player, config) for key, player in players.items()}
        for key, optimiser in optimisers.items():
            if state:
                optimiser.load_state_dict(state[key])
        for step in range(start, end):
            train_step(method, players, optimisers, batch(step=step), step, config, CPU, None)
        return {key: copy.deepcopy(optimiser.state_dict()) for key, optimiser in optimisers.items()}

    whole, half, rest = make(name), make(name), make(name)
    run(whole, 0, 4)
    state = run(half, 0, stop)
    rest.load_state_dict(copy.deepcopy(half.state_dict()))
    run(rest, stop, 4, state)
    pairs = zip(whole.state_dict().values(), rest.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
