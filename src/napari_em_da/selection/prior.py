"""How close each class's share of the target is to its share of the source's labels.

S_prior = -mean over classes of |ln(share_t / share_s)|, shares of the pixels' most probable classes.

Works as a coarse check when the tissues are alike: over- and under-segmentation both cost. Fails when the tissues are
not, and it cannot tell a right share in the wrong places.

References
----------
Zou Y. et al., Unsupervised domain adaptation for semantic segmentation via class-balanced self-training, ECCV 2018: the
source's class shares as a prior for the target.
"""

from __future__ import annotations

from napari_em_da.selection._base import Criterion, Evidence


def score(evidence: Evidence) -> float:
    """Return S_prior, at most 0."""
    return evidence.class_mean(lambda predicted, source: -evidence.log_ratio(predicted.share, source.share))


CRITERION = Criterion("S_prior", score)
