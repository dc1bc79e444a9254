"""Tiled inference equals whole-image inference, survives cancelling and backs off from little memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from napari_em_da import jobs
from napari_em_da.errors import ConfigError, DataError, ResourceError
from napari_em_da.events import Finished, Notice, Progress
from napari_em_da.inference import Outputs, Prediction, predict
from napari_em_da.inference.network import Frozen, fold_batch_norm
from napari_em_da.inference.tta import ELEMENTS, apply, average, invert
from napari_em_da.models._base import SegmentationNet
from napari_em_da.models.unet import MODEL as UNET
from napari_em_da.volume import Intensity, Volume

IDENTITY = Intensity(tuple(np.linspace(-1e6, 1e6, 257)), 0.0, 1.0)  # the network sees the raw voxels


class Tiny(SegmentationNet):
    """Two levels with pools and transposed convolutions, same-padded; inputs must be on the grid of 4."""

    def __init__(self, ndim: int = 2, classes: int = 3, channels: int = 1) -> None:
        super().__init__()
        conv = {2: nn.Conv2d, 3: nn.Conv3d}[ndim]
        up = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}[ndim]
        self.ndim, self.in_channels, self.classes = ndim, channels, classes
        self.divisor, self.halo_px, self.margin_px = (4,) * ndim, (16,) * ndim, (0,) * ndim
        self.pool = {2: nn.MaxPool2d, 3: nn.MaxPool3d}[ndim](2)
        self.a = nn.Sequential(conv(channels, 4, 3, padding=1), nn.ReLU())
        self.b = nn.Sequential(conv(4, 6, 3, padding=1), nn.ReLU())
        self.c = nn.Sequential(conv(6, 8, 3, padding=1), nn.ReLU())
        self.up1, self.up0 = up(8, 6, 2, stride=2), up(6, 4, 2, stride=2)
        self.last = conv(8, classes, 1)

    @property
    def head(self) -> nn.Module:
        return self.last

    def forward_taps(self, image: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        a = self.a(image)
        b = self.b(self.pool(a))
        fine = self.up1(self.c(self.pool(b))) + b
        return self.last(torch.cat((a, self.up0(fine)), 1)), {}


class Starved(Tiny):
    """Runs out of memory above ``most`` input elements, as a GPU does."""

    most = 1 << 60

    def forward_taps(self, image: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        if image.numel() > self.most:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return super().forward_taps(image)


def random_volume(shape: tuple[int, ...], seed: int = 0) -> Volume:
    return Volume.from_array(np.random.default_rng(seed).normal(size=shape).astype(np.float32), name="noise")


def seeded(build, *args, **kwargs):
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return build(*args, **kwargs).eval()


def whole(net: SegmentationNet, volume: Volume) -> np.ndarray:
    """Probabilities (C, Z, Y, X) of the mirrored whole image, by plain torch and numpy."""
    image = volume.read()
    steps = net.divisor if net.ndim == 3 else (1, *net.divisor)
    padded = np.pad(image, [(0, -n % d) for n, d in zip(image.shape, steps, strict=True)], mode="reflect")
    tensor = torch.from_numpy(padded)
    with torch.no_grad():
        logits = net(tensor[None, None])[0] if net.ndim == 3 else net(tensor[:, None]).transpose(0, 1)
    z, y, x = image.shape
    return logits.softmax(0)[:, :z, :y, :x].numpy()


def tiled(net: SegmentationNet, volume: Volume, store: Path, **options) -> tuple[np.ndarray, np.ndarray, list]:
    events: list = []
    options = {"precision": "fp32", "device": "cpu", "intensity": IDENTITY, "classes": 3} | options
    outputs = Outputs(store, probabilities=True)
    result: Prediction = jobs.run(predict(net, volume, outputs, **options), on_event=events.append)
    return result.labels().read(), np.moveaxis(result.probabilities().read(), -1, 0), events


@pytest.mark.parametrize("tile", [48, 64, None])
@pytest.mark.parametrize("shape", [(2, 130, 77), (3, 9, 33)])
def test_2d_tiles_equal_the_whole_image(tmp_path: Path, shape: tuple[int, ...], tile: int | None) -> None:
    net, volume = seeded(Tiny), random_volume(shape)
    labels, probs, _ = tiled(net, volume, tmp_path / "s", tile_px=tile, batch=3)
    expected = whole(net, volume)
    np.testing.assert_allclose(probs, expected, atol=1e-5)
    np.testing.assert_array_equal(labels, probs.argmax(0))
    assert labels.dtype == np.uint8


@pytest.mark.parametrize("memory", [None, 2_000_000])
def test_3d_tiles_equal_the_whole_image(tmp_path: Path, memory: int | None) -> None:
    net, volume = seeded(Tiny, 3), random_volume((41, 50, 60))
    _, probs, events = tiled(net, volume, tmp_path / "s", memory_bytes=memory)
    np.testing.assert_allclose(probs, whole(net, volume), atol=1e-5)
    blocks = [e.total for e in events if isinstance(e, Progress)][-1]
    assert (blocks == 1) == (memory is None)


@pytest.mark.parametrize(("options", "tile"), [({}, 256), ({"levels": 2, "up": "bilinear"}, 80)])
def test_unet_tiles_equal_the_network_on_the_whole_image(tmp_path: Path, options: dict, tile: int) -> None:
    net = seeded(UNET.create, 1, 3, {"features": 4, **options})
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):  # otherwise the folding has nothing to fold
            module.running_mean.uniform_(-0.2, 0.2, generator=torch.Generator().manual_seed(1))
            module.running_var.uniform_(0.5, 1.5, generator=torch.Generator().manual_seed(2))
    volume = random_volume((1, 300, 141))
    _, probs, _ = tiled(net, volume, tmp_path / "s", tile_px=tile)
    with torch.no_grad():
        expected = net(torch.from_numpy(volume.read())[:, None])[0].softmax(0).numpy()
    np.testing.assert_allclose(probs[:, 0], expected, atol=1e-5)


@pytest.mark.parametrize("tile", [204, None])
def test_valid_unet_covers_the_image_by_mirroring(tmp_path: Path, tile: int | None) -> None:
    net = seeded(UNET.create, 1, 3, {"features": 2, "norm": "none", "padding": "valid"})
    volume = random_volume((1, 100, 60))
    labels, probs, _ = tiled(net, volume, tmp_path / "s", tile_px=tile)
    sizes = [n + 184 + (12 - n - 184) % 16 for n in (100, 60)]  # the next sizes that the network accepts
    rows, columns = (
        np.pad(np.arange(n), (92, size - n - 92), mode="reflect") for n, size in zip((100, 60), sizes, strict=True)
    )
    image = volume.read()[0][rows][:, columns]
    with torch.no_grad():
        expected = net(torch.from_numpy(image)[None, None])[0].softmax(0)[:, :100, :60].numpy()
    np.testing.assert_allclose(probs[:, 0], expected, atol=1e-5)
    assert labels.shape == (1, 100, 60)


def test_tta_of_tiles_equals_tta_of_the_whole_image(tmp_path: Path) -> None:
    net, volume = seeded(Tiny), random_volume((1, 72, 100))
    _, probs, _ = tiled(net, volume, tmp_path / "s", tile_px=48, tta=True)
    with torch.no_grad():
        expected = average(lambda t: net(t).softmax(1), torch.from_numpy(volume.read())[:, None])[0]
    np.testing.assert_allclose(probs[:, 0], expected.numpy(), atol=1e-5)


def test_the_eight_symmetries_are_distinct_and_inverted_exactly() -> None:
    image = torch.arange(2 * 3 * 5).reshape(2, 3, 5)
    images = [apply(image, element) for element in ELEMENTS]
    assert len({(tuple(i.shape), tuple(i.flatten().tolist())) for i in images}) == 8
    assert all(torch.equal(invert(i, e), image) for i, e in zip(images, ELEMENTS, strict=True))


def test_one_output_channel_is_a_foreground_logit(tmp_path: Path) -> None:
    net, volume = seeded(Tiny, classes=1), random_volume((1, 40, 40))
    labels, probs, _ = tiled(net, volume, tmp_path / "s", classes=2)
    with torch.no_grad():
        foreground = net(torch.from_numpy(volume.read())[:, None]).sigmoid().numpy()[:, 0]
    np.testing.assert_allclose(probs[1], foreground, atol=1e-6)
    np.testing.assert_allclose(probs.sum(0), 1, atol=1e-6)
    np.testing.assert_array_equal(labels, foreground > 0.5)


def test_channels_come_from_the_last_axis(tmp_path: Path) -> None:
    net, volume = seeded(Tiny, channels=2), random_volume((2, 40, 36, 2))
    _, probs, _ = tiled(net, volume, tmp_path / "s")
    with torch.no_grad():
        image = torch.from_numpy(np.moveaxis(volume.read(), -1, 1).copy())
        expected = net(image).softmax(1).transpose(0, 1).numpy()
    np.testing.assert_allclose(probs, expected, atol=1e-5)


def test_cancelled_run_continues_where_it_stopped(tmp_path: Path) -> None:
    net, volume = seeded(Tiny), random_volume((2, 96, 96))
    reference, _, _ = tiled(net, volume, tmp_path / "reference", tile_px=48)
    options = {"tile_px": 48, "batch": 1, "precision": "fp32", "device": "cpu", "intensity": IDENTITY, "classes": 3}
    job = predict(net, volume, Outputs(tmp_path / "s", probabilities=True), **options)
    for event in job:
        if isinstance(event, Progress) and event.done == 40:
            break
    job.close()
    with (tmp_path / "s" / "journal.jsonl").open("a") as file:
        file.write('{"done": [0, 3')  # as a power cut leaves it
    labels, _, events = tiled(net, volume, tmp_path / "s", tile_px=48)
    progress = [e for e in events if isinstance(e, Progress)]
    assert progress[0].done == 40 and progress[-1].done == progress[-1].total == 72
    np.testing.assert_array_equal(labels, reference)
    _, _, events = tiled(net, volume, tmp_path / "s", tile_px=48)
    assert [e.done for e in events if isinstance(e, Progress)] == [72]


def test_other_weights_start_over(tmp_path: Path) -> None:
    net, volume = seeded(Tiny), random_volume((1, 64, 64))
    tiled(net, volume, tmp_path / "s")
    with torch.no_grad():
        net.last.weight += 1
    _, probs, events = tiled(net, volume, tmp_path / "s")
    assert any(isinstance(e, Notice) and "other settings" in e.text for e in events)
    np.testing.assert_allclose(probs, whole(net, volume), atol=1e-5)


def test_foreign_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("dear")
    with pytest.raises(DataError, match="not a working store"):
        tiled(seeded(Tiny), random_volume((1, 64, 64)), tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "dear"


def test_out_of_memory_halves_the_batch_then_the_tile(tmp_path: Path) -> None:
    net, volume = seeded(Starved), random_volume((2, 64, 64))
    net.most = 64 * 40
    labels, probs, events = tiled(net, volume, tmp_path / "s", batch=4)
    np.testing.assert_allclose(probs, whole(seeded(Tiny), volume), atol=1e-5)
    assert any(isinstance(e, Notice) and "Out of memory" in e.text for e in events)
    assert isinstance(events[-1], Finished)
    net.most = 300  # the probe fits, no tile does
    with pytest.raises(ResourceError, match="smallest tile .* fewer features"):
        tiled(net, volume, tmp_path / "t")


def test_other_runtime_errors_are_not_mistaken_for_memory(tmp_path: Path) -> None:
    class Broken(Tiny):
        def forward_taps(self, image: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
            raise RuntimeError("shape mismatch")

    with pytest.raises(RuntimeError, match="shape mismatch"):
        tiled(seeded(Broken), random_volume((1, 64, 64)), tmp_path / "s")


def test_global_norms_are_announced_and_use_the_largest_tile(tmp_path: Path) -> None:
    net = seeded(UNET.create, 1, 3, {"features": 4, "levels": 2, "norm": "instance"})
    volume = random_volume((1, 128, 128))
    _, _, events = tiled(net, volume, tmp_path / "s")
    assert not any(isinstance(e, Notice) for e in events)
    _, _, events = tiled(net, volume, tmp_path / "t", tile_px=96)
    assert any(isinstance(e, Notice) and e.level == "warning" and "seams" in e.text for e in events)


def test_network_and_global_state_stay_as_they_were(tmp_path: Path) -> None:
    net = seeded(UNET.create, 1, 3, {"features": 4, "levels": 2}).train()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    tiled(net, random_volume((1, 64, 64)), tmp_path / "s", precision="bf16")
    assert net.training and all(p.requires_grad for p in net.parameters())
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())
    assert {v.dtype for v in before.values()} == {v.dtype for v in net.state_dict().values()}


def test_bf16_agrees_with_fp32(tmp_path: Path) -> None:
    net = seeded(UNET.create, 1, 3, {"features": 8, "levels": 2})
    volume = random_volume((1, 128, 128))
    _, full, _ = tiled(net, volume, tmp_path / "a")
    _, half, _ = tiled(net, volume, tmp_path / "b", precision="bf16")
    assert np.abs(full - half).max() < 0.05
    assert (full.argmax(0) == half.argmax(0)).mean() > 0.98


def test_folding_keeps_the_function_and_removes_every_batch_norm() -> None:
    net = seeded(UNET.create, 1, 2, {"features": 4, "levels": 2})
    for name, buffer in net.named_buffers():
        if "running" in name:
            buffer.copy_(torch.linspace(0.5, 1.5, buffer.numel()))
    image = torch.randn(1, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = net(image)
        assert fold_batch_norm(net) == 10
        torch.testing.assert_close(net(image), expected, atol=1e-5, rtol=1e-5)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in net.modules())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tile_px": 30}, "use at least 36"),
        ({"tile_px": 50}, "use 48 or 52"),
        ({"classes": 5}, "tells 3 classes apart but 5"),
        ({"batch": 0}, "batch 0"),
        ({"device": "tpu"}, "Unknown device 'tpu'"),
        ({"precision": "fp8"}, "Unknown precision"),
    ],
)
def test_wrong_options_name_the_remedy(tmp_path: Path, options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tiled(seeded(Tiny), random_volume((1, 99, 99)), tmp_path / "s", **options)
    assert not (tmp_path / "s").exists()


def test_wrong_channels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"2 channel\(s\) but the network takes 1"):
        tiled(seeded(Tiny), random_volume((1, 64, 64, 2)), tmp_path / "s")


def test_ties_go_to_the_smallest_class() -> None:
    net = seeded(Tiny, classes=3)
    for parameter in net.parameters():
        parameter.data.zero_()
    labels, _ = Frozen(net, torch.device("cpu"), None, False)(np.ones((1, 1, 1, 8, 8), np.float32), False)
    assert labels.max() == 0
