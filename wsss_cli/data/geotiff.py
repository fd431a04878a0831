"""Where a photograph lies on earth: the tags of GeoTIFF, which its mask takes over as they are.

Source: OGC GeoTIFF Standard 19-008r4, 7.1.2 to 7.2.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from wsss_cli.data.images import ORIENTATION
from wsss_cli.data.masks import palette_image

SCALE, TIEPOINT, TRANSFORMATION, KEYS, DOUBLES, TEXTS = 33550, 33922, 34264, 34735, 34736, 34737
ENDINGS = (".tif", ".tiff")


def geo_tags(path: Path) -> ImageFileDirectory_v2 | None:
    """The tags of a georeferenced TIFF; None of any other file, and of one that EXIF turns: its mask is turned."""
    if path.suffix.lower() not in ENDINGS:
        return None
    try:
        with Image.open(path) as image:
            tags: Any = getattr(image, "tag_v2", {})
            if KEYS not in tags or not {TIEPOINT, TRANSFORMATION}.intersection(tags) or tags.get(ORIENTATION, 1) != 1:
                return None
            taken = ImageFileDirectory_v2()
            for tag in (SCALE, TIEPOINT, TRANSFORMATION, KEYS, DOUBLES, TEXTS):
                if tag in tags:
                    taken.tagtype[tag], taken[tag] = tags.tagtype[tag], tags[tag]
            return taken
    except MemoryError:
        raise
    except Exception:  # Pillow raises many types on a damaged file; whoever decodes it names it
        return None


def geo_mask(mask: np.ndarray, colors: Sequence[tuple[int, int, int]], tags: ImageFileDirectory_v2) -> bytes:
    """The bytes of a TIFF with a label map, uint8 [H, W], the classes' colours as palette, and a photograph's tags."""
    buffer = io.BytesIO()
    palette_image(mask, colors).save(buffer, "TIFF", tiffinfo=tags, compression="tiff_deflate")
    return buffer.getvalue()
