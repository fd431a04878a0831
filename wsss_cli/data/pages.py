"""Photographs of several pages or frames, of which the first is taken."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from pathlib import Path

from PIL import Image

from wsss_cli.data.sources.table import show_some, smallest
from wsss_cli.data.tiff import SUBFILE
from wsss_cli.talk import counted

PAGED = (".tif", ".tiff", ".webp", ".gif", ".png", ".avif")  # of other endings none is looked into
LOOKED_AT = 1000  # files
NO_PAGE = 1 | 4  # bits of a page's kind, of a smaller copy of a page, and of a mask of one


def has_more_pages(path: str | Path) -> bool:
    """Whether a TIFF, WebP, GIF, PNG or AVIF has a page or frame behind its first one; of what is damaged: no.

    The ending says whether it is looked at, the bytes say what it is. What lies behind the first picture of a JPEG (an
    MPO's thumbnail, depth, other eye) is no page, nor is a smaller copy of one in a TIFF (overview, thumbnail), or a
    mask of it.

    Source: TIFF 6.0, section 8, NewSubfileType.
    """
    if not str(path).lower().endswith(PAGED):
        return False
    try:
        with Image.open(path) as image:
            if image.format != "TIFF":
                return image.format != "MPO" and int(getattr(image, "n_frames", 1)) > 1
            while True:
                image.seek(image.tell() + 1)  # EOFError: there is none
                if not image.tag_v2.get(SUBFILE, 0) & NO_PAGE:  # type: ignore[attr-defined]
                    return True
    except MemoryError:
        raise
    except Exception:  # Pillow raises many types on a damaged file; whoever decodes it names it
        return False


def pages_lines(paths: Iterable[str]) -> list[str]:
    """A line that names those of some photographs of which pages or frames are left out; none where there are none.

    The first `LOOKED_AT` of these kinds are looked at: of a WebP all bytes are read.
    """
    paged = list(islice((path for path in paths if path.lower().endswith(PAGED)), LOOKED_AT))
    several = smallest(path for path in paged if has_more_pages(path))
    if not several.count:
        return []
    shown = show_some([Path(path).name for path in several.first])
    of = f" (of the first {LOOKED_AT:,} that may have them)" if len(paged) == LOOKED_AT else ""
    what = f"{counted(several.count, 'photograph')} of several pages or frames"
    return [f"{what}{of}, of which the first is taken: {shown}"]
