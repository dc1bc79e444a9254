"""Open or make the project that keeps everything."""

from __future__ import annotations

from pathlib import Path

from qtpy.QtWidgets import QFileDialog, QPushButton, QVBoxLayout, QWidget

from napari_em_da._napari.message import Message
from napari_em_da._napari.session import Session
from napari_em_da.errors import EmDaError
from napari_em_da.layers.settings import read_settings
from napari_em_da.project import Project

NO_PROJECT = "A project keeps settings, corrections and runs in one folder, saved as you work."


class ProjectRow(QWidget):
    """A button to choose the project folder of a session, and what is kept in it.

    Parameters
    ----------
    session : Session
    """

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = session
        self._how = "open"
        self.button = QPushButton("Open or create a project folder …")
        self.button.setToolTip("A folder with a project is opened again; a new or empty one becomes a project")
        self.button.clicked.connect(lambda _: self._browse())
        self.state = Message()
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self.button)
        column.addWidget(self.state)
        self.refresh()

    def open(self, folder: Path | str) -> None:
        """Open the project in a folder, or make one there, and keep everything in it from now on."""
        known = Project.is_project(folder)
        try:
            project = Project.open(folder) if known else Project.create(folder)
            project.lock()
        except (EmDaError, OSError) as error:
            self.state.error(str(error))
            return
        before = self._session.project
        self._how = "opened again as it was left" if known else "new; your work is saved in it from now on"
        self._session.set_project(project)
        if before is not None:
            before.close()

    def refresh(self) -> None:
        """Say which project is open."""
        project = self._session.project
        if project is None:
            self.state.info(NO_PROJECT)
        else:
            self.state.info(f"Project {project.folder.name}: {self._how}.")
            self.state.setToolTip(str(project.folder))

    def _browse(self) -> None:
        start = read_settings().project_folder or Path.home()
        text = QFileDialog.getExistingDirectory(self, "Folder of a project, or an empty one", str(start))
        if text:
            self.open(text)
