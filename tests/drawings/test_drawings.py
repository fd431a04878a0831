"""Label maps from what tools export, computed by hand; and files that cannot be taken, in one line."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from wsss_cli.cli.app import app
from wsss_cli.data.dataset import open_dataset
from wsss_cli.data.drawings.label_studio import decode_rle, encode_rle, write_label_studio
from wsss_cli.data.drawings.outgoing import Outgoing, Palette
from wsss_cli.data.trusted import read_trusted
from wsss_cli.errors import DataError, UsageError

WIDTH, HEIGHT = 40, 20


@pytest.fixture
def data(tmp_path):
    """Two photographs of 40 x 20, flat but for a red rectangle; classes cat and dog."""
    pixels = np.full((HEIGHT, WIDTH, 3), 40, np.uint8)
    pixels[5:15, 12:28] = (20, 20, 220)
    for name in ("a.png", "b.png"):
        (tmp_path / "photos").mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / "photos" / name), pixels)
    (tmp_path / "data/splits").mkdir(parents=True)
    (tmp_path / "data/dataset.json").write_text('{"classes": ["background", "cat", "dog"]}')
    rows = "".join(f"{name},../photos/{name}.png,,cat\n" for name in "ab")
    (tmp_path / "data/splits/train.csv").write_text("id,image,mask,labels\n" + rows)
    return tmp_path


def labels_of(data, file, *more):
    """The label maps that a file makes, by photograph."""
    result = CliRunner().invoke(app, ["prepare", "labels", str(data / "data"), str(file), "--clear", *more])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    trusted = read_trusted(data / "data")
    return {name: trusted.of(name).read() for name in trusted.entries}


def blank(value, *regions):
    """A label map of one value, with (rows, columns, label) set in order."""
    labels = np.full((HEIGHT, WIDTH), value, np.uint8)
    for rows, columns, label in regions:
        labels[rows, columns] = label
    return labels


def disc(labels, row, column, label):
    """Set the 13 pixels at most 2 away."""
    for down, reach in ((-2, 0), (-1, 1), (0, 2), (1, 1), (2, 0)):
        labels[row + down, column - reach : column + reach + 1] = label
    return labels


def same(made, **expected):
    assert sorted(made) == sorted(expected)
    for name, labels in expected.items():
        assert (made[name] == labels).all(), name


# -- Label Studio ------------------------------------------------------------------------------------------------------


def task(image, *results, **more):
    items = [
        {
            "id": f"{n}",
            "type": kind,
            "original_width": WIDTH,
            "original_height": HEIGHT,
            "image_rotation": 0,
            "value": value,
        }
        for n, (kind, value) in enumerate(results)
    ]
    return {"id": 7, "data": {"image": image}, "annotations": [{"id": 1, "result": items}], **more}


def studio(data, *tasks):
    (data / "x.json").write_text(json.dumps(tasks))
    return data / "x.json"


def brush(label, *regions):
    return "brushlabels", {"rle": encode_rle(blank(0, *((*one, 1) for one in regions)) > 0), "brushlabels": [label]}


def polygon(label, *points):
    return "polygonlabels", {"points": points, "polygonlabels": [label]}


def test_a_brush_of_two_pixels_is_these_bytes():
    code = [0, 0, 0, 8, 57, 27, 252, 127, 241, 128, 0]  # 8 values; runs of 4: 255, then 0
    assert encode_rle(np.array([[True, False]])) == code
    assert decode_rle(code, (1, 2)).tolist() == [[True, False]]


def test_a_task_names_its_photograph_where_label_studio_looks_for_it(tmp_path):
    mask = np.zeros((2, 2), np.uint8)
    ones = [Outgoing("a", "a.png", Path("/photos/a.png"), mask), Outgoing("b", "b.png", Path("s3:/bucket/b.png"), mask)]
    with (tmp_path / "tasks.json").open("wb") as file:
        write_label_studio(file, ones, Palette(("background", "cat"), ((0, 0, 0), (9, 9, 9))))
    tasks = json.loads((tmp_path / "tasks.json").read_text())
    assert [one["data"]["image"] for one in tasks] == ["/data/local-files/?d=photos/a.png", "s3://bucket/b.png"]


@pytest.mark.parametrize("size", [(1, 1), (7, 300), (300, 400)])
def test_any_brush_is_decoded_as_it_was(size):
    generator = np.random.default_rng(3)
    for share in (0.0, 0.02, 0.5, 1.0):
        pixels = generator.random(size) < share
        assert (decode_rle(encode_rle(pixels), size) == pixels).all()


def test_brushes_and_polygons_of_label_studio(data):
    first = task(
        "/data/upload/3/1a2b3c4d-a.png",
        brush("dog", (slice(2, 6), slice(10, 30))),
        polygon("cat", [50, 0], [100, 0], [100, 100], [50, 100]),  # drawn later: on top
        brush("undecided", (slice(0, 20), slice(0, 15))),  # below all others
        ("choices", {"choices": ["good"]}),
    )
    second = task("/data/local-files/?d=photos%2Fb.png", brush("background", (slice(0, 20), slice(0, 40))))
    same(
        labels_of(data, studio(data, first, second, task("b.png") | {"annotations": []})),
        a=blank(
            0,
            (slice(0, 20), slice(0, 15), 255),
            (slice(2, 6), slice(10, 30), 2),
            (slice(0, 20), slice(20, 40), 1),
        ),
        b=blank(0),
    )


def test_scribbles_points_and_boxes_of_label_studio(data):
    scribble = studio(
        data, task("a.png", brush("dog", (slice(2, 5), slice(10, 30))), brush("background", (18, slice(0, 9))))
    )
    same(
        labels_of(data, scribble, "--kind", "scribbles"),
        a=blank(255, (slice(2, 5), slice(10, 30), 2), (18, slice(0, 9), 0)),
    )
    point = studio(data, task("a.png", ("keypointlabels", {"x": 50, "y": 25, "width": 1, "keypointlabels": ["cat"]})))
    same(labels_of(data, point, "--kind", "points"), a=disc(blank(255), 5, 20, 1))
    box = ("rectanglelabels", {"x": 25, "y": 10, "width": 50, "height": 40, "rotation": 0, "rectanglelabels": ["cat"]})
    made = labels_of(data, studio(data, task("a.png", box)), "--kind", "boxes", "--box-fill", "none")
    same(made, a=blank(0, (slice(2, 10), slice(10, 30), 255)))


def test_labels_beside_a_brush_without_labels(data):
    _, value = brush("cat", (slice(0, 4), slice(0, 4)))
    paired = task("a.png", ("brush", {"rle": value["rle"]}), ("labels", {"labels": ["cat"]}))
    paired["annotations"][0]["result"][1]["id"] = "0"
    same(labels_of(data, studio(data, paired)), a=blank(0, (slice(0, 4), slice(0, 4), 1)))


# -- CVAT --------------------------------------------------------------------------------------------------------------


def cvat(data, *images):
    """An XML of (name, shapes)."""
    inside = "".join(
        f'<image id="{n}" name="{name}" width="40" height="20">{shapes}</image>'
        for n, (name, shapes) in enumerate(images)
    )
    (data / "x.xml").write_text(f"<?xml version='1.0'?><annotations><version>1.1</version>{inside}</annotations>")
    return data / "x.xml"


def test_masks_and_polygons_of_cvat_by_their_layers(data):
    shapes = (
        '<polygon label="cat" points="20,0;40,0;40,20;20,20" z_order="1"/>'
        '<mask label="dog" rle="0, 2, 1, 1" left="3" top="4" width="2" height="2" z_order="0"/>'
        '<polygon label="dog" points="10,5;30,5;30,10;10,10" z_order="0"/><tag label="cat"/>'
    )
    expected = blank(
        0, (4, slice(3, 5), 2), (5, 4, 2), (slice(5, 10), slice(10, 30), 2), (slice(0, 20), slice(20, 40), 1)
    )
    same(labels_of(data, cvat(data, ("some/where/a.png", shapes), ("b.png", ""))), a=expected)


def test_sizes_of_cvat_may_be_written_as_fractions(data):
    box = cvat(data, ("a.png", '<box label="cat" xtl="9" ytl="2" xbr="30" ybr="9"/>'))
    plain = labels_of(data, box, "--kind", "boxes", "--box-fill", "none")
    box.write_text(box.read_text().replace('width="40" height="20"', 'width="40.0" height="20.0"'))
    same(labels_of(data, box, "--kind", "boxes", "--box-fill", "none"), **plain)


def test_lines_points_and_boxes_of_cvat(data):
    line = cvat(
        data,
        (
            "a.png",
            '<polyline label="cat" points="5.0,10.9;9.2,10.0"/><polyline label="background" points="30,2;30,5"/>',
        ),
    )
    expected = blank(255, (slice(9, 12), slice(4, 11), 1), (slice(1, 7), slice(29, 32), 0))
    same(labels_of(data, line, "--kind", "scribbles"), a=expected)
    points = cvat(data, ("b.png", '<points label="dog" points="8,9;20.5,9.5"/>'))
    same(labels_of(data, points, "--kind", "points"), b=disc(disc(blank(255), 9, 8, 2), 9, 20, 2))
    box = cvat(data, ("a.png", '<box label="cat" xtl="9.5" ytl="2.0" xbr="30.0" ybr="9.1"/>'))
    made = labels_of(data, box, "--kind", "boxes", "--box-fill", "none")
    same(made, a=blank(0, (slice(2, 10), slice(9, 30), 255)))


# -- COCO, ScribbleSup, CSV --------------------------------------------------------------------------------------------


def coco(data, *annotations, **more):
    table = {
        "images": [{"id": 4, "file_name": "a.png", "height": HEIGHT, "width": WIDTH}],
        "categories": [{"id": 1, "name": "cat"}, {"id": 9, "name": "dog"}],
        "annotations": [{"id": n, "image_id": 4, "iscrowd": 0, **one} for n, one in enumerate(annotations)],
    }
    (data / "x.json").write_text(json.dumps({**table, **more}))
    return data / "x.json"


def test_instances_of_coco_the_smaller_ones_on_top(data):
    runs = {"size": [20, 40], "counts": [0, 400, 400]}  # column by column: the left half
    square = [[15, 5, 25, 5, 25, 15, 15, 15]]
    small, large = {"category_id": 9, "segmentation": square}, {"category_id": 1, "segmentation": runs, "iscrowd": 1}
    expected = blank(0, (slice(0, 20), slice(0, 20), 1), (slice(5, 15), slice(15, 25), 2))
    same(labels_of(data, coco(data, small, large)), a=expected)
    same(labels_of(data, coco(data, large, small)), a=expected)


def test_boxes_of_coco(data):
    file = coco(data, {"category_id": 9, "bbox": [10, 2, 20, 8]})
    same(labels_of(data, file, "--kind", "boxes", "--box-fill", "none"), a=blank(0, (slice(2, 10), slice(10, 30), 255)))


def scribble_xml(*polygons):
    shapes = "".join(
        f"<polygon><tag>{tag}</tag>{''.join(f'<point><X>{x}</X><Y>{y}</Y></point>' for x, y in points)}</polygon>"
        for tag, *points in polygons
    )
    return f"<annotation><filename>a</filename><size><width>40</width><height>20</height></size>{shapes}</annotation>"


def test_scribbles_of_scribblesup(data):
    (data / "xml").mkdir()
    (data / "xml/a.xml").write_text(scribble_xml(("cat", (5, 10), (9, 10), (9, 14)), ("background", (30, 2), (30, 5))))
    (data / "xml/c.xml").write_text(scribble_xml(("cat", (5, 10), (9, 10))))  # of another list
    expected = blank(
        255, (slice(9, 12), slice(4, 11), 1), (slice(9, 16), slice(8, 11), 1), (slice(1, 7), slice(29, 32), 0)
    )
    same(labels_of(data, data / "xml", "--kind", "scribbles"), a=expected)
    same(labels_of(data, data / "xml/a.xml", "--kind", "scribbles"), a=expected)


def table(data, text):
    (data / "x.csv").write_text(text)
    return data / "x.csv"


def test_points_and_boxes_of_a_table(data):
    points = table(data, "image,class,x,y\na.png,cat,20,5\nb,dog,8.9,9\na.png,kitty,30,12\n")
    same(
        labels_of(data, points, "--kind", "points", "--rename", "kitty=cat"),
        a=disc(disc(blank(255), 5, 20, 1), 12, 30, 1),
        b=disc(blank(255), 9, 8, 2),
    )
    boxes = table(data, "image;class;x0;y0;x1;y1\na;cat;10;2;30;10\n")
    same(
        labels_of(data, boxes, "--kind", "boxes", "--box-fill", "none"), a=blank(0, (slice(2, 10), slice(10, 30), 255))
    )


def test_label_studio_called_annotations_completions_once(data):
    old = task("a.png", brush("cat", (slice(0, 4), slice(0, 4))))
    old["completions"] = [*old.pop("annotations"), {"result": [], "skipped": True}]
    same(labels_of(data, studio(data, old)), a=blank(0, (slice(0, 4), slice(0, 4), 1)))


# -- what is told to be wrong ------------------------------------------------------------------------------------------

BRUSH = brush("cat", (slice(0, 4), slice(0, 4)))
MASK = '<mask label="cat" rle="0,4" left="{}" top="0" width="{}" height="2"/>'
SKIPPED = {"result": [], "was_cancelled": True}
SQUARE = {"category_id": 1, "segmentation": [[1, 1, 5, 1, 5, 5]]}


@pytest.mark.parametrize(
    ("write", "more", "words"),
    [
        (
            lambda d: studio(d, task("a.png", BRUSH) | {"predictions": [1], "annotations": []}),
            (),
            "predictions are no labels",
        ),
        (lambda d: studio(d, task("a.png") | {"annotations": [SKIPPED]}), (), "no photograph that was drawn on"),
        (lambda d: studio(d, task("a.png") | {"annotations": []}), (), "no photograph that was drawn on"),
        (lambda d: studio(d, task("a.png", brush("bird", (1, 1)))), (), "result 1: 'bird' is no class"),
        (lambda d: studio(d, task("a.png", BRUSH), task("a.png", BRUSH)), (), "are of one photograph"),
        (lambda d: studio(d, task("a.png", BRUSH) | {"annotations": [{}, {}]}), (), "has 2 annotations"),
        (lambda d: studio(d, task("z.png", BRUSH)), (), "0 without a shape (photographs are named by their ids"),
        (lambda d: studio(d, task("a.png")), (), "1 without a shape (nothing is drawn on them"),
        (lambda d: studio(d, task("z", BRUSH)), (), "names no image in its data"),
        (lambda d: studio(d, task("a.png", ("ellipselabels", {}))), (), "is of type ellipselabels"),
        (
            lambda d: studio(d, task("a.png", ("brushlabels", {"rle": [0] * 40, "brushlabels": ["cat"]}))),
            (),
            "is no brush",
        ),
        (
            lambda d: studio(d, task("a.png", ("brushlabels", {**BRUSH[1], "rle": BRUSH[1]["rle"][:-3]}))),
            (),
            "ends too soon",
        ),
        (
            lambda d: studio(d, task("a.png", ("brushlabels", {"rle": [999], "brushlabels": ["cat"]}))),
            (),
            "is no brush",
        ),
        (lambda d: studio(d, task("a.png", polygon("cat", [50, 0], [100, "x"]))), (), "is no polygon"),
        (lambda d: studio(d, task("a.png", polygon("cat", [0, 0], [100, 0]))), (), "a polygon of 2 points"),
        (
            lambda d: studio(d, task("a.png", polygon("cat", [0, 0], [900, 0], [0, 9]))),
            (),
            "leaves the photograph of 40x20",
        ),
        (
            lambda d: studio(d, task("a.png", BRUSH, ("keypointlabels", {"x": 1, "y": 1, "keypointlabels": ["cat"]}))),
            (),
            "a point, where --kind mask needs mask or polygon",
        ),
        (lambda d: studio(d, {"image": "a.png", "label": []}), (), "has no data"),
        (lambda d: studio(d, 3), (), "has no data"),
        (lambda d: cvat(d, ("a.png", MASK.format(0, 3))), (), "do not add up to 3x2"),
        (lambda d: cvat(d, ("a.png", MASK.format(39, 2))), (), "leaves 40x20"),
        (lambda d: cvat(d, ("a.png", '<ellipse label="cat" cx="1"/>')), (), "ellipse 1 is not read"),
        (
            lambda d: cvat(d, ("a.png", '<box label="cat" xtl="1" ytl="1" xbr="5" ybr="5" rotation="3"/>')),
            ("--kind", "boxes"),
            "is not read",
        ),
        (
            lambda d: cvat(d, ("a.png", '<box label="cat" xtl="1" ytl="1" xbr="1" ybr="5"/>')),
            ("--kind", "boxes"),
            "holds no pixel",
        ),
        (
            lambda d: cvat(d, ("a.png", '<box label="cat" xtl="1.4" ytl="1" xbr="1.4" ybr="5"/>')),
            ("--kind", "boxes"),
            "holds no pixel",
        ),
        (lambda d: table(d, "image,class,x0,y0,x1,y1\na,cat,-9,-9,-5,-5\n"), ("--kind", "boxes"), "line 2: a box"),
        (
            lambda d: coco(d, SQUARE | {"segmentation": [[2, 2, 300, 3, 4, 4]]}),
            (),
            "x.json: image a.png: annotation 0 of image 4 is no shape: its polygon leaves the image",
        ),
        (
            lambda d: coco(d, SQUARE | {"id": None, "segmentation": [[2, 2, 300, 3, 4, 4]]}),
            (),
            "x.json: image a.png: an annotation of image 4 is no shape",
        ),
        (lambda d: coco(d, SQUARE | {"segmentation": [[2, 2, 3, 3]]}), (), "annotation 0: a mask that covers no pixel"),
        (
            lambda d: cvat(d, ("a.png", '<box label="background" xtl="1" ytl="1" xbr="5" ybr="5"/>')),
            ("--kind", "boxes"),
            "a box of the background",
        ),
        (lambda d: cvat(d, ("a.png", '<polygon label="cat" points="1,2;3;4,5"/>')), (), "points are x,y;x,y"),
        (lambda d: cvat(d, ("a.png", '<polygon points="1,2;3,4;4,5"/>')), (), "cannot be taken: it has no label"),
        (lambda d: write(d / "x.xml", "<annotations><track/></annotations>"), (), "is of a video"),
        (lambda d: write(d / "x.xml", "<annotations><image"), (), "is not valid XML"),
        (lambda d: write(d / "x.xml", ""), (), "is not valid XML"),
        (lambda d: write(d / "x.xml", "<html/>"), (), "begins with <html>"),
        (lambda d: write(d / "x.xml", scribble_xml(("cat",))), ("--kind", "scribbles"), "has no tag, or no points"),
        (lambda d: write(d / "x.xml", scribble_xml(("cat", ("p", 3)))), ("--kind", "scribbles"), "'p' is no number"),
        (lambda d: coco(d, {"category_id": 1, "bbox": [1, 2, 3, 4], "segmentation": []}), (), "of boxes alone"),
        (lambda d: coco(d, SQUARE), ("--kind", "boxes"), "has no bbox"),
        (lambda d: coco(d, SQUARE | {"bbox": [1, 2, float("nan"), 4]}), ("--kind", "boxes"), "points are no numbers"),
        (lambda d: coco(d, SQUARE | {"category_id": [1]}), (), "category_id [1], which is not listed"),
        (lambda d: studio(d, task("a.png", brush(3, (1, 1)))), (), "result 1 has the label 3"),
        (lambda d: cvat(d, ("a.png", '<polygn label="cat" points="1,2;3,4"/>')), (), "polygn 1 is not read"),
        (lambda d: coco(d, SQUARE | {"image_id": 5}), (), "image id 5, which it does not list"),
        (lambda d: coco(d, SQUARE | {"category_id": 5}), (), "category_id 5, which is not listed"),
        (
            lambda d: coco(d, SQUARE, images=[{"id": 4, "file_name": "a.png", "height": 5, "width": 5}]),
            (),
            "is 5x5, its photograph 40x20",
        ),
        (lambda d: coco(d, SQUARE, images=[]), (), "lists no images"),
        (
            lambda d: coco(d, SQUARE, images=[{"id": 4, "file_name": ".", "height": 20, "width": 40}]),
            (),
            "of 1 photograph 1 not of it, 0 without a shape",
        ),
        (lambda d: coco(d, SQUARE, categories=[{"id": 1}]), (), "lacks 'name'"),
        (
            lambda d: coco(d, SQUARE | {"image_id": [4]}),
            (),
            "an id of its images, categories or annotations is",
        ),
        (
            lambda d: studio(d, task("a.png") | {"annotations": ["x"]}),
            (),
            "is not as Label Studio exports it: a value",
        ),
        (
            lambda d: studio(d, task("a.png") | {"annotations": [{"result": [{"type": "brushlabels"}]}]}),
            (),
            "exports it: it has no value",
        ),
        (
            lambda d: cvat(d, ("a.png", MASK.format(0, 2).replace("0,4", "o,4"))),
            (),
            "cannot be taken: 'o' is no number",
        ),
        (lambda d: table(d, "image,class,x,y\n"), ("--kind", "points"), "has no rows"),
        (
            lambda d: write(d / "x.txt", "0 0.5 0.5 0.2 0.2\n"),
            ("--kind", "boxes"),
            "is YOLO's, which is not read",
        ),
        (lambda d: write(d / "x.json", '{"images": [}'), (), "is not valid JSON"),
        (lambda d: write(d / "x.json", "[{"), (), "is not valid JSON"),
        (lambda d: write(d / "x.json", '{"images": [], "annotations": null}'), (), "annotations is no list"),
        (lambda d: write(d / "x.xml", '<annotations><image name="a.png" width="9"/></annotations>'), (), "no height"),
        (
            lambda d: write(d / "x.xml", '<annotations><image name="a.png" width="9" height="20.5"/></annotations>'),
            (),
            "its height is '20.5', no whole number",
        ),
        (lambda d: table(d, "image,class,x,y\na,cat,1\n"), ("--kind", "points"), "3 fields where the header has 4"),
        (lambda d: table(d, "image,class,x,y\na,cat,left,2\n"), ("--kind", "points"), "line 2: left,2 are no numbers"),
        (lambda d: table(d, "image,class,x,y\na,cat,0.4,0.9\n"), ("--kind", "points"), "no coordinate is above 1"),
        (
            lambda d: table(d, "image,class,x0,y0,x1,y1\na,cat,1,2,20,30\nb,cat,0.1,0.2,0.4,0.9\n"),
            ("--kind", "boxes"),
            "line 3: no coordinate is above 1, elsewhere they are pixels",
        ),
        (lambda d: table(d, "image,class,x,y\na,cat,nan,9\n"), ("--kind", "points"), "no numbers"),
        (
            lambda d: table(d, "image,class,x,y\na,cat,90,9\n"),
            ("--kind", "points"),
            "line 2: a point leaves the photograph",
        ),
        (lambda d: table(d, "image,x,y\na,5,9\n"), ("--kind", "points"), "has the columns image,x,y"),
        (
            lambda d: table(d, "image,class,x,y\na,cat,5,9\n"),
            ("--kind", "boxes"),
            "a point, where --kind boxes needs box",
        ),
        (lambda d: write(d / "x.zip", ""), (), "unpack it"),
        (lambda d: write(d / "x.yaml", ""), (), "is no file of labels that is read"),
    ],
)
def test_a_file_that_cannot_be_taken_is_one_line_and_changes_nothing(data, write, more, words):
    labels_of(data, cvat(data, ("b.png", MASK.format(0, 2))))
    before = read_trusted(data / "data")
    with pytest.raises(DataError) as caught:
        labels_of(data, write(data), *more)
    assert words in str(caught.value) and "\n" not in str(caught.value)
    assert read_trusted(data / "data") == before


def write(file, text):
    file.write_text(text)
    return file


def test_a_rename_goes_to_a_class_and_is_of_no_folder_of_masks(data):
    with pytest.raises(UsageError, match=r"there is no class 'cow' .*classes are background, cat, dog"):
        labels_of(data, coco(data, SQUARE), "--rename", "cat=cow")
    with pytest.raises(DataError, match=r"there is no .*gone"):  # which no leaving out of --rename helps
        labels_of(data, data / "gone.json", "--rename", "cat=dog")
    with pytest.raises(UsageError, match="--rename is of the labels"):
        labels_of(data, data / "photos", "--rename", "cat=dog")


# -- boxes -------------------------------------------------------------------------------------------------------------


def test_a_crf_tells_what_is_inside_a_box(data):
    made = labels_of(data, table(data, "image,class,x0,y0,x1,y1\na,cat,9,3,31,17\n"), "--kind", "boxes")["a"]
    outside = np.ones((HEIGHT, WIDTH), bool)
    outside[3:17, 9:31] = False
    thing = np.zeros((HEIGHT, WIDTH), bool)
    thing[5:15, 12:28] = True
    assert (made[outside] == 0).all() and (made[thing] == 1).mean() > 0.95 and not (made[~thing] == 1).any()
    assert open_dataset(data / "data").split("train")[0].id == "a"
    (entry,) = read_trusted(data / "data").entries.values()
    assert (entry.kind, entry.source) == ("partial", "boxes from x.csv, inside told by a dense CRF")


def test_of_two_boxes_the_smaller_one_is_in_front_and_an_undecided_one_stays_open(data):
    file = table(data, "image,class,x0,y0,x1,y1\na,dog,12,5,28,15\na,cat,2,1,38,19\nb,undecided,9,3,31,17\n")
    made = labels_of(data, file, "--kind", "boxes")
    cats = np.zeros((HEIGHT, WIDTH), bool)
    cats[1:19, 2:38], cats[5:15, 12:28] = True, False  # no pixel of the middle fifth is left of it
    assert (made["a"][5:15, 12:28] == 2).mean() > 0.95 and (made["a"][cats] == 255).all()
    assert (made["a"][0] == 0).all()
    assert (made["b"][3:17, 9:31] == 255).all() and (made["b"][:3] == 0).all()


def test_label_maps_in_hidden_folders_are_copies_of_a_program(data):
    for name in ("a.png", ".ipynb_checkpoints/a-checkpoint.png"):
        (data / "maps" / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(data / "maps" / name), np.ones((HEIGHT, WIDTH), np.uint8))
    same(labels_of(data, data / "maps"), a=np.ones((HEIGHT, WIDTH), np.uint8))


def test_files_beside_label_maps_that_are_none_are_counted(data):
    (data / "maps").mkdir()
    cv2.imwrite(str(data / "maps/a.png"), np.ones((HEIGHT, WIDTH), np.uint8))
    for name in ("b.tif", "b.json", "notes.txt", ".b.tif"):
        (data / "maps" / name).touch()
    result = CliRunner().invoke(app, ["prepare", "labels", str(data / "data"), str(data / "maps")])
    assert "2 files not taken for label maps, whose names end in .png: b.json, b.tif\n" in result.stderr


@pytest.mark.parametrize(
    "more",
    [
        {"categories": [{"id": 1, "name": "cat"}, {"id": 1, "name": "dog"}]},
        {"images": [{"id": 4, "file_name": f"{name}.png", "height": HEIGHT, "width": WIDTH} for name in "ab"]},
    ],
)
def test_an_id_that_means_two_things_is_refused(data, more):
    with pytest.raises(DataError, match=r"of id [14] are .*(cat|a.png).* and .*(dog|b.png)"):
        labels_of(data, coco(data, SQUARE, **more))
    labels_of(data, coco(data, SQUARE, categories=[{"id": 1, "name": "cat"}] * 2))  # the same twice is no doubt


def test_the_folder_of_an_export_of_cvat_is_no_folder_of_scribbles(data):
    (data / "export").mkdir()
    cvat(data, ("a.png", '<mask label="cat" rle="0,4" left="0" top="0" width="2" height="2"/>')).rename(
        data / "export/annotations.xml"
    )
    with pytest.raises(DataError, match="begins with <annotations>") as refused:
        labels_of(data, data / "export")
    assert refused.value.hint == "of CVAT name the file itself, not its folder"
    assert list(labels_of(data, data / "export/annotations.xml")) == ["a"]


def test_a_polygon_of_cvat_without_points_is_named(data):
    with pytest.raises(DataError, match=r"image a[.]png, polygon 2: a polygon without points") as refused:
        labels_of(data, cvat(data, ("a.png", '<tag label="cat"/><polygon label="cat" points=""/>')))
    assert refused.value.hint == "draw it anew, or take it out"


# -- folders of label maps ---------------------------------------------------------------------------------------------


def maps_in(data, *maps):
    """A folder of label maps of the photographs a, b."""
    folder = data / "maps"
    folder.mkdir()
    for name, labels in zip("ab", maps, strict=False):
        cv2.imwrite(str(folder / f"{name}.png"), labels)
    return folder


EVERY = slice(None)
ROW = (slice(3, 4), EVERY, 1)


@pytest.mark.parametrize(
    ("kind", "maps", "said", "hint"),
    [
        (
            "scribbles",
            (blank(0, ROW), blank(0, ROW)),
            "all 2 label maps hold no 255: all that is not",
            "--kind",
        ),
        ("partial", (blank(0, ROW),), "maps: its one label map holds no 255", "255 where nothing is said"),
        ("scribbles", (blank(255), blank(255)), "hold 255 only: are objects 255", "class indices"),
        ("mask", (blank(0, (slice(3, 9), EVERY, 255)), blank(255)), "hold 0 and 255 only", "class indices"),
    ],
)
def test_label_maps_in_which_0_or_255_means_something_else_are_refused(data, kind, maps, said, hint):
    with pytest.raises(DataError, match=said) as caught:
        labels_of(data, maps_in(data, *maps), "--kind", kind)
    assert hint in caught.value.hint
    assert not read_trusted(data / "data").entries


def test_odd_label_maps_beside_others_are_taken_and_counted(data):
    folder = maps_in(data, blank(255, ROW), blank(0, ROW))
    result = CliRunner().invoke(app, ["prepare", "labels", str(data / "data"), str(folder), "--kind", "partial"])
    assert result.exit_code == 0 and "1 of 2 label maps hold no 255: all the rest is background" in result.stderr
    cv2.imwrite(str(folder / "b.png"), blank(255))
    result = CliRunner().invoke(app, ["prepare", "labels", str(data / "data"), str(folder), "--kind", "partial"])
    assert result.exit_code == 0 and "1 of 2 label maps hold 255 and no class" in result.stderr


def test_whole_masks_of_background_are_taken(data):
    """Without 255; and with it where the photograph has no tag and others have."""
    same(labels_of(data, maps_in(data, blank(0), blank(0, ROW))), a=blank(0), b=blank(0, ROW))
    rows = "id,image,mask,labels\na,../photos/a.png,,\nb,../photos/b.png,,cat\n"
    (data / "data/splits/train.csv").write_text(rows)
    (data / "maps/b.png").unlink()
    nothing = blank(0, (slice(3, 4), EVERY, 255))
    cv2.imwrite(str(data / "maps/a.png"), nothing)
    same(labels_of(data, data / "maps"), a=nothing)


def test_a_source_that_is_not_there_is_said_as_that(data):
    with pytest.raises(DataError, match=r"there is no .*corrected\.json") as caught:
        labels_of(data, data / "corrected.json")
    assert "a tool has exported" in caught.value.hint


@pytest.mark.parametrize("code", ["abc", 5_000_000_000, [1, "2"], {"counts": "abc"}, [256]])
def test_codes_that_are_no_bytes_are_said_as_that(code):
    with pytest.raises(ValueError, match="no list of bytes, 0 to 255"):
        decode_rle(code, (2, 3))


def test_codes_that_end_too_soon_are_said_as_that_wherever_they_end():
    code = encode_rle(np.eye(9, dtype=bool))
    for end in range(4, len(code)):
        with pytest.raises(ValueError, match="its code ends too soon"):
            decode_rle(code[:end], (9, 9))
