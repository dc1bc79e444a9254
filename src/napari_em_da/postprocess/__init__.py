"""Post-processing: each step is one file with a constant ``STEP``, and a chain is steps in their order."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from dataclasses import replace

from napari_em_da.catalog import Catalog
from napari_em_da.config import ChainConfig, Options, parse
from napari_em_da.errors import ConfigError
from napari_em_da.events import Progress
from napari_em_da.postprocess._base import Holds, Stack, Step, check_stack

STEPS: Catalog[Step] = Catalog("napari_em_da.postprocess", "STEP")  # type: ignore[type-arg]


def resolve(chain: ChainConfig, holds: Holds) -> list[tuple[str, Step, Options]]:  # type: ignore[type-arg]
    """Return the steps with their parsed options, before any work.

    Raises
    ------
    ConfigError
        If a step or an option is unknown, a value is out of bounds, or a step cannot work on what it would be given.
    """
    found = []
    for number, item in enumerate(chain.steps, start=1):
        step = STEPS[item.name]
        options = parse(step.options, item.options, f"option of {item.name}")
        if holds not in step.takes:
            raise ConfigError(
                f"Step {number}, {item.name}, takes {' or '.join(step.takes)}, but would be given {holds}; "
                f"put a step before it that makes {' or '.join(step.takes)}."
            )
        found.append((item.name, step, options))
        holds = step.gives or holds
    return found


def work_through(chain: ChainConfig, stack: Stack) -> Generator[Progress, None, Stack]:
    """Run a chain, yield Progress while a step works through blocks, and return the last stack.

    Raises
    ------
    ConfigError, DataError
        Before any work, if the chain does not fit together or the stack is not what it says.
    """
    check_stack(stack)
    steps = resolve(chain, stack.holds)
    folder = stack.work
    for number, (name, step, options) in enumerate(steps):
        yield Progress(number, len(steps), "steps", name)
        own = None if folder is None else folder / f"{number}-{name}"
        result = step.apply(replace(stack, work=own), options)
        if isinstance(result, Generator):
            with closing(result):
                stack = yield from result
        else:
            stack = result
    yield Progress(len(steps), len(steps), "steps", "post-processing")
    return stack


def apply_chain(chain: ChainConfig, stack: Stack) -> Stack:
    """Run a chain and return the last stack; numpy in, numpy out, dask in, lazy dask out."""
    work = work_through(chain, stack)
    while True:
        try:
            next(work)
        except StopIteration as end:
            result: Stack = end.value
            return result


__all__ = ["STEPS", "Holds", "Stack", "Step", "apply_chain", "check_stack", "resolve", "work_through"]
