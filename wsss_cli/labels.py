"""Values of a label map that are no class of a data set's own."""

from __future__ import annotations

IGNORE = 255
"""Not labelled: pixels that no loss and no score counts."""
