"""What refuses a candidate before it is ranked, and what stops a run: the collapses that fool label-free scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from napari_em_da.selection._base import Evidence

TARGET_SHARE = "target/foreground"  # keys of logged shares; "/name" follows for one class
SOURCE_SHARE = "source/foreground"
_GONE = 0.01  # of the prior: nothing is left
_UNLIKE = 3.0  # times the source's share, or a third of it: real pairs with an IoU of 0.7 differ by 2.2


@dataclass(frozen=True)
class Guards:
    """Limits outside which a candidate is refused, whatever its scores.

    Attributes
    ----------
    source_share : float
        IoU on held-out source windows, as a share of the best that any candidate reached.
    foreground : (low, high)
        Predicted share of a class on the target, as multiples of the source's.
    empty : float
        Share of windows without the class, among those that should hold it.

    Notes
    -----
    Of whole sections all should hold the class, of small windows only those that the source leads one to expect: where
    a share e of the source's windows is empty, objects placed at random (Poisson) and as rare as ``foreground`` allows
    leave e ** low empty. With e = 0 the limit is ``empty`` itself.
    """

    source_share: float = 0.9
    foreground: tuple[float, float] = (0.25, 4.0)
    empty: float = 0.2

    def reasons(
        self, evidence: Evidence, *, source_iou: float | None = None, best_source_iou: float | None = None
    ) -> tuple[str, ...]:
        """Return why to refuse a candidate, a sentence each; empty if it passes.

        ``source_iou`` and ``best_source_iou`` are left out where nothing of the source is held out.
        """
        if not evidence.finite:
            return ("The prediction on the target holds infinities or NaN.",)
        forgot = self.forgotten(source_iou, best_source_iou)
        found = [forgot] if forgot else []
        for index in evidence.reference.present:
            found += self._class_reasons(evidence, index)
        return tuple(found)

    def forgotten(self, source_iou: float | None, best_source_iou: float | None) -> str | None:
        """Return why a candidate is refused for what it lost on the source, or None."""
        if source_iou is None or best_source_iou is None:
            return None
        limit = self.source_share * best_source_iou
        if source_iou >= limit:
            return None
        return (  # NaN comes here, too
            f"The IoU on held-out source windows is {source_iou:.3f}, below {limit:.3f} "
            f"({self.source_share:.0%} of the best)."
        )

    def _class_reasons(self, evidence: Evidence, index: int) -> list[str]:
        name = evidence.reference.names[index - 1]
        source, predicted = evidence.reference.shapes[index - 1], evidence.shapes[index - 1]
        found = []
        low, high = (bound * source.share for bound in self.foreground)
        if not low <= predicted.share <= high:
            found.append(f"{predicted.share:.2%} of the target is {name}, outside {low:.2%} to {high:.2%}.")
        expected = source.empty ** self.foreground[0]
        most = expected + self.empty * (1 - expected)
        if predicted.empty >= most:
            found.append(
                f"{predicted.empty:.0%} of the target windows hold no {name}; "
                f"fewer than {most:.0%} may, for {source.empty:.0%} of the source's do."
            )
        return found


def vitals(evidence: Evidence) -> dict[str, float]:
    """Return what a run logs about its health at each validation.

    Shares of the foreground and of each class on the target and in the source's labels (``target/foreground``,
    ``target/foreground/mito``, ``source/foreground``, …), regions per window and their median size, and the
    mean entropy of the prediction (1 = undecided everywhere).
    """
    reference = evidence.reference
    entropy = special.entr(evidence.probs).sum(1).mean() / np.log(evidence.probs.shape[1])
    values = {
        TARGET_SHARE: float(np.count_nonzero(evidence.labels) / evidence.labels.size),
        SOURCE_SHARE: float(reference.prior[1:].sum()),
        "target/entropy": float(entropy),
    }
    for name, predicted, source in zip(reference.names, evidence.shapes, reference.shapes, strict=True):
        values |= {f"{TARGET_SHARE}/{name}": predicted.share, f"{SOURCE_SHARE}/{name}": source.share}
        for domain, shapes in (("target", predicted), ("source", source)):
            values[f"{domain}/regions/{name}"] = len(shapes.areas) / shapes.windows
            if shapes.areas.size:
                values[f"{domain}/region_px/{name}"] = float(np.median(shapes.areas))
    return values


def unlike(values: Mapping[str, float]) -> str | None:
    """Say what the share of a class alone rules out; None where target and source hold about as much of each.

    Parameters
    ----------
    values : mapping
        Of one validation, as `vitals` returns them.

    Notes
    -----
    Two regions that cover shares a and b have an IoU of at most min(a, b) / max(a, b). Label-free scores do not see
    it where a class has changed its look altogether and something else is found in its place.
    """
    found = []
    for key, share in values.items():
        name = key.removeprefix(f"{TARGET_SHARE}/")
        source = values.get(f"{SOURCE_SHARE}/{name}", 0.0)
        if name == key or source <= 0 or source / _UNLIKE <= share <= source * _UNLIKE:
            continue
        most = min(share, source) / max(share, source)
        found.append(
            f"{share:.1%} of the target is found to be {name}, but {source:.1%} of the labelled image is. If both hold "
            f"alike shares in truth, the IoU of {name} is at most {most:.2f}, whatever is expected. Look at the result."
        )
    return " ".join(found) or None


def collapsed(history: Sequence[Mapping[str, float]], guards: Guards | None = None) -> str | None:
    """Return why a run has collapsed, or None while it is healthy.

    Parameters
    ----------
    history : sequence of dict
        Logged metrics, oldest first (``RunFolder.metrics()`` as it is, so that a resumed run judges as an unstopped
        one); lines without both shares are skipped.
    guards : Guards, optional
        For the bounds of the shares.

    Notes
    -----
    A run whose share of a class was once within bounds has collapsed when it falls below 1 % of the source's share
    or the rest does, at once, or when it is out of bounds in two successive validations. A run that has not come
    within bounds yet is left to try, unless two successive validations find nothing, or nothing else.
    """
    bounds = (guards or Guards()).foreground
    keys = {key for line in history for key in line if key.split("/")[:2] == TARGET_SHARE.split("/")}
    for key in sorted(keys):
        other = SOURCE_SHARE + key.removeprefix(TARGET_SHARE)
        shares = [(line[key], line[other]) for line in history if key in line and line.get(other, 0) > 0]
        reason = _collapse(shares, bounds)
        if reason:
            return f"{key.removeprefix(TARGET_SHARE).lstrip('/') or 'The foreground'} {reason}"
    return None


def _collapse(shares: Sequence[tuple[float, float]], bounds: tuple[float, float]) -> str | None:
    """Judge the successive (share on the target, share in the source) of one class."""
    if not shares:
        return None
    healthy = [bounds[0] * prior <= share <= bounds[1] * prior for share, prior in shares]
    (share, prior), before = shares[-1], shares[-2] if len(shares) > 1 else None
    state = _extreme(share, prior)
    if state and (any(healthy) or (before and _extreme(*before) == state)):
        return f"{state} on the target: {share:.2%} of its pixels, {prior:.2%} of the source's."
    if any(healthy) and before and not healthy[-1] and not healthy[-2]:
        return (
            f"left its bounds on the target in two successive validations: {before[0]:.2%} and {share:.2%} of "
            f"its pixels, {prior:.2%} of the source's."
        )
    return None


def _extreme(share: float, prior: float) -> str | None:
    if not share >= _GONE * prior:  # NaN counts as gone
        return "vanished"
    return "flooded everything" if 1 - share < _GONE * (1 - prior) else None
