"""What napari's themes leave unseen."""

from __future__ import annotations

# in lists and tables of the dark theme, an empty box is as dark as what is behind it
TICKS = "QAbstractItemView::indicator:unchecked { border: 1px solid #808080; border-radius: 2px; }"
