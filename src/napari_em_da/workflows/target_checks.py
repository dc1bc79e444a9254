"""What can be seen of a target volume before work starts: labels instead of an image, blanks, inverted contrast."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from napari_em_da.errors import ConfigError, DataError
from napari_em_da.volume import Volume, spread
from napari_em_da.workflows.contrast import contrast

FEW_VALUES = 32  # an 8-bit image has more grey values than this, a label volume seldom
SAMPLED = 32


def check_target(target: Volume, sources: Sequence[Volume]) -> list[str]:
    """Return warnings about a target volume.

    Raises
    ------
    ConfigError
        If the target is one of the sources.
    DataError
        If it looks like a label volume, or more than half of its sections are blank.
    """
    for source in sources:
        if target.shape == source.shape and target.fingerprint == source.fingerprint:
            raise ConfigError(
                f"The target {target.name} is the source {source.name} itself; give the volume of the other microscope."
            )
    check_grey(target)
    found = []
    blank = blank_sections(target)
    if blank:
        found.append(
            f"{len(blank)} of {min(SAMPLED, target.shape[0])} looked-at sections of {target.name} are blank "
            f"({', '.join(map(str, blank[:8]))}…); windows drawn there teach nothing. Crop them away."
        )
    if target.shape[0] == 1:
        found.append(f"{target.name} is a single section; a volume shows more of what varies between sections.")
    if any(contrast(target, source) == "inverted" for source in sources):
        found.append(
            f"The contrast of {target.name} looks inverted against the source: membranes are dark in one and bright in "
            "the other. Invert one of the volumes, or train with --augment.invert 0.5."
        )
    return found


def check_grey(target: Volume) -> None:
    """Raise a DataError if a volume of integers holds too few values for an image, or mostly blank sections."""
    depth = target.shape[0]
    middle = [target.read((slice(z, z + 1),)) for z in spread(depth, 3)]
    values = np.unique(np.concatenate([section.ravel() for section in middle]))
    if target.dtype.kind in "uib" and len(values) <= FEW_VALUES:
        raise DataError(
            f"{target.name} holds only {len(values)} values ({', '.join(map(str, values[:6]))}…), as labels do; give "
            "the image of the target. No labels of a target are ever read."
        )
    blank = blank_sections(target)
    if 2 * len(blank) > min(SAMPLED, depth):
        raise DataError(
            f"{len(blank)} of {min(SAMPLED, depth)} looked-at sections of {target.name} are blank; crop them away."
        )


def blank_sections(volume: Volume) -> list[int]:
    """Return those of up to 32 evenly spread sections that hold one single value."""
    sections = spread(volume.shape[0], SAMPLED)
    return [z for z in sections if np.ptp(volume.read((slice(z, z + 1),)).astype(np.float64)) == 0]
