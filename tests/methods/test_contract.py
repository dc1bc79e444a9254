"""What every method of the catalog must do."""

from __future__ import annotations

import pytest
import torch

from napari_em_da.config import LossConfig
from napari_em_da.losses import segmentation_loss
from napari_em_da.methods import METHODS
from napari_em_da.methods._base import Method, Setup
from napari_em_da.models import MODELS
from napari_em_da.sampling import Sample


def make(name: str) -> Method:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = MODELS["unet"].create(1, 3, {"features": 4, "levels": 2})
        return METHODS[name].create(Setup(network, segmentation_loss(LossConfig()), (32, 32), 10, 1e-3))


def batch(name: str) -> dict[str, Sample]:
    g = torch.Generator().manual_seed(1)
    image, other = torch.randn(2, 2, 1, 32, 32, generator=g)
    labels, made = torch.randint(0, 3, (2, 2, 32, 32), generator=g)
    return {"source": Sample(image, labels), "target": Sample(other, made if METHODS[name].pseudo else None)}


def losses_of(name: str) -> dict[str, float]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        return {k: t.value.item() for _, terms in make(name).step(batch(name), 9) for k, t in terms.items()}


@pytest.mark.parametrize("name", METHODS.names())
def test_losses_are_finite_and_repeatable(name: str) -> None:
    first, second = losses_of(name), losses_of(name)
    assert first or not make(name).players()
    assert all(torch.isfinite(torch.tensor(v)) for v in first.values())
    assert first == second


@pytest.mark.parametrize("name", METHODS.names())
def test_every_owned_parameter_gets_a_gradient(name: str) -> None:
    method = make(name)
    players = method.players()
    for player, terms in method.step(batch(name), 9):
        parameters = [p for p in players[player].module.parameters() if p.requires_grad]
        method.zero_grad(set_to_none=True)
        sum(t.weight * t.value for t in terms.values()).backward(inputs=parameters)
        assert all(p.grad is not None for p in parameters), player


@pytest.mark.parametrize("name", METHODS.names())
def test_unknown_options_are_errors(name: str) -> None:
    from napari_em_da.errors import ConfigError

    with pytest.raises(ConfigError, match="no_such_option"):
        METHODS[name].create(
            Setup(make(name).network, segmentation_loss(LossConfig()), (32, 32), 1, 1e-3), {"no_such_option": 1}
        )
