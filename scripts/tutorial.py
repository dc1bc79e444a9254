"""Walk through the guided window as a user does, and take the pictures of docs/tutorial.md.

    xvfb-run -a -s "-screen 0 1600x1000x24" python scripts/tutorial.py

The stacks are EPFL's hippocampus with its labels and the fly's ventral nerve cord, where the folder ``--data`` has
them; the phantom that comes with the plugin otherwise. A quick look takes about ten minutes on two cores. With ``--runs
FOLDER`` the networks are kept there, and shown again as the pages showed them, so that pictures can be taken anew
without training: the pictures of the tutorial are of the preset Good, which takes twice as long.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tutorial_runs import adapted, keep, segmented, trained
from tutorial_window import User, own_settings

ROOT = Path(__file__).parents[1]
MOUSE, FLY = 3, 8  # sections that are looked at
MOUSE_NM, FLY_NM = "5, 5, 5", "50, 4.6, 4.6"
CLASSES = {1: "membrane", 2: "mito", 3: "vesicles"}  # of the phantom
MOUSE_CLASSES = {1: "membrane", 2: "mito", 5: "vesicles"}
OUTPUT = "fly-segmentation.tif"
SMALL = {"min_size_nm3": 1e7, "classes": ["mito"]}
SCORED = {"mito": (2,)}, {"mito": (3,)}  # of the phantom, and as the fly's labels number it


@dataclass
class Tour:
    """What the pages of one walk share."""

    user: User
    data: Path | None
    runs: Path | None
    project: Path
    preset: str

    @property
    def session(self) -> Any:
        return self.user.dock.session

    def layer(self, role: str) -> Any:
        return self.session.layer(role)

    def see(self, role: str, section: int) -> None:
        """Go to a section of a layer."""
        self.user.viewer.dims.set_point(0, float(self.layer(role).data_to_world((section, 0, 0))[0]))
        self.user.rest()

    def frame(self, role: str, zoom: float = 1.0) -> Callable[[], None]:
        """Return what puts a layer into the middle."""
        return lambda: self.user.centre(self.layer(role), zoom)


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    data = options.data if (options.data / "vnc_sstem").is_dir() else None
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        own_settings(Path(scratch))
        user = User(options.out, options.check, options.only)
        tour = Tour(user, data, options.runs, options.project or Path(scratch) / "mouse-to-fly", options.preset)
        pages = (
            show_data,
            show_weights,
            show_train,
            show_adapt,
            show_segment,
            show_refine,
            show_evaluate,
            show_correct,
        )
        for page in pages:
            page(tour)
        user.leave()
    return 0


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    found.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", help="folder of the real volumes")
    found.add_argument("--out", type=Path, default=ROOT / "docs" / "images" / "tutorial", help="folder of the pictures")
    found.add_argument("--project", type=Path, help="folder of the project, to be made; a temporary one if absent")
    found.add_argument("--runs", type=Path, help="folder where the networks are kept and found again")
    found.add_argument("--preset", choices=("quick", "good", "thorough"), default="quick", help="how long to train")
    found.add_argument("--check", type=Path, help="folder for pictures in two sizes and two themes, to look at")
    found.add_argument("--only", nargs="*", default=(), help="names of the pictures to take, such as 04-adapt")
    return found


def show_data(tour: Tour) -> None:
    """Make a project, open the volumes, say how large the voxels are, tick and name the classes."""
    user, page = tour.user, tour.user.go("data")
    page.project.open(tour.project)
    user.rest(1)
    if tour.data is None:
        first, other, labels = user.viewer.open_sample("napari-em-da", "phantom")
        for role, layer in (("source", first), ("labels", labels), ("target", other)):
            page.rows[role].choice.choose(layer)
    else:
        mouse, fly = tour.data / "epfl_hippocampus", tour.data / "vnc_sstem"
        files = {"source": mouse / "image.tif", "labels": mouse / "labels.tif"}
        files |= {"target": fly / "image.tif", "truth": fly / "labels.tif"}
        names = {"source": "mouse", "labels": "mouse labels", "target": "fly", "truth": "fly ground truth"}
        for role, path in files.items():
            page.rows[role].open(path, names[role])
            user.wait(lambda role=role: tour.layer(role) is not None, f"opening {path.name}", 60)
        for role, size in (("source", MOUSE_NM), ("target", FLY_NM)):
            type_into(page.voxels[role].line, size)
    user.wait(lambda: page.classes.table.rowCount() > 0, "counting the labels", 120)
    names = CLASSES if tour.data is None else MOUSE_CLASSES
    page.classes.table.restore([(n, n in names, names.get(n, f"class {n}")) for n in range(1, 256)])
    user.settle(lambda: not page.checker.running and not page._later.isActive(), "the checks")
    user.show(tour.layer("source").name, tour.layer("labels").name)
    user.viewer.layers.selection.active = tour.layer("source")
    tour.see("source", MOUSE)
    user.picture("01-data", tour.frame("source"))


def type_into(line: Any, text: str) -> None:
    """Type a text and press Enter."""
    line.setText(text)
    line.setModified(True)
    line.editingFinished.emit()


def show_weights(tour: Tour) -> None:
    """Look at a map of weights; the training goes without."""
    user = tour.user
    user.show(tour.layer("source").name)  # first: a preview that is hidden stays hidden
    page = user.go("weights")
    page.kind.setCurrentIndex(page.kind.findData("border"))
    page.options.editors["objects"].set("components")
    page._edited()
    user.wait(lambda: page.preview_layer.layer is not None, "the weights", 120)
    user.settle(lambda: not page.previewer.running, "the weights")
    user.picture("02-weights", tour.frame("source"))


def show_train(tour: Tour) -> None:
    """Train the small network of a preset, or take the one that is there."""
    user, page = tour.user, tour.user.go("train")
    user.show(tour.layer("source").name)
    tour.see("source", MOUSE)
    learn(tour, page, "train", trained)
    preview(tour, page)
    user.picture("03-train", tour.frame("source"))


def preview(tour: Tour, page: Any) -> None:
    """Show the section in view as the network segments it, which a training does at each validation."""
    from napari_em_da import layers
    from napari_em_da.events import Finished, Preview

    image = tour.layer("source")
    rows, columns = image.data.shape[-2:]
    box = slice(MOUSE, MOUSE + 1), slice(0, rows), slice(0, columns)
    page.live._image = image
    for event in layers.segment_view(layers.snapshot(image), page.run.path, box[0], box[1:]):
        if isinstance(event, Finished):
            page.live.take(Preview("prediction", "labels", event.result.labels[0], origin=(MOUSE, 0, 0)))
    tour.user.rest()


def show_adapt(tour: Tour) -> None:
    """Adapt with ``auto``, and compare before and after."""
    user, page = tour.user, tour.user.go("adapt")
    target = tour.layer("target")
    user.show(target.name)
    tour.see("target", FLY)
    learn(tour, page, "adapt", adapted)
    user.wait(lambda: not page.outcome.runner.running, "the comparison", 300)
    user.picture("04-adapt", lambda: user.centre(target, columns=2.03))


def learn(tour: Tour, page: Any, name: str, result: Callable[[Path], Any]) -> None:
    """Start the job of a page, or show one that has finished before as the page shows it, with its curves."""
    from napari_em_da.events import Metric
    from napari_em_da.training.folder import RunFolder

    user, kept = tour.user, None if tour.runs is None else tour.runs / name
    page.preset.menu.setCurrentIndex(page.preset.menu.findData(tour.preset))
    if kept is None or not kept.is_dir():
        user.settle(lambda: not page.preset.runner.running and not page.preset._wait.isActive(), "the estimate")
        print(page.preset.time.text(), flush=True)
        user.run(page.panel, "Start", minutes=40)
        if kept is not None:
            shutil.copytree(page.run.path, kept)
        return
    page.preset.stop()
    run = tour.session.new_run(name)
    shutil.copytree(kept, run, dirs_exist_ok=True)
    page.run.path = run
    page.live.begin(page.live.image, tour.session.classes)
    chosen = json.loads((run / "run.json").read_text(encoding="utf-8")).get("chosen", "")
    for line in RunFolder(run / "portfolio" / chosen if chosen else run).metrics():
        page.live.take(Metric(int(line["step"]), {key: value for key, value in line.items() if key != "step"}))
    page.panel.bar.show()
    page.panel._ended(result(run), None)


def show_segment(tour: Tour) -> None:
    """Segment the section in view, then the volume with its probabilities, unless it was segmented before."""
    user, page = tour.user, tour.user.go("segment")
    target, kept = tour.layer("target"), None if tour.runs is None else tour.runs / "segment"
    user.show(target.name)
    page.output.path = tour.project / OUTPUT
    page.scores.setChecked(True)
    page.section_button.click()
    user.wait(lambda: not page.looker.running, "the section", 300)
    print(page.state.text(), flush=True)
    if kept is None or not kept.is_dir():
        seconds = user.run(page.panel, "Whole volume", minutes=30)
        if kept is not None:
            kept.mkdir(parents=True)
            keep(OUTPUT, tour.project, kept)
            (kept / f"{OUTPUT}.seconds").write_text(f"{seconds:.0f}", encoding="utf-8")
    else:
        keep(OUTPUT, kept, tour.project)
        page.panel.bar.show()
        page.panel._ended(segmented(tour.project / OUTPUT, target, tour.session.best_run), None)
    user.show(target.name, tour.layer("prediction").name)
    user.viewer.layers.selection.active = tour.layer("prediction")
    user.picture("05-segment", tour.frame("target"))


def show_refine(tour: Tour) -> None:
    """Threshold, remove what is small, number the objects; look at their table."""
    user, page = tour.user, tour.user.go("refine")
    for step, options in (("threshold", {}), ("remove_small", SMALL), ("components", {"classes": ["mito"]})):
        page.editor.add(step, **options)
        user.wait(lambda: not page.editor.runner.running, step, 120)
    page.editor.list.setCurrentRow(1)
    user.show(tour.layer("target").name)
    user.wait(lambda: page.preview_layer.layer is not None, "the preview", 300)
    user.settle(lambda: not page.previewer.running and not page._wait.isActive(), "the preview")
    user.picture("06-refine", tour.frame("target"))
    page.output.path = tour.project / "fly-objects.tif"
    user.run(page.panel, "Apply to the volume")
    page.tabs.setCurrentWidget(page.objects)
    user.show(tour.layer("target").name, page.objects.labels.layer.name)
    user.run(page.objects.panel, "Measure")
    table = page.objects.table
    header = table.view.horizontalHeader()
    header.setSortIndicator(1, header.sortIndicatorOrder().DescendingOrder)
    table.view.selectRow(0)
    user.picture("06-refine-objects")
    page.tabs.setCurrentIndex(0)


def show_evaluate(tour: Tour) -> None:
    """Score against the ground truth of the target, and look at hits and misses."""
    user, page = tour.user, tour.user.go("evaluate")
    user.show(tour.layer("target").name)
    if tour.data is None:  # both images show the same tissue
        page.truth.choose(tour.layer("labels"))
    page.about.editors["classes"].set(SCORED[tour.data is not None])
    user.rest()
    user.run(page.panel, "Score")
    page.buttons["Hits and misses"].click()
    user.wait(lambda: not page.mapper.running, "the map of errors", 300)
    tour.see("target", FLY)
    user.picture("07-evaluate", tour.frame("target"))


def show_correct(tour: Tour) -> None:
    """Find places, go to the first, paint what is wrong there as a user would, and learn from it."""
    user, page = tour.user, tour.user.go("correct")
    user.show(tour.layer("target").name, tour.layer("prediction").name)
    page.find_places()
    user.wait(lambda: not page.places.runner.running, "the places", 300)
    page.places.step(1)
    page.paint.new_button.click()
    user.rest()
    paint(tour, page)
    user.run(page.panel, "Learn from my corrections")
    user.wait(lambda: not page.view.runner.running, "the section", 300)
    user.picture("08-correct", lambda: page.places.go(page.places.table.currentRow()))


def paint(tour: Tour, page: Any) -> None:
    """Draw a stroke along the middle of the largest wrong parts of the place in view, with the brush of the page."""
    import numpy as np
    from scipy import ndimage
    from skimage.morphology import skeletonize

    z, y, x, height, width = page.places.current
    box = slice(y, y + height), slice(x, x + width)
    truth, mine = SCORED[tour.data is not None]["mito"], SCORED[0]["mito"]
    right = np.isin(np.asarray(tour.layer("truth").data[z])[box], truth)
    found = np.isin(np.asarray(tour.layer("prediction").data[z])[box], mine)
    layer = page.paint.layer
    for value, wrong in ((mine[0], right & ~found), (0, found & ~right)):
        parts, count = ndimage.label(ndimage.binary_erosion(wrong, iterations=4))
        sizes = ndimage.sum_labels(parts > 0, parts, range(1, count + 1))
        page.paint.choose(value)
        layer.brush_size = 7
        for number in np.argsort(sizes)[::-1][:4] + 1:
            for row, column in np.argwhere(skeletonize(parts == number))[::3]:
                layer.paint((z, y + row, x + column), value)
    tour.user.rest()


if __name__ == "__main__":
    sys.exit(main())
