"""Which way up annotations were made: on the pixels of a photograph as stored, or as EXIF says it is shown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from wsss_cli.errors import DataError
from wsss_cli.talk import counted, sides

Orientation = Literal["auto", "stored", "shown"]
Size = tuple[int, int]


@dataclass(frozen=True)
class Turns:
    """How masks painted from annotations come upright.

    Attributes:
        made_on: stored or shown; empty where no photograph is turned, so that it does not matter.
        each: EXIF orientation by which the mask of each image is to be turned; 1: not at all.
        note: one line for the protocol; empty as `made_on` is.
    """

    made_on: Literal["", "stored", "shown"]
    each: tuple[int, ...]
    note: str


def decide_orientation(
    images: Sequence[tuple[Path, Size, Path]], stored_sizes: Iterable[tuple[Size, int]], asked: Orientation
) -> Turns:
    """Compare the sizes in a list of annotations with those of the photographs, and decide once for all of them.

    Where a photograph is turned by 90 degrees, the listed size tells on which pixels the annotations were made. Where
    none of those that are turned tells it (180 degrees, mirrored, square), they are taken as made on stored pixels, as
    tools that know no EXIF make them, and the note says so.

    Args:
        images: file, height and width as listed, and the list, of each image.
        stored_sizes: height and width as stored, and EXIF orientation, of each (`images.stored_size`).
        asked: stored or shown decides in place of the sizes.
    Raises:
        DataError: a listed size fits neither way, or not the way asked, or some fit one way and some the other.
    """
    sizes = list(stored_sizes)
    first: dict[str, Path] = {}
    for (path, listed, listing), (stored, orientation) in zip(images, sizes, strict=True):
        shown = (stored[1], stored[0]) if orientation >= 5 else stored
        fits = {"stored": listed == stored, "shown": listed == shown}
        if not any(fits.values()) or (asked != "auto" and not fits[asked]):
            as_shown = f" ({sides(shown)} as shown)" if shown != stored else ""
            raise DataError(
                f"{path} is {sides(stored)} pixels{as_shown}, in {listing.name} it is {sides(listed)}",
                "leave --orientation out"
                if any(fits.values())
                else "put the original image there: unpack its archive anew",
            )
        if stored != shown:
            first.setdefault("stored" if fits["stored"] else "shown", path)
    if asked == "auto" and len(first) == 2:
        raise DataError(
            f"the size of {first['stored']} is listed as stored and that of {first['shown']} as shown (EXIF)",
            "make all sizes of one kind: the annotations of half of these images would lie wrong",
        )
    turned = sum(orientation != 1 for _, orientation in sizes)
    if not turned:
        return Turns("", (1,) * len(sizes), "")
    made_on: Literal["stored", "shown"] = (
        "shown" if asked == "shown" or (asked == "auto" and "shown" in first) else "stored"
    )
    each = tuple(orientation if made_on == "stored" else 1 for _, orientation in sizes)
    how = "as asked" if asked != "auto" else "by their sizes" if first else "sizes do not tell; --orientation shown"
    note = f"{counted(turned, 'photograph')} turned by EXIF; annotations taken as made on pixels as {made_on} ({how})"
    return Turns(made_on, each, note)
