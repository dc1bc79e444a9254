"""Three ways to set the length of a training or an adaptation, for those who do not want to set it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

AUTO = "auto"


@dataclass(frozen=True)
class Preset:
    """Values for the forms.

    Attributes
    ----------
    title, help : str
        What a menu shows.
    training : dict
        Fields of ``TrainingConfig``.
    auto : dict
        Fields of ``TrainingConfig`` for each adaptation of ``auto``, in place of ``training``.
    network : {network: options}
        Options of networks that have no other size by default.
    """

    title: str
    help: str
    training: Mapping[str, Any]
    auto: Mapping[str, Any] = field(default_factory=dict)
    network: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def values(self, method: str = "") -> dict[str, Any]:
        """Return the training values for a method."""
        return dict(self.auto) if method == AUTO and self.auto else dict(self.training)


def every(steps: int, interval: int) -> dict[str, int]:
    """Return steps that are validated and saved at an interval."""
    return {"steps": steps, "validate_every": interval, "checkpoint_every": interval}


TRAIN_PRESETS = {
    "quick": Preset(
        "Quick look",
        "Does it learn at all? A small network, a few steps.",
        every(200, 50),
        network={"unet": {"features": 16}},
    ),
    "good": Preset(
        "Good",
        "A small network, trained long enough for most data.",
        every(1200, 150),
        network={"unet": {"features": 16}},
    ),
    "thorough": Preset(
        "Thorough",
        "A network of full size, trained long: for final results.",
        every(4000, 400),
        network={"unet": {"features": 32}},
    ),
}
ADAPT_PRESETS = {
    "quick": Preset("Quick look", "Is there something to gain? A few steps.", every(200, 50), every(60, 30)),
    "good": Preset("Good", "Long enough for most data.", every(1000, 125), every(240, 60)),
    "thorough": Preset("Thorough", "Long, with more candidates to choose from.", every(2500, 250), every(600, 100)),
}


def auto_options(
    minutes: float | None = None, entries: tuple[str, ...] | None = None, criteria: tuple[str, ...] | None = None
) -> dict[str, Any]:
    """Return the options of the method ``auto``.

    Parameters
    ----------
    minutes : float, optional
        Time budget.
    entries : names, optional
        Those of the portfolio to try; all if absent.
    criteria : names, optional
        Label-free scores to choose by; the default ones if absent.

    Raises
    ------
    ConfigError
        If the portfolio has no such entry.
    """
    options: dict[str, Any] = {} if minutes is None else {"minutes": minutes}
    if criteria:
        options["criteria"] = list(criteria)
    if entries:
        from napari_em_da.catalog import unknown
        from napari_em_da.errors import ConfigError
        from napari_em_da.workflows.auto import DEFAULT_PORTFOLIO

        known = {entry.name: entry.model_dump(mode="json", exclude_defaults=True) for entry in DEFAULT_PORTFOLIO}
        for name in entries:
            if name not in known:
                raise ConfigError(unknown("adaptation", name, tuple(known)))
        options["portfolio"] = [known[name] for name in entries]
    return options
