"""One section of a map: at once by its own numbers, then exactly, and nothing computed twice."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from napari_em_da.weights import _section as section_module
from napari_em_da.weights import section_steps, weight_map, weight_section
from napari_em_da.weights.border import further

CASES = [
    ("entropy", {"scale": "max1"}),
    ("entropy", {"window": (3, 33, 33), "scale": "mean1"}),
    ("distance", {"mode": "inside_edt"}),
    ("distance", {"mode": "inverted", "scale": "mean1", "sigma": 4.0}),
    ("distance", {"mode": "decay", "scale": "mean1"}),
    ("border", {"scale": "max1"}),
    ("border", {"objects": "components", "where": "all", "sigma": 9.0}),
    ("diffusion", {}),
    ("diffusion", {"symmetric": True, "scale": "max1", "threshold": 0.4}),
    ("diffusion", {"parity": True, "n_steps": 7}),
    ("ratio", {"scale": "mean1"}),
    ("frequency", {"scale": "max1"}),
]


@pytest.mark.parametrize(("kind", "options"), CASES)
def test_sections_are_those_of_the_whole_map(cells, kind, options):
    whole, memory = weight_map(cells, kind, **options), {}
    for z in (2, 0, 3, 1, 2):
        np.testing.assert_array_equal(weight_section(cells, kind, z, memory, **options), whole[z])


@pytest.mark.parametrize("kind", ["distance", "border", "diffusion"])
def test_what_is_kept_does_not_change_what_comes_out(cells, kind):
    memory: dict = {}
    sliders = {
        "distance": [{"mode": m, "sigma": s} for m in ("decay", "inside_edt", "inverted", "decay") for s in (9.0, 2.0)],
        "border": [{"sigma": s, "w_0": w} for s in (1.0, 9.0, 40.0, 2.0) for w in (10.0, 0.0, 3.0)],
        "diffusion": [{"threshold": t, "c_diffuse": c} for c in (0.2, 0.9, 0.2) for t in (0.2, 0.0, 0.7)],
    }
    for options in sliders[kind]:
        found = weight_section(cells, kind, 3, memory, **options)
        np.testing.assert_array_equal(found, weight_map(cells, kind, **options)[3], err_msg=str(options))
    for state in ({"boundary": (2,)}, {"mode": "inverted", "boundary": (2,)}) if kind == "distance" else ():
        np.testing.assert_array_equal(
            weight_section(cells, kind, 3, memory, **state), weight_map(cells, kind, **state)[3]
        )


def test_first_by_its_own_numbers_then_by_those_of_the_volume(cells):
    memory: dict = {}
    options = {"mode": "inside_edt"}
    steps = list(section_steps(cells, "distance", 3, memory, **options))
    first, last = steps[0], steps[-1]
    assert first[1] == 0 and last[1] == 1 and all(weights is None for weights, _ in steps[1:-1])
    shares = [share for _, share in steps]
    assert shares == sorted(shares) and len(steps) > 2
    np.testing.assert_array_equal(first[0], weight_map(cells[3], "distance", **options))
    np.testing.assert_array_equal(last[0], weight_map(cells, "distance", **options)[3])
    assert first[0].max() != last[0].max()
    ((again, share),) = section_steps(cells, "distance", 3, memory, **options)
    assert share == 1, "the numbers of the volume are known now"
    np.testing.assert_array_equal(again, last[0])


def test_a_section_that_is_not_waited_for_counts_nothing(cells):
    memory: dict = {}
    steps = section_steps(cells, "entropy", 1, memory, scale="max1")
    assert next(steps)[1] == 0
    steps.close()
    assert not [key for key in memory if isinstance(key, tuple) and key[0] == "scale"]
    assert list(section_steps(cells, "entropy", 1, memory, scale="max1"))[0][1] == 0


def test_threshold_and_weight_of_the_diffusion_need_no_new_count(cells):
    memory: dict = {}
    list(section_steps(cells, "diffusion", 0, memory))
    for options in ({"threshold": 0.6}, {"max_weight": 3.0}, {"threshold": 0.99}):
        ((found, share),) = section_steps(cells, "diffusion", 0, memory, **options)
        assert share == 1
        np.testing.assert_array_equal(found, weight_map(cells, "diffusion", **options)[0])


def test_little_is_kept(cells, monkeypatch):
    monkeypatch.setattr(section_module, "KEPT_BYTES", 3 * cells[0].size * 4)
    memory: dict = {}
    for z in range(4):
        for sigma in (2.0, 5.0):
            found = weight_section(cells, "distance", z, memory, mode="inside_edt", sigma=sigma)
            np.testing.assert_array_equal(found, weight_map(cells, "distance", mode="inside_edt", sigma=sigma)[z])
    assert memory[section_module.PREPARED]._size() <= section_module.KEPT_BYTES


def brute_force_border(ids, everywhere, sigma, w_0):
    out = np.zeros(ids.shape)
    for y, x in np.ndindex(ids.shape):
        if ids[y, x] and not everywhere:
            continue
        nearest = sorted(
            min((y - v) ** 2 + (x - u) ** 2 for v, u in zip(*np.nonzero(ids == k), strict=True))
            for k in np.unique(ids)
            if k
        )
        if len(nearest) > 1:
            out[y, x] = w_0 * np.exp(-((nearest[0] ** 0.5 + nearest[1] ** 0.5) ** 2) / (2 * sigma**2))
    return out


@pytest.mark.parametrize("everywhere", [False, True])
def test_border_of_a_section_by_brute_force(rng, everywhere):
    ids = (ndimage.gaussian_filter(rng.random((23, 31)), 2) > 0.52) * 1
    ids = ndimage.label(ids)[0]
    expected = brute_force_border(ids, everywhere, 3.0, 7.0)
    options = {"w_0": 7.0, "sigma": 3.0, "where": "all" if everywhere else "background", "class_balance": False}
    found = weight_section(ids, "border", 0, {}, ignore_index=None, **options)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(("reach", "expected"), [(1, 32), (32, 32), (33, 160), (160, 160), (600, 600)])
def test_how_far_is_searched_where_it_is_kept(reach, expected):
    assert further(reach) == expected
