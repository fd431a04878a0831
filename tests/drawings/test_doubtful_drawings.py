"""Drawings that a reader could take for others than they are: outside, in shares, of another photograph, turned."""

import json
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from wsss_cli.cli.app import app
from wsss_cli.data.dataset import Sample
from wsss_cli.data.drawings.label_studio import write_label_studio
from wsss_cli.data.drawings.outgoing import Outgoing, Palette
from wsss_cli.data.sources.results import place_of, places_by_name
from wsss_cli.data.trusted import read_trusted
from wsss_cli.errors import DataError

WIDTH, HEIGHT = 40, 30
BOXES = ("--kind", "boxes", "--box-fill", "none")
NAMES = ("a", "b", "sub/é")


@pytest.fixture
def data(tmp_path):
    """Three photographs of 40 x 30, one in a folder and with an accent; classes cat and dog."""
    rows = "id,image,mask,labels\n"
    for name in NAMES:
        file = tmp_path / f"photos/{name}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (WIDTH, HEIGHT)).save(file)
        rows += f"{name},{file},,cat\n"
    (tmp_path / "data/splits").mkdir(parents=True)
    (tmp_path / "data/dataset.json").write_text('{"classes": ["background", "cat", "dog"]}')
    (tmp_path / "data/splits/train.csv").write_text(rows)
    return tmp_path


def prepare(data, name, text, *more):
    """Run `prepare labels` on a file of this text: exit code, stderr, label maps by photograph."""
    (data / name).write_text(text if isinstance(text, str) else json.dumps(text))
    return labels(data, data / name, *more)


def labels(data, path, *more):
    result = CliRunner().invoke(app, ["prepare", "labels", str(data / "data"), str(path), *more])
    said = " ".join(str(part) for part in (result.exception, getattr(result.exception, "hint", ""), result.stderr))
    trusted = read_trusted(data / "data")
    return result.exit_code, said, {name: trusted.of(name).read() for name in trusted.entries}


def coco(**one):
    image = {"id": 1, "file_name": "a.png", "width": WIDTH, "height": HEIGHT}
    return {
        "images": [image],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [{"id": 5, "image_id": 1, "category_id": 1} | one],
    }


def cvat(shapes, image="a.png"):
    return f'<annotations><image id="0" name="{image}" width="40" height="30">{shapes}</image></annotations>'


def studio(data, *results):
    """A task of shapes, each (name of what it is on, type, value)."""
    items = [
        {"type": f"{form}labels", "to_name": on, "original_width": WIDTH, "original_height": HEIGHT}
        | {"value": {**value, f"{form}labels": ["cat"]}}
        for on, form, value in results
    ]
    return [{"id": 3, "data": data, "annotations": [{"result": items}]}]


BOX = 'label="cat" xtl="{}" ytl="{}" xbr="{}" ybr="{}"'
SQUARE = {"points": [[50, 50], [100, 50], [100, 100], [50, 100]]}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("x.xml", cvat(f"<box {BOX.format(20, 10, 58, 20)}/>")),
        ("x.json", coco(bbox=[20, 10, 38, 18])),
        ("x.json", studio({"image": "a.png"}, ("image", "rectangle", {"x": 50, "y": 50, "width": 80, "height": 9}))),
        ("x.csv", "image,class,x0,y0,x1,y1\na,cat,5,20,12,38\n"),
    ],
)
def test_a_box_that_leaves_its_photograph_is_refused(data, name, text):
    code, said, made = prepare(data, name, text, *BOXES)
    assert code != 0 and "leaves the photograph of 40x30 pixels" in said and not made


def test_a_box_that_reaches_a_pixel_over_the_border_is_cut_there(data):
    code, _, made = prepare(data, "x.csv", "image,class,x0,y0,x1,y1\na,cat,-1,20.5,12,31\n", *BOXES)
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[20:30, :12] = 255
    assert code == 0 and (made["a"] == expected).all()


def test_polygons_of_coco_are_cut_at_the_border_up_to_a_tenth_of_the_longer_side(data):
    corners = [20, 10, 44, 10, 44, 34, 20, 34]
    code, _, made = prepare(data, "x.json", coco(segmentation=[corners]))
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[10:, 20:] = 1
    assert code == 0 and (made["a"] == expected).all()
    swapped = [2, 5, 2, 36, 28, 36, 28, 5]
    code, said, _ = prepare(data, "x.json", coco(segmentation=[swapped]))
    assert code != 0 and "annotation 5 of image 1" in said and "its polygon leaves the image of 40x30" in said
    assert "from 2,5 to 28,36; is it of another size, or are x and y swapped?" in said


@pytest.mark.parametrize(
    ("name", "text", "more"),
    [
        ("x.json", coco(bbox=[0.1, 0.2, 0.3, 0.4]), BOXES),
        ("x.json", coco(segmentation=[[0.1, 0.1, 0.9, 0.1, 0.9, 0.9, 0.1, 0.9]]), ()),
        ("x.xml", cvat(f"<box {BOX.format(0.1, 0.2, 0.3, 0.4)}/>"), BOXES),
        ("x.xml", cvat('<points label="cat" points="0.5,0.5"/>'), ("--kind", "points")),
        ("x.csv", "image,class,x,y\na,cat,0.4,0.7\n", ("--kind", "points")),
        ("x.json", studio({"image": "a.png"}, ("image", "keypoint", {"x": 0.5, "y": 0.9})), ("--kind", "points")),
    ],
)
def test_coordinates_that_are_shares_of_the_photograph_are_refused(data, name, text, more):
    code, said, made = prepare(data, name, text, *more)
    assert code != 0 and "no coordinate" in said and "above 1" in said and not made


def test_a_small_shape_beside_others_is_no_share(data):
    table = coco(segmentation=[[0, 0, 1, 0, 1, 1, 0, 1]])
    more = {"id": 6, "image_id": 1, "category_id": 1, "segmentation": [[5, 5, 9, 5, 9, 9, 5, 9]]}
    table["annotations"] += [more, {**more, "id": 7}]
    code, _, made = prepare(data, "x.json", table)
    assert code == 0 and made["a"].sum() == 17


def test_widths_beside_points_are_refused(data):
    for more in (BOXES, ("--kind", "points")):
        code, said, _ = prepare(data, "x.csv", "image,class,x,y,w,h\na,cat,5,5,3,3\n", *more)
        assert code != 0 and "image,class,x,y,w,h: are these boxes" in said and "x0,y0,x1,y1" in said


@pytest.mark.parametrize("folder", [False, True])
def test_boxes_of_pascal_voc_are_named_as_such(data, folder):
    box = "<xmin>1</xmin><ymin>1</ymin><xmax>5</xmax><ymax>5</ymax>"
    text = f"<annotation><object><name>cat</name><bndbox>{box}</bndbox></object></annotation>"
    (data / "boxes").mkdir()
    (data / "boxes/a.xml").write_text(text)
    code, said, _ = labels(data, data / ("boxes" if folder else "boxes/a.xml"), *BOXES)
    assert code != 0 and "Pascal VOC's boxes" in said and "image,class,x0,y0,x1,y1" in said


def test_of_several_images_of_a_task_that_is_meant_which_was_drawn_on(data):
    images = {"thumb": "b.png", "image": "/data/upload/1/1234abcd-a.png"}
    code, _, made = prepare(data, "x.json", studio(images, ("image", "polygon", SQUARE)))
    assert code == 0 and list(made) == ["a"] and made["a"].sum() == 300
    code, said, _ = prepare(data, "x.json", studio(images, ("img", "polygon", SQUARE)))
    assert code != 0 and "several images (thumb, image)" in said
    both = studio(images, ("image", "polygon", SQUARE), ("thumb", "polygon", SQUARE))
    code, said, _ = prepare(data, "x.json", both)
    assert code != 0 and "drawn on several photographs: image, thumb" in said
    same = {"image": "a.png", "preview": "a.png"}
    assert prepare(data, "x.json", studio(same, ("img", "polygon", SQUARE)))[0] == 0


@pytest.mark.parametrize("image", ["sub/é.png", "é.png"])
def test_a_photograph_is_found_by_a_name_whose_accents_are_written_by_themselves(data, image):
    name = unicodedata.normalize("NFD", image)
    assert name != image
    shape = '<polygon label="cat" points="5,5;15,5;15,15;5,15"/>'
    code, _, made = prepare(data, "x.xml", cvat(shape, name))
    assert code == 0 and list(made) == ["sub/é"] and made["sub/é"].sum() == 100
    (data / "maps/sub").mkdir(parents=True)
    Image.fromarray(made["sub/é"]).save(data / f"maps/{name}")
    assert labels(data, data / "maps")[0] == 0


@pytest.mark.parametrize(("orientation", "size"), [(3, (40, 30)), (2, (40, 30)), (6, (30, 30))])
def test_turned_photographs_are_counted_where_sizes_do_not_tell_how_they_were_drawn_on(data, orientation, size):
    exif = Image.Exif()
    exif[0x112] = orientation
    Image.new("RGB", size).save(data / "photos/a.png", exif=exif)
    (data / "maps").mkdir()
    Image.fromarray(np.eye(size[1], size[0], dtype=np.uint8)).save(data / "maps/a.png")
    Image.fromarray(np.eye(HEIGHT, WIDTH, dtype=np.uint8)).save(data / "maps/b.png")
    code, said, _ = labels(data, data / "maps")
    assert code == 0 and "1 photograph turned by EXIF, whose size does not tell" in said


def test_a_turned_photograph_of_other_sides_and_an_upright_one_are_not_counted(data):
    exif = Image.Exif()
    exif[0x112] = 6
    Image.new("RGB", (WIDTH, HEIGHT)).save(data / "photos/a.png", exif=exif)
    (data / "maps").mkdir()
    Image.fromarray(np.eye(WIDTH, HEIGHT, dtype=np.uint8)).save(data / "maps/a.png")
    code, said, _ = labels(data, data / "maps")
    assert code == 0 and "EXIF" not in said


def test_labels_of_classes_that_are_no_tags_are_counted(data):
    shape = '<polygon label="{}" points="5,5;15,5;15,15;5,15"/>'
    code, said, _ = prepare(data, "x.xml", cvat(shape.format("dog")))  # the photograph is tagged cat
    assert code == 0 and "1 photograph with labels of a class that is none of its tags: wsss verify" in said
    code, said, _ = prepare(data, "x.xml", cvat(shape.format("cat")))
    assert code == 0 and "none of its tags" not in said
    file = data / "data/splits/train.csv"
    file.write_text(file.read_text().replace(",cat\n", ",\n"))  # without tags nothing disagrees with them
    code, said, _ = prepare(data, "x.xml", cvat(shape.format("dog")))
    assert code == 0 and "none of its tags" not in said


def test_names_of_photographs_are_quoted_in_addresses_of_label_studio(tmp_path):
    one = Outgoing("a", "a.png", Path("/photos/a b/ü+1#2.png"), np.zeros((2, 2), np.uint8))
    for prefix, address in (
        ("/data/local-files/?d=", "/data/local-files/?d=photos/a%20b/%C3%BC%2B1%232.png"),
        ("https://server/", "https://server/photos/a%20b/%C3%BC%2B1%232.png"),
        ("s3://bucket/", "s3://bucket/photos/a b/ü+1#2.png"),
    ):
        with (tmp_path / "tasks.json").open("wb") as file:
            write_label_studio(file, [one], Palette(("background", "cat"), ((0, 0, 0), (9, 9, 9))), prefix)
        assert json.loads((tmp_path / "tasks.json").read_text())[0]["data"]["image"] == address


def sample(name, image):
    return Sample(name, Path(image), None, ())


def test_a_name_that_is_an_id_but_for_its_ending_means_that_photograph():
    """As `export-masks` writes it of a photograph beside a folder with another of its name."""
    places = places_by_name([sample("001", "/p/001.jpg"), sample("sub/001", "/p/sub/001.jpg")])
    assert [place_of(name, places) for name in ("001.jpg", "001", "sub/001.jpg", "sub\\001.png")] == [0, 0, 1, 1]
    for name in ("other/001.jpg", "/p/001.jpg"):
        with pytest.raises(DataError, match="more than one photograph"):
            place_of(name, places)
    places = places_by_name([sample("a", "/p/a.jpg"), sample("a.jpg", "/p/a.jpg.png")])
    assert [place_of(name, places) for name in ("a", "a.jpg", "a.jpg.png")] == [0, 0, 1]


def test_a_name_that_is_a_file_and_another_ones_id_means_the_file():
    """As `export-masks` writes it: a drawing on a.jpg came to lie on a.jpg.png."""
    places = places_by_name([sample("sub/a.jpg", "/p/sub/a.jpg.png"), sample("sub/a", "/p/sub/a.jpg")])
    assert [place_of(name, places) for name in ("sub/a.jpg", "sub\\a.jpg", "sub/a.jpg.png", "sub/a")] == [1, 1, 0, 1]
    places = places_by_name([sample("a", "/p/a.png"), sample("a.jpg", "/p/a.jpg.jpg")])
    assert [place_of(name, places) for name in ("a", "a.png", "a.jpg", "a.jpg.jpg")] == [0, 0, 1, 1]


def test_the_ending_of_a_label_map_is_none_of_its_photograph():
    places = places_by_name([sample("x", "/p/x.jpg"), sample("x.png", "/p/x.png.jpg"), sample("x.jpg", "/p/x.jpg.jpg")])
    names = ("x.png", "x.png.png", "x.jpg.png", "x.npz")
    assert [place_of(name, places, of_map=True) for name in names] == [0, 1, 2, 0]


def test_digits_behind_a_full_stop_are_no_ending():
    places = places_by_name([sample("photo", "/p/photo.jpg"), sample("v1.2", "/p/v1.2.png")])
    assert [place_of(name, places) for name in ("photo.1", "photo.png", "v1.2", "v1.2.png")] == [None, 0, 1, 1]


def test_a_label_may_be_renamed_to_what_is_not_scored(data):
    table = coco(segmentation=[[0, 0, 5, 0, 5, 5, 0, 5]])
    table["categories"][0]["name"] = "void"
    code, _, made = prepare(data, "x.json", table, "--rename", "void=undecided")
    assert code == 0 and (made["a"][:5, :5] == 255).all() and not made["a"][5:].any()


def test_a_rename_of_a_label_that_is_not_there_is_refused(data):
    table = coco(segmentation=[[0, 0, 5, 0, 5, 5, 0, 5]])
    code, said, made = prepare(data, "x.json", table, "--rename", "Kat=dog")
    assert code != 0 and "x.json is 'Kat'" in said and "labels: cat" in said and not made


def test_a_scribble_of_one_point_is_a_dot(data):
    """Three pixels wide, as a line is."""
    point = "<point><X>5.5</X><Y>9</Y></point>"
    (data / "scribbles").mkdir()
    (data / "scribbles/a.xml").write_text(f"<annotation><polygon><tag>cat</tag>{point}</polygon></annotation>")
    code, _, made = labels(data, data / "scribbles", "--kind", "scribbles")
    expected = np.full((HEIGHT, WIDTH), 255, np.uint8)
    expected[8:11, 4:7] = 1
    assert code == 0 and (made["a"] == expected).all()


HUGE = 10**9
CURVE = {"segmentation": [[1, 1, 20, 1, 20, 20]]}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("x.json", coco(**CURVE) | {"images": [{"id": 1, "file_name": "a.png", "width": HUGE, "height": HUGE}]}),
        ("x.xml", cvat(f'<mask label="cat" rle="0" left="0" top="0" width="{HUGE}" height="{HUGE}"/>')),
    ],
)
def test_a_size_beyond_memory_is_refused_before_anything_is_made_of_it(data, name, text):
    code, said, _ = prepare(data, name, text)
    assert code and "the limit is" in said and f"{HUGE}x{HUGE} pixels" in said


def test_ids_that_are_numbers_here_and_texts_there_are_named_as_such(data):
    code, said, _ = prepare(data, "x.json", coco(**{**CURVE, "image_id": "1"}))
    assert code and "image id '1', which it does not list" in said and "all as numbers" in said


def test_a_box_of_less_than_no_pixels_is_refused(data):
    code, said, _ = prepare(data, "x.json", coco(bbox=[20, 20, -10, 5]), *BOXES)
    assert code and "a bbox of -10 x 5 pixels" in said


def test_a_segmentation_of_another_form_is_not_said_to_be_none(data):
    for segmentation, says in (
        ("1 2 3 4", "has a segmentation that is text"),
        ([{"size": [HEIGHT, WIDTH], "counts": [WIDTH * HEIGHT]}], "that is a list of run-length codes"),
        ([], "has no segmentation"),
    ):
        code, said, maps = prepare(data, "a.json", coco(segmentation=segmentation, bbox=[1, 1, 5, 5]))
        assert code and says in said and not maps
        assert ("--kind boxes" in said) == (not segmentation)


def test_a_box_of_coco_that_is_rotated_is_refused(data):
    """CVAT exports the box before it was rotated, and the angle as an attribute: outside of it lay the object."""
    table = coco(bbox=[5, 5, 20, 10], attributes={"occluded": False, "rotation": 30.0})
    code, said, made = prepare(data, "x.json", table, *BOXES)
    assert code != 0 and "x.json: image a.png, annotation 5 is rotated" in said and not made
    table = coco(bbox=[5, 5, 20, 10], attributes={"occluded": False, "rotation": 0.0})
    code, said, made = prepare(data, "x.json", table, *BOXES)
    assert code == 0 and (made["a"] == 255).sum() == 200


def test_a_box_of_a_table_that_is_rotated_is_refused_and_columns_that_are_not_read_are_named(data):
    head = "image,class,x0,y0,x1,y1,angle,note"
    code, said, made = prepare(data, "x.csv", f"{head}\na,cat,5,5,25,15,0.0,\nb,cat,5,5,25,15,-30,old\n", *BOXES)
    assert code != 0 and "x.csv, line 3: a box that is rotated: angle is -30" in said and not made
    code, said, made = prepare(data, "x.csv", f"{head}\na,cat,5,5,25,15,0.0,\nb,cat,5,5,25,15,,old\n", *BOXES)
    assert code == 0 and "x.csv: not looked at: note\n" in said and len(made) == 2


def test_a_number_with_a_line_in_it_is_none(data):
    code, said, made = prepare(data, "x.csv", "image,class,x,y\na,cat,1_5,9\n", "--kind", "points")
    assert code != 0 and "x.csv, line 2: 1_5,9 are no numbers" in said and not made


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"category_id": "1"}, "of categories and the category_id of annotations all as numbers"),
        ({"category_id": True}, "category_id True, which is not listed"),
        ({"image_id": True}, "an image_id is true, neither a number nor text"),
        ({"segmentation": [1, 1, 20, 1, 20, 20]}, "a segmentation that is a list of numbers"),
        ({"segmentation": [[1, 1], [20, 1], [20, 20]]}, "a segmentation that is a list of points"),
    ],
)
def test_what_a_converter_writes_otherwise_is_named_as_that(data, change, words):
    code, said, _ = prepare(data, "x.json", coco(**{**CURVE, **change}))
    assert code and words in said


def test_a_category_that_is_a_number_with_a_point_is_taken(data):
    code, said, _ = prepare(data, "x.json", coco(**{**CURVE, "category_id": 1.0}))
    assert not code, said


def test_a_box_without_width_is_not_said_to_be_of_shares(data):
    for name, text in [
        ("x.json", coco(bbox=[0, 0, 0, 0], **CURVE)),
        ("x.csv", "image,class,x0,y0,x1,y1\na,cat,0,0,0,0\n"),
    ]:
        code, said, _ = prepare(data, name, text, "--kind", "boxes")
        assert code and "a box from 0,0 to 0,0 holds no pixel" in said
