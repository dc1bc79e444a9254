"""How long the section in view takes to follow a slider, per kind of weight map, against the libraries one would use.

A 1024x1024 section of a volume of 20; each value of the slider is new. ``ms`` is the time to the first picture, which
is exact already where nothing has to be counted over the volume; ``exact_ms`` is the time to the exact one, which
counts all sections where the map is scaled by the largest weight of the volume. The first call for a section, that
measures its distances, is ``first_ms``. ``cpu_ms`` is the processor time of a move, over all threads: what counts
where other programs run. Rivals compute the raw map of the one section; two of them do a part of the work, and are
scaled up to all of it.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage.filters import rank

from napari_em_da.layers import SectionWeights

EPFL = Path(__file__).resolve().parents[2] / "shared" / "data" / "epfl_hippocampus" / "labels.tif"
SECTION, SIDE = 10, 1024
FEW = 5  # of the objects or steps that a slow rival does
Labels = npt.NDArray[Any]
LAPLACIAN = np.array([[1, 2, 1], [2, -12, 2], [1, 2, 1]]) / 12


def label_stack(synthetic: Callable[[int], tuple[Labels, str]]) -> tuple[Labels, str]:
    """Return labels (20, 1024, 1024) and where they come from."""
    if not EPFL.exists():
        return synthetic(20)
    import tifffile

    labels = tifffile.imread(EPFL)
    missing = [(0, 0), *((0, SIDE - n) for n in labels.shape[1:])]
    return np.ascontiguousarray(np.pad(labels, missing, mode="symmetric")), (
        "EPFL hippocampus labels (FIB-SEM), 20x768x1024, mirrored to 20x1024x1024"
    )


def slid(name: str, low: float, high: float, **fixed: Any) -> list[dict[str, Any]]:
    """Return options as a slider that moves sets them, a new value each."""
    return [{**fixed, name: float(value)} for value in np.linspace(low, high, 8)]


def cases() -> Iterator[tuple[str, str, bool, list[dict[str, Any]], str]]:
    """Yield (map and slider, kind, object ids instead of classes, options, rival)."""
    yield "entropy 5x5, base", "entropy", False, slid("base", 1.5, 10, normalise=False), "skimage rank.entropy"
    windows = [{"window": (1, size, size)} for size in (3, 5, 7, 9, 11, 13, 15, 33)]
    yield "entropy, window 3 to 33", "entropy", False, windows, "skimage rank.entropy"
    yield "distance decay, sigma", "distance", False, slid("sigma", 1, 30), "scipy EDT + exp"
    inside = {"mode": "inside_edt"}
    yield "distance inside_edt, sigma", "distance", False, slid("sigma", 1, 30, **inside), "scipy EDT + Gaussian"
    thickness = slid("half_thickness", 1, 100, **inside)
    yield "distance inside_edt, half_thickness", "distance", False, thickness, "scipy EDT + Gaussian"
    yield "distance inverted, sigma", "distance", False, slid("sigma", 1, 30, mode="inverted"), "scipy EDT + Gaussian"
    yield (
        "distance inverted, d_clip",
        "distance",
        False,
        slid("d_clip", 1, 100, mode="inverted"),
        "scipy EDT + Gaussian",
    )
    yield "border, sigma", "border", True, slid("sigma", 0.5, 30), "scipy EDT per object"
    yield "border, w_0", "border", True, slid("w_0", 1, 50), "scipy EDT per object"
    yield "border everywhere, sigma", "border", True, slid("sigma", 0.5, 30, where="all"), "scipy EDT per object"
    yield "diffusion, c_diffuse", "diffusion", False, slid("c_diffuse", 0.05, 1), "scipy convolve, 50 steps"
    yield "diffusion, threshold", "diffusion", False, slid("threshold", 0.05, 0.9), "scipy convolve, 50 steps"
    yield "diffusion, max_weight", "diffusion", False, slid("max_weight", 1, 50), "scipy convolve, 50 steps"
    yield "ratio, ratio", "ratio", False, slid("ratio", 1, 20), "numpy where"
    yield "frequency, max_ratio", "frequency", False, slid("max_ratio", 1, 200), "numpy unique + take"


def rival_of(name: str, labels: Labels, ids: Labels) -> tuple[Callable[[], Any], float]:
    """Return what computes the raw map of one section with scipy, scikit-image or numpy, and how often it has to."""
    section, objects = labels[SECTION], ids[SECTION]
    boundary, present = section == 1, np.unique(objects[objects > 0])

    def smoothed() -> Any:
        return ndimage.gaussian_filter(ndimage.distance_transform_edt(boundary), 15)

    def border() -> Any:
        nearest = np.full((2, *objects.shape), np.inf)
        for label in present[:FEW]:
            nearest = np.sort([*nearest, ndimage.distance_transform_edt(objects != label)], axis=0)[:2]
        return np.exp(-(nearest.sum(0) ** 2) / 50)

    def diffusion() -> Any:
        for source in (section == 0, section == 1):
            u = source.astype(np.float32)
            for _ in range(FEW):
                u = np.maximum(0, 0.98 * (u + 0.2 * ndimage.convolve(u, LAPLACIAN)))
                u[source] = 1
        return u

    rivals: dict[str, Callable[[], Any]] = {
        "skimage rank.entropy": lambda: rank.entropy(section, np.ones((5, 5), np.uint8)),
        "scipy EDT + exp": lambda: np.exp(-(ndimage.distance_transform_edt(~boundary) ** 2) / 200),
        "scipy EDT + Gaussian": smoothed,
        "scipy EDT per object": border,
        "scipy convolve, 50 steps": diffusion,
        "numpy where": lambda: np.where(boundary, 5, 1).astype(np.float32),
        "numpy unique + take": lambda: (1 / np.maximum(np.bincount(section.ravel()), 1))[section].astype(np.float32),
    }
    times = {"scipy EDT per object": len(present) / FEW, "scipy convolve, 50 steps": 50 / FEW}
    return rivals[name], times.get(name, 1.0)


def follow(sections: SectionWeights, kind: str, options: dict[str, Any], *, exact: bool) -> tuple[float, float, float]:
    """Return the milliseconds to the first picture, to the exact one, and of the processor until the first."""
    start = time.perf_counter(), time.process_time()
    steps = sections.steps(SECTION, kind, **options)
    next(steps)
    first, cpu = time.perf_counter() - start[0], time.process_time() - start[1]
    for _ in steps if exact else ():
        pass
    return 1e3 * first, 1e3 * (time.perf_counter() - start[0]), 1e3 * cpu


def measure(synthetic: Callable[[int], tuple[Labels, str]]) -> dict[str, Any]:
    """Measure every case."""
    labels, source = label_stack(synthetic)
    ids = ndimage.label(labels != 1)[0].astype(np.int32)
    rivals: dict[str, tuple[float, float]] = {}
    rows = []
    for name, kind, objects, options, rival in cases():
        given, ignore = (ids, None) if objects else (labels, 255)
        follow(SectionWeights(given, None, ignore), kind, options[0], exact=False)  # compiles
        sections = SectionWeights(given, None, ignore)
        first = follow(sections, kind, options[0], exact=True)[0]
        moves, _, cpu = zip(*(follow(sections, kind, values, exact=False) for values in options[1:]), strict=True)
        sections = SectionWeights(given, None, ignore)
        settled = statistics.median(follow(sections, kind, values, exact=True)[1] for values in options[:3])
        if rival not in rivals:
            job, times = rival_of(rival, labels, ids)
            start = time.perf_counter(), time.process_time()
            job()
            spent = time.perf_counter() - start[0], time.process_time() - start[1]
            rivals[rival] = 1e3 * times * spent[0], 1e3 * times * spent[1]
        row: dict[str, Any] = {"map": name, "ms": statistics.median(moves), "cpu_ms": statistics.median(cpu)}
        row |= {"largest_ms": max(moves), "largest_cpu_ms": max(cpu), "first_ms": first, "exact_ms": settled}
        rows.append({**row, "rival": rival, "rival_ms": rivals[rival][0], "rival_cpu_ms": rivals[rival][1]})
        print(
            f"{name:34s} {row['ms']:7.1f} ms (processor {row['cpu_ms']:6.1f}, largest {max(cpu):6.1f}; first "
            f"{first:7.1f}, exact {settled:7.1f})   {rival}: {rivals[rival][0]:.0f} ms "
            f"(processor {rivals[rival][1]:.0f})",
            flush=True,
        )
    return {"data": source, "shape": [SIDE, SIDE], "maps": rows}
