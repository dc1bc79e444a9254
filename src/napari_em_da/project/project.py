"""The project folder and its one file of facts, ``project.json``."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from napari_em_da import __version__
from napari_em_da.errors import ConfigError, DataError
from napari_em_da.project import schema
from napari_em_da.project.chunks import edits_only
from napari_em_da.project.files import PARTIAL, file_name, free_path, replace_file, saving
from napari_em_da.project.lock import FILE as LOCK
from napari_em_da.project.lock import Lock, LockLost
from napari_em_da.project.pages import Pages
from napari_em_da.project.records import LayerRecord, name_of, record_of
from napari_em_da.project.strokes import StrokeStore
from napari_em_da.project.values import dumps, from_json, to_json
from napari_em_da.volume import Volume

FOLDER_BYTES = 4096
KEPT = "the last saved state is whole"


class Project:
    """A folder that holds a session: ``project.json``, ``layers/``, ``runs/`` and ``exports/``.

    Every change is on the disk when its call returns. The first change takes the lock; reading needs none. Make one
    with ``create`` or ``open``.
    """

    def __init__(self, folder: Path, data: schema.Data) -> None:
        self.folder = folder
        self._data = data
        self._unsaved = False
        self._lock = Lock(folder)
        self._mutex = threading.RLock()

    @classmethod
    def create(cls, folder: str | Path) -> Project:
        """Make a project in a new or empty folder, and take its lock.

        Raises
        ------
        ConfigError
            If the folder holds something, or cannot be made.
        ResourceError
            If the disk is full.
        """
        folder = Path(folder).expanduser().absolute()
        if cls.is_project(folder):
            raise ConfigError(f"{folder} is a project already; open it, or choose another folder.")
        left = (LOCK, f".{schema.FILE}{PARTIAL}")  # by a creation that was killed
        if folder.exists() and (not folder.is_dir() or any(p.name not in left for p in folder.iterdir())):
            raise ConfigError(f"{folder} is not empty; choose a new or empty folder for the project.")
        now = datetime.now(UTC).isoformat(timespec="seconds")
        head = {"schema": schema.current(), "version": __version__, "created": now}
        project = cls(folder, {**head, "page": "", "pages": {}, "layers": []})
        with saving(folder, FOLDER_BYTES, "nothing was made"):
            folder.mkdir(parents=True, exist_ok=True)
        project._lock.acquire()
        try:
            project._write()
        except BaseException:
            project.close()
            raise
        return project

    @classmethod
    def open(cls, folder: str | Path) -> Project:
        """Open a project folder (or its ``project.json``); one of an older schema is migrated, with a copy kept.

        Raises
        ------
        DataError
            If it is no project, or its ``project.json`` is damaged.
        ConfigError
            If a later version has written it, or it must be migrated while another program holds it.
        """
        folder = Path(folder).expanduser().absolute()
        folder = folder.parent if folder.name == schema.FILE else folder
        if not cls.is_project(folder):
            raise DataError(f"{folder} is no project: it has no {schema.FILE}. Choose a project folder, or create one.")
        project = cls(folder, {})
        project._reload()
        if project._data["schema"] < schema.current():
            project.lock()
        return project

    @staticmethod
    def is_project(folder: str | Path) -> bool:
        """Return whether a folder holds a project of any version."""
        return (Path(folder).expanduser() / schema.FILE).is_file()

    @property
    def created(self) -> str:
        """When the project was made: ISO time, UTC."""
        return str(self._data.get("created", ""))

    @property
    def page(self) -> str:
        """The page that is shown; setting it saves it."""
        return str(self._data.get("page", ""))

    @page.setter
    def page(self, page: str) -> None:
        self.change("page", lambda _: page)

    @property
    def pages(self) -> Pages:
        """The values of each page."""
        return Pages(self)

    def remember(self, record: LayerRecord) -> None:
        """Add a layer, or replace what is known of it; its strokes stay its own if ``record`` names none."""
        given = {key: value for key, value in record.model_dump().items() if key != "strokes" or value is not None}
        encoded = to_json(given, self.folder, f"layer {record.name!r}")

        def put(layers: list[Any]) -> list[Any]:
            kept = next((old["strokes"] for old in layers if name_of(old) == record.name and old.get("strokes")), None)
            new = encoded if kept is None else {"strokes": kept, **encoded}
            if any(name_of(old) == record.name for old in layers):
                return [new if name_of(old) == record.name else old for old in layers]
            return [*layers, new]

        self.change("layers", put)

    def forget(self, name: str) -> None:
        """Forget a layer; its files in ``layers/`` stay, for whoever did not mean it."""
        self.change("layers", lambda layers: [old for old in layers if name_of(old) != name])

    def rename(self, name: str, new: str) -> None:
        """Follow a layer that has another name now."""
        if name != new and any(name_of(old) == new for old in self.read("layers")):
            raise ConfigError(f"The project has a layer {new!r} already; choose another name.")
        self.change("layers", lambda layers: [{**old, "name": new} if name_of(old) == name else old for old in layers])

    def layers(self) -> list[LayerRecord]:
        """Return the remembered layers in order, whether their files are there or not."""
        records = (record_of(from_json(old, self.folder)) for old in self.read("layers"))
        return [record for record in records if isinstance(record, LayerRecord)]

    def missing(self) -> dict[str, str]:
        """Return, per layer that cannot be opened, one sentence: why, and what to do."""
        found: dict[str, str] = {}
        for old in self.read("layers"):
            record = record_of(from_json(old, self.folder))
            why = record if isinstance(record, str) else record.missing()
            if why is not None:
                found[name_of(old)] = why
        return found

    def layer(self, name: str) -> LayerRecord:
        """Return one remembered layer; a ConfigError if there is none of that name."""
        for record in self.layers():
            if record.name == name:
                return record
        raise ConfigError(f"The project remembers no layer {name!r}; remember it first.")

    def start_strokes(self, record: LayerRecord, array: Any) -> StrokeStore:
        """Remember a layer, and begin to save its edits.

        Parameters
        ----------
        record : LayerRecord
            Of labels. If its ``path`` says where they are and ``array`` is not in memory, only edits are stored.
        array : numpy, dask or zarr array, (Z, Y, X) or (Y, X)
            The labels now. Show what ``StrokeStore.load`` returns where only edits are stored: it can be painted on.

        Raises
        ------
        ConfigError
            If the layer has strokes already.
        """
        with self._mutex:
            self.lock()
            known = [old for old in self.layers() if old.name == record.name and old.strokes is not None]
            if known:
                raise ConfigError(f"The layer {record.name!r} has strokes already ({known[0].strokes}); open those.")
            lazy = record.path is not None and type(array).__module__.split(".")[0] != "numpy"
            path = free_path(self.folder / "layers", record.name, ".zarr")
            size = record.voxel_nm
            store = StrokeStore.create(path, array, edits_only=lazy, voxel_nm=size, guard=self.lock)
            self.remember(record.model_copy(update={"strokes": path}))
            return store

    def strokes(self, name: str, base: Any = None) -> StrokeStore:
        """Open the strokes of a layer.

        Parameters
        ----------
        name : str
        base : Volume or array, optional
            What the edits are edits of; opened from the layer's ``path`` if absent.

        Raises
        ------
        ConfigError
            If the layer is unknown or has no strokes.
        DataError
            If files are missing or damaged.
        """
        record = self.layer(name)
        if record.strokes is None:
            raise ConfigError(f"The layer {name!r} has no strokes; start them first.")
        problem = record.missing() if base is None else None
        if problem is not None:
            raise DataError(problem)
        if base is None and record.path is not None and record.path.exists():
            base = Volume.open(record.path) if edits_only(record.strokes) else None
        return StrokeStore.open(record.strokes, base=base, guard=self.lock)

    def new_run(self, name: str) -> Path:
        """Return a new, empty folder in ``runs/``, named after ``name``; it is made, so that no two runs share one."""
        self.lock()
        runs = self.folder / "runs"
        with self._mutex, saving(runs, FOLDER_BYTES, KEPT):
            path = free_path(runs, name)
            path.mkdir(parents=True)
            return path

    def new_export(self, name: str) -> Path:
        """Return a free path in ``exports/`` (which is made) for a file of that name."""
        self.lock()
        with saving(self.folder / "exports", FOLDER_BYTES, KEPT):
            (self.folder / "exports").mkdir(exist_ok=True)
        plain = Path(file_name(name))
        return free_path(self.folder / "exports", plain.stem, plain.suffix)

    def lock(self, *, take_over: bool = False) -> Lock:
        """Take the project for this viewer, read it again, and return the lock; nothing happens if it is held.

        Raises
        ------
        LockHeld
            If another program holds it; it says which. ``take_over`` takes it all the same.
        LockLost
            If another program has taken it over, even where that one is gone again.
        """
        with self._mutex:
            if not self._lock.held:
                if not take_over and (why := self.lost) is not None:
                    raise LockLost(why)
                self._lock.acquire(take_over=take_over)
                try:
                    self._reload()
                    if self._data["schema"] < schema.current():
                        self._migrate()
                except BaseException:
                    self._lock.release()
                    raise
            return self._lock

    @property
    def lost(self) -> str | None:
        """Why this program may not write any more, in words; None as long as nobody has taken the project over."""
        with self._mutex:
            return self._lock.lost_to(self._changed_elsewhere)

    def _changed_elsewhere(self) -> bool:
        """Whether ``project.json`` is not as it was read or written last."""
        path = self.folder / schema.FILE
        try:
            return self._unsaved or schema.parse(path.read_bytes(), path) != self._data
        except (OSError, DataError):
            return True

    def close(self) -> None:
        """Let others write."""
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def save(self) -> None:
        """Write what an earlier failure has left unsaved, if anything."""
        with self._mutex:
            if self._unsaved:
                self.lock()
                self._write()

    def read(self, key: str) -> Any:
        """Return one entry of ``project.json`` as it is stored; do not change it."""
        return self._data[key]

    def change(self, key: str, update: Callable[[Any], Any]) -> None:
        """Replace one entry of ``project.json`` by what ``update`` makes of it, and write the file."""
        with self._mutex:
            self.lock()
            new = update(self._data.get(key))
            if new == self._data.get(key) and not self._unsaved:
                return
            self._data = {**self._data, key: new}  # keys that this version does not know stay
            self._unsaved = True
            self._write()

    def _write(self) -> None:
        self._data = {**self._data, "version": __version__}
        text = dumps(self._data)
        path = self.folder / schema.FILE
        with saving(path, len(text), KEPT):
            replace_file(path, text)
        self._unsaved = False

    def _reload(self) -> None:
        path = self.folder / schema.FILE
        try:
            self._data = schema.parse(path.read_bytes(), path)
        except OSError as error:
            raise DataError(f"{path} cannot be read ({error.strerror}); check that the folder is there.") from error
        self._unsaved = False

    def _migrate(self) -> None:
        path = self.folder / schema.FILE
        text = path.read_bytes()
        copy = path.with_name(f"{schema.FILE}.v{self._data['schema']}")
        if copy.exists() and copy.read_bytes() != text:
            copy = free_path(self.folder, copy.name)
        with saving(copy, 2 * len(text), KEPT):
            replace_file(copy, text)
        self._data = schema.migrate(self._data)
        self._write()
