"""How narrow the band of doubt along the predicted borders is.

S_sure = -(pixels whose largest probability lies in (0.4, 0.6)) / (pairs of neighbouring pixels of different classes):
minus the undecided pixels per pixel of border.

Works when a poor candidate wavers inside objects or over whole textures: doubt then lies far from borders. Fails on
confident errors, and when candidates differ in calibration (entropy minimisation and self-training make any
prediction look sure). Speckles hide doubt, for they lengthen the border; S_size sees them.

References
----------
Hendrycks D., Gimpel K., A baseline for detecting misclassified and out-of-distribution examples in neural networks,
ICLR 2017: the largest probability as confidence.

Notes
-----
Divided by the border because a plain share rewards whoever predicts less foreground, and nothing at all the most.
A prediction without any border scores the lowest possible value, minus the number of pixels.
"""

from __future__ import annotations

import numpy as np

from napari_em_da.selection._base import Criterion, Evidence


def score(evidence: Evidence) -> float:
    """Return S_sure, at most 0."""
    labels, best = evidence.labels, evidence.probs.max(1)
    border = sum(int(np.count_nonzero(np.diff(labels, axis=axis))) for axis in (1, 2))
    if not border:
        return -float(labels.size)
    return -float(np.count_nonzero((best > 0.4) & (best < 0.6)) / border)


CRITERION = Criterion("S_sure", score)
