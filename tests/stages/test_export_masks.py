"""Masks go out to annotators, the dearest mistakes first, and come back by every door as they were corrected."""

import csv
import json
from collections import Counter
from xml.etree import ElementTree

import numpy as np
import pytest
from pycocotools.coco import COCO
from typer.testing import CliRunner

from wsss_cli.cli.app import app
from wsss_cli.config.load import load_preset
from wsss_cli.data.dataset import open_dataset
from wsss_cli.data.masks import read_mask, write_mask
from wsss_cli.data.sources.toy import prepare_toy
from wsss_cli.data.trusted import read_trusted
from wsss_cli.engine.records import Inputs
from wsss_cli.engine.rundir import open_run
from wsss_cli.errors import DataError, UsageError
from wsss_cli.inference.journal import Journal
from wsss_cli.pseudo.refine import write_pseudo_mask
from wsss_cli.scoring.calibration import GROUPS, LEVELS, Confidence, calibrate, expected_losses, pixel_groups
from wsss_cli.stages.paths import confidence_path, mask_path

FORMATS = {"png": "masks", "coco": "instances.json", "label-studio": "tasks.json", "cvat": "annotations.xml"}


@pytest.fixture
def home(tmp_path):
    """Six photographs and a pseudo run of the true masks with faults; the more of these, the less sure."""
    prepare_toy(tmp_path / "toy", images=6, val=2, size=48)
    dataset = open_dataset(tmp_path / "toy")
    path = tmp_path / "runs/pseudo-toy-1"
    inputs = Inputs(dataset=str(dataset.root), classes=dataset.classes, colors=dataset.colors, dataset_name="toy")
    with open_run(path, "pseudo", load_preset("toy", [f'dataset.path="{dataset.root}"']), "1", inputs) as run:
        for number, sample in enumerate(dataset.split("train")):
            mask, sure = read_mask(sample.mask), np.ones((48, 48), np.float32)
            mask[: 4 * number], sure[: 4 * number] = 255, 0
            if number == 2:
                mask[:] = 0  # nothing in it
            if number == 1:
                mask[:] = 255  # nothing said
            sure[40:] = 0.8
            write_pseudo_mask(mask_path(path, sample.id), confidence_path(path, sample.id), mask, sure, dataset.colors)
        run.finish()
    return tmp_path


def run(*arguments):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.stdout


def without_truth(home):
    """No list names a mask."""
    for file in (home / "toy/splits").iterdir():
        rows = list(csv.reader(file.open()))
        place = rows[0].index("mask")
        file.write_text(
            "".join(
                ",".join([*row[:place], row[place] * (not n), *row[place + 1 :]]) + "\n" for n, row in enumerate(rows)
            )
        )


def submitted(file):
    """What Label Studio's annotators do: take each prediction as it is."""
    tasks = json.loads(file.read_text())
    for number, task in enumerate(tasks):
        task["annotations"] = [{"id": number, "result": task.pop("predictions")[0]["result"]}]
    file.write_text(json.dumps(tasks))


def exported(home, form, name="out", *more):
    shown = run("export-masks", home / "runs/pseudo-toy-1", "--format", form, "--out", home / name, *more)
    return home / name / FORMATS[form], shown


def test_those_that_cost_most_come_first(home):
    without_truth(home)
    file, shown = exported(home, "png")
    rows = list(csv.DictReader((home / "out/order.csv").open()))
    losses = [float(row["loss"]) for row in rows]
    assert losses == sorted(losses, reverse=True) and losses[0] > losses[-1] > 0
    wrong = {row["id"]: float(row["wrong"]) for row in rows}
    expected = {f"train_{number:06d}": (4 * number + 8 * (1 - 204 / 255)) / 48 for number in range(6)}
    assert wrong == pytest.approx(expected, abs=1e-6)
    assert [row["rank"] for row in rows] == list("123456") and rows[0]["image"].endswith(f"{rows[0]['id']}.jpg")
    assert "confidence as it was given" in shown and "expected share of wrong pixels in them: 24.2 %" in shown
    assert sorted(path.name for path in file.iterdir()) == sorted(f"{row['id']}.png" for row in rows)


def test_where_there_is_truth_confidence_is_held_against_it(home):
    told = json.loads(exported(home, "coco", "out", "--json")[1])
    dataset = open_dataset(home / "toy")
    total, wrong, sure = np.zeros(3), np.zeros(3), np.zeros(3)  # of the three confidences that there are
    for sample in dataset.split("train"):
        truth, mask = read_mask(sample.mask), read_mask(mask_path(home / "runs/pseudo-toy-1", sample.id))
        confidence = read_mask(confidence_path(home / "runs/pseudo-toy-1", sample.id))
        for at, value in enumerate((0, 204, 255)):
            here = (confidence == value) & (truth != 255)
            total[at] += here.sum()
            wrong[at] += (here & (mask != truth)).sum()
            sure[at] += here.sum() * value / 255
    assert told["ece"] == pytest.approx(float(abs(total - wrong - sure).sum() / total.sum()))
    first = next(csv.DictReader((home / "out/order.csv").open()))
    pixels, faults = Counter(), Counter()  # by group and confidence
    for sample in dataset.split("train"):
        truth = read_mask(sample.mask)
        mask, confidence = read_mask(mask_path(home / "runs/pseudo-toy-1", sample.id)), confidence_of(home, sample.id)
        for key, label, true in zip(keys_of(mask, confidence), mask.flat, truth.flat, strict=True):
            pixels[key] += true != 255
            faults[key] += true not in (255, label)
    more = total.sum() / 6  # of a photograph
    pooled = dict(zip((0, 204, 255), wrong / total, strict=True))
    shown = read_mask(mask_path(home / "runs/pseudo-toy-1", first["id"]))
    keys = list(keys_of(shown, confidence_of(home, first["id"])))
    expected = np.mean([(faults[key] + more * pooled[key[2]]) / (pixels[key] + more) for key in keys])
    assert float(first["wrong"]) == pytest.approx(float(expected), abs=1e-6)


def keys_of(mask, confidence):
    """Of each pixel: background, object or 255; how much of the mask its class covers; its confidence."""
    covers = {
        label: sum((mask == label).mean() >= edge for edge in (0.1, 0.25, 0.5, 0.75, 0.9)) for label in set(mask.flat)
    }
    for label, sure in zip(mask.flat, confidence.flat, strict=True):
        yield {0: "background", 255: "open"}.get(label, "object"), covers[label], sure


def test_a_mask_that_one_class_floods_is_no_longer_sure_where_such_masks_are_wrong():
    """By hand: of ten true masks half are flooded and wrong by half, and as sure as the others, which are right."""
    flooded, sound = np.full((10, 10), 1, np.uint8), np.zeros((10, 10), np.uint8)
    sound[:3] = 1
    sure = np.full(100, 255)
    counts = np.zeros((2, GROUPS, LEVELS), np.int64)
    for mask, right in ((flooded, 50), (sound, 100)):
        groups = pixel_groups(mask).ravel()
        for which, count in ((0, 100), (1, right)):
            np.add.at(counts[which], (groups[:count], sure[:count]), 5)
    calibration = calibrate(counts, 10)
    # pooled a quarter is wrong; a photograph of 100 such pixels is added to each group
    at_full = np.arange(LEVELS) == 255
    of_flooded = Confidence(np.array([1]), pixel_groups(flooded)[:1, 0], np.outer([100], at_full))
    of_sound = Confidence(np.array([0, 1]), pixel_groups(sound)[[9, 0], 0], np.outer([70, 30], at_full))
    assert of_flooded.wrong(calibration.wrong) == pytest.approx([100 * (250 + 25) / (500 + 100)])
    assert of_sound.wrong(calibration.wrong) == pytest.approx([70 * 25 / (350 + 100), 30 * 25 / (150 + 100)])
    assert calibration.error == pytest.approx(0.25)
    assert (calibration.wrong[:, 0] == 1).all()  # no pixel of that confidence: taken at its word


def test_what_wrong_pixels_cost_the_mean_iou_by_hand():
    """Classes of 1,000, 200 and 10 pixels, the last taken for a photograph's 100: 1/30, 1/6 and 1/3 points a pixel."""
    pixels = np.array([1000, 200, 10])
    masks = [{0: 6.0, 1: 3.0}, {0: 6.0, 2: 3.0}, {0: 0.0, 255: 6.0}, {1: 2.0}, {0: 5.0}]
    tags = [(1,), (2,), (1, 2), (1, 2), ()]
    background, first, second = 1 / 30, 1 / 6, 1 / 3
    expected = [
        6 * (background + first) + 3 * (first + background),
        6 * (background + second) + 3 * (second + background),
        6 * (background + first + second) / 3,
        2 * (first + (background + second) / 2),
        5 * background,  # there is no class that its pixels could be of
    ]
    assert expected_losses(masks, tags, pixels, 100.0) == pytest.approx(expected)


def test_a_rare_class_comes_before_a_mask_with_more_wrong_pixels(home):
    """Masks of background and one class each; the fifth has a class that no other mask has."""
    samples = list(open_dataset(home / "toy").split("train"))
    rows = list(csv.DictReader((home / "toy/splits/train.csv").open()))
    for number, (sample, row) in enumerate(zip(samples, rows, strict=True)):
        label = 2 if number == 4 else 1
        row["labels"] = open_dataset(home / "toy").classes[label]
        mask, sure = np.zeros((48, 48), np.uint8), np.full((48, 48), 255, np.uint8)
        mask[:, : 8 if label == 2 else 24] = label
        sure[: number + 1, :4] = 0
        write_mask(home / "predicted/masks" / f"{sample.image.stem}.png", mask, ((0, 0, 0),) * 6)
        write_mask(home / "predicted/confidence" / f"{sample.image.stem}.png", sure, ((0, 0, 0),))
    with (home / "toy/splits/train.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    run("export-masks", home / "predicted", "--data", home / "toy", "--out", home / "out")
    order = list(csv.DictReader((home / "out/order.csv").open()))
    assert [row["id"] for row in order] == [samples[number].id for number in (4, 5, 3, 2, 1, 0)]
    assert float(order[0]["wrong"]) < float(order[1]["wrong"]) and float(order[0]["loss"]) > float(order[1]["loss"])
    of_common, of_background, pixels = 5 * 48 * 24, 48 * (40 + 5 * 24), 6 * 4
    assert float(order[1]["loss"]) == pytest.approx(100 / 6 * pixels * (1 / of_common + 1 / of_background), abs=1e-6)


def test_groups_of_pixels_by_hand():
    mask = np.zeros((10, 10), np.uint8)
    mask[0, :5], mask[1], mask[2, 0], mask[5:8] = 1, 2, 255, 3  # 5, 10, 1 and 30 %; the background has 54 %
    groups = pixel_groups(mask)
    assert [int(groups[at]) for at in ((0, 0), (1, 0), (2, 0), (5, 0), (3, 0))] == [6, 7, 12, 8, 3]


def confidence_of(home, name):
    return read_mask(confidence_path(home / "runs/pseudo-toy-1", name))


def test_every_door_brings_back_the_same_bytes(home):
    contents = {}
    for form in FORMATS:
        file, _ = exported(home, form, form)
        if form == "label-studio":
            submitted(file)
        run("prepare", "labels", home / "toy", file, "--clear")
        trusted = read_trusted(home / "toy")
        assert {entry.kind for entry in trusted.entries.values()} == {"mask"}
        contents[form] = {name: trusted.file(name).read_bytes() for name in trusted.entries}
        assert len(contents[form]) == 6
        run("prepare", "labels", home / "toy", "--clear")
    for sample in open_dataset(home / "toy").split("train"):
        same = {contents[form][sample.id] for form in FORMATS}
        assert same == {mask_path(home / "runs/pseudo-toy-1", sample.id).read_bytes()}


def test_count_share_and_what_is_corrected_already(home):
    exported(home, "cvat", "two", "--count", "2")
    exported(home, "png", "half", "--share", "0.5")
    assert len((home / "two/order.csv").read_text().splitlines()) == 3
    assert len(list((home / "half/masks").iterdir())) == 3
    run("prepare", "labels", home / "toy", home / "two/annotations.xml")
    rest, shown = exported(home, "png", "rest")
    there = {path.stem for path in rest.iterdir()}
    assert len(there) == 4 and "left out: 2 photographs with a whole mask" in shown
    assert there.isdisjoint(read_trusted(home / "toy").entries)
    run("prepare", "labels", home / "toy", rest)
    with pytest.raises(DataError, match="all 6 photographs have a whole mask"):
        exported(home, "png", "none")
    assert not (home / "none").exists()


def test_a_later_correction_takes_the_place_of_an_earlier_one(home):
    file, _ = exported(home, "coco", "out", "--count", "1")
    run("prepare", "labels", home / "toy", file)
    (name,) = read_trusted(home / "toy").entries
    table = json.loads(file.read_text())
    cross = next(one["id"] for one in table["categories"] if one["name"] == open_dataset(home / "toy").classes[2])
    table["annotations"] = [
        {"id": 1, "image_id": 1, "category_id": cross, "segmentation": [[10, 20, 30, 20, 30, 40, 10, 40]], "iscrowd": 1}
    ]
    file.write_text(json.dumps(table))
    run("prepare", "labels", home / "toy", file)
    mask = read_trusted(home / "toy").of(name).read()
    expected = np.zeros((48, 48), np.uint8)
    expected[20:40, 10:30] = 2
    assert (mask == expected).all()


def test_pycocotools_reads_what_is_written(home):
    file, _ = exported(home, "coco")
    coco = COCO(str(file))
    names = {one["id"]: one["name"] for one in coco.loadCats(coco.getCatIds())}
    dataset = open_dataset(home / "toy")
    assert list(names.values()) == [*dataset.classes, "undecided"]
    for image in coco.loadImgs(coco.getImgIds()):
        mask = np.zeros((image["height"], image["width"]), np.uint8)
        for one in coco.loadAnns(coco.getAnnIds(image["id"])):
            pixels = coco.annToMask(one) > 0
            assert one["area"] == pixels.sum()
            mask[pixels] = (
                255 if names[one["category_id"]] == "undecided" else dataset.classes.index(names[one["category_id"]])
            )
        assert (mask == read_mask(mask_path(home / "runs/pseudo-toy-1", image["file_name"][:-4]))).all()


def test_a_folder_of_predictions_goes_out_in_the_order_of_the_list(home):
    samples = open_dataset(home / "toy").split("train")
    for sample in samples[2:4]:
        write_mask(home / "predicted/masks" / f"{sample.image.stem}.png", read_mask(sample.mask), ((0, 0, 0),) * 6)
    shown = run("export-masks", home / "predicted", "--data", home / "toy", "--out", home / "out")
    assert "no confidence is known" in shown
    rows = list(csv.DictReader((home / "out/order.csv").open()))
    assert [(row["id"], row["wrong"], row["loss"]) for row in rows] == [(samples[at].id, "", "") for at in (2, 3)]
    for number, sample in enumerate(samples[2:4]):
        grey = np.full((48, 48), 200 - 99 * number, np.uint8)
        write_mask(home / "predicted/confidence" / f"{sample.image.stem}.png", grey, ((0, 0, 0),))
    run("export-masks", home / "predicted", "--data", home / "toy", "--out", home / "sure")
    rows = list(csv.DictReader((home / "sure/order.csv").open()))
    assert [row["id"] for row in rows] == [samples[3].id, samples[2].id]
    assert [float(row["wrong"]) for row in rows] == pytest.approx([1 - 101 / 255, 1 - 200 / 255], abs=1e-6)
    with pytest.raises(UsageError, match="of which data set"):
        run("export-masks", home / "predicted", "--out", home / "more")


def test_where_the_data_set_of_a_run_was_moved_its_place_is_asked_for(home):
    (home / "toy").rename(home / "moved")
    with pytest.raises(DataError, match=r"the data set of .*pseudo-toy-1 is gone: .*toy") as caught:
        exported(home, "png")
    assert "--data DIR" in caught.value.hint
    assert exported(home, "png", "out", "--data", home / "moved")[0].is_dir()


def test_predictions_for_other_classes_are_refused(home):
    dataset = open_dataset(home / "toy")
    names = [sample.image.stem for sample in dataset.split("train")[:2]]
    for name in names:
        write_mask(home / "predicted/masks" / f"{name}.png", np.zeros((48, 48), np.uint8), dataset.colors)
    others = ("background", "cow", *dataset.classes[2:])
    for classes, made in ((dataset.classes, names), (others, names[:1])):  # the first is of another network by now
        journal = Journal(home / "predicted", {"network": classes}, classes=classes)
        for name in made:
            journal.add(name, home / "toy/JPEGImages" / f"{name}.jpg", overlay=False)
    now = ", ".join(dataset.classes[1:])
    words = f"the mask {names[0]} was predicted for cow, .*; {home}/toy has {now}"
    with pytest.raises(UsageError, match=words):
        run("export-masks", home / "predicted", "--data", home / "toy", "--out", home / "out")
    with pytest.raises(UsageError, match=words):
        run("prepare", "labels", home / "toy", home / "predicted/masks")
    assert not (home / "out").exists() and not (home / "toy/trusted").exists()
    (home / "predicted/masks" / f"{names[0]}.png").unlink()
    run("export-masks", home / "predicted", "--data", home / "toy", "--out", home / "out")


def test_photographs_go_along_under_the_names_of_the_export(home):
    """Folders with photographs of one name, and names with a comma, a blank and a quote."""
    names = ["a/1.jpg", "b/1.jpg", "two, three.jpg", 'c d/"4".jpg', "e/5.jpg", "e/6.jpg"]
    images = sorted((home / "toy/JPEGImages").glob("train*"))
    for name, image in zip(names, images, strict=True):
        (home / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        image.rename(home / "photos" / name)
    rows = list(csv.DictReader((home / "toy/splits/train.csv").open()))
    with (home / "toy/splits/train.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows({**row, "image": home / "photos" / name} for name, row in zip(names, rows, strict=True))
    file, shown = exported(home, "cvat", "out", "--photographs", "--json")
    assert str(home / "out/photographs") in json.loads(shown)["files"]
    listed = [image.get("name") for image in ElementTree.parse(file).getroot().iter("image")]
    there = {
        path.relative_to(home / "out/photographs").as_posix() for path in (home / "out/photographs").rglob("*.jpg")
    }
    assert there == set(listed) and len(listed) == 6
    samples = {sample.id: sample for sample in open_dataset(home / "toy").split("train")}
    order = list(csv.DictReader((home / "out/order.csv").open()))
    for row, name in zip(order, listed, strict=True):
        assert (home / "out/photographs" / name).read_bytes() == samples[row["id"]].image.read_bytes()
    run("prepare", "labels", home / "toy", file)
    assert set(read_trusted(home / "toy").entries) == samples.keys()


def test_what_cannot_go_out_is_refused_and_leaves_nothing(home):
    pseudo = home / "runs/pseudo-toy-1"
    (home / "full").mkdir()
    (home / "full/mine").touch()
    for arguments, error, words in (
        ([pseudo, "--out", home / "full"], UsageError, "is there already, and may hold corrections"),
        ([home / "toy", "--out", home / "a"], UsageError, "has no masks"),
        ([pseudo, "--out", home / "a", "--count", "2", "--share", "0.5"], UsageError, "both say"),
        ([pseudo, "--out", home / "a", "--share", "0.01"], UsageError, "is none"),
        ([pseudo, "--out", home / "a", "--split", "val"], DataError, "has no mask of a photograph of split 'val'"),
    ):
        with pytest.raises(error, match=words):
            run("export-masks", *arguments)
    sample = open_dataset(home / "toy").split("train")[0]
    mask_path(pseudo, sample.id).write_bytes(b"no PNG")
    with pytest.raises(DataError, match=sample.id):
        run("export-masks", pseudo, "--out", home / "a")
    assert not (home / "a").exists() and not (home / ".a.part").exists()


def test_an_export_that_was_killed_is_written_anew(home):
    (home / ".out.part/masks").mkdir(parents=True)
    (home / ".out.part/masks/stale.png").touch()
    file, _ = exported(home, "png")
    assert not (file / "stale.png").exists() and not (home / ".out.part").exists()
    assert sorted(path.name for path in (home / "out").iterdir()) == ["masks", "order.csv"]
