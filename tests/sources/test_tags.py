from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsss_cli.data.masks import write_mask
from wsss_cli.data.sources.tags import (
    annotation_tags,
    in_order,
    joined_line,
    mask_tags,
    read_ids,
    read_tags,
    refuse_twins,
    split_labels,
    without_suffix,
)
from wsss_cli.errors import DataError
from wsss_cli.labels import voc_palette

CLASSES = ("cat", "dog", "horse")
WORDS = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z"), exclude_characters="|;,"), min_size=1)


@given(labels=st.lists(WORDS, max_size=4), separator=st.sampled_from(["|", ";", ",", " ", " , ", "| "]))
def test_labels_are_split_at_every_separator(labels: list[str], separator: str) -> None:
    assert split_labels(separator.join(labels)) == labels


def test_names_may_hold_spaces_where_spaces_do_not_separate() -> None:
    assert split_labels(" polar bear | sea lion ", spaces=False) == ["polar bear", "sea lion"]
    assert split_labels(None) == split_labels("  ", spaces=False) == []


def test_only_an_image_suffix_is_cut() -> None:
    names = ["a.jpg", "a.JPEG", "a.b", "v1.2.png", "dir.x/a"]
    assert [without_suffix(name) for name in names] == ["a", "a", "a.b", "v1.2", "dir.x/a"]


@pytest.mark.parametrize(
    "text",
    [
        "x dog cat dog\ny.1\n\n",
        "id,labels\nx,dog|cat|dog\ny.1,\n",
        "image,labels\nx.jpg,dog; cat\ny.1.jpg,\n",
        '\ufeffimage,labels\nx.png,"dog, cat"\ny.1.png,""\n',
        'id,labels\r\nx,"dog cat"\r\ny.1,\r\n',
        "sep=;\nid;label\nx;dog cat\ny.1;\n",
        "id;label\nJPEGImages\\x.jpg;dog cat\ny.1;\n",
        """image,labels\nx.jpg,"['dog', 'cat']"\ny.1.jpg,[]\n""",
        'image,labels\nx.jpg,"[""dog"",""cat""]"\ny.1.jpg,\n',
        "image,horse,dog,cat\nx.jpg,0,1,1\ny.1.jpg,0,0,False\n",
    ],
)
def test_tags_of_lines_and_csv(tmp_path: Path, text: str) -> None:
    (tmp_path / "t").write_text(text, encoding="utf-8", newline="")
    assert read_tags(tmp_path / "t", CLASSES) == {"x": ("dog", "cat"), "y.1": ()}


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("x cat\ny hors\n", "line 2: unknown class 'hors'", "did you mean 'horse'? known: cat, dog, horse"),
        ("id,labels\nx,cat\ny,dgo\n", "line 3: unknown class 'dgo'", "did you mean 'dog'?"),
        ("x cat\nx dog\n", "line 2: id 'x' occurs twice", "one line"),
        ("id,labels\n,cat\n", "line 2: no id", "id,labels"),
        ("file,labels\nx,cat\n", "the header needs", ""),
        ("id,labels,label\nx,cat,dog\n", "both labels and label are columns", ""),
        ("id,labels\nx,cat,dog\n", "line 2: 3 fields", "cat|dog"),
        ("id,labels\nx,NaN\n", "line 2: the tag 'NaN' is what programs write where there is none", "--rename NaN="),
        ("id,labels\nx,cat\ny,None\n", "line 3: the tag 'None' is what programs write", "leave it out"),
        ("id,labels\nx,cat\ny,NA\n", "line 3: the tag 'NA' is what programs write", "--rename NA="),
        ("id,labels\nx,background\n", "line 2: the tag 'background' is no class", "leave it out"),
        ("""id,labels\nx,"['cat' 'dog']"\n""", "line 2: \"['cat' 'dog']\" is no list of names", "cat|dog"),
        ('id,labels\nx,"[1, 2]"\n', "is no list of names", ""),
        ("id,labels\nx,'cat'\n", "cannot be the name of a class", "quotes"),
        ("id,labels\nx,cat|dog]\n", "cannot be the name of a class", "brackets"),
        ("id,cat,dog\nx,1,2\n", "line 2: the column 'dog' holds '2', not 0 or 1", "labels"),
    ],
)
def test_bad_tags_are_named_with_their_line(tmp_path: Path, text: str, message: str, hint: str) -> None:
    (tmp_path / "t.txt").write_text(text)
    with pytest.raises(DataError) as caught:
        read_tags(tmp_path / "t.txt", CLASSES)
    assert message in caught.value.message
    assert "t.txt" in caught.value.message
    assert hint in caught.value.hint


def test_tags_that_are_missing_or_no_text(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot read .*gone\.txt"):
        read_tags(tmp_path / "gone.txt", CLASSES)
    (tmp_path / "bin").write_bytes(b"\xe9")
    with pytest.raises(DataError, match="not UTF-8"):
        read_tags(tmp_path / "bin", CLASSES)


def test_names_that_differ_by_case_spaces_or_letters_composed_otherwise(tmp_path: Path) -> None:
    refuse_twins({"cat": (2, 1), "dog": (3, 1), "caf\u00e9": (4, 1), "cafe\u0301": (5, 1)}, "t.csv")
    with pytest.raises(
        DataError, match=r"'polar bear' \(1 image, first in line 2\), 'Polar_bear' \(2 images, first in line 3\)"
    ) as caught:
        refuse_twins({"polar bear": (2, 1), "Polar_bear": (3, 2)}, "t.csv")
    assert caught.value.hint == "one class? --rename 'polar bear=Polar_bear'"
    with pytest.raises(DataError) as caught:
        refuse_twins({"cat": (2, 1), "Cat": (3, 2)}, "t.csv", classes=["cat"])
    assert caught.value.hint == "one class? --rename Cat=cat"


def test_annotations_give_each_object_once_and_no_parts(tmp_path: Path) -> None:
    part = "<part><name>head</name></part>"
    objects = "".join(f"<object><name>{name}</name>{part}</object>" for name in ("dog", "cat", "dog"))
    (tmp_path / "a.xml").write_text(f"<annotation><filename>a.jpg</filename>{objects}</annotation>")
    assert annotation_tags(tmp_path, ["a"], CLASSES) == {"a": ("dog", "cat")}
    with pytest.raises(DataError, match=r"1 of 2 images have no annotation.*the first: b\.xml"):
        annotation_tags(tmp_path, ["a", "b"], CLASSES)
    (tmp_path / "b.xml").write_text("<annotation><object><name>hors</name></object></annotation>")
    with pytest.raises(
        DataError, match=r"b\.xml names the unknown class 'hors' \(did you mean 'horse'\? known: cat, dog"
    ):
        annotation_tags(tmp_path, ["b"], CLASSES)
    (tmp_path / "b.xml").write_text("<annotation>")
    with pytest.raises(DataError, match=r"b\.xml is not XML"):
        annotation_tags(tmp_path, ["b"], CLASSES)
    for other in ("<html><body>404</body></html>", '<annotation xmlns="x"><object/></annotation>', "<annotations/>"):
        (tmp_path / "b.xml").write_text(other)  # no objects, as in an annotation without any
        with pytest.raises(DataError, match=r"b\.xml is no VOC annotation: it begins with <"):
            annotation_tags(tmp_path, ["b"], CLASSES)


def test_tags_of_masks_are_the_values_that_occur(tmp_path: Path) -> None:
    write_mask(tmp_path / "a.png", np.array([[0, 3, 1, 255]], np.uint8), voc_palette(4))
    write_mask(tmp_path / "b.png", np.array([[0, 4]], np.uint8), voc_palette(4))
    assert mask_tags({"a": tmp_path / "a.png"}, CLASSES) == {"a": ("cat", "horse")}
    with pytest.raises(DataError, match=r"b\.png holds the value 4"):
        mask_tags({"b": tmp_path / "b.png"}, CLASSES)
    with pytest.raises(DataError, match="image c has no mask"):
        mask_tags({"c": None}, CLASSES)


def test_ids_of_lists_in_their_usual_forms(tmp_path: Path) -> None:
    (tmp_path / "l.txt").write_text("b\n a -1\n/JPEGImages/c.jpg /SegmentationClassAug/c.png\n\n")
    assert read_ids(tmp_path / "l.txt") == ["b", "a", "c"]
    (tmp_path / "l.txt").write_text("a\nb\na\n")
    with pytest.raises(DataError, match=r"l\.txt: 1 duplicate id: a"):
        read_ids(tmp_path / "l.txt")
    (tmp_path / "l.txt").write_text("\n")
    with pytest.raises(DataError, match=r"l\.txt is empty"):
        read_ids(tmp_path / "l.txt")


def test_names_that_are_numbers_are_ordered_as_numbers() -> None:
    assert in_order(["10", "2", "1", "2"]) == ("1", "2", "10")
    assert in_order(["10", "b", "2"]) == ("10", "2", "b")
    assert in_order([]) == ()


@pytest.mark.parametrize("tag", ["cat#dog", "cat dog", "cat / dog", "dog&cat", "cat+dog+cat", "cat:dog", "cat-dog"])
def test_a_tag_that_is_made_of_others_is_named(tag: str) -> None:
    (line,) = joined_line(["cat", tag, "dog", "hot dog", "a#"])
    assert line.startswith(f"made of other tags: {tag!r}; ")
    assert joined_line(["cat", "polar bear", "hot dog", "dog"]) == []
