"""What `wsss verify` finds in a data set: a case for each kind of finding, and none in a sound one."""

import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from wsss_cli.data.dataset import Sample, open_dataset, write_dataset
from wsss_cli.data.masks import write_mask
from wsss_cli.data.similar import NEAR, Signatures, equal_files, look_alikes, picture_hash
from wsss_cli.data.trusted import add_trusted
from wsss_cli.data.verify import CODES, library_talk, verify_dataset
from wsss_cli.engine.context import Silent
from wsss_cli.files import sha256_file
from wsss_cli.labels import voc_palette

CLASSES = ("background", "cat", "dog")
ROWS = {"train": ("a", "b", "c"), "val": ("v", "w")}


def photograph(seed, height=60, width=80):
    """Blobs that no other seed has."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def write(root, rows=None, **changed):
    """A sound data set; `changed` holds samples by id."""
    splits = {}
    for split, names in (rows or ROWS).items():
        splits[split] = []
        for seed, name in enumerate(names):
            image, mask = root / "images" / f"{name}.jpg", root / "masks" / f"{name}.png"
            image.parent.mkdir(parents=True, exist_ok=True)
            if not image.exists():
                Image.fromarray(photograph(seed + 10 * (split == "val"))).save(image, quality=90)
                labels = np.zeros((60, 80), np.uint8)
                labels[10:30, 10:30], labels[30:32] = 1, 255
                write_mask(mask, labels, voc_palette(3))
            splits[split].append(changed.get(name, Sample(name, image, mask, (1,))))
    given = {"name": "d", "classes": CLASSES, "colors": voc_palette(3), "source": "", "protocol": [], "findings": []}
    write_dataset(root, splits=splits, **given)


def look(root, *splits, workers=1):
    return verify_dataset(root, splits, workers, lambda: None, Silent().progress)


def told(root, *splits):
    return [(finding.code, Path(finding.file).name) for finding in look(root, *splits).findings]


@pytest.fixture
def root(tmp_path):
    write(tmp_path / "d")
    return tmp_path / "d"


def test_a_sound_set_has_no_findings(root):
    report = look(root)
    assert (report.findings, report.notes, report.checked) == ([], [], {"train": 3, "val": 2})
    assert look(root, "val").checked == {"val": 2}


def test_a_size_that_the_list_has_wrong_is_named(root):
    image = root / "images" / "b.jpg"
    write(root, b=Sample("b", image, root / "masks" / "b.png", (1,), (60, 81)))
    (finding,) = look(root).findings
    assert (finding.code, finding.file) == ("listed-size", str(image))
    assert finding.problem.endswith("b.jpg is 80x60 as shown; its list says 81x60")


def test_worker_processes_find_the_same(root, processes_at_once):
    (root / "images" / "b.jpg").write_bytes(b"no image")
    assert look(root, workers=2) == look(root)
    assert told(root) == [("unreadable", "b.jpg")]


# -- photographs -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["gone", "torn", "empty", "folder"])
def test_a_photograph_that_does_not_decode(root, how):
    file = root / "images" / "b.jpg"
    data = file.read_bytes()
    file.unlink()
    if how == "folder":
        file.mkdir()
    elif how != "gone":
        file.write_bytes(data[: len(data) // 2] if how == "torn" else b"")
    (finding,) = look(root).findings
    assert finding.code == "unreadable" and str(file) in finding.problem and finding.fix


def test_a_photograph_that_is_damaged_within(root, capfd):
    file = root / "images" / "b.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)).resize((80, 60)).save(file)
    data = file.read_bytes()
    file.write_bytes(data[:-2] + b"\1\2\3" + data[-2:])  # all pixels are there
    (finding,) = look(root).findings
    assert finding.code == "damaged" and "Corrupt JPEG data" in finding.problem
    middle = len(data) * 3 // 4
    file.write_bytes(data[:middle] + bytes(400) + data[middle + 400 :])  # the end mark is there
    (finding,) = look(root).findings
    assert finding.code == "unreadable" and "b.jpg is damaged within: Corrupt JPEG data" in finding.problem
    assert capfd.readouterr().err == ""  # one line, and that is the finding


def test_what_others_write_meanwhile_is_not_lost(capfd):
    with library_talk() as lines:
        os.write(2, b"a bar 10 %\nlibpng warning: iCCP\nCorrupt JPEG data: x\n")
    assert capfd.readouterr().err == "a bar 10 %\n"
    assert "Corrupt JPEG data: x" in lines


def test_turned_photographs_are_noted(root):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.rot90(photograph(1))).save(root / "images" / "b.jpg", exif=exif)  # 80x60 as shown
    report = look(root)
    assert [note.code for note in report.notes] == ["orientation"] and report.findings == []
    assert "orientation 6" in report.notes[0].problem


def test_a_mask_as_stored_of_a_turned_photograph(root):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(photograph(1)).save(root / "images" / "b.jpg", exif=exif)
    report = look(root)
    (finding,) = report.findings
    assert finding.code == "mask-size" and "EXIF orientation 6" in finding.problem and report.notes == []


# -- masks and tags ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pixels", "code"),
    [
        (np.ones((60, 79), np.uint8), "mask-size"),
        (np.full((60, 80), 3, np.uint8), "mask-value"),
        (np.full((60, 80), 255, np.uint8), "mask-all-255"),
        (np.tile(np.uint8([1, 2]), (60, 40)), "not-tagged"),
        (np.zeros((60, 80), np.uint8), "not-in-mask"),
    ],
)
def test_masks(root, pixels, code):
    write_mask(root / "masks" / "b.png", pixels, voc_palette(4))
    assert told(root) == [(code, "b.png")]


@pytest.mark.parametrize("how", ["gone", "torn", "colours"])
def test_a_mask_that_does_not_decode(root, how):
    file = root / "masks" / "b.png"
    data = file.read_bytes()
    file.unlink()
    if how == "torn":
        file.write_bytes(data[: len(data) // 2])
    elif how == "colours":
        Image.fromarray(photograph(1)).save(file)
    assert told(root) == [("mask-unreadable", "b.png")]


def test_masks_are_looked_at_without_their_photographs(root):
    (root / "images" / "b.jpg").unlink()
    write_mask(root / "masks" / "b.png", np.full((60, 80), 3, np.uint8), voc_palette(4))
    assert told(root) == [("unreadable", "b.jpg"), ("mask-value", "b.png")]


# -- labels of one's own -----------------------------------------------------------------------------------------------


def lines(value, *rows):
    labels = np.full((60, 80), 255, np.uint8)
    labels[list(rows)] = value
    return labels


def add(root, kind, labels, name="b"):
    dataset = open_dataset(root)
    (sample,) = [one for one in dataset.split("train") if one.id == name]
    return add_trusted(dataset, [(sample, sample.mask, labels)], kind, "by hand")


def test_sound_labels_have_no_findings(root):
    add(root, "scribbles", lines(1, 3))
    add(root, "points", lines(0, 9))
    add(root, "mask", lines(1, 3), "a")
    report = look(root)
    assert report.findings == [] and report.checked == {"train": 3, "val": 2, "labels": 2}
    assert look(root, "val").checked == {"val": 2, "labels": 0}


@pytest.mark.parametrize(
    ("labels", "code"),
    [
        (np.ones((60, 79), np.uint8), "labels-size"),
        (lines(3, 5), "labels-value"),
        (lines(1), "labels-all-255"),
        (lines(2, 5), "labels-not-tagged"),
        (lines(1, 5), "labels-changed"),
        ("gone", "labels-unreadable"),
        ("torn", "labels-unreadable"),
    ],
)
def test_labels(root, labels, code):
    add(root, "partial", lines(1, 9))
    file = root / "trusted" / "b.png"
    if isinstance(labels, str):
        data = file.read_bytes()
        file.unlink()
        if labels == "torn":
            file.write_bytes(data[: len(data) // 2])
    else:
        write_mask(file, labels, voc_palette(4))
    if code in ("labels-all-255", "labels-not-tagged"):
        index = root / "trusted" / "index.csv"
        index.write_text(f"id,kind,sha256,source\nb,partial,{sha256_file(file)},by hand\n")
    assert told(root) == [(code, "b.png")]


def test_a_kind_by_itself_is_looked_at_too(root):
    add(root, "scribbles", lines(1, 3))
    add(root, "points", lines(0, 9))
    write_mask(root / "trusted/.parts/points/b.png", lines(1, 7), voc_palette(3))
    (finding,) = look(root).findings
    assert finding.code == "labels-changed" and finding.file.endswith(".parts/points/b.png")


def test_labels_of_no_photograph_and_files_of_no_index(root):
    add(root, "mask", lines(1, 3))
    write_mask(root / "trusted/stray.png", lines(1, 3), voc_palette(3))
    index = root / "trusted/index.csv"
    index.write_text(index.read_text() + "gone,mask,00,by hand\n")
    assert told(root) == [("labels-index", "gone.png"), ("labels-unlisted", "stray.png")]
    assert told(root, "train") == []  # which may be of another list
    index.write_text("id,kind\n")
    assert told(root) == [("labels-index", "trusted")]
    shutil.rmtree(root / "trusted")
    add(root, "mask", lines(1, 3))
    (root / "trusted/.parts/index.csv").write_text("id,kind\n")
    assert told(root) == [("labels-index", "trusted")]


def test_labels_of_a_photograph_without_tags_may_be_of_any_class(root):
    write(root, b=Sample("b", root / "images/b.jpg", None, ()))
    add_trusted(open_dataset(root), [(open_dataset(root).split("train")[1], root, lines(2, 5))], "scribbles", "")
    assert told(root) == []


# -- names, lists, and what occurs twice -------------------------------------------------------------------------------


def test_names_that_differ_in_case_only(tmp_path):
    write(tmp_path, {"train": ("a", "A", "b"), "val": ("B",)})
    assert told(tmp_path) == [("same-name", "A.jpg")]  # b is of another split


def test_files_that_differ_in_case_only(tmp_path):
    root = tmp_path
    write(root, {"train": ("a", "A")})
    other = Sample("x", root / "images" / "A.jpg", None, (1,))
    write(root, {"train": ("a", "A")}, A=other)
    assert told(root) == [("same-name", "A.jpg")]


def test_an_edited_list(root):
    file = root / "splits" / "train.csv"
    head, first, second, *more = file.read_text().splitlines()
    file.write_text("\n".join([head, second, first, *more]) + "\n")
    assert told(root) == [("list-changed", "train.csv")]
    assert told(root, "val") == []


def test_equal_files_within_a_split(root):
    shutil.copy(root / "images" / "a.jpg", root / "images" / "c.jpg")
    (finding,) = look(root).findings
    assert finding.code == "duplicate" and "a.jpg (train) has the bytes of" in finding.problem


def test_equal_files_in_splits_that_are_trained_and_scored_on(root):
    shutil.copy(root / "images" / "a.jpg", root / "images" / "w.jpg")
    (finding,) = look(root).findings
    assert finding.code == "leak" and finding.file.endswith("w.jpg") and "a.jpg (train)" in finding.problem


def test_one_photograph_in_two_lists(root):
    image, mask = root / "images", root / "masks"
    shared = Sample("a", image / "a.jpg", mask / "a.png", (1,))
    write(root, {"train": ("a", "b"), "train_aug": ("c", "a2"), "val": ("v",)}, a2=shared)
    report = look(root)
    assert report.findings == []
    assert [note.problem for note in report.notes] == ["1 photographs are listed in train and in train_aug"]
    write(root, {"train": ("a", "b"), "val": ("v", "w")}, w=shared)
    assert told(root) == [("leak", "a.jpg")]
    write(root, {"train": ("a", "b", "c"), "val": ("v",)}, c=Sample("c", shared.image, shared.mask, (1,)))
    assert told(root) == [("duplicate", "a.jpg")]


def test_look_alikes_of_what_is_trained_on(root):
    Image.open(root / "images" / "a.jpg").resize((40, 30)).resize((80, 60)).save(root / "images" / "w.jpg", quality=60)
    (finding,) = look(root).findings
    assert finding.code == "look-alike" and finding.file.endswith("w.jpg")
    assert f"looks like {root}/images/a.jpg of train" in finding.problem
    Image.open(root / "images" / "a.jpg").save(root / "images" / "b.jpg", quality=60)
    assert told(root) == [("look-alike", "w.jpg")]  # those of one split are not compared


def test_blank_photographs_look_like_nothing(root):
    for number, name in enumerate(("a", "w")):
        Image.fromarray(np.full((60, 80, 3), 100 + number, np.uint8)).save(root / "images" / f"{name}.jpg")
    report = look(root)
    assert report.findings == []
    assert [note.code for note in report.notes] == ["blank"]


def test_look_alikes_by_comparing_all_pairs():
    rng = np.random.default_rng(0)
    many = rng.integers(0, 2**64, 3000, np.uint64)
    few = many[:400].copy()
    for row, bits in enumerate(rng.integers(0, 8, 400)):
        for bit in rng.permutation(64)[:bits]:
            few[row] ^= np.uint64(1) << np.uint64(bit)
    few[7:9] = many[5]  # two more

    def signatures(pictures, start):
        count = len(pictures)
        content = np.arange(start, start + count, dtype=np.uint64)
        return Signatures(content, content, pictures, np.full(count, 2, np.uint8))

    all_ = {"train": signatures(many, 0), "val": signatures(few, 10_000)}
    bits = np.bitwise_count(few[:, None] ^ many[None])
    expected = {int(row): (int(bits[row].min()), int((bits[row] <= NEAR).sum())) for row in range(400)}
    expected = {row: pair for row, pair in expected.items() if pair[1]}
    looked = {one.member.row: (one.bits, one.near) for one in look_alikes(all_, ["train"], ["val"], lambda: None)}
    assert looked == expected and 150 < len(looked) < 300
    assert list(equal_files(all_)) == []


def test_the_hash_by_hand():
    grey = np.tile(np.arange(9, dtype=np.uint8) * 20, (8, 1))  # brighter to the right everywhere
    grey[0] = grey[0, ::-1]
    assert picture_hash(np.repeat(grey[..., None], 3, 2)) == (0x00FFFFFFFFFFFFFF, False)
    assert picture_hash(np.full((8, 9, 3), 7, np.uint8)) == (0, True)


def test_every_finding_has_a_case_here():
    text = Path(__file__).read_text()
    assert [code for code in CODES if f'"{code}"' not in text] == []
