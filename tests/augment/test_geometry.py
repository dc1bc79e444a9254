from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from napari_em_da.augment.geometry import Deformation, Window, mirror, place, random_deformation
from napari_em_da.config import AugmentConfig

SHAPE = (7, 50, 60)


@pytest.fixture
def volume() -> np.ndarray:
    return np.random.default_rng(0).random(SHAPE, np.float32)


def smooth(volume: np.ndarray) -> np.ndarray:
    return np.stack([ndimage.gaussian_filter(s, 3) for s in volume]).astype(np.float32)


def test_identity_is_a_bit_exact_copy(volume: np.ndarray) -> None:
    size = (3, 16, 20)
    window = Window(SHAPE, size, place((3, 20, 30), tuple(slice(0, n) for n in SHAPE), size, np.eye(2)))
    assert window.centre == (3.0, 20.5, 30.5)
    assert window.box == (slice(2, 5), slice(13, 29), slice(21, 41))
    np.testing.assert_array_equal(window.image(volume[window.box]), volume[2:5, 13:29, 21:41])


@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("flip", [1.0, -1.0])
@pytest.mark.parametrize("size", [(1, 15, 15), (1, 16, 16), (2, 11, 20)])
def test_flips_and_quarter_turns_copy_voxels(volume: np.ndarray, turns: int, flip: float, size: tuple) -> None:
    matrix = np.linalg.matrix_power(np.array([[0.0, -1.0], [1.0, 0.0]]), turns) @ np.diag([flip, 1.0])
    centre = place((3, 20, 30), tuple(slice(0, n) for n in SHAPE), size, matrix)
    window = Window(SHAPE, size, centre, Deformation(matrix))
    out = window.image(volume[window.box])
    box = volume[window.box]  # nothing but the window is read
    assert box.size == out.size
    np.testing.assert_array_equal(np.sort(out, axis=None), np.sort(box, axis=None))
    symmetric = {np.rot90(m, k, axes=(1, 2)).tobytes() for m in (box, box[:, ::-1]) for k in range(4)}
    assert out.tobytes() in symmetric


def test_all_eight_symmetries_are_drawn_alike() -> None:
    rng = np.random.default_rng(1)
    augment = AugmentConfig(scale=(1, 1))
    drawn = [random_deformation(augment, (1, 9, 9), rng).matrix.astype(int).tobytes() for _ in range(800)]
    counts = np.unique(drawn, return_counts=True)[1]
    assert len(counts) == 8 and counts.min() > 60 and counts.max() < 140


def test_sections_are_flipped_only_in_3d() -> None:
    rng = np.random.default_rng(2)
    augment = AugmentConfig()
    assert not any(random_deformation(augment, (1, 8, 8), rng).flip_z for _ in range(50))
    share = np.mean([random_deformation(augment, (4, 8, 8), rng).flip_z for _ in range(400)])
    assert 0.4 < share < 0.6
    assert Window(SHAPE, (3, 8, 8), (3, 20, 30), Deformation(np.eye(2), flip_z=True)).sections == (4, 3, 2)


def test_affine_map_agrees_with_scipy(volume: np.ndarray) -> None:
    image = smooth(volume)
    angle = np.deg2rad(25)
    matrix = 0.9 * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    size, centre = (1, 17, 21), (3.0, 24.0, 29.0)
    window = Window(SHAPE, size, centre, Deformation(matrix))
    offset = np.array(centre[1:]) - matrix @ ((np.array(size[1:]) - 1) / 2)
    expected = ndimage.affine_transform(image[3], matrix, offset, size[1:], order=1)
    np.testing.assert_allclose(window.image(image[window.box])[0], expected, atol=2e-3)


def test_displacement_shares_one_field_between_image_and_labels(volume: np.ndarray) -> None:
    rng = np.random.default_rng(3)
    field = rng.normal(0, 2, (2, 20, 20)).astype(np.float32)
    window = Window(SHAPE, (2, 20, 20), (3.5, 24.5, 29.5), Deformation(np.eye(2), field))
    labels = np.arange(np.prod(SHAPE), dtype=np.float32).reshape(SHAPE)
    grid = np.stack(np.meshgrid(np.arange(20.0), np.arange(20.0), indexing="ij"))
    at = grid + field + np.array([15, 20])[:, None, None]
    nearest = np.rint(at).astype(int)
    clear = (np.abs(at - np.floor(at) - 0.5) > 0.02).all(axis=0)
    picked = window.labels(labels[window.box], 0)[1]
    np.testing.assert_array_equal(picked[clear], labels[4][nearest[0], nearest[1]][clear])
    image = smooth(volume)
    expected = ndimage.map_coordinates(image[4], at, order=1)
    np.testing.assert_allclose(window.image(image[window.box])[1], expected, atol=4e-3)


@pytest.mark.parametrize("centre", [(0.0, 2.0, 3.0), (6.0, 49.0, 59.0), (3.0, 0.0, 30.0)])
def test_outside_is_mirrored_for_images_and_filled_for_labels(volume: np.ndarray, centre: tuple[float, ...]) -> None:
    size = (5, 31, 41)
    window = Window(SHAPE, size, centre)
    padded = np.pad(volume, 45, mode="reflect")
    filled = np.pad(np.full(SHAPE, 7, np.uint8), 45, constant_values=255)
    at = tuple(slice(int(c) - n // 2 + 45, int(c) - n // 2 + 45 + n) for c, n in zip(centre, size, strict=True))
    np.testing.assert_array_equal(window.image(volume[window.box]), padded[at])
    np.testing.assert_array_equal(window.labels(np.full(SHAPE, 7, np.uint8)[window.box], 255), filled[at])


def test_window_larger_than_the_volume(volume: np.ndarray) -> None:
    small = volume[:1, :9, :11]
    window = Window((1, 9, 11), (3, 33, 33), (0.0, 4.0, 5.0))
    expected = np.pad(small[0], ((12, 12), (11, 11)), mode="reflect")
    np.testing.assert_array_equal(window.image(small), np.stack([expected] * 3))
    labels = window.labels(np.zeros((1, 9, 11), np.uint8), 255)
    assert (labels == 0).sum() == 9 * 11 and (labels[[0, 2]] == 255).all()


def test_physical_scale_keeps_lengths() -> None:
    """A 40 nm stripe has 8 pixels at 5 nm and 4 at 10 nm."""
    image = np.zeros((1, 64, 64), np.float32)
    image[:, :, 28:36] = 1
    window = Window((1, 64, 64), (1, 16, 16), (0.0, 31.5, 31.5), Deformation(2.0 * np.eye(2)))
    labels = window.labels(image.astype(np.uint8)[window.box], 255)
    np.testing.assert_array_equal(labels[0].sum(axis=1), np.full(16, 4))
    assert window.image(image[window.box])[0].sum(axis=1) == pytest.approx(np.full(16, 4.0), abs=0.05)


def test_shrinking_does_not_alias() -> None:
    image = np.indices((64, 64)).sum(axis=0)[None].astype(np.float32) % 2  # a checkerboard, invisible at half the size
    window = Window((1, 64, 64), (1, 12, 12), (0.0, 31.0, 31.0), Deformation(3.0 * np.eye(2)))
    assert window.image(image[window.box]).std() < 0.02


def test_place_keeps_windows_inside_and_covers_small_regions() -> None:
    region = (slice(2, 10), slice(0, 100), slice(40, 60))
    z, y, x = place((9, 99, 41), region, (4, 32, 32), np.eye(2))
    assert (z, y) == (7.5, 83.5)  # pushed inside: sections 6-9, rows 68-99
    assert x - 15.5 <= 40 and x + 15.5 >= 59  # wider than the region: covers it
    _, _, x = place((9, 99, 41), (slice(0, 9), slice(0, 100), slice(0, 200)), (1, 80, 80), np.eye(2), (0, 20, 20))
    assert x == 41.5  # a network that loses a margin may look 20 px beyond


@pytest.mark.parametrize("length", [1, 2, 5])
def test_mirror_agrees_with_numpy(length: int) -> None:
    expected = np.pad(np.arange(length), 12, mode="reflect")
    assert [mirror(i, length) for i in range(-12, length + 12)] == expected.tolist()


def test_label_set_never_grows() -> None:
    rng = np.random.default_rng(5)
    labels = rng.choice(np.array([0, 3, 5], np.uint8), SHAPE)
    augment = AugmentConfig(rotate_deg=45, piecewise_affine=1, elastic=1)
    for _ in range(10):
        window = Window(SHAPE, (1, 40, 40), (3.0, 25.0, 30.0), random_deformation(augment, (1, 40, 40), rng))
        assert set(np.unique(window.labels(labels[window.box], 255))) <= {0, 3, 5, 255}


def test_elastic_kind_chooses_the_grid_of_the_original_u_net() -> None:
    from napari_em_da.augment.elastic import coarse_displacement

    still = AugmentConfig(flip=False, rotate90=False, scale=(1, 1), elastic=1, elastic_kind="coarse", elastic_px=10)
    drawn = random_deformation(still, (1, 64, 80), np.random.default_rng(5))
    rng = np.random.default_rng(5)
    rng.random(2)  # the two coins: piecewise affine, elastic
    np.testing.assert_array_equal(drawn.displacement, coarse_displacement((64, 80), rng, 10))
