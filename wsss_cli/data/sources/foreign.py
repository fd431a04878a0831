"""What labels of tools that are not read look like, for messages: labelme, YOLO, VIA, and pictures that are no PNGs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from itertools import islice
from pathlib import Path
from typing import Any

from wsss_cli.data.sources.table import show_some, smallest
from wsss_cli.errors import DataError
from wsss_cli.files import names_below, read_json
from wsss_cli.talk import counted

CONVERT = "convert all of them to one COCO JSON of instances: wsss prepare labels and wsss import-scores read that"
LARGEST = 50_000_000  # bytes of a JSON that is looked into
LOOKED_AT = 10_000  # names of a folder
AS_PNG = "save them as 8-bit grey or palette PNGs whose pixels are class indices"
PICTURES = {
    **dict.fromkeys((".jpg", ".jpeg"), f"JPEG changes the numbers of pixels: make the masks anew, and {AS_PNG}"),
    **dict.fromkeys((".tif", ".tiff", ".bmp", ".gif", ".webp", ".npy", ".npz", ".mat"), AS_PNG),
}


def in_place_of_pngs(folder: Path) -> tuple[str, str]:
    """What a folder without a PNG holds, to follow 'there is no .png in FOLDER', and what to do with it.

    Returns:
        (", but 3 .json: 001.json ... (labelme's JSON)", a hint); both empty where that cannot be told.
    """
    names = sorted(name for name in islice(names_below(folder), LOOKED_AT) if not name.split("/")[-1].startswith("."))
    endings = Counter(Path(name).suffix.lower() for name in names)
    known = [ending for ending, _ in endings.most_common() if ending in (".json", ".txt", ".xml", *PICTURES)]
    if not known:
        return (f", but {show_some(names)}" if names else ""), ""
    files = [name for name in names if Path(name).suffix.lower() == known[0]]
    tool, hint = "", PICTURES.get(known[0], "")
    if known[0] == ".json":
        tool, hint = _json_of(folder / files[0])
    elif known[0] == ".xml":
        hint = "wsss prepare labels reads ScribbleSup's XML, and CVAT's: name its file"
    elif known[0] == ".txt" and any(is_yolo(folder / name) for name in files[:20]):
        tool, hint = "YOLO's", CONVERT
    return f", but {len(files):,} {known[0]}: {show_some(files)}{f' ({tool})' if tool else ''}", hint


def beside_pngs(names: Iterable[str], what: str, endings: Collection[str]) -> list[str]:
    """A line on the files of some endings among others that are taken for label maps; none where there are none.

    Args:
        what: they are not taken for, in words.
    """
    others = smallest(name for name in names if Path(name).suffix in endings or Path(name).suffix.lower() in endings)
    shown = show_some([Path(name).name for name in others.first])
    said = f"{counted(others.count, 'file')} not taken for {what}, whose names end in .png: {shown}"
    return [said] if others.count else []


def tool_of(table: Any) -> str:
    """Whose JSON of a form that is not read an object is; empty where that cannot be told."""
    if not isinstance(table, dict):
        return ""
    if "shapes" in table and "imagePath" in table:
        return "labelme's JSON"
    if "objects" in table and "imgHeight" in table:
        return "Cityscapes' JSON"
    if "objects" in table and isinstance(table.get("size"), dict):
        return "Supervisely's JSON"
    if table.get("type") in ("FeatureCollection", "Feature"):
        return "GeoJSON"
    if "_via_img_metadata" in table or any(isinstance(one, dict) and "regions" in one for one in table.values()):
        return "VIA's JSON"
    return ""


def tool_of_file(path: Path) -> str:
    """As `tool_of`, of a file; empty of one that cannot be read or is large."""
    try:
        return tool_of(read_json(path)) if path.stat().st_size <= LARGEST else ""
    except (DataError, OSError):
        return ""


def _json_of(path: Path) -> tuple[str, str]:
    if tool := tool_of_file(path):
        return tool, CONVERT
    return "", "wsss prepare labels and wsss import-scores read one JSON of instances (COCO): name the file"


def is_yolo(path: Path) -> bool:
    """Whether the first line of a text is a whole number and four numbers or more."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            first = file.readline(10_000).split()
        return len(first) >= 5 and first[0].isdecimal() and all(0 <= float(number) <= 1 for number in first[1:])
    except (ValueError, OSError):
        return False
