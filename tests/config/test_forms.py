import pytest

from wsss_cli.config.forms import Form, read_form, write_form
from wsss_cli.errors import DataError
from wsss_cli.files import read_json, write_json


class Inner(Form):
    size: int


class Thing(Form):
    name: str
    parts: tuple[Inner, ...] = ()
    note: str = ""


def second(table):
    """Form 2 calls the title a name."""
    table = dict(table)
    return table | {"name": table.pop("title")}


def third(table):
    return table | {"parts": [{"size": size} for size in table["sizes"]]}


UPGRADES = (second, third)


def test_what_is_written_is_read_with_what_nobody_knows(tmp_path):
    write_json(tmp_path / "x.json", {"name": "a", "color": [1], "parts": [{"size": 2}]})
    thing = read_form(tmp_path / "x.json", Thing)
    assert (thing.form, thing.name, thing.parts[0].size) == (1, "a", 2)
    write_form(tmp_path / "y.json", thing)
    assert read_json(tmp_path / "y.json") == {"form": 1, "name": "a", "color": [1], "parts": [{"size": 2}]}


@pytest.mark.parametrize(
    ("table", "form"),
    [
        ({"title": "a", "sizes": [2]}, 1),
        ({"form": 1, "title": "a", "sizes": [2]}, 1),
        ({"form": 2, "name": "a", "sizes": [2]}, 2),
    ],
)
def test_an_older_form_is_read_and_said(tmp_path, table, form):
    write_json(tmp_path / "x.json", table)
    said = []
    thing = read_form(tmp_path / "x.json", Thing, UPGRADES, said.append)
    assert (thing.form, thing.name, thing.parts[0].size) == (3, "a", 2)
    assert said == [f"{tmp_path}/x.json was written by an older version of wsss (form {form}); read as form 3"]


def test_the_newest_form_needs_no_word(tmp_path):
    write_json(tmp_path / "x.json", {"form": 3, "name": "a"})
    said = []
    assert read_form(tmp_path / "x.json", Thing, UPGRADES, said.append).name == "a"
    assert said == []


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"form": 3, "name": "a"}, r"newer version of wsss \(form 3, this one reads up to 1\) \(upgrade wsss\)"),
        ({"form": 0, "name": "a"}, "form 0 is no version of the file"),
        ({"form": True, "name": "a"}, "form True is no version"),
        ({"form": "1", "name": "a"}, "form '1' is no version"),
        ({}, r"x\.json: name: field required \(like this\)"),
        ({"name": 3}, r"x\.json: name: input should be a valid string"),
        ({"name": "a", "parts": [{"size": 2}, {"size": 0.5}]}, r"x\.json: parts\.1\.size: input should be a valid int"),
        ([], r"x\.json is not a JSON object \(like this\)"),
        ("", "not a JSON object"),
    ],
)
def test_what_cannot_be_read_is_refused_with_file_and_key(tmp_path, table, message):
    write_json(tmp_path / "x.json", table)
    with pytest.raises(DataError, match=message):
        read_form(tmp_path / "x.json", Thing, hint="like this")
