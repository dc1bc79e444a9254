"""Time to draw a batch of 8 windows of 192 x 192 pixels with every augmentation, on one thread.

Run with ``python benchmarks/sampling.py``. A training step of the default network takes several hundred
milliseconds on a CPU; a batch must cost a small fraction of that.
"""

from __future__ import annotations

import time

import cv2
import numpy as np

from napari_em_da.config import AugmentConfig
from napari_em_da.sampling import Sampler, Source
from napari_em_da.volume import Volume

PLAIN = AugmentConfig(flip=False, rotate90=False, scale=(1, 1), photometric=0)
FULL = AugmentConfig(rotate_deg=45, piecewise_affine=1, elastic=1, photometric=1, invert=0.5, match_target=1)


def milliseconds(sampler: Sampler, draws: int = 20) -> float:
    """Median time of one draw."""
    sampler.draw(0)
    times = []
    for step in range(1, draws + 1):
        start = time.perf_counter()
        sampler.draw(step)
        times.append(1e3 * (time.perf_counter() - start))
    return float(np.median(times))


def main() -> None:
    """Print one line per setting."""
    cv2.setNumThreads(1)
    rng = np.random.default_rng(0)
    shape = (20, 768, 1024)
    volume = Volume.from_array(rng.integers(0, 256, shape, np.uint8), voxel_nm=(5, 5, 5))
    labels = rng.integers(0, 6, shape, np.uint8)
    weights = rng.random(shape, np.float32)
    settings = {
        "2D, no augmentation": (PLAIN, (1, 192, 192), 8, None),
        "2D, default": (AugmentConfig(), (1, 192, 192), 8, None),
        "2D, everything": (FULL, (1, 192, 192), 8, None),
        "2D, everything, 5 -> 10 nm": (FULL, (1, 192, 192), 8, 10.0),
        "3D 16x128x128, everything": (FULL, (16, 128, 128), 1, None),
    }
    for name, (augment, patch, batch, pixel_nm) in settings.items():
        sampler = Sampler(
            [Source(volume, labels, weights)],
            patch_px=patch,
            batch=batch,
            ndim=2 if patch[0] == 1 else 3,
            seed=0,
            stream="source",
            augment=augment,
            balance=0.5,
            classes=6,
            match=volume.intensity,
            pixel_nm=pixel_nm,
        )
        print(f"{name:32s} {milliseconds(sampler):6.1f} ms per batch of {batch}")


if __name__ == "__main__":
    main()
