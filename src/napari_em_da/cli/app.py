"""The application that the verbs are added to."""

from __future__ import annotations

from cyclopts import App, Parameter

app = App(
    name="napari-em-da",
    help="Segment electron microscopy volumes and adapt to new microscopes.",
    help_format="plaintext",
    default_parameter=Parameter(negative_iterable=""),
)
