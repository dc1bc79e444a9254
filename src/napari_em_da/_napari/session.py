"""What the pages share: which layer plays which role, the classes, the runs, and the project that keeps them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from napari.layers import Layer
from psygnal import Signal

from napari_em_da.config import VoxelSize, WeightConfig

Role = Literal["source", "labels", "target", "truth", "prediction", "corrections"]
ROLES: dict[Role, str] = {
    "source": "Labelled image",
    "labels": "Its labels",
    "target": "Image to segment",
    "truth": "Ground truth of that image",
    "prediction": "Segmentation in view",
    "corrections": "Corrections being painted",
}


class Session:
    """The state behind the window; pages read it, change it and follow ``changed``.

    Attributes
    ----------
    changed : Signal(str)
        Says what changed: a role, ``"classes"``, ``"voxel"``, ``"weights"``, ``"trained"``,
        ``"adapted"`` or ``"project"``.
    edited : Signal(layer, box or None)
        Labels were changed in a box (slices with bounds) by other means than painting; everywhere if None.
    classes : {name: label values}
        Of the source labels, as ticked on the Data page.
    voxel : {role: (z, y, x) in nm}
        What the user set or confirmed; a layer's own scale counts where nothing is here.
    weights : WeightConfig or None
        The map that the Weights page chose for training; None where it chose nothing.
    ignore_label : int or None
        Label value that is not annotated in that map, and must not be in training.
    trained, adapted : Path or None
        Run folders of the source model and of the adapted one.
    project : Project or None
        Where all of this is kept, if the user opened one.
    lost : (folder, text) or None
        The project that another program has taken over, and what to say of it.
    """

    changed = Signal(str)
    edited = Signal(object, object)

    def __init__(self, viewer: Any) -> None:
        self.viewer = viewer
        self._layers: dict[Role, Layer] = {}
        self.classes: dict[str, tuple[int, ...]] = {}
        self.voxel: dict[str, VoxelSize] = {}
        self.weights: WeightConfig | None = None
        self.ignore_label: int | None = None
        self.trained: Path | None = None
        self.adapted: Path | None = None
        self.project: Any = None
        self.lost: tuple[Path, str] | None = None
        viewer.layers.events.removed.connect(self._removed)

    @property
    def best_run(self) -> Path | None:
        """The adapted run where there is one, else the trained one."""
        return self.adapted or self.trained

    def layer(self, role: Role) -> Layer | None:
        """Return the layer that plays a role; None if none does or it was removed."""
        return self._layers.get(role)

    def assign(self, role: Role, layer: Layer | None) -> None:
        """Give a role to a layer of the viewer, or to none."""
        layer = getattr(layer, "__wrapped__", layer)  # napari hands docks a guarded layer where they ask by name
        if self._layers.get(role) is layer:
            return
        if layer is None:
            del self._layers[role]
        else:
            self._layers[role] = layer
        self.changed.emit(role)

    def set_classes(self, classes: Mapping[str, tuple[int, ...]]) -> None:
        """Set the classes that are learned."""
        if dict(classes) != self.classes:
            self.classes = dict(classes)
            self.changed.emit("classes")

    def set_voxel(self, role: str, voxel_nm: VoxelSize | None) -> None:
        """Set or forget the voxel size of a role's layer, in nm."""
        if self.voxel.get(role) == voxel_nm:
            return
        if voxel_nm is None:
            self.voxel.pop(role, None)
        else:
            self.voxel[role] = voxel_nm
        self.changed.emit("voxel")

    def set_weights(self, weights: WeightConfig | None, ignore_label: int | None = None) -> None:
        """Set the weight map that training uses, and the label value that is not annotated; None to choose there."""
        if (weights, ignore_label) != (self.weights, self.ignore_label):
            self.weights, self.ignore_label = weights, ignore_label
            self.changed.emit("weights")

    def set_run(self, which: Literal["trained", "adapted"], run: Path | None) -> None:
        """Set the run folder of the source model or of the adapted one."""
        if getattr(self, which) != run:
            setattr(self, which, run)
            self.changed.emit(which)

    def set_project(self, project: Any) -> None:
        """Set the project that keeps the state; None for none."""
        self.project, self.lost = project, None
        self.changed.emit("project")

    def lose_project(self, text: str) -> None:
        """Let go of a project that another program has taken over."""
        if self.project is not None:
            self.lost = self.project.folder, text
            self.project = None
            self.changed.emit("project")

    def new_run(self, name: str) -> Path | None:
        """Return a free run folder in the project; None where no project is open, for the user to choose one."""
        return None if self.project is None else self.project.new_run(name)

    def _removed(self, event: Any) -> None:
        for role in [role for role, layer in self._layers.items() if layer is event.value]:
            self.assign(role, None)
