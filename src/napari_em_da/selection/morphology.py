"""How much the predicted shapes are like the annotated ones of the source.

For compact classes S_morph = -|solidity_t - solidity_s|, solidity being the mean of area / convex area over 4-connected
2D regions of more than 10 pixels. For thin, connected classes such as membranes (detected from the source's labels, see
`Shapes.net`) S_morph = -(|ln(a_t / a_s)| + |ln(f_t / f_s)|) / 2, with the median area a of the cells between them and
their share f of the pixels. Several classes: the mean over those that the source has.

Works when the structures have the same shapes in both volumes at the same pixel size, whatever they look like: frayed
and fragmented predictions are not solid. Fails when the tissues differ in shape (dividing, swollen or branched
mitochondria), for classes with a few regions only, and among candidates that are all well shaped: it does not see
a whole object that is missed.

References
----------
Franco-Barranco D. et al., Deep learning based domain adaptation for mitochondria segmentation on EM volumes, Computer
Methods and Programs in Biomedicine 222, 2022: the solidity criterion.

Notes
-----
The region threshold of 0.5 is the most probable class here, which is the same for one foreground class. A class that is
not found at all has solidity 0, cells of one pixel and the share of one pixel.
"""

from __future__ import annotations

import numpy as np

from napari_em_da.selection._base import Criterion, Evidence
from napari_em_da.selection._shapes import Shapes


def score(evidence: Evidence) -> float:
    """Return S_morph, at most 0."""

    def closeness(predicted: Shapes, source: Shapes) -> float:
        if not source.net:
            return -abs(predicted.solidity - source.solidity)
        cell = evidence.log_ratio(_median(predicted), _median(source))
        return -(cell + evidence.log_ratio(predicted.share, source.share)) / 2

    return evidence.class_mean(closeness)


def _median(shapes: Shapes) -> float:
    return float(np.median(shapes.cells)) if shapes.cells.size else 1.0


CRITERION = Criterion("S_morph", score)
