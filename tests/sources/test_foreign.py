"""Labels of tools that are not read are said to be what they are, wherever masks are looked for."""

import json

import pytest

from wsss_cli.data.drawings.coco import read_coco
from wsss_cli.data.sources.foreign import in_place_of_pngs
from wsss_cli.data.sources.mask_checks import refuse_unmatched
from wsss_cli.errors import DataError
from wsss_cli.scoring.masks import pair_masks

LABELME = json.dumps({"shapes": [], "imagePath": "1.jpg", "imageHeight": 4, "imageWidth": 4})
FILES = [
    ("1.json", LABELME, "labelme's", "COCO JSON"),
    ("1.json", json.dumps({"imgHeight": 4, "objects": []}), "Cityscapes'", "COCO JSON"),
    ("1.json", json.dumps({"1.jpg9": {"filename": "1.jpg", "regions": []}}), "VIA's", "COCO JSON"),
    ("1.json", json.dumps({"size": {"height": 4}, "objects": []}), "Supervisely's", "COCO JSON"),
    ("1.json", json.dumps({"type": "FeatureCollection", "features": []}), "GeoJSON", "COCO JSON"),
    ("1.txt", "0 0.1 0.1 0.5 0.5\n", "YOLO's", "COCO JSON"),
    ("1.txt", "", "1.txt", "label maps are PNGs"),
    ("1.json", "{", "1.json", "name the file"),
    ("1.jpg", "", "1.jpg", "JPEG changes"),
    ("1.TIF", "", "1.TIF", "class indices"),
    ("1.npy", "", "1.npy", "class indices"),
    ("1.xml", "<a/>", "1.xml", "CVAT"),
]


@pytest.mark.parametrize(("name", "text", "said", "hint"), FILES)
def test_a_folder_without_a_png_is_said_to_hold_what_it_holds(tmp_path, name, text, said, hint):
    (tmp_path / name).write_text(text)
    lies, how = in_place_of_pngs(tmp_path)
    assert said in lies and hint in (how or "label maps are PNGs")
    (tmp_path / "true").mkdir()
    (tmp_path / "true" / "1.png").write_bytes(b"x")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / name).write_text(text)
    with pytest.raises(DataError, match=said):
        pair_masks(tmp_path / "other", tmp_path / "true")
    with pytest.raises(DataError, match=said):
        refuse_unmatched(["1.png"], tmp_path / "other")


def test_an_empty_folder_holds_nothing(tmp_path):
    assert in_place_of_pngs(tmp_path) == ("", "")


@pytest.mark.parametrize(("name", "text", "said", "hint"), FILES[:5])
def test_a_json_of_another_tool_is_said_to_be_one(tmp_path, name, text, said, hint):
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=f"is {said}") as refused:
        list(read_coco(tmp_path / name))
    assert hint in refused.value.hint
