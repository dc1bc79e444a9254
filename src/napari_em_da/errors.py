"""The package's errors: each message names the problem, the offending number and the remedy."""

from __future__ import annotations


class EmDaError(Exception):
    """Base of every error that this package raises on purpose."""


class ConfigError(EmDaError):
    """An option, or a combination of options, cannot work."""


class DataError(EmDaError):
    """A file, volume or label map cannot be used as it is."""


class ResourceError(EmDaError):
    """The machine lacks memory, disk space or a device that the job needs."""


class JobFailed(EmDaError):
    """A job stopped part-way, for example on a loss that is not finite."""
