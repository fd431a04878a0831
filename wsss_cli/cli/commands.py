"""What commands and groups of them have in common: --quiet, and a help of whole sentences that ends with examples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, TypeVar

import typer
import typer.core
import typer.main

from wsss_cli.cli.following import remembered
from wsss_cli.errors import UsageError
from wsss_cli.talk import hush

F = TypeVar("F", bound=Callable[..., Any])
COMMANDS = "Commands"  # panel of commands that name none
MARGIN = 4


def _with_quiet(
    quiet: Annotated[
        bool,
        typer.Option("--quiet", "-q", callback=hush, help="No talk and no progress on stderr; errors are still said."),
    ] = False,
) -> None:
    """A command whose option all others get."""


def _quiet_option() -> Any:
    app = typer.Typer(add_completion=False)
    app.command()(_with_quiet)
    option = typer.main.get_command(app).params[0]
    option.expose_value = False
    return option


class Command(typer.core.TyperCommand):
    """A command. The paragraph of its help that begins with a command line is examples, which stand at the end."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.help, self.examples = _parted(self.help or "")
        self.params.append(_quiet_option())
        for param in self.params:
            _name(param)

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Words of the usage line: RUN, where Typer writes {run}."""
        return [piece.strip("{}").replace("}...", "...") for piece in super().collect_usage_pieces(ctx)]

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """The words of the command line, none of which may be empty: as a path it would be the current folder.

        Raises:
            UsageError: one is, and its option is not one that may be left empty.
        """
        blank = {name for param in self.params for name in param.opts if param.default == ""}
        for before, word in zip(["", *args], args, strict=False):
            name, equals, value = word.partition("=") if word.startswith("--") else (before, "=", word)
            if equals and not value and name not in blank:
                option = name if name.startswith("-") else "an argument"
                raise UsageError(f"{option} is empty", "is a variable of the shell not set? see --help")
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run it."""
        with remembered(ctx):
            return super().invoke(ctx)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """The examples."""
        _write_examples(self.examples, formatter)


class Group(typer.core.TyperGroup):
    """A group of commands, in panels, each with its first paragraph whole; an example of each at the end."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """The commands by `rich_help_panel`, in the order of their first ones."""
        panels: dict[str, list[tuple[str, str]]] = {}
        width = max(map(len, self.list_commands(ctx)), default=0)
        for name in self.list_commands(ctx):
            command: Any = self.get_command(ctx, name)
            if command is not None and not command.hidden:
                text = " ".join((command.help or "").split("\n\n")[0].split())
                panels.setdefault(command.rich_help_panel or COMMANDS, []).append((name.ljust(width), text))
        for panel, rows in panels.items():
            with formatter.section(panel):
                formatter.write_dl(rows)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """The epilog, or else an example of each command."""
        if self.epilog:
            super().format_epilog(ctx, formatter)
            return
        commands: list[Any] = [self.get_command(ctx, name) for name in self.list_commands(ctx)]
        _write_examples([command.examples[0] for command in commands if command.examples], formatter)


class App(typer.Typer):
    """A Typer whose groups and commands are of the classes above."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{"cls": Group, "no_args_is_help": True, "rich_markup_mode": None, **settings})

    def command(self, name: str | None = None, **settings: Any) -> Callable[[F], F]:
        """As Typer's."""
        return super().command(name, **{"cls": Command, **settings})


def _name(param: Any) -> None:
    """Give an argument or option the name that its help shows, where Typer shows its Python type."""
    if param.param_type_name == "argument":
        param.metavar = param.metavar or param.name.upper()
        param.display_type_rich = lambda ctx: None
    elif param.metavar is None and (choices := _choices(param)):
        param.metavar = "|".join(str(choice) for choice in choices)


def _choices(param: Any) -> Any:
    """What an option may be; of Typer before 0.27 its type says that."""
    kind = getattr(param, "type_descriptor", None) or param.type
    return getattr(kind, "choices", None)


def _parted(text: str) -> tuple[str, list[str]]:
    """A help without its examples, and these."""
    paragraphs = text.split("\n\n")
    examples = [one for one in paragraphs if one.startswith("\b\nwsss ")]
    lines = [line for one in examples for line in one.splitlines()[1:]]
    return "\n\n".join(one for one in paragraphs if one not in examples), lines


def _write_examples(examples: list[str], formatter: Any) -> None:
    if not examples:
        return
    with formatter.section("Examples"):
        for example in examples:
            for line in folded(example, formatter.width - MARGIN):
                formatter.write(f"{'':{formatter.current_indent}}{line}\n")


def folded(command: str, width: int) -> list[str]:
    """A command line in lines of at most `width` columns where its options allow that, to be copied as they are."""
    lines = [""]
    for part in command.replace(" --", "\n--").split("\n"):
        joined = f"{lines[-1]} {part}".strip()
        if lines[-1] and len(joined) > width - 2:
            lines[-1] += " \\"
            lines.append(f"    {part}")
        else:
            lines[-1] = f"    {joined}" if lines[-1].startswith("    ") else joined
    return lines
