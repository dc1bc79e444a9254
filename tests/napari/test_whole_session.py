"""One whole session in the guided window, from two stacks to a corrected segmentation, by clicks and strokes alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("napari")
from napari.utils.interactions import mouse_move_callbacks, mouse_press_callbacks, mouse_release_callbacks
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFileDialog
from scipy import ndimage

from napari_em_da._napari import GuideDock
from napari_em_da._napari.turns import Turns
from napari_em_da.synthetic import CLASSES, phantom_pair
from napari_em_da.volume import Volume

torch = pytest.importorskip("torch")

LONG_MS = 150_000
MEMBRANE, BRUSH, STROKES = CLASSES["membrane"], 5, 10
SECTIONS = (1, 4)  # that are corrected
NETWORK = {"features": 8, "levels": 2}
TRAINING = {"steps": 100, "validate_every": 50, "checkpoint_every": 100, "learning_rate": 0.003}
ADAPTATION = {"steps": 10, "validate_every": 10, "checkpoint_every": 10}
SAMPLING = {"patch_px": (1, 64, 64), "batch": 2, "validation_patches": 4, "selection_patches": 4, "threads": 0}
EXACT = {"precision": "fp32", "device": "cpu"}
ROUND = {"steps": 40, **EXACT}


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """A labelled stack of one microscope, and a stack of another one with the labels to score against."""
    found = {}
    for name, part in zip(
        ("source", "target"), phantom_pair((6, 160, 160), 0, domains=("fibsem", "sbem")), strict=True
    ):
        found[name] = part.image.save(tmp_path / f"{name}.tif")
        found[f"{name}-labels"] = part.labels.save(tmp_path / f"{name}-labels.tif")
    return found


@pytest.fixture(autouse=True)
def no_dialogs(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A dialog that the session does not ask for would wait for ever."""
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: pytest.fail("nobody asked for a folder"))
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *_: pytest.fail("nobody asked for a file"))
    yield


class Hand:
    """The user: clicks, picks from menus and dialogs, paints, and waits for what was started."""

    def __init__(self, viewer: Any, qtbot: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.viewer, self.qtbot, self._patch = viewer, qtbot, monkeypatch
        _, self.dock = viewer.window.add_plugin_dock_widget("napari-em-da", "EM DA")
        assert isinstance(self.dock, GuideDock)
        qtbot.waitUntil(lambda: "data" in self.dock.pages, timeout=20_000)

    def click(self, button: Any) -> None:
        assert button.isEnabled(), button.text()
        self.qtbot.mouseClick(button, Qt.MouseButton.LeftButton)

    def go(self, name: str) -> Any:
        self.click(self.dock.stepper.buttons[name])
        self.wait(lambda: self.dock.current == name)
        return self.dock.pages[name]

    def onward(self, name: str) -> Any:
        self.click(self.dock.onward.button)
        self.wait(lambda: self.dock.current == name)
        return self.dock.pages[name]

    def wait(self, until: Any) -> None:
        self.qtbot.waitUntil(until, timeout=LONG_MS)

    def job(self, page: Any, panel: Any, button: str) -> str:
        """Press a button of a job, wait until the page is quiet, and return what it says."""
        self.click(panel.buttons[button])
        assert panel.running, panel.message.text()
        self.wait(lambda: not any(runner.running for runner in page._runners))
        self.wait(lambda: not any(turns.isActive() for turns in page.findChildren(Turns)))
        assert not panel.message.is_error, panel.message.text()
        assert panel.bar.format() == "done"
        return str(panel.message.text())

    def open_project(self, folder: Path) -> None:
        page = self.dock.pages["data"]
        self._patch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(folder))
        self.click(page.project.button)
        self.wait(lambda: self.dock.keeper.project is not None)

    def open_file(self, role: str, path: Path) -> Any:
        """Choose a file in the dialog of a row of the Data page."""
        row = self.dock.pages["data"].rows[role]
        self._patch.setattr(QFileDialog, "getOpenFileName", lambda *_: (str(path), ""))
        row.menu.actions()[0].trigger()
        self.wait(lambda: row.layer is not None)
        return row.layer

    def pick(self, menu: Any, value: Any) -> None:
        index = menu.findData(value)
        assert index >= 0, value
        menu.setCurrentIndex(index)

    def fill(self, values: dict[str, Any], *forms: Any) -> None:
        """Type values into the forms that ask for them."""
        left = set(values)
        for form in forms:
            for name in left & set(form.editors):
                form.editors[name].set(values[name])
            left -= set(form.editors)
        assert not left, f"no form asks for {left}"

    def stroke(self, layer: Any, start: Sequence[float], end: Sequence[float]) -> None:
        """Draw a straight line with the mouse."""
        places = [np.asarray(layer.data_to_world(np.add(start, np.subtract(end, start) * t))) for t in (0, 0.5, 1)]
        send = {"mouse_press": mouse_press_callbacks, "mouse_move": mouse_move_callbacks}
        send["mouse_release"] = mouse_release_callbacks
        for kind, place in zip(
            ("mouse_press", "mouse_move", "mouse_move", "mouse_release"), (*places, places[-1]), strict=True
        ):
            event = SimpleNamespace(
                type=kind,
                is_dragging=kind != "mouse_press",
                position=tuple(place),
                view_direction=None,
                button=1,
                modifiers=(),
                handled=False,
            )
            send[kind](layer, event)


def lines(
    inside: npt.NDArray[Any], wrong: npt.NDArray[Any], count: int
) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Return straight strokes of the brush that stay inside and go over as much of what is wrong as they can."""
    radius = BRUSH // 2
    safe = ndimage.distance_transform_edt(np.pad(inside, 1))[1:-1, 1:-1] > radius
    left, found = wrong & inside, []
    for _ in range(count):
        best: tuple[int, Any, Any] = (0, None, None)
        for turned in (False, True):
            can, want = (safe.T, left.T) if turned else (safe, left)
            near = ndimage.uniform_filter1d(want.astype(np.float32), BRUSH, axis=0, mode="constant") * BRUSH
            for y, row in enumerate(can):
                edges = np.flatnonzero(np.diff(np.concatenate([[0], row.astype(np.int8), [0]])))
                for a, b in zip(edges[::2], edges[1::2], strict=True):
                    gain = int(near[y, a:b].sum())
                    if gain > best[0]:
                        best = gain, ((y, a), (y, b - 1)), turned
        if best[1] is None:
            break
        line = tuple(tuple(int(v) for v in (p[::-1] if best[2] else p)) for p in best[1])
        (y0, x0), (y1, x1) = line
        left = left.copy()
        left[max(0, y0 - radius) : y1 + radius + 1, max(0, x0 - radius) : x1 + radius + 1] = False
        found.append(line)
    return found


def prepare(hand: Hand, files: dict[str, Path], folder: Path) -> None:
    """A project, four files, and one class."""
    page = hand.dock.pages["data"]
    hand.open_project(folder)
    for role, name in (
        ("source", "source"),
        ("labels", "source-labels"),
        ("target", "target"),
        ("truth", "target-labels"),
    ):
        hand.open_file(role, files[name])
    hand.wait(lambda: page.classes.table.rowCount() > 0 and not page.busy)
    rows = {value: row for row, (value, _, _) in enumerate(page.classes.table.rows())}
    for value, row in rows.items():
        page.classes.table.item(row, 0).setCheckState(
            Qt.CheckState.Checked if value == MEMBRANE else Qt.CheckState.Unchecked
        )
    page.classes.table.item(rows[MEMBRANE], 1).setText("membrane")
    assert hand.dock.session.classes == {"membrane": (MEMBRANE,)}
    hand.wait(lambda: not any(runner.running for runner in page._runners) and not page._later.isActive())
    assert page.missing() is None


def choose_weights(hand: Hand) -> None:
    """Look at the map of the section in view, and train with it."""
    page = hand.onward("weights")
    hand.pick(page.kind, "distance")
    hand.wait(lambda: "weights preview" in hand.viewer.layers and page.state.text().startswith("Section"))
    hand.click(page.use_button)
    page.live.setChecked(False)
    assert page.used.text() == "Training uses this map." and "weights preview" not in hand.viewer.layers


def train(hand: Hand) -> Path:
    page = hand.onward("train")
    page.network.section.expand(animate=False)
    hand.wait(lambda: page.network.form is not None)
    hand.fill(NETWORK, page.network.form)
    forms = (page.training, page.sampling, page.more_training, page.more_sampling)
    hand.fill({**TRAINING, **SAMPLING, **EXACT}, *forms)
    assert "Finished 100 steps" in hand.job(page, page.panel, "Start")
    assert hand.dock.session.trained == page.run.path
    return Path(page.run.path)


def adapt(hand: Hand) -> Path:
    page = hand.onward("adapt")
    hand.pick(page.method.menu, "adabn")
    hand.fill({**ADAPTATION, **EXACT}, page.training, page.more_training)
    assert hand.job(page, page.panel, "Start").startswith("Finished in")
    assert "Chosen without labels" in page.outcome.chosen.text()
    shown = {layer.name for layer in hand.viewer.layers}
    assert {"before adaptation", "after adaptation"} <= shown, page.outcome.compared.text()
    assert hand.dock.session.adapted == page.run.path
    return Path(page.run.path)


def segment(hand: Hand, run: Path) -> Any:
    """Segment the section in view, then the volume."""
    page = hand.go("segment")
    hand.fill({"precision": "fp32", "device": "cpu", "smooth_z": 0}, page.options, page.more)  # as a view is
    assert page.run.path == run, "the best network so far"
    hand.click(page.section_button)
    hand.wait(lambda: not page.looker.running)
    assert not page.state.is_error, page.state.text()
    section = hand.viewer.dims.current_step[0]
    seen = np.array(hand.dock.session.layer("prediction").data[section])
    assert "Saved as" in hand.job(page, page.panel, "Whole volume")
    found = hand.dock.session.layer("prediction")
    np.testing.assert_array_equal(found.data[section], seen, "the view looked exactly the same")
    return found


def evaluate(hand: Hand) -> float:
    """Return the IoU of the segmentation in view, as the page shows it."""
    page = hand.go("evaluate")
    hand.wait(lambda: bool(page.metrics.docs))
    hand.job(page, page.panel, "Score")
    return float(page.table.value("iou/membrane"))


def refine(hand: Hand) -> Any:
    """Remove specks from the volume."""
    page = hand.go("refine")
    action = next(a for a in page.editor.add_button.menu().actions() if a.text().lower() == "remove small")
    action.trigger()
    hand.wait(lambda: len(page.editor.items()) == 1)
    hand.fill({"sections": True, "min_size_nm2": 1000.0}, page.editor._forms[0])
    hand.wait(lambda: "refined preview" in hand.viewer.layers)
    before = hand.dock.session.layer("prediction")
    assert "Saved as" in hand.job(page, page.panel, "Apply to the volume")
    found = hand.viewer.layers[f"{before.name} refined"]
    assert 0 < (np.asarray(found.data) > 0).sum() <= (np.asarray(before.data) > 0).sum()
    return found


def correct(hand: Hand, truth: npt.NDArray[Any]) -> Path:
    """Paint over what is wrong in two sections, and learn from it."""
    page = hand.go("correct")
    before = hand.dock.session.best_run
    hand.click(page.paint.new_button)
    paint = hand.dock.session.layer("corrections")
    predicted = np.asarray(hand.dock.session.layer("prediction").data) == MEMBRANE
    paint.brush_size = BRUSH
    for z in SECTIONS:
        hand.viewer.dims.set_current_step(0, z)
        for value, inside in ((0, truth[z] != MEMBRANE), (MEMBRANE, truth[z] == MEMBRANE)):
            hand.click(page.paint.buttons[value])
            assert (paint.mode, paint.selected_label) == ("paint", value)
            for start, end in lines(inside, predicted[z] != (truth[z] == MEMBRANE), STROKES):
                hand.stroke(paint, (z, *start), (z, *end))
    painted = paint.data != 255
    assert {int(z) for z in np.nonzero(painted.any((1, 2)))[0]} == set(SECTIONS)
    assert 0.01 < painted[list(SECTIONS)].mean() < 0.35, "a few strokes, not the whole section"
    assert ((paint.data == MEMBRANE) == (truth == MEMBRANE))[painted].mean() > 0.95, "the hand is steady"
    paint.undo()
    assert (paint.data != 255).sum() < painted.sum()
    paint.redo()
    np.testing.assert_array_equal(paint.data != 255, painted)

    hand.fill(ROUND, page.more)
    assert hand.job(page, page.panel, "Learn from my corrections").startswith("Round 1: ")
    assert hand.dock.session.best_run not in (None, before) and page.rounds.list.count() == 2
    return Path(hand.dock.session.best_run)


@pytest.mark.timeout(1800)
def test_from_two_stacks_to_a_corrected_segmentation(
    make_napari_viewer: Any, files: dict[str, Path], tmp_path: Path, qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    viewer = make_napari_viewer()
    hand = Hand(viewer, qtbot, monkeypatch)
    dock = hand.dock
    prepare(hand, files, tmp_path / "project")
    choose_weights(hand)
    trained = train(hand)
    viewer.dims.set_current_step(0, 3)
    segment(hand, trained)
    scores = [evaluate(hand)]
    hand.go("train")
    adapted = adapt(hand)
    segment(hand, adapted)
    scores.append(evaluate(hand))
    refined = refine(hand)
    page: Any = hand.go("evaluate")
    page.prediction.choose(refined)
    scores.append(evaluate(hand))
    truth = Volume.open(files["target-labels"]).read()
    corrected = correct(hand, truth)
    found = segment(hand, corrected)
    scores.append(evaluate(hand))
    mine = np.asarray(found.data) == MEMBRANE
    iou = (mine & (truth == MEMBRANE)).sum() / (mine | (truth == MEMBRANE)).sum()
    assert scores[-1] == pytest.approx(iou, abs=1e-3), "the page shows what the labels say"
    source_only, after_adapting, after_refining, after_correcting = scores
    assert after_adapting > source_only + 0.05
    assert after_refining > source_only
    assert after_correcting > max(after_adapting, after_refining) + 0.03
    hand.wait(lambda: all("✓" in button.text() for button in dock.stepper.buttons.values()))
    assert all(run.is_relative_to(tmp_path / "project" / "runs") for run in (trained, adapted, corrected))

    expected = state(hand)
    viewer.close()
    qtbot.waitUntil(lambda: dock.keeper.project is None, timeout=LONG_MS)
    assert not (tmp_path / "project" / "project.lock").exists()
    again = Hand(make_napari_viewer(), qtbot, monkeypatch)
    again.open_project(tmp_path / "project")
    assert not again.dock.message.text(), again.dock.message.text()
    again.wait(lambda: not any(runner.running for page in again.dock.pages.values() for runner in page._runners))
    again.wait(lambda: again.dock.session.classes == expected["classes"])
    reopened = state(again)
    for what, before in expected.items():
        assert reopened[what] == before, what
    assert evaluate(again) == scores[-1], "and the work goes on"


def state(hand: Hand) -> dict[str, Any]:
    """Return what the user would miss: page, roles, layers that are kept, runs and rounds."""
    session = hand.dock.session
    roles = {role: session.layer(role) for role in ("source", "labels", "target", "truth", "prediction", "corrections")}
    correcting = hand.dock._page("correct")
    return {
        "page": hand.dock.current,
        "roles": {role: None if layer is None else layer.name for role, layer in roles.items()},
        "data": {
            role: np.asarray(layer.data).astype(np.int64).tobytes()
            for role, layer in roles.items()
            if layer is not None
        },
        "runs": (session.trained, session.adapted),
        "classes": session.classes,
        "weights": session.weights,
        "rounds": correcting.rounds.memo(),
        "done": sorted(name for name, button in hand.dock.stepper.buttons.items() if "✓" in button.text()),
    }
