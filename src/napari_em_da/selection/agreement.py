"""How much of what the source model found a candidate still finds.

S_keep = mean over classes of the IoU between the candidate's and the source model's most probable classes.

Works as a brake where the source model is already good: a candidate that drifted far away is suspect. Fails where
the source model is poor, and alone it always chooses the source model itself, which agrees with itself perfectly; use
it beside others only.

References
----------
Jiang Y. et al., Assessing generalization of SGD via disagreement, ICLR 2022: how two models' disagreement on unlabelled
data tells their error.
"""

from __future__ import annotations

import numpy as np

from napari_em_da.selection._base import Criterion, Evidence, agreement


def score(evidence: Evidence) -> float:
    """Return S_keep in [0, 1]."""
    before = np.asarray(evidence.before).argmax(1)
    return agreement(evidence.labels, before.astype(np.uint8), evidence.reference.present)


CRITERION = Criterion("S_keep", score, needs=("before",))
