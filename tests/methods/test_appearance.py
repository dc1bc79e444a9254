"""FDA and AdaBN against their definitions."""

from __future__ import annotations

import torch

from napari_em_da.config import LossConfig, TrainingConfig
from napari_em_da.losses import segmentation_loss
from napari_em_da.methods import METHODS
from napari_em_da.methods._appearance import fourier_transfer
from napari_em_da.methods._base import Method, Setup
from napari_em_da.models import MODELS
from napari_em_da.models._statistics import norms
from napari_em_da.sampling import Sample
from napari_em_da.training.loop import make_optimiser, train_step


def make(name: str, **options: object) -> Method:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = MODELS["unet"].create(1, 2, {"features": 4, "levels": 2})
        return METHODS[name].create(Setup(network, segmentation_loss(LossConfig()), (32, 32), 4, 1e-3), dict(options))


def batch(seed: int = 1) -> dict[str, Sample]:
    g = torch.Generator().manual_seed(seed)
    image, other = torch.randn(2, 2, 1, 32, 32, generator=g)
    return {"source": Sample(image, torch.randint(0, 2, (2, 32, 32), generator=g)), "target": Sample(other * 2 + 1)}


def test_zero_reach_swaps_only_the_mean() -> None:
    source, target = torch.full((1, 1, 16, 16), 3.0), torch.full((1, 1, 16, 16), 7.0)
    torch.testing.assert_close(fourier_transfer(source, target, 0.0), target)
    g = torch.Generator().manual_seed(0)
    textured = torch.randn(1, 1, 16, 16, generator=g) + 3
    moved = fourier_transfer(textured, target, 0.0)
    torch.testing.assert_close(moved - moved.mean(), textured - textured.mean())
    torch.testing.assert_close(moved.mean(), torch.tensor(7.0))


def test_a_window_swapped_with_itself_stays() -> None:
    x = torch.randn(2, 1, 32, 48, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(fourier_transfer(x, x, 0.09), x, atol=1e-5, rtol=1e-5)


def test_exactly_the_low_frequencies_are_exchanged() -> None:
    g = torch.Generator().manual_seed(0)
    source, target = torch.randn(2, 1, 1, 40, 40, generator=g)
    mixed = torch.fft.fft2(fourier_transfer(source, target, 0.05)).abs()
    ours, theirs = torch.fft.fft2(source).abs(), torch.fft.fft2(target).abs()
    k = torch.fft.fftfreq(40, 1 / 40).abs()
    low = (k[:, None] <= 2) & (k[None, :] <= 2)
    assert int(low.sum()) == 25  # (2b + 1)^2 with b = floor(0.05 * 40)
    torch.testing.assert_close(mixed[..., low], theirs[..., low], atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(mixed[..., ~low], ours[..., ~low], atol=1e-3, rtol=1e-3)


def test_fda_of_no_window_trains_as_supervised_does() -> None:
    weights = []
    for name, options in (("supervised", {}), ("fda", {"share": 0.0})):
        method = make(name, **options)
        config = TrainingConfig(steps=4, device="cpu", precision="fp32")
        players = method.players()
        optimisers = {key: make_optimiser(player, config) for key, player in players.items()}
        for step in range(3):
            train_step(method, players, optimisers, batch(step), step, config, torch.device("cpu"), None)
        weights.append(torch.cat([p.flatten() for p in method.network.parameters()]))
    assert torch.equal(*weights)


def test_adabn_averages_the_target_and_keeps_the_weights() -> None:
    method = make("adabn")
    before = [p.clone() for p in method.network.parameters()]
    first = norms(method.network)[0]
    seen: list[torch.Tensor] = []
    hook = first.register_forward_hook(lambda _m, inputs, _o: seen.append(inputs[0].detach()))
    method.train()
    for step in range(3):
        assert not list(method.step(batch(step), step))
    hook.remove()
    torch.testing.assert_close(first.running_mean, torch.cat(seen).mean((0, 2, 3)))
    assert all(torch.equal(a, b) for a, b in zip(before, method.network.parameters(), strict=True))
