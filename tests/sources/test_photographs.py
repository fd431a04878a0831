from __future__ import annotations

from pathlib import Path

import pytest

from wsss_cli.data.sources.photographs import Photographs
from wsss_cli.errors import DataError


@pytest.fixture
def photos(tmp_path: Path) -> Photographs:
    for name in ("photos/a.jpg", "photos/trip/caf\u00e9.JPG", "photos/trip/a.jpg", "photos/b.jpg", "photos/b.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "photos" / "c.jfif").touch()
    return Photographs(tmp_path / "photos", tmp_path)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("a.jpg", "a.jpg"),
        ("a", "a.jpg"),
        ("./A.JPG", "a.jpg"),
        ("trip\\cafe\u0301.jpg", "trip/caf\u00e9.JPG"),
        ("photos/trip/a", "trip/a.jpg"),
        ("C:\\me\\Photos\\trip\\a.jpg", "trip/a.jpg"),
        ("/data/photos/a.jpg", "a.jpg"),
        ("b.png", "b.png"),
        ("old/a.jpg", None),
        ("caf\u00e9.JPG", None),
        ("d.jpg", None),
        ("", None),
    ],
)
def test_a_name_is_recognised_in_its_usual_forms(photos: Photographs, written: str, meant: str | None) -> None:
    assert photos.find(written, "line 2") == meant


def test_a_name_of_two_files_is_refused(photos: Photographs) -> None:
    with pytest.raises(DataError, match=r"line 2: 'b' may be b\.jpg or b\.png"):
        photos.find("b", "line 2")


def test_why_a_photograph_is_missing(photos: Photographs) -> None:
    assert photos.why_missing("c.jfif").startswith("it is there, but .jfif is not read; .jpg, .jpeg, .png")
    assert photos.why_missing("trip/b.jpg") == "did you mean 'trip/a.jpg'?"
    assert photos.why_missing("zebra") == ""


def test_of_another_ending_the_photograph_of_that_name_is_told_not_one_spelt_alike(tmp_path: Path) -> None:
    for name in ("a.png", "g.jpg", "b.png", "b.webp", "trip/e.f.PNG"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    photos = Photographs(tmp_path, tmp_path)
    assert photos.why_missing("a.jpg") == photos.why_missing("A.JPEG") == "there is a.png"
    assert photos.why_missing("b.jpg") == "there is b.png and b.webp"
    assert photos.why_missing("trip\\e.f.jpg") == "there is trip/e.f.PNG"
    assert photos.why_missing("h.jpg") == "did you mean 'g.jpg'?"


def test_photographs_of_linked_folders_are_taken_under_the_names_of_the_links(tmp_path: Path) -> None:
    for name in ("photos/a.jpg", "elsewhere/b.jpg"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    (tmp_path / "photos" / "trip").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "all").symlink_to(tmp_path / "photos")
    assert sorted(Photographs(tmp_path / "photos", tmp_path).names) == ["a.jpg", "trip/b.jpg"]
