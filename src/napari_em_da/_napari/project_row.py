"""Open or make the project that keeps everything."""

from __future__ import annotations

from pathlib import Path

from qtpy.QtWidgets import QFileDialog, QPushButton, QVBoxLayout, QWidget

from napari_em_da._napari.closing import ask
from napari_em_da._napari.message import Message
from napari_em_da._napari.session import Session
from napari_em_da.errors import EmDaError
from napari_em_da.layers.settings import read_settings
from napari_em_da.project import Holder, Lock, LockHeld, Project
from napari_em_da.project.lock import YOUNG_S

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
        self.take_button = QPushButton("Open it here")
        self.take_button.setToolTip("Takes the project over; the other program can save nothing more into it")
        self.take_button.clicked.connect(lambda _: self.take_over())
        self._wanted: Path | None = None
        self._holder: Holder | None = None
        self.state = Message()
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        for widget in (self.button, self.state, self.take_button):
            column.addWidget(widget)
        self.refresh()

    def open(self, folder: Path | str, *, take_over: bool = False) -> None:
        """Open the project in a folder, or make one there, and keep everything in it from now on.

        Where another program holds it, say which one and offer to take it over.
        """
        known = Project.is_project(folder)
        self._offer(None)
        try:
            project = Project.open(folder) if known else Project.create(folder)
            project.lock(take_over=take_over)
        except LockHeld as held:
            self.state.error(told(Path(folder), held.holder))
            if held.holder.state != "here":
                self._offer(Path(folder), held.holder)
            return
        except (EmDaError, OSError) as error:
            self.state.error(str(error))
            return
        before = self._session.project
        self._how = "opened again as it was left" if known else "new; your work is saved in it from now on"
        self._session.set_project(project)
        if before is not None:
            before.close()

    def take_over(self) -> None:
        """Open the project here once the user has agreed, whoever holds it."""
        if self._wanted is not None and ask(self, asked(self._wanted, self._holder)):
            self.open(self._wanted, take_over=True)

    def _offer(self, folder: Path | None, holder: Holder | None = None) -> None:
        self._wanted, self._holder = folder, holder
        self.take_button.setVisible(folder is not None)

    def refresh(self) -> None:
        """Say which project is open, or that another program has taken it over."""
        project, lost = self._session.project, self._session.lost
        self._offer(None)
        if lost is not None:
            self.state.error(lost[1])
            self._offer(lost[0], Lock(lost[0]).holder())
        elif project is None:
            self.state.info(NO_PROJECT)
        else:
            self.state.info(f"Project {project.folder.name}: {self._how}.")
            self.state.setToolTip(str(project.folder))

    def _browse(self) -> None:
        start = read_settings().project_folder or Path.home()
        text = QFileDialog.getExistingDirectory(self, "Folder of a project, or an empty one", str(start))
        if text:
            self.open(text)


def told(folder: Path, holder: Holder) -> str:
    """Return who holds a project, and what to do."""
    text = f"The project {folder.name} is open in {holder.who}."
    if holder.state == "here":
        return f"{text} Close it in the other window first."
    if holder.state == "unknown":
        return f"{text} Whether that program still runs cannot be told from here: look there, then open it here."
    if holder.pid is None:
        return f"{text} Try again in {YOUNG_S:.0f} seconds."
    return f"{text} That program is running: close the project there, or open it here."


def asked(folder: Path, holder: Holder | None) -> str:
    """Return what to ask before a project is taken over."""
    if holder is None or holder.state == "dead":
        return f"Open the project {folder.name} here? Nobody else has it open now."
    runs = "which is still running" if holder.state == "alive" else "which may still be running"
    return (
        f"Take the project {folder.name} over from {holder.who}, {runs}? That window then saves nothing more, and says "
        "so; what was not saved there yet is lost."
    )
