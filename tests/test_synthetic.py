from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from napari_em_da.errors import ConfigError, DataError
from napari_em_da.sample import flyem_sample
from napari_em_da.synthetic import CLASSES, DOMAINS, phantom, phantom_pair, render

SHAPE = (24, 192, 192)


@pytest.fixture(scope="module")
def tissue():
    return phantom(SHAPE, seed=3)


def test_equal_seeds_give_equal_voxels(tissue):
    again, other = phantom(SHAPE, seed=3), phantom(SHAPE, seed=4)
    assert tissue.image.fingerprint == again.image.fingerprint
    assert tissue.labels.fingerprint == again.labels.fingerprint
    assert tissue.labels.fingerprint != other.labels.fingerprint
    assert render(tissue, "fibsem", 3).fingerprint == tissue.image.fingerprint
    assert render(tissue, "fibsem", 4).fingerprint != tissue.image.fingerprint


def test_every_class_is_present_in_a_plausible_share(tissue):
    share = np.bincount(tissue.labels.read().ravel(), minlength=4) / np.prod(SHAPE)
    assert 0.08 < share[CLASSES["membrane"]] < 0.3
    assert 0.04 < share[CLASSES["mitochondrion"]] < 0.3
    assert share[CLASSES["vesicle"]] > 0
    assert share[CLASSES["cytoplasm"]] > 0.4


def test_membranes_separate_neurites(tissue):
    neurites = tissue.instances.read().astype(int)
    np.testing.assert_array_equal(neurites == 0, tissue.labels.read() == CLASSES["membrane"])
    for axis in range(3):
        a, b = np.moveaxis(neurites, axis, 0)[:-1], np.moveaxis(neurites, axis, 0)[1:]
        assert not ((a != b) & (a > 0) & (b > 0)).any()


def test_each_mitochondrion_lies_in_one_neurite(tissue):
    organelles, neurites = tissue.mitochondria.read(), tissue.instances.read()
    np.testing.assert_array_equal(organelles > 0, tissue.labels.read() == CLASSES["mitochondrion"])
    for number in np.unique(organelles)[1:]:
        assert len(np.unique(neurites[organelles == number])) == 1


def test_membrane_width_is_physical():
    """The same tissue at half the resolution keeps its membrane volume and distances."""
    fine = phantom((16, 128, 128), voxel_nm=(8, 8, 8), seed=5)
    coarse = phantom((16, 64, 64), voxel_nm=(8, 16, 16), seed=5)
    share = [(p.labels.read() == CLASSES["membrane"]).mean() for p in (fine, coarse)]
    assert share[0] == pytest.approx(share[1], abs=0.01)
    thin = phantom((16, 128, 128), seed=5, membrane_nm=12)
    assert (thin.labels.read() == CLASSES["membrane"]).mean() == pytest.approx(share[0] / 2, rel=0.1)


def test_boundary_field_is_close_to_the_true_distance(tissue):
    neurite = tissue.tissue.neurite
    edge = np.zeros(SHAPE, bool)
    for axis in range(3):
        step = np.diff(neurite, axis=axis) != 0
        near = [slice(None)] * 3
        near[axis] = slice(0, -1)
        edge[tuple(near)] |= step
    true = ndimage.distance_transform_edt(~edge, sampling=tissue.voxel_nm)
    close = (true > 8) & (true < 40)
    ratio = tissue.tissue.boundary[close] / true[close]
    assert 0.6 < np.median(ratio) < 1.4


@pytest.mark.parametrize("domain", DOMAINS)
def test_parts_can_be_told_apart_in_every_domain(tissue, domain):
    image, labels = render(tissue, domain, 0).read().astype(float), tissue.labels.read()
    core = ndimage.binary_erosion(labels == CLASSES["cytoplasm"], iterations=2)
    cytoplasm, membrane = image[core], image[labels == CLASSES["membrane"]]
    assert cytoplasm.mean() - membrane.mean() > 1.0 * cytoplasm.std()


def test_domains_disagree_about_mitochondria(tissue):
    """What is darker than the cytoplasm in one domain is paler in the other: a network cannot transfer by luck."""
    matrix = ndimage.binary_erosion(tissue.labels.read() == CLASSES["mitochondrion"], iterations=5)
    cytoplasm = ndimage.binary_erosion(tissue.labels.read() == CLASSES["cytoplasm"], iterations=3)
    gap = {}
    for name in ("fibsem", "sstem"):
        image = render(tissue, name, 0).read().astype(float)
        gap[name] = np.median(image[matrix]) - np.median(image[cytoplasm])
    assert gap["fibsem"] < -20
    assert gap["sstem"] > 10


def test_domain_options_do_what_they_say(tissue):
    plain = DOMAINS["fibsem"].model_copy(update={"low": 0.0, "high": 1.0})
    inverted = plain.model_copy(update={"invert": True})
    total = render(tissue, plain, 1).read().astype(int) + render(tissue, inverted, 1).read()
    assert np.abs(total - 255).max() <= 1
    noisy = plain.model_copy(update={"read": 0.2})
    assert render(tissue, noisy, 1).read().std() > render(tissue, plain, 1).read().std()


def test_pair_and_wrong_arguments():
    source, target = phantom_pair((8, 64, 64), seed=1)
    assert source.labels.fingerprint != target.labels.fingerprint
    assert (source.image.name, target.image.name) == ("fibsem", "sstem")
    with pytest.raises(ConfigError, match="sstem"):
        phantom((8, 64, 64), domain="ssetm")
    with pytest.raises(DataError, match=r"\(0, 4, 4\)"):
        phantom((0, 4, 4))


def test_shipped_sample():
    image, instances = flyem_sample()
    assert image.shape == instances.shape == (64, 160, 160)
    assert image.voxel_nm == instances.voxel_nm == (10, 10, 10)
    assert (image.dtype, instances.dtype) == (np.uint8, np.uint16)
    assert len(np.unique(instances.read())) == 73
