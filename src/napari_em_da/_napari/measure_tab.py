"""What is measured of which labels, and the table of it."""

from __future__ import annotations

from typing import Any

from napari.layers import Image, Labels
from qtpy.QtWidgets import QCheckBox, QGridLayout, QVBoxLayout, QWidget

from napari_em_da import layers
from napari_em_da._napari.choice import LayerChoice
from napari_em_da._napari.form import add_row, combo, form_layout
from napari_em_da._napari.job_panel import JobPanel
from napari_em_da._napari.objects_table import ObjectsTable
from napari_em_da._napari.page import collapsible
from napari_em_da.config import MeasureConfig
from napari_em_da.errors import ConfigError
from napari_em_da.jobs import Job
from napari_em_da.layers.refine import path_of
from napari_em_da.measurements import groups

FIRST = ("size", "surface", "shape", "contacts")
ALWAYS = ("centroid", "intensity")  # where an object is; and with an image, how bright


class MeasureTab(QWidget):
    """Choose labels and columns, measure, look at the table, save it.

    Parameters
    ----------
    viewer : napari.Viewer
    """

    def __init__(self, viewer: Any) -> None:
        super().__init__()
        self.labels = LayerChoice(viewer, Labels)
        self.image = LayerChoice(viewer, Image, optional=True)
        self.image.setToolTip("Measure the intensities of this image inside of the objects, too")
        self.unit = combo(("nm", "um", "px"))
        self.unit.setToolTip(MeasureConfig.model_fields["unit"].description or "")
        self.groups = {name: QCheckBox(name.replace("_", " ")) for name in groups() if name not in ALWAYS}
        place = QWidget()
        grid = QGridLayout(place)
        grid.setContentsMargins(0, 0, 0, 0)
        for number, (name, box) in enumerate(self.groups.items()):
            box.setChecked(name in FIRST)
            box.setToolTip(groups()[name])
            grid.addWidget(box, *divmod(number, 3))
        self.table = ObjectsTable(viewer)
        self.panel = JobPanel({"Measure": self._measure}, self._show)
        self._measured: Labels | None = None
        top = QWidget()
        rows = form_layout(top)
        add_row(rows, "Objects", self.labels)
        add_row(rows, "Intensities of", self.image)
        add_row(rows, "Unit", self.unit)
        column = QVBoxLayout(self)
        column.setContentsMargins(4, 6, 4, 4)
        for widget in (top, collapsible("Columns", place), self.table):
            column.addWidget(widget)
        column.addStretch(1)

    def kept(self) -> dict[str, QWidget]:
        """Return the widgets whose values belong to the page's state."""
        boxes: dict[str, QWidget] = {f"measure_{name}": box for name, box in self.groups.items()}
        return {"objects": self.labels, "intensities": self.image, "unit": self.unit, **boxes}

    def columns(self) -> tuple[str, ...]:
        """Return the groups of columns that are ticked."""
        wanted = [name for name, box in self.groups.items() if box.isChecked()]
        return (*wanted, "centroid", *(() if self.image.layer is None else ("intensity",)))

    def config(self) -> MeasureConfig:
        """Return the call that measures the same from files.

        Raises
        ------
        ConfigError
            If no file holds the labels or the image.
        """
        layer, image = self._layer(), self.image.layer
        path, below = path_of(layer), None if image is None else path_of(image)
        for needed, at in ((layer, path), (image, below)):
            if needed is not None and at is None:
                raise ConfigError(f"No file holds the layer {needed.name!r}; save it and open that file.")
        if path is None:
            raise ConfigError("No file holds the labels.")
        voxel = layers.snapshot(layer).volume.voxel_nm
        unit = "px" if voxel is None else self.unit.currentData()
        output = self.table.saved or path.with_name(f"{path.stem}-objects.csv")
        return MeasureConfig(labels=path, output=output, image=below, columns=self.columns(), unit=unit, voxel_nm=voxel)

    def _layer(self) -> Labels:
        layer = self.labels.layer
        if not isinstance(layer, Labels):
            raise ConfigError("Choose a labels layer whose objects are measured.")
        return layer

    def _measure(self) -> Job:
        self._measured = self._layer()
        return layers.measure_objects(
            self._measured, self.image.layer, columns=self.columns(), unit=self.unit.currentData()
        )

    def _show(self, objects: layers.Objects) -> None:
        layer = self._measured
        if layer is None or layer not in self.table.viewer.layers:
            self.panel.message.info("The layer was removed; choose another one.")
            return
        self.table.show_objects(objects, layer)
        if not objects.count:
            self.panel.message.info("There is no object: every voxel is 0.")
        elif objects.unit == "px":
            self.panel.message.info("The layer has no voxel size; everything is in pixels.")
