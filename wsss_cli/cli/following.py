"""Command lines that are suggested, to be copied as they are: with the options that the user gave, and quoted."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from wsss_cli.errors import UsageError

ABOUT_THIS_CALL = ("--dry-run", "--json", "--shard", "--until")
"""Options that say how a command is run this once; the next one does not get them."""

OF_OTHER_PHOTOGRAPHS = {"infer": ("--limit",)}
"""Options that mean something else there: a trial on the first of a split says nothing of one's own photographs."""

_now: list[Any] = []  # the context of the command that runs


@contextlib.contextmanager
def remembered(ctx: Any) -> Iterator[None]:
    """Keep the context of the command that runs, while it does."""
    _now[:] = [ctx]
    try:
        yield
    finally:
        _now.clear()


def refuse_useless(names: Collection[str], why: str, hint: str = "leave it out") -> None:
    """Refuse options of the command that runs which would be passed over; one with its default value is none.

    Args:
        names: options that say nothing of what is asked for.
        why: that stands behind those that were given.
    Raises:
        UsageError: there is one.
    """
    if not _now:
        return
    ctx = _now[0]
    options = {option.opts[0]: option for option in ctx.command.params if option.opts[0] in names}
    named = [name for name, _ in _given(ctx) if name in options]
    if useless := [name for name in named if ctx.params[options[name].name] != options[name].get_default(ctx)]:
        raise UsageError(f"{', '.join(useless)}: {why}", hint)


def line(*words: object) -> str:
    """`wsss WORDS`, as a shell takes it; a path that begins with a hyphen is no option."""
    return shlex.join(["wsss", *(f"./{word}" if _like_an_option(word) else str(word) for word in words)])


def _like_an_option(word: object) -> bool:
    return isinstance(word, Path) and str(word).startswith("-")


def following(
    command: str, *words: object, leave_out: Sequence[str] = (), settings: Mapping[str, str] | None = None
) -> str:
    """A command line with the options of the one that runs, as far as they were given and the command has them.

    Args:
        words: what follows the command's name.
        leave_out: options that `words` stand for.
        settings: TOML values by dotted key, of options that the command has not.
    """
    more: list[str] = []
    if _now:
        there = {name for option in _now[0].find_root().command.commands[command].params for name in option.opts}
        for name, spelled in _given(_now[0]):
            if name in there and name not in (*ABOUT_THIS_CALL, *OF_OTHER_PHOTOGRAPHS.get(command, ()), *leave_out):
                more += spelled
    for key, value in (settings or {}).items():
        more += ["--set", f"{key}={value}"]
    return line(command, *words, *more)


def once_more(argv: Sequence[str], setting: str, value: str) -> str:
    """The command line of an earlier `wsss run` with one setting more; empty where it can be read no more.

    Args:
        argv: words of that process, its program first.
        setting, value: dotted key, and its value as TOML.
    """
    words = [word for word in argv[2:] if word not in ("-q", "--quiet")]
    root = _now[0].find_root()
    try:
        ctx = root.command.commands["run"].make_context("run", words, parent=root)
    except Exception:  # of another version; Typer has its own copies of the classes that say so
        return ""
    more = [
        word
        for name, spelled in _given(ctx)
        if name not in ABOUT_THIS_CALL
        for option, text in zip(spelled[::2], spelled[1::2], strict=False)
        if not text.startswith(f"{setting}=")
        for word in (option, text)
    ]
    return line("run", *more, "--set", f"{setting}={value}")


def _given(ctx: Any) -> Iterator[tuple[str, list[str]]]:
    """(name, words) of each option that stands on the command line."""
    for option in ctx.command.params:
        names = [name for name in option.opts if name.startswith("--")]
        source = ctx.get_parameter_source(option.name)
        if not names or option.name not in ctx.params or source is None or source.name != "COMMANDLINE":
            continue
        value = ctx.params[option.name]
        if isinstance(value, bool):
            yield names[0], [names[0] if value else (option.secondary_opts or names)[0]]
        elif isinstance(value, list | tuple):
            yield names[0], [word for each in value for word in (names[0], str(each))]
        else:
            yield names[0], [names[0], str(value)]
