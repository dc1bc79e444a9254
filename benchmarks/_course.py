"""A user's way through the EM DA window: every job is started by its own button, in a real viewer."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from _lag import Hand, Meter, live, wait
from _objects_table import table_times

import napari
from napari_em_da import Volume

SECTIONS, SIDE = 20, 1024
VOXEL_NM = (30.0, 8.0, 8.0)
LONG_S = 600
Results = dict[str, Any]


def stacks(folder: Path, side: int) -> dict[str, Path]:
    """Write two phantoms as two microscopes show them, and their labels: a quarter, mirrored to the full size."""
    from napari_em_da.synthetic import phantom, render

    half = side // 2
    tissue = phantom((SECTIONS, half, half), voxel_nm=VOXEL_NM, seed=1)
    arrays = {"source": tissue.image, "labels": tissue.labels, "target": render(tissue, "sstem", seed=2)}
    arrays["truth"] = tissue.labels
    paths = {}
    for name, volume in arrays.items():
        data = np.pad(volume.read(), ((0, 0), (0, half), (0, half)), mode="symmetric")
        data = data[:, ::-1] if name in ("target", "truth") else data
        paths[name] = Volume.from_array(np.ascontiguousarray(data), voxel_nm=VOXEL_NM).save(folder / f"{name}.tif")
    return paths


class Course:
    """The phases, in the order in which a user comes to them.

    Parameters
    ----------
    folder : Path
        For the stacks and the project.
    meter : Meter
    hands : bool
        Move through the viewer meanwhile.
    side : int
        Of a section, in pixels.
    steps : int, optional
        Of trainings and adaptations, in place of the preset's.
    """

    def __init__(
        self, folder: Path, meter: Meter, *, hands: bool = True, side: int = SIDE, steps: int | None = None
    ) -> None:
        self.folder, self.meter, self.hands, self.steps = folder, meter, hands, steps
        self.paths = stacks(folder, side)
        self.results: Results = {"cancel_s": {}, "section_s": {}}
        self.viewer = napari.Viewer()
        self.viewer.window._qt_window.resize(1600, 1000)
        self.hand = Hand(self.viewer, meter, SECTIONS, VOXEL_NM[1] * side)
        self.dock: Any = None

    def phase(self, name: str, act: Callable[[], object]) -> None:
        """Measure an act."""
        live(0.5)
        print(f"{name} …", file=sys.stderr, flush=True)
        if self.hands and name != "open":
            self.hand.start()
        try:
            with self.meter.phase(name):
                act()
        finally:
            self.hand.stop()
        print(f"  {self.meter.of(name)}", file=sys.stderr, flush=True)

    def add(self) -> None:
        """Show the stacks as opening their files does."""
        from napari.layers import Layer

        from napari_em_da import layers
        from napari_em_da.jobs import run

        for name in ("source", "labels", "target"):
            data = run(layers.open_layer(self.paths[name], "labels" if name == "labels" else "image"))
            self.viewer.add_layer(Layer.create(*data))
        self.viewer.layers["source"].visible = False

    def beside_torch(self) -> None:
        """Train a plain network in a plain thread, without the window."""
        stop = threading.Event()
        thread = threading.Thread(target=train_plainly, args=(stop,))
        thread.start()
        live(10)
        stop.set()
        wait(lambda: not thread.is_alive(), LONG_S, "the plain training")

    def close(self) -> None:
        """Close the window."""
        if self.dock is not None:
            self.viewer.window.remove_dock_widget(self.dock)
        live(3)

    def open(self) -> None:
        """Open the window, a project, and give the roles."""
        _, self.dock = self.viewer.window.add_plugin_dock_widget("napari-em-da", "EM DA")
        live(0.5)
        page = self.dock.show_page("data")
        page.project.open(self.folder / "project")
        for role in ("source", "labels", "target"):
            page.rows[role].choice.choose(self.viewer.layers[role])
            live(0.2)
        page.rows["truth"].open(self.paths["truth"])
        wait(lambda: self.dock.session.layer("truth") is not None and self.dock.session.classes, 60, "opening")
        self.viewer.layers["truth"].visible = False
        live(3)

    def pages(self) -> None:
        """Show every page once."""
        for name in ("weights", "train", "adapt", "segment", "refine", "evaluate", "correct"):
            self.dock.stepper.buttons[name].click()
            live(2)

    def weights(self) -> None:
        """Drag a slider for 10 s, kind after kind."""
        page = self.dock.show_page("weights")
        self.viewer.layers["source"].visible = True
        for kind in ("entropy", "distance"):
            page.kind.setCurrentIndex(page.kind.findData(kind))
            wait(lambda: "mean" in page.state.text(), 60, "weights")
            slider = page.common.editors["floor"].widget.slider
            for value in np.concatenate([np.linspace(0, 1, 50), np.linspace(1, 0, 50)]):
                slider.setValue(float(value))
                live(0.05)
        page.live.setChecked(False)

    def train(self) -> None:
        """Train with the preset's network, with curves and previews; then start another and cancel it."""
        page = self.dock.show_page("train")
        self.preset(page)
        live(1.5)  # the estimate begins
        page.panel.buttons["Start"].click()
        self.finish(page.panel, "training")

    def cancel_train(self) -> None:
        """Cancel trainings: in their first steps, later, and in a validation."""
        page = self.dock.show_page("train")
        self.preset(page, interval=20)
        self.results["cancel_s"]["train"] = [self.cancel(page, "Start", after) for after in (3, 9, 6)]

    def adapt(self) -> None:
        """Adapt with a mean teacher."""
        page = self.dock.show_page("adapt")
        page.method.menu.setCurrentIndex(page.method.menu.findData("mean_teacher"))
        self.preset(page, interval=20, steps=80)
        page.panel.buttons["Start"].click()
        self.finish(page.panel, "adaptation")
        wait(lambda: not page.outcome.running, 60, "before and after")

    def cancel_adapt(self) -> None:
        """Cancel adaptations, of one method and of the portfolio."""
        page = self.dock.show_page("adapt")
        for method in ("mean_teacher", "auto"):
            page.method.menu.setCurrentIndex(page.method.menu.findData(method))
            self.preset(page, interval=20)
            found = [self.cancel(page, "Start", after) for after in (3, 10)]
            self.results["cancel_s"][f"adapt, {method}"] = found

    def section(self) -> None:
        """Segment sections in view: the first one loads the network."""
        page = self.dock.show_page("segment")
        for name, z in (("first", 5), ("second", 6), ("third", 7)):
            self.hand.stop()  # it would leave the section
            self.viewer.dims.set_current_step(0, z)
            page.section_button.click()
            took = wait(lambda z=z: f"Section {z}: " in page.state.text() and ", in" in page.state.text(), 60, "view")
            self.results["section_s"][name] = round(took, 2)
            live(1)

    def volume(self) -> None:
        """Segment the whole volume, block by block."""
        page = self.dock.show_page("segment")
        page.scores.setChecked(True)
        page.panel.buttons["Whole volume"].click()
        self.finish(page.panel, "segmentation")

    def refine(self) -> None:
        """Move an option with a live preview, then measure the objects."""
        from napari_em_da._napari.chain_editor import Item

        page = self.dock.show_page("refine")
        page.editor.show_items([Item("fill_holes", {}), Item("remove_small", {"min_size_nm3": 1e6})])
        wait(lambda: len(page.editor.items()) == 2, 60, "steps")
        wait(lambda: "Section" in page.state.text() or page.state.is_error, 60, "preview")
        for size in np.geomspace(1e5, 1e7, 12):
            page.editor._forms[1].editors["min_size_nm3"].widget.setText(f"{size:.0f}")
            live(1)
        page.live.setChecked(False)
        page.editor.add("components")
        wait(lambda: len(page.editor.items()) == 3, 60, "steps")
        page.panel.buttons["Apply to the volume"].click()
        self.finish(page.panel, "post-processing")
        page.tabs.setCurrentWidget(page.objects)
        page.objects.panel.buttons["Measure"].click()
        self.finish(page.objects.panel, "measurements")

    def evaluate(self) -> None:
        """Score, show the map, and click through the sections."""
        page = self.dock.show_page("evaluate")
        page.panel.buttons["Score"].click()
        self.finish(page.panel, "scores")
        page.buttons["Hits and misses"].click()
        wait(lambda: not page.mapper.running, LONG_S, "map")
        for z in (3, 9, 15):
            page.go_to(z)
            live(0.5)

    def correct(self) -> None:
        """Find places, paint a few strokes, learn twice."""
        page = self.dock.show_page("correct")
        page.places.find_button.click()
        wait(lambda: not page.places.runner.running, LONG_S, "places")
        self.hand.stop()
        page.places.step(1)
        live(1)
        page.paint.new_button.click()
        live(1)
        paint, (z, y, x, *_) = page.paint.layer, page.places.current or (5, 50, 50)
        for number, value in enumerate((1, 2, 0)):
            page.paint.choose(value)
            for step in range(30):
                paint.paint((z, y + 30 * number + 10, x + 2 * step + 10), value)
                live(0.03)
        for _ in range(2):
            page.panel.buttons["Learn from my corrections"].click()
            self.finish(page.panel, "learning")
            wait(lambda: not page.view.runner.running, 60, "the view")

    def table(self) -> None:
        """Handle the table of 1e5 objects."""
        self.results["table_ms"] = table_times(self.viewer)

    def preset(self, page: Any, interval: int | None = None, steps: int | None = None) -> None:
        """Choose the quick preset, shorter or validated more often if given, and a run folder of its own."""
        page.run.path = None
        page.preset.menu.setCurrentIndex(page.preset.menu.findData("quick"))
        page.preset.apply()
        steps = self.steps or steps
        if steps is not None:
            page.training.editors["steps"].set(steps)
            interval = min(interval or steps, max(1, steps // 3))
        if interval is not None:
            page.more_training.editors["validate_every"].set(interval)

    def finish(self, panel: Any, what: str) -> None:
        """Wait until a job has ended, and insist that it was finished."""
        wait(lambda: not panel.running, LONG_S, what)
        if panel.bar.format() != "done":
            raise RuntimeError(f"{what}: {panel.bar.format()}: {panel.message.text()}\n{panel.trace.toPlainText()}")

    def cancel(self, page: Any, action: str, after: float) -> float:
        """Start a job, cancel it some seconds after its first step, and return the seconds until it had ended."""
        page.run.path = None
        page.panel.buttons[action].click()
        wait(lambda: "steps" in page.panel.bar.format(), 120, "the first step")
        live(after)
        page.panel.cancel_button.click()
        took = wait(lambda: not page.panel.running, 60, "cancelling")
        if page.panel.bar.format() != "cancelled":
            raise RuntimeError(f"{page.panel.bar.format()}: {page.panel.message.text()}")
        return round(took, 2)


def train_plainly(stop: threading.Event) -> None:
    """Train a small convolutional network until told to stop."""
    import torch

    width = [1, 16, 32, 32, 16, 1]
    layers = [torch.nn.Conv2d(a, b, 3, padding=1) for a, b in zip(width, width[1:], strict=False)]
    network = torch.nn.Sequential(*(part for layer in layers for part in (layer, torch.nn.ReLU())))
    optimiser = torch.optim.Adam(network.parameters())
    while not stop.is_set():
        optimiser.zero_grad()
        network(torch.rand(8, 1, 192, 192)).square().mean().backward()
        optimiser.step()
