"""MMD and CORAL against the numbers of the specification and naive references; which features they align."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from napari_em_da.config import LossConfig, TrainingConfig
from napari_em_da.errors import ConfigError, DataError
from napari_em_da.losses import segmentation_loss
from napari_em_da.methods import METHODS
from napari_em_da.methods._base import Method, Setup
from napari_em_da.methods._features import AlignmentOptions, sample_positions, tap_lambdas
from napari_em_da.methods.coral import coral
from napari_em_da.methods.mmd import BANDWIDTHS, mmd2
from napari_em_da.models import MODELS
from napari_em_da.sampling import Sample
from napari_em_da.training.loop import make_optimiser, train_step

TAPS = ("enc0", "enc1", "bottleneck", "dec1", "dec0")


def column(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)[:, None]


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def make(name: str, model: str = "unet", **options: Any) -> Method:
    small = {"features": 4, "levels": 2, "dropout": 0.1} if model == "unet" else {"features": 2}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = MODELS[model].create(1, 2, small)
        patch = (32,) * network.ndim
        return METHODS[name].create(Setup(network, segmentation_loss(LossConfig()), patch, 10, 1e-3), options)


def batch(*size: int, images: int = 2) -> dict[str, Sample]:
    g = torch.Generator().manual_seed(1)
    image, other = torch.randn(2, images, 1, *size, generator=g)
    return {
        "source": Sample(image, torch.randint(0, 2, (images, *size), generator=g)),
        "target": Sample(1.5 * other + 0.5),
    }


def train(method: Method, steps: int = 3, dtype: torch.dtype | None = None) -> list[dict[str, float]]:
    config = TrainingConfig()
    players = method.players()
    optimisers = {name: make_optimiser(player, config) for name, player in players.items()}
    data = batch(*(32, 32) if method.network.ndim == 2 else (16, 16, 16))
    return [
        train_step(method, players, optimisers, data, step, config, torch.device("cpu"), dtype) for step in range(steps)
    ]


# --- which features, how strongly


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {"bottleneck": 1.0}),
        ({"profile": "encoder"}, {"enc0": 1 / 3, "enc1": 1 / 3, "bottleneck": 1 / 3}),
        ({"profile": "geometric"}, {"enc0": 1 / 7, "enc1": 2 / 7, "bottleneck": 4 / 7}),
        ({"decoder_taps": ("dec0",)}, {"bottleneck": 0.5, "dec0": 0.5}),
        ({"profile": "geometric", "lambda_total": 11, "decoder_taps": ("dec1",)},
         {"enc0": 1.0, "enc1": 2.0, "bottleneck": 4.0, "dec1": 4.0}),
    ],
)  # fmt: skip
def test_lambdas_grow_with_depth_and_add_up(options: dict[str, Any], expected: dict[str, float]) -> None:
    assert tap_lambdas(TAPS, AlignmentOptions(**{"lambda_total": 1, **options})) == pytest.approx(expected)


def test_wrong_decoder_taps_are_named() -> None:
    with pytest.raises(ConfigError, match="'dec3'.*Known: dec1, dec0"):
        tap_lambdas(TAPS, AlignmentOptions(decoder_taps=("dec3",)))
    with pytest.raises(ConfigError, match="'enc0'"):
        tap_lambdas(TAPS, AlignmentOptions(decoder_taps=("enc0",)))
    with pytest.raises(ConfigError, match="'dec0' twice"):
        tap_lambdas(TAPS, AlignmentOptions(decoder_taps=("dec0", "dec0")))


@pytest.mark.parametrize("size", [(4, 6), (2, 4, 6)])
def test_samples_are_feature_vectors_of_different_positions(size: tuple[int, ...]) -> None:
    features = draw(2, 3, *size)
    vectors = features.movedim(1, -1).reshape(-1, 3)
    drawn = sample_positions(features, 20)
    assert drawn.shape == (20, 3)
    rows = [int(np.flatnonzero((vectors == row).all(1))[0]) for row in drawn]
    assert len(set(rows)) == 20
    everything = sample_positions(features, len(vectors))
    assert torch.equal(everything.sort(0).values, vectors.sort(0).values)


def test_sampling_is_uniform_over_batch_and_space_and_follows_the_seed() -> None:
    features = torch.arange(24.0).reshape(2, 1, 3, 4)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        draws = torch.stack([sample_positions(features, 6)[:, 0] for _ in range(2000)])
        torch.manual_seed(0)
        assert torch.equal(sample_positions(features, 6)[:, 0], draws[0])
    counts = torch.bincount(draws.flatten().long(), minlength=24)  # expected 500 each, sd 19
    assert int(counts.min()) > 400
    assert int(counts.max()) < 600


# --- MMD


def test_mmd_of_the_specification() -> None:
    x, y = column(0, 1), column(1, 2)  # the median of the squared distances is 1
    assert mmd2(x, y, bandwidths=(1.0,)).item() == pytest.approx(0.432332, abs=1e-6)
    assert mmd2(x, y, bandwidths=(1.0,), biased=False).item() == pytest.approx(0.038863, abs=1e-6)
    assert mmd2(x, y).item() == pytest.approx(0.387160, abs=1e-6)


@pytest.mark.parametrize("biased", [True, False])
def test_mmd_equals_a_loop_over_pairs(biased: bool) -> None:
    x, y = draw(7, 3), 2 * draw(6, 3, seed=1) + 5
    a, b = x.double().numpy(), y.double().numpy()
    pairs = [((p - q) ** 2).sum() for p, q in itertools.combinations([*a, *b], 2)]  # 78: of the middle two, the lower
    scale = sorted(pairs)[38]

    def mean(first: np.ndarray, second: np.ndarray, same: bool) -> float:
        values = [
            np.mean([np.exp(-((p - q) ** 2).sum() / (2 * width * scale)) for width in BANDWIDTHS])
            for i, p in enumerate(first)
            for j, q in enumerate(second)
            if not (same and i == j)
        ]
        return float(np.mean(values))

    expected = mean(a, a, not biased) + mean(b, b, not biased) - 2 * mean(a, b, False)
    assert mmd2(x, y, biased=biased).item() == pytest.approx(expected, rel=1e-5)


def test_mmd_of_a_sample_with_itself_is_zero_in_any_order_and_at_any_offset() -> None:
    x = draw(50, 8)
    shuffled = x[torch.randperm(50, generator=torch.Generator().manual_seed(3))]
    assert mmd2(x, x).item() == pytest.approx(0, abs=1e-6)
    assert mmd2(x + 1000, shuffled + 1000).item() == pytest.approx(0, abs=1e-5)
    assert mmd2(x, draw(50, 8, seed=1)).item() > 0


def test_mmd_does_not_depend_on_units_and_sees_shift_and_scale() -> None:
    x, y = draw(60, 4), draw(60, 4, seed=1)
    assert mmd2(100 * x, 100 * y).item() == pytest.approx(mmd2(x, y).item(), rel=1e-4)
    assert mmd2(x, y).item() < mmd2(x, y + 1).item() < mmd2(x, y + 3).item() < 2
    assert mmd2(x, y).item() < mmd2(x, 3 * y).item()


@pytest.mark.parametrize("scale_free", [True, False])
def test_mmd_of_constant_features_is_finite_with_finite_gradients(scale_free: bool) -> None:
    x = torch.ones(5, 2, requires_grad=True)
    value = mmd2(x, torch.ones(5, 2), scale_free=scale_free)
    value.backward()
    assert value.item() == pytest.approx(0, abs=1e-6)
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()


@pytest.mark.parametrize("biased", [True, False])
def test_scale_free_mmd_has_the_same_value_and_does_not_reward_small_features(biased: bool) -> None:
    x, y = draw(40, 3).requires_grad_(), (2 * draw(40, 3, seed=1) + 1).requires_grad_()
    plain, free = (mmd2(x, y, biased=biased, scale_free=scale_free) for scale_free in (False, True))
    assert plain.item() == free.item()
    along = [
        sum(float((g * f.detach()).sum()) for g, f in zip(torch.autograd.grad(value, (x, y)), (x, y), strict=True))
        for value in (plain, free)
    ]
    assert along[0] > 0.01  # descending it shrinks the features
    assert along[1] == pytest.approx(0, abs=1e-5)


def test_without_that_the_bandwidth_carries_no_gradient() -> None:
    """With the median held fixed, the gradient is that of finite differences."""
    x, y = draw(3, 2).double(), draw(4, 2, seed=1).double() + 1
    pooled = torch.cat([x, y])
    scale = torch.pdist(pooled).square().median()

    def fixed(x: Tensor) -> Tensor:
        kernel = [
            sum(torch.exp(-torch.cdist(a, b).square() / (2 * w * scale)) for w in BANDWIDTHS).mean() / 5
            for a, b in ((x, x), (x, y))
        ]
        return kernel[0] - 2 * kernel[1]

    leaf = x.clone().requires_grad_()
    (grad,) = torch.autograd.grad(mmd2(leaf, y), leaf)
    for i, j in itertools.product(range(3), range(2)):
        step = torch.zeros_like(x)
        step[i, j] = 1e-5
        slope = (fixed(x + step) - fixed(x - step)) / 2e-5
        assert grad[i, j].item() == pytest.approx(slope.item(), rel=1e-4, abs=1e-8)


# --- CORAL


def test_coral_of_the_specification() -> None:
    x, y = torch.tensor([[0.0, 0], [2, 0]]), torch.tensor([[0.0, 0], [0, 2]])
    assert coral(x, y).item() == pytest.approx(0.5)
    assert coral(x, x + 5).item() == pytest.approx(0, abs=1e-6)
    assert coral(x, y, scale_free=True).item() == pytest.approx(0.5)  # the mean variance is 1


def test_coral_equals_numpy() -> None:
    x, y = draw(30, 5), 2 * draw(20, 5, seed=1) + 3
    of_x, of_y = np.cov(x.double().numpy().T), np.cov(y.double().numpy().T)
    expected = np.linalg.norm(of_x - of_y) ** 2 / (4 * 25)
    assert coral(x, y).item() == pytest.approx(expected, rel=1e-5)
    unit = (np.trace(of_x) + np.trace(of_y)) / 10
    assert coral(x, y, scale_free=True).item() == pytest.approx(expected / unit**2, rel=1e-5)


def test_scale_free_coral_is_bounded_without_units_and_does_not_reward_small_features() -> None:
    x, y = draw(40, 3).requires_grad_(), (4 * draw(40, 3, seed=1) @ draw(3, 3, seed=2)).requires_grad_()
    value = coral(x, y, scale_free=True)
    assert coral(100 * x, 100 * y, scale_free=True).item() == pytest.approx(value.item(), rel=1e-4)
    line = torch.outer(draw(40), torch.ones(3))  # the worst case: one direction against nothing
    assert coral(line, torch.zeros(40, 3), scale_free=True).item() == pytest.approx(1, rel=1e-5)
    slopes = torch.autograd.grad(value, (x, y))
    shrinking = sum((slope * features.detach()).sum() for slope, features in zip(slopes, (x, y), strict=True))
    assert float(shrinking) == pytest.approx(0, abs=1e-5)
    assert coral(torch.ones(4, 2), torch.ones(4, 2), scale_free=True).item() == 0


# --- the methods


@pytest.mark.parametrize("name", ["mmd", "coral"])
@pytest.mark.parametrize("profile", ["bottleneck", "encoder"])
def test_zero_lambda_is_supervised_training_bit_for_bit(name: str, profile: str) -> None:
    plain, aligned = make("supervised"), make(name, lambda_total=0.0, profile=profile)
    train(plain)
    values = train(aligned)
    assert all(
        torch.equal(a, b)
        for a, b in zip(plain.network.state_dict().values(), aligned.network.state_dict().values(), strict=True)
    )
    assert values[-1][f"{name}_bottleneck"] > 0  # measured all the same


@pytest.mark.parametrize("name", ["mmd", "coral"])
@pytest.mark.parametrize(("model", "dtype"), [("unet", torch.bfloat16), ("cicek", None)])
def test_both_work_in_3d_and_in_bf16_and_log_unweighted(name: str, model: str, dtype: torch.dtype | None) -> None:
    options: dict[str, Any] = {"profile": "geometric", "decoder_taps": ("dec0",), "positions": 64}
    light, heavy = (make(name, model, lambda_total=weight, **options) for weight in (1.0, 1000.0))
    one, other = train(light, 1, dtype)[0], train(heavy, 1, dtype)[0]
    assert one == other
    taps = [f"{name}_{tap}" for tap in light.network.tap_channels if tap.startswith("enc")]
    assert {*taps, f"{name}_bottleneck", f"{name}_dec0"} <= set(one)


@pytest.mark.parametrize("name", ["mmd", "coral"])
def test_alignment_reaches_the_encoder_only_and_brings_the_domains_together(name: str) -> None:
    method = make(name, statistics="shared", lambda_sup=0.0, lambda_total=10.0)
    for tensor in method.network.modules():
        if isinstance(tensor, torch.nn.BatchNorm2d):
            tensor.eval()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        ((player, losses),) = method.step(batch(32, 32), 0)
    assert player == "network"
    (term,) = losses.values()
    term.value.backward()
    with_gradient = {name.split(".")[0] for name, p in method.network.named_parameters() if p.grad is not None}
    assert with_gradient == {"encoder"}
    values = [next(iter(v.values())) for v in train(method, 25)]
    assert np.mean(values[-5:]) < np.mean(values[:5])


def test_a_single_position_is_an_error_with_a_remedy() -> None:
    method = make("coral").eval()
    with pytest.raises(DataError, match="bottleneck.*enlarge the patch"):
        list(method.step(batch(4, 4, images=1), 0))
