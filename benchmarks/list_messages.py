"""Every message that a user can meet, from the source: errors with their hints, lines of talk, results. To be read.

`python benchmarks/list_messages.py [errors|talk] [WORD]` prints them with file and line, those that hold WORD alone.
"""

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ERRORS = {"UsageError", "DataError", "WriteError", "WeightsError", "ResourceError", "GateError", "DivergedError"}
ERRORS |= {"BusyError", "Preempted", "Interrupted", "PeerError", "WsssError", "BadParameter", "ValueError"}
TALK = {"say", "complain", "say_at_once", "result", "log", "tell"}


def main():
    words = sys.argv[1:]
    which = words.pop(0) if words and words[0] in ("errors", "talk") else ""
    for file in sorted((ROOT / "wsss_cli").rglob("*.py")):
        for line, kind, texts in messages(ast.parse(file.read_text(encoding="utf-8"))):
            if which and (kind in ERRORS) != (which == "errors"):
                continue
            shown = "\n    -> ".join(text for text in texts if text)
            if shown and (not words or words[0].lower() in shown.lower()):
                print(f"{file.relative_to(ROOT / 'wsss_cli')}:{line} {kind}\n    {shown}")


def messages(tree):
    """(line, kind, texts) of each call of a source that says something, in order; of an error, message and hint."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    for call in sorted(calls, key=lambda node: node.lineno):
        name = ast.unparse(call.func).rpartition(".")[2]
        if name in ERRORS | TALK:
            given = [*call.args[:2], *(word.value for word in call.keywords if word.arg in ("message", "hint"))]
            yield call.lineno, name, [text(node) for node in (given if name in ERRORS else given[:1])]


def text(node):
    """A text of the source with {} where something is filled in; empty for what is computed elsewhere."""
    match node:
        case ast.Constant(value=str(value)):
            return value
        case ast.Name(id=name) if name.isupper():
            return f"{{{name}}}"
        case ast.JoinedStr(values=values):
            return "".join(text(part) for part in values)
        case ast.FormattedValue(value=value):
            return f"{{{ast.unparse(value)}}}"
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return text(left) + text(right)
        case ast.IfExp(body=body, orelse=other):
            return f"{text(body)} | {text(other)}"
    return ""


if __name__ == "__main__":
    main()
