"""What the adaptation benchmark runs: budgets by machine, the baseline's augmentation, and each method's settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from napari_em_da.config import AugmentConfig, MethodConfig
from napari_em_da.workflows.auto import DEFAULT_PORTFOLIO, MATCHED, TEACHER, Entry

SOURCE_AUGMENT = AugmentConfig(
    scale=(0.75, 1.35), rotate_deg=180, elastic=0.2, photometric=0.6, contrast=(0.6, 1.5), gamma=(0.6, 1.7), blur_px=1.5
)


@dataclass(frozen=True)
class Profile:
    """Budgets of one class of machines, in steps."""

    source: int
    adapt: int
    bound: int
    features: int
    patch: int
    every: int


PROFILES = {
    "cpu": Profile(source=1200, adapt=240, bound=900, features=16, patch=192, every=60),
    "gpu": Profile(source=6000, adapt=3000, bound=6000, features=32, patch=256, every=300),
    "tiny": Profile(source=6, adapt=4, bound=6, features=4, patch=32, every=2),
}


def _entry(name: str, method: str = "", match: float = 0.5, **options: Any) -> Entry:
    return Entry(name=name, method=MethodConfig(name=method or name, options=options), augment={"match_target": match})


_ENTRIES = (
    *DEFAULT_PORTFOLIO,
    Entry(name="matched", method=MethodConfig(name="supervised"), augment=MATCHED),
    Entry(name="teacher", method=MethodConfig(name="mean_teacher", options=TEACHER), augment=MATCHED, start="adabn"),
    _entry("mean_teacher"),
    _entry("histogram", "supervised", 1.0),
    _entry("fda", match=0),
    _entry("mmd"),
    _entry("coral"),
    _entry("dann"),
    _entry("ynet"),
    _entry("two_stream"),
    _entry("adversarial"),
    _entry("conditional"),
    _entry("entropy"),
    _entry("pseudo_labels"),
    _entry(
        "coral_mean_teacher",
        "combined",
        parts=[{"name": "coral"}, {"name": "mean_teacher", "options": {"windows": 0.75}}],
    ),
)
METHODS = {entry.name: entry for entry in _ENTRIES}
