"""A data set's own labels: what is added is what is read, and what is drawn from a mask is within it."""

import functools
import json
import re

import cv2
import numpy as np
import pytest
from scipy import ndimage
from typer.testing import CliRunner

from wsss_cli.cli.app import app
from wsss_cli.data.dataset import open_dataset
from wsss_cli.data.images import read_image
from wsss_cli.data.masks import read_mask, write_mask
from wsss_cli.data.sources.drawn import drawn, drawn_boxes, drawn_on_masks
from wsss_cli.data.sources.toy import prepare_toy
from wsss_cli.data.trusted import add_trusted, read_trusted
from wsss_cli.errors import DataError, UsageError
from wsss_cli.pseudo.boxes import box_labels


@pytest.fixture
def dataset(tmp_path):
    prepare_toy(tmp_path / "toy", images=8, val=2, size=64)
    return open_dataset(tmp_path / "toy")


def run(*arguments):
    result = CliRunner().invoke(app, ["prepare", "labels", *map(str, arguments)])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.stdout


def test_what_is_added_is_what_is_read_and_the_newest_counts(dataset):
    samples = dataset.split("train")
    assert read_trusted(dataset.root).fingerprint == ""
    first = add_trusted(dataset, [(one, one.mask, read_mask(one.mask)) for one in samples[:3]], "mask", "by hand")
    assert [first.of(one.id).kind for one in samples[:3]] == ["mask"] * 3 and first.of(samples[3].id) is None
    assert (first.of(samples[0].id).read() == read_mask(samples[0].mask)).all()
    partial = np.full(read_mask(samples[0].mask).shape, 255, np.uint8)
    second = add_trusted(dataset, [(samples[0], samples[0].mask, partial)], "mask", "other")
    assert (second.of(samples[0].id).read() == 255).all() and second.of(samples[0].id).entry.source == "other"
    assert (second.of(samples[1].id).read() == read_mask(samples[1].mask)).all()
    assert first.fingerprint != second.fingerprint == read_trusted(dataset.root).fingerprint


def test_a_whole_mask_takes_all_and_a_partial_one_what_it_says(dataset):
    sample = dataset.split("train")[0]
    labels = np.full(read_mask(sample.mask).shape, 255, np.uint8)
    labels[:10], labels[10:20] = 1, 0
    pseudo, sure = np.full(labels.shape, 2, np.uint8), np.full(labels.shape, 0.25, np.float32)
    part = add_trusted(dataset, [(sample, sample.mask, labels)], "partial", "").of(sample.id)
    mask, confidence = part.over(pseudo, sure)
    assert np.unique(mask[:10]).tolist() == [1] and np.unique(mask[10:20]).tolist() == [0]
    assert np.unique(mask[20:]).tolist() == [2]
    assert (confidence[:20] == 1).all() and (confidence[20:] == 0.25).all()
    whole = add_trusted(dataset, [(sample, sample.mask, labels)], "mask", "", clear=True).of(sample.id)
    mask, confidence = whole.over(pseudo, sure)
    assert (mask == labels).all() and (confidence == (labels != 255)).all()


def test_labels_that_do_not_fit_are_refused_and_nothing_is_added(dataset):
    sample = dataset.split("train")[0]
    with pytest.raises(DataError, match="is 5x5, its photograph 64x64"):
        add_trusted(dataset, [(sample, sample.mask, np.zeros((5, 5), np.uint8))], "mask", "")
    with pytest.raises(DataError, match="9"):
        add_trusted(dataset, [(sample, sample.mask, np.full((64, 64), 9, np.uint8))], "mask", "")
    assert not read_trusted(dataset.root).entries


@pytest.mark.parametrize("more", [(), ("--clear",), ("--clear", "--kind", "partial")])
def test_labels_that_are_there_outlive_an_addition_that_fails(dataset, tmp_path, more):
    samples = dataset.split("train")
    add_trusted(dataset, [(one, one.mask, read_mask(one.mask)) for one in samples[:3]], "mask", "by hand")
    before = read_trusted(dataset.root)
    new = np.zeros((64, 64), np.uint8)
    new[0], new[1] = 255, 1
    write_mask(tmp_path / "new" / f"{samples[0].id}.png", new, dataset.colors)
    for shape, value, words in ((32, 0, "is 64x32, its photograph 64x64"), (64, 9, "holds the value 9")):
        bad = tmp_path / "new" / f"{samples[1].id}.png"
        write_mask(bad, np.full((shape, 64), value, np.uint8), dataset.colors)
        with pytest.raises(DataError, match=f"{re.escape(str(bad))} {words}"):
            run(dataset.root, tmp_path / "new", *more)
        assert read_trusted(dataset.root) == before
        for one in samples[:3]:
            assert (before.of(one.id).read() == read_mask(one.mask)).all()
    with pytest.raises(DataError, match=r"there is no .*none"):
        run(dataset.root, tmp_path / "none", *more)
    assert read_trusted(dataset.root) == before
    bad.unlink()
    run(dataset.root, tmp_path / "new", *more)
    after = read_trusted(dataset.root)
    assert len(after.entries) == (1 if more else 3) == len(list(after.folder.glob("*.png")))
    assert (after.of(samples[0].id).read() == new).all()
    assert {file.name for file in dataset.root.glob(".*")} <= {".prepare.lock", ".LOCK", ".lock"}


def test_a_file_that_was_changed_by_hand_is_not_believed(dataset):
    sample = dataset.split("train")[0]
    labels = add_trusted(dataset, [(sample, sample.mask, read_mask(sample.mask))], "mask", "").of(sample.id)
    write_mask(labels.file, np.zeros((64, 64), np.uint8), dataset.colors)
    with pytest.raises(DataError, match="is another one than"):
        labels.read()
    labels.file.unlink()
    with pytest.raises(DataError):
        labels.read()


@pytest.mark.parametrize(
    "text", ["id,kind\n", "id,kind,sha256,source\na,half,x,y\n", "id,kind,sha256,source\na\n", '"']
)
def test_a_damaged_index_is_one_line(dataset, text):
    (dataset.root / "trusted").mkdir()
    (dataset.root / "trusted/index.csv").write_text(text)
    with pytest.raises(DataError, match=r"index\.csv") as caught:
        read_trusted(dataset.root)
    assert "--clear" in caught.value.hint  # without it the index would be read first, again
    assert "8 whole masks" in run(dataset.root, "--draw", "masks", "--clear")


def test_the_command_takes_a_folder_draws_and_clears(dataset, tmp_path):
    samples = dataset.split("train")
    (tmp_path / "mine/deeper").mkdir(parents=True)
    for number, sample in enumerate(samples[:3]):
        write_mask(
            tmp_path / "mine" / ("deeper" if number else "") / f"{sample.id}.png",
            read_mask(sample.mask),
            dataset.colors,
        )
    assert "3 whole masks, 0 partial (3 new)" in run(dataset.root, tmp_path / "mine")
    assert "3 whole masks, 0 partial (0 new)" in run(dataset.root, tmp_path / "mine")
    told = json.loads(run(dataset.root, "--draw", "scribbles", "--share", "0.5", "--seed", "3", "--clear", "--json"))
    assert (told["masks"], told["partial"]) == (0, 4)
    chosen = set(read_trusted(dataset.root).entries)
    run(dataset.root, "--draw", "scribbles", "--share", "0.5", "--seed", "3", "--clear")
    assert set(read_trusted(dataset.root).entries) == chosen  # the same seed, the same photographs
    assert "0 whole masks, 0 partial" in run(dataset.root, "--clear")
    for arguments, error, words in (
        ([], UsageError, "nothing to add"),
        ([tmp_path / "mine", "--draw", "masks"], UsageError, "two sources"),
        ([tmp_path / "none"], DataError, "there is no .*none"),
        (["--draw", "masks", "--share", "0.01"], UsageError, "is none"),
    ):
        with pytest.raises(error, match=words):
            run(dataset.root, *arguments)
    write_mask(tmp_path / "mine/stranger.png", np.zeros((64, 64), np.uint8), dataset.colors)
    with pytest.raises(DataError, match="stranger"):
        run(dataset.root, tmp_path / "mine")


def shapes():
    """A disc of class 1, a bar of class 2, a border of 255."""
    mask = np.zeros((100, 140), np.uint8)
    cv2.circle(mask, (40, 50), 25, 1, -1)
    mask[30:40, 90:135] = 2
    mask[60:63, 60:63] = 2  # too small for a mark
    mask[:2] = 255
    return mask


@pytest.mark.parametrize("kind", ["scribbles", "points", "boxes", "masks"])
def test_what_is_drawn_is_true_and_says_something_of_every_class(kind):
    mask = shapes()
    labels = drawn(mask, kind, seed=4)
    said = labels != 255
    assert (labels[said] == mask[said]).all() and not (said & (mask == 255)).any()
    expected = {"boxes": [0]}.get(kind, [0, 1, 2])
    assert np.unique(labels[said]).tolist() == expected
    assert (labels == drawn(mask, kind, seed=4)).all()


def test_scribbles_are_thin_lines_points_are_discs_and_boxes_leave_their_inside_open():
    mask = shapes()
    lines = drawn(mask, "scribbles", 0)
    assert ndimage.label(lines == 1, np.ones((3, 3)))[1] == 1 and 5 < (lines == 1).sum() < 0.4 * (mask == 1).sum()
    assert (lines == 2).sum(axis=0).max() <= 4 and (lines == 2).any(axis=0).sum() > 25  # along the bar
    away = ndimage.distance_transform_edt(mask == 0)
    assert away[lines == 0].min() > 9
    points = drawn(mask, "points", 0)
    assert abs(np.argwhere(points == 1).mean(axis=0) - (50, 40)).max() < 1.5 and (points == 1).sum() == 13
    assert 1 <= (points == 0).sum() <= 13
    boxes = drawn(mask, "boxes", 0)
    assert (boxes[30:40, 90:135] == 255).all() and (boxes[2:25, 66:] == 0).all() and (boxes[60:63, 60:63] == 255).all()
    nothing = np.zeros((30, 30), np.uint8)
    assert (drawn(nothing, "boxes", 0) == 0).all() and np.unique(drawn(nothing, "points", 1)).tolist() == [0, 255]


def test_boxes_that_are_drawn_are_filled_as_those_of_a_file_are(dataset):
    samples = [sample for sample in dataset.split("train") if sample.mask][:2]
    fill = functools.partial(box_labels, fill="crf")
    rows = list(drawn_on_masks([(sample, 0) for sample in samples], "boxes", fill))
    assert [(sample, of) for sample, of, _ in rows] == [(sample, sample.mask) for sample in samples]
    for sample, of, labels in rows:
        mask = read_mask(of)
        empty = box_labels(read_image(sample.image), drawn_boxes(mask), "none")
        assert (np.where(mask == 255, np.uint8(255), empty) == drawn(mask, "boxes", 0)).all()  # the same boxes
        assert (labels[(empty == 0) & (mask != 255)] == 0).all() and len(np.unique(labels)) > 2
    for fill, told in (((), True), (("--box-fill", "none"), False)):
        run(dataset.root, "--draw", "boxes", "--share", "0.5", "--clear", *fill)
        files = [dataset.root / "trusted" / f"{name}.png" for name in read_trusted(dataset.root).entries]
        values = {int(value) for file in files for value in np.unique(read_mask(file))}
        assert bool(values - {0, 255}) == told and len(files) == 4
