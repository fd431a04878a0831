"""Photographs, masks and weight files that changed under a run: noticed by their content, whatever their time says."""

import json
import os
import shutil

import numpy as np
import pytest
import torch

from wsss_cli.cli import stage
from wsss_cli.config.load import load_preset
from wsss_cli.data.masks import write_mask
from wsss_cli.data.sources.toy import prepare_toy
from wsss_cli.engine.context import Context
from wsss_cli.engine.pointers import find_checkpoint
from wsss_cli.errors import DataError, Preempted, WeightsError
from wsss_cli.files import read_json
from wsss_cli.labels import voc_palette
from wsss_cli.stages import sources
from wsss_cli.stages.opening import open_step
from wsss_cli.stages.paths import mask_path
from wsss_cli.stages.pipeline import run_steps
from wsss_cli.stages.plan import open_experiment, plan_cam, plan_pseudo, plan_relabel, plan_train
from wsss_cli.stages.preflight import problems
from wsss_cli.stages.sources import FILE, changed_sources, compared, hold_to_sources

SMALL = (
    *("train.backbone.weights=none", "train.head.aspp_channels=16", "train.head.low_channels=8"),
    *("train.head.dilations=[1,2]", "train.iters=2", "train.batch=2", "train.crop=32", "train.data_workers=0"),
    *("train.val_interval=0", "classifier.backbone.weights=none"),
)


def never():
    return


@pytest.fixture
def experiment(tmp_path):
    prepare_toy(tmp_path / "data", images=3, val=1, size=48)

    def experiment(*overrides):
        preset = load_preset("toy", [f"dataset.path={tmp_path / 'data'}", *SMALL, *overrides])
        return open_experiment(preset, tmp_path / "runs")

    return experiment


def finish(steps, exp):
    """Finish runs as their stages do, without their work."""
    for step in steps:
        with open_step(step, exp) as run:
            if step.stage == "pseudo":
                for sample in exp.dataset.split("train"):
                    write_mask(mask_path(run.path, sample.id), np.ones((48, 48), np.uint8), voc_palette(6))
            hold_to_sources(run, step, exp, never)
            run.finish(lost=[])


def write_other(mask):
    before = mask.stat()
    write_mask(mask, np.full((48, 48), 2, np.uint8), voc_palette(6))
    return before


@pytest.mark.parametrize("supervision", ["full", "weak"])
def test_a_mask_that_changed_under_a_finished_training_is_said(experiment, supervision):
    exp = experiment(f"train.supervision={supervision}")

    def plan():
        return plan_train(exp, None, never if supervision == "full" else str)

    if supervision == "weak":
        finish(plan_cam(exp), exp)
        finish(plan_pseudo(exp, None, str), exp)
    finish(plan(), exp)
    steps = plan()
    assert [step.done for step in steps] == [True]
    assert problems(exp, steps, "cpu") == []
    first, second, third = exp.dataset.split("train")
    masks = [
        s.mask if supervision == "full" else mask_path(steps[0].reads[0].path, s.id) for s in (first, second, third)
    ]
    os.utime(masks[0], ns=(1, 1))  # another time, the same content
    masks[2].unlink()  # gone: what was made from it may stay
    assert changed_sources(steps[0].path, steps[0], exp) is None
    content = masks[1].read_bytes()
    write_other(masks[1])
    (fault,) = (fault for fault in problems(exp, steps, "cpu") if str(steps[0].path) in fault.message)
    assert isinstance(fault, DataError)
    assert f"1 of 3 masks, first {masks[1]}" in fault.message and "put back" in fault.hint and "move" in fault.hint
    masks[1].write_bytes(content)
    assert changed_sources(steps[0].path, steps[0], exp) is None
    assert "masks (size and time, else SHA-256)" in compared(steps[0].path)


@pytest.mark.parametrize("key", ["train.init", "train.backbone.weights", "classifier.backbone.weights"])
def test_a_weight_file_that_changed_is_said_with_its_setting(experiment, tmp_path, key):
    file = tmp_path / "w.pth"
    file.write_bytes(b"weights")
    exp = experiment(f"{key}={file}", "train.supervision=full")

    def plan():
        return plan_cam(exp)[:1] if key.startswith("classifier") else plan_train(exp, None, str)

    finish(plan(), exp)
    (step,) = [step for step in plan() if step.stage in ("classifier", "train")]
    assert step.done and problems(exp, [step], "cpu") == []
    assert "weight files" in compared(step.path)
    file.write_bytes(b"others!")
    os.utime(file, ns=(1, 1))
    (fault,) = problems(exp, [step], "cpu")
    assert isinstance(fault, WeightsError) and f"begun from {file} ({key})" in fault.message
    file.unlink()
    assert problems(exp, [step], "cpu") == []


def test_a_run_that_is_given_is_judged_by_its_own_settings(experiment, tmp_path):
    files = [tmp_path / name for name in ("a.pth", "b.pth")]
    for file in files:
        file.write_bytes(file.name.encode())
    full = experiment("train.supervision=full", f"train.backbone.weights={files[0]}")
    finish(plan_train(full, None, str), full)
    (trained,) = plan_train(full, None, str)
    weak = experiment(f"train.backbone.weights={files[1]}")  # what `wsss pseudo --network` has
    steps = plan_relabel(weak, trained.path)
    given = [step for step in steps if step.stage == "train"] or [step.reads[0] for step in steps]
    assert given[0].path == trained.path and given[0].done
    assert problems(weak, [*given, *steps], "cpu") == []
    files[0].write_bytes(b"another")
    (fault,) = problems(weak, given, "cpu")
    assert str(files[0]) in fault.message


def test_a_training_that_goes_on_refuses_masks_that_changed_since_it_began(experiment):
    exp = experiment("train.supervision=full")
    torch.set_num_threads(1)
    ctx = Context(torch.device("cpu"), exp.runs)
    ctx.stop.signal = 15
    (step,) = plan_train(exp, None, str)
    with pytest.raises(Preempted):
        run_steps([step], exp, ctx)
    assert not step.path.exists() or find_checkpoint(step.path / "checkpoints") is None
    ctx = Context(torch.device("cpu"), exp.runs)
    before = exp.dataset.split("train")[0].mask.read_bytes()
    with open_step(step, exp) as run:
        hold_to_sources(run, step, exp, never)
    write_other(exp.dataset.split("train")[0].mask)
    with pytest.raises(DataError, match="1 of 3 masks"):
        run_steps([step], exp, ctx)
    exp.dataset.split("train")[0].mask.write_bytes(before)
    run_steps([step], exp, ctx)
    (step,) = plan_train(exp, None, str)
    assert step.done and read_json(step.path / FILE)["masks"].keys() == {s.id for s in exp.dataset.split("train")}


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"masks": 5}', '{"masks": {"a": 5}}', None])
def test_a_run_without_a_record_of_its_sources_is_believed(experiment, damage):
    exp = experiment("train.supervision=full")
    finish(plan_train(exp, None, str), exp)
    (step,) = plan_train(exp, None, str)
    (step.path / FILE).unlink() if damage is None else (step.path / FILE).write_text(damage)
    write_other(exp.dataset.split("train")[0].mask)
    assert problems(exp, [step], "cpu") == []
    assert compared(step.path).startswith("settings, lists of the data set (SHA-256), its own files (size)")


def test_what_is_compared_is_said_where_all_is_done(experiment, capsys):
    exp = experiment("train.supervision=full")
    finish(plan_train(exp, None, str), exp)
    (step,) = plan_train(exp, None, str)
    stage.finish(str(step.path), True, [], "", False)
    assert (
        "compared: settings, lists of the data set (SHA-256), its own files (size), 1,000 photographs at most, masks ("
        in capsys.readouterr().err
    )
    stage.finish(str(step.path), False, [], "", False)
    assert "compared:" not in capsys.readouterr().err
    assert json.loads((step.path / FILE).read_text())["weights"] == {}


def test_photographs_that_changed_under_finished_runs_are_said(experiment):
    exp = experiment()
    finish(plan_cam(exp), exp)
    finish(plan_pseudo(exp, None, str), exp)
    finish(plan_train(exp, None, str), exp)
    steps = [*plan_cam(exp), *plan_train(exp, None, str)]
    assert [step.done for step in steps] == [True, True] and problems(exp, steps, "cpu") == []
    first, second, third = (sample.image for sample in exp.dataset.split("train"))
    os.utime(first, (1, 1))  # a copy of the same content
    assert problems(exp, steps, "cpu") == []
    second.write_bytes(third.read_bytes())
    cam, train = problems(exp, steps, "cpu")
    assert "was made from photographs whose content (SHA-256) is another one now: 1 of 3" in cam.message
    assert "was trained on photographs" in train.message and cam.message.endswith(f"first {second}")
    assert cam.hint.endswith(f"--runs {exp.runs}-2")
    assert "1,000 photographs at most, masks (size and time, else SHA-256)" in compared(steps[1].path)
    second.unlink()
    assert problems(exp, steps, "cpu") == []  # one that is gone is no other one


def test_of_many_photographs_some_are_looked_at(experiment, monkeypatch):
    monkeypatch.setattr(sources, "PHOTOGRAPHS", 2)
    exp = experiment()
    (step,) = [step for step in plan_cam(exp) if step.stage == "classifier"]
    assert list(sources.photographs_read(step, exp)) == ["train_000000", "train_000002"]


def test_photographs_of_another_data_set_that_is_there_are_not_those_of_a_run(experiment, tmp_path):
    exp = experiment()
    finish(plan_cam(exp), exp)
    (step,) = plan_cam(exp)
    shutil.copytree(tmp_path / "data", tmp_path / "copy")
    other = experiment(f"dataset.path={tmp_path / 'copy'}")
    first, second, _ = (sample.image for sample in other.dataset.split("train"))
    first.write_bytes(second.read_bytes())
    assert changed_sources(step.path, step, other) is None
    shutil.rmtree(tmp_path / "data")  # then it was moved
    assert changed_sources(step.path, step, other) is not None
