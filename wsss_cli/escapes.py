"""Text from outside (names of files, classes, presets) where it is shown: nothing in it may move a cursor or be run."""

from __future__ import annotations

import re

# Control characters but tab and line feed, signs that turn the direction of text, separators of lines, half characters
UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
FORMULA = ("=", "+", "-", "@", "\t", "\n", "＝", "＋", "－", "＠")


def visible(text: str) -> str:
    r"""The text with what a terminal would obey, or not show, as an escape: ESC becomes \u001b. Valid JSON stays so."""
    return UNSEEN.sub(lambda sign: f"\\u{ord(sign[0]):04x}", text)


def one_line(text: str) -> str:
    r"""As `visible`, and line feeds too: a name with one says no line of its own."""
    return visible(text).replace("\n", "\\n")


def csv_cell(text: str) -> str:
    """A cell with nothing unseen, that no spreadsheet takes for a formula: such a one begins with an apostrophe."""
    text = visible(text)
    return f"'{text}" if text.startswith(FORMULA) and not _is_plain(text) else text


def _is_plain(text: str) -> bool:
    """Whether it is a number, or the '-' of a table."""
    try:
        float(text.replace(",", ""))
    except ValueError:
        return text == "-"
    return True
