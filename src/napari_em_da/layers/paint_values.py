"""Whether paint holds values that a run can learn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from napari_em_da.errors import DataError
from napari_em_da.volume import Volume


def check_values(painted: Volume, classes: Mapping[str, Sequence[int]], unpainted: int) -> None:
    """Refuse paint of a value that the run knows nothing of: it would be learned as background.

    Parameters
    ----------
    painted : Volume of integers (Z, Y, X)
    classes : {name: label values}
        Of the run.
    unpainted : int
        Value of what is not painted.

    Raises
    ------
    DataError
        With the value, and the section that holds it.
    """
    known = [0, unpainted, *(int(value) for members in classes.values() for value in members)]
    for z in range(painted.shape[0]):
        section = painted.read((slice(z, z + 1),))
        strange = section[~np.isin(section, known)]
        if strange.size:
            values = ", ".join(str(value) for value in np.unique(strange)[:5])
            raise DataError(
                f"The corrections {painted.name!r} hold {values} in section {z}, which is no class of the run. Paint "
                "it over with a class, or erase it; nothing was learned from it."
            )


__all__ = ["check_values"]
