"""What every post-processing step must do with good and with bad stacks, in memory and in blocks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import numpy.typing as npt
import pytest

from napari_em_da.config import ChainConfig, parse
from napari_em_da.errors import ConfigError, DataError
from napari_em_da.metrics import evaluate_arrays
from napari_em_da.postprocess import STEPS, Holds, Stack, apply_chain, check_stack, resolve

Array = npt.NDArray[Any]
NM = (30.0, 8.0, 8.0)
CHUNKS = (4, 17, 24)
OPTIONS: dict[str, dict[str, Any]] = {
    "remove_small": {"min_size_nm3": 2e5},  # it has no default
    "watershed": {"kind": "membrane"},  # what is probable here
}
APPROXIMATE = {"multicut": "superpixels end at the faces of blocks"}  # no further from the whole than ARAND 0.25
CASES = [(name, holds) for name in STEPS.names() for holds in STEPS[name].takes]
EACH = pytest.mark.parametrize(("name", "holds"), CASES)


def cells() -> Array:
    """Return instances (7, 40, 48): a grid of cells of different sizes, apart by a membrane of two voxels."""
    ids = np.zeros((7, 40, 48), np.uint32)
    for row, y in enumerate((0, 13, 27)):
        for column, x in enumerate((0, 10, 24, 36)):
            ids[:, y : y + 11, x : x + 8 + column] = 1 + 4 * row + column
    ids[2, 28:33, 25:27] = 0  # in one section only
    ids[5, 5, 3] = 0
    ids[:, 38:, 46:] = 99  # a small one
    return ids


def probabilities() -> Array:
    """Return (7, 40, 48, 2): background and membrane, uneven but without ties."""
    rng = np.random.default_rng(0)
    membrane = np.where(cells() == 0, 0.85, 0.1) + rng.uniform(-0.08, 0.08, cells().shape)
    return np.stack([1 - membrane, membrane], -1).astype(np.float32)


def stack(holds: Holds, *, lazy: bool = False) -> Stack:
    data = {"probabilities": probabilities, "instances": cells, "labels": lambda: (cells() == 0).astype(np.uint8)}[
        holds
    ]()
    if lazy:
        data = da.from_array(data, CHUNKS + (2,) * (data.ndim - 3))
    return Stack(data, holds, NM, ("background", "membrane"))


def apply(name: str, given: Stack, **options: Any) -> Stack:
    return apply_chain(parse(ChainConfig, {"steps": [{name: OPTIONS.get(name, {}) | options}]}), given)


def attempt(name: str, given: Stack) -> Stack | None:
    """Return the result, or None where the step refuses; any other exception fails the test."""
    try:
        found = apply(name, given)
    except (ConfigError, DataError) as refusal:
        assert len(str(refusal)) > 20, "an error says what failed and what to do"
        return None
    check_stack(found)
    assert found.shape == given.shape
    return found


def same_partition(one: Array, other: Array) -> bool:
    """Return whether two volumes of ids are equal but for the numbers, with 0 the background of both."""
    pairs = np.unique(np.stack([one.ravel(), other.ravel()], 1).astype(np.uint64), axis=0)
    distinct = [len(np.unique(column)) == len(pairs) for column in pairs.T]
    return all(distinct) and bool((((pairs == 0).sum(1)) != 1).all())


@EACH
def test_the_result_is_what_the_step_says(name: str, holds: Holds) -> None:
    given = stack(holds)
    found = apply(name, given)
    assert found.holds == (STEPS[name].gives or holds)
    assert isinstance(found.data, np.ndarray)
    assert (found.voxel_nm, found.classes, found.labelled) == (NM, given.classes, ())
    check_stack(found)
    if found.holds == "labels":
        assert found.data.dtype == np.uint8
    if found.holds == "instances":
        assert found.data.dtype in (np.uint32, np.uint64)
        assert len(np.unique(found.data)) > 2


@EACH
def test_the_input_is_not_written_to(name: str, holds: Holds) -> None:
    """A volume that cannot be written to, such as a file mapped into memory, works as any other."""
    given = stack(holds)
    given.data.flags.writeable = False
    apply(name, given)
    np.testing.assert_array_equal(given.data, stack(holds).data)


@EACH
def test_twice_is_the_same(name: str, holds: Holds) -> None:
    np.testing.assert_array_equal(apply(name, stack(holds)).data, apply(name, stack(holds)).data)


@EACH
def test_blocks_do_not_change_the_result(name: str, holds: Holds, tmp_path: Path) -> None:
    whole = apply(name, stack(holds))
    found = apply(name, replace(stack(holds, lazy=True), work=tmp_path / "work"))
    assert found.lazy and found.holds == whole.holds
    lazy = found.data.compute(scheduler="synchronous")
    assert lazy.shape == whole.data.shape
    assert found.data.dtype == lazy.dtype
    if found.holds == "instances":
        if name in APPROXIMATE:
            assert evaluate_arrays(lazy, whole.data, ["arand"])["arand"] < 0.25
        else:
            assert same_partition(lazy, whole.data)
    elif found.holds == "probabilities":
        np.testing.assert_allclose(lazy, whole.data, atol=1e-5)
    else:
        np.testing.assert_array_equal(lazy, whole.data)


@EACH
def test_unknown_options_are_errors(name: str, holds: Holds) -> None:
    chain = parse(ChainConfig, {"steps": [{name: {"no_such_option": 1}}]})
    with pytest.raises(ConfigError, match="no_such_option"):
        resolve(chain, holds)


@EACH
def test_other_volumes_are_refused_before_any_work(name: str, holds: Holds) -> None:
    for other in {"probabilities", "labels", "instances"} - set(STEPS[name].takes):
        with pytest.raises(ConfigError, match=f"{name}, takes"):
            apply(name, stack(other))  # type: ignore[arg-type]


@EACH
def test_one_section(name: str, holds: Holds) -> None:
    given = stack(holds)
    found = attempt(name, given.with_data(given.data[:1]))
    assert found is None or found.shape[0] == 1


@EACH
def test_nothing_and_everything(name: str, holds: Holds) -> None:
    data = stack(holds).data[:3, :20, :22]
    for channel in (0, 1):
        if holds == "probabilities":
            filled = np.zeros(data.shape, data.dtype)
            filled[..., channel] = 1
        else:
            filled = np.full(data.shape, channel, data.dtype)
        found = attempt(name, stack(holds).with_data(filled))
        assert found is not None, f"nothing but {channel} is an ordinary volume"
        if found.holds == "instances":
            assert len(np.unique(found.data)) <= 2  # nothing to part


@EACH
def test_without_a_voxel_size_it_works_or_says_so(name: str, holds: Holds) -> None:
    attempt(name, replace(stack(holds), voxel_nm=None))


@EACH
def test_ground_truth_that_is_given_stays(name: str, holds: Holds) -> None:
    if STEPS[name].gives not in (None, holds):
        pytest.skip("it gives something else than it takes")
    given = replace(stack(holds), labelled=(2, 5))
    found = apply(name, given)
    assert found.labelled == (2, 5)
    for z in given.labelled:
        np.testing.assert_array_equal(found.data[z], given.data[z])


def test_equal_partitions_are_told_from_others() -> None:
    one = np.array([0, 1, 1, 2])
    assert same_partition(one, np.array([0, 7, 7, 3]))
    assert not same_partition(one, np.array([7, 1, 1, 2]))  # background became an object
    assert not same_partition(one, np.array([0, 1, 1, 1]))
    assert not same_partition(one, np.array([0, 1, 3, 2]))
