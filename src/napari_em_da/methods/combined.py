"""Several methods at once: the losses of all of them, with one network, one source loss and shared forward passes.

When it helps: its parts mend different things, such as appearance and uncertainty.

When it fails: one of its parts fails: the others do not make up for it.
"""

from __future__ import annotations

from pydantic import Field

from napari_em_da.config import MethodConfig, parse
from napari_em_da.errors import ConfigError
from napari_em_da.methods._base import Method, MethodSpec, Setup
from napari_em_da.methods._parts import Adaptation, AdaptationOptions


class CombinedOptions(AdaptationOptions):
    """Which methods, each with its own options; lambda_sup and statistics are those given here."""

    parts: tuple[MethodConfig, ...] = Field(
        (MethodConfig(name="coral"), MethodConfig(name="mean_teacher")),
        min_length=1,
        description="Methods to combine, each a name and its options",
    )


def build(setup: Setup, options: CombinedOptions) -> Method:
    """Build the parts of every method named.

    Raises
    ------
    ConfigError
        If a method is unknown, stands twice, or is more than losses on a shared network.
    """
    from napari_em_da.methods import METHODS

    names = [item.name for item in options.parts]
    if len(set(names)) < len(names):
        raise ConfigError(f"Combined methods {names} name one twice; give each once.")
    parts = []
    for item in options.parts:
        spec = METHODS[item.name]
        if spec.part is None:
            able = [name for name in METHODS if name != "combined" and METHODS[name].part is not None]
            raise ConfigError(f"The method {item.name!r} cannot be combined; these can: {', '.join(able)}.")
        parts.append(spec.part(setup, parse(spec.options_type, item.options, f"option of {item.name}")))
    return Adaptation(setup, options, parts)


def keeps(options: CombinedOptions) -> float:
    """Return of how many passes a step keeps the activations: the source's, and what each part adds."""
    from napari_em_da.methods import METHODS

    return 1 + sum(METHODS[item.name].kept(item.options) - 1 for item in options.parts)


METHOD = MethodSpec(build, CombinedOptions, streams=("source", "target"), keeps=keeps)
