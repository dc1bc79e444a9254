"""Source-free adaptation: a mean teacher on the target alone, where the source's images and labels are gone.

When it helps: only the trained run was handed over, and its network already finds a good part of the structures on the
target. Of the source it needs the class shares, which every run records.

When it fails: it starts from a poor model, or the target shows the classes much more or less often than the source
did. No labelled window holds the network to its task; let the selection choose the step.

Notes
-----
The loss is lambda_unsup x self-training + lambda_entropy x H + lambda_prior x KL(mean p, source prior): the mean
teacher with thresholds from the source's class shares, and information maximisation, certain about each pixel and
with as much of each class as the source has. Both come from ``mean_teacher`` and ``entropy``, with their departures.
Further ones:

- [1] asks for equal shares of all classes, which a segmentation never has; as in [2] the shares are the source's.
- [1] keeps the classification layer and takes pseudo-labels from class centres in feature space. Here the whole
  network learns, and the averaged teacher gives the labels.
- Information maximisation weighs nothing until self-training weighs fully (``warm_up`` + ``ramp``), so that the
  target's statistics have settled.
- Batch norm: there is no second domain, so the network's own statistics become the target's (``shared``).
- Where the class shares are not given, they are the running mean of what the network predicts on the target.

References
----------
.. [1] Liang et al. (2020), Do we really need to access the source data? Source hypothesis transfer for unsupervised
   domain adaptation, ICML.
.. [2] Bateson et al. (2022), Source-free domain adaptation for image segmentation, Medical Image Analysis 82.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Literal

from pydantic import Field

from napari_em_da.config import NonNegative
from napari_em_da.losses._base import Losses
from napari_em_da.methods._base import Method, MethodSpec, Setup
from napari_em_da.methods._parts import Adaptation
from napari_em_da.methods.entropy import Entropy, EntropyOptions
from napari_em_da.methods.mean_teacher import MeanTeacher, MeanTeacherOptions
from napari_em_da.sampling import Sample


class SourceFreeOptions(MeanTeacherOptions):
    """Options of source-free adaptation: the mean teacher's, and the weights of information maximisation."""

    lambda_sup: Annotated[float, Field(ge=0, le=0)] = Field(0.0, description="Weight of the source loss: there is none")
    statistics: Literal["per_domain", "shared"] = Field("shared", description="Batch-norm statistics of the target")
    lambda_entropy: NonNegative = Field(1e-3, description="Weight of the entropy of the target's predictions")
    lambda_prior: NonNegative = Field(1e-2, description="Weight of the guard: class shares as in the source")


class SourceFree(Adaptation):
    """Self-training and information maximisation; nothing of the source is ever read."""

    def step(self, batch: Mapping[str, Sample], step: int) -> Iterator[tuple[str, Losses]]:
        """Yield the network's losses; whatever a part would look at in the source, it finds in the target."""
        target = batch["target"]
        yield from super().step({"source": target, "target": target}, step)


def build(setup: Setup, options: SourceFreeOptions) -> Method:
    """Build the method."""
    information = EntropyOptions(
        lambda_entropy=options.lambda_entropy,
        lambda_prior=options.lambda_prior,
        start=min(1.0, options.warm_up + options.ramp),
    )
    return SourceFree(setup, options, [MeanTeacher(setup, options), Entropy(setup, information)])


METHOD = MethodSpec(
    build, SourceFreeOptions, streams=("target",), keeps=lambda options: 1 + options.windows
)  # the clean windows and the perturbed
