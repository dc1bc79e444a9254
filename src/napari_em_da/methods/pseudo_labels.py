"""Pseudo-label rounds: predict the whole target, keep what is sure and goes on along z, retrain on it, repeat.

When it helps: the source model already finds a good part of the structures on the target, and sections are close
enough for a structure to go on in the next one. Unlike a teacher that sees one window at a time, a round judges the
whole volume, so that adjacent sections and the class shares of all of it have a say.

When it fails: it starts from a poor model: what is sure and continuous may still be wrong, and every round confirms it.
Where sections are thicker than the structures, continuity along z rejects what is right; switch ``z_consistent`` off.

Notes
-----
Each of ``rounds`` rounds segments the target with the network so far, labels the accepted pixels and leaves the others
out (255), then trains for its share of the steps from that network on: source loss + lambda x cross-entropy on
perturbed target windows over the accepted pixels. A pixel is accepted iff it is sure and the class it goes to is also
that of the pixel above or below. Departures:

- Which pixels are sure: with ``thresholds: fixed`` those whose largest probability is at least ``tau``, as is usual.
  One confidence suits the easy class, and training on it erodes the other. By default each class takes its most
  certain pixels of all target volumes together, ``accepted`` times the class's share in the source, by the margin
  log p_c - max of the other log p; a class may so claim pixels of which it is only the runner-up, and where two do,
  the one further above its threshold wins (see ``mean_teacher``). Continuity is asked for afterwards, so that a little
  less than those shares remains.
- The first round predicts at the pixel size that the source model was trained at, even where the training that follows
  works at another.
- A round starts from the network that was chosen without labels among the checkpoints of the round before, not from
  its last. Which checkpoint of all rounds is kept in the end is chosen in the same way.
- Batch norm: statistics of perturbed windows do not fit the clean ones that the network is for. With
  ``clean_statistics`` the target's running statistics come from a pass over the clean windows.

References
----------
.. [1] Lee (2013), Pseudo-Label: the simple and efficient semi-supervised learning method for deep neural networks.
.. [2] Zou et al. (2018), Unsupervised domain adaptation for semantic segmentation via class-balanced self-training,
   ECCV.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torch import Tensor

from napari_em_da.config import Fraction, NonNegative
from napari_em_da.errors import DataError
from napari_em_da.losses._base import IGNORE, Losses, Term
from napari_em_da.methods._base import Method, MethodSpec, Setup
from napari_em_da.methods._parts import Adaptation, Part, Views
from napari_em_da.methods._perturb import PerturbOptions, perturb
from napari_em_da.methods.mean_teacher import SOFT, mean_over_accepted
from napari_em_da.models._statistics import DomainStatistics
from napari_em_da.postprocess.confidence import confident, continuous

LEVELS = 8192  # steps of the squashed margin at which thresholds may lie
SMALLEST = 1e-30  # smaller probabilities make no larger margins

Probabilities = npt.NDArray[np.float32]
Counts = npt.NDArray[np.int64]


class PseudoLabelsOptions(PerturbOptions):
    """Options of pseudo-label rounds."""

    rounds: Annotated[int, Field(ge=1, le=20)] = Field(3, description="Rounds, which share the training steps")
    lambda_pseudo: NonNegative = Field(1.0, description="Weight of the loss on the target")
    thresholds: Literal["prior", "fixed"] = Field("prior", description="Accept by class shares or by confidence")
    accepted: Annotated[float, Field(gt=0, le=1)] = Field(0.6, description="Share of the pixels to accept, for prior")
    tau: Fraction = Field(0.9, description="Smallest probability to accept, for fixed")
    z_consistent: bool = Field(True, description="Accept only what has the same class in an adjacent section")
    clean_statistics: bool = Field(True, description="Batch-norm statistics of the target from unperturbed windows")


class LearnAccepted(Part):
    """The loss on the accepted pixels of the target."""

    whole, windows = False, 0.0  # its passes are its own

    def __init__(self, setup: Setup, options: PseudoLabelsOptions) -> None:
        super().__init__()
        self.options = options
        self.perturbed_statistics = DomainStatistics(setup.network)

    def losses(self, views: Views) -> Losses:
        """Return ``pseudo_labels``, exactly 0 where no pixel is accepted, and the accepted share for the log.

        Raises
        ------
        DataError
            If the target comes without pseudo-labels.
        """
        o = self.options
        if not o.lambda_pseudo:
            return {}
        labels = views.target.labels
        if labels is None:
            raise DataError("The target comes without pseudo-labels; they are made by 'adapt --method pseudo_labels'.")
        logits = self._forward(views, perturb(views.target.image, o)).float()
        any_accepted = bool((labels != IGNORE).any())  # without, there is nothing to step for, not even by 0
        return {
            "pseudo_labels": Term(mean_over_accepted(logits, labels), o.lambda_pseudo * any_accepted),
            "accepted": Term((labels != IGNORE).float().mean(), 0.0),
        }

    def _forward(self, views: Views, image: Tensor) -> Tensor:
        if not self.options.clean_statistics or views.method.target_statistics is None:
            return views.forward_target(image)[0]
        with self.perturbed_statistics.applied(views.network):
            logits = views.network.forward_taps(image)[0]
        with torch.no_grad():
            views.forward_target(views.target.image)
        return logits


class PseudoLabels(Adaptation):
    """One round: the network learns from the labelled source and from its predecessor's accepted pixels."""

    def __init__(self, setup: Setup, options: PseudoLabelsOptions) -> None:
        super().__init__(setup, options, [LearnAccepted(setup, options)])


def accept(
    probabilities: Probabilities, options: PseudoLabelsOptions, levels: Sequence[int] | None, *, continuity: bool
) -> npt.NDArray[np.uint8]:
    """Label the accepted voxels of a block.

    Parameters
    ----------
    probabilities : (Z, Y, X, C) float32, 0 to 1
    options : PseudoLabelsOptions
    levels : C ints, optional
        Of `thresholds_of`; read where ``options.thresholds`` is ``"prior"``.
    continuity : bool
        Ask for the same class in an adjacent section of the block.

    Returns
    -------
    (Z, Y, X) uint8
        Classes, 255 where not accepted.
    """
    if options.thresholds == "fixed" or levels is None:
        return confident(probabilities, options.tau, continuity=continuity)
    margins = squashed_margins(probabilities)
    least = np.asarray(levels, np.int32)
    excess = margins - (2 * least.astype(np.float32) / LEVELS - 1)
    furthest = excess.argmax(-1)
    accepted = np.take_along_axis(level_of(margins), furthest[..., None], -1)[..., 0] >= least[furthest]
    winner: npt.NDArray[np.uint8] = furthest.astype(np.uint8)
    if continuity:
        accepted &= continuous(winner)
    winner[~accepted] = IGNORE
    return winner


def squashed_margins(probabilities: Probabilities) -> Probabilities:
    """Return by how much each class leads the best of the others (..., C), as m / (4 + |m|) of the log margin m.

    The other classes' small probabilities tell margins apart where the largest one has been rounded to 1.
    """
    logs = np.log(np.maximum(probabilities, np.float32(SMALLEST)))
    second, first = np.moveaxis(np.partition(logs, -2, axis=-1)[..., -2:, None], -2, 0)
    lead = logs - np.where(logs == first, second, first)
    return np.asarray(lead / (np.float32(SOFT) + np.abs(lead)), np.float32)


def level_of(margins: Probabilities) -> npt.NDArray[np.int32]:
    """Return the step, 0 to LEVELS - 1, in which each squashed margin lies."""
    levels: npt.NDArray[np.int32] = np.clip((margins + 1) * np.float32(LEVELS / 2), 0, LEVELS - 1).astype(np.int32)
    return levels


def count_levels(probabilities: Probabilities) -> Counts:
    """Return how many voxels of a block (..., C) have their margin at each level, per class: (C, LEVELS)."""
    levels = level_of(squashed_margins(probabilities))
    return np.stack([np.bincount(levels[..., c].ravel(), minlength=LEVELS) for c in range(levels.shape[-1])])


def thresholds_of(counts: Counts, shares: Sequence[float]) -> list[int]:
    """Return for each class the level from which on it takes about its share of all voxels.

    Parameters
    ----------
    counts : (C, LEVELS)
        Of the whole target, see `count_levels`.
    shares : C floats
        Share of all voxels that each class shall take.

    Returns
    -------
    C ints
        LEVELS where taking none comes closer to the share than taking the highest level there is.
    """
    taken = np.zeros((len(counts), LEVELS + 1))
    taken[:, :-1] = np.cumsum(counts[:, ::-1], axis=1)[:, ::-1] / counts.sum(1, keepdims=True)
    missed = np.abs(taken - np.asarray(shares)[:, None])
    return [int(LEVELS - row[::-1].argmin()) for row in missed]  # of equally near ones the strictest


def build(setup: Setup, options: Any) -> Method:
    """Build the method."""
    return PseudoLabels(setup, options)


METHOD = MethodSpec(build, PseudoLabelsOptions, streams=("source", "target"), pseudo=True)
