"""What is chosen, what never is, and how it is reported."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from napari_em_da.errors import ConfigError
from napari_em_da.selection.ranking import SOURCE_ONLY, Candidate, choose, rank_correlation, report

CRITERIA = ("a", "b", "c")


def candidate(name: str, step: int, *values: float, refused: tuple[str, ...] = ()) -> Candidate:
    return Candidate(name, step, dict(zip(CRITERIA, values, strict=False)), refused)


def test_the_best_mean_rank_wins() -> None:
    found = [candidate(SOURCE_ONLY, 100, 1, 1, 3), candidate("mmd", 50, 3, 2, 2), candidate("dann", 50, 2, 3, 1)]
    choice = choose(found, CRITERIA)
    assert [c.name for c in choice.order] == ["mmd", "dann", SOURCE_ONLY]
    assert choice.ranks == pytest.approx((5 / 3, 2, 7 / 3))
    assert choice.candidate is found[1] and choice.warning is None
    assert "mmd, step 50" in choice.why and "1.67" in choice.why
    assert choose(found, ["c"]).candidate.name == SOURCE_ONLY


def test_ties_go_to_the_later_checkpoint() -> None:
    found = [candidate(SOURCE_ONLY, 10, 0.5), candidate("mmd", 300, 0.5), candidate("mmd", 200, 0.5)]
    for order in (found, found[::-1]):
        choice = choose(order, ["a"])
        assert choice.candidate.key == ("mmd", 300)
        assert "ties" in choice.why


def test_none_passes_keeps_the_source_model_with_a_warning() -> None:
    found = [candidate(SOURCE_ONLY, 10, 0.1, refused=("x",)), candidate("mmd", 10, 0.9, refused=("y",))]
    choice = choose(found, ["a"])
    assert choice.candidate is found[0] and choice.order == ()
    assert choice.warning is not None and "Warning" in report(found, choice)


def test_nan_and_missing_scores_rank_last() -> None:
    found = [candidate(SOURCE_ONLY, 1, -9e9), candidate("x", 2, float("nan")), candidate("y", 3)]
    assert choose(found, ["a"]).candidate.name == SOURCE_ONLY


def test_a_collapsed_candidate_with_the_best_scores_is_not_selected() -> None:
    found = [
        candidate(SOURCE_ONLY, 0, 0.6, 0.6, 0.6),
        candidate("collapsed", 900, 1.0, 7.6, 1.0, refused=("0.00% of the target is mito.",)),
        candidate("good", 500, 0.8, 0.8, 0.8),
    ]
    assert choose(found, CRITERIA).candidate.name == "good"


@pytest.mark.parametrize("seed", range(200))
def test_properties_of_any_choice(seed: int) -> None:
    rng = np.random.default_rng(seed)
    count = int(rng.integers(0, 12))
    values = rng.integers(0, 4, (count + 1, 3)).astype(float)  # many ties
    values[rng.random(values.shape) < 0.05] = np.nan
    collapsed = rng.random(count + 1) < 0.4
    values[collapsed] += 10  # the better for being collapsed
    names = [SOURCE_ONLY, *(f"m{rng.integers(3)}-{i}" for i in range(count))]
    found = [
        candidate(name, int(rng.integers(5)), *row, refused=("collapsed",) if bad else ())
        for name, row, bad in zip(names, values.tolist(), collapsed, strict=True)
    ]
    choice = choose(found, CRITERIA)
    if collapsed.all():
        assert choice.candidate.name == SOURCE_ONLY and choice.warning
        return
    assert not choice.candidate.refused
    assert sorted(c.key for c in choice.order) == sorted(c.key for c in found if not c.refused)
    assert list(choice.ranks) == sorted(choice.ranks)
    shuffled = [found[i] for i in rng.permutation(len(found))]
    assert choose(shuffled, CRITERIA).candidate == choice.candidate
    best = np.nan_to_num(list(choice.candidate.scores.values()), nan=-1)
    for other in choice.order:  # nobody who passes is better in all
        assert not (np.nan_to_num(list(other.scores.values()), nan=-1) > best).all()
    monotone = [Candidate(c.name, c.step, {k: np.exp(v) for k, v in c.scores.items()}, c.refused) for c in found]
    assert choose(monotone, CRITERIA).candidate.key == choice.candidate.key  # only ranks count


def test_lists_that_allow_no_choice() -> None:
    source = candidate(SOURCE_ONLY, 1, 0.5)
    with pytest.raises(ConfigError, match="source_only"):
        choose([candidate("mmd", 1, 0.5)], ["a"])
    with pytest.raises(ConfigError, match="occur twice: source_only, step 1"):
        choose([source, source], ["a"])
    with pytest.raises(ConfigError, match="Unknown score 'z'"):
        choose([source], ["z"])
    with pytest.raises(ConfigError, match="No criterion"):
        choose([source], [])


def test_rank_correlation_is_spearmans() -> None:
    rng = np.random.default_rng(0)
    found = [candidate("m", i, *rng.integers(0, 6, 3).astype(float)) for i in range(20)]
    truth = {c.key: float(rng.random()) for c in found[:15]}
    rho = rank_correlation(found, truth)
    for name in CRITERIA:
        expected = stats.spearmanr([c.scores[name] for c in found[:15]], list(truth.values())).statistic
        assert rho[name] == pytest.approx(expected)
    same = [candidate("m", i, 1.0) for i in range(3)]
    assert np.isnan(rank_correlation(same, {c.key: c.step / 3 for c in same})["a"])


def test_the_report_shows_everybody_and_marks_what_labels_told() -> None:
    found = [
        candidate(SOURCE_ONLY, 1, 0.1),
        candidate("mmd", 2, 0.9),
        candidate("dann", 3, 2.0, refused=("Gone | away.",)),
    ]
    choice = choose(found, ["a"])
    text = report(found, choice)
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + 3 and len({row.replace("\\|", "").count("|") for row in rows}) == 1
    assert "**mmd** (chosen) | 2 | 1.00 | 0.9 | pass" in text and "Gone \\| away." in text and choice.why in text
    assert "IoU" not in text
    marked = report(found, choice, {("dann", 3): 0.7, ("mmd", 2): 0.6})
    assert "from target labels, not used" in marked
    assert "for comparison only: dann, step 3 (IoU 0.700)" in marked
