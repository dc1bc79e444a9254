"""What is refused, and when a run has collapsed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tifffile import imread

from napari_em_da.selection._base import Evidence, Reference
from napari_em_da.selection.guards import SOURCE_SHARE, TARGET_SHARE, Guards, collapsed, unlike, vitals


def test_a_good_candidate_passes(tissue: Any) -> None:
    assert Guards().reasons(tissue.judged(), source_iou=0.85, best_source_iou=0.9) == ()
    assert Guards().reasons(tissue.judged()) == ()


def test_shares_that_differ_say_what_they_rule_out() -> None:
    def said(target: float, source: float) -> str | None:
        return unlike({TARGET_SHARE: 0.5, f"{TARGET_SHARE}/mito": target, f"{SOURCE_SHARE}/mito": source})

    assert said(0.1, 0.1) is said(0.034, 0.1) is said(0.29, 0.1) is said(0.1, 0.0) is unlike({}) is None
    rng, cells = np.random.default_rng(0), 1000
    for mine, true in ((40, 150), (400, 120), (0, 50)):
        text = said(mine / cells, true / cells) or ""
        bound = float(text.partition("at most ")[2].partition(",")[0])
        found, truth = np.arange(cells) < mine, np.arange(cells) < true  # one within the other: the best there is
        assert bound == pytest.approx((found & truth).sum() / (found | truth).sum(), abs=0.005)
        assert all((rng.permutation(found) & truth).sum() <= (found & truth).sum() for _ in range(20))


@pytest.mark.parametrize(("iou", "passes"), [(0.81, True), (0.809, False), (float("nan"), False)])
def test_the_source_score_may_drop_to_nine_tenths(iou: float, passes: bool, blobs: Any) -> None:
    reasons = Guards().reasons(blobs.judged(), source_iou=iou, best_source_iou=0.9)
    assert (not reasons) == passes
    assert passes or "0.810" in reasons[0]


def striped(rows: list[int], classes: int = 2) -> np.ndarray:
    """Return one-hot probabilities of windows (20, 20) with this many rows of class 1."""
    labels = np.zeros((len(rows), 20, 20), int)
    for window, count in zip(labels, rows, strict=True):
        window[:count] = 1
    return np.moveaxis(np.eye(classes, dtype=np.float32)[labels], -1, 1)


def reference(rows: list[int]) -> Reference:
    return Reference.from_labels(striped(rows).argmax(1), ["mito"], (20, 20))


@pytest.mark.parametrize(("rows", "passes"), [(1, True), (16, True), (17, False), (4, True)])
def test_the_share_stays_within_a_factor_of_four(rows: int, passes: bool) -> None:
    reasons = Guards().reasons(Evidence(striped([rows] * 5), None, reference([4] * 5)))
    assert (not reasons) == passes
    assert passes or "outside 5.00% to 80.00%" in reasons[0]


@pytest.mark.parametrize(("empty", "passes"), [(0, True), (1, True), (2, False), (9, False)])
def test_fewer_than_a_fifth_of_the_windows_are_empty(empty: int, passes: bool) -> None:
    evidence = Evidence(striped([0] * empty + [8] * (10 - empty)), None, reference([4] * 10))
    reasons = Guards().reasons(evidence)
    assert (not reasons) == passes


def test_windows_that_are_empty_in_the_source_may_be_empty() -> None:
    evidence = Evidence(striped([0] * 6 + [8] * 4), None, reference([0] * 5 + [8] * 5))
    assert Guards().reasons(evidence) == ()
    assert Guards().reasons(Evidence(evidence.probs, None, reference([4] * 10)))


def test_a_class_that_the_source_lacks_guards_nothing() -> None:
    source = Reference.from_labels(striped([4] * 5).argmax(1), ["mito", "synapse"], (20, 20))
    assert Guards().reasons(Evidence(striped([4] * 5, 3), None, source)) == ()


def test_a_diverged_network_is_refused(blobs: Any) -> None:
    good = blobs.judged()
    assert "NaN" in Guards().reasons(replace(good, probs=np.full_like(good.probs, np.nan)))[0]


@pytest.mark.parametrize("share", [0, 1])
def test_a_collapsed_network_is_refused(share: int, tissue: Any) -> None:
    assert Guards(foreground=(0.25, 2.0)).reasons(tissue.of(np.full((8, 64, 64), share, bool), 0.0))


@pytest.mark.parametrize("window", [64, 96, 192, 256])
def test_two_real_tissues_accept_each_other(window: int, real_data: Path) -> None:
    """The guards must not refuse the truth: mitochondria are half as frequent in the fly as in the mouse."""
    mouse = imread(real_data / "epfl_hippocampus" / "labels.tif")[::5]
    fly = imread(real_data / "vnc_sstem" / "labels.tif")[::5]
    size = (window, window)
    for classes, net in (((2, 3), False), ((1, 1), True)):
        masks = [(labels == index).astype(np.uint8) for labels, index in zip((mouse, fly), classes, strict=True)]
        references = [Reference.from_labels(mask, ["x"], size) for mask in masks]
        assert [reference.shapes[0].net for reference in references] == [net, net]
        for source, target in (references, references[::-1]):
            truth = Evidence(np.full((1, 2, *size), 0.5, np.float32), None, source)
            vars(truth)["shapes"] = target.shapes  # as if the target had been predicted without an error
            assert Guards().reasons(truth) == ()


def history(*shares: float, prior: float = 0.1) -> list[dict[str, float]]:
    return [{"step": float(i), TARGET_SHARE: s, SOURCE_SHARE: prior} for i, s in enumerate(shares)]


@pytest.mark.parametrize(
    ("shares", "reason"),
    [
        ((), None),
        ((0.1, 0.08, 0.12), None),
        ((0.1, 0.0005), "vanished"),
        ((0.1, 0.9995), "flooded"),
        ((0.1, float("nan")), "vanished"),
        ((0.0,), None),  # a poor source model may still learn
        ((0.0, 0.1), None),
        ((0.0, 0.0), "vanished"),
        ((0.1, 0.45), None),  # once may be chance
        ((0.1, 0.45, 0.1, 0.01), None),
        ((0.1, 0.45, 0.5), "two successive"),
        ((0.1, 0.02, 0.02), "two successive"),
        ((0.45, 0.5, 0.6), None),  # never was within its bounds
        ((0.1, 0.45, 0.5, 0.1), None),  # came back
    ],
)
def test_collapse_is_told_from_the_log(shares: tuple[float, ...], reason: str | None) -> None:
    verdict = collapsed(history(*shares))
    assert verdict is None if reason is None else verdict is not None and reason in verdict


def test_each_class_is_watched_and_other_lines_are_skipped() -> None:
    mito = ({f"{TARGET_SHARE}/mito": share, f"{SOURCE_SHARE}/mito": 0.05} for share in (0.05, 0.05, 0))
    lines = [line | of_class for line, of_class in zip(history(0.1, 0.1, 0.1), mito, strict=True)]
    verdict = collapsed([lines[0], {"step": 1.0, "loss": 2.0}, *lines[1:]])
    assert verdict is not None and verdict.startswith("mito vanished")


def test_vitals_feed_the_verdict(blobs: Any) -> None:
    good, gone = vitals(blobs.judged()), vitals(blobs.of(np.zeros((8, 64, 64), bool), 0.0))
    assert collapsed([good, good]) is None
    assert collapsed([good, gone]) is not None
    assert good[f"{SOURCE_SHARE}/mito"] == pytest.approx(blobs.make(1).mean())
    assert good["source/regions/mito"] == len(blobs.reference.shapes[0].areas) / 8
    assert 0 < gone["target/entropy"] < good["target/entropy"] < 1
