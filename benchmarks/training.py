"""One training step: plain float32 against bfloat16 channels_last, and the share of it that sampling costs.

    python benchmarks/training.py [--rounds 5]

U-Net of 32 features with batch norm, 8 windows of 192 x 192, cross-entropy and Dice, AdamW; the variants run
interleaved in one process.
"""

from __future__ import annotations

import argparse
import time
from statistics import median

import numpy as np
import torch
from _record import record

from napari_em_da.config import AugmentConfig, LossConfig, TrainingConfig
from napari_em_da.losses import segmentation_loss
from napari_em_da.methods import METHODS
from napari_em_da.methods._base import Setup
from napari_em_da.models import MODELS
from napari_em_da.sampling import Sampler, Source
from napari_em_da.training.loop import make_optimiser, train_step
from napari_em_da.volume import Volume

CPU = torch.device("cpu")


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    rng = np.random.default_rng(0)
    volume = Volume.from_array(rng.integers(0, 256, (20, 768, 1024), dtype=np.uint8))
    labels = (rng.random((20, 768, 1024)) < 0.1).astype(np.uint8)
    augment = AugmentConfig(rotate_deg=180, piecewise_affine=0.5, elastic=0.5)
    sampler = Sampler(
        [Source(volume, labels)], patch_px=(1, 192, 192), batch=8, ndim=2, seed=0, stream="source", augment=augment
    )
    batch = {"source": sampler.draw(0)}
    config = TrainingConfig(device="cpu")
    variants = {}
    for name, dtype in (("fp32 plain", None), ("fp32 channels_last", None), ("bf16 channels_last", torch.bfloat16)):
        torch.manual_seed(0)
        network = MODELS["unet"].create(1, 2, {"features": 32})
        method = METHODS["supervised"].create(Setup(network, segmentation_loss(LossConfig()), (192, 192), 100, 1e-3))
        sample = batch["source"].to("cpu", channels_last="channels_last" in name)
        if "channels_last" in name:
            method.to(memory_format=torch.channels_last)
        players = method.players()
        optimisers = {key: make_optimiser(player, config) for key, player in players.items()}
        variants[name] = (method, players, optimisers, {"source": sample}, dtype)
    times: dict[str, list[float]] = {name: [] for name in (*variants, "sampling")}
    for index in range(rounds + 1):
        for name, (method, players, optimisers, data, dtype) in variants.items():
            start = time.perf_counter()
            train_step(method, players, optimisers, data, index, config, CPU, dtype)
            times[name].append(time.perf_counter() - start)
        start = time.perf_counter()
        sampler.draw(index + 1)
        times["sampling"].append(time.perf_counter() - start)
    seconds = {name: round(median(values[1:]), 4) for name, values in times.items()}  # the first round warms up
    ratios = {name: round(seconds["fp32 plain"] / seconds[name], 2) for name in variants}
    share = round(seconds["sampling"] / seconds["bf16 channels_last"], 4)
    results = {"median_seconds": seconds, "ratio_to_fp32_plain": ratios, "sampling_share_of_bf16_step": share}
    print(record("training", results), results)


if __name__ == "__main__":
    main()
