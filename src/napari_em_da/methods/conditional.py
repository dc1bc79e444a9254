"""Conditional adversary: image and prediction must belong together as source images and label maps do.

When it helps: label maps look plausible but do not sit on the structures of the image.

When it fails: source and target images are easy to tell apart, since the judge can then answer without looking at the
labels.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from napari_em_da.config import Count
from napari_em_da.losses._base import IGNORE, Losses, Term
from napari_em_da.methods._base import Setup
from napari_em_da.methods._judging import Judging, JudgingOptions, coverage, label_maps, largest, straight_through
from napari_em_da.methods._parts import Views, part_method


class ConditionalOptions(JudgingOptions):
    """Options of the conditional adversary."""

    smoothing: Annotated[float, Field(ge=0, lt=0.5)] = Field(0.0, description="Softens label maps to 1 minus this")
    straight_through: bool = Field(True, description="Show the discriminator hard predictions, pass gradients through")
    mismatch_iou: Annotated[float, Field(gt=0, le=1)] = Field(
        0.5, description="Label maps with a higher overlap are no mismatch"
    )
    mismatch_draws: Count = Field(4, description="How often a mismatch is drawn before a window goes without")
    early_false: bool = Field(
        True, description="Source images with what the first network gets wrong there are false, too"
    )


class ConditionalPart(Judging):
    """A discriminator sees image and label map together: a prediction must fit its image, not only look plausible.

    Notes
    -----
    True are source images with their labels (L1). False are source images with the labels of another place (L2),
    target images with their predictions (L3) and, with ``early_false``, source images with what the network predicted
    before this run (L4). The discriminator descends L1 + (L2 + L3) / 2, or L1 + (L2 + L3 + L4) / 3: true and false
    weigh the same, also where a batch has nothing for one of them. The network descends -log s(D(x_target, p_target))
    alone (or its ``minimax`` form).

    A discriminator that answers from the image alone (every target image is false) teaches nothing. Against it stand
    L2, L4 and ``augment.match_target``, which gives source windows the target's histogram and should be 1 here.
    ``disc_conditional_gap``, logged only, is its accuracy on (x_target, p_target) less that on shuffled p_target: at 0
    it does not look at the labels, or is right (or wrong) about all of both.

    Departures from the paper: the labels of another place are those of another window of the batch, turned and
    flipped, in place of another section's, which is nearly the same in isotropic data. The rarer of background and
    foreground, 1 px thicker, must overlap by less than ``mismatch_iou``; a window for which no draw does is left out
    of L2. The network before an adaptation is no early one: it has learned the source and mostly predicts what the
    labels say. L4 therefore counts only where it is wrong by more than 1 px, which may be nowhere. All maps are hard
    (``straight_through``) and equally blurred, so that softness tells nothing. The first network is saved with every
    checkpoint. To spare time, only half of a batch's windows (``windows``) is predicted: of the target for L3 and the
    network's turn, of the source for L4.

    The paper's joint embedding adds the alignment of features, so that both domains share one encoder::

        method:
          name: combined
          options:
            parts:
              - {name: conditional, options: {lambda_adv: 0.01}}
              - {name: coral}

    References
    ----------
    .. [1] Mirza & Osindero (2014), Conditional generative adversarial nets, arXiv:1411.1784.
    .. [2] Reed et al. (2016), Generative adversarial text to image synthesis, ICML; the mismatched pairs.
    """

    title = ("conditional_discriminator", "conditional_adversarial")
    options: ConditionalOptions

    def __init__(self, setup: Setup, options: ConditionalOptions) -> None:
        super().__init__(options, setup.network.in_channels + setup.network.classes)
        self.early = deepcopy(setup.network).requires_grad_(False) if options.early_false else None

    def rivals(self, views: Views) -> Iterator[tuple[str, Losses]]:
        """Yield what the discriminator learns from, all judged in one pass."""
        names, images, maps, weights = zip(*self._examples(views), strict=True)
        shown = self.disturbed(views, torch.cat(maps))
        verdict = self.discriminator(torch.cat([torch.cat(images), shown], 1)).float()  # (N*Z, 1, Y/32, X/32)
        share = coverage(torch.cat(weights), verdict)
        sections = len(verdict) // len(shown)
        sizes = [len(m) * sections for m in maps]
        kinds = sum(bool(w.any()) for w in weights) - bool(weights[0].any())  # of false examples, in this batch
        losses: Losses = {}
        for name, v, w in zip(names, verdict.split(sizes), share.split(sizes), strict=True):
            losses[name] = (
                Term(weighted_mean(F.softplus(-v), w))
                if name == "conditional_real"
                else Term(weighted_mean(F.softplus(v), w), 1 / max(1, kinds))
            )
        place = names.index("conditional_fake")
        with torch.no_grad():
            fake = shown.split([len(m) for m in maps])[place]
            shuffled = self.judge(torch.rot90(fake.roll(1, 0), 2, (-2, -1)), views)
            gap = (verdict.split(sizes)[place] < 0).float().mean() - (shuffled < 0).float().mean()
        losses["disc_conditional_gap"] = Term(gap, 0.0)
        yield self.title[0], losses

    def judge(self, maps: Tensor, views: Views) -> Tensor:
        """Return the verdict on target images with these maps."""
        verdict: Tensor = self.discriminator(torch.cat([inner(views.seen, views), maps], 1))
        return verdict

    def _examples(self, views: Views) -> Iterator[tuple[str, Tensor, Tensor, Tensor]]:
        """Yield name, images, maps and weights of each kind of example."""
        o, classes = self.options, views.network.classes
        image, labels = inner(views.source.image, views), views.source.annotation
        maps, known = label_maps(labels, classes, o.smoothing)
        yield "conditional_real", image, maps, known
        other, differs = mismatched(labels, o.mismatch_iou, o.mismatch_draws)
        maps, known = label_maps(other, classes, o.smoothing)
        yield "conditional_mismatch", image, maps, known * differs.view(-1, *[1] * (known.ndim - 1))
        fake = self.predicted(views).detach()
        yield "conditional_fake", inner(views.seen, views), fake, torch.ones_like(fake[:, :1])
        if self.early is not None:
            some = slice(views.count(o.windows))
            with torch.no_grad():
                early = self.early.eval()(views.source.image[some]).float().softmax(1)
            wrong = misses(largest(early), labels[some], classes)
            early = straight_through(early) if o.straight_through else early
            yield "conditional_early", image[some], early, wrong


def mismatched(labels: Tensor, limit: float, draws: int) -> tuple[Tensor, Tensor]:
    """Return label maps that do not fit their windows, made from those of other windows.

    Parameters
    ----------
    labels : (B, [Z,] Y, X) int64
        255 is not annotated.
    limit : float
        The overlap (IoU) of what a window shows and what it is given must be less.
    draws : int
        Each takes the labels of another window of the batch (its own where it is alone) under a random symmetry.

    Returns
    -------
    (B, [Z,] Y, X) int64 and (B,) bool
        False where every draw overlapped too much, or where there is nothing that could.
    """
    known = labels != IGNORE
    structure = thick_structure(labels)
    chosen = labels
    found = torch.zeros(len(labels), dtype=torch.bool, device=labels.device)
    for _ in range(draws):
        shift, quarter, flip = draw_move(labels)
        there, seen, other = (move(t, shift, quarter, flip) for t in (structure, known, labels))
        both = (known & seen).flatten(1)
        union = ((structure | there).flatten(1) & both).sum(1)
        shared = ((structure & there).flatten(1) & both).sum(1)
        differs = (union > 0) & (shared < limit * union) & ~found
        chosen = torch.where(differs.view(-1, *[1] * (labels.ndim - 1)), other, chosen)
        found = found | differs
    return chosen, found


def thick_structure(labels: Tensor) -> Tensor:
    """Return the rarer of background and foreground in the batch, dilated by 1 px in the plane; bool."""
    background, foreground = labels == 0, (labels != 0) & (labels != IGNORE)
    rarer = torch.where(foreground.sum() <= background.sum(), foreground, background)
    return F.max_pool2d(rarer.float(), 3, stride=1, padding=1) > 0


def misses(predicted: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Return 1 where classes (B, [Z,] Y, X) are wrong by more than 1 px in the plane, else 0; float (B, 1, …).

    Wrong is a class that the labels do not show within 1 px, and a label that is not predicted within 1 px.
    """
    real, known = label_maps(labels, classes)
    real, ours = real * known, label_maps(predicted, classes)[0]
    near_real, near_ours = (F.max_pool2d(m.flatten(1, -3), 3, stride=1, padding=1).view_as(m) for m in (real, ours))
    return (ours * (1 - near_real) + real * (1 - near_ours)).amax(1, keepdim=True) * known


def draw_move(labels: Tensor) -> tuple[int, int, bool]:
    """Draw how many windows further, quarter turns and a flip; windows that are not square get half turns."""
    count, square = len(labels), labels.shape[-2] == labels.shape[-1]
    shift = 1 + int(torch.randint(count - 1, ())) if count > 1 else 0
    quarter = int(torch.randint(4, ())) if square else 2 * int(torch.randint(2, ()))
    return shift, quarter, bool(torch.randint(2, ()))


def move(maps: Tensor, shift: int, quarter: int, flip: bool) -> Tensor:
    """Give each window what another one shows, turned and flipped in the plane."""
    maps = torch.rot90(maps.roll(shift, 0), quarter, (-2, -1))
    return maps.flip(-1) if flip else maps


def inner(image: Tensor, views: Views) -> Tensor:
    """Return the part of an image that the network labels."""
    for axis, margin in enumerate(views.network.margin_px, start=2):
        image = image.narrow(axis, margin, image.shape[axis] - 2 * margin)
    return image


def weighted_mean(values: Tensor, weights: Tensor) -> Tensor:
    """Return the mean; 0 where nothing counts."""
    return (values * weights).sum() / weights.sum().clamp_min(1e-6)


METHOD = part_method(ConditionalPart, ConditionalOptions, lambda options: 1.5 + options.windows)
