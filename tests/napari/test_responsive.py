"""What keeps the window alive: one slow act per turn, nothing heavy imported or compiled while it waits."""

from __future__ import annotations

import subprocess
import sys
import time
import types
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("napari")
from qtpy.QtCore import QObject, QTimer

from napari_em_da._napari import turns as turns_module
from napari_em_da._napari.job_panel import JobPanel
from napari_em_da._napari.live import Live
from napari_em_da._napari.looks import add
from napari_em_da._napari.objects_table import ObjectsTable
from napari_em_da._napari.section_preview import SectionPreview
from napari_em_da._napari.sharing import computing_threads
from napari_em_da._napari.turns import Pace, Turns, after_turns
from napari_em_da._napari.worker import JobRunner
from napari_em_da.events import Finished, Preview, Progress
from napari_em_da.layers import compact
from napari_em_da.layers.objects import Objects

LONG_MS = 20_000
TABLED = 2  # bytes of labels that napari colours by a table; wider ones wait for a compiler when first drawn


@pytest.mark.parametrize(
    ("share", "taken_s", "wait_ms"), [(0.5, 0.01, 30), (0.5, 0.08, 80), (0.1, 0.02, 180), (0.1, 0.3, 1000)]
)
def test_the_next_picture_waits_the_longer_the_longer_the_last_one_took(
    qtbot: Any, monkeypatch: pytest.MonkeyPatch, share: float, taken_s: float, wait_ms: int
) -> None:
    now = [5.0]
    monkeypatch.setattr(turns_module, "MOST_MS", 1000)
    monkeypatch.setattr(turns_module, "time", types.SimpleNamespace(perf_counter=lambda: now[0]))
    owner = QObject()
    pace = Pace(owner, 30, share)
    assert pace.interval() == 30
    pace.showing()
    now[0] += taken_s  # drawing
    qtbot.waitUntil(lambda: not pace._later.isActive(), timeout=LONG_MS)
    assert pace.interval() == wait_ms and not pace.isActive()


def test_a_layer_is_added_in_one_turn_and_drawn_in_the_next(make_napari_viewer: Any, qtbot: Any) -> None:
    viewer = make_napari_viewer()
    first = add(viewer, np.zeros((2, 8, 8), np.float32), {"name": "image"}, "image")
    assert first.visible, "napari looks at the first layer when it is added"
    labels = np.ones((2, 8, 8), np.uint8)
    shown, hidden, decided, chosen = (
        add(viewer, labels, {"name": name, "visible": name != "hidden"}, "labels", select=name == "chosen")
        for name in ("shown", "hidden", "decided", "chosen")
    )
    assert not shown.visible and not chosen.visible
    decided.visible = False  # by the user, or by the page whose job has ended
    assert viewer.layers.selection == {first}, "napari makes the controls of the new one when it is selected"
    viewer.layers.remove(chosen)
    qtbot.waitUntil(lambda: shown.visible, timeout=LONG_MS)
    qtbot.wait(20)
    assert not hidden.visible and not decided.visible and not chosen.visible


def test_the_user_goes_on_with_the_layer_that_was_selected(make_napari_viewer: Any, qtbot: Any) -> None:
    viewer = make_napari_viewer()
    mine = viewer.add_image(np.zeros((8, 8), np.float32))
    add(viewer, np.ones((8, 8), np.uint8), {}, "labels")
    assert viewer.layers.selection == {mine} and shown_as_selected(viewer) == [mine.name]
    other = add(viewer, np.ones((8, 8), np.uint8), {}, "labels", select=True)
    qtbot.waitUntil(lambda: viewer.layers.selection == {other}, timeout=LONG_MS)
    several = {mine, other}
    viewer.layers.selection = several
    add(viewer, np.ones((8, 8), np.uint8), {}, "labels")
    assert viewer.layers.selection == several and set(shown_as_selected(viewer)) == {mine.name, other.name}
    viewer.layers.selection.active = other
    assert viewer.layers.selection == {other} and shown_as_selected(viewer) == [other.name]


def shown_as_selected(viewer: Any) -> list[str]:
    """Return the names that napari's own list of layers shows as selected."""
    return [index.data() for index in viewer.window._qt_viewer.layers.selectionModel().selectedIndexes()]


def test_what_a_job_tells_is_shown_together_in_its_order_and_before_its_end(qtbot: Any) -> None:
    """The pace is held back: nothing but the job's end shows what has come."""
    seen: list[Any] = []
    panel = JobPanel({"Start": lambda: job()}, lambda result: seen.append(result), seen.append)
    qtbot.addWidget(panel)
    panel._pace._least_ms = 10**6
    panel._pace.setInterval(10**6)

    def job() -> Any:
        yield from (Progress(n, 3, "things") for n in range(3))
        yield Finished("end")

    panel.buttons["Start"].click()
    qtbot.waitUntil(lambda: not panel.running, timeout=LONG_MS)
    assert seen == [*(Progress(n, 3, "things") for n in range(3)), "end"]
    assert panel.bar.format() == "done"


def test_a_page_that_fails_at_an_event_does_not_leave_the_job_unended(qtbot: Any) -> None:
    def broken(_event: Any) -> None:
        raise ValueError("of the page")

    def job() -> Any:
        yield Progress(0, 1, "things")
        yield Finished(1)

    panel = JobPanel({"Start": job}, lambda _result: None, broken)
    qtbot.addWidget(panel)
    panel._pace._least_ms = 10**6
    panel._pace.setInterval(10**6)
    with qtbot.captureExceptions() as raised:
        panel.buttons["Start"].click()
        qtbot.waitUntil(lambda: not panel.running, timeout=LONG_MS)
    assert [kind for kind, *_ in raised] == [ValueError] and panel.buttons["Start"].isEnabled()


def test_acts_wait_for_the_event_loop_in_their_order(qtbot: Any) -> None:
    owner, done = QObject(), []
    turns, beat = Turns(owner), QTimer()
    beat.timeout.connect(lambda: done.append("beat"))
    turns.do(lambda: done.append(1), lambda: done.append(2), lambda: done.append(3))
    assert done == [1], "the first one has waited for nothing"
    beat.start(0)
    qtbot.waitUntil(lambda: 3 in done and not turns.isActive(), timeout=LONG_MS)
    beat.stop()
    assert [act for act in done if act != "beat"] == [1, 2, 3]
    assert "beat" in done[done.index(2) : done.index(3)], "the loop lives between two acts"

    turns.do(lambda: done.append(4))
    assert done[-1] == 4 and not turns.isActive()
    turns.do(lambda: done.append(5), lambda: done.append(6))
    turns.drop()
    qtbot.wait(30)
    assert done[-1] == 5


def test_what_an_act_has_added_is_shown_before_the_next_act(qtbot: Any) -> None:
    """However long an act takes: by its end, timers of both are due."""
    owner, done = QObject(), []
    turns = Turns(owner)

    def show(number: int) -> None:
        done.append(f"{number} shown")
        QTimer.singleShot(0, lambda: done.append("drawn"))

    def act(number: int) -> None:
        after_turns(1, partial(show, number))
        time.sleep(0.02)
        done.append(f"{number} added")

    turns.do(*(partial(act, number) for number in range(3)))
    qtbot.waitUntil(lambda: len(done) == 9, timeout=LONG_MS)
    assert done == [text for number in range(3) for text in (f"{number} added", f"{number} shown", "drawn")]


def test_an_act_that_fails_leaves_the_others_their_turns(qtbot: Any) -> None:
    owner, done = QObject(), []
    turns = Turns(owner)
    with pytest.raises(ZeroDivisionError):
        turns.do(lambda: 1 / 0, lambda: done.append(1))
    qtbot.waitUntil(lambda: done == [1], timeout=LONG_MS)


def test_a_job_starts_while_another_one_imports_torch(monkeypatch: pytest.MonkeyPatch, qtbot: Any) -> None:
    monkeypatch.setitem(sys.modules, "torch", types.ModuleType("torch"))  # as it is at the beginning of its import
    assert computing_threads() is None
    ends: list[Any] = []
    runner = JobRunner(lambda _event: None, lambda *end: ends.append(end))
    runner.start(iter((Finished(7),)), silent=True)  # type: ignore[arg-type]
    qtbot.waitUntil(lambda: bool(ends), timeout=LONG_MS)
    assert ends == [(7, None)]


def test_reading_a_chain_imports_no_torch(tmp_path: Path) -> None:
    (tmp_path / "chain.yaml").write_text("steps: [threshold, {z_filter: {radius: 2}}]\n")
    code = (
        "import sys; from pathlib import Path; import napari_em_da._napari.chain_editor as editor\n"
        f"home = Path({str(tmp_path)!r}); chain = editor.read_chain(home); editor.write_chain(chain, home / 'b')\n"
        "print([(s.name, dict(s.options)) for s in chain.steps], 'torch' in sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.strip().endswith("[('threshold', {}), ('z_filter', {'radius': 2})] False")
    assert (tmp_path / "b").read_text() == "steps:\n- threshold\n- z_filter:\n    radius: 2\n"


def test_nothing_is_compiled_when_classes_are_first_drawn() -> None:
    code = """
import threading
import numpy as np
from napari.layers import Labels
from napari.utils.colormaps import DirectLabelColormap
from numba.core import event
from napari_em_da._napari.warm import compile_colours
from napari_em_da.layers import class_look

def draw():
    look = class_look({"mito": (1,), "er": (200,)})
    layer = Labels(np.ones((2, 8, 8), np.uint8), colormap=DirectLabelColormap(color_dict=look["colormap"]))
    layer.refresh()

for act in (compile_colours, draw):
    with event.install_recorder("numba:compile") as compiled:
        thread = threading.Thread(target=act)
        thread.start()
        thread.join()
    print(len(compiled.buffer) > 0)
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.split() == ["True", "False"], "compiled before, in a thread, and never again"


@pytest.mark.parametrize(("most", "kind"), [(0, np.uint8), (255, np.uint8), (256, np.uint16), (70_000, np.uint32)])
def test_labels_are_kept_in_the_smallest_type(most: int, kind: type) -> None:
    labels = np.array([[0, most], [most // 2, 1 if most else 0]], np.int64)
    small = compact(labels)
    assert small.dtype == kind
    np.testing.assert_array_equal(small, labels)
    assert compact(np.zeros((0, 3), np.int32)).dtype == np.uint8


def test_previews_are_labels_that_napari_colours_by_a_table(make_napari_viewer: Any) -> None:
    viewer = make_napari_viewer()
    image = viewer.add_image(np.zeros((2, 8, 8), np.uint8), name="image")
    live = Live(viewer, "training")
    live.begin(image, {"mito": (7,)})
    found = np.full((8, 8), 7, np.int64)
    live.take(Preview("view", "labels", found, 3, origin=(0, 0, 0)))
    shown = viewer.layers["training prediction"]
    assert shown.data.dtype.itemsize <= TABLED
    np.testing.assert_array_equal(shown.data[0], found)

    preview = SectionPreview(viewer, "refined preview")
    preview.show((found, {}, "labels"))
    assert preview.layer is not None and preview.layer.data.dtype.itemsize <= TABLED
    scores = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    preview.show((scores, {}, "image"))
    np.testing.assert_array_equal(preview.layer.data, scores)


def test_a_large_table_asks_only_for_the_cells_in_view(make_napari_viewer: Any, monkeypatch: Any, qtbot: Any) -> None:
    count, viewer = 100_000, make_napari_viewer()
    random = np.random.default_rng(0)
    table: dict[str, Any] = {"id": np.arange(1, count + 1), "volume_nm3": random.permutation(count).astype(float)}
    table |= {f"centroid_{axis}_nm": random.uniform(0, 7, count) for axis in "zyx"}
    layer = viewer.add_labels(np.zeros((8, 8, 8), np.int32), name="ids")
    widget = ObjectsTable(viewer)
    dock = viewer.window.add_dock_widget(widget, name="Objects")
    asked: set[int] = set()
    original = type(widget.model).data

    def data(self: Any, index: Any, role: int = 0) -> Any:
        asked.add(index.row())
        return original(self, index, role)

    monkeypatch.setattr(type(widget.model), "data", data)
    widget.show_objects(Objects(table, "nm", (1.0, 1.0, 1.0)), layer)
    widget.view.sortByColumn(1, widget.view.horizontalHeader().sortIndicatorOrder().DescendingOrder)
    qtbot.wait(100)
    assert len(asked) < 200
    assert widget.model.rows[0] == int(np.argmax(table["volume_nm3"]))
    assert widget.select(90_000) and widget.model.rows[widget.view.currentIndex().row()] == 89_999
    assert len(asked) < 400
    viewer.window.remove_dock_widget(dock)
