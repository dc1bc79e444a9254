"""The pixel size that an entry of the portfolio works at."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from napari_em_da.config import AdaptConfig, SamplingConfig, TrainConfig
from napari_em_da.training.folder import RunFolder
from napari_em_da.volume import Volume
from napari_em_da.workflows.auto import at_pixel

Size = tuple[float, float, float]


def job(
    folder: Path, *targets: Size | None, trained: float | None = 8.0, configured: float | None = None
) -> AdaptConfig:
    """A run that was trained at ``trained`` nm, and targets of these voxel sizes."""
    noise = np.random.default_rng(0).integers(0, 255, (2, 16, 16), dtype=np.uint8)
    images = []
    for number in range(len(targets)):
        images.append(Volume.from_array(noise).save(folder / f"{number}.tif"))
    run = RunFolder.create(folder / "run")
    source = {"image": folder / "a.tif", "labels": folder / "b.tif"}
    run.write_config(TrainConfig(run=run.path, source=(source,), classes={"mito": (1,)}))
    run.update_info({"pixel_nm": trained})
    items = tuple({"image": image, "voxel_nm": size} for image, size in zip(images, targets, strict=True))
    sampling = SamplingConfig(batch=3) if configured is None else SamplingConfig(batch=3, pixel_nm=configured)
    return AdaptConfig(run=run.path, target=items, out=folder / "out", sampling=sampling)


@pytest.mark.parametrize(
    ("targets", "configured", "expected"),
    [
        (((50, 5, 5),), None, 8.0),  # 1.6 x the target's 5 nm, not x the run's 8 nm
        (((50, 4, 9),), None, 9.6),  # in-plane sizes that differ: their geometric mean is 6
        (((50, 5, 5), (50, 20, 20)), None, 8.0),  # of several targets the first, as for the other entries
        (((50, 5, 5),), 10.0, 16.0),
    ],
)
def test_the_factor_multiplies_what_factor_1_works_at(
    tmp_path: Path, targets: tuple[Size, ...], configured: float | None, expected: float
) -> None:
    config = job(tmp_path, *targets, configured=configured)
    sampling = at_pixel(config, 1.6)
    assert sampling.pixel_nm == pytest.approx(expected)
    assert sampling.batch == 3
    assert sampling.model_fields_set == {"batch", "pixel_nm"}
    assert at_pixel(config, 1.0) == config.sampling


@pytest.mark.parametrize(("target", "trained"), [(None, 8.0), ((50.0, 5.0, 5.0), None), (None, None)])
def test_unknown_sizes_leave_the_sampling_as_it_is(tmp_path: Path, target: Size | None, trained: float | None) -> None:
    config = job(tmp_path, target, trained=trained)
    assert at_pixel(config, 1.6) == config.sampling
