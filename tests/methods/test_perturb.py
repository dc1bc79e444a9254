"""The student's perturbations against scipy and the ranges that the options promise."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from napari_em_da.methods._perturb import PerturbOptions, bend, blur, perturb

OFF = {"contrast": 0, "brightness": 0, "curve": 0, "blur_px": 0, "noise": 0, "cutouts": 0, "invert": 0}


def options(**changes: Any) -> PerturbOptions:
    return PerturbOptions(**{**OFF, "perturb_share": 1.0, **changes})


def images(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def changed(image: torch.Tensor, o: PerturbOptions, seed: int = 3) -> torch.Tensor:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return perturb(image, o)


@pytest.mark.parametrize("shape", [(2, 1, 24, 20), (2, 1, 4, 24, 20), (3, 2, 16, 16)])
def test_shape_repeatability_and_the_input_left_alone(shape: tuple[int, ...]) -> None:
    image = images(*shape)
    before = image.clone()
    out = changed(image, PerturbOptions(invert=0.5))
    assert out.shape == image.shape and out.dtype == torch.float32 and torch.isfinite(out).all()
    assert torch.equal(image, before)
    assert torch.equal(out, changed(image, PerturbOptions(invert=0.5)))
    assert not torch.equal(out, changed(image, PerturbOptions(invert=0.5), seed=4))


def test_strength_0_is_the_identity_and_draws_nothing() -> None:
    image = images(2, 1, 16, 16)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        assert torch.equal(perturb(image, PerturbOptions(perturb=0)), image)
        drawn = torch.rand(())
        torch.manual_seed(0)
        assert torch.equal(drawn, torch.rand(()))


def test_all_single_strengths_0_is_the_identity() -> None:
    image = images(2, 1, 4, 16, 16)
    assert torch.equal(changed(image, options()), image)


def test_coins_that_always_say_no_leave_the_image() -> None:
    image = images(4, 1, 16, 16)
    out = changed(image, PerturbOptions(perturb_share=0))
    assert torch.equal(out, image)


def test_gain_and_shift_stay_within_their_bounds_and_differ_between_windows() -> None:
    image = images(64, 1, 8, 8)
    gain = (changed(image, options(contrast=0.4)) / image).flatten(1)
    torch.testing.assert_close(gain.amax(1), gain.amin(1))
    assert gain.log().abs().max() <= 0.4 + 1e-5
    assert gain[:, 0].log().min() < -0.3 and gain[:, 0].log().max() > 0.3
    shift = (changed(image, options(brightness=0.5, perturb=0.5)) - image).flatten(1)
    torch.testing.assert_close(shift.amax(1), shift.amin(1), atol=1e-5, rtol=0)
    assert 0.2 < shift.abs().max() <= 0.25 + 1e-5


def test_the_curve_keeps_order_and_both_ends() -> None:
    x = torch.linspace(-4, 4, 101).view(1, 1, 1, -1)
    for exponent in (0.6, 1.0, 1.6):
        y = bend(x, torch.full((1, 1, 1, 1), exponent))
        assert (y.diff(dim=3) > 0).all()
        at = torch.tensor([-2.5, 2.5]).view(1, 1, 1, -1)
        torch.testing.assert_close(bend(at, torch.full((1, 1, 1, 1), exponent)), at)
    assert torch.equal(bend(x, torch.ones(1, 1, 1, 1)), x)


def test_blur_equals_scipy_with_a_sigma_per_window() -> None:
    image = images(3, 2, 20, 24)
    sigma = torch.tensor([0.0, 0.8, 1.5]).view(3, 1, 1, 1)
    out = blur(image, sigma, 1.5).numpy()
    for i, s in enumerate((0.0, 0.8, 1.5)):
        expected = gaussian_filter(image[i].double().numpy(), (0, s, s), mode="nearest", radius=5) if s else image[i]
        np.testing.assert_allclose(out[i], expected, atol=1e-5)


def test_noise_has_the_promised_spread() -> None:
    added = changed(torch.zeros(32, 1, 64, 64), options(noise=0.3)).flatten(1)
    assert 0.2 < added.std(1).max() <= 0.31
    assert added.mean().abs() < 0.01


def test_cutouts_are_rectangles_filled_with_the_mean() -> None:
    image = images(8, 1, 40, 40)
    out = changed(image, options(cutouts=1, cutout_side=0.5))
    for before, after in zip(image[:, 0], out[:, 0], strict=True):
        hole = before != after
        rows, columns = hole.any(1), hole.any(0)
        assert torch.equal(hole, rows[:, None] & columns[None])  # one filled rectangle
        assert 0 < rows.sum() <= 21 and 0 < columns.sum() <= 21
        torch.testing.assert_close(after[hole], before.mean().expand(int(hole.sum())))


def test_inversion_is_certain_at_probability_1() -> None:
    image = images(2, 1, 8, 8)
    assert torch.equal(changed(image, options(invert=1.0)), -image)


def test_sections_of_a_window_change_together_unless_asked() -> None:
    image = images(2, 1, 5, 16, 16)
    together = (changed(image, options(contrast=0.4)) / image).mean((3, 4))[:, 0]
    torch.testing.assert_close(together, together[:, :1].expand(2, 5))
    assert together[0, 0] != together[1, 0]
    alone = (changed(image, options(contrast=0.4, per_section=True)) / image).mean((3, 4))[:, 0]
    assert len(alone.flatten().round(decimals=4).unique()) == 10


def test_changes_are_computed_in_float32_under_autocast() -> None:
    image = images(2, 1, 24, 24)
    with torch.autocast("cpu", torch.bfloat16):
        out = changed(image, PerturbOptions())
    assert torch.equal(out, changed(image, PerturbOptions()))
