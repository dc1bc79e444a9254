"""Whether napari can draw at all."""

from __future__ import annotations

from functools import cache

from qtpy.QtGui import QOpenGLContext

REMEDY = (
    "There is no OpenGL here, so napari cannot draw images. Install or update the graphics driver; on a remote or "
    "virtual Linux machine, start napari with LIBGL_ALWAYS_SOFTWARE=1. All jobs work without it, and Copy as command "
    "runs them without a window."
)


@cache
def opengl_found() -> bool:
    """Return whether there is a context, or one can be made; asked once, as that takes a moment."""
    return QOpenGLContext.globalShareContext() is not None or bool(QOpenGLContext().create())
