from __future__ import annotations

import csv
import json
import sys
import tracemalloc
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from wsss_cli.data import packed, splits, texts
from wsss_cli.data.dataset import open_dataset
from wsss_cli.data.masks import write_mask
from wsss_cli.data.sources import folder as folders
from wsss_cli.data.sources import mask_checks
from wsss_cli.data.sources.listed import FolderSource
from wsss_cli.errors import DataError, UsageError
from wsss_cli.labels import voc_palette

SOURCE = ("masks", "classes", "rename")


def prepare_folder(images: Path, table: Path, out: Path, **settings: Any) -> Any:
    source = FolderSource(images, table, **{key: settings.pop(key) for key in SOURCE if key in settings})
    chosen = {key: settings.pop(key) for key in ("name", "val_fraction", "seed") if key in settings}
    return folders.prepare_folder(source, out, folders.FolderSettings(**chosen), check=lambda: None, **settings)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "trip").mkdir(parents=True)
    for name in ("a.jpg", "b.png", "trip/[bold], ü 1.jpg", "v1.2.jpg"):
        Image.fromarray(np.full((6, 8, 3), 90, np.uint8)).save(folder / name)
    return folder


def _table(tmp_path: Path, *rows: tuple[str, ...], header: tuple[str, ...] = ("image", "labels")) -> Path:
    with (tmp_path / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return tmp_path / "labels.csv"


def _masks(tmp_path: Path, **masks: np.ndarray) -> Path:
    for name, mask in masks.items():
        write_mask(tmp_path / "masks" / f"{name}.png", mask, voc_palette(3))
    return tmp_path / "masks"


def test_tags_alone_make_a_train_split(photos: Path, tmp_path: Path) -> None:
    table = _table(
        tmp_path, ("a.jpg", "polar bear|cat"), ("b", "cat; dog"), ("trip/[bold], ü 1.jpg", "dog,cat"), ("v1.2", "")
    )
    made = prepare_folder(photos, table, tmp_path / "out", name="mine").dataset
    assert made.classes == ("background", "cat", "dog", "polar bear")
    assert list(made.split_sha256) == ["train"]
    found = [(sample.id, sample.image, sample.labels, sample.mask) for sample in made.split("train")]
    assert found == [
        ("a", photos / "a.jpg", (1, 3), None),
        ("b", photos / "b.png", (1, 2), None),
        ("trip/[bold], ü 1", photos / "trip" / "[bold], ü 1.jpg", (1, 2), None),
        ("v1.2", photos / "v1.2.jpg", (), None),
    ]
    assert open_dataset(tmp_path / "out").name == "mine"


def test_classes_are_numbered_as_given(photos: Path, tmp_path: Path) -> None:
    table = _table(tmp_path, ("a.jpg", "dog"))
    made = prepare_folder(photos, table, tmp_path / "out", name="mine", classes=("dog", "cat")).dataset
    assert made.classes == ("background", "dog", "cat")
    assert made.split("train")[0].labels == (1,)


def test_without_classes_the_order_of_mask_values_is_said(photos: Path, tmp_path: Path) -> None:
    table = _table(tmp_path, ("a.jpg", "10|2#10"), ("b.png", "2"))
    masks = _masks(tmp_path, a=np.full((6, 8), 2, np.uint8), b=np.ones((6, 8), np.uint8))
    settings = {"masks": masks, "name": "mine", "rename": {"2#10": ""}}
    lines = prepare_folder(photos, table, tmp_path / "out", **settings).lines
    assert "without --classes mask values are taken as 1 2, 2 10" in lines
    assert not [line for line in lines if "disagree" in line or "made of other" in line]
    lines = prepare_folder(photos, table, tmp_path / "out", **settings, classes=("2", "10")).lines
    assert not [line for line in lines if "--classes" in line]
    lines = prepare_folder(photos, table, tmp_path / "out", name="mine").lines
    assert [line for line in lines if line.startswith("made of other tags: '2#10'; ")]


def test_a_part_of_the_images_with_masks_becomes_val(tmp_path: Path) -> None:
    folder, names = tmp_path / "photos", [f"p{number:02d}" for number in range(12)]
    folder.mkdir()
    for name in names:
        Image.new("RGB", (8, 6)).save(folder / f"{name}.png")
    masks = _masks(tmp_path, **{name: np.ones((6, 8), np.uint8) for name in names[:10]})
    table = _table(tmp_path, *((f"{name}.png", "cat") for name in names))

    def val(seed: int, fraction: float) -> list[str]:
        made = prepare_folder(
            folder, table, tmp_path / "out", name="m", masks=masks, val_fraction=fraction, seed=seed
        ).dataset
        picked = [sample.id for sample in made.split("val")]
        rest = [sample.id for sample in made.split("train")]
        assert sorted(picked + rest) == names
        assert set(picked) <= set(names[:10])
        return picked

    assert len(val(0, 0.3)) == 3
    assert val(0, 0.3) == val(0, 0.3)
    assert any(val(seed, 0.3) != val(0, 0.3) for seed in (1, 2, 3))
    assert len(val(0, 0.01)) == 1


def made_lines(photos: Path, table: Path, folder: Path, masks: Path) -> list[str]:
    lines: list[str] = prepare_folder(photos, table, folder / "said", name="m", masks=masks).lines
    return lines


def test_a_split_column_decides(photos: Path, tmp_path: Path) -> None:
    masks = _masks(tmp_path, b=np.ones((6, 8), np.uint8))
    rows = (("a.jpg", "cat", "train"), ("b.png", "cat", "val"))
    table = _table(tmp_path, *rows, header=("image", "labels", "split"))
    made = prepare_folder(photos, table, tmp_path / "out", name="m", masks=masks).dataset
    assert [[sample.id for sample in made.split(split)] for split in ("train", "val")] == [["a"], ["b"]]
    assert not [line for line in made_lines(photos, table, tmp_path, masks) if "of train" in line]
    table = _table(
        tmp_path, ("a.jpg", "cat", "train"), ("b.png", "dog|cat", "val"), header=("image", "labels", "split")
    )
    (said,) = [line for line in made_lines(photos, table, tmp_path, masks) if "of train" in line]
    assert said.startswith("in no image of train, as all are in val: dog; nothing teaches that; ")
    with pytest.raises(DataError, match="line 3: b is in the val split but has no mask"):
        prepare_folder(photos, table, tmp_path / "out", name="m")
    table = _table(tmp_path, ("a.jpg", "cat", "test"), header=("image", "labels", "split"))
    with pytest.raises(DataError, match="line 2: split 'test'"):
        prepare_folder(photos, table, tmp_path / "out", name="m")


def test_a_bad_photograph_is_left_out_and_a_bad_mask_alone(photos: Path, tmp_path: Path) -> None:
    data = (photos / "a.jpg").read_bytes()
    (photos / "cut.jpg").write_bytes(data[: len(data) // 2])
    for name in ("small", "strange", "colour", "fine"):
        Image.new("RGB", (8, 6)).save(photos / f"{name}.jpg")
    masks = _masks(
        tmp_path,
        cut=np.ones((6, 8), np.uint8),
        small=np.ones((8, 6), np.uint8),
        strange=np.full((6, 8), 7, np.uint8),
        fine=np.ones((6, 8), np.uint8),
    )
    Image.new("RGB", (8, 6)).save(masks / "colour.png")
    table = _table(
        tmp_path, *((f"{name}.jpg", "cat|dog") for name in ("a", "cut", "small", "strange", "colour", "fine"))
    )
    made = prepare_folder(photos, table, tmp_path / "out", name="m", masks=masks, val_fraction=0.0)
    kept = [(sample.id, sample.mask is not None) for sample in made.dataset.split("train")]
    assert kept == [("a", False), ("small", False), ("strange", False), ("colour", False), ("fine", True)]
    assert [(entry["id"], entry["code"], entry["lost"]) for entry in made.findings] == [
        ("cut", "unreadable", "photograph"), ("small", "mask-size", "mask"), ("strange", "mask-value", "mask"),
        ("colour", "unreadable", "mask"),
    ]  # fmt: skip
    problems = {entry["id"]: entry["problem"] for entry in made.findings}
    assert "cut.jpg cannot be decoded" in problems["cut"]
    assert "small.png is 6x8, its image 8x6" in problems["small"]
    assert "strange.png holds the value 7" in problems["strange"]
    assert "colour.png is a mask of mode RGB" in problems["colour"]
    assert "masks for 1 of 5 images; 3 masks left out" in made.lines
    assert json.loads((tmp_path / "out" / "findings.json").read_text()) == made.findings


def test_a_bad_mask_of_val_takes_its_photograph_along(photos: Path, tmp_path: Path) -> None:
    masks = _masks(tmp_path, a=np.ones((6, 8), np.uint8), b=np.ones((2, 2), np.uint8))
    rows = (("a.jpg", "cat", "val"), ("b.png", "cat", "VAL"), ("v1.2", "dog", ""))
    table = _table(tmp_path, *rows, header=("image", "labels", "split"))
    made = prepare_folder(photos, table, tmp_path / "out", name="m", masks=masks)
    assert [[sample.id for sample in made.dataset.split(split)] for split in ("train", "val")] == [["v1.2"], ["a"]]
    assert [(entry["id"], entry["lost"]) for entry in made.findings] == [("b", "photograph")]


def test_where_none_is_left_for_training_the_hint_helps(photos: Path, tmp_path: Path) -> None:
    masks, plain = _masks(tmp_path, a=np.ones((6, 8), np.uint8)), ("a.jpg", "cat")
    with pytest.raises(DataError, match="leaves no image for training: all are for validation") as caught:
        prepare_folder(photos, _table(tmp_path, plain), tmp_path / "out", name="m", masks=masks, val_fraction=0.05)
    assert caught.value.hint == "--val-fraction 0 keeps all for training"
    prepare_folder(photos, _table(tmp_path, plain), tmp_path / "out", name="m", masks=masks, val_fraction=0.0)
    table = _table(tmp_path, (*plain, "val"), header=("image", "labels", "split"))
    with pytest.raises(DataError, match="leaves no image for training") as caught:
        prepare_folder(photos, table, tmp_path / "out", name="m", masks=masks)
    assert caught.value.hint == "mark some rows with split train"


def test_masks_that_are_not_what_they_seem_are_refused_before_anything_is_written(photos: Path, tmp_path: Path) -> None:
    table = _table(tmp_path, ("a.jpg", "cat"), ("b.png", "cat"))

    def refused(match: str, classes: tuple[str, ...] = ("cat",)) -> None:
        with pytest.raises(DataError, match=match):
            prepare_folder(photos, table, tmp_path / "out", name="m", masks=tmp_path / "masks", classes=classes)
        assert not (tmp_path / "out").exists()

    black_and_white = np.array([[0, 255] * 4] * 6, np.uint8)
    _masks(tmp_path, a=black_and_white, b=black_and_white)
    refused("all 2 masks hold 0 and 255 only: are objects 255")
    _masks(tmp_path, a=np.full((6, 8), 255, np.uint8), b=np.full((6, 8), 255, np.uint8))
    refused("all 2 masks hold 255 only")
    _masks(tmp_path, a=np.full((6, 8), 3, np.uint8), b=np.full((6, 8), 2, np.uint8))
    refused(r"none of the 2 masks can be used, first: .*a\.png holds the value 3 .*pixels are 0 \(background\)")
    for name in "ab":
        Image.fromarray(np.full((6, 8), 99, np.uint8)).save(tmp_path / "masks" / f"{name}.png", "JPEG")
    refused(r"first: .*a\.png is a JPEG, whatever its name")
    for name in "ab":
        (tmp_path / "masks" / f"{name}.png").rename(tmp_path / "masks" / f"{name}_mask.png")
    refused(r"none of 2 images has a mask in .*; looked for a\.png, b\.png, there is a_mask\.png, b_mask\.png")
    for name in "ab":
        (tmp_path / "masks" / f"{name}_mask.png").rename(tmp_path / "masks" / f"{name}.PNG")
    refused(r"looked for a\.png, b\.png, there is a\.PNG, b\.PNG")


def test_the_summary_shows_what_a_user_should_know(photos: Path, tmp_path: Path) -> None:
    mask = np.ones((6, 8), np.uint8)
    swapped = Image.fromarray(np.array([[0, 1] * 4] * 6, np.uint8), "P")
    swapped.putpalette([128, 0, 0, 0, 0, 0])
    masks = _masks(tmp_path, a=mask * 2, stray=mask)
    swapped.save(masks / "b.png")
    swapped.save(masks / "v1.2.PNG")
    rows = (("a.jpg", "cat", "me"), ("photos\\B.PNG", "cat", ""), ("v1.2",))
    table = _table(tmp_path, *rows, header=("image", "labels", "author"))
    (photos / "._a.jpg").touch()  # of macOS: no photograph
    for name in ("b.tif", "b.npy", "notes.txt"):
        (masks / name).touch()
    made = prepare_folder(
        photos, table, tmp_path / "out", name="m", masks=masks, classes=("cat", "dog"), val_fraction=0
    )
    assert made.lines == [
        "images per class: cat 2, dog 0",
        "1 image without a tag: v1.2",
        "in no image: dog",
        "1 photograph without a row in labels.csv: trip/[bold], ü 1.jpg",
        "1 name taken in another form: line 3: 'photos\\\\B.PNG' is b.png",
        "labels.csv: not looked at: author",
        "1 mask of no image in labels.csv: stray.png",
        "3 files not taken for masks, whose names end in .png: b.npy, b.tif, v1.2.PNG",
        "masks for 2 of 3 images",
        "1 mask has a palette that draws 0 in a colour and a class in black: are background and class swapped?",
        "tags and mask disagree in 1 image; tagged, not in the mask: cat 1; in the mask, not tagged: dog 1",
    ]
    assert made.summary["images"] == {"cat": 2, "dog": 0}


def test_tags_are_renamed_and_dropped(photos: Path, tmp_path: Path) -> None:
    table = _table(tmp_path, ("a.jpg", "Cat|background"), ("b", "cat"))
    with pytest.raises(DataError, match=r"line 2: the tag 'background'"):
        prepare_folder(photos, table, tmp_path / "out", name="m")
    with pytest.raises(
        DataError, match=r"differ by case .* 'Cat' \(1 image, first in line 2\), 'cat' \(1 image, first in line 3"
    ) as caught:
        prepare_folder(photos, table, tmp_path / "out", name="m", rename={"background": ""})
    assert caught.value.hint == "one class? --rename cat=Cat"
    rename = {"background": "", "Cat": "cat"}
    made = prepare_folder(photos, table, tmp_path / "out", name="m", rename=rename).dataset
    assert made.classes == ("background", "cat")
    assert [sample.labels for sample in made.split("train")] == [(1,), (1,)]
    with pytest.raises(UsageError, match="no image has the tag 'cot'"):
        prepare_folder(photos, table, tmp_path / "out", name="m", rename={**rename, "cot": "cat"})


def test_an_image_with_an_exif_turn_is_measured_upright(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (8, 6)).save(tmp_path / "photos" / "a.jpg", exif=exif)
    masks = _masks(tmp_path, a=np.ones((8, 6), np.uint8))
    table = _table(tmp_path, ("a.jpg", "cat"))
    made = prepare_folder(tmp_path / "photos", table, tmp_path / "out", name="m", masks=masks, val_fraction=0.0)
    assert made.findings == []


def test_many_images_are_checked_in_processes(tmp_path: Path, processes_at_once: None) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(70):
        Image.new("RGB", (4, 4)).save(folder / f"p{number}.png")
    (folder / "p33.png").write_bytes(b"no image")
    table = _table(tmp_path, *((f"p{number}.png", "cat") for number in range(70)))
    seen: list[tuple[int, int]] = []
    made = prepare_folder(
        folder, table, tmp_path / "out", name="m", workers=2, tick=lambda done, total: seen.append((done, total))
    )
    assert [entry["id"] for entry in made.findings] == ["p33"]
    assert len(made.dataset.split("train")) == 69
    assert seen == [(done, 70) for done in range(1, 71)]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("a.jpg", "cat"), ("ghost.jpg", "cat")], "tags 1 image not in .*; line 3: 'ghost.jpg'"),
        ([("a.jpg", "cat"), ("b", ""), ("a", "dog")], "line 4: 'a.jpg' has a row already, line 2"),
        ([("a.jpg", "cat"), ("b", "hors")], "line 3: unknown class 'hors'"),
        ([("a.jpg", "cat|-dog"), ("b", "cat")], "line 2: the tag '-dog' says that a class is not there"),
        ([("a.jpg", "cat"), ("b", "!dog|cat")], "line 3: the tag '!dog' says that a class is not there"),
        ([], "has no rows"),
    ],
)
def test_bad_rows_are_named(photos: Path, tmp_path: Path, rows: list[tuple[str, ...]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        prepare_folder(photos, _table(tmp_path, *rows), tmp_path / "out", name="m", classes=("cat", "dog", "horse"))
    assert not (tmp_path / "out").exists()


def test_tables_and_folders_that_cannot_be_taken(photos: Path, tmp_path: Path) -> None:
    table = _table(tmp_path, ("a.jpg", "cat"), header=("file", "labels"))
    with pytest.raises(DataError, match="the header needs the columns image and labels, it has file, labels"):
        prepare_folder(photos, table, tmp_path / "out", name="m")
    with pytest.raises(DataError, match="gone is no folder"):
        prepare_folder(tmp_path / "gone", table, tmp_path / "out", name="m")
    with pytest.raises(DataError, match=r"cannot read .*gone\.csv"):
        prepare_folder(photos, tmp_path / "gone.csv", tmp_path / "out", name="m")
    with pytest.raises(DataError, match="names no class at all"):
        prepare_folder(photos, _table(tmp_path, ("a.jpg", "")), tmp_path / "out", name="m")
    many = _table(tmp_path, ("a.jpg", "|".join(f"c{number:03}" for number in range(255))))
    with pytest.raises(DataError, match=r"255 classes, such as c000, c001, c002 \.\.\.; masks have room for 254"):
        prepare_folder(photos, many, tmp_path / "out", name="m")
    assert not (tmp_path / "out").exists()


def test_a_column_of_splits_is_no_class(photos: Path, tmp_path: Path) -> None:
    rows = (("a.jpg", "1", "0"), ("b.png", "0", "1"))
    table = _table(tmp_path, *rows, header=("image", "cat", "Is_Valid"))
    with pytest.raises(DataError, match="every other column is a class, also 'Is_Valid'"):
        prepare_folder(photos, table, tmp_path / "out", name="m")
    made = prepare_folder(photos, _table(tmp_path, *rows, header=("image", "cat", "dog")), tmp_path / "out", name="m")
    assert made.summary["images"] == {"cat": 1, "dog": 1}


def test_nothing_usable_is_an_error_at_once(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(b"")
    with pytest.raises(DataError, match=r"none of the images .* can be used, first: .*a\.jpg cannot be decoded"):
        prepare_folder(tmp_path / "photos", _table(tmp_path, ("a.jpg", "cat")), tmp_path / "out", name="m")


def test_what_is_held_of_each_image_is_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splits, "MANY", 256)  # rows that are held at a time
    monkeypatch.setattr(splits, "BLOCK", 64)
    monkeypatch.setattr(packed, "FEW", 256)
    monkeypatch.setattr(texts, "BLOCK", 64)
    pixels, mask = np.zeros((6, 8, 3), np.uint8), np.ones((6, 8), np.uint8)
    monkeypatch.setattr(folders, "read_image", lambda path: pixels)
    monkeypatch.setattr(mask_checks, "read_mask", lambda path: mask)
    monkeypatch.setattr(mask_checks, "_oddity", lambda path, values: "")
    monkeypatch.setattr(folders, "look_at_mask", partial(mask_checks.look_at_mask, read=lambda path: mask))

    monkeypatch.setattr(sys, "intern", lambda text: text)  # paths have their names in a table of Python's own

    def peak(count: int) -> int:
        home = tmp_path / f"{count}"
        for number in range(count):
            name = f"{number % 20}/a name of some length {number}"
            for file in (home / "photos" / f"{name}.jpg", home / "masks" / f"{name}.png"):
                file.parent.mkdir(parents=True, exist_ok=True)
                file.touch()
        rows = ((f"{number % 20}/a name of some length {number}", "cat|dog") for number in range(count))
        table = _table(tmp_path, *rows)
        tracemalloc.start()
        prepare_folder(home / "photos", table, home / "out", name="m", masks=home / "masks")
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    peak(1100)  # what is loaded once, and of many images only
    assert peak(2100) - peak(600) < 1500 * 90  # texts alone would take more


def test_the_val_draw_is_that_of_the_sorted_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(texts, "SORTED", 7)
    names = [f"p{number}" for number in (*range(15, 30), *range(15))]
    (tmp_path / "photos").mkdir()
    for name in names:
        Image.new("RGB", (8, 6)).save(tmp_path / "photos" / f"{name}.png")
    masks = _masks(tmp_path, **{name: np.ones((6, 8), np.uint8) for name in names})
    table = _table(tmp_path, *((f"{name}.png", "cat") for name in names))
    made = prepare_folder(tmp_path / "photos", table, tmp_path / "out", name="m", masks=masks, val_fraction=0.3, seed=5)
    drawn = set(np.random.default_rng(5).permutation(sorted(names))[:9].tolist())
    assert [sample.id for sample in made.dataset.split("val")] == [name for name in names if name in drawn]


@pytest.mark.parametrize(("orientation", "said"), [(1, 0), (3, 1), (6, 0)])
def test_turned_photographs_are_counted_where_sizes_do_not_tell_which_way_up_masks_are(
    photos: Path, tmp_path: Path, orientation: int, said: int
) -> None:
    exif = Image.Exif()
    exif[0x112] = orientation
    Image.fromarray(np.full((6, 8, 3), 90, np.uint8)).save(photos / "a.jpg", exif=exif)
    shape = (8, 6) if orientation == 6 else (6, 8)
    masks = _masks(tmp_path, a=np.ones(shape, np.uint8), b=np.ones((6, 8), np.uint8))
    table = _table(tmp_path, ("a.jpg", "cat"), ("b.png", "cat"), ("v1.2.jpg", ""))
    lines = prepare_folder(photos, table, tmp_path / "out", masks=masks, name="mine").lines
    assert (
        sum("1 photograph turned by EXIF, whose size does not tell which way up masks are" in line for line in lines)
        == said
    )


def test_files_of_several_pages_of_which_the_first_is_taken_are_named(tmp_path: Path) -> None:
    """A stack of 50 photographs in one TIFF was one photograph, and nothing said so."""
    folder = tmp_path / "photos"
    folder.mkdir()
    pages = [Image.fromarray(np.full((6, 8, 3), value, np.uint8)) for value in (10, 90, 200)]
    pages[0].save(folder / "stack.tif", save_all=True, append_images=pages[1:])
    pages[0].save(folder / "moving.webp", save_all=True, append_images=pages[1:])
    pages[0].save(folder / "one.tif")
    small = TiffImagePlugin.ImageFileDirectory_v2()
    small[254] = 1  # a smaller copy of the page before
    with (folder / "overview.tif").open("w+b") as file, TiffImagePlugin.AppendingTiffWriter(file) as written:
        pages[0].save(written, format="TIFF")
        written.newFrame()
        pages[1].resize((4, 3)).save(written, format="TIFF", tiffinfo=small)
    table = _table(tmp_path, *((name, "cat") for name in ("stack", "moving", "one", "overview")))
    lines = "\n".join(prepare_folder(folder, table, tmp_path / "data", name="mine").lines)
    assert "2 photographs of several pages or frames, of which the first is taken: moving.webp, stack.tif" in lines
