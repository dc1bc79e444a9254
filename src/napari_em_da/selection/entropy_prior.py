"""How decided each pixel is while all pixels together keep the source's class shares.

S_info = -mean H(p) / ln C - KL(prior_s || mean p): the entropy of a pixel, and how far the mean prediction is from the
source's class shares.

Works as a second opinion between candidates of similar calibration. Fails on confident errors with the right share, and
when the shares really differ between the tissues. The entropy alone would be best for a network that predicts one
class everywhere; the second term is what makes its use safe.

References
----------
Shi Y., Sha F., Information-theoretical learning of discriminative clusters for unsupervised domain adaptation, ICML
2012 (with a uniform prior). Bateson M. et al., Source-free domain adaptation for image segmentation, Medical Image
Analysis 82, 2022 (with a class-ratio prior).
"""

from __future__ import annotations

import numpy as np
from scipy import special

from napari_em_da.selection._base import Criterion, Evidence


def score(evidence: Evidence) -> float:
    """Return S_info, at most 0."""
    probs = evidence.probs
    pixel = float(special.entr(probs).sum(1).mean() / np.log(probs.shape[1]))
    mean = np.maximum(probs.mean((0, 2, 3), dtype=np.float64), 1 / evidence.labels.size)
    return -pixel - float(special.rel_entr(evidence.reference.prior, mean / mean.sum()).sum())


CRITERION = Criterion("S_info", score)
