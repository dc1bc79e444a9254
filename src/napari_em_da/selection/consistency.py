"""How well the prediction of a window survives turning, mirroring and another contrast.

S_cons = mean over classes of the IoU between the most probable classes of a window and of its twin: the same window
under an element of D4 and an intensity jitter, predicted and mapped back.

Works when a candidate's errors are brittle: guesses on unfamiliar texture flip with the contrast. Fails on stable
errors (a class that is always mistaken for another), and favours methods trained for this very invariance, mean
teachers for example, over others that are as good.

References
----------
Sajjadi M. et al., Regularization with stochastic transformations and perturbations for deep semi-supervised learning,
NeurIPS 2016: agreement under random transformations, there as a loss.

Notes
-----
A class that is found in neither counts 0, not 1: agreeing on nothing is the collapse.
"""

from __future__ import annotations

import numpy as np

from napari_em_da.selection._base import Criterion, Evidence, agreement


def score(evidence: Evidence) -> float:
    """Return S_cons in [0, 1]."""
    twins = np.asarray(evidence.twins).argmax(1)
    return agreement(evidence.labels, twins.astype(np.uint8), evidence.reference.present)


CRITERION = Criterion("S_cons", score, needs=("twins",))
