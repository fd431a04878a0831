"""Instance annotations: painted by hand below, one character a pixel ('.' background, '#' 255)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as rle_of

from wsss_cli.data.sources.instances import read_instances, read_span
from wsss_cli.data.sources.shapes import is_crowd, paint
from wsss_cli.errors import DataError


def _pixels(text: str) -> list[list[int]]:
    signs = {".": 0, "#": 255}
    return [[signs[sign] if sign in signs else int(sign) for sign in line.strip()] for line in text.split()]


def _box(left: int, top: int, right: int, bottom: int) -> list[float]:
    """A polygon that covers the columns left..right-1 of the rows top..bottom-1."""
    return [float(value) for value in (left, top, right, top, right, bottom, left, bottom)]


def _annotation(number: int, segmentation: Any, *, category: int = 1, crowd: int = 0, image: int = 7) -> dict[str, Any]:
    return {
        "id": number, "image_id": image, "category_id": category, "iscrowd": crowd, "segmentation": segmentation,
        "area": 0.0,  # is not read: pixels count
    }  # fmt: skip


def _runs(rows: str) -> dict[str, Any]:
    """Uncompressed run-length code, down the columns, beginning with zeros, of a drawing with '1' and '.'."""
    flat = np.array(_pixels(rows)).T.ravel()
    runs, value = [0], 0
    for pixel in flat:
        if pixel != value:
            runs.append(0)
            value = pixel
        runs[-1] += 1
    height, width = np.array(_pixels(rows)).shape
    return {"size": [height, width], "counts": runs}


RING = """
    ......
    .1111.
    .1..1.
    .1111.
    ......
"""


def test_what_is_smaller_lies_on_top_whatever_the_order() -> None:
    large, small = _annotation(1, [_box(0, 0, 5, 4)]), _annotation(2, [_box(3, 1, 7, 3)])
    wanted = _pixels("""
        11111...
        1112222.
        1112222.
        11111...
        ........
    """)
    assert paint([(large, 1), (small, 2)], 5, 8).tolist() == wanted
    assert paint([(small, 2), (large, 1)], 5, 8).tolist() == wanted
    assert paint([(large, 1), (small, 2)], 5, 8).dtype == np.uint8


def test_of_two_with_as_many_pixels_the_larger_id_lies_on_top() -> None:
    first, second = _annotation(10, [_box(0, 0, 3, 2)]), _annotation(9, [_box(2, 0, 5, 2)])
    for order in ([(first, 1), (second, 2)], [(second, 2), (first, 1)]):
        assert paint(order, 2, 5).tolist() == _pixels("11122 11122")


def test_a_crowd_region_is_255_where_no_instance_is_even_if_it_is_smaller() -> None:
    crowd = _annotation(1, _runs("......  .1111.  .1111.  ......"), category=2, crowd=1)
    large = _annotation(2, [_box(0, 0, 3, 4)])
    wanted = _pixels("111... 111##. 111##. 111...")
    assert paint([(large, 1), (crowd, 2)], 4, 6).tolist() == wanted
    assert paint([(crowd, 2), (large, 1)], 4, 6).tolist() == wanted


def test_holes_and_parts() -> None:
    ring = _annotation(1, _runs(RING))
    assert paint([(ring, 3)], 5, 6).tolist() == _pixels(RING.replace("1", "3"))
    below = _annotation(2, [_box(0, 0, 6, 5)])
    shining_through = _pixels("222222 211112 212212 211112 222222")
    assert paint([(ring, 1), (below, 2)], 5, 6).tolist() == shining_through
    two_parts = _annotation(3, [_box(0, 0, 2, 2), _box(4, 3, 6, 5)])
    assert paint([(two_parts, 4)], 5, 6).tolist() == _pixels("44.... 44.... ...... ....44 ....44")
    inner = _annotation(4, [_box(0, 0, 6, 5), _box(2, 2, 4, 3)])  # parts are united: a polygon's part is no hole
    assert paint([(inner, 1)], 5, 6).tolist() == _pixels("111111 " * 5)
    keyhole = [0, 0, 6, 0, 6, 5, 0, 5, 0, 0, 1, 1, 1, 4, 5, 4, 5, 1, 1, 1]  # one ring that runs round a hole
    assert paint([(_annotation(5, [keyhole]), 1)], 5, 6).tolist() == _pixels("111111 1....1 1....1 1....1 111111")


def test_compressed_codes_are_the_same_as_plain_ones() -> None:
    drawn = np.array(_pixels(RING), np.uint8)
    code = rle_of.encode(np.asfortranarray(drawn))
    compressed = {"size": [5, 6], "counts": code["counts"].decode()}
    assert paint([(_annotation(1, compressed), 1)], 5, 6).tolist() == drawn.tolist()
    fractions = {"size": [5.0, 6.0], "counts": [float(run) for run in _runs(RING)["counts"]]}  # as some tools write
    assert paint([(_annotation(1, fractions), 1)], 5, 6).tolist() == drawn.tolist()
    large = (np.indices((90, 70)).sum(0) % 33 < 20).astype(np.uint8)  # runs that need several bytes, and differences
    code = rle_of.encode(np.asfortranarray(large))
    compressed = {"size": [90, 70], "counts": code["counts"].decode()}
    assert (paint([(_annotation(1, compressed), 1)], 90, 70) == large).all()


def test_shapes_without_pixels_paint_nothing() -> None:
    for empty in ([], [[]], [[1.0, 1.0, 3.0, 3.0]], [[2.0, 2.0] * 3]):
        assert not paint([(_annotation(1, empty), 1)], 4, 4).any()
    assert not paint([], 4, 4).any()
    with_line = _annotation(1, [[0.0, 0.0, 4.0, 4.0], _box(0, 0, 1, 1)])  # four numbers are no box here
    assert paint([(with_line, 1)], 2, 2).tolist() == [[1, 0], [0, 0]]


@pytest.mark.parametrize(
    ("segmentation", "says"),
    [
        ([[0.0, 0.0, 1.0, 0.0, 1.0, 1.0, 2.0]], "odd number"),
        ([[0.0, 0.0, float("nan"), 0.0, 1.0, 1.0]], "no finite number"),
        ([[0.0, 0.0, 1e12, 0.0, 1.0, 1.0]], "leaves the image"),
        ([["a", "b"] * 3], "no list of numbers x, y, x, y"),
        ([4.0, 5.0, 6.0, 5.0, 6.0, 7.0], "no list of numbers x, y, x, y"),
        ([[[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]]], "no list of numbers x, y, x, y"),
        ({"size": [5, 4], "counts": [20]}, "size"),
        ({"size": [4, 5], "counts": [19]}, "add up"),
        ({"size": [4, 5], "counts": [10, -5, 15]}, "add up"),
        ({"size": [4, 5], "counts": "00000"}, "add up"),
        ({"size": [4, 5], "counts": ""}, "add up"),
        ({"size": [4, 5]}, r"is a size \[height, width\] and counts"),
        ({"size": 3, "counts": [20]}, r"is a size \[height, width\] and counts"),
    ],
)
def test_a_shape_that_cannot_be_taken_is_named(segmentation: Any, says: str) -> None:
    with pytest.raises(DataError, match=says) as caught:
        paint([(_annotation(31, segmentation, crowd=1), 1)], 4, 5)
    assert "annotation 31 of image 7" in caught.value.message


# -- reading -----------------------------------------------------------------------------------------------------------


def _record() -> dict[str, Any]:
    return {
        "info": {"description": "a bracket ] and a brace } in a text"},
        "images": [
            {"id": 9, "file_name": "b.jpg", "height": 4, "width": 5},
            {"id": 7, "file_name": "a.jpg", "height": 2, "width": 3, "license": {"x": [1, 2]}},
        ],
        "licenses": [],
        "annotations": [
            _annotation(5, [_box(0, 0, 1, 1)], category=4),
            _annotation(6, _runs("1. .1 11"), category=2, crowd=1, image=9),
            _annotation(2, [_box(1, 1, 2, 2)], category=2),
        ],
        "categories": [{"id": 4, "name": "Käse"}, {"id": 2, "name": "cat"}],
    }


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "instances.json"


@pytest.mark.parametrize(
    ("value", "crowd"),
    [(0, False), (1, True), (True, True), (False, False), ("0", False), ("1", True), ("False", False)],
)
def test_a_crowd_region_is_said_by_numbers_truths_and_texts(value: object, crowd: bool) -> None:
    assert is_crowd({"id": 1, "iscrowd": value}, "x.json") is crowd
    assert is_crowd({"id": 1}, "x.json") is False


@pytest.mark.parametrize("value", [None, 2, "no", "", 0.5, [0]])
def test_what_may_be_a_crowd_region_is_refused(value: object) -> None:
    with pytest.raises(DataError, match=r"x\.json: annotation 7 has iscrowd"):
        is_crowd({"id": 7, "iscrowd": value}, "x.json")


def _write(file: Path, record: Any, **how: Any) -> Path:
    file.write_text(json.dumps(record, **how), encoding="utf-8")
    return file


@pytest.mark.parametrize("how", [{}, {"indent": 3}, {"ensure_ascii": False}, {"separators": (",", ":")}])
def test_each_annotation_is_found_again_in_the_file(file: Path, how: dict[str, Any]) -> None:
    record = _record()
    read = read_instances(_write(file, record, **how))
    assert list(read.categories.items()) == [(2, "cat"), (4, "Käse")]
    assert [(image.file_name, image.height, image.width) for image in read.images] == [("a.jpg", 2, 3), ("b.jpg", 4, 5)]
    assert [[(span.category, span.crowd) for span in image.spans] for image in read.images] == [
        [(4, False), (2, False)], [(2, True)],
    ]  # fmt: skip
    given = record["annotations"]
    assert read_span(file, read.images[0].spans) == [given[0], given[2]]
    assert read_span(file, read.images[1].spans) == [given[1]]


def test_any_order_of_keys_and_empty_lists(file: Path) -> None:
    record = dict(reversed(_record().items())) | {"annotations": []}
    read = read_instances(_write(file, record))
    assert [image.spans for image in read.images] == [(), ()]


def test_every_cut_off_file_is_refused(file: Path) -> None:
    whole = json.dumps(_record()).encode()
    for length in [*range(0, len(whole), 7), len(whole) - 1]:
        file.write_bytes(whole[:length])
        with pytest.raises(DataError, match="not valid JSON at byte") as caught:
            read_instances(file)
        assert "cut off" in caught.value.hint
    file.write_bytes(whole + b" x")
    with pytest.raises(DataError, match="Extra data"):
        read_instances(file)
    file.write_bytes(whole + b" \n")
    assert len(read_instances(file).images) == 2


def test_what_is_no_json_or_no_object_is_refused(file: Path) -> None:
    for text in ('"x"', '{"images": {}}', '{"info": [1 2]}', "{1: 2}", "{,}", '{"a": 1,}', '{"images": [}'):
        file.write_text(text)
        with pytest.raises(DataError, match="not valid JSON"):
            read_instances(file)
    file.write_text("{}")
    with pytest.raises(DataError, match="lists no images"):
        read_instances(file)
    file.write_bytes(json.dumps(_record(), ensure_ascii=False).encode("latin-1"))
    with pytest.raises(DataError, match="not valid JSON"):
        read_instances(file)
    with pytest.raises(DataError, match="cannot read"):
        read_instances(file.with_name("nowhere.json"))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda r: r["annotations"][1].update(category_id=3), "b.jpg has the unknown category id 3"),
        (lambda r: r["annotations"][1].update(image_id=8), "1 annotations belong to images .* image id 8"),
        (lambda r: r["annotations"][1].pop("image_id"), "annotation 6 has no integer image_id"),
        (lambda r: r["annotations"][1].update(category_id="cat"), "annotation 6 has no integer category_id"),
        (lambda r: r["annotations"][1].pop("segmentation"), r"has no segmentation \(outlines are needed"),
        (lambda r: r["annotations"][1].update(segmentation="5 3 9 2"), r"that is text \(it is a list of polygons"),
        (lambda r: r["annotations"][1].pop("id"), "no integer id"),
        (lambda r: r["annotations"].append(3), "no integer id"),
        (lambda r: r["images"][0].update(id=7), "image id 7 occurs twice"),
        (lambda r: r["images"][0].update(file_name="a.jpg"), "duplicate id: a.jpg"),
        (lambda r: r["images"][0].update(file_name="../a.jpg"), "cannot be an id"),
        (lambda r: r["images"][0].pop("height"), "no usable id, file_name, height"),
        (lambda r: r["images"][0].update(width=0), "no usable id, file_name, height"),
        (lambda r: r["categories"][0].update(id=2), "occurs twice"),
        (lambda r: r["categories"][0].pop("name"), "no usable id and name"),
        (lambda r: r.update(categories=[]), "lists no categories"),
    ],
)  # fmt: skip
def test_entries_that_cannot_be_taken_are_named(file: Path, change: Any, says: str) -> None:
    record = _record()
    change(record)
    with pytest.raises(DataError, match=says) as caught:
        read_instances(_write(file, record))
    assert str(file) in caught.value.message


def test_a_file_that_changed_meanwhile_is_noticed(file: Path) -> None:
    spans = read_instances(_write(file, _record())).images[0].spans
    file.write_text("{}")
    with pytest.raises(DataError, match="cannot be read again"):
        read_span(file, spans)
