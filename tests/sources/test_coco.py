from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from wsss_cli.data.dataset import Dataset
from wsss_cli.data.images import read_image
from wsss_cli.data.masks import BORDER_COLOR, read_mask
from wsss_cli.data.sources import painting
from wsss_cli.data.sources.coco import LABELLED, OFFICIAL, _protocol, coco_preparation, prepare_coco
from wsss_cli.data.sources.coco_root import ARCHIVES, download_coco, find_coco
from wsss_cli.data.sources.instances import Instances, Listed, Span
from wsss_cli.data.sources.summary import Prepared
from wsss_cli.engine.shards import Shard, shard_of
from wsss_cli.errors import DataError
from wsss_cli.labels import voc_palette
from wsss_cli.stages.prepare_shards import prepare_shard

CAT, DOG = 17, 18  # ids of the categories; their classes are 2 and 3, that of person 1
Record = dict[str, Any]


def _box(left: int, top: int, right: int, bottom: int) -> list[int]:
    return [left, top, right, top, right, bottom, left, bottom]


def _record(split: str) -> Record:
    """Two labelled images of 16x12 pixels, one with a crowd region alone and one with nothing."""
    names = {1: "one", 2: "two", 3: "crowd", 4: "none"}
    images = [
        {"id": key, "file_name": f"COCO_{split}2014_{name}.jpg", "height": 12, "width": 16}
        for key, name in names.items()
    ]
    crowd = {"size": [12, 16], "counts": [0, 24, 168]}  # the columns 0 and 1
    shapes: list[tuple[int, int, int, Any, int]] = [
        (101, 1, CAT, [_box(0, 0, 10, 8)], 0),
        (102, 1, DOG, [_box(8, 2, 14, 6)], 0),
        (103, 1, 1, crowd, 1),
        (104, 2, DOG, [_box(3, 3, 5, 5), _box(10, 3, 12, 5)], 0),
        (105, 3, CAT, crowd, 1),
    ]
    annotations = [
        {"id": number, "image_id": image, "category_id": category, "segmentation": shape, "iscrowd": iscrowd}
        for number, image, category, shape, iscrowd in shapes
    ]
    categories = [{"id": DOG, "name": "dog"}, {"id": 1, "name": "person"}, {"id": CAT, "name": "big cat"}]
    return {"images": images, "annotations": annotations, "categories": categories}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "coco"
    (root / "annotations").mkdir(parents=True)
    for split in ("train", "val"):
        (root / f"{split}2014").mkdir()
        _write(root, split, _record(split))
        for image in _record(split)["images"]:
            Image.new("RGB", (16, 12)).save(root / f"{split}2014" / image["file_name"])
    return root


def _write(root: Path, split: str, record: Record) -> None:
    (root / "annotations" / f"instances_{split}2014.json").write_text(json.dumps(record))


def _change(root: Path, split: str, change: Callable[[Record], object]) -> None:
    record = _record(split)
    change(record)
    _write(root, split, record)


def _prepare(root: Path, out: Path, **changes: Any) -> Dataset:
    return prepare_coco(root, out, "coco", check=lambda: None, **changes).dataset


def _names(made: Dataset, split: str) -> list[str]:
    return [sample.id.removeprefix(f"COCO_{split}2014_") for sample in made.split(split)]


def _masks(out: Path) -> dict[str, int]:
    return {path.stem: path.stat().st_mtime_ns for path in (out / "masks").glob("*.png")}


ONE = [
    [2] * 10 + [0] * 6,
    [2] * 10 + [0] * 6,
    *[[2] * 8 + [3] * 6 + [0] * 2] * 4,
    [2] * 10 + [0] * 6,
    [2] * 10 + [0] * 6,
    *[[255] * 2 + [0] * 14] * 4,
]


def test_masks_tags_splits_and_classes(root: Path, tmp_path: Path) -> None:
    made = _prepare(root, tmp_path / "out")
    assert made.classes == ("background", "person", "big cat", "dog")
    assert made.colors == voc_palette(4)
    assert _names(made, "train") == ["one", "two"]
    assert _names(made, "val") == ["crowd", "none", "one", "two"]
    samples = {sample.id: sample for sample in made.split("val")}
    assert [samples[f"COCO_val2014_{name}"].labels for name in ("one", "two", "crowd", "none")] == [
        (2, 3),
        (3,),
        (),
        (),
    ]
    masks = {name: read_mask(samples[f"COCO_val2014_{name}"].mask or "") for name in ("one", "two", "crowd", "none")}
    assert masks["one"].tolist() == ONE
    parts = [0] * 3 + [3] * 2 + [0] * 5 + [3] * 2 + [0] * 4
    assert masks["two"].tolist() == [[0] * 16] * 3 + [parts] * 2 + [[0] * 16] * 7
    assert masks["crowd"].tolist() == [[255] * 2 + [0] * 14] * 12
    assert not masks["none"].any()
    assert samples["COCO_val2014_one"].image == root / "val2014" / "COCO_val2014_one.jpg"
    assert len(_masks(tmp_path / "out")) == 6  # of images in a split


def test_val_without_untagged_images(root: Path, tmp_path: Path) -> None:
    made = _prepare(root, tmp_path / "out", keep_unlabelled=False)
    assert _names(made, "val") == ["one", "two"]
    assert any("val: the 2 of 4 images with a tag" in note for note in made.protocol)


def test_the_protocol_says_what_was_made(root: Path, tmp_path: Path) -> None:
    notes = _prepare(root, tmp_path / "out").protocol
    assert notes[0] == "tags: categories of the instances that are no crowd regions"
    assert "larger instances first (by pixels; ties: smaller annotation id first)" in notes[1]
    assert notes[2] == "train: the 2 of 4 images with a tag; val: all 4 images, 2 with a tag"
    assert notes[3:] == ("subset: 4 of 82,783 train images, 4 of 40,504 val images, 3 of 80 classes",)


def test_the_full_set_is_no_subset_and_other_annotations_are_noted() -> None:
    def part(split: str, tagged: int) -> Instances:
        spans = (Span(1, False, 0, 1),)
        images = tuple(Listed("x", 1, 1, spans if index < tagged else ()) for index in range(OFFICIAL[split]))
        return Instances(Path("x.json"), {}, images)

    parts = {split: part(split, LABELLED[split]) for split in OFFICIAL}
    notes = _protocol(parts, 80, True, "0")
    assert notes[2:] == ["train: the 82,081 of 82,783 images with a tag; val: all 40,504 images, 40,137 with a tag"]
    notes = _protocol(parts | {"val": part("val", 40000)}, 80, False, "0")
    assert "val: the 40,000 of 40,504 images with a tag" in notes[2]
    assert notes[3:] == ["other annotations: the literature has 82,081 and 40,137 with a tag"]


def test_81_distinct_colours() -> None:
    colors = voc_palette(81)
    assert len({*colors, BORDER_COLOR}) == 82
    assert colors[0] == (0, 0, 0)


def test_the_manifest_is_the_same_wherever_and_however_often_it_is_made(root: Path, tmp_path: Path) -> None:
    def note(made: Dataset) -> str:
        return made.protocol[1]

    first, times = _prepare(root, tmp_path / "out"), _masks(tmp_path / "out")
    text = (tmp_path / "out" / "masks" / "manifest.txt").read_text()
    pixels = bytes(value for row in ONE for value in row)
    assert f"COCO_train2014_one {hashlib.sha256(b'12x16' + bytes([10]) + pixels).hexdigest()}" in text.splitlines()
    assert text.splitlines() == sorted(text.splitlines())
    assert hashlib.sha256(text.encode()).hexdigest() in note(first)
    again = _prepare(root, tmp_path / "out")
    assert (note(again), again.fingerprint) == (note(first), first.fingerprint)
    assert _masks(tmp_path / "out") == times
    _change(root, "train", lambda record: record["annotations"].reverse())
    shuffled = _prepare(root, tmp_path / "elsewhere")
    assert (note(shuffled), shuffled.fingerprint) == (note(first), first.fingerprint)
    _change(root, "train", lambda record: record["annotations"][0].update(segmentation=[_box(0, 0, 9, 8)]))
    other = _prepare(root, tmp_path / "other")
    assert note(other) != note(first)
    assert other.fingerprint != first.fingerprint


def test_a_broken_run_goes_on_with_the_masks_that_are_missing(root: Path, tmp_path: Path) -> None:
    first, times = _prepare(root, tmp_path / "out"), _masks(tmp_path / "out")
    masks = tmp_path / "out" / "masks"
    (masks / "COCO_train2014_one.png").unlink()
    (masks / "COCO_val2014_two.png").write_bytes((masks / "COCO_val2014_two.png").read_bytes()[:60])  # damaged
    ticks: list[tuple[int, int]] = []
    again = _prepare(root, tmp_path / "out", tick=lambda done, total: ticks.append((done, total)))
    assert again.protocol == first.protocol
    assert read_mask(masks / "COCO_train2014_one.png").tolist() == ONE
    changed = {name for name, time in _masks(tmp_path / "out").items() if time != times[name]}
    assert changed == {"COCO_train2014_one", "COCO_val2014_two"}
    assert ticks == [(done, 6) for done in range(1, 7)]


def test_a_file_name_with_its_folder_is_told_apart_from_an_archive_cut_off(root: Path, tmp_path: Path) -> None:
    record = _record("train")
    record["images"][0]["file_name"] = f"train2014/{record['images'][0]['file_name']}"
    _write(root, "train", record)
    with pytest.raises(DataError, match=r"are not in .*, the first: train2014/COCO_train2014_one\.jpg") as caught:
        _prepare(root, tmp_path / "out")
    assert "without folders before it" in caught.value.hint


def test_other_annotations_make_every_mask_anew(root: Path, tmp_path: Path) -> None:
    _prepare(root, tmp_path / "out")
    _change(root, "val", lambda record: record["annotations"].pop(0))
    made = _prepare(root, tmp_path / "out")
    mask = made.split("val")[2].mask
    assert mask is not None and read_mask(mask)[:2].tolist() == [[255] * 2 + [0] * 14] * 2
    (tmp_path / "out" / "masks" / "COCO_val2014_stray.png").write_bytes(b"")
    _write(root, "val", _record("val"))
    _prepare(root, tmp_path / "out")
    assert "COCO_val2014_stray" not in _masks(tmp_path / "out")


def test_worker_processes_make_the_same(root: Path, tmp_path: Path, processes_at_once: None) -> None:
    def many(record: Record) -> None:
        for number in range(70):
            record["images"].append({"id": 10 + number, "file_name": f"{number}.jpg", "height": 12, "width": 16})
            box = {"id": 1000 + number, "image_id": 10 + number, "category_id": DOG, "segmentation": [_box(0, 0, 4, 4)]}
            record["annotations"].append(box)

    _change(root, "train", many)
    for number in range(70):
        Image.new("RGB", (16, 12)).save(root / "train2014" / f"{number}.jpg")
    alone, beside = _prepare(root, tmp_path / "1"), _prepare(root, tmp_path / "2", workers=2)
    assert len(alone.split("train")) == 72
    assert alone.protocol == beside.protocol


def _cut(root: Path) -> None:
    path = root / "annotations" / "instances_val2014.json"
    path.write_bytes(path.read_bytes()[:-200])


def _shrink(root: Path) -> None:
    Image.new("RGB", (8, 12)).save(_image(root))


def _image(root: Path) -> Path:
    return root / "val2014" / "COCO_val2014_two.jpg"


def _first(key: str, **changes: Any) -> Callable[[Path], None]:
    return lambda root: _change(root, "val", lambda record: record[key][0].update(changes))


@pytest.mark.parametrize(
    ("harm", "says", "advises"),
    [
        (_cut, "instances_val2014.json is not valid JSON at byte", "cut off"),
        (lambda root: _image(root).unlink(), "1 of 4 images .* COCO_val2014_two.jpg", "unpack"),
        (_shrink, "two.jpg is 8x12 pixels, in instances_val2014.json it is 16x12", "original"),
        (lambda root: _image(root).write_bytes(b"x"), "cannot be read as an image", "fetch"),
        (_first("annotations", category_id=2), "unknown category id 2", "3 categories, ids 1 to 18"),
        (_first("annotations", image_id=99), "1 annotations belong to images that it does not list", "shortened"),
        (_first("annotations", segmentation=[[1, 2, 3]]), "instances_val2014.json: annotation 101 of image 1", ""),
        (_first("categories", name="wolf"), "different categories", "annotations_trainval2014.zip"),
        (lambda root: _change(root, "train", lambda one: one["annotations"].clear()), "no image of .*train2014", ""),
    ],
)  # fmt: skip
def test_bad_input_is_named_and_leaves_no_data_set(
    root: Path, tmp_path: Path, harm: Callable[[Path], object], says: str, advises: str
) -> None:
    harm(root)
    with pytest.raises(DataError, match=says) as caught:
        _prepare(root, tmp_path / "out")
    assert advises in caught.value.hint
    assert not (tmp_path / "out" / "dataset.json").exists()


def test_two_images_whose_masks_would_have_one_name_are_refused(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root / "train2014", root / "val2014", dirs_exist_ok=True)
    _write(root, "val", _record("train"))
    with pytest.raises(DataError, match=r"train and val.*COCO_train2014_one"):
        _prepare(root, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_images_that_no_split_needs_may_be_missing(root: Path, tmp_path: Path) -> None:
    (root / "train2014" / "COCO_train2014_none.jpg").unlink()
    assert _names(_prepare(root, tmp_path / "out"), "train") == ["one", "two"]


def test_coco_is_looked_for(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WSSS_DATA", raising=False)
    assert find_coco(root) == root
    monkeypatch.chdir(tmp_path)
    assert find_coco(None) == Path("coco")
    (tmp_path / "data").mkdir()
    root.rename(tmp_path / "data" / "COCO")
    assert find_coco(None) == Path("data/COCO")
    (tmp_path / "data" / "COCO").rename(tmp_path / "data" / "elsewhere")
    with pytest.raises(DataError, match="no COCO found") as caught:
        find_coco(None)
    assert "images.cocodataset.org" in caught.value.hint and "Looked in ./coco" in caught.value.hint
    assert "coco/annotations/instances_{train,val}2014.json" in caught.value.hint
    for place in (tmp_path / "data" / "elsewhere", tmp_path / "data"):
        monkeypatch.setenv("WSSS_DATA", str(place))
        if place.name == "data":
            (place / "elsewhere").rename(place / "coco2").rename(place / "COCO")
        assert find_coco(None).resolve() in (place.resolve(), (place / "COCO").resolve())
    with pytest.raises(DataError, match="no COCO in nowhere") as caught:
        find_coco(Path("nowhere"))
    assert "Looked in" not in caught.value.hint


def test_a_missing_part_is_named(root: Path) -> None:
    (root / "annotations" / "instances_train2014.json").unlink()
    with pytest.raises(DataError, match=r"no annotations/instances_train2014\.json") as caught:
        find_coco(root)
    assert "annotations_trainval2014.zip" in caught.value.hint


def test_image_folders_may_lie_in_images(root: Path, tmp_path: Path) -> None:
    (root / "images").mkdir()
    for split in ("train", "val"):
        (root / f"{split}2014").rename(root / "images" / f"{split}2014")
    assert find_coco(root) == root
    made = _prepare(root, tmp_path / "out")
    assert made.split("train")[0].image == root / "images" / "train2014" / "COCO_train2014_one.jpg"


def _zipped(root: Path, home: Path) -> None:
    """The archives of COCO, in the folder where they are unpacked."""
    for name, folder in (("annotations_trainval", "annotations"), ("train", "train2014"), ("val", "val2014")):
        shutil.make_archive(str(home / f"{name}2014"), "zip", root, folder)


UNCHECKED = [replace(archive, sha256="", size=1, unpacked=1) for archive in ARCHIVES]


@pytest.mark.parametrize("given", [True, False])
def test_archives_become_the_layout_that_is_looked_for(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: bool
) -> None:
    monkeypatch.setenv("WSSS_DATA", str(tmp_path / "disk"))
    monkeypatch.chdir(tmp_path)
    (root / "annotations" / "captions_train2014.json").write_text("{}")
    home = tmp_path / "mine" if given else tmp_path / "disk" / "coco"
    home.mkdir(parents=True)
    _zipped(root, home)
    shutil.rmtree(root)
    fetched = download_coco(home if given else None, archives=UNCHECKED)
    assert [one.name for one in fetched] == ["annotations_trainval2014.zip", "val2014.zip", "train2014.zip"]
    found = find_coco(home if given else None)
    assert found == home
    assert len(_prepare(found, tmp_path / "out").split("val")) == 4
    assert not (home / "annotations" / "captions_train2014.json").exists()
    assert download_coco(home if given else None, archives=UNCHECKED) == []


def test_nothing_is_fetched_where_coco_is(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert download_coco(None) == []
    (root / "images").mkdir()
    for split in ("train", "val"):
        (root / f"{split}2014").rename(root / "images" / f"{split}2014")
    assert download_coco(None) == []


def test_an_official_archive_must_have_its_checksum(root: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=10**12))
    (tmp_path / "home").mkdir()
    _zipped(root, tmp_path / "home")
    with pytest.raises(DataError, match="031296bbc80c45a1d1f76bf9a90ead27e94e99ec629208449507a4917a3bf009"):
        download_coco(tmp_path / "home", archives=[replace(archive, unpacked=1) for archive in ARCHIVES])


def test_a_category_called_background_is_refused_before_anything_is_painted(root: Path, tmp_path: Path) -> None:
    _change(root, "train", lambda record: record["categories"].insert(0, {"id": 0, "name": "Background"}))
    with pytest.raises(DataError, match=r"instances_train2014\.json: category 0 is called 'Background'"):
        _prepare(root, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_byte_order_mark_is_no_damage_and_utf_16_is_named(root: Path, tmp_path: Path) -> None:
    plain = _prepare(root, tmp_path / "plain")
    for split in ("train", "val"):
        file = root / "annotations" / f"instances_{split}2014.json"
        file.write_text(file.read_text(), encoding="utf-8-sig")
    assert _prepare(root, tmp_path / "marked").fingerprint == plain.fingerprint
    file.write_text(file.read_text(encoding="utf-8-sig"), encoding="utf-16")
    with pytest.raises(DataError, match="is UTF-16 text"):
        _prepare(root, tmp_path / "other")


def test_marks_that_are_not_looked_at_are_counted_in_each_file(root: Path, tmp_path: Path) -> None:
    def mark(record: Record) -> None:
        record["annotations"][0] |= {"ignore": 1, "segmentation": [[0, 0, 10, 0, 10, 8, 5, 8, 0, 7]]}
        record["annotations"][1]["attributes"] = {"difficult": True, "occluded": True}
        record["images"][0]["deleted"] = True

    _change(root, "val", mark)
    made = prepare_coco(root, tmp_path / "out", "coco", check=lambda: None)
    said = [line for line in made.lines if "not looked at" in line]
    which = "deleted of 1, ignore of 1, difficult of 1"
    assert said == [f"instances_val2014.json: not looked at: {which}; what is so marked is taken as all the rest"]


def test_instances_without_pixels_are_counted_and_most_are_an_error(root: Path, tmp_path: Path) -> None:
    def shrink(record: Record, count: int) -> None:
        for annotation in [one for one in record["annotations"] if isinstance(one["segmentation"], list)][:count]:
            annotation["segmentation"] = [[0.1, 0.1, 0.6, 0.1, 0.6, 0.5]]

    _change(root, "train", lambda record: shrink(record, 1))
    made = prepare_coco(root, tmp_path / "out", "coco", check=lambda: None)
    assert made.lines[0].startswith("1 of 10 instances cover no pixel")
    _change(root, "train", lambda record: shrink(record, 3))
    _change(root, "val", lambda record: shrink(record, 2))
    with pytest.raises(DataError, match="5 of 10 instances cover no pixel") as caught:
        _prepare(root, tmp_path / "none")
    assert "from 0 to 1" in caught.value.hint
    assert not (tmp_path / "none").exists()


def _turn(root: Path, orientation: int, listed: tuple[int, int]) -> None:
    """Photographs with an EXIF orientation, 16x12 pixels as stored, and their size in the JSON as listed."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    for split in ("train", "val"):
        for image in _record(split)["images"]:
            Image.new("RGB", (16, 12)).save(root / f"{split}2014" / image["file_name"], exif=exif)

        def change(record: Record) -> None:
            for image in record["images"]:
                image["width"], image["height"] = listed
            record["annotations"] = [record["annotations"][3]]

        _change(root, split, change)


@pytest.mark.parametrize(
    ("orientation", "listed", "asked", "corner", "says"),
    [  # a part of the mask: rows 3 and 4, columns 3, 4, 10 and 11 as annotated
        (6, (16, 12), "auto", (3, 7), "as stored (by their sizes)"),
        (6, (12, 16), "auto", (3, 3), "as shown (by their sizes)"),
        (3, (16, 12), "auto", (7, 4), "as stored (sizes do not tell; --orientation shown"),
        (3, (16, 12), "shown", (3, 3), "as shown (as asked)"),
    ],
)
def test_masks_come_upright_as_their_photographs_do(
    root: Path,
    tmp_path: Path,
    orientation: int,
    listed: tuple[int, int],
    asked: str,
    corner: tuple[int, int],
    says: str,
) -> None:
    _turn(root, orientation, listed)
    made = _prepare(root, tmp_path / "out", orientation=asked)
    sample = made.split("train")[0]
    mask = read_mask(sample.mask or "")
    assert mask.shape == read_image(sample.image).shape[:2]
    assert tuple(int(axis[0]) for axis in mask.nonzero()) == (corner[0], int(mask[corner[0]].nonzero()[0][0]))
    assert mask[corner] == 3
    assert any("5 photographs turned by EXIF" in note and says in note for note in made.protocol)


def test_sizes_that_tell_both_ways_are_refused(root: Path, tmp_path: Path) -> None:
    _turn(root, 6, (16, 12))

    def change(record: Record) -> None:
        record["images"][1]["width"], record["images"][1]["height"] = 12, 16

    _change(root, "val", change)
    with pytest.raises(DataError, match=r"two\.jpg is listed as stored and that of .*two\.jpg as shown"):
        _prepare(root, tmp_path / "out")


def _contents(folder: Path) -> dict[str, bytes]:
    files = (file for file in folder.rglob("*") if file.is_file() and "shards" not in file.parts)
    return {str(file.relative_to(folder)): file.read_bytes() for file in files if file.suffix != ".lock"}


@pytest.mark.parametrize("turned", [False, True])
def test_shards_make_what_one_command_makes(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, turned: bool
) -> None:
    if turned:
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.new("RGB", (16, 12)).save(root / "train2014" / "COCO_train2014_one.jpg", exif=exif)
    whole = prepare_coco(root, tmp_path / "whole", "coco", check=lambda: None)
    painted, paint = [], painting.paint
    monkeypatch.setattr(painting, "paint", lambda *rest: [painted.append(rest), paint(*rest)][1])

    def shard(number: int) -> Prepared | None:
        work = coco_preparation(root, tmp_path / "out", "coco", check=lambda: None)
        return prepare_shard(work, tmp_path / "out", Shard(number, 2), check=lambda: None)

    assert shard(2) is None
    second = [path for path in (tmp_path / "whole" / "masks").glob("*.png") if shard_of(path.stem, 2) == 2]
    assert len(painted) == len(second) - sum(turned and path.stem == "COCO_train2014_one" for path in second)
    assert not (tmp_path / "out" / "dataset.json").exists()
    joined = shard(1)
    assert joined is not None
    assert (joined.summary, joined.lines) == (whole.summary, whole.lines)
    assert _contents(tmp_path / "out") == _contents(tmp_path / "whole")
    assert len(painted) == 6 or turned  # each once, where none is turned


def test_shards_look_again_at_what_was_refused(root: Path, tmp_path: Path) -> None:
    photograph = root / "val2014" / "COCO_val2014_two.jpg"
    good = photograph.read_bytes()
    Image.new("RGB", (15, 12)).save(photograph)

    def shard() -> Prepared | None:
        work = coco_preparation(root, tmp_path / "out", "coco", check=lambda: None)
        return prepare_shard(work, tmp_path / "out", Shard(1, 1), check=lambda: None)

    with pytest.raises(DataError, match=r"two\.jpg is 15x12 pixels, in instances_val2014\.json it is 16x12"):
        shard()
    photograph.write_bytes(good)
    assert shard() is not None
