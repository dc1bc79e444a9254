"""The menu of adaptations: the catalog of methods, and the portfolio that tries several."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from napari_em_da.config import Config, Positive
from napari_em_da.layers.presets import AUTO
from napari_em_da.methods import METHODS


class Budget(Config):
    """How long ``auto`` may take, and what it may read."""

    minutes: Positive | None = Field(
        None, description="Of auto: no further adaptation starts after this; the one that runs is finished"
    )
    source_free: bool = Field(False, description="Learn from the image to segment alone, even if the source is at hand")


class AutoChoice(Config):
    """What ``auto`` tries, and by what it chooses."""

    entries: tuple[str, ...] | None = Field(
        None, description="Adaptations to try, by name, in their order; all of the portfolio if empty"
    )
    criteria: tuple[str, ...] | None = Field(None, description="Label-free scores to choose by; the default if empty")


class AutoSpec:
    """What stands in the menu of methods for the whole portfolio."""

    options_type = AutoChoice


class Adaptations:
    """The catalog of methods with ``auto`` before them."""

    def names(self) -> tuple[str, ...]:
        """Return the names, ``auto`` first."""
        return (AUTO, *METHODS.names())

    def summary(self, name: str) -> str:
        """Return what a method does, in a sentence or two."""
        if name != AUTO:
            return METHODS.summary(name)
        return (
            "Tries several adaptations in turn, such as new batch-norm statistics, training in the target's look, and "
            "a teacher. Chooses among all their checkpoints and the unadapted network, without labels of the target."
        )

    def __getitem__(self, name: str) -> Any:
        return AutoSpec if name == AUTO else METHODS[name]
