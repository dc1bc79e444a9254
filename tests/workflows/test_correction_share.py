"""What a round keeps of what it learned, and what it reads of the source."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from napari_em_da.config import SamplingConfig
from napari_em_da.volume import Volume
from napari_em_da.workflows import correction_source
from napari_em_da.workflows.correction_share import LOOKS, SHARES, between, bound, keep_share
from napari_em_da.workflows.correction_source import excerpt
from napari_em_da.workflows.plan import IGNORE, LabelledVolume


def trained() -> tuple[torch.nn.Module, dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2))
    start = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += torch.randn_like(parameter)
    return network, start, {name: tensor.clone() for name, tensor in network.state_dict().items()}


@pytest.mark.parametrize("least", [-1.0, *np.linspace(0, 1.02, 23)])
def test_the_largest_share_that_scores_enough_is_kept(least: float) -> None:
    """On a score that falls along the line, against looking at every share."""
    network, start, end = trained()
    looks = []

    def share_now() -> float:
        moved = (network.state_dict()["0.weight"] - start["0.weight"]).norm()
        return float(moved / (end["0.weight"] - start["0.weight"]).norm())

    def look() -> float:
        looks.append(share_now())
        return 1 - looks[-1] ** 2

    found = keep_share(network, start, look, lambda score: score, min(least, 1.0), 1.0)
    expected = max(share for share in SHARES if share == 0 or 1 - share**2 >= least - 1e-6)
    assert found.share == expected and len(looks) <= LOOKS
    assert found.found == pytest.approx(1 - expected**2, abs=1e-6)
    assert share_now() == pytest.approx(expected, abs=1e-6)
    for name, tensor in network.state_dict().items():
        want = start[name].double() * (1 - expected) + end[name].double() * expected
        torch.testing.assert_close(tensor.double(), want, atol=1e-6, rtol=0)


def test_what_is_kept_scores_enough_even_where_the_score_goes_up_and_down() -> None:
    for seed in range(50):
        network, start, _ = trained()
        scores = np.random.default_rng(seed).random(100)
        calls: list[float] = []

        def look(scores: Any = scores, calls: list[float] = calls) -> float:
            calls.append(float(scores[len(calls)]))
            return calls[-1]

        found = keep_share(network, start, look, lambda score: score, 0.7, 0.9)
        assert found.found >= 0.7 and (found.share > 0 or found.found == 0.9)


def test_both_ends_are_exact_and_nothing_known_asks_for_nothing() -> None:
    network, start, end = trained()
    assert all(torch.equal(between(start, end, 0)[name], start[name]) for name in start)
    assert all(torch.equal(between(start, end, 1)[name], end[name]) for name in start)
    for least, score in ((None, 0.0), (0.5, None)):
        assert keep_share(network, start, lambda: None, lambda _, score=score: score, least, None).share == 1
    assert all(torch.equal(network.state_dict()[name], end[name]) for name in end)


def test_the_bound_counts_from_the_first_round_and_asks_for_no_gain() -> None:
    assert bound(0.8, 0.8, 0.02) == pytest.approx(0.78)
    assert bound(0.8, 0.79, 0.02) == pytest.approx(0.78)
    assert bound(0.8, 0.7, 0.02) == 0.7
    assert bound(0.8, 0.9, 0) == 0.8
    assert bound(0.8, 0.8, 1) is None is bound(None, 0.8, 0.02) is bound(0.8, None, 0.02)


def volume(shape: tuple[int, ...], labelled: list[int]) -> LabelledVolume:
    rng = np.random.default_rng(0)
    labels = np.full(shape, IGNORE, np.uint8)
    labels[labelled] = rng.integers(0, 3, shape)[labelled]
    image = Volume.from_array(rng.integers(0, 256, shape, dtype=np.uint8), voxel_nm=(20, 5, 5))
    return LabelledVolume(image, labels)


def plan(ndim: int, validation: float) -> Any:
    sampling = SamplingConfig(validation=validation)
    return SimpleNamespace(
        network=SimpleNamespace(ndim=ndim), config=SimpleNamespace(sampling=sampling), patch=(6, 8, 8), section_nm=40.0
    )


@pytest.mark.parametrize(("ndim", "validation"), [(2, 0.25), (2, 0.0), (3, 0.25)])
def test_an_excerpt_is_a_part_of_the_volume(ndim: int, validation: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(correction_source, "SIDE", 24)
    item = volume((30, 20, 40), [3, 17, 18, 25])
    found = excerpt(item, plan(ndim, validation), 4)
    image, labels = item.image.read(), np.asarray(item.labels)
    cut = 40 if validation == 0 else 30
    x0 = min(cut - 12, 40 - 24)
    assert found.image.shape[1:] == (20, 24) and found.intensity == item.image.intensity
    sections = [next(z for z in range(30) if np.array_equal(image[z, :, x0 : x0 + 24], part)) for part in found.image]
    np.testing.assert_array_equal(found.labels, labels[sections][:, :, x0 : x0 + 24])
    if ndim == 2:
        assert sorted(sections) == [3, 17, 18, 25], "the sections that are labelled"
    else:
        assert sections == list(range(sections[0], sections[0] + 12)), "6 sections of 40 nm are 12 of 20 nm"
    first, second = found.parts()
    assert first.region[2] == slice(0, cut - x0)
    assert second is None if validation == 0 else second.region[2] == slice(30 - x0, 24)


def test_an_excerpt_takes_the_look_of_the_target() -> None:
    item = volume((8, 20, 40), list(range(8)))
    other = Volume.from_array(np.random.default_rng(1).normal(1000, 50, (4, 30, 30)).astype(np.float32))
    first, second = excerpt(item, plan(2, 0.25), 3).parts(other.intensity)
    assert first.volume.intensity == second.volume.intensity == other.intensity
    assert float(np.median(first.volume.read())) == pytest.approx(1000, abs=5)


def test_sections_without_labels_are_no_source(tmp_path: Path) -> None:
    item = volume((8, 20, 40), [])
    assert excerpt(item, plan(2, 0.25), 3).parts() == (None, None)
