"""Where a person should look next: windows in which a prediction is uncertain or unlikely, and which differ.

A window is scored by what is uncertain in it beyond its boundaries, by what appears in one section only, and by objects
that look like none of the source; then windows are chosen one by one, each of a high score and unlike those before.
"""

from __future__ import annotations

from napari_em_da.suggestions._choice import Box, Suggestion
from napari_em_da.suggestions._suggest import SuggestWeights, suggest

__all__ = ["Box", "SuggestWeights", "Suggestion", "suggest"]
