"""Dark or bright membranes, told from shapes: on drawn cells, phantoms, noise, and real pairs where they are there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from scipy import ndimage

from napari_em_da.errors import DataError
from napari_em_da.synthetic import phantom_pair
from napari_em_da.volume import Volume
from napari_em_da.workflows.contrast import contrast, polarity

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
REAL = {
    "EPFL": "epfl_hippocampus/image.tif",
    "EPFL test": "epfl_hippocampus/image_test.tif",
    "VNC": "vnc_sstem/image.tif",
    "VNC 2": "vnc_sstem/image_stack2.tif",
    "FlyEM": "flyem_medulla/image.tif",
    "FlyEM raw": "flyem_medulla/image_sample1_raw.tif",
}


def net(*, bright_cells: int = 200, walls: int = 60) -> npt.NDArray[np.uint8]:
    """A grid of 9 by 9 cells of 12 pixels, with walls of 5 between them."""
    cell = np.pad(np.ones((12, 12), bool), ((5, 0), (5, 0)))
    grid = np.pad(np.tile(cell, (9, 9)), ((0, 5), (0, 5)))
    return np.where(grid, bright_cells, walls).astype(np.uint8)[None]


def test_islands_of_a_net_are_counted_by_eye() -> None:
    found = polarity(Volume.from_array(net()))
    assert found.bright >= 3 * 81, "9 x 9 cells, at every level of the finer width"
    assert 3 * found.dark < found.bright and found.sign == 1
    turned = polarity(Volume.from_array(255 - net()))
    assert (turned.bright, turned.dark) == (found.dark, found.bright) and turned.sign == -1


def test_the_histogram_does_not_matter() -> None:
    for dark, bright in ((0, 20), (100, 255), (200, 250)):
        volume = Volume.from_array(net(bright_cells=bright, walls=dark))
        assert polarity(volume).sign == 1 and polarity(Volume.from_array(255 - volume.read())).sign == -1


@pytest.mark.parametrize("seed", [3, 4])
def test_phantoms(seed: int) -> None:
    one, other = (part.image for part in phantom_pair((4, 160, 160), seed))
    turned = Volume.from_array(255 - other.read())
    assert contrast(other, one) == "same"
    assert contrast(turned, one) == contrast(one, turned) == "inverted"


def test_what_has_no_shapes_cannot_be_told() -> None:
    random = np.random.default_rng(0)
    cells = Volume.from_array(net())
    for noise in (random.normal(128, 30, (4, 128, 128)), random.exponential(30, (4, 64, 64))):
        volume = Volume.from_array(noise.clip(0, 255).astype(np.uint8))
        assert polarity(volume).sign == 0 and contrast(volume, cells) == contrast(cells, volume) == "unknown"
    assert polarity(Volume.from_array(np.full((2, 64, 64), 7, np.uint8))).sign == 0
    with pytest.raises(DataError, match="NaN"):
        polarity(Volume.from_array(np.full((1, 32, 32), np.nan)))


def real() -> dict[str, npt.NDArray[np.uint8]]:
    import tifffile

    volumes = {}
    for name, path in REAL.items():
        if not (DATA / path).is_file():
            pytest.skip("the real volumes of ../shared/data are not here")
        stack = tifffile.imread(DATA / path)
        volumes[name] = stack[:: max(1, len(stack) // 4)][:4]
    return volumes


@pytest.mark.parametrize("spoiled", ["as they are", "blurred", "noisy"])
def test_every_real_pair(spoiled: str) -> None:
    random = np.random.default_rng(0)
    signs: dict[str, int] = {}
    for name, raw in real().items():
        stack = raw.astype(np.float32)
        if spoiled == "blurred":
            stack = ndimage.gaussian_filter(stack, (0, 2, 2))
        elif spoiled == "noisy":
            stack = stack + random.normal(0, float(raw.std()), raw.shape).astype(np.float32)
        one, turned = polarity(Volume.from_array(stack)), polarity(Volume.from_array(255 - stack))
        assert one.sign == -turned.sign, name
        signs[name] = one.sign
    assert set(signs.values()) == {1}, f"every pair is the same, and inverted where one of them is: {signs}"
