"""Blocks of code in the documentation, and the commands in them."""

import re
import shlex
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


class Block(NamedTuple):
    """A block of code.

    Attributes:
        line: of the page, where it begins.
        language: what stands behind the fence; empty: an indented one, which is lines for a shell.
    """

    line: int
    language: str
    text: str


def blocks(text):
    """Every block of a page: between fences, or indented by four blanks after an empty line."""
    lines, at, every = text.splitlines(), 0, []
    while at < len(lines):
        begin = at
        if lines[at].startswith("```"):
            at = lines.index("```", at + 1)
            every.append(Block(begin + 1, lines[begin][3:].strip(), "\n".join(lines[begin + 1 : at])))
        elif lines[at].startswith("    ") and not lines[at - 1].strip():
            while at + 1 < len(lines) and (lines[at + 1].startswith("    ") or lines[at + 1 : at + 2] == [""]):
                at += 1
            every.append(Block(begin + 1, "", "\n".join(line[4:] for line in lines[begin : at + 1]).rstrip()))
        at += 1
    return every


def lines_of(text):
    """Lines of a block for a shell; one goes on after a backslash."""
    return [line.strip() for line in re.sub(r"\\\n\s*", "", text).splitlines() if line.strip()]


def commands(text):
    """(line, words after wsss) of each command in the blocks of a page."""
    for line in (line for block in blocks(text) if not block.language for line in lines_of(block.text)):
        for part in re.split(r"\s*(?:&&|;|\|(?=\s*wsss))\s*", line):
            words = words_of(part)
            while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
                words = words[1:]
            if words[:1] == ["srun"] and "wsss" in words:
                words = words[words.index("wsss") :]
            if words[:1] == ["wsss"] and words[1:2] != ["$1"]:
                yield part.strip(), words[1:]


def words_of(line):
    lexer = shlex.shlex(line, posix=True, punctuation_chars="<>&|")
    lexer.whitespace_split, lexer.commenters = True, "#"
    try:
        words = list(lexer)
    except ValueError:  # a sentence with an apostrophe
        return []
    ends = [number for number, word in enumerate(words) if re.fullmatch(r"[<>&|]+", word)]
    return words[: ends[0]] if ends else words
