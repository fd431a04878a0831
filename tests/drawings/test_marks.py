"""What tools write beside a shape, and what would change its meaning: counted, or refused."""

import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as rle_of
from typer.testing import CliRunner

from wsss_cli.cli.app import app
from wsss_cli.data.drawings import coco as drawn_coco
from wsss_cli.data.drawings.shapes import Shape, covered_by, label_map
from wsss_cli.data.sources import results
from wsss_cli.data.trusted import read_trusted

OVAL = [[5, 5, 15, 5, 15, 15, 9, 18]]


@pytest.fixture
def data(tmp_path):
    """Two photographs of 40 x 30; one class."""
    for name in "ab":
        Image.new("RGB", (40, 30)).save(tmp_path / f"{name}.png")
    (tmp_path / "data/splits").mkdir(parents=True)
    (tmp_path / "data/dataset.json").write_text('{"classes": ["background", "cat"]}')
    rows = "".join(f"{name},../{name}.png,,cat\n" for name in "ab")
    (tmp_path / "data/splits/train.csv").write_text("id,image,mask,labels\n" + rows)
    return tmp_path


def labels(data, name, content, *more):
    """Run `prepare labels` on a file: exit code, what it says, ids that have labels."""
    (data / name).write_text(content if isinstance(content, str) else json.dumps(content))
    result = CliRunner().invoke(app, ["prepare", "labels", str(data / "data"), str(data / name), *more])
    return result.exit_code, f"{result.exception} {result.stderr}", sorted(read_trusted(data / "data").entries)


def coco(*annotations, **image):
    return {
        "images": [{"id": 1, "file_name": "a.png", "width": 40, "height": 30} | image],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [{"id": n, "image_id": 1, "category_id": 1} | one for n, one in enumerate(annotations)],
    }


def studio(image, value, form="polygonlabels", **more):
    size = {"original_width": 40, "original_height": 30}
    result = {"id": "r", "type": form, "to_name": "image", **size, "value": {form: ["cat"]} | value, **more}
    return {"data": {"image": image}, "annotations": [{"result": [result]}]}


SQUARE = {"points": [[25, 25], [75, 25], [75, 75]], "closed": True}


def test_marks_of_coco_are_counted(data):
    oval = {"segmentation": OVAL}
    table = coco(
        oval | {"iscrowd": 1, "ignore": 0},
        oval | {"attributes": {"is_crowd": True, "occluded": True}},
        oval,
        deleted=True,
    )
    code, said, made = labels(data, "x.json", table)
    assert code == 0 and made == ["a"]
    assert "x.json: not looked at: deleted of 1, iscrowd of 1, is_crowd of 1; what is so marked is taken as" in said
    code, said, _ = labels(data, "x.json", coco(oval, not_exhaustive_category_ids=[1]))
    assert code == 0 and "not looked at: not_exhaustive_category_ids of 1;" in said
    code, said, _ = labels(data, "x.json", coco(oval | {"iscrowd": 0}))
    assert code == 0 and "not looked at" not in said


def test_marks_of_cvat_are_counted(data):
    shape = '<polygon label="cat" points="5,5;15,5;15,15;5,18"><attribute name="ignore">{}</attribute></polygon>'
    image = '<annotations><image id="0" name="a.png" width="40" height="30">{}</image></annotations>'
    for value, says in (("true", True), ("false", False)):
        code, said, made = labels(data, "x.xml", image.format(shape.format(value)))
        assert code == 0 and made == ["a"] and ("x.xml: not looked at: ignore of 1;" in said) == says


@pytest.mark.parametrize(
    ("polygon", "says"),
    [
        ([5, 5, 15, 5, 15, 15, 5, 15], True),
        ([5, 5, 5, 15, 15, 15, 15, 5, 5, 5], True),
        ([5, 5, 15, 5, 15, 15, 5, 16], False),
        ([5, 5, 15, 5, 15, 15], False),
    ],
)
def test_regions_that_are_upright_rectangles_are_asked_about(data, polygon, says):
    code, said, _ = labels(data, "x.json", coco({"segmentation": [polygon]}, {"segmentation": OVAL}))
    assert code == 0 and ("upright rectangles, as tools write boxes: 1 of 2 regions;" in said) == says
    code, said, _ = labels(data, "x.json", coco({"segmentation": [polygon]}, *[{"segmentation": OVAL}] * 2))
    assert code == 0 and "upright rectangles" not in said


def test_a_box_of_another_mode_is_refused(data):
    for mode, fits in ((0, False), (1, True)):
        table = coco({"bbox": [5, 5, 15, 15], "bbox_mode": mode})
        code, said, _ = labels(data, "x.json", table, "--kind", "boxes", "--box-fill", "none")
        assert (code == 0) == fits and ("has the bbox_mode 0" in said) != fits


def test_of_two_instances_of_one_size_that_of_the_larger_id_is_on_top_in_any_order(data):
    (data / "data/dataset.json").write_text('{"classes": ["background", "cat", "dog"]}')
    table = coco({"segmentation": OVAL}, {"segmentation": OVAL, "category_id": 2})
    table["categories"].append({"id": 2, "name": "dog"})
    for _ in range(2):
        assert labels(data, "x.json", table)[0] == 0
        assert read_trusted(data / "data").of("a").read()[10, 10] == 2
        table["annotations"].reverse()


def test_tasks_without_an_annotation_are_counted(data):
    tasks = [studio("a.png", SQUARE), *(studio("b.png", SQUARE) for _ in range(4))]
    tasks[1]["annotations"][0]["was_cancelled"] = True
    for task, key in zip(tasks[2:4], ("predictions", "drafts"), strict=True):
        task[key] = task.pop("annotations")
    tasks[4]["annotations"] = []
    code, said, made = labels(data, "x.json", tasks)
    assert code == 0 and made == ["a"]
    says = "4 of 5 tasks have no annotation: left out (1 with predictions, 1 with drafts, 1 with skipped ones)"
    assert f"x.json: {says}" in said
    code, said, _ = labels(data, "x.json", tasks[:1])
    assert code == 0 and "left out" not in said


def test_shapes_of_label_studio_that_are_none_are_refused(data):
    code, said, made = labels(data, "x.json", [studio("a.png", SQUARE | {"closed": False})])
    assert code and "result 1 is a polygon that is not closed" in said and not made
    point = ("a.png", {"x": 9, "y": 9, "width": 1}, "keypointlabels")
    for positive in (False, True):
        code, said, _ = labels(data, "x.json", [studio(*point, is_positive=positive)], "--kind", "points")
        assert (code == 0) == positive and ("says where its label is not" in said) != positive


def test_regions_of_photographs_that_are_not_of_the_list_are_not_made(data, monkeypatch):
    """A data set of some photographs, and a JSON of a hundred thousand: their regions took minutes."""
    made, covered = [], drawn_coco.covered_part
    monkeypatch.setattr(
        drawn_coco, "covered_part", lambda one, *size: (made.append(one["image_id"]), covered(one, *size))[1]
    )
    table = coco({"segmentation": OVAL}, {"segmentation": OVAL, "image_id": 2, "category_id": 2})
    table["images"].append({"id": 2, "file_name": "other.png", "width": 4000, "height": 3000})
    table["categories"].append({"id": 2, "name": "moggy"})
    code, said, ids = labels(data, "x.json", table, "--rename", "moggy=cat")
    assert (code, ids, made) == (0, ["a"], [1])
    assert "1 of 2 photographs in" in said and "are not of the list, first other.png: passed over" in said


def test_a_large_json_is_said_to_be_read(data, monkeypatch):
    assert "reading" not in labels(data, "x.json", coco({"segmentation": OVAL}))[1]
    monkeypatch.setattr(results, "LARGE", 100)
    assert f"reading {data / 'x.json'}, 0 MB" in labels(data, "x.json", coco({"segmentation": OVAL}))[1]


def rasterised(outline):
    return rle_of.decode(rle_of.merge(rle_of.frPyObjects([outline], 300, 320))) > 0


def test_of_a_region_the_part_that_it_covers_is_held(tmp_path):
    """Thousands of polygons on a photograph of 8 megapixels, each as a mask of all of it, are 80 GB."""
    rng = np.random.default_rng(0)
    corners = [rng.integers(1, 274, 2) for _ in range(30)]
    outlines = [(corner + rng.uniform(0, 25, (7, 2))).ravel().tolist() for corner in corners]
    outlines += [[-1.5, -1.5, 320.5, -1, 321, 2], [0, 299, 300, 299, 300, 300, 0, 300]]
    table = coco(*({"segmentation": [outline]} for outline in outlines), width=320, height=300)
    (tmp_path / "x.json").write_text(json.dumps(table))
    (drawing,) = drawn_coco.read_coco(tmp_path / "x.json")
    assert len(drawing.shapes) == len(outlines)
    for shape in drawing.shapes:
        number = int(shape.where.rpartition(" ")[2])
        assert shape.pixels.size <= 27 * 27 or number >= 30
        whole = rasterised(outlines[number])
        assert np.array_equal(covered_by(shape, (300, 320)), whole)
        assert np.array_equal(label_map([(shape, 1)], (300, 320), 0), whole)
    drawn = [Shape("cat", "polygon", np.array(outline).reshape(-1, 2), "x") for outline in outlines]
    for shape, outline in zip(drawn, outlines, strict=True):
        whole = rasterised(outline)
        assert np.array_equal(covered_by(shape, (300, 320)), whole)
        assert np.array_equal(label_map([(shape, 1)], (300, 320), 0), whole)
