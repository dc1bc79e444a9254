"""What all tests share: a clean environment, a display or an honest skip, and the folder of real volumes."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = str(ROOT / "src")
WINDOW_FIXTURES = {"make_napari_viewer", "make_napari_viewer_proxy", "qtbot", "qapp"}
NO_DISPLAY = sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a window where there is no display, instead of letting Qt abort the whole session."""
    if NO_DISPLAY:
        skip = pytest.mark.skip(reason="no display: run under xvfb-run, as `make test` does")
        for item in items:
            if WINDOW_FIXTURES & set(getattr(item, "fixturenames", ())):
                item.add_marker(skip)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep a developer's own extensions and plotting back end out of the tests."""
    monkeypatch.delenv("NAPARI_EM_DA_EXTENSIONS", raising=False)
    monkeypatch.setenv("MPLBACKEND", "Agg")


@pytest.fixture(autouse=True)
def lazy_arrays_are_computed_alone() -> Iterator[None]:
    """Fail a test in which the package computed a dask array other than by ``lazy.computed``, a silent conversion too.

    napari registers a cache among dask's global callbacks, and a job that calls them beside it fails by chance.
    """
    from dask.callbacks import Callback

    found: list[str] = []

    def start(_graph: object) -> None:
        stack = [frame for frame in traceback.extract_stack()[:-1] if "/dask/" not in frame.filename]
        if stack[-1].filename.startswith(PACKAGE):
            found.append("".join(traceback.format_list(stack[-4:])))

    with Callback(start=start):
        yield
    assert not found, f"{len(found)} times, first in\n{found[0]}"


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of the real EM volumes, kept beside the repository and not in it."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"real volumes absent ({folder})")
    return folder


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with two small phantom volumes of the same structure kinds: A.tif, A-labels.tif, B.tif, B-labels.tif."""
    from napari_em_da.synthetic import phantom_pair

    folder = tmp_path_factory.mktemp("tiny")
    for name, part in zip("AB", phantom_pair((6, 160, 160), 3), strict=True):
        part.image.save(folder / f"{name}.tif")
        part.labels.save(folder / f"{name}-labels.tif")
    return folder
