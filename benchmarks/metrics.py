"""Scores against scikit-image and scikit-learn, the warping error of one section, and memory at three sizes.

    python benchmarks/metrics.py [--rounds 5]

Instance labels of 10x1024x1024 made from the VNC annotation (components of everything but membrane), beside a copy in
which sections were eroded, cut and shifted. All variants run interleaved in one process; medians and ratios go to
benchmarks/results/metrics.json. The memory of each size is measured in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cc3d
import numpy as np
import zarr
from _record import DATA, record
from scipy import ndimage
from skimage.measure import regionprops_table
from skimage.metrics import adapted_rand_error, variation_of_information
from sklearn.metrics import confusion_matrix as sklearn_confusion

import napari_em_da as em
from napari_em_da.measurements import measure
from napari_em_da.metrics.overlap import confusion_matrix
from napari_em_da.volume import Volume

SIZES = (1, 4, 16)
IDS = ["arand", "vi"]


def pair() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return annotated and predicted instance ids, and the annotated classes, (10, 1024, 1024)."""
    classes = Volume.open(DATA / "vnc_sstem" / "labels.tif").read()[:10]
    inside = classes != 1
    labels = cc3d.connected_components(inside, connectivity=6).astype(np.uint32)
    worse = ndimage.binary_erosion(np.roll(inside, 2, axis=2), np.ones((1, 3, 3)), iterations=2)
    worse[:, ::97] = False
    prediction = cc3d.connected_components(worse, connectivity=6).astype(np.uint32)
    return prediction, labels, classes


def medians(variants: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Run all variants in turn and return their median seconds; the first turn, which compiles, does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(rounds + 1):
        for name, run in variants.items():
            start = time.perf_counter()
            run()
            if number:
                seconds[name].append(time.perf_counter() - start)
    return {name: float(np.median(times)) for name, times in seconds.items()}


def speed(rounds: int) -> dict[str, Any]:
    """Return seconds and ratios."""
    prediction, labels, classes = pair()
    other = np.roll(classes, 3, axis=2)
    found = medians(
        {
            "rand + vi, skimage": lambda: (
                adapted_rand_error(labels, prediction, ignore_labels=(0,)),
                variation_of_information(labels, prediction, ignore_labels=(0,)),
            ),
            "rand + vi, ours": lambda: em.evaluate_arrays(prediction, labels, IDS),
            "confusion, sklearn": lambda: sklearn_confusion(classes.ravel(), other.ravel(), labels=range(6)),
            "confusion, ours": lambda: confusion_matrix(other, classes, range(6), ignore_index=None),
            "objects, skimage": lambda: regionprops_table(
                labels, intensity_image=classes, properties=("label", "area", "bbox", "centroid", "mean_intensity")
            ),
            "objects, ours": lambda: measure(
                labels, image=classes, unit="px", columns=("size", "bounding_box", "centroid", "intensity")
            ),
        },
        rounds,
    )
    ratios = {
        what: round(found[f"{what}, {peer}"] / found[f"{what}, ours"], 1)
        for what, peer in (("rand + vi", "skimage"), ("confusion", "sklearn"), ("objects", "skimage"))
    }
    rng = np.random.default_rng(0)
    membrane = (classes[:1, :512, :512] == 1).astype(np.uint8)
    noise = ndimage.gaussian_filter(rng.normal(size=membrane.shape), (0, 3, 3))
    soft = ndimage.gaussian_filter(membrane.astype(np.float32), (0, 2, 2)) + 1.5 * noise.astype(np.float32)
    soft = np.clip(soft, 0, 1)
    warping = medians(
        {
            "one threshold": lambda: em.evaluate_arrays(
                soft, membrane, ["warping_error"], kind="membrane", thresholds=(0.5,)
            ),
            "ten thresholds": lambda: em.evaluate_arrays(soft, membrane, ["warping_error"], kind="membrane"),
        },
        rounds,
    )
    return {
        "seconds": {name: round(value, 4) for name, value in found.items()},
        "ratios": ratios,
        "warping error, one section of 512x512, seconds": {name: round(value, 3) for name, value in warping.items()},
    }


def peak_mib() -> int:
    """Return the largest resident size so far (Linux; getrusage would start from the parent's)."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) // 1024


def one_size(times: int, folder: Path) -> None:
    """Print the seconds and the peak memory of scoring a volume ``times`` as long, from zarr."""
    prediction, labels = (zarr.open_array(str(folder / name), mode="r") for name in ("prediction", "labels"))
    import dask.array as da

    lazy = [da.concatenate([da.from_zarr(array)] * times) for array in (prediction, labels)]
    em.evaluate_arrays(lazy[0][:1], lazy[1][:1], [*IDS, "pq"])  # compiles
    before = peak_mib()
    start = time.perf_counter()
    em.evaluate_arrays(*lazy, [*IDS, "pq"])
    seconds = time.perf_counter() - start
    row = {"seconds": round(seconds, 2), "volumes, MiB": round(sum(a.nbytes for a in lazy) / 2**20)}
    print(json.dumps({**row, "process before, MiB": before, "process at its peak, MiB": peak_mib()}))


def one_chain(times: int, folder: Path) -> None:
    """Print the seconds and the peak memory of a chain on a lazy volume ``times`` as long, written to zarr."""
    import dask.array as da

    from napari_em_da.config import ChainConfig
    from napari_em_da.postprocess import Stack, apply_chain

    membrane = da.concatenate([da.from_zarr(str(folder / "labels"))] * times) == 0
    chain = ChainConfig(
        steps=({"fill_holes": {"max_size_nm3": 1e6}}, {"remove_small": {"min_size_nm3": 1e6}}, "components")
    )
    names = ("background", "cell")

    def work(data: Any, name: str) -> None:
        stack = Stack(data, "labels", (50.0, 4.6, 4.6), names, work=folder / f"work-{name}-{times}")
        da.to_zarr(apply_chain(chain, stack).data.rechunk((5, 1024, 1024)), str(folder / f"out-{name}-{times}"))

    cells = (1 - membrane.astype(np.uint8)).astype(np.uint8)
    work(cells[:1], "warm")
    before = peak_mib()
    start = time.perf_counter()
    work(cells, "whole")
    seconds = time.perf_counter() - start
    row = {"seconds": round(seconds, 2), "voxels, M": round(cells.size / 1e6)}
    print(json.dumps({**row, "process before, MiB": before, "process at its peak, MiB": peak_mib()}))


def growth() -> dict[str, Any]:
    """Return seconds and memory of Rand, VI and PQ, and of a chain, for 10, 40 and 160 sections of 1024x1024."""
    prediction, labels, _ = pair()
    rows = {}
    with tempfile.TemporaryDirectory() as name:
        for what, array in (("prediction", prediction), ("labels", labels)):
            stored = zarr.create_array(
                str(Path(name) / what), shape=array.shape, chunks=(5, 1024, 1024), dtype=array.dtype
            )
            stored[:] = array
        for times in SIZES:
            for what in ("scores", "chain"):
                command = [sys.executable, __file__, "--one", what, str(times), name]
                printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                rows[f"{what} x{times} ({times * prediction.size / 1e6:.0f} Mvox)"] = json.loads(printed)
    return rows


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        what, times, folder = arguments.one
        (one_size if what == "scores" else one_chain)(int(times), Path(folder))
        return
    results = {**speed(arguments.rounds), "growth": growth()}
    print(record("metrics", results), json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
