from __future__ import annotations

import threading
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
import torch

from napari_em_da.config import AugmentConfig
from napari_em_da.errors import ConfigError, DataError
from napari_em_da.sampling import Prefetch, Sample, Sampler, Source, jittered_grid, positions
from napari_em_da.sampling.positions import class_voxels
from napari_em_da.volume import Volume

SHAPE = (6, 64, 80)
WHOLE = tuple(slice(0, n) for n in SHAPE)
FULL = AugmentConfig(rotate_deg=45, piecewise_affine=1, elastic=1, photometric=1, invert=0.5)


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, SHAPE, np.uint8)


@pytest.fixture
def volume(image: np.ndarray) -> Volume:
    return Volume.from_array(image, voxel_nm=(10, 5, 5), name="cells")


def make(*sources: Source, **changes: object) -> Sampler:
    options = {"patch_px": (1, 32, 32), "batch": 4, "ndim": 2, "seed": 3, "stream": "source", "classes": 6}
    return Sampler(sources, **{**options, **changes})


def same(a: Sample, b: Sample) -> bool:
    pairs = zip((a.image, a.labels, a.weights), (b.image, b.labels, b.weights), strict=True)
    return all((x is None and y is None) or torch.equal(x, y) for x, y in pairs)


def test_shapes_and_types_in_2d_and_3d(volume: Volume, image: np.ndarray) -> None:
    source = Source(volume, image // 64, np.ones(SHAPE, np.float32))
    flat = make(source, augment=FULL).draw(0)
    assert (flat.image.shape, flat.labels.shape, flat.weights.shape) == ((4, 1, 32, 32), (4, 32, 32), (4, 32, 32))
    assert (flat.image.dtype, flat.labels.dtype, flat.weights.dtype) == (torch.float32, torch.int64, torch.float32)
    deep = make(source, patch_px=(4, 16, 24), ndim=3, augment=FULL).draw(0)
    assert (deep.image.shape, deep.labels.shape) == ((4, 1, 4, 16, 24), (4, 4, 16, 24))
    assert torch.isfinite(deep.image).all()
    bare = make(Source(volume)).draw(0)
    assert bare.labels is None and bare.weights is None
    moved = flat.to("cpu")
    assert moved.image.is_contiguous(memory_format=torch.channels_last) and same(moved, flat)
    assert deep.to("cpu").image.is_contiguous(memory_format=torch.channels_last_3d)


def test_draw_depends_on_seed_stream_and_step_alone(volume: Volume, image: np.ndarray) -> None:
    source = Source(volume, image // 64)
    sampler = make(source, augment=FULL, balance=0.5)
    later = sampler.draw(7)
    sampler.draw(0)
    assert same(later, sampler.draw(7)) and same(later, make(source, augment=FULL, balance=0.5).draw(7))
    for other in (sampler.draw(8), make(source, augment=FULL, balance=0.5, seed=4).draw(7),
                  make(source, augment=FULL, balance=0.5, stream="target").draw(7)):  # fmt: skip
        assert not same(later, other)


def test_unaugmented_windows_are_standardised_copies(volume: Volume, image: np.ndarray) -> None:
    """Image, labels and weights each carry the voxel's own number, so a shift between them would show."""
    number = np.arange(np.prod(SHAPE), dtype=np.float32).reshape(SHAPE)
    sample = make(Source(volume, image // 64, number), batch=8).draw(0)
    raw = volume.intensity.standardise(image)
    at = sample.weights.numpy().astype(int)
    np.testing.assert_array_equal(sample.image[:, 0].numpy(), raw.ravel()[at])
    np.testing.assert_array_equal(sample.labels.numpy(), (image // 64).ravel()[at])
    assert (np.diff(at, axis=2) == 1).all() and (np.diff(at, axis=1) == SHAPE[2]).all()


def test_lazy_reading_gives_the_same_windows(volume: Volume, image: np.ndarray) -> None:
    labels = image // 64
    held = make(Source(volume, labels), augment=FULL)
    lazy = make(Source(volume, da.from_array(labels, chunks=(1, 30, 30))), augment=FULL, memory_bytes=0)
    assert same(held.draw(5), lazy.draw(5))


def test_labels_outside_the_region_are_never_seen(volume: Volume) -> None:
    labels = np.zeros(SHAPE, np.uint8)
    labels[:, :, 60:] = 1  # the validation part
    train = (slice(None), slice(None), slice(0, 60))
    weights = np.ones(SHAPE, np.float32)
    sampler = make(Source(volume, labels, weights, train), augment=FULL, patch_px=(1, 48, 48))
    for step in range(20):
        sample = sampler.draw(step)
        assert not (sample.labels == 1).any()
        assert torch.equal(sample.weights == 0, sample.labels == 255)
    held_out = make(Source(volume, labels, weights, (slice(None), slice(None), slice(60, 80)))).grid(6)
    assert all(set(s.labels.unique().tolist()) <= {1, 255} for s in held_out)


def test_windows_stay_inside_where_they_can(volume: Volume) -> None:
    inside = (slice(1, 5), slice(8, 60), slice(0, 50))
    sampler = make(Source(volume, np.zeros(SHAPE, np.uint8), None, inside), batch=64)
    assert not (sampler.draw(0).labels == 255).any()
    larger = make(Source(volume, np.zeros(SHAPE, np.uint8)), patch_px=(1, 96, 96)).draw(0)
    assert (larger.labels == 0).sum() == 4 * 64 * 80 and torch.isfinite(larger.image).all()


def test_every_corner_is_drawn(image: np.ndarray) -> None:
    number = np.arange(12 * 13, dtype=np.float32).reshape(1, 12, 13)
    source = Source(Volume.from_array(image[:1, :12, :13]), np.zeros((1, 12, 13), np.uint8), number)
    corners = make(source, patch_px=(1, 8, 8), batch=600).draw(0).weights[:, 0, 0]
    expected = (13 * np.arange(5)[:, None] + np.arange(6)).ravel()
    np.testing.assert_array_equal(corners.unique().numpy(), expected)


def test_balance_centres_on_rare_classes(volume: Volume) -> None:
    labels = np.zeros(SHAPE, np.uint8)
    labels[4, 20:23, 40:43] = 2
    shares = []
    for balance in (0.0, 1.0):
        sampler = make(Source(volume, labels), balance=balance, batch=200, patch_px=(1, 15, 15))
        shares.append(float((sampler.draw(0).labels == 2).any(dim=(1, 2)).float().mean()))
    assert shares[0] < 0.1 and 0.4 < shares[1] < 0.65


def test_sparse_annotation_always_gives_a_labelled_window(volume: Volume) -> None:
    labels = np.full(SHAPE, 255, np.uint8)
    labels[3, 63, 0] = 1  # one voxel, in a corner
    sampler = make(Source(volume, labels), augment=FULL, patch_px=(1, 8, 8))
    assert all((sampler.draw(step).labels == 1).any(dim=(1, 2)).all() for step in range(10))
    (sample,) = sampler.grid(4)
    assert (sample.labels == 1).sum() == len(sample.labels)


def test_volumes_are_drawn_by_their_size(image: np.ndarray) -> None:
    parts = [Source(Volume.from_array(image[:n]), np.full((n, *SHAPE[1:]), n, np.uint8)) for n in (1, 5)]
    labels = make(*parts, batch=600, patch_px=(1, 8, 8)).draw(0).labels
    assert float((labels == 5).float().mean()) == pytest.approx(5 / 6, abs=0.06)


def test_physical_scale(image: np.ndarray) -> None:
    stripes = np.zeros((1, 128, 128), np.uint8)
    stripes[:, :, ::16] = 1
    stripes[:, :, 1::16] = 1
    fine = Source(Volume.from_array(stripes * 200 + 20, voxel_nm=(30, 5, 5)), stripes)
    labels = make(fine, pixel_nm=10.0).draw(0).labels
    assert (labels.sum(dim=2) == 4).all()  # every 8 pixels of 10 nm, one wide
    own = make(fine, pixel_nm=5.0).draw(0)
    assert same(own, make(fine).draw(0))


def test_histogram_matching_reaches_the_sample(image: np.ndarray, volume: Volume) -> None:
    target = Volume.from_array(np.random.default_rng(1).gamma(2, 30, SHAPE).astype(np.float32)).intensity
    plain = AugmentConfig(flip=False, rotate90=False, scale=(1, 1), photometric=0, match_target=1)
    matched = make(Source(volume), augment=plain, match=target, batch=64).draw(0).image
    skew = float((matched**3).mean())
    assert float(matched.mean()) == pytest.approx(0, abs=0.05) and float(matched.std()) == pytest.approx(1, abs=0.05)
    assert skew > 1  # that of the gamma distribution; the source is uniform


def test_margin_crops_labels_only(volume: Volume, image: np.ndarray) -> None:
    number = np.arange(np.prod(SHAPE), dtype=np.float32).reshape(SHAPE)
    source = Source(volume, image // 64, number)
    sample = make(source, margin_px=(8, 4), balance=1.0).draw(0)
    assert sample.image.shape[2:] == (32, 32) and sample.labels.shape[1:] == (16, 24)
    at = sample.weights.numpy().astype(int)
    np.testing.assert_array_equal(
        sample.image[:, 0, 8:-8, 4:-4].numpy(), volume.intensity.standardise(image).ravel()[at]
    )


def test_grid_is_fixed_distinct_and_spread(volume: Volume, image: np.ndarray) -> None:
    number = np.arange(np.prod(SHAPE), dtype=np.float32).reshape(SHAPE)
    source = Source(volume, image // 64, number)
    samples = make(source, augment=FULL, patch_px=(1, 16, 16)).grid(12)
    assert [len(s.image) for s in samples] == [4, 4, 4]
    assert all(same(a, b) for a, b in zip(samples, make(source, seed=9, patch_px=(1, 16, 16)).grid(12), strict=True))
    corners = np.concatenate([s.weights[:, 0, 0].numpy() for s in samples]).astype(int)
    z, y, x = np.unravel_index(corners, SHAPE)
    assert len(set(corners)) == 12 and set(z) == set(range(6))
    assert y.max() - y.min() > 30 and x.max() - x.min() > 40
    assert len(make(source, patch_px=(1, 64, 80)).grid(40)) == 2  # six sections, six distinct windows


def test_class_index_is_exact_below_the_limit_and_fair_above(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = np.random.default_rng(0).choice(np.array([0, 1, 4, 255], np.uint8), SHAPE, p=[0.7, 0.2, 0.05, 0.05])
    region = (slice(1, 6), slice(5, 64), slice(0, 70))
    inside = np.full(SHAPE, 255, np.uint8)
    inside[region] = labels[region]
    for found, label in zip(class_voxels(labels, region, 5), (0, 1, 4), strict=True):
        np.testing.assert_array_equal(np.sort(found), np.flatnonzero(inside == label))
    monkeypatch.setattr(positions, "INDEXED_VOXELS", 1000)
    thinned = class_voxels(labels, region, 5)
    assert all(400 < len(v) <= 1000 for v in thinned) and (inside.ravel()[thinned[0]] == 0).all()
    assert np.bincount(thinned[0] // (64 * 80), minlength=6)[1:].min() > 50  # no section is forgotten


def test_jittered_grid_has_one_corner_per_bin() -> None:
    corners = jittered_grid((50, 800, 800), (5, 296, 296), (2, 100, 100), np.random.default_rng(0))
    assert corners.shape == (828, 3)
    assert (corners >= 0).all() and (corners + (5, 296, 296) <= (50, 800, 800)).all()
    assert len({tuple(c) for c in (corners // (2, 100, 100)).tolist()}) == 828
    with pytest.raises(DataError, match="larger than the volume"):
        jittered_grid((4, 800, 800), (5, 296, 296), (2, 100, 100), np.random.default_rng(0))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"patch_px": (4, 32, 32)}, r"network is 2D; use \(1, 32, 32\)"),
        ({"margin_px": 16}, r"leaves no output.*\(1, 33, 33\)"),
        ({"classes": 0}, "0 classes"),
    ],
)
def test_contradictory_options(volume: Volume, changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(Source(volume), **changes)


def test_unusable_volumes(volume: Volume, image: np.ndarray) -> None:
    with pytest.raises(DataError, match="no labelled voxel"):
        make(Source(volume, np.full(SHAPE, 255, np.uint8)))
    with pytest.raises(DataError, match="label 9 in section 2.*6 classes"):
        make(Source(volume, np.where(np.arange(6)[:, None, None] == 2, 9, np.zeros(SHAPE, np.uint8))))
    with pytest.raises(DataError, match="labels of cells have shape"):
        make(Source(volume, image[:3]))
    with pytest.raises(DataError, match="no voxel size"):
        make(Source(Volume.from_array(image)), pixel_nm=5.0)
    with pytest.raises(DataError, match="is empty; widen"):
        make(Source(volume, None, None, (slice(3, 3), slice(None), slice(None))))
    with pytest.raises(DataError, match="one channel"):
        make(Source(Volume.from_array(np.zeros((2, 8, 8, 3), np.uint8))))
    with pytest.raises(ConfigError, match="no volume"):
        make()
    with pytest.raises(ConfigError, match="some have none"):
        make(Source(volume), Source(volume, image // 64))


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_prefetch_keeps_the_order(volume: Volume, threads: int) -> None:
    samplers = {name: make(Source(volume), stream=name, augment=FULL) for name in ("source", "target")}
    before = set(threading.enumerate())
    with Prefetch(samplers, range(3, 12), threads=threads, depth=2) as batches:
        drawn = list(batches)
    assert not set(threading.enumerate()) - before
    assert len(drawn) == 9
    for step, batch in zip(range(3, 12), drawn, strict=True):
        assert all(same(batch[name], samplers[name].draw(step)) for name in samplers)


class Recorder:
    """A sampler that notes its steps and fails at one of them."""

    def __init__(self, fails_at: int = -1) -> None:
        self.fails_at, self.steps = fails_at, []

    def draw(self, step: int) -> Sample:
        self.steps.append(step)
        if step == self.fails_at:
            raise DataError(f"section {step} is damaged")
        return Sample(torch.full((1, 1, 2, 2), float(step)))


@pytest.mark.parametrize("threads", [0, 2])
def test_prefetch_raises_where_the_batch_was_due(threads: int) -> None:
    batches = Prefetch({"source": Recorder(fails_at=2)}, range(10), threads=threads)
    assert [float(next(batches)["source"].image.mean()) for _ in range(2)] == [0, 1]
    with pytest.raises(DataError, match="section 2"):
        next(batches)
    batches.close()
    with pytest.raises(StopIteration):
        next(batches)


def test_prefetch_is_bounded() -> None:
    recorder = Recorder()
    with Prefetch({"source": recorder}, range(1000), threads=2, depth=3) as batches:
        next(batches)
    assert len(recorder.steps) <= 4


def test_real_windows() -> None:
    folder = Path(__file__).parents[2] / "shared" / "data" / "epfl_hippocampus"
    if not folder.is_dir():
        pytest.skip("shared/data/epfl_hippocampus absent")
    tifffile = pytest.importorskip("tifffile")
    files = {kind: next(iter(sorted(folder.glob(f"{kind}.tif*"))), None) for kind in ("image", "labels")}
    image, labels = (tifffile.imread(files[kind]) for kind in ("image", "labels"))
    volume = Volume.from_array(image, voxel_nm=(5, 5, 5))
    sample = make(Source(volume, labels), augment=FULL, balance=0.5, patch_px=(1, 192, 192)).draw(0)
    plain = make(Source(volume, labels), patch_px=(1, 192, 192), batch=16).draw(0)
    assert torch.isfinite(sample.image).all()
    assert abs(float(plain.image.mean())) < 0.2 and float(plain.image.std()) == pytest.approx(1, abs=0.2)
    dark, bright = (plain.image[:, 0][plain.labels == c].mean() for c in (2, 0))
    assert dark < bright  # mitochondria stay under their labels


# --- section spacing: a volume whose every voxel holds the number of its section ---

DEEP = (60, 24, 28)


def numbered(spacing_nm: float, source: object = None) -> tuple[Volume, np.ndarray]:
    """Return a volume of section numbers (plus a little, so that it is no label volume) and the numbers alone."""
    number = np.broadcast_to(np.arange(DEEP[0], dtype=np.float32)[:, None, None], DEEP).copy()
    return Volume.from_array(number if source is None else source, voxel_nm=(spacing_nm, 5, 5), name="thin"), number


def sections_of(sample: Sample) -> np.ndarray:
    """Section number of every section of every window, from the weights; each section holds one number alone."""
    assert (sample.weights.amin(dim=(2, 3)) == sample.weights.amax(dim=(2, 3))).all()
    return sample.weights[:, :, 0, 0].numpy().astype(int)


@pytest.mark.parametrize(
    ("own_nm", "asked_nm", "offsets"),
    [
        (5, 50, [0, 10, 20, 30]),
        (30, 50, [0, 2, 3, 5, 7, 8]),  # nearest to 0, 1.67, 3.33, 5, 6.67, 8.33
        (20, 50, [0, 3, 5, 8, 10]),  # 2.5 and 7.5 lie between two sections: the later one
        (50, 50, [0, 1, 2]),
        (50, 50.5, [0, 1, 2]),  # within the tolerance
    ],
)
@pytest.mark.parametrize("memory_bytes", [0, 1 << 30])
def test_sections_are_taken_at_the_training_spacing(
    own_nm: float, asked_nm: float, offsets: list[int], memory_bytes: int
) -> None:
    volume, number = numbered(own_nm)
    flips = AugmentConfig(rotate90=False, scale=(1, 1), photometric=0)
    source = Source(volume, np.zeros(DEEP, np.uint8), number)
    sampler = make(source, patch_px=(len(offsets), 8, 8), ndim=3, batch=400, section_nm=asked_nm, augment=flips,
                   memory_bytes=memory_bytes)  # fmt: skip
    sample = sampler.draw(0)
    drawn = sections_of(sample)
    rising = np.sort(drawn, axis=1)
    np.testing.assert_array_equal(rising - rising[:, :1], np.broadcast_to(offsets, rising.shape))
    assert set(rising[:, 0]) == set(range(DEEP[0] - offsets[-1]))  # every phase, and never outside
    turned = drawn[:, 0] > drawn[:, -1]
    assert 0.35 < turned.mean() < 0.65
    np.testing.assert_array_equal(np.where(turned[:, None], drawn[:, ::-1], drawn), rising)
    image = volume.intensity.standardise(number)[:, 0, 0]
    np.testing.assert_array_equal(sample.image[:, 0, :, 3, 5].numpy(), image[drawn])  # real sections, none made up
    assert sampler.grid(4)[0].image.shape[2] == len(offsets)


def test_section_spacing_means_nothing_to_2d_networks(volume: Volume, image: np.ndarray) -> None:
    source = Source(volume, image // 64)
    for step in range(3):
        plain = make(source, augment=FULL, balance=0.5).draw(step)
        assert same(plain, make(source, augment=FULL, balance=0.5, section_nm=80.0).draw(step))
        assert same(plain, make(source, augment=FULL, balance=0.5, section_nm=1.0).draw(step))


def test_windows_skip_sections_without_reading_them() -> None:
    class Counted:
        def __init__(self, array: np.ndarray) -> None:
            self.array, self.shape, self.dtype, self.read = array, array.shape, array.dtype, 0

        def __getitem__(self, key: tuple[slice, ...]) -> np.ndarray:
            block = self.array[key]
            self.read += len(block)
            return block

    counted = Counted(numbered(5)[1])
    volume, _ = numbered(5, counted)
    sampler = make(Source(volume), patch_px=(4, 8, 8), ndim=3, batch=1, section_nm=50.0, memory_bytes=0)
    counted.read = 0
    sampler.draw(0)
    assert counted.read == 4


@pytest.mark.parametrize("margin", [0, (1, 0, 0)])
def test_one_annotated_section_is_never_skipped(margin: object) -> None:
    """Also where only windows that leave the volume hold it: 4 sections at steps of 19 span 58 of the 60."""
    volume, number = numbered(5)
    for annotated in (0, 7, 31, 59):
        labels = np.full(DEEP, 255, np.uint8)
        labels[annotated] = 1
        sampler = make(Source(volume, labels, number), patch_px=(4, 8, 8), ndim=3, section_nm=95.0, margin_px=margin)
        for sample in (sampler.draw(0), sampler.draw(1), *sampler.grid(4)):
            assert (sample.labels == 1).any(dim=(1, 2, 3)).all()
            assert (sample.weights[sample.labels == 1] == annotated).all()


def test_sections_of_a_region_only() -> None:
    volume, number = numbered(10)
    labels = np.zeros(DEEP, np.uint8)
    labels[40:] = 1  # held out
    region = (slice(5, 40), slice(None), slice(None))
    sample = make(Source(volume, labels, number, region), patch_px=(5, 8, 8), ndim=3, batch=300, section_nm=50.0).draw(
        0
    )
    drawn = sections_of(sample)
    assert (drawn.min(), drawn.max()) == (5, 39) and not (sample.labels != 0).any()


def test_sections_that_do_not_exist_are_not_repeated() -> None:
    volume, _ = numbered(50)
    with pytest.raises(ConfigError, match=r"section_nm is 30, but the sections of thin are 50 nm apart; set .* to 50"):
        make(Source(volume), patch_px=(4, 8, 8), ndim=3, section_nm=30.0)
    unknown = Volume.from_array(np.random.default_rng(0).random(DEEP), name="thin")
    with pytest.raises(DataError, match="thin has no voxel size, so section_nm 30"):
        make(Source(unknown), patch_px=(4, 8, 8), ndim=3, section_nm=30.0)
