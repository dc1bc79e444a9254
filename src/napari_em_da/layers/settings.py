"""What the user has set for this plugin in napari's preferences, with defaults where napari cannot tell."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PLUGIN = "napari-em-da"
GROUP = "em_da"


@dataclass(frozen=True)
class Settings:
    """Preferences.

    Attributes
    ----------
    device : str
        As in the configs: "auto", "cpu", "cuda", "cuda:N" or "mps".
    threads : int
        Most threads that computing uses; 0 leaves it to the machine.
    project_folder : Path or None
        Where the dialog for projects starts.
    cache_mb : int
        Memory for decoded sections of compressed files.
    """

    device: str = "auto"
    threads: int = 0
    project_folder: Path | None = None
    cache_mb: int = 256


def read_settings() -> Settings:
    """Return the preferences; the defaults where napari is older than 0.9 or does not know the plugin."""
    try:
        from napari.settings import get_plugin_settings

        found: Any = getattr(get_plugin_settings(PLUGIN), GROUP)
    except (ImportError, KeyError, ValueError, AttributeError):
        return Settings()
    folder = str(found.project_folder).strip()
    return Settings(
        device=str(found.device).strip() or "auto",
        threads=int(found.threads),
        project_folder=Path(folder).expanduser() if folder else None,
        cache_mb=int(found.cache_mb),
    )


def apply_settings(settings: Settings) -> None:
    """Give sections their memory, and computing its threads: best before torch is loaded, which this does not do."""
    from napari_em_da.io import _sections

    _sections.CACHE.limit_bytes = settings.cache_mb << 20
    if settings.threads:
        torch = sys.modules.get("torch")
        if torch is not None:
            torch.set_num_threads(settings.threads)
        else:
            os.environ["OMP_NUM_THREADS"] = str(settings.threads)
