"""Hints that can be copied as they are, and causes that are the cause, on a tiny data set; nothing is computed."""

import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from wsss_cli.config.load import load_preset
from wsss_cli.data.dataset import open_dataset, write_dataset
from wsss_cli.data.sources.toy import prepare_toy
from wsss_cli.engine.pointers import weight_file
from wsss_cli.engine.records import other_classes, read_inputs, write_inputs
from wsss_cli.errors import DataError, UsageError, WeightsError
from wsss_cli.files import write_json
from wsss_cli.labels import told_apart
from wsss_cli.stages.opening import open_step
from wsss_cli.stages.photographs import find_images
from wsss_cli.stages.plan import given_classifier, open_experiment, plan_cam, plan_pseudo, plan_run
from wsss_cli.stages.preflight import planned, problems
from wsss_cli.stages.protocol import check_classes
from wsss_cli.stages.trusted import own_labels
from wsss_cli.talk import shell_word, silent

SELF = "pseudo.threshold.kind=self"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    prepare_toy(folder, images=3, val=2, size=64)
    return folder


@pytest.fixture
def wrong(tmp_path, data):
    """All that is known to fail of `wsss run --preset toy` with these settings."""

    def wrong(*settings, device="cpu", path=data, plan=lambda exp: plan_run(exp, silent)):
        preset = load_preset("toy", [f"dataset.path={path}", *settings])
        exp, steps, faults = planned(preset, plan, tmp_path / "runs")
        return [*faults, *problems(exp, steps, device)]

    return wrong


def test_a_path_is_a_word_of_a_shell_and_no_option():
    assert [shell_word(Path(name)) for name in ("runs/a", "-runs/a b")] == ["runs/a", "'./-runs/a b'"]


def test_lists_of_classes_are_told_from_where_they_differ():
    names = ["background", *"abcdefghij"]
    assert told_apart(names, [*names[:2], "x", *names[3:]]) == ("a, b, c, d, e, ...", "a, x, c, d, e, ...")
    assert told_apart(names, [*names[:8], "x", *names[9:]]) == ("..., f, g, h, i, j", "..., f, g, x, i, j")
    assert told_apart(names, names[:9]) == ("..., g, h, i, j", "..., g, h")
    assert told_apart(["b", "a"], ["c", "a"]) == ("b, a", "c, a")


def test_a_run_of_many_classes_is_refused_by_the_one_that_differs(tmp_path):
    names = ("background", *"abcdefghij")
    write_json(tmp_path / "run.json", {"stage": "train", "state": "done", "identity": "x"})
    colors = [[0, 0, 0]] * len(names)
    write_json(tmp_path / "inputs.json", {"dataset": "d", "classes": list(names), "colors": colors})
    said = other_classes(tmp_path, (*names[:9], "x", "j"))
    assert said == f"{tmp_path} was trained for ..., g, h, i, j; the data set has ..., g, h, x, j"


def test_a_network_of_other_classes_is_trained_on_by_a_command_that_can_be_copied(data, tmp_path):
    run = tmp_path / "my run"
    run.mkdir()
    with pytest.raises(DataError) as caught:
        check_classes(open_dataset(data), ("background", "x"), run, "--calibrate")
    assert f"other classes than {run}: 6 " in caught.value.message
    assert "trained on with --calibrate, or" in caught.value.hint
    words = shlex.split(caught.value.hint.partition("this one: ")[2])
    assert words == ["wsss", "train", *f"--preset NAME --data {data} --init".split(), str(run), "--reset-head"]


def test_labels_are_added_by_a_command_that_can_be_copied(tmp_path):
    prepare_toy(tmp_path / "my data", images=1, val=1, size=64)
    with pytest.raises(DataError) as caught:
        own_labels(open_dataset(tmp_path / "my data"))
    assert f"wsss prepare labels '{tmp_path}/my data' SOURCE" in caught.value.hint


def test_a_video_that_is_not_read_is_converted_by_a_command_that_can_be_copied(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("-c.wmv").write_bytes(b"x")
    with pytest.raises(UsageError) as caught:
        find_images(["-c.wmv"], Path("out"), silent)
    assert caught.value.hint.endswith("ffmpeg -i ./-c.wmv clip.mp4")


# -- causes ------------------------------------------------------------------------------------------------------------


def test_a_word_that_is_no_device_is_refused_where_all_is_done(wrong):
    assert wrong(plan=lambda exp: []) == []
    (fault,) = wrong(device="gpu", plan=lambda exp: [])
    assert isinstance(fault, UsageError) and fault.message == "--device gpu: there is no such device"


def bare(data, folder, **changes):
    """A copy of the data set whose first training photograph is another one."""
    there = open_dataset(data)
    first, *others = there.split("train")
    named = {"name": "other", "source": "", "protocol": (), "findings": ()}
    splits = {"train": [replace(first, **changes), *others], "val": there.split("val")}
    write_dataset(folder, classes=there.classes, colors=there.colors, splits=splits, **named)
    return folder


def test_a_limit_is_named_where_the_first_photographs_are_not_enough(wrong, data, tmp_path):
    untagged = bare(data, tmp_path / "untagged", labels=())
    assert wrong(path=untagged) == []
    fault, *_ = wrong("dataset.limit=1", path=untagged)
    assert "(limit 1: the first 1 image) has a tag to learn from" in fault.message
    assert fault.hint == "a higher --limit takes more images"
    (fault,) = wrong("dataset.limit=1", path=bare(data, tmp_path / "unmasked", mask=None))
    assert "(limit 1: the first 1 image) has no masks to score seeds on" in fault.message


def test_whole_masks_that_a_share_asks_for_are_missed_before_any_work(wrong, tmp_path):
    own = tmp_path / "own"
    prepare_toy(own, images=2, val=1, size=64)
    index = own / "trusted/index.csv"
    index.parent.mkdir()
    index.write_text(f"id,kind,sha256,source\ntrain_000000,partial,{'0' * 64},hand\n")
    settings = ("train.supervision=mixed", "train.trusted_share=0.5", SELF)
    (fault,) = wrong(*settings, path=own)
    assert fault.message == "train.trusted_share asks for whole masks, and no training photograph has one"
    assert fault.hint.startswith("wsss prepare labels")
    assert wrong(*settings, "dataset.limit=1", path=own)[0].hint.startswith("a higher --limit takes more images; ")
    index.write_text(index.read_text().replace("partial", "mask"))
    assert wrong(*settings, path=own) == []


def finished(step, exp):
    with open_step(step, exp) as run:
        run.finish()
    return step.path


def test_cams_of_another_list_are_refused_with_that_list(data, tmp_path):
    val = open_experiment(load_preset("toy", [f"dataset.path={data}", "dataset.train=val", SELF]), tmp_path)
    cams = [finished(step, val) for step in plan_cam(val)][-1]
    exp = open_experiment(load_preset("toy", [f"dataset.path={data}", SELF]), tmp_path)
    steps = plan_pseudo(exp, cams, silent)
    (fault,) = problems(exp, steps, "cpu")
    assert fault.message == f"{cams} has no CAM of a photograph of split 'train': it is of split 'val'"
    assert fault.hint.startswith("--set dataset.train=val, ")
    assert problems(val, plan_pseudo(val, cams, silent), "cpu") == []


def test_a_run_without_a_network_or_of_another_one_is_named_as_that(data, tmp_path):
    exp = open_experiment(load_preset("toy", [f"dataset.path={data}"]), tmp_path)
    cams = [finished(step, exp) for step in plan_cam(exp)][-1]
    with pytest.raises(WeightsError, match="is a cam run, which has no network"):
        weight_file(cams)
    write_inputs(cams, read_inputs(cams))
    record = {"stage": "train", "state": "done", "identity": "x"}
    write_json(tmp_path / "t/run.json", record)
    (tmp_path / "t/checkpoints/step-00000001").mkdir(parents=True)
    with pytest.raises(WeightsError, match="is a train run, no classifier"):
        given_classifier(exp.preset, tmp_path / "t")


def test_seeds_that_no_list_can_score_are_refused_before_the_cams_are_made(wrong, data, tmp_path):
    (fault,) = wrong("dataset.score=val")  # which has masks, and no photograph that CAMs are of
    said = f"no photograph of split 'train' of {data} has a mask in split 'val' to score its seeds on"
    assert fault.message == f"pseudo.threshold is of kind train-curve, and {said}"
    assert wrong("dataset.score=val", "dataset.train=val") == []


def test_a_list_that_is_not_there_is_said_not_to_be_there(data, tmp_path):
    said = []
    exp = open_experiment(load_preset("toy", [f"dataset.path={data}", "dataset.val=vall"]), tmp_path)
    plan_run(exp, said.append)
    assert said == ["split 'vall' is not there to score against: eval is left out"]
