"""Training on a share of the labelled sections: nested, counted, seeded, and nothing else is ever seen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest

from napari_em_da import cli
from napari_em_da.config import LabelledConfig, NetworkConfig, SamplingConfig, TrainConfig, TrainingConfig
from napari_em_da.errors import DataError
from napari_em_da.events import Notice
from napari_em_da.jobs import run
from napari_em_da.training.folder import RunFolder
from napari_em_da.volume import Volume
from napari_em_da.workflows.label_fraction import annotated_sections, chosen_sections, only
from napari_em_da.workflows.plan import make_plan, open_labelled
from napari_em_da.workflows.streams import reference
from napari_em_da.workflows.train import train

FRACTIONS = (0.01, 0.05, 0.15, 0.3, 0.5, 1.0)


@pytest.mark.parametrize(
    ("sections", "counts"),
    [(20, (1, 1, 3, 6, 10, 20)), (165, (2, 9, 25, 50, 83, 165)), (1, (1,) * 6), (3, (1, 1, 1, 1, 2, 3))],
)
def test_a_larger_share_holds_every_smaller_one(sections: int, counts: tuple[int, ...]) -> None:
    for seed in range(5):
        sets = [set(chosen_sections(range(sections), fraction, seed)) for fraction in FRACTIONS]
        assert tuple(map(len, sets)) == counts
        assert all(small <= large for small, large in zip(sets, sets[1:], strict=False))
        assert sets[-1] == set(range(sections))


def test_the_number_is_rounded_up_but_not_by_floating_point() -> None:
    assert 0.07 * 100 > 7
    assert len(chosen_sections(range(100), 0.07, 0)) == 7
    assert len(chosen_sections(range(100), 0.0701, 0)) == 8
    assert chosen_sections((), 0.5, 0) == ()


def test_the_seed_chooses_and_every_section_gets_its_turn() -> None:
    first = chosen_sections(range(20), 0.15, 3)
    assert first == chosen_sections(range(20), 0.15, 3) == chosen_sections(list(range(20))[::-1], 0.15, 3)
    counts = np.zeros(20, int)
    for seed in range(400):
        counts[list(chosen_sections(range(20), 0.15, seed))] += 1
    assert counts.sum() == 1200
    assert counts.min() > 30 and counts.max() < 90  # 60 +- 7 expected of a uniform choice


def test_sections_without_annotation_are_never_chosen() -> None:
    labels = np.full((12, 4, 5), 255, np.uint8)
    for z in (1, 4, 5, 11):
        labels[z, 3, 4] = 0
    found = annotated_sections(da.from_array(labels, chunks=(5, 4, 5)))
    assert found == (1, 4, 5, 11)
    for seed in range(30):
        assert set(chosen_sections(found, 0.5, seed)) < set(found)
        assert len(chosen_sections(found, 0.01, seed)) == 1


def test_the_other_sections_are_left_unread_until_asked_for() -> None:
    values = np.random.default_rng(0).integers(0, 3, (6, 4, 5), np.uint8)
    read: list[int] = []

    def note(block: np.ndarray) -> np.ndarray:
        read.append(len(block))
        return block

    lazy = da.from_array(values, chunks=(2, 4, 5)).map_blocks(note, dtype=np.uint8, meta=np.empty((0, 0, 0), np.uint8))
    kept = only(lazy, (0, 3))
    assert not read
    assert kept.dtype == np.uint8 and kept.shape == values.shape
    found = kept.compute(scheduler="synchronous")
    np.testing.assert_array_equal(found[[0, 3]], values[[0, 3]])
    assert (found[[1, 2, 4, 5]] == 255).all()


def config(tiny: Path, out: Path, fraction: float, seed: int = 0, **changes: Any) -> TrainConfig:
    base: dict[str, Any] = {
        "run": out,
        "source": (LabelledConfig(image=tiny / "A.tif", labels=tiny / "A-labels.tif", fraction=fraction),),
        "classes": {"mito": (2,)},
        "network": NetworkConfig(options={"features": 4, "levels": 2}),
        "sampling": SamplingConfig(patch_px=(1, 32, 32), batch=2, validation_patches=2),
        "training": TrainingConfig(
            steps=4, validate_every=2, checkpoint_every=4, device="cpu", precision="fp32", seed=seed
        ),
    }
    return TrainConfig(**{**base, **changes})


def with_labels(job: TrainConfig, path: Path, change: Callable[[np.ndarray], None]) -> TrainConfig:
    """Return the job with a changed copy of its label map."""
    (item,) = job.source
    labels = Volume.open(item.labels).read()
    change(labels)
    Volume.from_array(labels, voxel_nm=(8, 8, 8)).save(path)
    return job.model_copy(update={"source": (item.model_copy(update={"labels": path}),)})


def test_shares_and_shapes_are_those_of_the_chosen_sections(tiny: Path, tmp_path: Path) -> None:
    plan = make_plan(config(tiny, tmp_path / "run", 0.3, seed=5))
    chosen = chosen_sections(range(6), 0.3, 5)
    assert plan.source[0].sections == chosen and len(chosen) == 2
    truth = Volume.open(tiny / "A-labels.tif").read()[list(chosen)] == 2
    assert plan.prior == pytest.approx((1 - truth.mean(), truth.mean()))
    shapes = reference(plan, plan.patch)
    assert shapes.names == ("mito",)
    whole = open_labelled(LabelledConfig(image=tiny / "A.tif", labels=tiny / "A-labels.tif"), {"mito": (2,)}, None)
    assert whole.sections is None


def test_labels_of_other_sections_change_nothing(tiny: Path, tmp_path: Path) -> None:
    """Poison: with other labels in the sections that were not chosen, every weight stays the same."""
    job = config(tiny, tmp_path / "clean", 0.3)
    chosen = list(chosen_sections(range(6), 0.3, 0))

    def poison(labels: np.ndarray) -> None:
        labels[[z for z in range(6) if z not in chosen]] = 2

    events = list(train(job))
    poisoned = with_labels(job, tmp_path / "poisoned.tif", poison).model_copy(update={"run": tmp_path / "poisoned"})
    assert events[-1].result.digest == run(train(poisoned)).digest  # type: ignore[union-attr]
    assert RunFolder(tmp_path / "clean").info()["source"][0]["sections"] == chosen
    text = f"A-labels.tif: labels are used of 2 sections only ({', '.join(map(str, chosen))})."
    assert any(isinstance(e, Notice) and text in e.text for e in events)


def test_a_class_that_the_share_misses_names_the_share_and_the_remedy(tiny: Path, tmp_path: Path) -> None:
    outside = next(z for z in range(6) if z not in chosen_sections(range(6), 0.3, 0))

    def one_section(labels: np.ndarray) -> None:
        labels[[z for z in range(6) if z != outside]] = 0

    job = with_labels(config(tiny, tmp_path / "run", 0.3), tmp_path / "one.tif", one_section)
    with pytest.raises(DataError, match=r"'mito' \(label value 2\).*label fraction 0\.3 of .*one\.tif.*raise.*seed"):
        next(train(job))
    wrong = job.model_copy(update={"classes": {"mito": (9,)}})
    with pytest.raises(DataError, match=r"does not occur in the labels; they hold the values"):
        next(train(wrong))
    assert not (tmp_path / "run").exists()


def test_a_held_out_part_without_a_chosen_label_is_announced(tiny: Path, tmp_path: Path) -> None:
    """Only one section is annotated at the right edge, which is held out, and it is not among the chosen."""
    outside = next(z for z in range(6) if z not in chosen_sections(range(6), 0.3, 0))

    def edge(labels: np.ndarray) -> None:
        labels[[z for z in range(6) if z != outside], :, 140:] = 7

    job = config(tiny, tmp_path / "part", 0.3, ignore_label=7)
    part = with_labels(job, tmp_path / "edge.tif", edge)
    whole = part.model_copy(
        update={"run": tmp_path / "whole", "source": (part.source[0].model_copy(update={"fraction": 1.0}),)}
    )

    def announced(job: TrainConfig) -> bool:
        return "held-out part holds no label" in " ".join(e.text for e in list(train(job)) if isinstance(e, Notice))

    assert announced(part)
    assert RunFolder(tmp_path / "part").best.is_file()
    assert not announced(whole)


def test_the_command_line_takes_a_share(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["train", tiny / "A.tif", tiny / "A-labels.tif", "--classes", "mito=2", "--run", tmp_path / "run"]
    small = ["--network-option", "features=4", "--network-option", "levels=2", "--sampling.patch-px", "1", "32", "32"]
    small += ["--sampling.batch", "2", "--training.steps", "2", "--training.device", "cpu"]
    assert cli.main([*map(str, command), *small, "--label-fraction", "0.5"]) == 0
    assert len(RunFolder(tmp_path / "run").info()["source"][0]["sections"]) == 3
    capsys.readouterr()
    assert cli.main([*map(str, command), *small, "--label-fraction", "0"]) == 2
    assert "fraction" in capsys.readouterr().err
