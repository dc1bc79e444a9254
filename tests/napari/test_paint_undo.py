"""Strokes, fills and operators on one labels layer are undone byte by byte, whatever holds its labels."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

pytest.importorskip("napari")
from napari_em_da._napari.operators import Operators
from napari_em_da.project.strokes import StrokeStore

LONG_MS = 120_000


def objects() -> np.ndarray:
    ids = np.zeros((5, 40, 48), np.uint16)
    ids[1:4, 4:20, 4:20], ids[1:4, 4:20, 20:36] = 12, 15
    return ids


@pytest.fixture
def viewer(make_napari_viewer: Any) -> Any:
    return make_napari_viewer()


@pytest.fixture(params=["numpy", "zarr", "edited"])
def layer(request: pytest.FixtureRequest, viewer: Any, tmp_path: Path) -> Any:
    """Labels in memory, in a zarr array, and in a project's store."""
    before, path = objects(), tmp_path / "ids.zarr"
    data: Any = before.copy()
    if request.param == "zarr":
        data = zarr.create_array(path, shape=before.shape, chunks=(2, 16, 16), dtype=before.dtype)
        data[...] = before
    elif request.param == "edited":
        data = StrokeStore.create(path, before, edits_only=True).load()
    return viewer.add_labels(data, name="ids", scale=(30, 8, 8))


@pytest.fixture
def tool(layer: Any, viewer: Any, qtbot: Any) -> Iterator[Operators]:
    tool = Operators(viewer)
    qtbot.addWidget(tool)
    tool.labels.choose(layer)
    yield tool
    tool.runner.abandon()
    qtbot.waitUntil(lambda: not tool.runner.running, timeout=LONG_MS)


def held(layer: Any) -> bytes:
    return np.asarray(layer.data[...]).tobytes()


def stroke(layer: Any, value: int, *places: tuple[int, int, int]) -> None:
    """Paint a stroke as napari's brush does: one step of undo."""
    layer.mode, layer.selected_label, layer.brush_size = "paint", value, 5
    with layer.block_history():
        for start, end in zip(places, places[1:], strict=False):
            layer._draw(value, start, end)


def operate(tool: Operators, qtbot: Any, operator: str, *picks: tuple[int, tuple[int, int, int]]) -> None:
    for identity, place in picks:
        tool.pick(identity, place)
    tool.buttons[operator].click()
    qtbot.waitUntil(lambda: not tool.runner.running, timeout=LONG_MS)
    assert not tool.message.is_error, tool.message.text()


def test_strokes_and_fills_are_undone_in_turn(layer: Any) -> None:
    states = [held(layer)]
    layer.mode = "paint"
    for act in (
        lambda: stroke(layer, 7, (2, 25, 5), (2, 25, 40), (2, 35, 40)),
        lambda: stroke(layer, 0, (1, 10, 2), (1, 10, 45)),
        lambda: layer.fill((3, 10, 10), 9),
        lambda: layer.paint((0, 30, 30), 12),
    ):
        act()
        states.append(held(layer))
    assert len(set(states)) == 5, "each has changed something"
    found = np.asarray(layer.data[...])
    assert found[2, 25, 20] == found[2, 30, 40] == 7 and found[1, 10, 12] == 0
    assert (found[3] == 9).sum() == 256 and found.dtype == np.uint16
    for state in states[-2::-1]:
        layer.undo()
        assert held(layer) == state
    layer.undo()
    assert held(layer) == states[0], "there is nothing before the first"
    for state in states[1:]:
        layer.redo()
        assert held(layer) == state


def test_strokes_and_operators_keep_each_other(tool: Operators, layer: Any, qtbot: Any) -> None:
    start = held(layer)
    stroke(layer, 15, (2, 30, 5), (2, 30, 30))
    painted = held(layer)
    operate(tool, qtbot, "merge", (12, (2, 8, 8)), (15, (2, 8, 30)))
    merged = np.asarray(layer.data[...])
    assert set(np.unique(merged)) == {0, 12} and (merged[2, 30, 5:30] == 12).all(), "paint is part of the object"
    stroke(layer, 3, (0, 5, 5), (0, 5, 30))  # elsewhere
    tool.undo_button.click()
    after = np.asarray(layer.data[...])
    assert (after[0] == 3).any(), "the later stroke stays"
    layer.undo()
    assert held(layer) == painted
    layer.undo()
    assert held(layer) == start

    operate(tool, qtbot, "delete", (12, (2, 8, 8)))
    deleted = held(layer)
    stroke(layer, 4, (2, 10, 10), (2, 10, 14))  # where something was deleted
    covered = held(layer)
    tool.undo_button.click()
    assert tool.message.is_error and "changed by something else" in tool.message.text()
    assert held(layer) == covered, "nothing is half undone"
    layer.undo()
    assert held(layer) == deleted
    tool.undo_button.click()
    assert held(layer) == start
