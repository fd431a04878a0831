"""Names of files and classes are any text at all: shown everywhere, obeyed nowhere."""

import contextlib
import csv
import io
import json
import re
import unicodedata
from html.parser import HTMLParser

import pytest
from command import wsss
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from wsss_cli.cli import console
from wsss_cli.escapes import FORMULA, csv_cell, one_line, visible
from wsss_cli.report.html import node, page
from wsss_cli.report.html import table as html_table
from wsss_cli.report.tables import Table, class_table, print_table

NASTY = [
    "\x1b[31m",
    "\x1b]0;t\x07",
    "\x9b2J",
    "\r",
    "\u202e",
    "\u2066",
    "\ufeff",
    "\udcff",
    "=1+1",
    "@x",
    "|",
    "[red]",
    "<b>",
    "&",
]
NASTY += [
    "\u2028",
    "\n",
    "\t",
    ",",
    '"',
    "'",
    "`",
    "\\",
    "{0}",
    "%s",
    "😀",
    "猫",
    "e\u0301",
    "\x00",
    "\x7f",
    "＝1",
    "$(x)",
    ":smile:",
]
names = st.lists(st.text(max_size=12) | st.sampled_from(NASTY), max_size=4).map("".join)


def unseen(text):
    """Signs of a text that a terminal would obey, that turn its direction, or that are no characters."""
    turns = {chr(code) for code in (0x61C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))}
    return {sign for sign in text if sign in turns or unicodedata.category(sign) in ("Cc", "Cs", "Zl", "Zp")} - {"\n"}


def without_colours(text):
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


@contextlib.contextmanager
def streams():
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        yield out, err


@given(names)
@example("a\nerror: it is not so")
def test_a_line_of_talk_is_one_line(name):
    with streams() as (out, err):
        console.say(name)
        console.complain(name)
        with console.progress(2, name) as bar:
            bar.advance(2)
    assert out.getvalue() == ""
    assert unseen(err.getvalue()) <= {"\t"}
    lines = err.getvalue().splitlines()
    assert len(lines) == 4
    assert lines[:2] == [one_line(name)] * 2 == [lines[2].removesuffix("  0/2")] * 2


@given(names, names)
def test_json_on_stdout_is_one_object_of_the_same_names(name, key):
    with streams() as (out, _):
        console.result_json({key: [name, {"name": name}]})
    assert json.loads(out.getvalue()) == {key: [name, {"name": name}]}
    assert unseen(out.getvalue()) == set()
    assert out.getvalue().count("\n") == 1


@settings(deadline=None)
@given(names, names, st.sampled_from([30, 60, 200]))
def test_a_table_has_its_rows_whatever_is_in_them(name, other, width):
    table = Table(
        name, ("class", name, "a", "b", "c", "d"), ((name, other, "1", "2", "3", "4"), (other,) * 6), notes=(name,)
    )
    heads = 1 if not name else 2  # a title, if there is one
    assert table.to_plain().count("\n") == heads + 1 + 2 + 1
    assert table.to_markdown().count("\n") == 2 * bool(name) + 2 + 2 + 2
    assert unseen(table.to_plain()) == unseen(table.to_markdown()) == set()
    assert unseen(json.loads(table.to_json())["title"]) <= unseen(name)
    rows = [line for line in table.to_markdown().splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)(?:\\\\)*\|", row)) for row in rows} == {7}
    terminal = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", str(width))
        print_table(table, terminal, is_terminal=True)
    assert unseen(without_colours(terminal.getvalue())) == set()


@given(names, names)
def test_csv_comes_back_and_nothing_in_it_is_a_formula(name, other):
    table = Table("", ("class", "IoU"), ((name, other), (other, "1.00")), ("mean", name))
    rows = list(csv.reader(io.StringIO(table.to_csv(), newline="")))
    assert rows[1:] == [[csv_cell(name), csv_cell(other)], [csv_cell(other), "1.00"], ["mean", csv_cell(name)]]
    for cell in (csv_cell(name), csv_cell(other)):
        assert unseen(cell) <= {"\t"}
        assert not cell.startswith(FORMULA) or cell == "-" or float(cell.replace(",", "")) is not None
    assert csv_cell(name).removeprefix("'" * (csv_cell(name) != visible(name))) == visible(name)


class Reader(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.elements, self.texts, self.labels = [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append(tag)
        self.labels += [value for key, value in attrs if key == "aria-label"]

    def handle_data(self, data):
        self.texts.append(data)


@given(names)
def test_a_page_has_the_same_elements_whatever_the_names_are(name):
    def made_of(text):
        return page(text, [node("h1", text, aria_label=text), html_table([text, "IoU"], [[text, 1.0]])])

    assert unseen(made_of(name)) <= {"\t"}
    read = Reader(made_of(name))
    assert read.elements == Reader(made_of("x")).elements
    assert visible(name) in read.labels
    assert visible(name) in "".join(read.texts)


@given(st.lists(names, min_size=2, max_size=4))
def test_classes_of_any_name_are_scored_in_a_table(classes):
    count = len(classes)
    result = {"classes": classes, "iou": [50.0] * count, "acc": [None] * count, "aacc": 1.0, "miou": 50.0, "macc": None}
    result |= {"label": [0] * count, "protocol": classes[0]}
    text = class_table({"single scale": result}, classes[0], classes).to_plain()
    assert unseen(text) == set()
    assert text.count("\n") >= count + 4


@pytest.mark.slow
def test_photographs_of_odd_names_are_prepared_looked_at_and_listed(tmp_path):
    odd = ["[red]a", "=1+1", "e,f", 'g"h', "ü猫😀", "x\u202ey", "-rf", "a b;c", "%s{0}", "'q'", "@x"]
    (tmp_path / "photos").mkdir()
    with (tmp_path / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("image", "labels"))
        for number, name in enumerate(odd):
            Image.new("RGB", (40, 32), (number, 0, 0)).save(tmp_path / "photos" / f"{name}.png")
            writer.writerow((f"{name}.png", ("<b>cat</b>", "=dog\u202e")[number % 2]))
    done = wsss(tmp_path, "prepare", "folder", "photos", "labels.csv", "--out", "data set")
    shown = [done.stdout, done.stderr]
    assert done.returncode == 0
    for arguments in (("verify", "data set"), ("verify", "data set", "--json")):
        looked = wsss(tmp_path, *arguments)
        assert looked.returncode in (0, 3)
        shown += [looked.stdout, looked.stderr]
    done = wsss(tmp_path, "run", "--preset", "folder-lite0", "--data", "data set", "--dry-run")
    assert done.returncode == 0
    shown += [done.stdout, done.stderr]
    assert unseen("".join(shown)) == set()
    assert not any("Traceback" in text or "a bug:" in text for text in shown)
