"""Sizes of photographs in files of labels: another one is refused, however it is written, and the cause is said."""

import json

import pytest
from PIL import Image
from typer.testing import CliRunner

from wsss_cli.cli.app import app
from wsss_cli.data.trusted import read_trusted

HEIGHT, WIDTH = 30, 40
SQUARE = [4, 4, 14, 4, 14, 14, 5, 15]


@pytest.fixture
def data(tmp_path):
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "a.png")
    (tmp_path / "data/splits").mkdir(parents=True)
    (tmp_path / "data/dataset.json").write_text('{"classes": ["background", "cat"]}')
    (tmp_path / "data/splits/train.csv").write_text(f"id,image,mask,labels\na,{tmp_path}/a.png,,cat\n")
    return tmp_path


def run(data, table, command, *more):
    (data / "x.json").write_text(json.dumps(table))
    result = CliRunner().invoke(app, [*command, str(data / "data"), str(data / "x.json"), *more])
    said = " ".join(str(part) for part in (result.exception, getattr(result.exception, "hint", ""), result.stderr))
    return result.exit_code, said


def labels(data, table):
    code, said = run(data, table, ("prepare", "labels"))
    trusted = read_trusted(data / "data")
    return code, said, [int((trusted.of(name).read() == 1).sum()) for name in trusted.entries]


def scores(data, table):
    return run(data, table, ["import-scores"], "--teacher", "T", "--runs", str(data / "runs"))


def coco(height, width, outline=SQUARE, segmentation=None):
    image = {"id": 1, "file_name": "a.png", "height": height, "width": width}
    shape = {"id": 5, "image_id": 1, "category_id": 1, "segmentation": segmentation or [outline]}
    return {"images": [image], "categories": [{"id": 1, "name": "cat"}], "annotations": [shape]}


def label_studio(height, width):
    value = {"points": [[10, 10], [40, 10], [40, 50]], "polygonlabels": ["cat"]}
    one = {"type": "polygonlabels", "to_name": "image", "value": value}
    one |= {"original_height": height, "original_width": width}
    return [{"id": 1, "data": {"image": "a.png"}, "annotations": [{"result": [one]}]}]


@pytest.mark.parametrize("table", [coco, label_studio])
def test_whole_numbers_with_a_point_are_sizes(data, table):
    code, _, exact = labels(data, table(HEIGHT, WIDTH))
    assert code == 0 and exact
    assert labels(data, table(float(HEIGHT), float(WIDTH))) == (0, labels(data, table(HEIGHT, WIDTH))[1], exact)


@pytest.mark.parametrize("sides", [("30", "40"), (30.5, 40), (0, 0), (-30, -40), (True, True)])
@pytest.mark.parametrize("table", [coco, label_studio])
def test_what_is_no_size_is_called_that_and_not_absent(data, table, sides):
    code, said, made = labels(data, table(*sides))
    assert code and not made
    assert "no whole numbers above 0" in said and "write both as numbers" in said and "has no " not in said


def test_a_photograph_that_was_scaled_is_not_told_of_exif(data):
    code, said, made = labels(data, coco(2 * HEIGHT, 2 * WIDTH))
    assert code and not made and "is 80x60, its photograph 40x30" in said
    assert "scaled" in said and "EXIF" not in said
    code, said, made = labels(data, coco(WIDTH, HEIGHT))
    assert code and not made and "EXIF" in said and "scaled" not in said


@pytest.mark.parametrize("sides", [("15", "20"), (15.5, 20.0), (None, 20), (15, 0)])
def test_scores_whose_photographs_have_sizes_that_are_none_are_refused(data, sides):
    """They were taken as if no size were listed: of a photograph that was scaled all shapes lay in a corner."""
    code, said = scores(data, coco(*sides, outline=[2, 2, 7, 2, 7, 8]))
    assert code and "no whole numbers above 0" in said and "or leave both out" in said
    assert not list(data.rglob("*.npz"))


@pytest.mark.parametrize("sides", [(30, 40), (30.0, 40.0), (None, None), (0, 0)])
def test_scores_whose_photographs_have_their_sizes_or_none_are_taken(data, sides):
    code, _ = scores(data, coco(*sides))
    assert code == 0 and list(data.rglob("*.npz"))


def test_lists_within_lists_are_named_as_that_by_both_commands(data):
    """import-scores said that no outline covers more than a pixel, and asked for pixels."""
    table = coco(HEIGHT, WIDTH, segmentation=[[SQUARE], [SQUARE]])
    for code, said in (scores(data, table), labels(data, table)[:2]):
        assert (
            code and "a segmentation that is a list of lists of points" in said and "[[x, y, x, y, ...], ...]" in said
        )


def test_polygons_beside_run_length_codes_and_numbers_that_are_none_are_named(data):
    mixed = [SQUARE, {"size": [HEIGHT, WIDTH], "counts": [HEIGHT * WIDTH]}]
    assert "a list of parts of several kinds" in labels(data, coco(HEIGHT, WIDTH, segmentation=mixed))[1]
    said = labels(data, coco(HEIGHT, WIDTH, segmentation=[SQUARE, [float("nan")] * 6]))[1]
    assert "is no finite number" in said and "leaves the image" not in said
