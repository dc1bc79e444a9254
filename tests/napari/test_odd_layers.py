"""Sections, pictures, channels, time series and pyramids: every page handles them, or says in words what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("napari")
from napari_em_da import layers
from napari_em_da._napari.adapt_page import AdaptPage
from napari_em_da._napari.correct_page import CorrectPage
from napari_em_da._napari.corrections_view import section_box
from napari_em_da._napari.evaluate_page import EvaluatePage
from napari_em_da._napari.segment_page import SegmentPage
from napari_em_da._napari.session import Session
from napari_em_da._napari.train_page import TrainPage
from napari_em_da._napari.weights_page import WeightsPage
from napari_em_da.errors import EmDaError

SHAPE = (4, 32, 40)


@dataclass(frozen=True)
class Odd:
    """A layer that is no plain stack: its data from a plain one, and what is to come of it.

    Attributes
    ----------
    refused : str
        What is said; empty where the layer is handled.
    fix : str
        Of the finding on the Data page.
    """

    make: Callable[[np.ndarray], Any]
    how: dict[str, Any]
    shape: tuple[int, ...] = ()
    refused: str = ""
    fix: str = ""


def colours(stack: np.ndarray) -> np.ndarray:
    return np.repeat(stack[..., None], 3, axis=-1)


IMAGES = {
    "a stack": Odd(lambda s: s, {}, SHAPE),
    "one section": Odd(lambda s: s[0], {}, (1, *SHAPE[1:])),
    "a pyramid": Odd(lambda s: [s, s[:, ::2, ::2]], {"multiscale": True}, SHAPE),
    "a colour picture": Odd(lambda s: colours(s[0]), {"rgb": True}, refused="colour picture", fix="grey"),
    "a colour stack": Odd(colours, {"rgb": True}, refused="colour picture", fix="grey"),
    "several channels": Odd(lambda s: np.stack([s, s, s]), {"rgb": False}, refused="4 axes", fix="frame"),
    "a time series": Odd(lambda s: np.stack([np.stack([s, s])] * 2), {}, refused="5 axes", fix="frame"),
}
LABELS = {
    name: odd for name, odd in IMAGES.items() if name in ("a stack", "one section", "a pyramid", "several channels")
}


def grey() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, SHAPE).astype(np.uint8)


def cells() -> np.ndarray:
    found = np.zeros(SHAPE, np.uint8)
    found[:, 8:20, 8:20] = 1
    return found


def on_train(session: Session, folder: Path) -> Any:
    return TrainPage(session.viewer, session), lambda page: page._taken()["image"].volume.shape


def labels_on_train(session: Session, folder: Path) -> Any:
    return TrainPage(session.viewer, session), lambda page: page._taken()["labels"].volume.shape


def on_adapt(session: Session, folder: Path) -> Any:
    return AdaptPage(session.viewer, session), lambda page: page._taken().volume.shape


def on_segment(session: Session, folder: Path) -> Any:
    page = SegmentPage(session.viewer, session)
    page.run.path = folder

    def start(page: Any) -> tuple[int, ...]:
        taken = page._request()[0]
        assert page._box(taken, 1)[0] == slice(0, 1)
        assert page._output() is not None
        return tuple(taken.volume.shape)

    return page, start


def on_evaluate(session: Session, folder: Path) -> Any:
    page = EvaluatePage(session.viewer, session)
    return page, lambda page: page.request().truth.volume.shape


def on_weights(session: Session, folder: Path) -> Any:
    page = WeightsPage(session.viewer, session)
    return page, lambda page: page.request()[0].volume.shape


def on_correct(session: Session, folder: Path) -> Any:
    page = CorrectPage(session.viewer, session)
    page.run.path = folder

    def start(page: Any) -> tuple[int, ...]:
        image, _ = page._image_and_run()
        box = section_box(session.viewer, image)
        page.paint.show_classes({"cell": (1,)})
        painted = page.paint.new_layer(image)
        assert painted.data.shape == (image.data[0] if image.multiscale else image.data).shape
        assert page.paint.ensure(image) is painted and box[0] == slice(0, 1)
        return tuple(layers.snapshot(image).volume.shape)

    return page, start


IMAGE_PAGES = {
    "Train": (on_train, "source"),
    "Adapt": (on_adapt, "target"),
    "Segment": (on_segment, "target"),
    "Correct": (on_correct, "target"),
}
LABEL_PAGES = {
    "Train": (labels_on_train, "labels"),
    "Weights": (on_weights, "labels"),
    "Evaluate": (on_evaluate, "truth"),
}


@pytest.fixture
def session(make_napari_viewer: Any, monkeypatch: pytest.MonkeyPatch) -> Session:
    """Plain layers in every role, and a network that needs no file."""
    monkeypatch.setattr(layers, "run_classes", lambda run: {"cell": (1,)})
    session = Session(make_napari_viewer())
    viewer = session.viewer
    for role, layer in (
        ("source", viewer.add_image(grey(), name="source")),
        ("labels", viewer.add_labels(cells(), name="labels")),
        ("target", viewer.add_image(255 - grey(), name="target")),
        ("prediction", viewer.add_labels(cells(), name="prediction")),
        ("truth", viewer.add_labels(cells(), name="truth")),
    ):
        session.assign(role, layer)
    session.set_classes({"cell": (1,)})
    return session


def check(session: Session, odd: Odd, open_page: Any, folder: Path, qtbot: Any) -> None:
    page, start = open_page(session, folder)
    try:
        for what in ("refresh", "missing"):
            getattr(page, what)()
        if odd.refused:
            with pytest.raises(EmDaError, match=odd.refused):
                start(page)
        else:
            assert tuple(start(page)) == odd.shape
    finally:
        page.close_jobs()
        page.deleteLater()
        qtbot.wait(50)


@pytest.mark.parametrize("page", IMAGE_PAGES)
def test_images(session: Session, page: str, tmp_path: Path, qtbot: Any) -> None:
    open_page, role = IMAGE_PAGES[page]
    for kind, odd in IMAGES.items():
        layer = session.viewer.add_image(odd.make(grey()), name=kind, **odd.how)
        session.assign(role, layer)
        session.viewer.dims.point = (0.0,) * session.viewer.dims.ndim
        check(session, odd, open_page, tmp_path, qtbot)
        session.viewer.layers.remove(layer)


@pytest.mark.parametrize("page", LABEL_PAGES)
def test_labels(session: Session, page: str, tmp_path: Path, qtbot: Any) -> None:
    open_page, role = LABEL_PAGES[page]
    for kind, odd in LABELS.items():
        how = {key: value for key, value in odd.how.items() if key != "rgb"}
        session.assign(role, session.viewer.add_labels(odd.make(cells()), name=kind, **how))
        if page == "Evaluate" and not odd.refused:  # it is compared with a segmentation of its kind
            session.assign("prediction", session.viewer.add_labels(odd.make(cells()), name="same", **how))
        check(session, odd, open_page, tmp_path, qtbot)


def test_the_data_page_says_what_is_odd(session: Session) -> None:
    for kind, odd in IMAGES.items():
        layer = session.viewer.add_image(odd.make(255 - grey()), name=kind, **odd.how)
        found = layers.check_data(target=layer)  # what the page lists, with a button for each fix
        about = [finding for finding in found if finding.role == "target" and finding.level == "error"]
        assert [finding.fix_name for finding in about] == ([odd.fix] if odd.refused else []), kind
        if kind == "a pyramid":
            assert any("several resolutions" in finding.text for finding in found)
