from __future__ import annotations

import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from napari_em_da.info import collect, installed, text


def test_versions_are_those_of_the_metadata() -> None:
    found = collect()["versions"]
    assert found["numpy"] == metadata.version("numpy")
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert installed("a-distribution-that-nobody-made") is None


def test_device_and_reason_are_told() -> None:
    machine = collect()["machine"]
    assert machine["device"].split(":")[0] in {"cpu", "cuda", "mps"}
    assert machine["why"].endswith(".")
    assert machine["cores"] >= 1
    assert machine["memory_gib"] > 0


def test_catalogs_hold_the_defaults_of_the_configs() -> None:
    catalogs = collect()["catalogs"]
    assert "unet" in catalogs["networks"]
    assert {"supervised", "adversarial"} <= set(catalogs["methods"])
    assert {"entropy", "distance"} <= set(catalogs["weight maps"])
    assert "tiff" in catalogs["readers"]


def test_extensions_are_listed_and_counted_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "io").mkdir()
    (tmp_path / "io" / "punched_cards.py").write_text('"""Not much data, but it lasts."""\n')
    code = "import json; from napari_em_da.info import collect; print(json.dumps(collect()))"
    monkeypatch.setenv("NAPARI_EM_DA_EXTENSIONS", str(tmp_path))
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found = json.loads(out.stdout)
    assert found["extensions"] == [str(tmp_path)]
    assert "punched_cards" in found["catalogs"]["readers"]


def test_text_says_all_of_it() -> None:
    found = collect()
    found["versions"]["napari"] = None
    found["extensions"] = []
    lines = text(found).splitlines()
    assert any(line.split() == ["numpy", metadata.version("numpy")] for line in lines)
    assert any(line.split() == ["napari", "not", "installed"] for line in lines)
    assert any(line.endswith(found["machine"]["why"]) for line in lines)
    assert any(", ".join(found["catalogs"]["methods"]) in line for line in lines)
    assert lines[-1] == "extensions  none"


def test_collecting_loads_no_window() -> None:
    code = (
        "from napari_em_da.info import collect; collect()\n"
        "import sys; print(*{'napari', 'qtpy', 'PyQt6'} & set(sys.modules))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not out.stdout.split()
