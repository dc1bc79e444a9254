"""What the adaptation benchmark runs: budgets by machine, the baseline's augmentation, and each method's settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from napari_em_da.config import AugmentConfig, MethodConfig

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
    "cpu": Profile(source=900, adapt=240, bound=600, features=32, patch=192, every=60),
    "gpu": Profile(source=6000, adapt=3000, bound=6000, features=32, patch=256, every=300),
    "tiny": Profile(source=6, adapt=4, bound=6, features=4, patch=32, every=2),
}


def _method(name: str, match: float = 0.5, **options: Any) -> tuple[MethodConfig, dict[str, Any]]:
    return MethodConfig(name=name, options=options), {"match_target": match}


def _parts(*names: str) -> dict[str, Any]:
    return {"parts": [{"name": name} for name in names]}


METHODS: dict[str, tuple[MethodConfig, dict[str, Any]]] = {
    "adabn": _method("adabn", 0),
    "histogram": _method("supervised", 1.0),
    "fda": _method("fda", 0),
    "mmd": _method("mmd"),
    "coral": _method("coral"),
    "dann": _method("dann"),
    "ynet": _method("ynet"),
    "two_stream": _method("two_stream"),
    "adversarial": _method("adversarial"),
    "conditional": _method("conditional"),
    "entropy": _method("entropy"),
    "mean_teacher": _method("mean_teacher"),
    "coral_mean_teacher": _method("combined", **_parts("coral", "mean_teacher")),
}
