from __future__ import annotations

import codecs
from pathlib import Path

import pytest

from wsss_cli.data.sources.table import open_table, read_table, read_text
from wsss_cli.errors import DataError


def _write(tmp_path: Path, text: str | bytes) -> Path:
    (tmp_path / "t.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    return tmp_path / "t.csv"


@pytest.mark.parametrize(
    "text",
    [
        "image,labels\n1.jpg,cat|dog\n2.jpg,\n",
        "image,labels\n1.jpg,cat|dog\n2.jpg\n",
        "image;labels\r\n1.jpg;cat|dog\r\n2.jpg;\r\n",
        "image\tlabels\r1.jpg\tcat|dog\r2.jpg\t\r",
        '\n image , labels,,\n"1.jpg", "cat|dog",,\n,,,\n\n2.jpg,,\n',
        "sep=;\r\nimage;labels\r\n1.jpg;cat|dog\r\n2.jpg;\r\n",
        codecs.BOM_UTF8 + b'"sep=,"\r\nimage,labels\n1.jpg,cat|dog\n2.jpg,\n',
        codecs.BOM_UTF8 + b"image,labels\n1.jpg,cat|dog\n2.jpg,",
        codecs.BOM_UTF16_LE + "image,labels\n1.jpg,cat|dog\n2.jpg,\n".encode("utf-16-le"),
        "image,labels\n1.jpg,cat|dog\n2.jpg,\n".encode("utf-16"),
    ],
)
def test_the_usual_forms_are_the_same_table(tmp_path: Path, text: str | bytes) -> None:
    table = read_table(_write(tmp_path, text))
    assert table.columns == ("image", "labels")
    assert [cells for _, cells in table.rows] == [("1.jpg", "cat|dog"), ("2.jpg", "")]


def test_lines_are_counted_as_an_editor_shows_them(tmp_path: Path) -> None:
    table = read_table(_write(tmp_path, "image,labels\n\n1.jpg,cat\n,\n2.jpg,dog\n"))
    assert [line for line, _ in table.rows] == [3, 5]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,labels\n1.jpg,cat,dog\n", "line 2: 3 fields where the header has 2"),
        ("image,labels,split\n1.jpg,cat,val\n2.jpg,dog\n", "line 3: 2 fields where the header has 3"),
        ("image,labels, labels\n1.jpg,cat,dog\n", "line 1: the column 'labels' occurs twice"),
        ("image,cat,Cat\n1.jpg,1,0\n", "line 1: the columns 'Cat' and 'cat' differ by case only"),
        ("image,,labels\n1.jpg,,dog\n", "line 1: a column has no name"),
        ('image,labels\n1.jpg,"cat\n2.jpg,dog\n', "line 2: unexpected end of data"),
        ('image,labels\n0.jpg,cat\n1.jpg,"cat\n2.jpg,dog"\n', "line 3: the field .* holds a line feed"),
        ('image,labels\n1.jpg,"cat" dog\n', "line 2: ',' expected"),
        ("image,labels\n1.jpg,c\x1bat\n", "line 2: the field .* control character"),
        ("image;labels\n1.jpg,cat\n", "line 2: 1 field where the header has 2"),
    ],
)
def test_damage_is_refused_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=rf"t\.csv, {message}"):
        read_table(_write(tmp_path, text))


def test_other_encodings_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"not UTF-8 text: line 2 holds byte 0xe9, in Latin-1 .* 'é'") as caught:
        read_text(_write(tmp_path, "image,labels\n1.jpg,caf\u00e9\n".encode("latin-1")))
    assert "UTF-8" in caught.value.hint
    with pytest.raises(DataError, match="holds zero bytes, as UTF-16 does"):
        read_text(_write(tmp_path, "image,labels\n".encode("utf-16-le")))
    with pytest.raises(DataError, match="its mark says UTF-16, and it is not"):
        read_text(_write(tmp_path, b"\xff\xfe\x00"))
    with pytest.raises(DataError, match="cannot read"):
        read_text(tmp_path / "gone.csv")


@pytest.mark.parametrize("name", ["labels.json", "annotations.XML"])
def test_what_a_tool_exports_is_no_table(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text('{"images": [{"id": 1, "file_name": "1.jpg"}]}')
    with pytest.raises(DataError, match=f"{name} is no table of tags") as caught:
        read_table(tmp_path / name)
    assert "a line image,labels" in caught.value.hint
    assert "wsss prepare labels" in caught.value.hint


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("tags.xlsx", b"PK\x03\x04\x14\0\x06\0", "a ZIP archive, or a document that is one"),
        ("tags.csv.gz", b"\x1f\x8b\x08\0", "a gzip archive"),
        ("tags.csv", b"<!doctype html><html>", "a web page"),
        ("tags.geojson", b'{"type": "FeatureCollection"}', "JSON"),
        ("tags.mat", b"MATLAB 5.0 MAT-file", "a file of MATLAB"),
    ],
)
def test_a_file_that_is_no_table_is_named_as_what_it_is(tmp_path, name, content, kind):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=f"is no table of tags: it is {kind}") as caught:
        open_table(tmp_path / name)
    assert "CSV" in caught.value.hint
