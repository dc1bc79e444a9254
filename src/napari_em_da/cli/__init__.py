"""The command line: every verb is a workflow, every option a field of its config."""

from __future__ import annotations

from collections.abc import Sequence

from cyclopts import CycloptsError

from napari_em_da.cli import analysis, correcting, finetuning, learning
from napari_em_da.cli.app import app
from napari_em_da.cli.output import fail
from napari_em_da.config import Config, describe
from napari_em_da.errors import ConfigError, DataError, EmDaError, JobFailed, ResourceError

EXIT_CODES = {ConfigError: 2, DataError: 3, ResourceError: 4, JobFailed: 5}
EXIT_CANCELLED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    0 done, 2 wrong usage or config, 3 data, 4 resources, 5 job failed, 130 cancelled.
    """
    from pydantic import ValidationError

    try:
        app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
    except EmDaError as error:
        return fail(str(error), next(code for kind, code in EXIT_CODES.items() if isinstance(error, kind)))
    except ValidationError as error:
        return fail(describe(error, Config), EXIT_CODES[ConfigError])
    except CycloptsError as error:
        cause = error.__cause__
        text = describe(cause, Config) if isinstance(cause, ValidationError) else str(cause or error)
        return fail(text.strip(), EXIT_CODES[ConfigError])
    except OSError as error:
        return fail(f"{error.strerror or error}: {error.filename or ''}. Check the disk and the permissions.", 4)
    except KeyboardInterrupt:
        return fail(
            "Cancelled. Go on with: napari-em-da train --resume RUN, or the same adapt command with --resume.",
            EXIT_CANCELLED,
        )
    return 0


__all__ = ["analysis", "app", "correcting", "finetuning", "learning", "main"]
