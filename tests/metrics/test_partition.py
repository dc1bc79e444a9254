"""Partition scores against the specification's numbers, scikit-image, scikit-learn and direct pair counts."""

from __future__ import annotations

import math
from itertools import combinations

import dask.array as da
import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt
from skimage.metrics import adapted_rand_error, variation_of_information
from sklearn import metrics as sk

from napari_em_da.config import ScoringConfig
from napari_em_da.errors import ConfigError, DataError
from napari_em_da.metrics import evaluate_arrays
from napari_em_da.metrics._agreement import SCORES, agreement, rand_terms
from napari_em_da.metrics._contingency import Contingency, contingency
from napari_em_da.metrics.partition import FAMILY

ALL = tuple(SCORES)
TRUTH = np.array([[[1, 1, 1, 1, 2, 2, 2, 2]]], np.uint8)
# prediction: AB, A, B; ARAND of ours, scikit-image, elf; VI split, merge; V_info
ORACLES = {
    "55559999": ((32, 32, 32), (0, 0, 0), (0, 0), 1),
    "11111111": ((32, 32, 64), (1 / 3, 0.4, 1 / 3), (0, 1), 0),
    "11223333": ((24, 32, 24), (1 / 7, 0.2, 1 / 7), (0.5, 0), 0.8),
    "11111122": ((24, 32, 40), (1 / 3, 0.428571, 1 / 3), (0.5, 0.688722), 0.343711),
    "11102220": ((20, 32, 20), (0.230769, 0.368421, 0.259259), (0.811278, 0), 0.711420),
}


def digits(text: str) -> np.ndarray:
    return np.array([[[int(c) for c in text]]], np.uint8)


def cells(shape: tuple[int, int, int], count: int, seed: int, zeros: float = 0.1) -> np.ndarray:
    """Voronoi cells, with a share of voxels set to 0."""
    rng = np.random.default_rng(seed)
    seeds = np.zeros(shape, np.int64)
    seeds.flat[rng.choice(seeds.size, count, replace=False)] = np.arange(1, count + 1)
    nearest = distance_transform_edt(seeds == 0, return_distances=False, return_indices=True)
    labels = seeds[tuple(nearest)]
    labels[rng.random(shape) < zeros] = 0
    return labels


def singletons(prediction: np.ndarray) -> np.ndarray:
    """Give each voxel of value 0 an id of its own."""
    out = prediction.astype(np.int64)
    out[out == 0] = out.max() + 1 + np.arange((out == 0).sum())
    return out


PAIRS = [(cells((4, 24, 30), n, n), cells((4, 24, 30), m, m + 50)) for n, m in ((5, 9), (20, 8), (40, 40), (1, 7))]
pairs = pytest.mark.parametrize(("guess", "truth"), PAIRS)


@pytest.mark.parametrize("text", ORACLES)
def test_specified_numbers(text: str) -> None:
    ab_a_b, arands, (split, merge), information = ORACLES[text]
    guess = digits(text)
    assert rand_terms(contingency(guess, TRUTH)) == ab_a_b
    scores = evaluate_arrays(guess, TRUTH, ALL)
    ab, a, b = ab_a_b
    assert scores["vrand"] == pytest.approx(ab / (0.5 * a + 0.5 * b))
    assert (scores["vrand_split"], scores["vrand_merge"]) == (ab / a, ab / b)
    for parity, expected in zip(("none", "skimage", "elf"), arands, strict=True):
        assert evaluate_arrays(guess, TRUTH, ["arand"], parity=parity)["arand"] == pytest.approx(expected, abs=1e-6)
    assert (scores["vi_split"], scores["vi_merge"]) == pytest.approx((split, merge), abs=1e-6)
    assert scores["vi"] == pytest.approx(split + merge, abs=1e-6)
    assert scores["vinfo"] == pytest.approx(information, abs=1e-6)
    assert scores["cremi_score"] == pytest.approx(math.sqrt((split + merge) * arands[0]), abs=1e-6)
    assert not scores.undefined


def test_specified_numbers_of_other_conventions() -> None:
    for parity in ("skimage", "elf"):
        scores = evaluate_arrays(digits("11102220"), TRUTH, ["vi_split", "vi_merge"], parity=parity)
        assert tuple(scores.values()) == pytest.approx((0.811278, 0.25), abs=1e-6)
    assert evaluate_arrays(digits("11111111"), TRUTH, ["cremi_score"])["cremi_score"] == pytest.approx(
        0.577350, abs=1e-6
    )
    guess, truth = digits("1110222033"), digits("1111222200")
    scores = evaluate_arrays(guess, truth, ["arand", "vi_merge"], parity="cremi")
    assert scores["arand"] == pytest.approx(0.274900, abs=1e-6)
    assert scores["vi_merge"] == pytest.approx(0.25)


@pairs
def test_agrees_with_skimage(guess: np.ndarray, truth: np.ndarray) -> None:
    error, first, second = adapted_rand_error(truth, guess, ignore_labels=(0,))
    split, merge = variation_of_information(truth, guess, ignore_labels=(0,))
    scores = evaluate_arrays(guess, truth, ALL, parity="skimage")
    assert scores["arand"] == pytest.approx(error, abs=1e-12)
    assert (scores["vrand_split"], scores["vrand_merge"]) == pytest.approx((first, second), abs=1e-12)
    assert (scores["vi_split"], scores["vi_merge"]) == pytest.approx((split, merge), abs=1e-9)
    for alpha in (0.0, 0.2, 1.0):
        ours = evaluate_arrays(guess, truth, ["arand"], parity="skimage", alpha=alpha)["arand"]
        assert ours == pytest.approx(adapted_rand_error(truth, guess, alpha=alpha)[0], abs=1e-12)


@pairs
def test_singletons_are_segments_of_their_own(guess: np.ndarray, truth: np.ndarray) -> None:
    scores = evaluate_arrays(guess, truth, ALL)
    explicit = evaluate_arrays(singletons(guess), truth, ALL, parity="elf")
    for name in set(ALL) - {"rand_index"}:  # which elf divides by n²
        assert scores[name] == pytest.approx(explicit[name], abs=1e-9), name
    split, merge = variation_of_information(truth, singletons(guess), ignore_labels=(0,))
    assert (scores["vi_split"], scores["vi_merge"]) == pytest.approx((split, merge), abs=1e-9)


@pairs
def test_agrees_with_sklearn(guess: np.ndarray, truth: np.ndarray) -> None:
    scores = evaluate_arrays(guess, truth, ALL, log_base=math.e)
    inside = truth > 0
    a, b = truth[inside], singletons(guess)[inside]
    assert scores["rand_index"] == pytest.approx(sk.rand_score(a, b))
    entropy_truth, entropy_found = sk.mutual_info_score(a, a), sk.mutual_info_score(b, b)
    mutual = sk.mutual_info_score(a, b)
    assert scores["vi_split"] == pytest.approx(entropy_found - mutual, abs=1e-9)
    assert scores["vi_merge"] == pytest.approx(entropy_truth - mutual, abs=1e-9)
    if len(np.unique(a)) > 1:
        assert scores["vinfo"] == pytest.approx(sk.normalized_mutual_info_score(a, b))
        assert scores["vinfo_split"] == pytest.approx(sk.completeness_score(a, b))
        assert scores["vinfo_merge"] == pytest.approx(sk.homogeneity_score(a, b))


@pytest.mark.parametrize("seed", range(5))
def test_counts_pairs_as_one_by_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth, guess = rng.integers(0, 4, (2, 3, 7)), rng.integers(0, 5, (2, 3, 7))
    inside = truth.ravel() > 0
    voxels = list(zip(truth.ravel()[inside], guess.ravel()[inside], strict=True))
    n = len(voxels)
    ab = a = b = 0
    for (t1, s1), (t2, s2) in combinations(voxels, 2):
        a += 2 * (t1 == t2)
        b += 2 * (s1 == s2 > 0)
        ab += 2 * (t1 == t2 and s1 == s2 > 0)
    table = contingency(guess, truth)
    assert rand_terms(table) == (ab + n, a + n, b + n)
    agreed = 1 - (a + b - 2 * ab) / (n * n - n)
    assert agreement(table)["rand_index"] == pytest.approx(agreed)


@pytest.mark.parametrize("seed", range(3))
def test_repeats_the_scripts_of_elf_and_cremi(seed: int) -> None:
    guess, truth = cells((2, 20, 20), 12, seed), cells((2, 20, 20), 9, seed + 20)
    dense = np.zeros((truth.max() + 1, guess.max() + 1))
    np.add.at(dense, (truth.ravel(), guess.ravel()), 1)
    inside = dense[1:]
    n = inside.sum()
    ab, a, b = (inside**2).sum(), (inside.sum(1) ** 2).sum(), (inside.sum(0) ** 2).sum()
    elf = evaluate_arrays(guess, truth, ALL, parity="elf")
    assert elf["arand"] == pytest.approx(1 - 2 * ab / (a + b))
    assert elf["rand_index"] == pytest.approx(1 - (a + b - 2 * ab) / n**2)
    ratio = inside[:, 0].sum() / dense.sum()
    ab, b = (inside[:, 1:] ** 2).sum() + ratio, (inside[:, 1:].sum(0) ** 2).sum() + ratio
    cremi = evaluate_arrays(guess, truth, ALL, parity="cremi")
    assert cremi["arand"] == pytest.approx(1 - 2 * ab / (a + b), abs=1e-12)
    assert (cremi["vrand_split"], cremi["vrand_merge"]) == pytest.approx((ab / a, ab / b))
    assert cremi["vi"] == elf["vi"]
    assert cremi["cremi_score"] == pytest.approx(math.sqrt(cremi["vi"] * cremi["arand"]))


@pytest.mark.parametrize("parity", ["none", "skimage", "elf", "cremi"])
def test_names_of_objects_do_not_matter(parity: str) -> None:
    guess, truth = PAIRS[1]
    rng = np.random.default_rng(3)
    renamed = [
        np.concatenate([[0], rng.choice(2**62, labels.max(), replace=False) + 2**62]).astype(np.uint64)[labels]
        for labels in (guess, truth)
    ]
    scores, others = evaluate_arrays(guess, truth, ALL, parity=parity), evaluate_arrays(*renamed, ALL, parity=parity)
    assert others == pytest.approx(scores)


def test_swapping_the_volumes_swaps_split_and_merge() -> None:
    guess, truth = (np.maximum(labels, 1) for labels in PAIRS[1])
    scores, swapped = evaluate_arrays(guess, truth, ALL), evaluate_arrays(truth, guess, ALL)
    for one, other in (("vrand_split", "vrand_merge"), ("vi_split", "vi_merge"), ("vinfo_split", "vinfo_merge")):
        assert scores[one] == pytest.approx(swapped[other])
        assert scores[other] == pytest.approx(swapped[one])
    for name in ("vrand", "arand", "rand_index", "vi", "vinfo", "cremi_score"):
        assert scores[name] == pytest.approx(swapped[name])


def test_blocks_and_masked_voxels_do_not_matter() -> None:
    guess, truth = PAIRS[0]
    mask = np.random.default_rng(0).random(truth.shape) < 0.6
    whole = evaluate_arrays(guess, truth, ALL, mask=mask)
    lazy = [da.from_array(a, chunks=c) for a, c in ((guess, (3, 7, 11)), (truth, (2, 13, 9)), (mask, (4, 5, 30)))]
    assert evaluate_arrays(*lazy[:2], ALL, mask=lazy[2]) == whole
    assert evaluate_arrays(guess, np.where(mask, truth, 0), ALL) == pytest.approx(whole)
    assert evaluate_arrays(guess, np.where(mask, truth, 77), ALL, ignore_index=77) == pytest.approx(whole)


def test_255_is_an_ordinary_id() -> None:
    truth = np.array([[[255, 255, 1, 1]]], np.uint8)
    assert evaluate_arrays(truth // 2, truth, ["vi_merge"])["vi_merge"] == 0
    assert evaluate_arrays(np.ones_like(truth), truth, ["vi_merge"])["vi_merge"] == 1


def test_a_perfect_prediction_is_exactly_perfect() -> None:
    _, truth = PAIRS[2]
    scores = evaluate_arrays(truth, truth, ALL)
    for name in ("arand", "vi", "vi_split", "vi_merge", "cremi_score"):
        assert scores[name] == 0
    for name in ("vrand", "vrand_split", "vrand_merge", "rand_index", "vinfo", "vinfo_split", "vinfo_merge"):
        assert scores[name] == 1


def test_an_empty_prediction_is_all_singletons() -> None:
    scores = evaluate_arrays(np.zeros_like(TRUTH), TRUTH, ALL)
    assert scores["vrand_split"] == 8 / 32
    assert (scores["vrand_merge"], scores["vi_split"], scores["vi_merge"]) == (1, 2, 0)
    assert not scores.undefined
    one = evaluate_arrays(np.zeros_like(TRUTH), TRUTH, ALL, parity="skimage")  # one segment there
    assert (one["vrand_split"], one["vi_split"], one["vi_merge"]) == (1, 0, 1)


@pytest.mark.parametrize("parity", ["none", "skimage", "elf", "cremi"])
def test_without_annotated_objects_all_scores_say_why(parity: str) -> None:
    for guess in (TRUTH, np.zeros_like(TRUTH)):
        scores = evaluate_arrays(guess, np.zeros_like(TRUTH), ALL, parity=parity)
        assert set(scores.undefined) == set(ALL)
        assert "annotation is 0" in scores.undefined["vrand"]
    assert rand_terms(contingency(TRUTH, TRUTH * 0), "none") == (0, 0, 0)


def test_scores_without_pairs_say_why() -> None:
    one = np.ones((1, 1, 1), np.int32)
    assert set(evaluate_arrays(one, one, ALL).undefined) == {"rand_index"}
    apart = np.arange(1, 5).reshape(1, 2, 2)
    undefined = evaluate_arrays(apart, apart, ALL, parity="skimage").undefined
    assert set(undefined) == {"vrand", "vrand_split", "vrand_merge", "arand", "cremi_score"}


def test_information_of_single_segments() -> None:
    one = np.ones_like(TRUTH)
    names = ("vinfo", "vinfo_split", "vinfo_merge")
    assert set(evaluate_arrays(one * 3, one, names, kind="instances").values()) == {1}
    assert set(evaluate_arrays(TRUTH, one, names).values()) == {0}
    assert set(evaluate_arrays(one, TRUTH, names).values()) == {0}


def test_alpha_weighs_split_against_merge() -> None:
    guess, truth = PAIRS[0]
    for family in ("vrand", "vinfo"):
        parts = evaluate_arrays(guess, truth, [f"{family}_split", f"{family}_merge"])
        for alpha in (0.0, 0.3, 1.0):
            score = evaluate_arrays(guess, truth, [family], alpha=alpha)[family]
            expected = 1 / (alpha / parts[f"{family}_split"] + (1 - alpha) / parts[f"{family}_merge"])
            assert score == pytest.approx(expected)


def test_the_base_of_entropies() -> None:
    bits = evaluate_arrays(*PAIRS[0], ["vi", "vinfo"])
    digits = evaluate_arrays(*PAIRS[0], ["vi", "vinfo"], log_base=10)
    assert digits["vi"] == pytest.approx(bits["vi"] * math.log10(2))
    assert digits["vinfo"] == pytest.approx(bits["vinfo"])


def test_squares_of_counts_do_not_overflow() -> None:
    huge = np.array([2**40, 2**40], np.int64)
    table = Contingency(np.array([1, 2], np.uint64), np.array([1, 1], np.uint64), huge)
    assert rand_terms(table) == (2.0**81, 2.0**81, 2.0**82)
    assert agreement(table)["arand"] == pytest.approx(1 / 3)


def test_border_mask_needs_the_voxel_size() -> None:
    truth = np.repeat(np.array([1, 2], np.uint8), 20).reshape(1, 1, 40)
    guess = np.roll(truth, 3)
    guess[..., :3] = 1
    with pytest.raises(ConfigError, match="border_nm=25 needs the voxel size"):
        evaluate_arrays(guess, truth, ["arand"], border_nm=25)
    assert evaluate_arrays(guess, truth, ["arand"])["arand"] > 0
    assert evaluate_arrays(guess, truth, ["arand"], border_nm=25, spacing=(40, 4, 4))["arand"] == 0
    assert evaluate_arrays(guess, truth, ["arand"], border_nm=25, spacing=(40, 4, 40))["arand"] > 0
    gone = evaluate_arrays(guess, truth, ["arand"], border_nm=1000, spacing=(40, 4, 4))
    assert "arand" in gone.undefined


def test_masks_taken_for_ids_are_pointed_out() -> None:
    mask = digits("01100110")
    assert "kind='membrane'" in evaluate_arrays(mask, mask, ["vrand"]).warnings[0]
    assert not evaluate_arrays(mask, mask, ["vrand"], kind="instances").warnings
    assert not evaluate_arrays(mask, mask * 2, ["vrand"]).warnings


def test_probabilities_are_refused_with_the_remedy() -> None:
    with pytest.raises(DataError, match="float64.*kind='membrane' or kind='object'"):
        evaluate_arrays(TRUTH / 2, TRUTH, ["vrand"])


def test_every_score_states_range_direction_and_source() -> None:
    for text in FAMILY.scores.values():
        assert "Range " in text
        assert "higher is better" in text or "lower is better" in text
        assert "References" in text
    assert set(agreement(contingency(TRUTH, TRUTH), ScoringConfig())) == set(FAMILY.scores)
