from __future__ import annotations

import json

import pytest

from wsss_cli.cli import console
from wsss_cli.escapes import csv_cell, visible
from wsss_cli.report.tables import Table


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("cat\x1b[31m", "cat\\u001b[31m"),
        ("a\x9b2J\x7f", "a\\u009b2J\\u007f"),
        ("gpj\u202e.exe", "gpj\\u202e.exe"),
        ("a\rb", "a\\u000db"),
        ("a\udcffb", "a\\udcffb"),
        ("[bold] ü 猫\n\tb", "[bold] ü 猫\n\tb"),
    ],
)
def test_what_a_terminal_would_obey_is_shown(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_everything_that_is_printed_goes_through_it(capsys: pytest.CaptureFixture[str]) -> None:
    name = "x\x1b]0;t\x07\u202e"
    console.say(name)
    console.result(name)
    console.result_json({"name": name, "delete": "\x7f"})
    console.table(Table(name, (name,), ((name,),)))
    with console.progress(1, name):
        pass
    shown = capsys.readouterr()
    assert not any(sign in shown.out + shown.err for sign in "\x1b\x07\x7f\u202e")
    assert json.loads(shown.out.splitlines()[1]) == {"name": name, "delete": "\x7f"}


@pytest.mark.parametrize(
    ("cell", "written"),
    [
        ("=HYPERLINK(1)", "'=HYPERLINK(1)"),
        ("@SUM(1)", "'@SUM(1)"),
        ("+cmd", "'+cmd"),
        ("-dog", "'-dog"),
        ("-", "-"),
        ("-1.5", "-1.5"),
        ("+1,234", "+1,234"),
        ("cat=1", "cat=1"),
        ("", ""),
    ],
)
def test_no_cell_begins_a_formula(cell: str, written: str) -> None:
    assert csv_cell(cell) == written
    assert Table("", (cell,), ((cell,),)).to_csv().splitlines()[0].strip('"') == written
