"""A teacher's scores: the same masks by every door give the same bytes; what does not fit is named."""

import json

import numpy as np
import pytest
import torch
from pycocotools import mask as rle_of
from typer.testing import CliRunner

from wsss_cli.cam.store import read_cam, write_cam
from wsss_cli.cli.app import app
from wsss_cli.config.load import load_preset
from wsss_cli.data.dataset import open_dataset
from wsss_cli.data.images import image_size
from wsss_cli.data.masks import read_mask, write_mask
from wsss_cli.data.sources.toy import prepare_toy
from wsss_cli.engine.context import Context
from wsss_cli.engine.records import read_inputs, read_record, write_record
from wsss_cli.errors import DataError, UsageError
from wsss_cli.stages.paths import cam_path, mask_path
from wsss_cli.stages.pipeline import run_step
from wsss_cli.stages.plan import open_experiment, plan_pseudo
from wsss_cli.stages.teacher import Counts, Source, run_import
from wsss_cli.talk import silent


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    prepare_toy(folder / "toy", images=6, val=2, size=48)
    return open_dataset(folder / "toy")


@pytest.fixture
def ctx(tmp_path):
    return Context(torch.device("cpu"), tmp_path / "runs")


def take(dataset, path, ctx, **more):
    options = {"teacher": "a friend", "renames": {}, **more}
    return run_import(dataset, "train", Source(path, **options), "friend", ctx)


def label_maps(dataset, folder, change=lambda mask: mask):
    for sample in dataset.split("train"):
        write_mask(folder / f"{sample.id}.png", change(read_mask(sample.mask)), dataset.colors)
    return folder


def entries(dataset, form="rle", **more):
    """An instance for each class of each true mask, as tools write them."""
    listed = []
    for number, sample in enumerate(dataset.split("train")):
        mask = read_mask(sample.mask)
        for label in sample.labels:
            code = rle_of.encode(np.asfortranarray(mask == label).astype(np.uint8))
            shape = {"size": list(code["size"]), "counts": code["counts"].decode()}
            if form == "runs":
                flat = (mask == label).T.ravel().astype(int)
                edges = np.flatnonzero(np.diff(np.concatenate([[0], flat, [1 - flat[-1]]])))
                shape = {"size": list(mask.shape), "counts": np.diff(np.concatenate([[0], edges])).tolist()}
            listed.append({"image_id": number, "category_id": label, "segmentation": shape, "score": 1.0, **more})
    return listed


def coco(dataset, path, listed, *, whole):
    images = [{"id": n, "file_name": sample.image.name} for n, sample in enumerate(dataset.split("train"))]
    categories = [{"id": label, "name": name} for label, name in enumerate(dataset.classes) if label]
    names = {"images": images, "categories": categories}
    path.write_text(json.dumps({**names, "annotations": listed} if whole else listed))
    if not whole:
        (path.parent / "names.json").write_text(json.dumps(names))
    return path


def cams(run, dataset):
    return {sample.id: cam_path(run, sample.id).read_bytes() for sample in dataset.split("train")}


def test_the_same_masks_by_every_door_give_the_same_bytes(dataset, tmp_path, ctx):
    def decided(mask):
        return np.where(mask == 255, 0, mask).astype(np.uint8)

    by_maps = take(dataset, label_maps(dataset, tmp_path / "maps", decided), ctx)
    assert not by_maps.lost and not by_maps.notes
    expected = cams(by_maps.run, dataset)
    for sample in dataset.split("train"):
        mask, (cam, classes, size) = read_mask(sample.mask), read_cam(cam_path(by_maps.run, sample.id))
        assert classes == sample.labels and size == mask.shape
        assert (cam == np.stack([mask == label for label in classes])).all()
        write_cam(tmp_path / "npz" / f"{sample.id}.npz", cam, classes, size)
    whole = coco(dataset, tmp_path / "whole.json", entries(dataset), whole=True)
    alone = coco(dataset, tmp_path / "alone.json", entries(dataset, "runs"), whole=False)
    by_name = tmp_path / "named.json"
    samples = dataset.split("train")
    named = [
        {
            "file_name": f"photos/{samples[one['image_id']].image.name}",
            "label": f"{dataset.classes[one['category_id']].upper()}.",
            "segmentation": one["segmentation"],
        }
        for one in entries(dataset)
    ]
    by_name.write_text(json.dumps(named))
    for path, more in (
        (tmp_path / "npz", {}),
        (whole, {}),
        (alone, {"names_from": tmp_path / "names.json"}),
        (by_name, {}),
    ):
        done = take(dataset, path, ctx, **more)
        assert done.run != by_maps.run and not done.lost and cams(done.run, dataset) == expected
    assert by_maps.scores["best"]["miou"] > 99


def test_scores_of_a_class_are_the_highest_of_its_instances_and_255_is_one_half(dataset, tmp_path, ctx):
    sample = dataset.split("train")[0]
    listed = []
    for rows, score in ((slice(0, 20), 0.5), (slice(10, 30), 0.8)):
        pixels = np.zeros(read_mask(sample.mask).shape, np.uint8)
        pixels[rows] = 1
        code = rle_of.encode(np.asfortranarray(pixels))
        shape = {"size": list(code["size"]), "counts": code["counts"].decode()}
        label = dataset.classes[sample.labels[0]]
        listed.append({"image_id": sample.id, "label": label, "score": score, "segmentation": shape})
    (tmp_path / "r.json").write_text(json.dumps(listed))
    done = take(dataset, tmp_path / "r.json", ctx)
    plane = read_cam(cam_path(done.run, sample.id))[0][0]
    rounded = [round(float(value), 2) for value in (plane[5, 3], plane[15, 3], plane[25, 3], plane[35, 3])]
    assert rounded == [0.5, 0.8, 0.8, 0.0]
    other = dataset.split("train")[1]
    assert not read_cam(cam_path(done.run, other.id))[0].any()  # the teacher has found nothing there

    def unknown(mask):
        mask = mask.copy()
        mask[:5] = 255
        return mask

    done = take(dataset, label_maps(dataset, tmp_path / "maps", unknown), ctx)
    half = read_cam(cam_path(done.run, sample.id))[0][:, :5]
    assert (np.abs(half - 0.5) < 0.01).all()


def test_classes_that_no_tag_asks_for_are_dropped_and_counted(dataset, tmp_path, ctx):
    sample = next(one for one in dataset.split("train") if len(one.labels) == 1)
    other = next(label for label in range(1, dataset.num_classes) if label not in sample.labels)

    def more(mask):
        mask = mask.copy()
        mask[:8] = other
        return mask

    done = take(dataset, label_maps(dataset, tmp_path / "maps", more), ctx)
    tagged = sum(other in one.labels for one in dataset.split("train"))
    counts = done.counts[dataset.classes[other]]
    assert (counts.tagged, counts.taken, counts.others, counts.untagged) == (tagged, tagged, 6 - tagged, 6 - tagged)
    cam, classes, _ = read_cam(cam_path(done.run, sample.id))
    assert classes == sample.labels and not cam[:, :8].any()
    again = take(dataset, tmp_path / "maps", ctx)
    assert again.skipped and again.counts == done.counts


def test_an_import_that_was_cut_off_goes_on(dataset, tmp_path, ctx):
    folder = label_maps(dataset, tmp_path / "maps")
    done = take(dataset, folder, ctx)
    expected, counts = cams(done.run, dataset), done.counts
    journal = done.run / "teacher.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join(lines[:3]) + lines[3][:9] + "\n")
    cam_path(done.run, json.loads(lines[0])["id"]).unlink()
    again = take(dataset, folder, ctx)
    assert cams(again.run, dataset) == expected and again.counts == counts and not again.skipped


def test_photographs_without_a_file_and_files_without_a_photograph_are_told(dataset, tmp_path, ctx):
    folder = label_maps(dataset, tmp_path / "maps")
    first, second = dataset.split("train")[:2]
    (folder / f"{first.id}.png").rename(folder / "stranger.png")
    write_mask(folder / f"{second.id}.png", np.zeros((5, 5), np.uint8), dataset.colors)
    done = take(dataset, folder, ctx)
    assert [entry["id"] for entry in done.lost] == [second.id, first.id]  # that of a file tells more
    assert "is 5x5, its photograph is 48x" in done.lost[0]["reason"] and "has no file of it" in done.lost[1]["reason"]
    assert done.notes == ("1 of 6 files are of no photograph of the list, first stranger.png",)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"score": 1.5}, "has the score 1.5"),
        ({"score": "high"}, "has the score 'high'"),
        ({"score": 0}, "every score is 0"),
        ({"segmentation": None}, "entry 1 has no segmentation"),
        ({"segmentation": "1224 30 1284 30"}, "entry 1 has a segmentation that is text"),
        ({"segmentation": [{"size": [9, 9], "counts": "0"}]}, "has a segmentation that is a list of run-length codes"),
        ({"segmentation": []}, r"no outline of its \d+ entries covers more than a pixel"),
        ({"segmentation": [[0.2, 0.2, 0.8, 0.2, 0.8, 0.9]]}, "covers more than a pixel"),  # shares of the image
        ({"image_id": 999}, "has image_id 999, which nothing names"),
        ({"category_id": None}, "has no label"),
        ({"label": "moggy"}, "none of the labels in"),
        ({"file_name": "elsewhere.jpg"}, "is of a photograph of the list"),
    ],
)
def test_results_that_cannot_be_taken_are_refused(dataset, tmp_path, ctx, change, words):
    listed = [{**one, **change} for one in entries(dataset)]
    with pytest.raises(DataError, match=words):
        take(dataset, coco(dataset, tmp_path / "r.json", listed, whole=True), ctx)
    assert not (tmp_path / "runs").exists()


def test_a_shape_that_cannot_be_taken_loses_its_photograph_alone(dataset, tmp_path, ctx):
    listed = entries(dataset)
    listed[0]["segmentation"] = {"size": [5, 5], "counts": [25]}
    done = take(dataset, coco(dataset, tmp_path / "r.json", listed, whole=True), ctx)
    assert [entry["id"] for entry in done.lost] == [dataset.split("train")[0].id]


def test_instances_without_an_outline_are_counted(dataset, tmp_path, ctx):
    listed = entries(dataset)
    listed[0]["segmentation"], listed[1]["segmentation"] = [], [[3, 3, 9, 3]]
    done = take(dataset, coco(dataset, tmp_path / "r.json", listed, whole=True), ctx)
    (note,) = done.notes
    assert note.startswith(f"2 of {len(listed)} entries have no outline, or one of no more than a pixel")


def test_entries_without_a_score_and_crowds_are_counted(dataset, tmp_path, ctx):
    listed = entries(dataset)
    del listed[0]["score"]
    listed[1] |= {"iscrowd": 1}
    listed[2] |= {"attributes": {"ignore": True}, "iscrowd": 0}
    done = take(dataset, coco(dataset, tmp_path / "r.json", listed, whole=True), ctx)
    assert done.notes == (
        f"1 of {len(listed)} entries have no score or confidence, and count as 1",
        "r.json: not looked at: iscrowd of 1, ignore of 1; what is so marked is taken as all the rest",
    )


@pytest.mark.parametrize("key", ["images", "categories"])
def test_an_id_that_means_another_thing_in_the_file_of_names_is_refused(dataset, tmp_path, ctx, key):
    path = coco(dataset, tmp_path / "r.json", entries(dataset), whole=True)
    names = json.loads(path.read_text())
    field = "file_name" if key == "images" else "name"
    names["images"][0]["file_name"] = f"photos/{names['images'][0]['file_name']}"  # the same one
    (tmp_path / "names.json").write_text(json.dumps(names))
    assert take(dataset, path, ctx, names_from=tmp_path / "names.json").run
    names[key][0][field], names[key][1][field] = names[key][1][field], names[key][0][field]
    (tmp_path / "names.json").write_text(json.dumps(names))
    with pytest.raises(DataError, match=f"{key} of id .* in the file of --names"):
        take(dataset, path, ctx, names_from=tmp_path / "names.json")


def test_images_with_annotations_of_their_own_are_refused_as_such(dataset, tmp_path, ctx):
    (one, *_), path = entries(dataset), tmp_path / "r.json"
    path.write_text(json.dumps([{"image_path": dataset.split("train")[0].image.name, "annotations": [one]}]))
    with pytest.raises(DataError, match="an image with annotations of its own"):
        take(dataset, path, ctx)


def test_labels_are_renamed_and_other_ones_are_told(dataset, tmp_path, ctx):
    label = dataset.split("train")[0].labels[0]
    name = dataset.classes[label]
    listed = [{**one, "label": "moggy" if one["category_id"] == label else "?"} for one in entries(dataset)]
    path = coco(dataset, tmp_path / "r.json", listed, whole=True)
    done = take(dataset, path, ctx, renames={"moggy": name})
    assert done.counts[name].taken == done.counts[name].tagged > 0
    (note,) = done.notes
    assert "have labels that are no class: '?'" in note
    with pytest.raises(UsageError, match="no class 'dgo'"):
        take(dataset, path, ctx, renames={"moggy": "dgo"})


@pytest.mark.parametrize("other", ["elsewhere/{}.jpg", "{}.png"])
def test_images_of_two_names_are_not_taken_for_one_photograph(dataset, tmp_path, ctx, other):
    listed = entries(dataset)
    first = dataset.split("train")[0]
    path = coco(dataset, tmp_path / "r.json", [{**one, "file_name": "no.jpg"} for one in listed[:1]], whole=False)
    with pytest.raises(DataError, match=rf"no\.jpg is none, {first.id} is one"):
        take(dataset, path, ctx)
    named = [{**listed[0], "file_name": name} for name in (f"{first.id}.jpg", other.format(first.id))]
    path = coco(dataset, tmp_path / "r.json", named, whole=False)
    with pytest.raises(DataError, match=f"are both taken for the photograph {first.id}"):
        take(dataset, path, ctx)


@pytest.mark.parametrize(("names", "words"), [((), "neither"), (("a.png", "b.npz"), "both")])
def test_a_folder_holds_one_kind_of_files(dataset, tmp_path, ctx, names, words):
    (tmp_path / "folder").mkdir()
    for name in names:
        (tmp_path / "folder" / name).touch()
    with pytest.raises(DataError, match=words):
        take(dataset, tmp_path / "folder", ctx)
    with pytest.raises(DataError, match="there is no"):
        take(dataset, tmp_path / "nowhere", ctx)


def test_masks_of_a_teacher_name_it(dataset, tmp_path, ctx):
    done = take(dataset, label_maps(dataset, tmp_path / "maps"), ctx)
    preset = load_preset("toy", [f'dataset.path="{dataset.root}"', "pseudo.steps=[]"])
    exp = open_experiment(preset, ctx.runs)
    *_, step = plan_pseudo(exp, done.run, silent)
    run_step(step, exp, ctx)
    assert read_inputs(step.path).teacher == "a friend"
    scores = json.loads((step.path / "eval.json").read_text())
    assert "made from scores of a friend: not of image tags alone" in scores["protocol"]
    assert scores["background"]["miou"] > 95
    assert mask_path(step.path, dataset.split("train")[0].id).is_file()
    assert "teacher: a friend" in (step.path / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("tagged", "taken", "others", "untagged", "advice"),
    [
        (100, 95, 100, 5, "teacher"),
        (100, 95, 100, 6, "both"),
        (100, 89, 100, 0, "both"),
        (100, 49, 100, 0, "CAM"),
        (100, 90, 100, 46, "CAM"),
        (10, 10, 0, 0, "teacher"),
        (0, 0, 9, 3, "-"),
    ],
)
def test_advice_follows_from_hits_and_false_finds(tagged, taken, others, untagged, advice):
    assert Counts(tagged, taken, others, untagged).advice == advice


def test_advice_is_shown_by_the_command(dataset, tmp_path, ctx, wsss):
    done = take(dataset, label_maps(dataset, tmp_path / "maps"), ctx)
    arguments = ["advise", done.run.name, "--runs", str(ctx.runs)]
    told = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).stdout)
    assert told["teacher"] == "a friend"
    name = dataset.classes[dataset.split("train")[0].labels[0]]
    assert told["classes"][name]["hit"] == 1 and told["classes"][name]["advice"] == "teacher"
    assert "false tells nothing" in CliRunner().invoke(app, arguments).stdout
    record = read_record(done.run)
    for argument, state, message in (
        (str(dataset.root), "done", f"error: {dataset.root} is no run directory"),
        ("nowhere", "done", "error: nowhere is no run directory"),
        (str(done.run), "preempted", f"error: {done.run} is not finished"),
    ):
        write_record(done.run, record.model_copy(update={"state": state}))
        refused = wsss("advise", argument)
        assert (refused.returncode, refused.stdout) == (2, "") and message in refused.stderr


def test_the_command_that_follows_reads_the_list_that_the_scores_are_of(dataset, tmp_path, ctx, wsss):
    folder = tmp_path / "of val"
    folder.mkdir()
    for sample in dataset.split("val"):
        (folder / f"{sample.id}.png").write_bytes(sample.mask.read_bytes())
    arguments = [str(dataset.root), str(folder), "--teacher", "x", "--runs", str(ctx.runs)]
    done = wsss("import-scores", *arguments, "--split", "val")
    assert done.returncode == 0 and " --set dataset.train=val --runs " in done.stderr.partition("next: ")[2]


def test_without_thresholds_the_background_is_what_is_left(dataset, tmp_path, ctx):
    def unknown(mask):
        mask = mask.copy()
        mask[:6] = 255
        return mask

    done = take(dataset, label_maps(dataset, tmp_path / "maps", unknown), ctx)
    preset = load_preset(
        "toy", [f'dataset.path="{dataset.root}"', "pseudo.steps=[]", "pseudo.threshold.kind=complement"]
    )
    exp = open_experiment(preset, ctx.runs)
    *_, step = plan_pseudo(exp, done.run, silent)
    run_step(step, exp, ctx)
    for sample in dataset.split("train"):
        assert (read_mask(mask_path(step.path, sample.id)) == unknown(read_mask(sample.mask))).all()
    assert "background 1 less the highest score" in (step.path / "eval.json").read_text()
    with pytest.raises(UsageError, match="complement, which has none"):
        load_preset("toy", ["pseudo.threshold.kind=complement", "rounds=2", "relabel.cam_weight=0.5"])


def test_scores_are_held_against_cams_of_the_tags(dataset, tmp_path, ctx):
    """The teacher has a corner of each photograph beside what is true, and nothing of the first; the CAMs know all."""
    right = take(dataset, label_maps(dataset, tmp_path / "right"), ctx)
    first, *others = dataset.split("train")
    write_mask(tmp_path / "wrong" / f"{first.id}.png", np.zeros((48, 48), np.uint8), dataset.colors)
    for sample in others:
        mask = read_mask(sample.mask)
        mask[:6, :6] = sample.labels[0]
        write_mask(tmp_path / "wrong" / f"{sample.id}.png", mask, dataset.colors)
    teacher = take(dataset, tmp_path / "wrong", ctx, teacher="somebody")
    steps = [f'pseudo.steps=[{{kind="agree", cams="{right.run}"}}]', "pseudo.threshold.kind=complement"]
    preset = load_preset("toy", [f'dataset.path="{dataset.root}"', *steps])
    exp = open_experiment(preset, ctx.runs)
    *_, step = plan_pseudo(exp, teacher.run, silent)
    run_step(step, exp, ctx)
    inputs = read_inputs(step.path)
    assert inputs.judge_run == str(right.run) and inputs.cam_run == str(teacher.run)
    stored = json.loads((step.path / "eval.json").read_text())
    counts = stored["agreement"]
    (name,) = (dataset.classes[label] for label in first.labels)
    assert sum(one["by_cam"] for one in counts.values()) == counts[name]["by_cam"] == 1
    mask, truth = read_mask(mask_path(step.path, first.id)), read_mask(first.mask)
    assert (mask[truth == first.labels[0]] == first.labels[0]).mean() > 0.9
    corners = [read_mask(mask_path(step.path, sample.id))[:5, :5] for sample in others]
    assert any((corner == 255).all() for corner in corners)  # doubted, where nothing true touches it
    again = plan_pseudo(open_experiment(preset, ctx.runs), teacher.run, silent)[-1]
    assert again.done and again.path == step.path


@pytest.mark.parametrize("value", [0, 255])
def test_label_maps_in_which_objects_are_0_or_255_are_refused(dataset, tmp_path, ctx, value):
    maps = label_maps(dataset, tmp_path / "maps", lambda mask: np.where(mask > 0, value, 0).astype(np.uint8))
    with pytest.raises(DataError, match=r"no label map in .*maps has a class"):
        take(dataset, maps, ctx)
    assert not [path for path in ctx.runs.iterdir() if read_record(path).state == "done"]


@pytest.mark.parametrize(("kind", "value"), [(np.uint8, 0), (np.uint8, 1), (np.float32, 0), (np.float32, 0.003)])
def test_scores_that_are_all_black_are_refused(dataset, tmp_path, ctx, kind, value):
    (tmp_path / "maps").mkdir()
    for sample in dataset.split("train"):
        height, width = image_size(sample.image)
        maps = np.full((1, 4, 4), value, kind)
        np.savez(
            tmp_path / "maps" / f"{sample.id}.npz", cam=maps, classes=np.array([1]), size=np.array([height, width])
        )
    for _ in range(2):
        with pytest.raises(DataError, match=r"no score in .* is above 1/255: all maps are black"):
            take(dataset, tmp_path / "maps", ctx)
    assert not [path for path in ctx.runs.iterdir() if read_record(path).state == "done"]


@pytest.mark.parametrize("name", ["results.txt", "results.zip", "results.xml"])
def test_a_file_of_another_kind_is_no_json(dataset, tmp_path, ctx, name):
    (tmp_path / name).write_text("0 0.1 0.1 0.5 0.5")
    with pytest.raises(DataError, match=f"{name} is no .json") as refused:
        take(dataset, tmp_path / name, ctx)
    assert "COCO" in refused.value.hint


def scores_of(tmp_path, **more):
    held = {"cam": np.ones((1, 48, 48), np.float32), "classes": np.array([1]), "size": np.array([48, 48])}
    np.savez(tmp_path / "one.npz", **{**held, **more})
    return tmp_path / "one.npz"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"classes": np.array([1.5])}, "1.5 are no whole numbers"),
        ({"classes": np.array(["cat"])}, "cat are no whole numbers"),
        ({"classes": np.array([float("nan")])}, "nan are no whole numbers"),
        ({"cam": np.ones((2, 4, 4), np.float32), "classes": np.array([3, 3])}, "several maps of one class: 3, 3"),
        ({"cam": np.ones((1, 40, 30)), "size": np.array([30, 40])}, "the maps have 40 rows and 30 columns"),
    ],
)
def test_scores_that_could_be_taken_for_others_are_refused(tmp_path, more, said):
    with pytest.raises(DataError, match=said):
        read_cam(scores_of(tmp_path, **more))


def test_scores_of_any_scale_and_whole_floats_are_taken(tmp_path):
    more = {"cam": np.ones((1, 3, 2)), "classes": np.array([1.0]), "size": np.array([40, 30])}
    assert read_cam(scores_of(tmp_path, **more))[1:] == ((1,), (40, 30))


@pytest.mark.parametrize("whole", [True, False])
def test_results_that_were_made_for_another_size_are_lost(dataset, tmp_path, ctx, whole):
    """Polygons do not say of what size they are; the list of images does, also of `--names`."""
    corners = [[4, 4, 20, 4, 20, 20, 4, 20]]
    listed = [{**one, "segmentation": corners} for one in entries(dataset)]
    path = coco(dataset, tmp_path / "results.json", listed, whole=whole)
    named = path if whole else tmp_path / "names.json"
    table = json.loads(named.read_text())
    for number, image in enumerate(table["images"]):
        image |= {"height": 48, "width": 48 if number else 96}
    named.write_text(json.dumps(table))
    more = {} if whole else {"names_from": named}
    first = dataset.split("train")[0]
    assert [
        (one["id"], "is 96x48, its photograph is 48x48" in one["reason"])
        for one in take(dataset, path, ctx, **more).lost
    ] == [(first.id, True)]


def test_polygons_that_leave_the_photograph_by_far_are_lost(dataset, tmp_path, ctx):
    listed = [{**one, "segmentation": [[4, 4, 52, 4, 52, 20, 4, 20]]} for one in entries(dataset)]
    listed[0]["segmentation"] = [[4, 4, 80, 4, 80, 20, 4, 20]]
    lost = take(dataset, coco(dataset, tmp_path / "results.json", listed, whole=True), ctx).lost
    assert len(lost) == 1 and "leaves the image of 48x48 pixels: it reaches from 4,4 to 80,20" in lost[0]["reason"]


def test_a_source_of_which_nothing_can_be_used_makes_no_run_that_is_done(dataset, tmp_path, ctx):
    for sample in dataset.split("train"):
        np.savez(tmp_path / f"{sample.id}.npz", keys=np.zeros(1), high_res=np.zeros((1, 9, 9)))
    for _ in range(2):
        with pytest.raises(DataError, match=r"no photograph of 'train' has scores in .* that can be used; the first: "):
            take(dataset, tmp_path, ctx)
    assert all(read_record(run).state != "done" for run in ctx.runs.iterdir())


@pytest.mark.parametrize("shape", [[[4, 4, 4, 20, 4, 9]], [[4, 4, 20, 20, 9, 9]], "runs", "text"])
def test_lines_and_codes_without_a_pixel_are_counted(dataset, tmp_path, ctx, shape):
    listed = [{**one, "segmentation": [[4, 4, 20, 5, 20, 20, 4, 20]]} for one in entries(dataset)]
    if isinstance(shape, str):
        height, width = image_size(dataset.split("train")[0].image)
        empty = rle_of.encode(np.zeros((height, width), np.uint8, order="F"))["counts"].decode()
        shape = {"size": [height, width], "counts": [height * width] if shape == "runs" else empty}
    listed[0]["segmentation"] = shape
    (note,) = take(dataset, coco(dataset, tmp_path / "results.json", listed, whole=True), ctx).notes
    assert note.startswith(f"1 of {len(listed)} entries have no outline, or one of no more than a pixel")


def test_outlines_of_less_than_a_pixel_are_counted_wherever_they_are(dataset, tmp_path, ctx):
    listed = [{**one, "segmentation": [[4, 4, 20, 4, 20, 20, 4, 20]]} for one in entries(dataset)]
    listed[0]["segmentation"] = [[9, 9, 9.4, 9, 9.4, 9.4]]
    note, boxes = take(dataset, coco(dataset, tmp_path / "results.json", listed, whole=True), ctx).notes
    assert note.startswith(f"1 of {len(listed)} entries have no outline, or one of no more than a pixel")
    assert "upright rectangles, as tools write boxes" in boxes


def test_a_rename_that_does_nothing_is_refused(dataset, tmp_path, ctx):
    results = coco(dataset, tmp_path / "results.json", entries(dataset), whole=True)
    with pytest.raises(UsageError, match=r"no label in .*results.json is 'moggy'"):
        take(dataset, results, ctx, renames={"moggy": "bee"})
    with pytest.raises(UsageError, match="--rename is of the labels of a JSON"):
        take(dataset, label_maps(dataset, tmp_path / "maps"), ctx, renames={"moggy": "bee"})
