from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wsss_cli.data.dataset import open_dataset
from wsss_cli.data.masks import voc_palette, write_mask
from wsss_cli.data.sources.folder import prepare_folder
from wsss_cli.errors import DataError


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


def test_a_split_column_decides(photos: Path, tmp_path: Path) -> None:
    masks = _masks(tmp_path, b=np.ones((6, 8), np.uint8))
    rows = (("a.jpg", "cat", "train"), ("b.png", "cat", "val"))
    table = _table(tmp_path, *rows, header=("image", "labels", "split"))
    made = prepare_folder(photos, table, tmp_path / "out", name="m", masks=masks).dataset
    assert [[sample.id for sample in made.split(split)] for split in ("train", "val")] == [["a"], ["b"]]
    with pytest.raises(DataError, match="line 3: b is in the val split but has no mask"):
        prepare_folder(photos, table, tmp_path / "out", name="m")
    table = _table(tmp_path, ("a.jpg", "cat", "test"), header=("image", "labels", "split"))
    with pytest.raises(DataError, match="line 2: split 'test'"):
        prepare_folder(photos, table, tmp_path / "out", name="m")


def test_what_cannot_be_used_is_found_and_left_out(photos: Path, tmp_path: Path) -> None:
    data = (photos / "a.jpg").read_bytes()
    (photos / "cut.jpg").write_bytes(data[: len(data) // 2])
    for name in ("small", "strange", "colour", "fine"):
        Image.new("RGB", (8, 6)).save(photos / f"{name}.jpg")
    masks = _masks(
        tmp_path,
        small=np.ones((8, 6), np.uint8),
        strange=np.full((6, 8), 7, np.uint8),
        fine=np.full((6, 8), 255, np.uint8),
    )
    Image.new("RGB", (8, 6)).save(masks / "colour.png")
    table = _table(
        tmp_path, *((f"{name}.jpg", "cat|dog") for name in ("a", "cut", "small", "strange", "colour", "fine"))
    )
    made = prepare_folder(photos, table, tmp_path / "out", name="m", masks=masks, val_fraction=0.0)
    assert [sample.id for sample in made.dataset.split("train")] == ["a", "fine"]
    assert [(entry["id"], entry["code"]) for entry in made.findings] == [
        ("cut", "unreadable"), ("small", "mask-size"), ("strange", "mask-value"), ("colour", "unreadable"),
    ]  # fmt: skip
    problems = {entry["id"]: entry["problem"] for entry in made.findings}
    assert "cut.jpg cannot be decoded" in problems["cut"]
    assert "small.png is 6x8, its image 8x6" in problems["small"]
    assert "strange.png holds the value 7" in problems["strange"]
    assert "colour.png is a mask of mode RGB" in problems["colour"]
    assert json.loads((tmp_path / "out" / "findings.json").read_text()) == made.findings


def test_an_image_with_an_exif_turn_is_measured_upright(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (8, 6)).save(tmp_path / "photos" / "a.jpg", exif=exif)
    masks = _masks(tmp_path, a=np.ones((8, 6), np.uint8))
    table = _table(tmp_path, ("a.jpg", "cat"))
    made = prepare_folder(tmp_path / "photos", table, tmp_path / "out", name="m", masks=masks, val_fraction=0.0)
    assert made.findings == []


def test_many_images_are_checked_in_processes(tmp_path: Path) -> None:
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
        ([("a.jpg", "cat"), ("ghost.jpg", "cat")], "tags 1 images that are not in .*; line 3: 'ghost.jpg'"),
        ([("a.jpg", "cat"), ("a", "dog")], "1 duplicate ids: a"),
        ([("a.jpg", "cat"), ("b", "hors")], "line 3: unknown class 'hors'"),
        ([], "has no rows"),
    ],
)
def test_bad_rows_are_named(photos: Path, tmp_path: Path, rows: list[tuple[str, ...]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        prepare_folder(photos, _table(tmp_path, *rows), tmp_path / "out", name="m", classes=("cat", "dog", "horse"))
    assert not (tmp_path / "out").exists()


def test_tables_and_folders_that_cannot_be_taken(photos: Path, tmp_path: Path) -> None:
    table = _table(tmp_path, ("a.jpg", "cat"), header=("file", "labels"))
    with pytest.raises(DataError, match="the header needs the columns image and labels"):
        prepare_folder(photos, table, tmp_path / "out", name="m")
    with pytest.raises(DataError, match="gone is no folder"):
        prepare_folder(tmp_path / "gone", table, tmp_path / "out", name="m")
    with pytest.raises(DataError, match=r"cannot read .*gone\.csv"):
        prepare_folder(photos, tmp_path / "gone.csv", tmp_path / "out", name="m")
    with pytest.raises(DataError, match="names no class at all"):
        prepare_folder(photos, _table(tmp_path, ("a.jpg", "")), tmp_path / "out", name="m")


def test_nothing_usable_is_an_error_at_once(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(b"")
    with pytest.raises(DataError, match=r"none of the 1 images .* can be used, first: .*a\.jpg cannot be decoded"):
        prepare_folder(tmp_path / "photos", _table(tmp_path, ("a.jpg", "cat")), tmp_path / "out", name="m")
