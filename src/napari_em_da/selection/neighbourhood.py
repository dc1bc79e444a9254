"""How densely the predictions of pixels gather in groups of equals.

Soft neighbourhood density. Up to 2000 pixels' probability vectors, drawn evenly from the predicted classes, are scaled
to length 1; s_ij = cos(i, j) / tau with tau = 0.05; without i = j, a softmax over j gives how much j is i's neighbour;
S_snd is the mean entropy of these rows. High where each pixel has many near-equal neighbours.

Works when a good candidate sorts pixels into few tight groups and a bad one smears them. Fails by design on collapse:
where all pixels are alike it is largest, which is why the guards come first; and it does not see confident errors.

References
----------
Saito K. et al., Tune it the right way: unsupervised validation of domain adaptation via soft neighborhood density,
ICCV 2021.

Notes
-----
Each class may fill 2000 / C places and no others, so a candidate that does not predict a class gains no larger
neighbourhoods from the places left free. The drawn pixels are the same in every call.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from napari_em_da.selection._base import Criterion, Evidence

PIXELS = 2000
TEMPERATURE = 0.05


def density(vectors: npt.NDArray[np.floating], temperature: float = TEMPERATURE) -> float:
    """Return the mean neighbourhood entropy (nats) of vectors (n, C), n of at least 2."""
    vectors = np.asarray(vectors, np.float64)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    similarity = unit @ unit.T / temperature
    np.fill_diagonal(similarity, -np.inf)
    similarity -= similarity.max(1, keepdims=True)
    weights = np.exp(similarity)
    total = weights.sum(1)
    np.fill_diagonal(similarity, 0.0)  # its weight is 0
    return float((np.log(total) - (weights * similarity).sum(1) / total).mean())


def score(evidence: Evidence) -> float:
    """Return S_snd."""
    channels = evidence.probs.shape[1]
    labels = evidence.labels.ravel()
    rng = np.random.default_rng(0)
    drawn = []
    for index in range(channels):
        places = np.flatnonzero(labels == index)
        drawn.append(rng.choice(places, min(PIXELS // channels, len(places)), replace=False, shuffle=False))
    window, pixel = np.divmod(np.concatenate(drawn), labels.size // len(evidence.probs))
    return density(evidence.probs.reshape(*evidence.probs.shape[:2], -1)[window, :, pixel])


CRITERION = Criterion("S_snd", score)
