"""Segment 8 tiles of 256 x 256 with a U-Net of 32 features: plain float32 tile by tile, and this package's ways.

    python benchmarks/inference.py [--rounds 5] [--threads N] [--run RUN]

Variants run interleaved, so that a busy machine slows all of them; medians and their ratio to the plain loop go to
benchmarks/results/inference.json. With one thread the CPU time tells what a quiet machine would need.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from _record import DATA, record
from torch import nn

from napari_em_da.device import choose_device, choose_precision
from napari_em_da.inference.network import Frozen
from napari_em_da.models.unet import MODEL
from napari_em_da.training.folder import RunFolder
from napari_em_da.volume import Volume
from napari_em_da.workflows.segment import resample


def network() -> nn.Module:
    """Return a U-Net with random weights and batch statistics that make the folding non-trivial."""
    torch.manual_seed(0)
    net = MODEL.create(1, 2, {"features": 32}).eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.2, 0.2)
            module.running_var.uniform_(0.5, 1.5)
    return net


def phantom() -> np.ndarray:
    """Return 8 tiles of smooth noise, (8, 1, 1, 256, 256) float32."""
    rng = np.random.default_rng(0)
    coarse = torch.from_numpy(rng.normal(size=(8, 1, 32, 32)).astype(np.float32))
    tiles = nn.functional.interpolate(coarse, scale_factor=8, mode="bicubic").numpy()
    tiles += rng.normal(scale=0.3, size=tiles.shape).astype(np.float32)
    return tiles[:, :, None]


def trained(run: Path) -> tuple[nn.Module, np.ndarray]:
    """Return a run's network and 8 tiles of the EPFL test sections at its pixel size."""
    folder = RunFolder.open(run)
    volume = Volume.open(DATA / "epfl_hippocampus" / "image_test.tif", voxel_nm=(5, 5, 5))
    sections = resample(volume, 5 / folder.info()["pixel_nm"]).read()
    image = volume.intensity.standardise(sections)
    tiles = [image[z, y : y + 256, x : x + 256] for z in range(5) for y in (0, 128) for x in (0, 256)][:8]
    return folder.network(), np.stack(tiles)[:, None, None]


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--run", type=Path, help="a trained run and real sections instead of noise")
    arguments = parser.parse_args()
    rounds = arguments.rounds
    torch.set_num_threads(arguments.threads)
    net, tiles = (network(), phantom()) if arguments.run is None else trained(arguments.run)
    device = choose_device("auto")
    plain_net = copy.deepcopy(net).to(device)

    @torch.no_grad()
    def plain() -> np.ndarray:
        images = torch.from_numpy(tiles[:, :, 0])
        return np.concatenate([plain_net(images[i : i + 1].to(device)).argmax(1).cpu().numpy() for i in range(8)])

    def ours(dtype: torch.dtype | None, batch: int) -> Callable[[], np.ndarray]:
        frozen = Frozen(net, device, dtype, average=False)
        frozen.batch = batch
        return lambda: frozen(tiles, probabilities=False)[0][:, 0]

    variants = {"plain fp32, tile by tile": plain}
    for name, dtype in (("fp32", None), ("bf16", torch.bfloat16)):
        for batch in (1, 8):
            variants[f"ours {name}, batch {batch}"] = ours(dtype, batch)
    reference = plain()
    seconds: dict[str, list[np.ndarray]] = {name: [] for name in variants}
    agreement = {name: float((run() == reference).mean()) for name, run in variants.items()}  # also warms up
    for _ in range(rounds):
        for name, run in variants.items():
            start = np.array([time.perf_counter(), time.process_time()])
            run()
            seconds[name].append(np.array([time.perf_counter(), time.process_time()]) - start)

    medians = {name: np.median(times, axis=0) for name, times in seconds.items()}
    base = medians["plain fp32, tile by tile"]
    rows = {
        name: {
            "wall_s": round(float(wall), 4),
            "cpu_s": round(float(cpu), 4),
            "speedup_wall": round(float(base[0] / wall), 2),
            "speedup_cpu": round(float(base[1] / cpu), 2),
            "argmax_agreement": round(agreement[name], 6),
        }
        for name, (wall, cpu) in medians.items()
    }
    auto = "bf16" if choose_precision("auto", device) else "fp32"
    trained_on = None if arguments.run is None else "EPFL mitochondria"
    record("inference", {"auto": auto, "rounds": rounds, "network": trained_on, "variants": rows})
    for name, row in rows.items():
        times = (
            f"{row['wall_s']:7.3f} s wall x{row['speedup_wall']:<5} {row['cpu_s']:7.3f} s cpu x{row['speedup_cpu']:<5}"
        )
        print(f"{name:26s} {times} agreement {row['argmax_agreement']:.4f}")


if __name__ == "__main__":
    main()
