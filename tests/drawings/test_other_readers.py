"""What is written is what the tools' own packages read, where these are installed; and what they write is read."""

import io
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from wsss_cli.data.drawings.coco import write_coco
from wsss_cli.data.drawings.cvat import write_cvat
from wsss_cli.data.drawings.incoming import read_drawings
from wsss_cli.data.drawings.label_studio import decode_rle, encode_rle, write_label_studio
from wsss_cli.data.drawings.outgoing import Outgoing, Palette
from wsss_cli.data.drawings.shapes import covered_by

PALETTE = Palette(("background", "cat", "dog & co"), ((0, 0, 0), (128, 0, 0), (0, 128, 0)))


def outgoing(folder, count=3):
    generator = np.random.default_rng(0)
    for number in range(count):
        mask = np.kron(generator.choice([0, 1, 2, 255], (6, 9)), np.ones((5, 4))).astype(np.uint8)
        yield Outgoing(f"id{number}", f"photo{number}.jpg", folder / f"photo{number}.jpg", mask)


def pixels_of(mask, label):
    return mask == {"cat": 1, "dog & co": 2, "undecided": 255}[label]


def test_label_studio_decodes_brushes_and_its_brushes_are_decoded(tmp_path):
    brush = pytest.importorskip("label_studio_sdk.converter.brush")
    for one in outgoing(tmp_path):
        pixels = one.mask == 1
        theirs = brush.decode_rle(encode_rle(pixels)).reshape(*pixels.shape, 4)
        assert (theirs == 255 * pixels[..., None]).all()
        assert (decode_rle(brush.mask2rle(255 * pixels.astype(np.uint8)), pixels.shape) == pixels).all()
    soft = np.random.default_rng(1).integers(0, 256, (7, 11, 4))  # no two values alike: no runs
    assert (decode_rle(brush.encode_rle(soft.ravel()), (7, 11)) == (soft[..., 3] > 0)).all()


def test_label_studio_converts_tasks(tmp_path):
    brush = pytest.importorskip("label_studio_sdk.converter.brush")
    with (tmp_path / "tasks.json").open("wb") as file:
        write_label_studio(file, outgoing(tmp_path), PALETTE)
    for one, task in zip(outgoing(tmp_path), json.loads((tmp_path / "tasks.json").read_text()), strict=True):
        results = task["predictions"][0]["result"]
        planes = brush.decode_from_annotation("label", [{**each["value"], **each} for each in results])
        assert len(planes) == len(results)
        for (name, plane), each in zip(planes.items(), results, strict=True):
            label = each["value"]["brushlabels"][0]
            assert label in name and ((plane > 0) == pixels_of(one.mask, label)).all()


def test_datumaro_reads_cvat_and_coco(tmp_path):
    datumaro = pytest.importorskip("datumaro")
    for form, write, name in (("cvat", write_cvat, "annotations.xml"), ("coco", write_coco, "instances_train.json")):
        folder = tmp_path / form / ("annotations" if form == "coco" else "")
        folder.mkdir(parents=True)
        (tmp_path / form / "images").mkdir()
        for one in outgoing(tmp_path):
            cv2.imwrite(str(tmp_path / form / "images" / one.name), np.zeros((*one.mask.shape, 3), np.uint8))
        with (folder / name).open("wb") as file:
            write(file, outgoing(tmp_path), PALETTE)
        read = datumaro.Dataset.import_from(str(tmp_path / form), "coco_instances" if form == "coco" else form)
        labels = [label.name for label in read.categories()[datumaro.AnnotationType.label]]
        items = {item.id: item for item in read}
        assert len(items) == 3
        for one in outgoing(tmp_path):
            (item,) = [item for name, item in items.items() if name.endswith(one.name[:-4])]
            masks = [each for each in item.annotations if each.type == datumaro.AnnotationType.mask]
            assert len(masks) == 3  # of COCO their boxes, too
            for each in masks:
                assert (np.asarray(each.image) > 0).tolist() == pixels_of(one.mask, labels[each.label]).tolist()


def test_what_datumaro_writes_is_read(tmp_path):
    datumaro = pytest.importorskip("datumaro")
    pixels = np.zeros((30, 36), np.uint8)
    pixels[4:9, 5:20] = 1
    image = datumaro.Image.from_numpy(np.zeros((30, 36, 3), np.uint8))
    items = [
        datumaro.DatasetItem("a", subset="train", media=image, annotations=[datumaro.Mask(pixels, label=0)]),
        datumaro.DatasetItem(
            "b",
            subset="train",
            media=image,
            annotations=[datumaro.Polygon([2, 2, 12, 2, 12, 8, 2, 8], label=1)],
        ),
    ]
    written = datumaro.Dataset.from_iterable(items, categories=["cat", "dog"])
    written.export(str(tmp_path / "coco"), "coco_instances", save_media=False)
    drawings = {one.image: one for one in read_drawings(next((tmp_path / "coco").rglob("*.json")), "mask")}
    a, b = (next(one for name, one in drawings.items() if name.startswith(letter)) for letter in "ab")
    assert a.size == (30, 36) and (covered_by(a.shapes[0], a.size) == (pixels > 0)).all() and a.shapes[0].label == "cat"
    assert covered_by(b.shapes[0], b.size)[2:8, 2:12].all() and b.shapes[0].label == "dog"
    written.export(str(tmp_path / "cvat"), "cvat", save_media=False)
    drawings = {one.image: one for one in read_drawings(next((tmp_path / "cvat").rglob("*.xml")), "mask")}
    b = next(one for name, one in drawings.items() if name.startswith("b"))
    assert [(shape.form, shape.label) for shape in b.shapes] == [("polygon", "dog")]
    assert covered_by(b.shapes[0], b.size)[2:8, 2:12].all()
    table = json.loads(next((tmp_path / "coco").rglob("*.json")).read_text())
    assert any(one["iscrowd"] for one in table["annotations"])  # so it calls all that was painted with a brush


def test_photographs_at_urls_are_found_there():
    one = Outgoing("1", "1.jpg", Path("s3://bucket/trip/1.jpg"), np.zeros((2, 3), np.uint8))
    file = io.BytesIO()
    write_label_studio(file, [one], PALETTE)
    assert json.loads(file.getvalue())[0]["data"]["image"] == "s3://bucket/trip/1.jpg"
