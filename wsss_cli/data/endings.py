"""Files that are passed over among photographs, by their endings, or by their content where they have none."""

from __future__ import annotations

from collections.abc import Container
from pathlib import Path

from wsss_cli.data.images import PNG
from wsss_cli.data.jpeg import START
from wsss_cli.files import is_hidden

NO_ENDING = "without an ending"
BEGINNINGS = (START + b"\xff", PNG, b"II*\0", b"MM\0*")  # JPEG, PNG, TIFF


def passed_over(file: Path, endings: Container[str]) -> str:
    """What a file that is not read is counted as: its ending, `NO_ENDING` of a photograph that has none, else ''.

    Args:
        file: its content is looked at where its name has no ending.
        endings: in small letters, of those that are counted.
    """
    ending = file.suffix.lower()
    if ending:
        return ending if ending in endings else ""
    return NO_ENDING if not is_hidden(file.name) and _begins_as_photograph(file) else ""


def _begins_as_photograph(file: Path) -> bool:
    try:
        if not file.is_file():
            return False
        with file.open("rb") as opened:
            head = opened.read(12)
    except OSError:
        return False
    bitmap = head.startswith(b"BM") and head[6:10] == bytes(4)
    return head.startswith(BEGINNINGS) or bitmap or (head[:4] == b"RIFF" and head[8:] == b"WEBP")
