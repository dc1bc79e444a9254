"""Mean teacher: learn on the target from the sure predictions of an average of the network's past selves.

When it helps: the source model already finds a good part of the structures on the target.

When it fails: it starts from a poor model: what is confirmed are its mistakes. Let the selection choose the step;
later is not always better.

Notes
-----
The teacher's weights follow the network's, t <- m t + (1 - m) s with m = min(1 - 1/(step + 1), ``teacher_momentum``).
It segments a clean target window; the network sees the same window strongly perturbed and descends the cross-entropy
to the teacher's classes, over the accepted pixels only. Departures:

- Which pixels are accepted: a fixed confidence (``thresholds: fixed``, as in [2]) suits the easy class, and the
  network drifts towards it. By default each class accepts its most confident share of the pixels, ``accepted`` times
  the class's share in the source. The thresholds come from running distributions of the teacher's margin
  z_c - max of the other z, so the shares hold over many batches and not in each: a window without mitochondria
  contributes none. A class may so claim pixels of which it is only the runner-up; where two do, the one that is
  further above its threshold wins.
- ``prior_factor`` above 1 lets the shares follow the teacher's own, within that factor of the source's. It is 1 by
  default: what accepts the teacher's excess also confirms it.
- m is 0.99 (0.999 in [2]), which fits runs of some hundred to a few thousand steps.
- Batch norm: what the network gathers on perturbed windows does not fit the clean ones that it is for. The teacher
  therefore normalises each clean batch by itself and its running statistics become those of the target. With
  ``clean_statistics`` off, or statistics shared by the domains, the teacher uses copies of the network's, as [2] does.
- The losses are added, source + lambda x target, and not halved; lambda rises from 0 over ``ramp``.

References
----------
.. [1] Tarvainen and Valpola (2017), Mean teachers are better role models, NeurIPS.
.. [2] Archit and Pape, torch-em: mean-teacher adaptation for microscopy (warm-up of m, confidence mask).
.. [3] Zou et al. (2018), Unsupervised domain adaptation for semantic segmentation via class-balanced self-training,
   ECCV.
"""

from __future__ import annotations

import copy
from typing import Annotated, Literal, Self

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from napari_em_da.config import Count, Fraction, NonNegative
from napari_em_da.losses._base import IGNORE, Losses, Term
from napari_em_da.methods._base import Setup
from napari_em_da.methods._parts import Adaptation, Part, Views, part_method
from napari_em_da.methods._perturb import PerturbOptions, perturb
from napari_em_da.methods.entropy import ClassPrior, RunningMean, mean_share
from napari_em_da.models._base import SegmentationNet
from napari_em_da.models._statistics import BUFFERS, norms

GRID = 1024  # points at which the running distributions are kept
SOFT = 4.0  # logits; margins m are kept as m / (SOFT + |m|), which is finest around 0
TEACHER_SHARES_MEMORY = 0.99


class MeanTeacherOptions(PerturbOptions):
    """Options of the mean teacher."""

    lambda_unsup: NonNegative = Field(1.0, description="Weight of the loss on the target")
    warm_up: Fraction = Field(0.0, description="Share of the steps before that loss weighs anything")
    ramp: Fraction = Field(0.1, description="Share of the steps over which its weight then rises")
    teacher_momentum: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.99, description="How much of itself the teacher keeps per step (0.999 for runs of many thousand steps)"
    )
    thresholds: Literal["prior", "fixed"] = Field("prior", description="Accept by class shares or by confidence")
    accepted: Annotated[float, Field(gt=0, le=1)] = Field(0.6, description="Share of the pixels to accept, for prior")
    tau: Fraction = Field(0.9, description="Smallest probability to accept, for fixed")
    memory: Annotated[float, Field(ge=0, lt=1)] = Field(0.95, description="Of the thresholds: weight of the past")
    prior_factor: Annotated[float, Field(ge=1)] = Field(
        1.0, description="How far class shares may follow the teacher from the source's; 1 not at all"
    )
    sampled: Count = Field(16384, description="Pixels per batch that the thresholds are learned from")
    clean_statistics: bool = Field(True, description="Batch-norm statistics of the target from unperturbed windows")
    windows: Annotated[float, Field(gt=0, le=1)] = Field(
        1.0, description="Share of the target windows that a step learns from, of two at least"
    )
    use: Literal["teacher", "network"] = Field("teacher", description="Which of the two segments in the end")


class MeanTeacher(Part):
    """Teacher, thresholds and the loss on the target."""

    whole, windows = False, 0.0  # its passes are its own

    def __init__(self, setup: Setup, options: MeanTeacherOptions) -> None:
        super().__init__()
        self.options = options
        self.teacher: SegmentationNet = copy.deepcopy(setup.network).requires_grad_(False)
        self.thresholds = Thresholds(setup, options)
        self.train()

    def train(self, mode: bool = True) -> Self:
        """Set the mode of all but the teacher, which never learns."""
        super().train(mode)
        self.teacher.eval()
        return self

    def losses(self, views: Views) -> Losses:
        """Return ``self_training`` and, for the log, the accepted and the teacher's foreground share of the pixels."""
        o = self.options
        if not o.lambda_unsup:
            return {}
        image = views.target.image[: views.count(o.windows)]
        with torch.no_grad():
            logits = self._teach(image, views.method)
            labels = confident(logits, o.tau) if o.thresholds == "fixed" else self.thresholds.accept(logits, views)
        student = views.forward_target(perturb(image, o))[0].float()
        return {
            "self_training": Term(mean_over_accepted(student, labels), o.lambda_unsup * self._rise(views.progress)),
            "accepted": Term((labels != IGNORE).float().mean(), 0.0),
            "teacher_foreground": Term((logits.argmax(1) != 0).float().mean(), 0.0),
        }

    def after(self, method: Adaptation, step: int) -> None:
        """Let the teacher follow the network with its statistics of the target."""
        with method.adapted() as network:
            if self._measures(method):
                copy_statistics(self.teacher, network)
            follow(self.teacher, network, kept(step, self.options.teacher_momentum))

    def judged(self, network: SegmentationNet) -> SegmentationNet:
        """Return the teacher, unless the network is asked for."""
        return self.teacher if self.options.use == "teacher" else network

    def _measures(self, method: Adaptation) -> bool:
        """Whether the teacher finds out the target's statistics."""
        o = self.options
        return o.clean_statistics and o.lambda_unsup > 0 and method.target_statistics is not None

    def _teach(self, image: Tensor, method: Adaptation) -> Tensor:
        for norm in norms(self.teacher):
            norm.train(self._measures(method))
        logits: Tensor = self.teacher(image).float()
        self.teacher.eval()
        return logits

    def _rise(self, progress: float) -> float:
        done = progress - self.options.warm_up
        if done < 0:
            return 0.0
        return min(1.0, done / self.options.ramp) if self.options.ramp else 1.0


class Thresholds(nn.Module):
    """Margins above which each class accepts a pixel, so that over many batches its share follows the prior."""

    grid: Tensor

    def __init__(self, setup: Setup, options: MeanTeacherOptions) -> None:
        super().__init__()
        classes = setup.network.classes
        self.options = options
        self.prior = ClassPrior(setup)
        self.register_buffer("grid", torch.linspace(-1, 1, GRID), persistent=False)
        self.below = RunningMean(torch.zeros(classes, GRID), options.memory)  # share of margins at most grid
        self.shares = RunningMean(torch.zeros(classes), TEACHER_SHARES_MEMORY)

    def accept(self, logits: Tensor, views: Views) -> Tensor:
        """Return classes (B, …) from the teacher's logits (B, C, …), IGNORE where none is accepted."""
        prior = self.prior.shares(views)
        if self.options.prior_factor > 1:
            factor = self.options.prior_factor
            prior = (self.shares.update(mean_share(logits.softmax(1))) / prior).clamp(1 / factor, factor) * prior
            prior = prior / prior.sum()
        scores = margins(logits)
        return self.labels(scores, self.learn(scores, prior * self.options.accepted))

    def learn(self, scores: Tensor, shares: Tensor) -> Tensor:
        """Take in the margins of one batch and return the thresholds (C,) of the wanted shares (C,) of all pixels."""
        flat = scores.movedim(1, 0).flatten(1)  # (C, pixels)
        if flat.shape[1] > self.options.sampled:
            flat = flat[:, torch.randint(flat.shape[1], (self.options.sampled,), device=flat.device)]
        ordered = flat.contiguous().sort(1).values
        points = self.grid.expand(len(flat), -1).contiguous()
        below = torch.searchsorted(ordered, points, right=True) / flat.shape[1]
        return quantiles(self.below.update(below), self.grid, 1 - shares)

    @staticmethod
    def labels(scores: Tensor, thresholds: Tensor) -> Tensor:
        """Return the class furthest above its threshold, IGNORE where there is none."""
        excess = scores - thresholds.view(-1, *[1] * (scores.ndim - 2))
        most, labels = excess.max(1)
        return torch.where(most > 0, labels, IGNORE)


def margins(logits: Tensor) -> Tensor:
    """Return by how much each class leads the best of the others (B, C, …), squashed into (-1, 1).

    Probabilities would do in exact arithmetic; close to 1 they are all the same in float32.
    """
    first, second = logits.topk(2, dim=1).values.split(1, 1)
    lead = logits - torch.where(logits == first, second, first)
    return lead / (SOFT + lead.abs())


def quantiles(below: Tensor, grid: Tensor, at: Tensor) -> Tensor:
    """Return where distribution functions (C, G), given on a grid (G,), reach the shares ``at`` (C,), interpolated."""
    last = len(grid) - 1
    right = torch.searchsorted(below, at[:, None].contiguous()).clamp(1, last)
    low, high = below.gather(1, right - 1)[:, 0], below.gather(1, right)[:, 0]
    part = ((at - low) / (high - low).clamp(min=1e-12)).clamp(0, 1)
    start = grid[right[:, 0] - 1]
    return start + part * (grid[right[:, 0]] - start)


def confident(logits: Tensor, tau: float) -> Tensor:
    """Return the likeliest class (B, …) from logits (B, C, …), IGNORE where its probability is below ``tau``."""
    most, labels = logits.softmax(1).max(1)
    return torch.where(most >= tau, labels, IGNORE)


def mean_over_accepted(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mean cross-entropy where labels are not IGNORE; exactly 0 where all are."""
    total = F.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="sum")
    return total / (labels != IGNORE).sum().clamp(min=1)


def kept(step: int, momentum: float) -> float:
    """Return how much of itself the teacher keeps: little in the first steps, then ``momentum``."""
    return min(1 - 1 / (step + 1), momentum)


@torch.no_grad()
def follow(teacher: nn.Module, student: nn.Module, keep: float) -> None:
    """Move the teacher's parameters towards the student's, and copy its buffers."""
    for mine, new in zip(teacher.parameters(), student.parameters(), strict=True):
        mine.lerp_(new, 1 - keep)
    for buffer, other in zip(teacher.buffers(), student.buffers(), strict=True):
        buffer.copy_(other)


@torch.no_grad()
def copy_statistics(network: nn.Module, other: nn.Module) -> None:
    """Copy the batch-norm statistics of one network to another of the same kind."""
    for norm, twin in zip(norms(network), norms(other), strict=True):
        for name in BUFFERS:
            twin.get_buffer(name).copy_(norm.get_buffer(name))


METHOD = part_method(MeanTeacher, MeanTeacherOptions, keeps=lambda options: 1 + options.windows)
