"""Learning from corrections: painted voxels, replayed source windows, and the start's own opinion elsewhere.

Not in the catalog of methods: nobody can choose it without having painted something (see ``workflows.corrections``).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from napari_em_da.config import NonNegative, Options
from napari_em_da.losses._base import IGNORE, Losses, Term
from napari_em_da.methods._base import Method, MethodSpec, Setup
from napari_em_da.models._statistics import norms
from napari_em_da.sampling import Sample


class CorrectionsOptions(Options):
    """What holds the network back."""

    keep: NonNegative = 0.1


class Corrections(Method):
    """Segmentation loss on the stream ``corrections``, on ``source`` where there is one, plus distillation.

    Batch-norm statistics stay as they are: a handful of windows around mistakes says nothing about the volume.

    Notes
    -----
    On voxels of the corrected windows where nothing is painted, the cross-entropy to the predictions of the network as
    it started is added with the weight ``keep``; training on new data with the old outputs as targets is learning
    without forgetting [1]_, here on the same images. Replaying a part of the old data is experience replay [2]_.

    References
    ----------
    .. [1] Li Z. and Hoiem D. (2018), Learning without forgetting, IEEE TPAMI 40.
    .. [2] Rolnick D. et al. (2019), Experience replay for continual learning, NeurIPS.
    """

    def __init__(self, setup: Setup, options: CorrectionsOptions) -> None:
        super().__init__(setup)
        self.keep = options.keep
        self.start = copy.deepcopy(setup.network).eval().requires_grad_(False) if options.keep else None

    def train(self, mode: bool = True) -> Self:
        """Switch to training, all but the batch norms and the network as it started."""
        super().train(mode)
        for norm in norms(self.network):
            norm.eval()
        if self.start is not None:
            self.start.eval()
        return self

    def step(self, batch: Mapping[str, Sample], step: int) -> Iterator[tuple[str, Losses]]:
        """Yield the losses of one batch; both streams share a pass, which the fixed statistics allow."""
        painted, source = batch["corrections"], batch.get("source")
        images = painted.image if source is None else torch.cat((painted.image, source.image))
        logits = self.network(images)  # (B, C, [Z,] Y, X)
        mine, replayed = logits[: len(painted.image)], logits[len(painted.image) :]
        losses = {f"painted/{name}": term for name, term in self.loss(mine, painted.annotation, None).items()}
        if source is not None:
            terms = self.loss(replayed, source.annotation, source.weights)
            losses |= {f"source/{name}": term for name, term in terms.items()}
        if self.start is not None:
            with torch.no_grad():
                before = self.start(painted.image)
            losses["kept"] = Term(kept(mine, before, painted.annotation), self.keep)
        yield "network", losses


def kept(logits: Tensor, before: Tensor, labels: Tensor) -> Tensor:
    """Return the mean cross-entropy to the softmax of ``before`` over the voxels that are not painted."""
    free = labels == IGNORE
    each = -(before.float().softmax(1) * F.log_softmax(logits.float(), 1)).sum(1)  # (B, [Z,] Y, X)
    return (each * free).sum() / free.sum().clamp_min(1)


def build(setup: Setup, options: CorrectionsOptions) -> Method:
    """Build the method."""
    return Corrections(setup, options)


SPEC = MethodSpec(build, CorrectionsOptions, streams=("source", "corrections"), keeps=lambda _: 1.0)
