from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from wsss_cli.data.dataset import Dataset, open_dataset
from wsss_cli.data.masks import read_mask, write_mask
from wsss_cli.data.sources import voc
from wsss_cli.data.sources.devkit import (
    CLASSES,
    SBD,
    VOC2012,
    VocSource,
    download_voc,
    find_devkit,
    with_sbd_beside,
)
from wsss_cli.data.sources.summary import Prepared
from wsss_cli.data.sources.voc import prepare_voc, voc_preparation
from wsss_cli.engine.shards import Shard, shard_of
from wsss_cli.errors import DataError, UsageError
from wsss_cli.labels import voc_palette
from wsss_cli.locks import locked
from wsss_cli.stages.prepare_shards import prepare_shard

CAT, DOG, PERSON = 8, 12, 15
TAGS = {
    "t1": ("cat",),
    "t2": ("dog", "person"),
    "s1": ("person",),
    "s2": ("cat", "dog"),
    "v1": ("dog",),
    "v2": ("car",),
}


def _mask(path: Path, *values: int) -> None:
    write_mask(path, np.array([values], np.uint8), voc_palette(21))


def _photo(root: Path, name: str, width: int) -> None:
    Image.new("RGB", (width, 1)).save(root / "JPEGImages" / f"{name}.jpg")


def _list(path: Path, ids: Sequence[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{name}\n" for name in ids))


def _annotate(root: Path, name: str, tags: Sequence[str]) -> None:
    (root / "Annotations").mkdir(exist_ok=True)
    objects = "".join(f"<object><name>{tag}</name></object>" for tag in tags)
    (root / "Annotations" / f"{name}.xml").write_text(f"<annotation>{objects}</annotation>")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A devkit with t1, t2 of VOC's train, v1, v2 of its val, and s1, s2 of which only augmented masks exist."""
    root = tmp_path / "VOCdevkit" / "VOC2012"
    (root / "JPEGImages").mkdir(parents=True)
    _list(root / "ImageSets" / "Segmentation" / "train.txt", ["t2", "t1"])
    _list(root / "ImageSets" / "Segmentation" / "val.txt", ["v2", "v1"])
    for name, tags in TAGS.items():
        _photo(root, name, len(tags) + 1 + (name[0] in "tv"))
        _annotate(root, name, tags)
        indices = [CLASSES.index(tag) + 1 for tag in tags]
        _mask(root / "SegmentationClassAug" / f"{name}.png", 0, *indices)
        if name[0] in "tv":
            _mask(root / "SegmentationClass" / f"{name}.png", 0, 255, *indices)
    return root


def _ids(made: Dataset, split: str) -> list[str]:
    return [sample.id for sample in made.split(split)]


def _prepare(root: Path, out: Path, **changes: object) -> Dataset:
    return prepare_voc(replace(VocSource(root), **changes), out, "voc", check=lambda: None).dataset  # type: ignore[arg-type]


def _sbd(root: Path) -> Path:
    sbd = root.parent.parent / "benchmark_RELEASE"
    (sbd / "dataset" / "cls").mkdir(parents=True)
    _list(sbd / "dataset" / "train.txt", ["s1", "t1", "v1"])  # SBD lists images of VOC's val, too
    _list(sbd / "dataset" / "val.txt", ["s2", "v2"])
    for name in ("s1", "s2", "t1", "v1", "v2"):
        (sbd / "dataset" / "cls" / f"{name}.mat").write_bytes(name.encode())
    return sbd


def _mats(sbd: Path, masks: dict[str, np.ndarray]) -> None:
    """Masks in MATLAB files of SBD's structure."""
    for name, mask in masks.items():
        parts = {"Boundaries": np.zeros((20, 1), object), "Segmentation": mask, "CategoriesPresent": np.unique(mask)}
        savemat(sbd / "dataset" / "cls" / f"{name}.mat", {"GTcls": parts}, do_compression=True)


def test_train_aug_is_everything_with_a_mask_but_val(root: Path, tmp_path: Path) -> None:
    made = _prepare(root, tmp_path / "out")
    assert {name: _ids(made, name) for name in made.split_sha256} == {
        "train": ["t1", "t2"], "train_aug": ["s1", "s2", "t1", "t2"], "val": ["v1", "v2"],
    }  # fmt: skip
    assert made.classes == ("background", *CLASSES)
    by_id = {sample.id: sample for sample in made.split("train_aug")}
    assert by_id["t2"].labels == (DOG, PERSON)
    assert by_id["t2"].mask == root / "SegmentationClass" / "t2.png"  # VOC's own, with void borders
    assert by_id["s1"].mask == root / "SegmentationClassAug" / "s1.png"
    assert by_id["s1"].image == root / "JPEGImages" / "s1.jpg"
    assert "subset: 4 of 10,582 train_aug, 2 of 1,464 train, 2 of 1,449 val" in made.protocol
    assert not (tmp_path / "out" / "masks" / "t1.png").exists()


def test_a_ready_list_is_taken_and_a_missing_train_list_gives_no_train_split(root: Path, tmp_path: Path) -> None:
    (root / "ImageSets" / "Segmentation" / "train.txt").unlink()
    _list(root / "ImageSets" / "Segmentation" / "trainaug.txt", ["t2", "s1", "v1"])
    made = _prepare(root, tmp_path / "out")
    assert list(made.split_sha256) == ["train_aug", "val"]
    assert _ids(made, "train_aug") == ["s1", "t2"]  # never an image of val
    assert "subset: 2 of 10,582 train_aug, 2 of 1,449 val" in made.protocol


def test_sbd_lists_and_masks(root: Path, tmp_path: Path) -> None:
    sbd = _sbd(root)
    (root / "SegmentationClassAug").rename(root / "elsewhere")
    _mats(sbd, {"s1": np.array([[0, PERSON]], np.uint8), "s2": np.array([[CAT, DOG, 0]], np.uint8)})
    made = _prepare(root, tmp_path / "out", sbd=sbd)
    assert _ids(made, "train_aug") == ["s1", "s2", "t1", "t2"]
    masks = {sample.id: sample.mask for sample in made.split("train_aug")}
    assert masks["s2"] == tmp_path / "out" / "masks" / "s2.png"
    assert read_mask(masks["s2"]).tolist() == [[CAT, DOG, 0]]
    assert masks["t1"] == root / "SegmentationClass" / "t1.png"
    assert sorted(path.name for path in (tmp_path / "out" / "masks").glob("*.png")) == ["s1.png", "s2.png"]


def test_sbd_masks_give_tags_when_told_so(root: Path, tmp_path: Path) -> None:
    sbd = _sbd(root)
    (root / "SegmentationClassAug").rename(root / "elsewhere")
    _mats(sbd, {"s1": np.array([[0, DOG]], np.uint8), "s2": np.array([[CAT, 0, 0]], np.uint8)})
    made = _prepare(root, tmp_path / "out", sbd=sbd, tags_from_masks=True)
    assert [sample.labels for sample in made.split("train_aug")[:2]] == [(DOG,), (CAT,)]


def test_a_damaged_mat_file_is_named(root: Path, tmp_path: Path) -> None:
    sbd = _sbd(root)
    (root / "SegmentationClassAug").rename(root / "elsewhere")
    with pytest.raises(DataError, match=r"s1\.mat is not an SBD mask"):
        _prepare(root, tmp_path / "out", sbd=sbd)


def test_kept_classes_are_renumbered_in_the_order_given(root: Path, tmp_path: Path) -> None:
    made = _prepare(root, tmp_path / "out", classes=("dog", "cat"))
    assert made.classes == ("background", "dog", "cat")
    assert made.colors[1] == voc_palette(21)[DOG]
    train = {sample.id: sample for sample in made.split("train_aug")}
    assert sorted(train) == ["s2", "t1", "t2"]  # s1 shows a person only
    assert {name: sample.labels for name, sample in train.items()} == {"s2": (1, 2), "t1": (2,), "t2": (1,)}
    values = {name: read_mask(sample.mask).tolist() for name, sample in train.items() if sample.mask}
    assert values == {"s2": [[0, 2, 1]], "t1": [[0, 255, 2]], "t2": [[0, 255, 1, 255]]}
    val = {sample.id: sample for sample in made.split("val")}
    assert sorted(val) == ["v1", "v2"]  # every image of val stays
    assert val["v2"].labels == ()
    assert any(note.startswith("classes dog, cat") for note in made.protocol)


def test_masks_of_other_classes_are_not_taken_for_these(root: Path, tmp_path: Path) -> None:
    _prepare(root, tmp_path / "out", classes=("dog", "cat"))
    target = tmp_path / "out" / "masks" / "t1.png"
    made_at = target.stat().st_mtime_ns
    _prepare(root, tmp_path / "out", classes=("dog", "cat"))
    assert target.stat().st_mtime_ns == made_at  # run again: kept
    _prepare(root, tmp_path / "out", classes=("cat", "dog"))
    assert read_mask(target).tolist() == [[0, 255, 1]]


@pytest.mark.parametrize("value", [21, 254])
def test_a_mask_value_outside_the_classes_is_named(root: Path, tmp_path: Path, value: int) -> None:
    _mask(root / "SegmentationClassAug" / "s2.png", 0, 0, value)
    with pytest.raises(DataError, match=rf"s2\.png holds the value {value}"):
        _prepare(root, tmp_path / "out", classes=("cat", "dog"))


def test_unknown_and_repeated_classes(root: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown class 'hors'") as caught:
        _prepare(root, tmp_path / "out", classes=("cat", "hors"))
    assert "did you mean 'horse'?" in caught.value.hint
    with pytest.raises(UsageError, match="twice"):
        _prepare(root, tmp_path / "out", classes=("cat", "cat"))


def test_classes_that_no_image_has_leave_an_empty_split(root: Path, tmp_path: Path) -> None:
    before = _prepare(root, tmp_path / "out").fingerprint
    with pytest.raises(DataError, match=r"no image of split train_aug has any of the classes sofa \(name others"):
        _prepare(root, tmp_path / "out", classes=("sofa",))
    assert open_dataset(tmp_path / "out").fingerprint == before  # what was there still is


def test_tags_from_a_file_need_training_images_only(root: Path, tmp_path: Path) -> None:
    (tmp_path / "tags.csv").write_text("image,labels\nt1.jpg,cat\nt2.jpg,dog\ns1.jpg,cat;dog\ns2.jpg,\n")
    made = _prepare(root, tmp_path / "out", tags=tmp_path / "tags.csv")
    labels = {sample.id: sample.labels for sample in made.split("train_aug")}
    assert labels == {"t1": (CAT,), "t2": (DOG,), "s1": (CAT, DOG), "s2": ()}
    assert [sample.labels for sample in made.split("val")] == [(), ()]
    assert "tags from tags.csv" in made.protocol


def test_tags_without_an_image_and_images_without_tags(root: Path, tmp_path: Path) -> None:
    lines = "t1 cat\nt2 dog\ns1 cat\ns2 dog\n"
    (tmp_path / "tags.txt").write_text(lines + "ghost cat\n")
    with pytest.raises(DataError, match="tags 1 image not there, the first: ghost"):
        _prepare(root, tmp_path / "out", tags=tmp_path / "tags.txt")
    (tmp_path / "tags.txt").write_text(lines.replace("s2 dog\n", ""))
    with pytest.raises(DataError, match=r"1 listed image without a line in .*the first: s2"):
        _prepare(root, tmp_path / "out", tags=tmp_path / "tags.txt")
    with pytest.raises(DataError, match=r"no such file: .*gone\.txt"):
        _prepare(root, tmp_path / "out", tags=tmp_path / "gone.txt")


def test_tags_from_masks_are_noted_and_exclude_a_file(root: Path, tmp_path: Path) -> None:
    _mask(root / "SegmentationClass" / "t1.png", 0, 0, DOG)  # its annotation says cat
    made = _prepare(root, tmp_path / "out", tags_from_masks=True)
    assert {sample.id: sample.labels for sample in made.split("train")}["t1"] == (DOG,)
    assert any(note.startswith("tags from masks") for note in made.protocol)
    with pytest.raises(UsageError, match="exclude each other"):
        _prepare(root, tmp_path / "out", tags_from_masks=True, tags=tmp_path / "tags.txt")


def test_image_labels_serve_where_there_are_no_annotations(root: Path, tmp_path: Path) -> None:
    (root / "Annotations").rename(root / "elsewhere")
    with pytest.raises(DataError, match="no image tags") as caught:
        _prepare(root, tmp_path / "out")
    for way in ("Annotations", "--tags FILE", "--tags-from-masks"):
        assert way in caught.value.hint
    (root / "ImageSets" / "image_labels.txt").write_text("".join(f"{name} {' '.join(t)}\n" for name, t in TAGS.items()))
    made = _prepare(root, tmp_path / "out")
    assert {sample.id: sample.labels for sample in made.split("val")} == {"v1": (DOG,), "v2": (7,)}
    assert "tags from image_labels.txt" in made.protocol


def test_a_listed_image_that_is_not_there_is_named(root: Path, tmp_path: Path) -> None:
    (root / "JPEGImages" / "s2.jpg").unlink()
    with pytest.raises(DataError, match=r"1 of 6 listed images are not in .*the first: s2\.jpg"):
        _prepare(root, tmp_path / "out")


def test_lists_that_cannot_be_taken(root: Path, tmp_path: Path) -> None:
    lists = root / "ImageSets" / "Segmentation"
    _list(lists / "train.txt", ["t1", "t2", "t1"])
    with pytest.raises(DataError, match=r"train\.txt: 1 duplicate id: t1"):
        _prepare(root, tmp_path / "out")
    _list(lists / "train.txt", [])
    with pytest.raises(DataError, match=r"train\.txt is empty"):
        _prepare(root, tmp_path / "out")
    (lists / "val.txt").unlink()
    with pytest.raises(DataError, match=r"cannot read .*val\.txt"):
        _prepare(root, tmp_path / "out")


def test_val_images_need_masks_and_training_images_do_not(root: Path, tmp_path: Path) -> None:
    _list(root / "ImageSets" / "Segmentation" / "train_aug.txt", ["s1", "t1"])
    (root / "SegmentationClassAug" / "s1.png").unlink()
    made = _prepare(root, tmp_path / "out")
    assert {sample.id: sample.mask for sample in made.split("train_aug")}["s1"] is None
    for folder in ("SegmentationClass", "SegmentationClassAug"):
        (root / folder / "v1.png").unlink()
    with pytest.raises(DataError, match="1 of 2 val images have no mask, the first: v1"):
        _prepare(root, tmp_path / "out")


def test_without_any_source_of_train_aug_it_says_what_to_fetch(root: Path, tmp_path: Path) -> None:
    (root / "SegmentationClassAug").rename(root / "elsewhere")
    with pytest.raises(DataError, match="no list of train_aug") as caught:
        _prepare(root, tmp_path / "out")
    assert "benchmark.tgz" in caught.value.hint
    made = _prepare(root, tmp_path / "out", aug_masks=root / "elsewhere")
    assert _ids(made, "train_aug") == ["s1", "s2", "t1", "t2"]
    with pytest.raises(DataError, match="no folder"):
        _prepare(root, tmp_path / "out", aug_masks=tmp_path / "gone")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty holds no PNG"):
        _prepare(root, tmp_path / "out", aug_masks=tmp_path / "empty")
    with pytest.raises(DataError, match="no SBD release"):
        _prepare(root, tmp_path / "out", sbd=tmp_path)


def test_the_devkit_is_found_in_the_usual_places(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)
    monkeypatch.delenv("WSSS_DATA", raising=False)
    with pytest.raises(DataError, match="no VOC devkit found") as caught:
        find_devkit(None)
    for part in (
        "VOCtrainval_11-May-2012.tar",
        "host.robots.ox.ac.uk",
        "benchmark.tgz",
        "SegmentationClassAug",
        "JPEGImages",
    ):
        assert part in caught.value.hint
    assert "Looked in ./VOCdevkit" in caught.value.hint
    for value in (tmp_path, root.parent):
        monkeypatch.setenv("WSSS_DATA", str(value))
        assert find_devkit(None) == root
    monkeypatch.delenv("WSSS_DATA")
    for given in (root, root.parent, tmp_path):
        assert find_devkit(given) == root
    with pytest.raises(DataError, match="no VOC devkit in") as caught:
        find_devkit(empty)
    assert "JPEGImages" in caught.value.hint and "Looked in" not in caught.value.hint
    (empty / "data").mkdir()
    (empty / "data" / "VOCdevkit").symlink_to(root.parent)
    assert find_devkit(None).resolve() == root.resolve()
    monkeypatch.chdir(tmp_path)
    assert find_devkit(None).resolve() == root.resolve()


def test_many_masks_are_converted_in_processes(root: Path, tmp_path: Path, processes_at_once: None) -> None:
    names = [f"m{number:03d}" for number in range(80)]
    for name in names:
        _photo(root, name, 3)
        _annotate(root, name, ["cat"])
        _mask(root / "SegmentationClassAug" / f"{name}.png", 0, CAT, PERSON)
    seen: list[tuple[int, int]] = []
    source = VocSource(root, classes=("cat", "dog"))
    made = prepare_voc(
        source,
        tmp_path / "out",
        "voc",
        check=lambda: None,
        workers=2,
        tick=lambda done, total: seen.append((done, total)),
    ).dataset
    masks = {sample.id: sample.mask for sample in made.split("train_aug")}
    assert all(read_mask(masks[name]).tolist() == [[0, 1, 255]] for name in names if masks[name])
    assert len(masks) == 83
    assert seen[-1][0] == seen[-1][1] == len(seen)


UNCHECKED = (replace(VOC2012, md5="", size=1, unpacked=1), replace(SBD, md5="", size=1, unpacked=1))


def _packed(root: Path, home: Path) -> None:
    """VOC's and SBD's archives, in the folder where they are unpacked; the tests' own devkit goes."""
    sbd = _sbd(root)
    _mats(sbd, {"s1": np.array([[0, PERSON]], np.uint8), "s2": np.array([[CAT, DOG, 0]], np.uint8)})
    shutil.rmtree(root / "SegmentationClassAug")
    home.mkdir(parents=True)
    shutil.make_archive(str(home / "VOCtrainval_11-May-2012"), "tar", sbd.parent, "VOCdevkit")
    shutil.make_archive(str(home / "benchmark"), "gztar", sbd.parent, "benchmark_RELEASE")
    (home / "benchmark.tar.gz").rename(home / "benchmark.tgz")
    shutil.rmtree(sbd)
    shutil.rmtree(root.parent)


@pytest.mark.parametrize("given", ["VOCdevkit", "", None])
def test_archives_become_the_layout_that_is_looked_for(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str | None
) -> None:
    monkeypatch.delenv("WSSS_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    home = tmp_path / ("data" if given is None else "mine")
    _packed(root, home)
    devkit = None if given is None else home / given
    fetched = download_voc(devkit, sbd=True, archives=UNCHECKED)
    assert [one.name for one in fetched] == ["VOCtrainval_11-May-2012.tar", "benchmark.tgz"]
    source = with_sbd_beside(VocSource(find_devkit(devkit)))
    assert (source.root.absolute(), source.sbd) == (home / "VOCdevkit" / "VOC2012", home / "benchmark_RELEASE")
    made = prepare_voc(source, tmp_path / "out", "voc", check=lambda: None).dataset
    assert _ids(made, "train_aug") == ["s1", "s2", "t1", "t2"]
    assert download_voc(devkit, sbd=True, archives=UNCHECKED) == []


def test_sbd_is_fetched_only_where_it_is_needed(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert download_voc(root, sbd=True) == []  # there is a SegmentationClassAug
    assert with_sbd_beside(VocSource(root)).sbd is None
    _sbd(root)
    assert with_sbd_beside(VocSource(root)).sbd is None
    (root / "SegmentationClassAug").rename(root / "elsewhere")
    assert with_sbd_beside(VocSource(root)).sbd == tmp_path / "benchmark_RELEASE"
    assert with_sbd_beside(VocSource(root, aug_masks=root / "elsewhere")).sbd is None
    assert with_sbd_beside(VocSource(root, sbd=tmp_path)).sbd == tmp_path
    assert download_voc(root, sbd=False) == []


def test_masks_that_training_would_refuse_are_refused_before_anything_is_written(root: Path, tmp_path: Path) -> None:
    Image.new("RGB", (3, 1)).save(root / "SegmentationClass" / "t1.png")
    _mask(root / "SegmentationClassAug" / "s2.png", 0, CAT)
    with pytest.raises(DataError, match=r"2 masks of 6 cannot be used, the first: .*s2\.png is 2x1, its image 3x1"):
        _prepare(root, tmp_path / "out")
    _mask(root / "SegmentationClassAug" / "s2.png", 0, CAT, DOG)
    with pytest.raises(DataError, match=r"1 mask of 6 cannot be used, the first: .*t1\.png is a mask of mode RGB"):
        _prepare(root, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_tags_and_masks_that_disagree_are_counted(root: Path, tmp_path: Path) -> None:
    _annotate(root, "s1", ["cow", "cat"])
    _annotate(root, "t1", ["cow", "cat"])
    lines = prepare_voc(VocSource(root), tmp_path / "out", "voc", check=lambda: None).lines
    assert lines[0].startswith(
        "images per class: aeroplane 0, bicycle 0, bird 0, boat 0, bottle 0, bus 0, car 1, cat 3"
    )
    assert lines[-1] == (
        "tags and mask disagree in 2 images; tagged, not in the mask: cat 1, cow 2; in the mask, not tagged: person 1"
    )


def _contents(folder: Path) -> dict[str, bytes]:
    files = (file for file in folder.rglob("*") if file.is_file() and "shards" not in file.parts)
    return {str(file.relative_to(folder)): file.read_bytes() for file in files if file.suffix != ".lock"}


def _shard(source: VocSource, out: Path, number: int) -> Prepared | None:
    work = voc_preparation(source, out, "voc", check=lambda: None)
    return prepare_shard(work, out, Shard(number, 2), check=lambda: None)


@pytest.mark.parametrize("classes", [(), ("dog", "cat")])
def test_shards_make_what_one_command_makes(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, classes: tuple[str, ...]
) -> None:
    source = VocSource(root, classes=classes)
    whole = prepare_voc(source, tmp_path / "whole", "voc", check=lambda: None)
    _prepare(root, tmp_path / "out", classes=("person",))  # what was there before is no data set any more
    written, write = [], voc.write_mask
    monkeypatch.setattr(voc, "write_mask", lambda path, *rest: [written.append(path.stem), write(path, *rest)])
    assert _shard(source, tmp_path / "out", 2) is None
    assert not (tmp_path / "out" / "dataset.json").exists()
    before = list(written)
    assert sorted(before) == ([name for name in sorted(TAGS) if shard_of(name, 2) == 2] if classes else [])
    joined = _shard(source, tmp_path / "out", 1)
    assert joined is not None
    assert (joined.summary, joined.lines) == (whole.summary, whole.lines)
    assert _contents(tmp_path / "out") == _contents(tmp_path / "whole")
    assert sorted(written) == (sorted(TAGS) if classes else [])  # each once


def test_shards_look_again_at_what_was_refused(root: Path, tmp_path: Path) -> None:
    good = (root / "SegmentationClassAug" / "s2.png").read_bytes()
    _mask(root / "SegmentationClassAug" / "s2.png", 0, 77, 3)
    assert _shard(VocSource(root), tmp_path / "out", 1) is None
    with pytest.raises(DataError, match=r"s2\.png holds the value 77") as caught:
        _shard(VocSource(root), tmp_path / "out", 2)
    assert "then run all 2 shards again" in caught.value.hint
    (root / "SegmentationClassAug" / "s2.png").write_bytes(good)
    assert _shard(VocSource(root), tmp_path / "out", 2) is None
    joined = _shard(VocSource(root), tmp_path / "out", 1)
    assert joined is not None
    assert joined.dataset.fingerprint == _prepare(root, tmp_path / "whole").fingerprint


def test_a_shard_leaves_what_others_are_writing(root: Path, tmp_path: Path) -> None:
    source, out = VocSource(root, classes=("dog",)), tmp_path / "out"
    half = out / "masks" / ".t1.png.abc.part"
    assert _shard(source, out, 1) is None
    half.write_bytes(b"half")
    with locked(out / "shards" / "1-of-2.lock", "busy"):
        assert _shard(source, out, 2) is None
        assert half.exists()
    assert _shard(source, out, 2) is not None
    assert not half.exists()


def _without_aug(root: Path) -> Path:
    sbd = _sbd(root)
    (root / "SegmentationClassAug").rename(root / "elsewhere")
    _mats(sbd, {"s1": np.array([[0, DOG]], np.uint8), "s2": np.array([[CAT, 0, 0]], np.uint8)})
    return sbd


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"GTinst": {"Segmentation": 1}}, "has no GTcls.Segmentation; it holds GTinst"),
        ({"GTcls": np.zeros((1, 2))}, "has no GTcls.Segmentation; it holds GTcls"),
        ({"GTcls": {"Segmentation": np.array([[0, 256 + DOG]], np.uint16)}}, "not all whole numbers from 0 to 255"),
        ({"GTcls": {"Segmentation": np.array([[0, np.nan]])}}, "not all whole numbers from 0 to 255"),
        ({"GTcls": {"Segmentation": np.array([[0, 6.12]])}}, "not all whole numbers from 0 to 255"),
    ],
)
def test_mat_files_that_hold_something_else_say_what(root: Path, tmp_path: Path, table: dict, words: str) -> None:
    sbd = _without_aug(root)
    savemat(sbd / "dataset" / "cls" / "s1.mat", table)
    with pytest.raises(DataError, match=rf"s1\.mat is not an SBD mask: .*{words}"):
        _prepare(root, tmp_path / "out", sbd=sbd)


def test_a_file_of_matlab_7_3_is_named_as_that(root: Path, tmp_path: Path) -> None:
    sbd = _without_aug(root)
    head = b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM"
    (sbd / "dataset" / "cls" / "s1.mat").write_bytes(head + bytes(384) + b"\x89HDF\r\n\x1a\n" + bytes(99))
    with pytest.raises(DataError, match=r"MATLAB 7\.3 \(HDF5\) \(save it with -v7"):
        _prepare(root, tmp_path / "out", sbd=sbd)


def test_npy_files_in_place_of_sbd_masks_are_named(root: Path, tmp_path: Path) -> None:
    sbd = _without_aug(root)
    (sbd / "dataset" / "cls" / "s1.mat").rename(sbd / "dataset" / "cls" / "s1.npy")
    source = VocSource(root, sbd=sbd)
    lines = prepare_voc(source, tmp_path / "out", "x", check=lambda: None).lines
    assert "1 image without a mask: s1; SBD's masks are .mat files, but there are s1.npy" in lines
