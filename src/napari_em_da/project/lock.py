"""One viewer at a time: a file that says which program holds the project."""

from __future__ import annotations

import json
import os
import socket
import time
import uuid
import weakref
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, Self

from napari_em_da.errors import ConfigError
from napari_em_da.project.files import saving

FILE = "project.lock"
YOUNG_S = 10.0  # a lock file without content is being written, or its writer was killed in between
SAME_START_S = 60.0  # the clock may have been put right; an old process number is rarely reused within a minute


@dataclass(frozen=True)
class Holder:
    """Who has a project open, as far as its lock file says.

    Attributes
    ----------
    pid, host
        None where the file is empty or damaged.
    since : float or None
        Seconds since 1970.
    state : "here", "alive", "dead" or "unknown"
        This program itself, another one on this computer, or one on another computer, of which nothing can be known.
    """

    pid: int | None
    host: str | None
    since: float | None
    state: Literal["here", "alive", "dead", "unknown"]

    @property
    def who(self) -> str:
        """Which program, where, and since when."""
        if self.pid is None:
            return "another program that is just opening it"
        since = datetime.fromtimestamp(self.since or 0).strftime("%Y-%m-%d %H:%M")
        who = "this program itself" if self.state == "here" else f"process {self.pid} on {self.host}"
        return f"{who} since {since}"


class LockHeld(ConfigError):
    """Another program holds the project; ``holder`` says which."""

    def __init__(self, text: str, holder: Holder) -> None:
        super().__init__(text)
        self.holder = holder


class LockLost(ConfigError):
    """Another program has taken the project over: nothing more may be written until it is opened again."""


class Lock:
    """The right to write into a project folder, given back by ``release``, at the end of the program, or by its death.

    Parameters
    ----------
    folder : Path
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        self._token = uuid.uuid4().hex
        self._finalizer: weakref.finalize[Any, Lock] | None = None

    @property
    def held(self) -> bool:
        """Whether the lock file is this lock's; reads it."""
        return self._finalizer is not None and (_read(self.path) or {}).get("token") == self._token

    def lost_to(self, changed: Callable[[], bool]) -> str | None:
        """Say who has taken over a lock that was held and not given back; None if it is held, or never was.

        Where the file is gone, ``changed`` says whether another program has been here in the meantime.
        """
        if self._finalizer is None or self.held or not self.path.parent.is_dir():  # gone, to nobody
            return None
        holder = self.holder()
        if holder is None and not changed():
            return None
        who = "another program, which has closed it again" if holder is None else holder.who
        return (
            f"The project {self.path.parent} was taken over by {who}. This window saves nothing more into it; open the "
            "project here again to go on with what is saved there."
        )

    def holder(self) -> Holder | None:
        """Return who holds the lock; None if nobody does."""
        found = _read(self.path)
        return None if found is None else _holder(found)

    def acquire(self, *, take_over: bool = False) -> None:
        """Take the lock; nothing happens if it is held already.

        Parameters
        ----------
        take_over : bool
            Take it from whoever holds it, alive or not: the other one can save no more.

        Raises
        ------
        LockHeld
            If another living program (as far as can be known) holds it.
        ResourceError
            If the file cannot be written.
        """
        if self.held:
            return
        while not self._create():
            holder = _read(self.path)
            if holder is None:
                continue  # gone in the meantime
            if not take_over and not _stale(holder):
                raise LockHeld(self._who(holder), _holder(holder))
            self._remove(holder)
        self._finalizer = weakref.finalize(self, _release, self.path, self._token, os.getpid())

    def release(self) -> None:
        """Give the lock back, if it is held."""
        if self._finalizer is not None:
            self._finalizer()
            self._finalizer = None

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def _create(self) -> bool:
        content = {"pid": os.getpid(), "host": socket.gethostname(), "started": _started(os.getpid())}
        text = json.dumps({**content, "since": time.time(), "token": self._token}).encode()
        with saving(self.path, len(text), "nothing was changed"):
            try:
                handle = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
            except FileExistsError:
                return False
            try:
                os.write(handle, text)
            except OSError:
                self.path.unlink(missing_ok=True)
                raise
            finally:
                os.close(handle)
        return True

    def _remove(self, holder: dict[str, Any]) -> None:
        """Remove the lock of ``holder``, but not one that a third program has put there in the meantime."""
        aside = self.path.with_name(f".{FILE}.{self._token}")
        with saving(self.path, 0, "nothing was changed"):
            try:
                os.rename(self.path, aside)
            except FileNotFoundError:
                return
            if (_read(aside) or {}).get("token") != holder.get("token") and not self.path.exists():
                os.rename(aside, self.path)
        aside.unlink(missing_ok=True)

    def _who(self, holder: dict[str, Any]) -> str:
        if "pid" not in holder:
            return f"Another program is just opening {self.path.parent}; try again in {YOUNG_S:.0f} s."
        return (
            f"The project {self.path.parent} is open in {_holder(holder).who}. Close it there; if that program is "
            f"gone, take the project over, or delete {self.path}."
        )


def _holder(found: dict[str, Any]) -> Holder:
    if "pid" not in found:
        return Holder(None, None, None, "dead" if _stale(found) else "alive")
    pid, host, since = found["pid"], found["host"], found.get("since")
    since = float(since) if isinstance(since, int | float) else None
    if host != socket.gethostname():
        return Holder(pid, host, since, "unknown")
    if pid == os.getpid():
        return Holder(pid, host, since, "here")
    return Holder(pid, host, since, "dead" if _stale(found) else "alive")


def _read(path: Path) -> dict[str, Any] | None:
    """Return what a lock file says; None if there is none, ``age`` alone if it is empty or damaged."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
        age = time.time() - path.stat().st_mtime
    except OSError:
        return None
    with suppress(ValueError):
        content = json.loads(text)
        if isinstance(content, dict) and isinstance(content.get("pid"), int) and isinstance(content.get("host"), str):
            return content
    return {"age": age}


def _stale(holder: dict[str, Any]) -> bool:
    """Return whether the holder is known to be dead."""
    if "pid" not in holder:
        return bool(holder["age"] > YOUNG_S)
    if holder["host"] != socket.gethostname():
        return False
    now, then = _started(holder["pid"]), holder.get("started")
    return now is None or (isinstance(then, int | float) and abs(now - then) > SAME_START_S)


def _started(pid: int) -> float | None:
    """Return when a process began, in seconds; None if there is no such process."""
    import psutil

    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        return float(process.create_time())
    except psutil.NoSuchProcess:
        return None
    except psutil.Error:  # somebody else's, so it lives
        return 0.0


def _release(path: Path, token: str, pid: int) -> None:
    if os.getpid() == pid and (_read(path) or {}).get("token") == token:  # a forked child must not give it back
        path.unlink(missing_ok=True)
