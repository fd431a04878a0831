from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from command import wsss
from PIL import Image

from wsss_cli.cli import prepare
from wsss_cli.data.dataset import open_dataset
from wsss_cli.data.masks import read_mask
from wsss_cli.data.sources import coco_root
from wsss_cli.errors import UsageError


def _wsss(
    *arguments: str | Path, cwd: Path, stage: Sequence[str] = ("prepare",), **environment: str
) -> subprocess.CompletedProcess[str]:
    return wsss(cwd, *stage, *arguments, **environment)


def _devkit(folder: Path) -> Path:
    root = folder / "VOCdevkit" / "VOC2012"
    for name in ("JPEGImages", "ImageSets/Segmentation", "SegmentationClassAug"):
        (root / name).mkdir(parents=True)
    for name in ("t1", "t2", "v1"):
        Image.new("RGB", (4, 2)).save(root / "JPEGImages" / f"{name}.jpg")
        Image.fromarray(np.array([[0, 8, 12, 255]] * 2, np.uint8)).save(root / "SegmentationClassAug" / f"{name}.png")
    (root / "ImageSets" / "Segmentation" / "train_aug.txt").write_text("t2\nt1\n")
    (root / "ImageSets" / "Segmentation" / "val.txt").write_text("v1\n")
    (root / "ImageSets" / "image_labels.txt").write_text("t1 cat dog\nt2 dog\nv1 cat\n")
    return root


def _photos(folder: Path) -> Path:
    (folder / "photos").mkdir()
    for name in ("[bold]a", "b"):
        Image.new("RGB", (8, 6)).save(folder / "photos" / f"{name}.jpg")
    (folder / "labels.csv").write_text("image,labels\n[bold]a.jpg,cat\nb.jpg,cat|dog\n")
    return folder / "photos"


def test_toy_prints_counts_and_names_the_next_command(tmp_path: Path) -> None:
    done = _wsss("toy", "--images", "4", "--size", "48", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "data/toy: train 4, val 1; 5 classes and background"
    assert "next: wsss run --preset toy" in done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    assert len(open_dataset(tmp_path / "data" / "toy").split("train")) == 4


def test_toy_json_is_one_object(tmp_path: Path) -> None:
    done = _wsss("toy", "--images", "2", "--val", "3", "--size", "48", "--out", "here", "--json", cwd=tmp_path)
    printed = json.loads(done.stdout)
    assert (done.returncode, printed["splits"], printed["dataset"]) == (0, {"train": 2, "val": 3}, "here")


def test_voc_aug_takes_the_devkit_in_the_working_directory(tmp_path: Path) -> None:
    _devkit(tmp_path)
    done = _wsss("voc-aug", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "data/voc-aug: train_aug 2, val 1; 20 classes and background"
    assert "subset: 2 of 10,582 train_aug, 1 of 1,449 val" in done.stdout
    made = open_dataset(tmp_path / "data" / "voc-aug")
    assert [(sample.id, sample.labels) for sample in made.split("train_aug")] == [("t1", (8, 12)), ("t2", (12,))]
    assert all(sample.image.is_file() for sample in made.split("val"))


def test_voc_aug_keeps_classes(tmp_path: Path) -> None:
    _devkit(tmp_path)
    arguments = ("voc-aug", "--classes", "cat", "--name", "cats", "--json")
    done = _wsss(*arguments, cwd=tmp_path, WSSS_DATA=str(tmp_path / "nowhere"))
    printed = json.loads(done.stdout)
    assert done.returncode == 0
    assert printed["classes"] == ["background", "cat"]
    assert printed["splits"] == {"train_aug": 1, "val": 1}
    assert (tmp_path / "data" / "cats" / "masks" / "t1.png").is_file()


def test_voc_aug_without_a_devkit_says_what_to_fetch(tmp_path: Path) -> None:
    done = _wsss("voc-aug", "--json", cwd=tmp_path)
    assert done.returncode == 3
    assert "no VOC devkit found" in json.loads(done.stdout)["error"]
    assert "VOCtrainval_11-May-2012.tar" in done.stderr
    assert "Traceback" not in done.stderr


def test_voc_aug_with_an_unknown_class_is_a_usage_error(tmp_path: Path) -> None:
    _devkit(tmp_path)
    done = _wsss("voc-aug", "--classes", "cat,hors", cwd=tmp_path)
    assert done.returncode == 2
    assert "did you mean 'horse'?" in done.stderr
    assert done.stdout == ""


def _coco(root: Path) -> Path:
    (root / "annotations").mkdir(parents=True)
    for split in ("train", "val"):
        (root / f"{split}2014").mkdir()
        images = [{"id": key, "file_name": f"{split}{key}.jpg", "height": 2, "width": 4} for key in (1, 2)]
        for image in images:
            Image.new("RGB", (4, 2)).save(root / f"{split}2014" / str(image["file_name"]))
        box = {"id": 1, "image_id": 1, "category_id": 3, "segmentation": [[0, 0, 3, 0, 3, 1, 0, 1]], "iscrowd": 0}
        record = {"images": images, "annotations": [box], "categories": [{"id": 3, "name": "car"}]}
        (root / "annotations" / f"instances_{split}2014.json").write_text(json.dumps(record))
    return root


def test_coco14_prints_counts_and_the_hash_of_the_masks(tmp_path: Path) -> None:
    _coco(tmp_path / "data" / "coco")
    done = _wsss("coco14", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "data/coco14: train 1, val 2; 1 class and background"
    manifest = hashlib.sha256((tmp_path / "data" / "coco14" / "masks" / "manifest.txt").read_bytes()).hexdigest()
    assert f"sha256 of their manifest {manifest}" in done.stdout
    assert "subset: 2 of 82,783 train images" in done.stdout
    assert read_mask(tmp_path / "data" / "coco14" / "masks" / "train1.png").tolist() == [[1, 1, 1, 0], [0] * 4]


def test_coco14_drops_images_without_a_tag(tmp_path: Path) -> None:
    root = _coco(tmp_path / "elsewhere")
    done = _wsss("coco14", "--root", root, "--val-unlabelled", "drop", "--name", "c", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["splits"] == {"train": 1, "val": 1}
    wrong = _wsss("coco14", "--val-unlabelled", "lose", cwd=tmp_path)
    assert wrong.returncode == 2
    assert "keep" in wrong.stderr


def test_coco14_without_coco_says_what_to_fetch(tmp_path: Path) -> None:
    done = _wsss("coco14", "--json", cwd=tmp_path)
    assert done.returncode == 3
    assert json.loads(done.stdout)["error"] == "no COCO found"
    assert "annotations_trainval2014.zip" in done.stderr
    assert "Traceback" not in done.stderr


def test_coco14_of_a_cut_off_json_is_one_line_and_3(tmp_path: Path) -> None:
    path = _coco(tmp_path / "coco") / "annotations" / "instances_train2014.json"
    path.write_bytes(path.read_bytes()[:-40])
    done = _wsss("coco14", cwd=tmp_path)
    assert done.returncode == 3
    assert "error: coco/annotations/instances_train2014.json is not valid JSON at byte" in done.stderr
    assert "Traceback" not in done.stderr


def _unlisted(root: Path) -> None:
    path = root / "annotations" / "instances_val2014.json"
    record = json.loads(path.read_text())
    record["annotations"][0]["category_id"] = 9
    path.write_text(json.dumps(record))


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (lambda root: (root / "val2014" / "val2.jpg").unlink(), "1 of 2 images listed in .* the first: val2.jpg"),
        (_unlisted, "instances_val2014.json: an annotation of val1.jpg has the unknown category id 9"),
    ],
)
def test_coco14_without_an_image_or_with_an_unknown_category_is_one_line_and_3(
    tmp_path: Path, harm: Callable[[Path], None], says: str
) -> None:
    harm(_coco(tmp_path / "coco"))
    done = _wsss("coco14", cwd=tmp_path)
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert (done.returncode, done.stdout, len(errors)) == (3, "", 1)
    assert re.search(says, errors[0])
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "data" / "coco14" / "dataset.json").exists()


@pytest.mark.parametrize("of", ["eval", "prepare"])
def test_masks_with_colours_in_place_of_indices_are_one_line_and_3(tmp_path: Path, of: str) -> None:
    photos = _photos(tmp_path)
    (tmp_path / "masks").mkdir()
    for photo in photos.iterdir():
        Image.new("RGB", (8, 6), (128, 0, 0)).save(tmp_path / "masks" / f"{photo.stem}.png")
    arguments = ("prepare", "folder", "photos", "labels.csv", "--masks", "masks", "--classes", "cat,dog", "--out", "x")
    if of == "eval":
        arguments = ("eval", "--pred", "masks", "--truth", "masks", "--num-classes", "3")
    done = _wsss(*arguments, cwd=tmp_path, stage=())
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert (done.returncode, done.stdout, len(errors)) == (3, "", 1)
    assert "is a mask of mode RGB, not of class indices" in errors[0]
    assert "palette or 8-bit grey PNGs" in done.stderr
    assert "Traceback" not in done.stderr


def test_download_shows_progress_and_the_hash_of_what_came(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _coco(tmp_path / "packed")
    monkeypatch.delenv("WSSS_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    home = tmp_path / "data" / "coco"
    home.mkdir(parents=True)
    for name, folder in (("annotations_trainval", "annotations"), ("train", "train2014"), ("val", "val2014")):
        shutil.make_archive(str(home / f"{name}2014"), "zip", tmp_path / "packed", folder)
    digest = hashlib.sha256((home / "train2014.zip").read_bytes()).hexdigest()
    archives = [replace(archive, sha256="", size=1, unpacked=1) for archive in coco_root.ARCHIVES]
    monkeypatch.setattr(coco_root, "download_coco", partial(coco_root.download_coco, archives=archives))
    prepare.coco14(download=True, json_output=True)
    printed = capsys.readouterr()
    assert json.loads(printed.out)["splits"] == {"train": 1, "val": 2}
    assert f"sha256 {digest} (with nothing to compare it with)" in printed.err
    assert "unpacking train2014.zip, MB  0/1" in printed.err


def test_folder_prints_counts(tmp_path: Path) -> None:
    _photos(tmp_path)
    done = _wsss("folder", "photos", "labels.csv", "--out", "data/mine", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "data/mine: train 2; 2 classes and background"
    assert [sample.id for sample in open_dataset(tmp_path / "data" / "mine").split("train")] == ["[bold]a", "b"]


@pytest.mark.parametrize("as_json", [False, True])
def test_folder_leaves_out_what_does_not_decode_and_ends_with_3(tmp_path: Path, as_json: bool) -> None:
    (_photos(tmp_path) / "[bold]a.jpg").write_bytes(b"no image")
    done = _wsss("folder", "photos", "labels.csv", "--out", "mine", *(["--json"] if as_json else []), cwd=tmp_path)
    assert done.returncode == 3
    assert "photographs left out: 1" in done.stderr
    assert "findings.json" in done.stderr
    assert "[bold]a.jpg cannot be decoded" in done.stderr
    assert [sample.id for sample in open_dataset(tmp_path / "mine").split("train")] == ["b"]
    if as_json:
        assert json.loads(done.stdout)["findings"][0]["id"] == "[bold]a"  # one object and no second
    else:
        assert done.stdout.startswith("mine: train 1;")


def test_folder_names_a_tag_without_an_image(tmp_path: Path) -> None:
    _photos(tmp_path)
    (tmp_path / "labels.csv").write_text("image,labels\nghost.jpg,cat\n")
    done = _wsss("folder", "photos", "labels.csv", "--out", "mine", cwd=tmp_path)
    assert done.returncode == 3
    assert "'ghost.jpg'" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "mine").exists()


@pytest.mark.parametrize("command", ["toy", "voc-aug", "coco14", "folder"])
def test_help_shows_examples_to_copy(tmp_path: Path, command: str) -> None:
    done = _wsss(command, "--help", cwd=tmp_path)
    assert done.returncode == 0
    examples = [line.strip() for line in done.stdout.splitlines() if line.strip().startswith(f"wsss prepare {command}")]
    assert len(examples) >= 2


def test_a_bad_mask_is_said_and_does_not_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _photos(tmp_path)
    (tmp_path / "masks").mkdir()
    for name, value in (("[bold]a", 1), ("b", 9)):
        Image.new("L", (8, 6), value).save(tmp_path / "masks" / f"{name}.png")
    monkeypatch.chdir(tmp_path)
    prepare.folder(
        Path("photos"),
        Path("labels.csv"),
        masks=Path("masks"),
        classes="cat,animal",
        rename=["dog=animal"],
        val_fraction=0.0,
        seed=0,
        name="",
        out=Path("mine"),
        workers=1,
        json_output=False,
    )
    shown = capsys.readouterr()
    assert "  images per class: cat 2, animal 1\n" in shown.out
    assert "  masks for 1 of 2 images; 1 mask left out\n" in shown.out
    assert "masks left out: 1, first: masks/b.png holds the value 9; see mine/findings.json" in shown.err
    assert shown.err.splitlines()[-1].startswith("next: ")


@pytest.mark.parametrize("new", ["background", "null", "a|b", "[x]", "!cat", "'cat'"])
def test_a_new_name_that_no_class_can_have_is_a_fault_of_the_option(new: str) -> None:
    """Not of a line of the table, which holds another; `--rename NEW=` helps nothing."""
    with pytest.raises(UsageError, match="--rename my cat=") as caught:
        prepare._renames([f"my cat={new}"])
    assert caught.value.hint == "name one class; --rename 'my cat=' drops the tag"


@pytest.mark.parametrize("pair", ["Cat", "=cat", ""])
def test_a_renaming_needs_both_sides(pair: str) -> None:
    assert prepare._renames(["Cat = cat", "background="]) == {"Cat": "cat", "background": ""}
    with pytest.raises(UsageError, match="not of the form OLD=NEW"):
        prepare._renames([pair])
