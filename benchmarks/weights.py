"""Weight maps against the libraries one would use instead.

Every job and its rival run in turn, in one process, on the same labels; the medians and their ratio are reported, with
the peak of traced memory in copies of the float32 output. Single-section rivals are timed on few sections.

    python benchmarks/weights.py [all|volume|preview] [--sections 20] [--repeats 5]

``preview`` (see ``_weight_preview.py``) measures how a section follows a slider; only its part of the result changes.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage
from skimage.filters import rank

from napari_em_da.weights import weight_map
from napari_em_da.weights._edt import squared_distance
from napari_em_da.weights._gaussian import smooth

ROOT = Path(__file__).resolve().parents[1]
REAL = ROOT.parent / "shared" / "data" / "vnc_sstem" / "labels.tif"
RESULT = ROOT / "benchmarks" / "results" / "weights.json"
Job = Callable[[], Any]


def label_field(sections: int) -> tuple[np.ndarray, str]:
    """Return labels (sections, 1024, 1024), 1 the membrane, and where they come from."""
    if REAL.exists():
        import tifffile

        return tifffile.imread(REAL)[:sections], "Drosophila VNC labels (ssTEM), 20x1024x1024"
    rng = np.random.default_rng(0)
    noise = ndimage.gaussian_filter(rng.standard_normal((sections, 1024, 1024)).astype(np.float32), (0, 20, 20))
    labels = np.digitize(noise, np.quantile(noise, (0.1, 0.2, 0.25))).astype(np.uint8) + 2
    labels[np.abs(noise) < np.quantile(np.abs(noise), 0.17)] = 1
    return labels, "synthetic label field (smoothed noise, 17 % membrane)"


def machine() -> dict[str, Any]:
    """Describe the processor class, never the host."""
    model = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
        model = names[0].split(":", 1)[1].strip() if names else model
    return {"cpu": model, "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()}


def interleaved(ours: Job, rival: Job, repeats: int) -> tuple[float, float]:
    """Return the median seconds of both, run in turn after one warm-up each."""
    times: tuple[list[float], list[float]] = ([], [])
    for round_ in range(repeats + 1):
        for job, kept in zip((ours, rival), times, strict=True):
            start = time.perf_counter()
            job()
            if round_:
                kept.append(time.perf_counter() - start)
    return statistics.median(times[0]), statistics.median(times[1])


def peak_copies(job: Job, output_bytes: int) -> float:
    """Return the peak of memory that numpy allocates during a job, in copies of its output."""
    tracemalloc.start()
    job()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / output_bytes


def rows(labels: np.ndarray, few: int) -> list[tuple[str, str, Job, Job, float]]:
    """Return (job, rival, ours, theirs, how many times more sections ours gets)."""
    four = np.minimum(labels - 1, 3).astype(np.uint8)
    boundary = (labels == 1).astype(np.uint8)
    image = boundary.astype(np.float32)
    square = np.ones((5, 5), np.uint8)
    more = len(labels) / few

    def decay_scipy() -> None:
        for section in boundary[:few]:
            distance = ndimage.distance_transform_edt(section == 0)
            np.exp(-(distance**2) / 200).astype(np.float32)

    return [
        ("entropy 5x5, 4 classes", "skimage.filters.rank.entropy", lambda: weight_map(four, "entropy"),
         lambda: [rank.entropy(section, square) for section in four[:few]], more),
        ("entropy 5x5, 5 classes", "skimage.filters.rank.entropy", lambda: weight_map(labels, "entropy"),
         lambda: [rank.entropy(section, square) for section in labels[:few]], more),
        ("exact 2D EDT, one thread", "scipy.ndimage.distance_transform_edt",
         lambda: [squared_distance(section != 0) for section in boundary[:few]],
         lambda: [ndimage.distance_transform_edt(section == 0) for section in boundary[:few]], 1),
        ("Gaussian sigma 10", "scipy.ndimage.gaussian_filter", lambda: smooth(image[:few].copy(), (0, 10, 10)),
         lambda: ndimage.gaussian_filter(image[:few], (0, 10, 10)), 1),
        ("distance/decay", "scipy EDT + exp", lambda: weight_map(boundary, "distance"), decay_scipy, more),
    ]  # fmt: skip


def main() -> None:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="?", choices=("all", "volume", "preview"), default="all")
    parser.add_argument("--sections", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    report: dict[str, Any] = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else {}
    if arguments.part != "preview":
        report = {**report, **volume(arguments.sections, arguments.repeats)}
    if arguments.part != "volume":
        import _weight_preview

        load = [round(one, 1) for one in os.getloadavg()]
        found = _weight_preview.measure(label_field)
        report["preview"] = {"command": command(), "machine": machine(), "load_average_before": load, **found}
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def command() -> str:
    """Return how this was called."""
    return " ".join(["python", "benchmarks/weights.py", *sys.argv[1:]])


def volume(sections: int, repeats: int) -> dict[str, Any]:
    """Measure whole volumes, and print the table."""
    labels, source = label_field(sections)
    table = []
    for job, rival, ours, theirs, more in rows(labels, few=2):
        mine, other = interleaved(ours, theirs, repeats)
        other *= more
        table.append({"job": job, "rival": rival, "seconds": mine, "rival_seconds": other, "ratio": other / mine})
        print(f"{job:28s} {mine:8.4f} s   {other / mine:6.1f} x {rival}")
    memory = {}
    ids = ndimage.label(labels != 1)[0].astype(np.int32)
    for kind in ("entropy", "distance", "border", "diffusion", "ratio", "frequency"):
        given = ids if kind == "border" else labels

        def job(kind: str = kind, given: np.ndarray = given) -> Any:
            return weight_map(given, kind, ignore_index=None)

        start = time.perf_counter()
        job()
        seconds = time.perf_counter() - start
        memory[kind] = {
            "peak_output_copies": peak_copies(job, given.size * 4),
            "seconds_per_section": seconds / len(given),
        }
        print(f"{kind:28s} {memory[kind]['peak_output_copies']:.2f} output copies at the peak")
    return {
        "command": command(),
        "machine": machine(),
        "data": source,
        "shape": list(labels.shape),
        "repeats": repeats,
        "speed": table,
        "kinds": memory,
    }


if __name__ == "__main__":
    main()
