"""The label-free guards of an adaptation: collapse, explosion and forgetting are refused, whatever came before."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from napari_em_da.config import LossConfig, TrainConfig
from napari_em_da.events import Metric
from napari_em_da.losses import segmentation_loss
from napari_em_da.methods import METHODS
from napari_em_da.methods._base import Setup
from napari_em_da.models._base import SegmentationNet
from napari_em_da.sampling import Sample
from napari_em_da.training.folder import RunFolder
from napari_em_da.workflows.validation import Validation


class Threshold(SegmentationNet):
    """Foreground where the image is positive."""

    divisor, halo_px, margin_px, classes = (1, 1), (0, 0), (0, 0), 2

    def forward_taps(self, image: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        return torch.cat([-image, image], 1), {}


def judge(
    tmp_path: Path, source: float, target: float, wrong: float = 0.0, logged: float | None = None
) -> dict[str, Any]:
    """Validate with a share of foreground in source and target, and a share of wrong source labels."""

    def sample(share: float, labels: torch.Tensor | None = None) -> Sample:
        image = torch.where(torch.arange(1000).reshape(1, 1, 20, 50) < 1000 * share, 1.0, -1.0)
        return Sample(image, labels)

    truth = (sample(source - wrong).image[:, 0] > 0).long()
    config = SimpleNamespace(classes={"mito": (1,)})
    plan: Any = SimpleNamespace(config=config, device=torch.device("cpu"), dtype=None)
    folder = RunFolder(tmp_path)
    if logged is not None:
        folder.log(1, {"val/iou": logged})
    method = METHODS["supervised"].create(Setup(Threshold(), segmentation_loss(LossConfig()), (20, 50), 1, 1e-3))
    check = Validation(plan, folder, [sample(source, truth)], [sample(target)])
    (metric,) = [e for e in check(method, 7) if isinstance(e, Metric)]
    return dict(metric.values)


def test_a_plausible_target_passes_and_later_is_better(tmp_path: Path) -> None:
    values = judge(tmp_path, source=0.2, target=0.3)
    assert values["val/iou"] == 1.0
    assert values["target/foreground"] == pytest.approx(0.3)
    assert values["score"] == 7


@pytest.mark.parametrize("target", [0.0, 0.04, 0.9])
def test_collapse_and_explosion_get_no_score(tmp_path: Path, target: float) -> None:
    assert "score" not in judge(tmp_path, source=0.2, target=target)


def test_forgetting_the_source_gets_no_score(tmp_path: Path) -> None:
    half_right = judge(tmp_path, source=0.2, target=0.2, wrong=0.1, logged=0.9)
    assert half_right["val/iou"] == pytest.approx(0.5)
    assert "score" not in half_right
    (tmp_path / "other").mkdir()
    assert "score" in judge(tmp_path / "other", source=0.2, target=0.2, wrong=0.1)


def test_labels_of_the_target_have_no_place_in_a_job() -> None:
    from napari_em_da.config import ImageConfig

    assert TrainConfig.model_fields["target"].annotation == tuple[ImageConfig, ...]
    assert set(ImageConfig.model_fields) == {"image", "voxel_nm"}
