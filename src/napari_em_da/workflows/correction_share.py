"""How much of what a round learned is kept: the largest step towards it that does not forget the source."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from torch import Tensor, nn

from napari_em_da.config import CorrectConfig, TrainConfig
from napari_em_da.training.folder import RunFolder

SHARES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05, 0.0)
LOOKS = 5  # at most so many networks are looked at: all of a round, and halving the rest

Weights = Mapping[str, Tensor]
T = TypeVar("T")


@dataclass(frozen=True)
class Kept(Generic[T]):
    """The share of a round that is kept (0 nothing, 1 all), and what was found with it."""

    share: float
    found: T


def keep_share(
    network: nn.Module,
    start: Weights,
    look: Callable[[], T],
    score: Callable[[T], float | None],
    least: float | None,
    before: T,
) -> Kept[T]:
    """Move a trained network back towards its start until it scores ``least``, and say how far it still is from there.

    Parameters
    ----------
    network : nn.Module
        As trained; its weights are changed.
    start : dict of str to Tensor
        Its weights and statistics before the round.
    look, score : callables
        ``look()`` looks at the network as it is; ``score`` makes a number of that, None where nothing is known.
    least : float or None
        What it must score, at most what the start scores; None asks for nothing.
    before : what ``look()`` found at the start

    Notes
    -----
    The weights on the line between two networks of one training often do better than either end on the old and the
    new data together [1]_. Of the shares 1, 0.9, …, 0.1, 0.05 and 0 the largest that scores enough is searched by
    halving, so that at most five networks are looked at; where the score does not fall steadily along the line, a
    larger one may be missed. What is returned always scored enough.

    References
    ----------
    .. [1] Wortsman M. et al. (2022), Robust fine-tuning of zero-shot models, CVPR.
    """
    found = look()
    if enough(score(found), least):
        return Kept(1.0, found)
    end = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
    best = Kept(0.0, before)
    low, high = 1, len(SHARES) - 1  # the share at ``high`` scores enough: the last one is the start itself
    while low < high:
        middle = (low + high) // 2
        network.load_state_dict(between(start, end, SHARES[middle]))
        found = look()
        if enough(score(found), least):
            best, high = Kept(SHARES[middle], found), middle
        else:
            low = middle + 1
    network.load_state_dict(between(start, end, best.share))
    return best


def enough(score: float | None, least: float | None) -> bool:
    """Return whether a score is known not to be too low, or nothing is asked for."""
    return least is None or score is None or score >= least


def between(start: Weights, end: Weights, share: float) -> dict[str, Tensor]:
    """Return the weights at a share of the way; both ends exactly, and whatever is no float as at the start."""
    if share in (0, 1):
        return dict(end if share else start)
    return {
        name: tensor + share * (end[name].to(tensor) - tensor) if tensor.is_floating_point() else tensor
        for name, tensor in start.items()
    }


def first_iou(config: CorrectConfig, training: TrainConfig, before: float | None) -> float | None:
    """Return the IoU on the source before the first of all rounds, where it was measured on the same windows."""
    start = RunFolder.open(config.run)
    known: float | None = (start.info().get("result") or {}).get("source_first")
    base = start.config()
    alike = base.source == training.source and (
        base.target == training.target or not training.augment.match_target
    )  # in the look of another target they are other windows
    return known if known is not None and alike else before


def bound(first: float | None, before: float | None, forget: float) -> float | None:
    """Return the least IoU on the source that a round may leave: never more than what it began with."""
    return None if first is None or before is None or forget >= 1 else min(before, first - forget)
