"""Build the wheel, look inside, and import it in an environment that has nothing else of ours.

The environment gets the light dependencies only: torch, Qt and napari must not be needed to import the package,
to open a volume or to list the catalogs.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import venv
import zipfile
from email import message_from_bytes
from pathlib import Path

ROOT = Path(__file__).parents[1]
LIGHT = ("numpy", "pydantic", "dask[array]")
MUST_HOLD = ("napari_em_da/napari.yaml", "napari_em_da/py.typed", "napari_em_da/__init__.py")
PROBE = """
import importlib.metadata as metadata, importlib.resources as resources, sys
import numpy as np
import napari_em_da as em

assert "site-packages" in em.__file__, em.__file__
assert em.__version__ == metadata.version("napari-em-da") != "0+unknown", em.__version__
volume = em.Volume.from_array(np.zeros((3, 4, 5), np.uint8), voxel_nm=(50, 5, 5))
assert volume.shape == (3, 4, 5) and volume.read().sum() == 0
(manifest,) = metadata.entry_points(group="napari.manifest")
package, _, name = manifest.value.partition(":")
assert resources.files(package).joinpath(name).is_file(), manifest.value
(script,) = [s for s in metadata.entry_points(group="console_scripts") if s.name == "napari-em-da"]
assert script.value == "napari_em_da.cli:main", script.value
from napari_em_da.methods import METHODS
from napari_em_da.models import MODELS
assert METHODS.names() and MODELS.names()
heavy = {"torch", "qtpy", "napari", "scipy", "numba"} & set(sys.modules)
assert not heavy, heavy
print("imported", em.__version__, "in", sys.prefix)
"""


def build(folder: Path) -> Path:
    subprocess.run([sys.executable, "-m", "build", "--wheel", "--outdir", str(folder), str(ROOT)], check=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def inspect(wheel: Path) -> None:
    """Fail if a file is missing, or a run-time dependency would drag in a window toolkit."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (metadata,) = (n for n in names if n.endswith(".dist-info/METADATA"))
        required = message_from_bytes(archive.read(metadata)).get_all("Requires-Dist", [])
    source = ROOT / "src"
    files = (
        p for p in (source / "napari_em_da").rglob("*") if p.is_file() and p.suffix not in {".pyc", ".nbi", ".nbc"}
    )
    missing = sorted({*MUST_HOLD, *(p.relative_to(source).as_posix() for p in files)} - names)
    if missing:
        sys.exit(f"{wheel.name} lacks {', '.join(missing)}")
    if not any(n.endswith("licenses/LICENSE") for n in names):
        sys.exit(f"{wheel.name} lacks the licence")
    window = [r for r in required if "extra ==" not in r and r.lower().startswith(("napari", "pyqt", "pyside", "qtpy"))]
    if window:
        sys.exit(f"{wheel.name} depends on a window toolkit: {window}")
    print(f"{wheel.name}: {len(names)} files, {wheel.stat().st_size / 1e6:.2f} MB")


def try_out(wheel: Path, folder: Path) -> None:
    venv.create(folder, with_pip=True)
    python = str(next(p for p in (folder / "bin" / "python", folder / "Scripts" / "python.exe") if p.exists()))
    pip = [python, "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, "-c", str(ROOT / "constraints.txt"), *LIGHT], check=True)
    subprocess.run([*pip, "--no-deps", str(wheel)], check=True)
    subprocess.run([python, "-W", "error", "-I", "-c", PROBE], check=True, cwd=folder)


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        wheel = build(folder)
        inspect(wheel)
        try_out(wheel, folder / "empty")


if __name__ == "__main__":
    main()
