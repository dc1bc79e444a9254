"""The loss that a config describes, and weights that decay."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from napari_em_da.config import LossConfig
from napari_em_da.errors import ConfigError
from napari_em_da.losses import segmentation_loss
from napari_em_da.losses.cross_entropy import cross_entropy
from napari_em_da.losses.overlap import overlap_loss
from napari_em_da.losses.schedule import DecayedWeight


def case() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn((2, 3, 6, 7), generator=generator)
    labels = torch.randint(0, 3, (2, 6, 7), generator=generator)
    return logits, labels, torch.rand(labels.shape, generator=generator)


def test_terms_carry_value_and_weight() -> None:
    config = LossConfig(cross_entropy=0.5, reduction="sum", overlap="jaccard", overlap_weight=2)
    terms = segmentation_loss(config)(*case())
    assert {name: term.weight for name, term in terms.items()} == {"cross_entropy": 0.5, "jaccard": 2}
    torch.testing.assert_close(terms["cross_entropy"].value, cross_entropy(*case(), "sum"))
    torch.testing.assert_close(terms["jaccard"].value, overlap_loss(*case(), "jaccard"))


def test_weights_may_be_absent() -> None:
    logits, labels, _ = case()
    ones = segmentation_loss(LossConfig())(logits, labels, torch.ones(labels.shape))
    none = segmentation_loss(LossConfig())(logits, labels, None)
    for name in ones:
        torch.testing.assert_close(ones[name].value, none[name].value)


def test_terms_can_be_switched_off() -> None:
    assert list(segmentation_loss(LossConfig(overlap="none"))(*case())) == ["cross_entropy"]
    assert list(segmentation_loss(LossConfig(overlap_weight=0))(*case())) == ["cross_entropy"]
    assert list(segmentation_loss(LossConfig(cross_entropy=0))(*case())) == ["dice"]
    with pytest.raises(ConfigError, match="no term"):
        segmentation_loss(LossConfig(cross_entropy=0, overlap="none"))


def test_importing_the_package_does_not_load_torch() -> None:
    code = "import sys, napari_em_da.losses; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(("step", "weight"), [(0, 1), (9999, 1), (10_000, 0.1), (20_000, 0.01), (25_000, 0.01)])
def test_decayed_weight(step: int, weight: float) -> None:
    assert DecayedWeight()(step) == pytest.approx(weight)
    assert DecayedWeight(start=2, floor=0)(step) == pytest.approx(2 * 10.0 ** -(step // 10_000))
