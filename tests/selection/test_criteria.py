"""Each label-free criterion against its formula, and that better predictions score higher."""

from __future__ import annotations

import inspect
import math
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from napari_em_da.errors import ConfigError, DataError
from napari_em_da.selection import CRITERIA, DEFAULT_CRITERIA, scores
from napari_em_da.selection._base import Evidence, Reference
from napari_em_da.selection._shapes import Shapes
from napari_em_da.selection.neighbourhood import density


def test_the_catalog_lists_criteria_only() -> None:
    assert set(DEFAULT_CRITERIA) <= set(CRITERIA)
    assert not {"guards", "ranking", "evidence", "calibration"} & set(CRITERIA)
    assert len({CRITERIA[name].symbol for name in CRITERIA}) == len(CRITERIA.names())
    with pytest.raises(ConfigError, match="morphology"):
        CRITERIA["morfology"]


@pytest.mark.parametrize("name", list(CRITERIA))
def test_every_criterion_is_documented(name: str) -> None:
    text = inspect.getdoc(inspect.getmodule(CRITERIA[name].score)) or ""
    assert f"{CRITERIA[name].symbol} " in text and "Works" in text and "Fails" in text and "References\n---" in text


@pytest.mark.parametrize("name", list(CRITERIA))
def test_every_criterion_is_pure_and_prefers_the_cleaner_prediction(name: str, tissue: Any) -> None:
    clean, noisy = (CRITERIA[name](tissue.judged(noise)) for noise in (0.2, 1.0))
    assert math.isfinite(clean) and math.isfinite(noisy)
    assert clean == CRITERIA[name](tissue.judged(0.2))
    assert clean > noisy


@pytest.mark.parametrize("name", [n for n in CRITERIA if n != "neighbourhood"])
@pytest.mark.parametrize("share", [0, 1])
def test_collapse_scores_badly(name: str, share: int, tissue: Any) -> None:
    good, collapsed = tissue.judged(), tissue.of(np.full((8, 64, 64), share, bool), 0.0)
    assert CRITERIA[name](collapsed) < CRITERIA[name](good) or (name, share) == ("consistency", 1)
    assert math.isfinite(CRITERIA[name](collapsed))


def test_no_criterion_can_be_given_target_labels() -> None:
    assert {f.name for f in fields(Evidence)} == {"probs", "twins", "reference", "before"}
    labels = np.ones((2, 2, 8, 8), np.int64)
    reference = Reference.from_labels(np.eye(8, dtype=np.uint8)[None], ["mito"], (8, 8))
    with pytest.raises(DataError, match="float probabilities"):
        Evidence(labels, None, reference)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="labels"):
        Evidence(np.full((2, 2, 8, 8), 0.5, np.float32), None, reference, labels=labels)  # type: ignore[call-arg]


def test_bad_evidence_is_refused(blobs: Any) -> None:
    good = blobs.judged()
    with pytest.raises(DataError, match="add up to"):
        replace(good, probs=good.probs * 2)
    with pytest.raises(DataError, match="expected float probabilities"):
        replace(good, probs=good.probs[:, :1])
    with pytest.raises(DataError, match="twins has shape"):
        replace(good, twins=good.twins[:4])
    with pytest.raises(DataError, match="S_cons reads twins"):
        scores(replace(good, twins=None), ["consistency"])
    assert set(scores(replace(good, twins=None, before=None))) == set(CRITERIA) - {"consistency", "agreement"}


def test_a_diverged_network_has_no_score(blobs: Any) -> None:
    good = blobs.judged()
    diverged = replace(good, probs=np.full_like(good.probs, np.nan))
    assert all(math.isnan(value) for value in scores(diverged).values())


# neighbourhood: the figures of the specification


def test_density_of_known_vectors() -> None:
    assert density(np.tile([0.3, 0.7], (4, 1))) == pytest.approx(math.log(3), abs=1e-9) == pytest.approx(1.098612)
    pairs = np.array([[1, 0], [1, 0], [0, 1], [0, 1]])
    assert density(pairs) == pytest.approx(8.7e-8, rel=0.01)
    assert density(np.array([[0.2, 0.8], [0.9, 0.1]])) == 0.0  # one neighbour leaves no choice


def test_density_follows_its_formula() -> None:
    vectors = np.random.default_rng(0).dirichlet([1, 1, 1], 30)
    rows = []
    for i, v in enumerate(vectors):
        cosine = [v @ w / np.linalg.norm(v) / np.linalg.norm(w) / 0.05 for j, w in enumerate(vectors) if j != i]
        rows.append(stats.entropy(np.exp(np.array(cosine) - max(cosine))))
    assert density(vectors) == pytest.approx(np.mean(rows))


def test_total_collapse_maximises_the_density(blobs: Any) -> None:
    """Its known failure: why guards come before scores."""
    uniform = np.full((4, 64, 64), 0.8, np.float32)
    collapsed = Evidence(np.stack([uniform, 1 - uniform], 1), None, blobs.reference)
    assert CRITERIA["neighbourhood"](collapsed) == pytest.approx(math.log(999))  # the other class' places stay empty
    assert CRITERIA["neighbourhood"](blobs.judged()) < math.log(999)


# morphology


def test_solidity_is_compared_for_objects(blobs: Any) -> None:
    evidence = blobs.judged(0.0)
    expected = -abs(Shapes.of(blobs.make(2)).solidity - Shapes.of(blobs.make(1)).solidity)
    assert not blobs.reference.shapes[0].net
    assert CRITERIA["morphology"](evidence) == pytest.approx(expected)


def test_cells_and_share_are_compared_for_membranes(nets: Any) -> None:
    source, target = (Shapes.of(nets.make(seed)) for seed in (1, 2))
    assert nets.reference.shapes[0].net
    expected = abs(np.log(np.median(target.cells) / np.median(source.cells))) + abs(np.log(target.share / source.share))
    assert CRITERIA["morphology"](nets.judged(0.0)) == pytest.approx(-expected / 2)


def test_the_truth_of_the_source_scores_full_marks(tissue: Any) -> None:
    perfect = tissue.of(tissue.make(1), 0.0)
    for name in ("morphology", "sizes", "prior"):
        assert CRITERIA[name](perfect) == pytest.approx(0, abs=1e-12)


# the others


def test_consistency_and_agreement_are_ious() -> None:
    reference = Reference.from_labels(np.eye(8, dtype=np.uint8)[None], ["mito"], (8, 8))
    one, other = np.zeros((1, 8, 8)), np.zeros((1, 8, 8))
    one[0, :4], other[0, 2:6] = 1, 1
    both = [np.stack([1 - m, m], 1).astype(np.float32) for m in (one, other)]
    evidence = Evidence(both[0], both[1], reference, both[0])
    assert CRITERIA["consistency"](evidence) == pytest.approx(2 / 6)
    assert CRITERIA["agreement"](evidence) == 1.0


def test_shares_are_compared_by_their_logarithm() -> None:
    labels = np.zeros((1, 20, 20), np.uint8)
    labels[0, :4] = 1  # a fifth
    reference = Reference.from_labels(labels, ["mito"], (20, 20))
    for rows in (2, 8):
        mask = np.zeros((1, 20, 20), np.float32)
        mask[0, :rows] = 1
        evidence = Evidence(np.stack([1 - mask, mask], 1), None, reference)
        assert CRITERIA["prior"](evidence) == pytest.approx(-math.log(2))


def test_doubt_is_counted_per_pixel_of_border() -> None:
    reference = Reference.from_labels(np.eye(8, dtype=np.uint8)[None], ["mito"], (8, 8))
    foreground = np.full((1, 8, 8), 0.1, np.float32)
    foreground[0, :4] = 0.9
    foreground[0, 3, :4] = 0.55
    evidence = Evidence(np.stack([1 - foreground, foreground], 1), None, reference)
    assert CRITERIA["certainty"](evidence) == pytest.approx(-4 / 8)


def test_entropy_and_prior() -> None:
    labels = np.zeros((1, 8, 8), np.uint8)
    labels[0, :4] = 1
    reference = Reference.from_labels(labels, ["mito"], (8, 8))
    p = np.random.default_rng(0).uniform(0.05, 0.95, (2, 8, 8)).astype(np.float32)
    evidence = Evidence(np.stack([1 - p, p], 1), None, reference)
    entropy = stats.entropy(np.stack([1 - p, p]), base=2).mean()
    divergence = stats.entropy([0.5, 0.5], [1 - p.mean(), p.mean()])
    assert CRITERIA["entropy_prior"](evidence) == pytest.approx(-entropy - divergence, abs=1e-5)


def test_classes_are_averaged_over_those_the_source_has() -> None:
    labels = np.zeros((2, 32, 32), np.uint8)
    labels[:, 2:10, 2:10], labels[:, 20:26, 20:30] = 1, 3
    reference = Reference.from_labels(labels, ["mito", "synapse", "vesicle"], (32, 32))
    predicted = np.where(labels == 3, 0, labels)  # one class is missed
    evidence = Evidence(np.moveaxis(np.eye(4, dtype=np.float32)[predicted], -1, 1), None, reference)
    assert CRITERIA["prior"](evidence) == pytest.approx(-math.log(60 / 1024 * labels.size) / 2)
    assert CRITERIA["morphology"](evidence) == pytest.approx(-1 / 2)
