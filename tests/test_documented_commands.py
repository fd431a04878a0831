"""Every `wsss` command in README and docs/: its words, options and settings are those of the program."""

import pytest
from pages import PAGES, ROOT, commands
from typer.main import get_command

from wsss_cli.cli.app import app
from wsss_cli.config.load import load_preset, preset_names
from wsss_cli.errors import WsssError

STAND_INS = {"NAME": "toy", "mine.toml": "toy", "my.toml": "toy"}
"""Names of presets that pages use for the reader's own."""


CASES = {f"{page.relative_to(ROOT)}: {line}": words for page in PAGES for line, words in commands(page.read_text())}


def test_pages_have_commands():
    assert len(CASES) > 100


@pytest.mark.parametrize("case", CASES)
def test_a_command_is_one_of_the_program(case):
    command, words, context = get_command(app), CASES[case], None
    while hasattr(command, "commands") and words and not words[0].startswith("-"):
        context = command.context_class(command, parent=context)
        assert words[0] in command.commands, f"there is no command {words[0]}"
        command, words = command.commands[words[0]], words[1:]
    if hasattr(command, "commands"):  # wsss -h
        return
    values = command.make_context(command.name, list(words), context).params
    overrides, preset = values.get("overrides") or [], values.get("preset")
    preset = STAND_INS.get(preset, preset)
    if preset and not preset.endswith(".toml"):
        assert preset in preset_names()
    if overrides:
        try:
            load_preset(preset if preset in preset_names() else "toy", overrides)
        except WsssError as error:
            pytest.fail(f"{error.message}; {error.hint}")
