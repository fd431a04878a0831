"""`wsss prepare template`: tables of photographs, filled in by folders or to be filled in."""

import json
import os

import pytest
from PIL import Image
from typer.testing import CliRunner

from wsss_cli.cli.app import app
from wsss_cli.data.dataset import open_dataset
from wsss_cli.data.sources.template import write_template
from wsss_cli.errors import DataError, UsageError


@pytest.fixture
def photos(tmp_path):
    for name in ("Les chats/a.jpg", "Les chats/trip/b.PNG", "chiens é/c, d.jpg", "e.jpg", ".hidden/f.jpg", "notes.txt"):
        file = tmp_path / "photos" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix == ".txt":
            file.touch()
        else:
            Image.new("RGB", (40, 30)).save(file)
    return tmp_path / "photos"


def test_a_folder_is_the_tag_of_what_lies_in_it(photos, tmp_path):
    table = tmp_path / "labels.csv"
    written = write_template(photos, table, from_folders=True, check=lambda: None)
    assert table.read_text() == (
        "image,labels\n"
        'Les chats/a.jpg,Les chats\nLes chats/trip/b.PNG,Les chats\n"chiens é/c, d.jpg",chiens é\ne.jpg,\n'
    )
    assert (written.images, written.classes, written.untagged) == (4, {"Les chats": 2, "chiens é": 1}, 1)
    write_template(photos, table, from_folders=True, check=lambda: None)  # the same again
    with pytest.raises(UsageError, match="is there already and says something else"):
        write_template(photos, table, from_folders=False, check=lambda: None)


def test_a_table_to_fill_in_has_no_tags(photos, tmp_path):
    written = write_template(photos, tmp_path / "t.csv", from_folders=False, check=lambda: None)
    assert (written.classes, written.untagged, written.unread) == ({}, 4, {})
    for name in ("f.GIF", "trip/g.gif", "h.nef", ".hidden/i.gif"):
        (photos / name).parent.mkdir(exist_ok=True)
        (photos / name).touch()
    assert write_template(photos, tmp_path / "t.csv", from_folders=False, check=lambda: None).unread == {
        ".gif": 2, ".nef": 1
    }  # fmt: skip
    (photos / "trip/IMG_1").write_bytes((photos / "e.jpg").read_bytes())
    (photos / "README").write_text("no photograph")
    written = write_template(photos, tmp_path / "t.csv", from_folders=False, check=lambda: None)
    assert written.unread == {".gif": 2, ".nef": 1, "without an ending": 1}
    assert (tmp_path / "t.csv").read_text().splitlines()[1] == "Les chats/a.jpg,"


@pytest.mark.parametrize("name", ["a|b", "background", "[x]", "dog, old"])
def test_a_folder_that_cannot_be_a_class_is_named(photos, tmp_path, name):
    (photos / "e.jpg").rename((photos / name).with_suffix(".jpg"))
    (photos / name).mkdir()
    (photos / name).with_suffix(".jpg").rename(photos / name / "e.jpg")
    with pytest.raises(DataError, match="cannot be a class"):
        write_template(photos, tmp_path / "t.csv", from_folders=True, check=lambda: None)
    assert not (tmp_path / "t.csv").exists()


def test_what_holds_no_photographs_is_named(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty holds no photographs"):
        write_template(tmp_path / "empty", tmp_path / "t.csv", from_folders=True, check=lambda: None)
    with pytest.raises(UsageError, match="none is no folder"):
        write_template(tmp_path / "none", tmp_path / "t.csv", from_folders=True, check=lambda: None)


def test_a_folder_of_folders_becomes_a_data_set(wsss, photos, tmp_path):
    without = wsss("prepare", "folder", "photos")
    assert without.returncode == 2
    assert "hint: wsss prepare template photos writes one" in without.stderr
    done = wsss("prepare", "template", "photos", "--from-folders", "--json")
    assert json.loads(done.stdout) == {
        "images": 4, "classes": {"Les chats": 2, "chiens é": 1}, "untagged": 1, "unread": {}, "odd": [],
        "file": "labels.csv",
    }  # fmt: skip
    made = wsss("prepare", "folder", "photos", "labels.csv", "--json")
    assert made.returncode == 0
    classes = json.loads((tmp_path / "data/photos/dataset.json").read_text())["classes"]
    assert [one["name"] for one in classes] == ["background", "Les chats", "chiens é"]


@pytest.mark.parametrize("ending", [".jpg", ""])
def test_photographs_with_spaces_around_their_names_are_found(wsss, tmp_path, ending):
    names = (" H46 SCC", "H2  Adeno", "H3 ", "sub dir/ a b")
    for name in names:
        file = tmp_path / "photos" / f"{name}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30)).save(file)
    table = tmp_path / "labels.csv"
    write_template(tmp_path / "photos", table, from_folders=False, check=lambda: None)
    table.write_text(table.read_text().replace(".jpg,", f"{ending},cat"))
    assert wsss("prepare", "folder", tmp_path / "photos", table, "--out", tmp_path / "mine").returncode == 0
    assert {sample.id for sample in open_dataset(tmp_path / "mine").split("train")} == set(names)


def test_pipes_and_links_to_nothing_are_named_and_no_photographs(photos, tmp_path):
    """A pipe that was listed is refused by `prepare folder`, which would wait for it."""
    os.mkfifo(photos / "pipe.jpg")
    (photos / "gone.png").symlink_to("nowhere.png")
    (photos / "other.jpg").symlink_to("e.jpg")
    out = tmp_path / "t.csv"
    done = CliRunner().invoke(app, ["prepare", "template", str(photos), "--out", str(out)])
    assert done.exit_code == 0
    assert "pipe" not in out.read_text() and "gone" not in out.read_text() and "other.jpg" in out.read_text()
    assert f"passed over: {photos / 'gone.png'} is a link to a file that is not there" in done.stderr
    assert f"passed over: {photos / 'pipe.jpg'} is a pipe" in done.stderr
    (tmp_path / "only").mkdir()
    os.mkfifo(tmp_path / "only/pipe.jpg")
    with pytest.raises(DataError, match="holds no photographs that are read") as caught:
        write_template(tmp_path / "only", tmp_path / "u.csv", from_folders=False, check=lambda: None)
    assert "pipe.jpg is a pipe" in caught.value.hint
