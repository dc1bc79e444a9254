"""What the user has set on each page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from napari_em_da.project.values import from_json, to_json

if TYPE_CHECKING:
    from napari_em_da.project.project import Project


class Pages:
    """The values of a project's pages; every ``set`` is on the disk when it returns.

    Parameters
    ----------
    project : Project
    """

    def __init__(self, project: Project) -> None:
        self._project = project

    def names(self) -> list[str]:
        """Names of the pages that hold values."""
        return list(self._project.read("pages"))

    def get(self, page: str) -> dict[str, Any]:
        """Return a copy of a page's values (tuples as lists, paths absolute); empty if nothing was set."""
        values: dict[str, Any] = from_json(self._project.read("pages").get(page, {}), self._project.folder)
        return values

    def set(self, page: str, values: Mapping[str, Any]) -> None:
        """Replace a page's values.

        Raises
        ------
        ConfigError
            If a value is no JSON and no path, or another program holds the project.
        ResourceError
            If the disk is full; the values are kept in memory, and ``Project.save`` or the next change tries again.
        """
        encoded = to_json(dict(values), self._project.folder, page)
        self._project.change("pages", lambda pages: {**pages, page: encoded})
