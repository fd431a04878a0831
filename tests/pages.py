"""Commands in the documentation, as blocks of code have them."""

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def commands(text):
    """(line, words after wsss) of each command in blocks of code; a line goes on after a backslash."""
    fenced, blocks = False, []
    for line in text.splitlines():
        if line.startswith("```"):
            fenced = not fenced
        elif fenced or line.startswith("    "):
            blocks.append(line.strip())
    for line in "\n".join(blocks).replace("\\\n", " ").splitlines():
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
