"""torch-em's mean teacher on our batches; runs in the environment of torch-em, started by peer_mean_teacher.py.

    python benchmarks/_torch_em.py RUN

``RUN`` is a prepared run folder; it gets ``student-best.safetensors`` and so on, in our format, and ``peer.json``.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from napari_em_da.events import Event
from napari_em_da.sampling import Prefetch, Sample
from napari_em_da.training import checkpoint
from napari_em_da.training.folder import RunFolder
from napari_em_da.workflows.plan import IGNORE, make_plan
from napari_em_da.workflows.streams import prepare

CONFIDENCE = 0.9  # as torch-em's authors adapt; its teacher keeps 0.999 of itself
CHANCE, NOISE = 0.75, (0.0, 0.15)  # of each weak change of a window; standard deviation of the noise
KEPT: list[Any] = []
FILES = tuple(f"{who}-{when}" for when in ("best", "latest") for who in ("student", "teacher"))


class Clock:
    """Wall time since it was made, and the median time between two ticks, one per training step."""

    def __init__(self) -> None:
        self.started = time.perf_counter()
        self.ticks: list[float] = []

    def tick(self) -> None:
        self.ticks.append(time.perf_counter())

    def seconds(self) -> dict[str, float]:
        step = median(np.diff(self.ticks)) if len(self.ticks) > 1 else float("nan")
        return {"seconds": round(time.perf_counter() - self.started, 1), "step_seconds": round(float(step), 3)}


def adapt(run: Path) -> None:
    """Adapt the run's network with torch-em and leave the weights and ``peer.json`` in the run folder.

    As torch-em's authors adapt from a source model: both views weakly changed, a confidence mask on both sides, Dice,
    (source + target) / 2, Adam, halving of the learning rate after 5 epochs without progress, the teacher a copy of the
    network, nothing compiled. An epoch lasts as long as our run goes between two validations.
    """
    trainers = import_torch_em()
    from torch_em.loss import DiceLoss, LossWrapper
    from torch_em.loss.wrapper import MaskIgnoreLabel

    clock = Clock()
    folder = RunFolder.open(run)
    plan = make_plan(folder.config())
    training = plan.config.training
    samplers, validation = finish(prepare(plan, folder))
    np.random.seed(training.seed)  # noqa: NPY002  # torch-em's transforms draw from the global generator
    torch.manual_seed(training.seed)
    network = Probabilities(plan.network)
    optimiser = torch.optim.Adam(network.parameters(), lr=training.learning_rate)
    annotated = LossWrapper(DiceLoss(), MaskIgnoreLabel(IGNORE, masking_method="multiply"))
    classes = len(plan.config.classes)
    two = views()

    def labelled(sample: Sample) -> tuple[Tensor, Tensor]:
        return sample.image, foreground(sample.annotation, classes)

    steps = training.steps
    with closing(Prefetch(samplers, range(steps), threads=plan.config.sampling.threads)) as prefetch:
        feed = Feed(prefetch, clock)
        trainer = trainers.MeanTeacherTrainer(
            name="peer",
            model=network,
            optimizer=optimiser,
            lr_scheduler=torch.optim.lr_scheduler.ReduceLROnPlateau(optimiser, mode="min", factor=0.5, patience=5),
            pseudo_labeler=trainers.DefaultPseudoLabeler(confidence_threshold=CONFIDENCE),
            supervised_loss=trainers.DefaultSelfTrainingLoss(loss=annotated),
            unsupervised_loss=trainers.DefaultSelfTrainingLoss(),
            supervised_loss_and_metric=trainers.DefaultSelfTrainingLossAndMetric(loss=annotated, metric=annotated),
            unsupervised_loss_and_metric=trainers.DefaultSelfTrainingLossAndMetric(),
            supervised_train_loader=loader(lambda _: labelled(feed.next()["source"]), training.validate_every),
            unsupervised_train_loader=loader(lambda _: two(feed.now["target"].image), training.validate_every),
            supervised_val_loader=loader(lambda i: labelled(validation.held_out[i]), len(validation.held_out)),
            unsupervised_val_loader=loader(lambda i: two(validation.judge.windows[i]), len(validation.judge.windows)),
            reinit_teacher=False,
            mixed_precision=plan.dtype is not None,
            compile_model=False,
            device=plan.device,
            logger=None,
            save_root=str(run),
        )
        trainer.fit(iterations=steps)
    best = min(steps, (trainer._best_epoch + 1) * training.validate_every)
    told = {"chosen": f"step {best}", **clock.seconds(), "versions": installed()}
    for name in FILES:
        who, when = name.split("-")
        saved = torch.load(Path(trainer.checkpoint_folder) / f"{when}.pt", map_location="cpu", weights_only=False)
        weights = saved["teacher_state" if who == "teacher" else "model_state"]
        own = {key.removeprefix("network."): tensor for key, tensor in weights.items()}
        checkpoint.save(run / f"{name}.safetensors", checkpoint.prefixed("network", own), {"epoch": saved["epoch"]})
    checkpoint.write_text(run / "peer.json", json.dumps(told, indent=1) + "\n")


def import_torch_em() -> Any:
    """Import torch-em's self-training; beside a CPU build of torch, its torchvision has to be talked into importing.

    torchvision's compiled operators do not load there, and it stops at their absence. torch-em takes its blur and the
    composition of transforms from it, which need none of them, so it is enough to declare the two it asks for.
    """
    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        KEPT.append(library)  # what it declares goes with it
    import torch_em.self_training

    return torch_em.self_training


def installed() -> dict[str, str]:
    """Versions of what trained."""
    from importlib.metadata import version

    return {name: version(name) for name in ("torch_em", "torch", "torchvision")}


def finish(job: Iterator[Event]) -> Any:
    """Run a preparation to its end and return what it returns."""
    while True:
        try:
            next(job)
        except StopIteration as end:
            return end.value


class Probabilities(nn.Module):
    """The network with the probabilities of its foreground classes as output (B, C - 1, …), as torch-em expects."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.init_kwargs: dict[str, Any] = {}

    def forward(self, image: Tensor) -> Tensor:
        probabilities: Tensor = self.network(image).softmax(1)[:, 1:]
        return probabilities


def foreground(labels: Tensor, classes: int) -> Tensor:
    """Turn class indices (B, …) into one map per class (B, classes, …), 255 where not annotated."""
    maps = torch.stack([(labels == index).float() for index in range(1, classes + 1)], 1)
    return torch.where((labels == IGNORE)[:, None], float(IGNORE), maps)


def views() -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """Return what changes the windows of a batch weakly, twice, with torch-em's own transforms."""
    from torch_em.transform.raw import AdditiveGaussianNoise, GaussianBlur
    from torchvision.transforms import Compose, RandomApply

    noise = AdditiveGaussianNoise(scale=NOISE, clip_kwargs=False)
    weak = Compose([RandomApply([GaussianBlur()], p=CHANCE), RandomApply([noise], p=CHANCE)])

    def view(batch: Tensor) -> Tensor:
        return torch.stack([torch.as_tensor(weak(window), dtype=torch.float32) for window in batch])

    return lambda batch: (view(batch), view(batch))


class Feed:
    """Our batches in their order; torch-em asks for the source's part of each first, then for the target's."""

    def __init__(self, prefetch: Prefetch, clock: Clock) -> None:
        self.prefetch = prefetch
        self.clock = clock
        self.now: Mapping[str, Sample] = {}

    def next(self) -> Mapping[str, Sample]:
        self.clock.tick()
        self.now = next(self.prefetch)
        return self.now


class Batches(Dataset[Any]):
    """Whole batches as items."""

    def __init__(self, draw: Callable[[int], Any], count: int) -> None:
        self.draw = draw
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Any:
        return self.draw(index)

    def __getstate__(self) -> dict[str, Any]:
        return {}  # torch-em pickles its data sets into every checkpoint; nothing reads them here


def loader(draw: Callable[[int], Any], count: int) -> DataLoader[Any] | None:
    """Return a loader of ``count`` batches; None without any."""
    return DataLoader(Batches(draw, count), batch_size=None) if count else None


if __name__ == "__main__":
    adapt(Path(sys.argv[1]))
