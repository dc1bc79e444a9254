"""How long the viewer keeps its user waiting while the EM DA window trains, adapts, segments, previews and learns.

    xvfb-run -a -s "-screen 0 1600x1000x24" python benchmarks/responsiveness.py [--moving] [--blame] [--only train …]

A real napari viewer shows two phantom stacks of 20x1024x1024 and their labels, and a timer of 5 ms in the main thread
measures how late it fires. Every job is started by its own button. The last line printed, and
benchmarks/results/responsiveness.json, tell how long an event would have waited: at the 99th percentile and at most,
for each phase. Controls: the same viewer without our window, idle before it is opened, and beside a plain training
thread once it is closed. With ``--moving`` a user also moves through the stacks at a human's rate; the 0.3 s after each
movement, whose slicing and drawing are napari's own, have figures of their own (responsiveness_moving.json).
Also: seconds from Cancel to the end of the job, seconds to segment the section in view, and the objects' table of 1e5
rows. ``--blame`` samples the main thread's stack whenever it is late, and prints what it was doing.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from _course import SIDE, Course, Results
from _lag import Meter, Watchdog, live
from qtpy.QtWidgets import QApplication

import napari

CONTROLS = ("control: idle", "control: torch in a thread")


def phases(course: Course) -> dict[str, Callable[[], object]]:
    """Return what is measured, in its order."""
    names = ("open", "pages", "weights", "train", "cancel_train", "adapt", "cancel_adapt", "section", "volume")
    names += ("refine", "evaluate", "correct", "close")
    idle, torch = CONTROLS  # torch last: what our window opens must not find it loaded already
    ours = {name: getattr(course, name) for name in names}
    return {idle: lambda: live(10), **ours, torch: course.beside_torch}


def report(course: Course, names: list[str]) -> Results:
    """Return all figures."""
    ours = [name for name in names if name not in CONTROLS]
    every = course.meter.of(*ours)
    found: Results = {"p99_ms": every["p99_ms"], "max_ms": every["max_ms"], "all": every}
    found |= {"quiet": course.meter.of(*ours, moved=False), "while moving": course.meter.of(*ours, moved=True)}
    found["phases"] = {
        name: {"all": course.meter.of(name), "quiet": course.meter.of(name, moved=False),
               "while moving": course.meter.of(name, moved=True)}
        for name in names
    }  # fmt: skip
    return found | course.results


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--blame", action="store_true", help="print what the main thread did while it was late")
    parser.add_argument("--moving", action="store_true", help="a user moves through the stacks meanwhile")
    parser.add_argument("--steps", type=int, help="of the training and the adaptation; those of the preset if absent")
    parser.add_argument("--side", type=int, default=SIDE, help="pixels along a section, to try the script out")
    parser.add_argument("--only", nargs="*", help="only these phases; they need those before them that made their runs")
    given = parser.parse_args()
    app = QApplication.instance() or napari.qt.get_qapp()
    load, start = os.getloadavg(), time.time()
    meter = Meter()
    watchdog = Watchdog(meter)
    with tempfile.TemporaryDirectory() as name:
        course = Course(Path(name), meter, hands=given.moving, side=given.side, steps=given.steps)
        course.add()
        live(2)
        if given.blame:
            watchdog.start()
        done, failed = [], []
        for phase, act in phases(course).items():
            if given.only and phase not in ("open", *given.only):
                continue
            done.append(phase)
            try:
                course.phase(phase, act)
            except (RuntimeError, TimeoutError, ValueError, AttributeError):
                failed.append(phase)
                traceback.print_exc()
        course.table()
        found = report(course, done)
        course.viewer.close()
        live(1)  # the window saves its project
    if given.blame:
        print(watchdog.blame())
    found |= {
        "failed": failed,
        "minutes": round((time.time() - start) / 60, 1),
        "load_before": [round(n, 2) for n in load],
    }
    if not (failed or given.only or given.steps or given.side != SIDE):
        from _record import record

        record("responsiveness_moving" if given.moving else "responsiveness", found)
    del app
    print(json.dumps(found), flush=True)
    raise SystemExit(bool(failed))


if __name__ == "__main__":
    main()
