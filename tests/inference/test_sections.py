"""Interleaved stacks equal the same network run by hand on every k-th section."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from napari_em_da import jobs
from napari_em_da.errors import ConfigError
from napari_em_da.events import Progress
from napari_em_da.inference import Outputs, predict
from napari_em_da.inference.sections import interleaved, of_sections
from napari_em_da.models._base import SegmentationNet
from napari_em_da.volume import Intensity, Volume

IDENTITY = Intensity(tuple(np.linspace(-1e6, 1e6, 257)), 0.0, 1.0)  # the network sees the raw voxels
OPTIONS = {"precision": "fp32", "device": "cpu", "intensity": IDENTITY, "classes": 3}


class Plain(SegmentationNet):
    """Three convolutions, same-padded; input along z on the grid of 2, since it pools and upsamples once."""

    def __init__(self, ndim: int = 3) -> None:
        super().__init__()
        conv = {2: nn.Conv2d, 3: nn.Conv3d}[ndim]
        self.ndim, self.in_channels, self.classes = ndim, 1, 3
        self.divisor, self.halo_px, self.margin_px = (2,) * ndim, (8,) * ndim, (0,) * ndim
        self.pool = {2: nn.MaxPool2d, 3: nn.MaxPool3d}[ndim](2)
        self.first = nn.Sequential(conv(1, 4, 3, padding=1), nn.ReLU())
        self.second = nn.Sequential(conv(4, 4, 3, padding=1), nn.ReLU())
        self.up = nn.Upsample(scale_factor=2)
        self.last = conv(8, 3, 1)

    @property
    def head(self) -> nn.Module:
        return self.last

    def forward_taps(self, image: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        fine = self.first(image)
        return self.last(torch.cat((fine, self.up(self.second(self.pool(fine)))), 1)), {}


def network(ndim: int = 3) -> Plain:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return Plain(ndim).eval()


def noise(depth: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(depth, 20, 26)).astype(np.float32)


def by_hand(net: SegmentationNet, image: np.ndarray) -> np.ndarray:
    """Probabilities (C, Z, Y, X) of a stack, mirrored to an even number of sections, by plain torch and numpy."""
    odd = image.shape[0] % 2
    padded = image
    if odd:
        padded = np.concatenate([image, image[-2:-1] if len(image) > 1 else image])
    with torch.no_grad():
        logits = net(torch.from_numpy(padded)[None, None])[0]
    return logits.softmax(0)[:, : image.shape[0]].numpy()


def predicted(net: SegmentationNet, volume: Volume, store: Path, **options: Any) -> tuple[np.ndarray, np.ndarray, list]:
    events: list = []
    job = predict(net, volume, Outputs(store, probabilities=True), **{**OPTIONS, **options})
    result = jobs.run(job, on_event=events.append)
    return result.labels().read(), np.moveaxis(result.probabilities().read(), -1, 0), events


@pytest.mark.parametrize("memory_bytes", [None, 400_000])
@pytest.mark.parametrize(("depth", "step"), [(23, 3), (20, 10), (4, 7), (12, 2)])
def test_every_section_is_segmented_among_its_own_stack(
    tmp_path: Path, depth: int, step: int, memory_bytes: int | None
) -> None:
    net, image = network(), noise(depth)
    labels, probs, events = predicted(
        net, Volume.from_array(image), tmp_path / "s", section_step=float(step), memory_bytes=memory_bytes
    )
    expected = np.full((3, *image.shape), np.nan, np.float32)
    for phase in range(min(step, depth)):
        expected[:, phase::step] = by_hand(net, image[phase::step])
    np.testing.assert_allclose(probs, expected, atol=1e-5)
    np.testing.assert_array_equal(labels, probs.argmax(0))
    plain = by_hand(net, image)
    assert np.abs(plain - expected).max() > 0.01  # neighbours do matter to this network
    done = [(e.done, e.total) for e in events if isinstance(e, Progress)]
    assert done == [(i, done[-1][1]) for i in range(done[-1][1] + 1)]
    if memory_bytes is not None and depth // step > 6:
        assert len(done) - 1 > step  # little memory means several blocks per stack


def test_a_step_between_whole_numbers_takes_the_nearest_sections(tmp_path: Path) -> None:
    net, image = network(), noise(11)
    # 30 nm sections, trained at 50: nearest to 0, 1.67, 3.33, 5, … and the same from section 1 on
    stacks = [[0, 2, 3, 5, 7, 8, 10], [1, 3, 4, 6, 8, 9]]
    assert [s.tolist() for s in interleaved(11, 5 / 3)] == stacks
    _, probs, _ = predicted(net, Volume.from_array(image), tmp_path / "s", section_step=5 / 3)
    expected = np.full((3, *image.shape), np.nan, np.float32)
    for stack in stacks:  # 3 and 8 are in both; the later one stays
        expected[:, stack] = by_hand(net, image[stack])
    np.testing.assert_allclose(probs, expected, atol=1e-5)


@pytest.mark.parametrize("step", [1.0, 1.03, 1.5, 2.0, 2.499, 3.7, 10.0, 31.4])
def test_stacks_hold_every_section_in_order(step: float) -> None:
    for depth in (1, 2, 9, 40):
        stacks = interleaved(depth, step)
        assert set(np.concatenate(stacks)) == set(range(depth))
        assert len(stacks[0]) == max(map(len, stacks))
        for first, stack in enumerate(stacks):
            ideal = first + step * np.arange(len(stack))
            assert (np.abs(stack - ideal) <= 0.5 + 1e-9).all() and (np.diff(stack) > 0).all()


def test_a_stopped_job_goes_on_where_it_was(tmp_path: Path) -> None:
    net, volume = network(), Volume.from_array(noise(13))
    job = predict(net, volume, Outputs(tmp_path / "s", probabilities=True), section_step=4.0, **OPTIONS)
    for event in job:
        if isinstance(event, Progress) and event.done == 2:
            break
    job.close()
    _, probs, events = predicted(net, volume, tmp_path / "s", section_step=4.0)
    assert next(e.done for e in events if isinstance(e, Progress)) == 2
    _, whole, _ = predicted(net, volume, tmp_path / "whole", section_step=4.0)
    np.testing.assert_array_equal(probs, whole)
    _, other, events = predicted(net, volume, tmp_path / "s", section_step=1.0)  # another job, so nothing is kept
    assert next(e.done for e in events if isinstance(e, Progress)) == 0
    np.testing.assert_allclose(other, by_hand(net, volume.read()), atol=1e-5)


def test_2d_networks_see_single_sections_whatever_the_step(tmp_path: Path) -> None:
    net, volume = network(2), Volume.from_array(noise(5))
    _, plain, _ = predicted(net, volume, tmp_path / "a")
    _, stepped, _ = predicted(net, volume, tmp_path / "b", section_step=3.0)
    np.testing.assert_array_equal(plain, stepped)


def test_sections_are_never_made_up(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"section_step 0\.5 would make up sections"):
        predicted(network(), Volume.from_array(noise(4)), tmp_path / "s", section_step=0.5)


def test_chosen_sections_are_read_lazily() -> None:
    image = noise(9)
    view = of_sections(Volume.from_array(image), np.array([1, 4, 7]))
    assert view.shape == (3, 20, 26)
    np.testing.assert_array_equal(view.read((slice(1, 3), slice(2, 5))), image[[4, 7], 2:5])
    np.testing.assert_array_equal(view.data.compute(), image[[1, 4, 7]])
