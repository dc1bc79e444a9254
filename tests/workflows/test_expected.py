"""The quality to expect: measured where labels exist, bracketing the truth for shifts of the kinds measured."""

from __future__ import annotations

import inspect
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage

import napari_em_da as em
from napari_em_da.config import AdaptConfig, AdaptTrainingConfig, MethodConfig, SamplingConfig, TrainConfig
from napari_em_da.models import MODELS
from napari_em_da.models._statistics import norms
from napari_em_da.sampling import Sample
from napari_em_da.selection import scores
from napari_em_da.selection._base import Reference
from napari_em_da.selection.calibration import Calibration
from napari_em_da.selection.evidence import collect
from napari_em_da.training.folder import RunFolder
from napari_em_da.workflows import expected as module
from napari_em_da.workflows.expected import LADDER, Shift, calibrate, renew_statistics

SAMPLING: dict[str, Any] = {"patch_px": (1, 32, 32), "batch": 2, "validation_patches": 4, "selection_patches": 6}
STEPS: dict[str, Any] = {"steps": 4, "validate_every": 2, "checkpoint_every": 4, "device": "cpu", "precision": "fp32"}


SHIFTS = (
    Shift(),
    Shift(gamma=1.3),
    Shift(gamma=0.8),
    Shift(curve=0.5),
    Shift(blur_px=1.0),
    Shift(blur_px=2.0),
    Shift(noise=0.6),
    Shift(gradient=1.5),
    Shift(gamma=0.7, noise=0.6),
    Shift(gamma=1.5, blur_px=1.0, gradient=1.5, noise=0.5),
)


def threshold(image: torch.Tensor) -> torch.Tensor:
    """Find foreground where the image is bright: logits (B, 2, Y, X)."""
    return 4 * torch.cat([-image, image], 1)


def blobs(seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Sections with bright blobs in a noisy background, and their labels, both (count, 64, 64)."""
    rng = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(rng.standard_normal((count, 64, 64)), (0, 5, 5))
    labels = field > np.quantile(field, 0.7)
    image = ndimage.gaussian_filter(labels * 2.0 - 0.8, (0, 1, 1)) + 0.2 * rng.standard_normal(labels.shape)
    return image.astype(np.float32), labels.astype(np.int64)


def run(job: Generator[Any, None, Calibration]) -> Calibration:
    """Run a generator to what it returns."""
    while True:
        try:
            next(job)
        except StopIteration as end:
            assert isinstance(end.value, Calibration)
            return end.value


def source() -> tuple[list[Sample], Reference]:
    image, labels = blobs(0, 12)
    batches = [slice(i, i + 5) for i in range(0, 12, 5)]
    samples = [Sample(torch.from_numpy(image[b, None]), torch.from_numpy(labels[b])) for b in batches]
    return samples, Reference.from_labels(list(labels), ["mito"], (64, 64))


def test_the_range_holds_what_it_says_for_shifts_of_the_kinds_measured() -> None:
    samples, reference = source()
    fitted = run(calibrate(threshold, samples, reference))
    image, labels = blobs(1, 24)
    held, errors = [], []
    for number, shift in enumerate(SHIFTS):
        seen = collect(threshold, [torch.from_numpy(shift(image, 50 + number)[:, None])], reference)
        found, true = seen.labels == 1, labels == 1
        iou = (found & true).sum() / (found | true).sum()
        mean, low, high = fitted.predict(scores(seen)["consistency"])
        held.append(low <= iou <= high)
        errors.append(abs(mean - iou))
    assert fitted.points == len(LADDER)
    assert sum(held) >= 8  # of 10
    assert np.mean(errors) < 0.15


def test_the_same_twice_and_rising() -> None:
    samples, reference = source()
    one, other = (run(calibrate(threshold, samples, reference)) for _ in range(2))
    np.testing.assert_array_equal(one.scores, other.scores)
    np.testing.assert_array_equal(one.ious, other.ious)
    assert one.ious[-1] - one.ious[0] > 0.2  # the ladder reaches from easy to hard


@pytest.mark.parametrize("shift", LADDER)
def test_a_shift_keeps_mean_and_spread(shift: Shift) -> None:
    image, _ = blobs(2, 6)
    before = image.copy()
    shifted = shift(image, 3)
    assert shifted.dtype == np.float32 and shifted.shape == image.shape
    np.testing.assert_allclose([shifted.mean(), shifted.std()], [image.mean(), image.std()], atol=1e-4)
    np.testing.assert_array_equal(image, before)
    np.testing.assert_array_equal(shifted, shift(image, 3))
    assert np.allclose(shifted, image, atol=1e-5) == (shift == Shift())
    blank = np.ones((2, 8, 8), np.float32)
    assert np.isfinite(shift(blank)).all()


@pytest.mark.parametrize("strength", [-1.0, -0.5, 0.5, 1.0])
def test_a_contrast_curve_keeps_the_order_of_grey_values(strength: float) -> None:
    ramp = np.linspace(-2, 2, 400, dtype=np.float32).reshape(1, 20, 20)
    assert np.all(np.diff(Shift(curve=strength)(ramp).ravel()) > -1e-6)


def test_statistics_are_renewed_and_weights_stay() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = MODELS["unet"].create(1, 2, {"features": 4, "levels": 2}).eval()
    weights = {name: value.clone() for name, value in network.named_parameters()}
    first = norms(network)[0]
    seen: list[torch.Tensor] = []
    first.register_forward_hook(lambda _m, inputs, _o: seen.append(inputs[0].detach()))
    windows = list(torch.randn(3, 2, 1, 32, 32, generator=torch.Generator().manual_seed(0)))
    renew_statistics(network, network, windows)
    torch.testing.assert_close(first.running_mean, torch.cat(seen).mean((0, 2, 3)))
    seen.clear()
    renew_statistics(network, network, [3 * window + 1 for window in windows])  # of these alone
    torch.testing.assert_close(first.running_mean, torch.cat(seen).mean((0, 2, 3)))
    assert all(torch.equal(value, weights[name]) for name, value in network.named_parameters())
    assert not network.training and not any(m.training for m in network.modules())


def test_there_is_no_place_for_labels_of_the_target() -> None:
    assert list(inspect.signature(module.expected).parameters) == ["folder", "record", "criterion"]
    assert "labels" not in inspect.signature(collect).parameters


def adapted(tiny: Path, folder: Path, **sampling: Any) -> Any:
    """Adapt a short source run with ``auto``."""
    config = TrainConfig(
        run=folder / "source",
        source=({"image": tiny / "A.tif", "labels": tiny / "A-labels.tif"},),
        classes={"mito": (2,)},
        network={"options": {"features": 4, "levels": 2}},
        sampling=SamplingConfig(**{**SAMPLING, **sampling}),
        training=em.TrainingConfig(**{**STEPS, "steps": 20, "validate_every": 10}),
    )
    em.run(em.train(config))
    portfolio = [{"name": "statistics", "method": {"name": "adabn"}}]
    job = AdaptConfig(
        run=folder / "source",
        target=({"image": tiny / "B.tif"},),
        out=folder / "auto",
        method=MethodConfig(name="auto", options={"portfolio": portfolio}),
        training=AdaptTrainingConfig(**STEPS),
    )
    return em.run(em.adapt(job))


def test_auto_says_what_to_expect(tiny: Path, tmp_path: Path) -> None:
    result = adapted(tiny, tmp_path, validation=0.3)
    mean, low, high = result.expected
    assert 0 <= low <= mean <= high <= 1
    report = (tmp_path / "auto" / "choice.md").read_text("utf-8")
    assert f"Expected IoU about {mean:.2f}, {low:.2f} to {high:.2f}" in report
    assert RunFolder.open(tmp_path / "auto").info()["expected"] == [mean, low, high]


def test_without_a_held_out_part_nothing_is_expected(tiny: Path, tmp_path: Path) -> None:
    assert adapted(tiny, tmp_path, validation=0.0).expected is None
    assert "No IoU can be expected" in (tmp_path / "auto" / "choice.md").read_text("utf-8")
