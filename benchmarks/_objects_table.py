"""How long each handling of a table of many objects blocks the window."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QApplication

from napari_em_da._napari.objects_table import ObjectsTable
from napari_em_da.layers.objects import Objects

ROWS = 100_000
SHAPE = (20, 1024, 1024)


def objects(count: int) -> Objects:
    """Return measurements of many objects, in the columns that the Objects tab ticks first."""
    random = np.random.default_rng(0)
    ids = np.arange(1, count + 1)
    table = {"id": ids, "voxels": random.integers(1, 1_000_000, count), "volume_nm3": random.lognormal(10, 2, count)}
    for axis, side in zip("zyx", SHAPE, strict=True):
        table[f"centroid_{axis}_nm"] = random.uniform(0, side - 1, count)
    for name in ("surface_nm2", "sphericity", "elongation", "flatness", "contact_nm2"):
        table[name] = random.lognormal(0, 1, count)
    table["on_border"] = random.random(count) < 0.1
    return Objects(table, "nm", (1.0, 1.0, 1.0))


def table_times(viewer: Any) -> dict[str, dict[str, float]]:
    """Return the milliseconds that each act blocks, and those computed; with all drawing, the longest of three."""
    labels = np.arange(np.prod(SHAPE), dtype=np.int32).reshape(SHAPE) // (np.prod(SHAPE) // ROWS) + 1
    layer = viewer.add_labels(labels, name="objects", visible=False)
    table, measured = ObjectsTable(viewer), objects(ROWS)
    dock = viewer.window.add_dock_widget(table, name="Objects")
    acts: dict[str, Callable[[int], object]] = {
        "fill": lambda _: table.show_objects(measured, layer),
        "sort by volume": lambda n: table.view.sortByColumn(2, Qt.SortOrder(n % 2)),
        "sort by border": lambda n: table.view.sortByColumn(11, Qt.SortOrder(n % 2)),
        "filter": lambda n: table.filter.setText(f"volume > {1e4 * (n + 1):g} and sphericity < 1"),
        "no filter": lambda _: table.filter.clear(),
        "go to a row": lambda n: table.view.selectRow(30_000 * (n + 1)),
        "row of a label": lambda n: setattr(layer, "selected_label", 90_000 - 20_000 * n),
        "scroll": lambda n: table.view.scrollToBottom() if n % 2 else table.view.scrollToTop(),
    }
    found = {}
    for name, act in acts.items():
        times, computed = [], []
        for number in range(3):
            QApplication.processEvents()
            start, spent = time.perf_counter(), time.thread_time()
            act(number)
            QApplication.processEvents()
            times.append(1000 * (time.perf_counter() - start))
            computed.append(1000 * (time.thread_time() - spent))
        found[name] = {"ms": round(max(times), 1), "busy_ms": round(max(computed), 1)}
    viewer.window.remove_dock_widget(dock)
    viewer.layers.remove(layer)
    return found
