"""Choose the images and labels, say how large their voxels are, and see at once what would not work."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from napari.layers import Layer
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QLabel, QWidget

from napari_em_da import layers
from napari_em_da._napari.class_rows import ClassRows
from napari_em_da._napari.findings import Findings
from napari_em_da._napari.form import add_row, form_layout
from napari_em_da._napari.page import Page
from napari_em_da._napari.project_row import ProjectRow
from napari_em_da._napari.role_row import RoleRow
from napari_em_da._napari.session import Role, Session
from napari_em_da._napari.voxel_row import VoxelRow
from napari_em_da._napari.worker import JobRunner
from napari_em_da.config import Config, VoxelSize
from napari_em_da.errors import EmDaError

PARTNERS: dict[Role, Role] = {"source": "labels", "target": "truth", "labels": "source", "truth": "target"}
TEXTS: tuple[tuple[Role, str, str], ...] = (
    ("source", "Labelled image", "Its labels"),
    ("target", "To segment", "Ground truth"),
)
WATCHED = ("scale", "translate", "units", "axis_labels", "data", "name")
WAIT_MS = 300


class DataPage(Page):
    """Give the roles to layers or files, and check them.

    Parameters
    ----------
    napari_viewer : napari.Viewer
    session : Session, optional
        What is shared with the other pages.
    """

    name, title = "data", "Data"
    purpose = "Choose the stack that has labels and the stack to segment, as layers or files."
    next_step = "Look at the weights, or train on the labelled image."

    def __init__(self, napari_viewer: Any, session: Session | None = None) -> None:
        super().__init__(napari_viewer, session)
        self._restored: dict[Role, VoxelSize] = {}
        self._fixing: tuple[Role, Layer] | None = None
        self._watched: list[Layer] = []
        self._to_look_at: dict[str, Any] = {}
        self.rows: dict[Role, RoleRow] = {
            role: RoleRow(self.session, role, optional=role == "truth") for role in PARTNERS
        }
        self.voxels: dict[Role, VoxelRow] = {"source": VoxelRow(), "target": VoxelRow()}
        self.project = ProjectRow(self.session)
        self.classes = ClassRows(self.session)
        self.findings = Findings()
        self.checker = JobRunner(lambda _event: None, self._checked)
        self.fixer = JobRunner(lambda _event: None, self._fixed)
        self._later = QTimer(self)
        self._later.setSingleShot(True)
        self._later.setInterval(WAIT_MS)
        self._later.timeout.connect(self._look_again)
        self._connect()
        self.lay_out(self._upper(), [], copies=True)
        self.cancel_with_me(self.classes.runner, self.checker, self.fixer, *(row.runner for row in self.rows.values()))
        self._watch()
        self.classes.count()
        self._look_again()

    def _connect(self) -> None:
        self.classes.edited.connect(self.edited)
        self.findings.fix.connect(self.fix)
        for role, voxel in self.voxels.items():
            voxel.size_set.connect(lambda size, role=role: self.set_voxel(role, size))
            voxel.axes_set.connect(lambda order, role=role: self._set_axes(role, order))
        for role, row in self.rows.items():
            row.opened.connect(lambda role=role: self._apply_restored(role))
            row.lock.toggled.connect(lambda _: self.edited.emit())

    def _upper(self) -> list[QWidget]:
        groups = []
        for role, image, labels in TEXTS:
            group = QWidget()
            rows = form_layout(group)
            add_row(rows, image, self.rows[role])
            add_row(rows, "Voxel z, y, x (nm)", self.voxels[role])
            add_row(rows, labels, self.rows[PARTNERS[role]])
            groups.append(group)
        heads = [heading(text) for text in ("Source", "Classes in the labels", "Target", "Checks")]
        return [self.project, heads[0], groups[0], heads[1], self.classes, heads[2], groups[1], heads[3], self.findings]

    def missing(self) -> str | None:
        """Return what to choose first."""
        source, labels, target = (self.session.layer(role) for role in ("source", "labels", "target"))
        if source is None and target is None:
            return "Choose, open or drop an image with its labels, and the image to segment."
        if (source is None) != (labels is None):
            return "Choose the labels of the labelled image." if labels is None else "Choose the image of the labels."
        return None

    def call(self) -> tuple[str, Config]:
        """Return the check of the files of the layers."""
        return "check", layers.check_config(**{role: self.session.layer(role) for role in PARTNERS})

    def set_voxel(self, role: Role, voxel_nm: VoxelSize) -> None:
        """Give an image and its labels a voxel size."""
        for layer in (self.session.layer(role), self.session.layer(PARTNERS[role])):
            if layer is not None:
                put(layer, layers.voxel_place(layer, voxel_nm))
        self.session.set_voxel(role, voxel_nm)
        self.viewer.reset_view()
        self._look_again()

    def _set_axes(self, role: Role, order: str) -> None:
        for layer in (self.session.layer(role), self.session.layer(PARTNERS[role])):
            if layer is not None and layer.ndim >= len(order):
                layer.axis_labels = (*layer.axis_labels[: layer.ndim - len(order)], *order)

    def _look_again(self) -> None:
        """Show the voxel sizes, and check the layers in the background."""
        self._later.stop()
        for role, row in self.voxels.items():
            row.show_layer(self.session.layer(role))
        chosen: dict[str, Any] = {role: layer for role in PARTNERS if (layer := self.session.layer(role)) is not None}
        if not chosen:
            self.checker.cancel()
            self.findings.show_found([])
            self.findings.state.info("Nothing to check yet.")
            return
        self.findings.state.info("Checking …")
        self._to_look_at = chosen
        self.checker.start(layers.checking(chosen, contrast=False), silent=True)

    def _checked(self, found: list[layers.Finding] | None, error: Exception | None) -> None:
        if error is not None:
            self.findings.state.error(
                str(error) if isinstance(error, EmDaError) else f"{type(error).__name__}: {error}"
            )
        elif found is not None:
            self.findings.show_found(found)
            self.findings.state.clear()
            if self._to_look_at:  # what needs no voxels is said at once
                chosen, self._to_look_at = self._to_look_at, {}
                self.findings.state.info("Looking at the contrast …")
                self.checker.start(layers.checking(chosen), silent=True)
            elif not found:
                self.findings.state.info("Everything fits.")

    def fix(self, finding: layers.Finding) -> None:
        """Do what mends a finding: set the place of the layer, or put a new layer into its role."""
        role = cast(Role, finding.role)
        layer, partner = self.session.layer(role), self.session.layer(PARTNERS[role])
        if layer is None or finding.fix_name is None:
            return
        if finding.fix_name == "voxel":
            other = self.session.layer("source" if role == "target" else "target")
            size = None if other is None else layers.layer_voxel(other)
            if size is not None:
                self.set_voxel(role, size)
        elif finding.fix_name == "align" and partner is not None:
            put(layer, layers.align_place(layer, partner))
        else:
            self._fixing = role, layer
            self.findings.state.info("Working …")
            at = self.viewer.dims.current_step[-layer.ndim :]
            self.fixer.start(layers.fixed_layer(finding.fix_name, layer, at=at))

    def _fixed(self, data: Any, error: Exception | None) -> None:
        if error is not None:
            self.findings.state.error(
                str(error) if isinstance(error, EmDaError) else f"{type(error).__name__}: {error}"
            )
        elif data is not None and self._fixing is not None:
            role, layer = self._fixing
            if layer is self.session.layer(role):  # it may have been removed, or another one chosen
                self._fixing[1].visible = False
                self.rows[role].show_layer(data)
            else:
                self._look_again()

    def memo(self) -> dict[str, Any]:
        """Return the roles, the voxel sizes and the classes."""
        roles: dict[str, Any] = {}
        for role, row in self.rows.items():
            layer = self.session.layer(role)
            if layer is not None:
                roles[role] = {"name": layer.name, "path": path_of(layer), "locked": row.lock.isChecked()}
        voxel = {role: list(size) for role, size in self.session.voxel.items()}
        return {"roles": roles, "voxel": voxel, "classes": self.classes.memo()}

    def restore(self, values: dict[str, Any]) -> None:
        """Give the roles again, and open files whose layers are not there."""
        self._restored = {role: tuple(size) for role, size in values.get("voxel", {}).items() if role in self.voxels}
        for role, about in values.get("roles", {}).items():
            if role in self.rows:
                self._restore_role(role, about)
        if "classes" in values:
            self.classes.restore(values["classes"])

    def _restore_role(self, role: Role, about: dict[str, Any]) -> None:
        row, path = self.rows[role], about.get("path")
        row.wanted_lock = bool(about.get("locked", True))
        row.lock.setChecked(row.wanted_lock)
        same = [
            layer for layer in row.choice.layers() if layer.name == about["name"] or (path and path_of(layer) == path)
        ]
        if same:
            row.choice.choose(same[0])
            self._apply_restored(role)
        elif path and Path(path).exists():
            row.open(Path(path), about["name"])
        else:
            where = f"{path} is not there" if path else "it came from no file"
            row.message.warn(f"The layer {about['name']!r} cannot be opened again: {where}. Open or choose it.")

    def _apply_restored(self, role: Role) -> None:
        size = self._restored.pop(role, None)
        if size is not None and self.session.layer(role) is not None:
            self.set_voxel(role, size)

    def _follow(self, what: str) -> None:
        super()._follow(what)
        if what in PARTNERS:
            role = what
            self._watch()
            if role in self.voxels and role not in self._restored:
                self.session.set_voxel(role, None)  # was said of the layer before
            if role == "labels":
                self.classes.count()
            self._later.start()
        elif what == "project":
            self.project.refresh()

    def _watch(self) -> None:
        """Follow what is changed about the layers elsewhere."""
        self._unwatch()
        self._watched = [layer for role in PARTNERS if (layer := self.session.layer(role)) is not None]
        for layer in self._watched:
            for name in WATCHED:
                getattr(layer.events, name).connect(self._changed)

    def _unwatch(self) -> None:
        for layer in self._watched:
            for name in WATCHED:
                getattr(layer.events, name).disconnect(self._changed)
        self._watched = []

    def _changed(self, event: Any) -> None:
        if event.type == "data" and event.source is self.session.layer("labels"):
            self.classes.count()
        self._later.start()

    def close_jobs(self) -> None:
        """Follow the layers no longer."""
        self._later.stop()
        self._unwatch()
        super().close_jobs()


def said(error: Exception) -> str:
    """Return what to show of an error."""
    return str(error) if isinstance(error, EmDaError) else f"{type(error).__name__}: {error}"


def put(layer: Layer, place: dict[str, Any]) -> None:
    """Set attributes of a layer."""
    for key, value in place.items():
        setattr(layer, key, value)


def path_of(layer: Layer) -> str | None:
    """Return the file or folder that a layer was opened from."""
    path = layer.source.path or layer.metadata.get("path")
    return None if path is None else str(path)


def heading(text: str) -> QLabel:
    """Return the title of a part of the page."""
    label = QLabel(text)
    font = label.font()
    font.setBold(True)
    label.setFont(font)
    return label
