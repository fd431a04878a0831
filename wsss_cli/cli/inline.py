"""Pictures within a terminal, by the protocols of kitty and of iTerm2."""

from __future__ import annotations

import base64
from collections.abc import Mapping

CHUNK = 4096  # of the text of a picture, that kitty takes at a time
KITTY = ("xterm-kitty", "xterm-ghostty")
ITERM = ("iTerm.app", "WezTerm", "mintty")


def inlined(png: bytes, environment: Mapping[str, str]) -> str:
    """The control codes that show a PNG; '' for a terminal that does not say it can.

    Within tmux and screen, which do not hand them on, there are none.

    Source: the terminal graphics protocol of kitty (sw.kovidgoyal.net/kitty/graphics-protocol), format 100, sent
        directly; the inline images protocol of iTerm2 (iterm2.com/documentation-images.html).
    """
    if environment.get("TMUX") or environment.get("TERM", "").startswith(("screen", "tmux")):
        return ""
    text = base64.b64encode(png).decode()
    if environment.get("TERM") in KITTY or environment.get("KITTY_WINDOW_ID"):
        chunks = [text[start : start + CHUNK] for start in range(0, len(text), CHUNK)]
        head = "a=T,f=100,"
        return "".join(
            f"\x1b_G{head if number == 0 else ''}m={int(number + 1 < len(chunks))};{chunk}\x1b\\"
            for number, chunk in enumerate(chunks)
        )
    if environment.get("TERM_PROGRAM") in ITERM:
        return f"\x1b]1337;File=inline=1;width=100%;size={len(png)}:{text}\x07"
    return ""
