"""What a project remembers of a layer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from napari_em_da.config import VoxelSize
from napari_em_da.project.chunks import METADATA, edits_only

ROLES = (
    *("source image", "source labels", "target image", "target labels", "ground truth", "prediction", "corrections"),
    *("instances", "weights", "preview"),
)
"""The roles that the pages use; a record may have any other."""


def _plain(value: Any) -> Any:
    return tuple(value) if hasattr(value, "tolist") else value  # pydantic takes no numpy array for a tuple


Numbers = Annotated[tuple[float, ...], BeforeValidator(_plain)]
Texts = Annotated[tuple[str, ...], BeforeValidator(_plain)]


class LabelClass(BaseModel):
    """One label value, as the user sees it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    value: int
    name: str = ""
    colour: str | None = None


class LayerRecord(BaseModel):
    """One layer of the viewer that the user has touched.

    Attributes
    ----------
    name : str
        Unique in the project.
    kind : "image" or "labels"
    role : str
        What the pages use it for, see ``ROLES``; empty if for nothing.
    path : Path or None
        Where the data is: what the user opened, or a copy in the project. Needed unless the strokes hold all of it.
    strokes : Path or None
        The folder of the ``StrokeStore``, set by ``Project.start_strokes``.
    voxel_nm : (z, y, x) in nm, or None where nobody said
    axis_labels, units : per axis of the layer
    scale, translate : per axis of the layer, in its units
    classes : tuple of LabelClass
    locked : bool
        The layer is not to be edited.
    display : dict
        Anything else that the viewer wants back: opacity, contrast limits, …
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1)
    kind: Literal["image", "labels"]
    role: str = ""
    path: Path | None = None
    strokes: Path | None = None
    voxel_nm: Annotated[VoxelSize | None, BeforeValidator(_plain)] = None
    axis_labels: Texts = ()
    units: Texts = ()
    scale: Numbers = ()
    translate: Numbers = ()
    classes: tuple[LabelClass, ...] = ()
    locked: bool = False
    display: dict[str, Any] = Field(default_factory=dict)

    def missing(self) -> str | None:
        """Return why the layer cannot be opened and what to do, in one sentence; None if its files are there."""
        if self.strokes is not None and not (self.strokes / METADATA).is_file():
            return (
                f"The strokes of the layer {self.name!r} are not at {self.strokes}; put that folder back from a copy "
                "of the project, or remove the layer."
            )
        whole = self.strokes is not None and not edits_only(self.strokes)
        if self.path is not None and not whole and not self.path.exists():
            kept = " (its strokes are safe)" if self.strokes is not None else ""
            return (
                f"The data of the layer {self.name!r} is not at {self.path}{kept}; put the file back, or say where "
                "it is now."
            )
        return None


def name_of(stored: Any) -> str:
    """Return the name of a stored layer, however damaged it is."""
    return str(stored.get("name", "")) if isinstance(stored, dict) else ""


def record_of(values: Any) -> LayerRecord | str:
    """Return the layer, or a sentence that says what is wrong with what is stored of it."""
    try:
        return LayerRecord.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        what = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        return f"What the project stores of the layer {name_of(values)!r} cannot be read ({what}); add the layer again."
