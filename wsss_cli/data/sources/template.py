"""A table of photographs to fill in with tags, or filled in by the folders that they lie in."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from wsss_cli.data.endings import passed_over
from wsss_cli.data.heif import how_to_read
from wsss_cli.data.images import IMAGE_ENDINGS, OTHER_ENDINGS, why_unread
from wsss_cli.data.sources.tags import FORBIDDEN
from wsss_cli.errors import DataError, UsageError
from wsss_cli.files import names_below, write_bytes

SPLITS = {"train", "training", "val", "valid", "validation", "test", "testing"}


@dataclass(frozen=True)
class Template:
    """What was written.

    Attributes:
        images: photographs in the table.
        classes: photographs of each class; empty where tags are to be filled in.
        untagged: photographs without a tag.
        unread: photographs that are not in it, by endings, which are not read.
        odd: names of photographs that are not in it, as they are no files: pipes, links to nothing.
    """

    images: int
    classes: dict[str, int]
    untagged: int
    unread: dict[str, int]
    odd: tuple[str, ...]


def write_template(photographs: Path, table: Path, *, from_folders: bool, check: Callable[[], None]) -> Template:
    """Write image,labels with a line for each photograph of a folder and those below it.

    Args:
        from_folders: the tag of cat/1.jpg and cat/trip/2.jpg is cat; a photograph in no folder has none.
        check: called now and then; may end the work.
    Raises:
        UsageError: the table is there already, and says something else.
        DataError: no photographs, a folder's name that cannot be a class, or folders that are splits.
    """
    if not photographs.is_dir():
        raise UsageError(f"{photographs} is no folder", "give the folder of the photographs")
    names: list[str] = []
    odd: list[str] = []
    unread = Counter[str]()
    for name in names_below(photographs):
        check()
        ending = Path(name).suffix.lower()
        if name.startswith(".") or "/." in name:
            continue
        if ending in IMAGE_ENDINGS:
            (names if (photographs / name).is_file() else odd).append(name)
        elif counted_as := passed_over(photographs / name, OTHER_ENDINGS):
            unread[counted_as] += 1
    if not names:
        how = how_to_read(unread) or f"they end in {', '.join(IMAGE_ENDINGS)}"
        how = f"{photographs / odd[0]} {why_unread(photographs / odd[0])}" if odd else how
        raise DataError(f"{photographs} holds no photographs that are read", how)
    above = {name.partition("/")[0] for name in names if "/" in name} if from_folders else set[str]()
    if above and {name.casefold() for name in above} <= SPLITS:
        raise DataError(
            f"the folders of {photographs} are splits, not classes: {', '.join(sorted(above))}",
            f"give one of them, whose folders are the classes: {photographs / min(above)}",
        )
    text, classes = io.StringIO(), Counter[str]()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["image", "labels"])
    for name in sorted(names):
        tag = name.partition("/")[0] if from_folders and "/" in name else ""
        if FORBIDDEN.search(tag) or {",", ";"} & set(tag) or tag.strip() != tag or tag.casefold() == "background":
            raise DataError(f"the folder {photographs / tag} cannot be a class", "give it another name")
        writer.writerow([name, tag])
        classes[tag] += 1
    content = text.getvalue().encode()
    if table.exists() and (not table.is_file() or table.read_bytes() != content):
        raise UsageError(f"{table} is there already and says something else", "give another --out, or remove it")
    write_bytes(table, content)
    untagged = classes.pop("", 0)
    return Template(len(names), dict(classes), untagged, dict(sorted(unread.items())), tuple(sorted(odd)))
