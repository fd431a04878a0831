"""Plans on a tiny data set: which runs there are, which are done, which earlier run is taken. Nothing is computed."""

import os

import pytest

from wsss_cli.config.load import load_preset
from wsss_cli.data.sources.toy import prepare_toy
from wsss_cli.engine.records import read_inputs, write_inputs
from wsss_cli.errors import UsageError, WeightsError
from wsss_cli.files import write_json
from wsss_cli.scoring.stored import masks_changed, masks_stamp
from wsss_cli.stages.evaluate import ScoredOn
from wsss_cli.stages.opening import open_step
from wsss_cli.stages.outcome import outcome
from wsss_cli.stages.pipeline import run_step
from wsss_cli.stages.plan import (
    given_classifier,
    open_experiment,
    plan_cam,
    plan_pseudo,
    plan_relabel,
    plan_run,
    plan_train,
    planned_experiment,
)
from wsss_cli.talk import silent

IRN = ['pseudo.steps=[{kind="irn-walk"}]', "affinity.irn.iters=3"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    prepare_toy(folder, images=2, val=1, size=64)
    return folder


@pytest.fixture
def experiment(data, tmp_path):
    return lambda *overrides: open_experiment(load_preset("toy", [f"dataset.path={data}", *overrides]), tmp_path)


@pytest.fixture
def said():
    return []


def finish(step, exp, lost=()):
    with open_step(step, exp) as run:
        run.finish(lost=list(lost))
    return step


def all_done(steps, exp):
    for step in steps:
        if step.stage != "eval" and not step.done:
            finish(step, exp)


def stages(steps):
    return [step.stage for step in steps]


# -- the chain ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([], "classifier cam pseudo train eval"),
        (["train.supervision=full", "rounds=2"], "train eval"),
        (["cam.method.kind=recam"], "classifier recam cam pseudo train eval"),
        (["cam.method.kind=lpcam"], "classifier cam pseudo train eval"),
        ([*IRN, "rounds=3"], "classifier cam irn pseudo train relabel train relabel train eval"),
    ],
)
def test_the_stages_of_a_preset_come_in_order_and_are_skipped_when_done(experiment, said, overrides, expected):
    exp = experiment(*overrides)
    steps = plan_run(exp, said.append)
    assert stages(steps) == expected.split()
    assert len({step.path for step in steps}) == len(steps) - 1  # the evaluation goes into the run of the training
    assert not any(step.done for step in steps)
    all_done(steps, exp)
    again = plan_run(exp, said.append)
    assert stages(again) == [name for name in expected.split() if name not in ("classifier", "recam", "irn")]
    assert [step.done for step in again] == [True] * (len(again) - 1) + [False]


def test_a_run_names_the_runs_that_it_was_made_from(experiment):
    exp = experiment(*IRN)
    steps = plan_pseudo(exp, None, lambda line: None)
    all_done(steps, exp)
    classifier, cam, irn, pseudo = steps
    assert read_inputs(cam.path).classifier_run == str(classifier.path)
    assert read_inputs(irn.path).cam_identity == cam.identity
    inputs = read_inputs(pseudo.path)
    assert (inputs.cam_run, inputs.irn_run) == (str(cam.path), str(irn.path))
    assert [step.path.name.split("-")[0] for step in steps] == ["classifier", "cam", "irn", "pseudo"]


def test_masks_of_a_network_are_a_pseudo_run(experiment, said):
    exp = experiment("train.supervision=full")
    trained = finish(plan_train(exp, None, said.append)[0], exp)
    (relabel,) = plan_relabel(exp, trained.path)[1:]
    assert (relabel.stage, relabel.kind, relabel.reads[0].identity) == ("relabel", "pseudo", trained.identity)
    finish(relabel, exp)
    assert read_inputs(relabel.path).train_run == str(trained.path)
    masks = plan_train(experiment(), relabel.path, said.append)
    assert [step.path for step in masks][:-1] == [relabel.path]


@pytest.mark.parametrize("override", ["cam.flip=false", "cam.scales=[0.5]", "cam.method.kind=gradcam"])
def test_other_maps_have_the_same_classifier(experiment, override):
    (classifier, cam), (same, other) = plan_cam(experiment()), plan_cam(experiment(override))
    assert same == classifier and other.path != cam.path


def test_other_maps_have_the_same_second_classifier(experiment):
    recam = ["cam.method.kind=recam"]
    first, other = plan_cam(experiment(*recam)), plan_cam(experiment(*recam, "cam.flip=false"))
    assert first[:2] == other[:2] and first[2].path != other[2].path
    longer = plan_cam(experiment(*recam, "cam.method.iters=7"))
    assert longer[0] == first[0] and longer[1].path != first[1].path


def test_a_finished_run_of_another_preset_with_the_same_settings_is_taken(experiment):
    exp = experiment("name=other")
    all_done(plan_cam(exp), exp)
    (cam,) = plan_cam(experiment())
    assert cam.done and cam.path.name.startswith("cam-other-")


def test_true_masks_need_no_others(experiment, said, tmp_path):
    with pytest.raises(UsageError, match="--masks is for weak supervision"):
        plan_train(experiment("train.supervision=full"), tmp_path, said.append)


# -- which earlier run is taken ----------------------------------------------------------------------------------------


def test_the_run_with_these_settings_is_taken_else_the_newest_and_it_is_said(experiment, said):
    exp, other = experiment(), experiment("classifier.iters=7")
    plan_pseudo(exp, None, said.append)
    assert said == ["no finished cam run fits: it is made first"]
    all_done(plan_cam(other), other)
    newest = plan_cam(other)[0].path
    assert plan_pseudo(exp, None, said.append)[0].path == newest
    assert said[1:] == [f"cam run: {newest} (the newest on this data set; made with other settings than toy's)"]
    cam = plan_cam(exp)[-1]
    with pytest.raises(KeyboardInterrupt), open_step(cam, exp):
        raise KeyboardInterrupt
    assert [step.path for step in plan_pseudo(exp, None, said.append)][1] == cam.path  # begun: to be finished
    finish(cam, exp)
    assert plan_pseudo(exp, None, said.append)[0].path == cam.path
    assert said[-1] == f"cam run: {cam.path}"
    assert plan_pseudo(exp, newest, said.append)[0].path == newest  # the one that is named comes first


def test_masks_that_are_missing_are_made_from_the_cams_that_fit(experiment, said):
    exp, other = experiment(), experiment("cam.flip=false")
    all_done(plan_cam(other), other)
    steps = plan_train(exp, None, said.append)
    assert stages(steps) == ["cam", "pseudo", "train"]
    assert steps[0].path == plan_cam(other)[0].path
    assert steps[1].reads[0] == steps[0]


def test_masks_of_another_list_are_not_taken(tmp_path, experiment, said):
    lists = tmp_path / "own" / "splits"
    prepare_toy(lists.parent, images=2, val=1, size=64)
    (lists / "some.csv").write_text((lists / "train.csv").read_text().rsplit("\n", 2)[0] + "\n")
    own = f"dataset.path={lists.parent}"
    some = experiment(own, "dataset.train=some")
    all_done(plan_train(some, None, silent), some)
    assert stages(plan_train(experiment(own), None, said.append)) == ["classifier", "cam", "pseudo", "train"]
    assert said == ["no finished pseudo run fits: it is made first", "no finished cam run fits: it is made first"]


def test_a_training_that_was_scored_in_another_way_is_scored_as_asked(experiment, monkeypatch):
    slide = ["train.supervision=full", "eval.mode=slide", "eval.window=64", "eval.stride=32"]
    exp, whole = experiment(*slide), experiment("train.supervision=full")
    train, _ = plan_run(exp, silent)
    with open_step(train, exp) as run:
        write_json(train.path / "checkpoints" / "step-00000004" / "meta.json", {"step": 4})
        run.finish(lost=[])
    stored = {"dataset": str(exp.dataset.root), "checkpoint": "latest", "step": 4, "split": "val", "lost": []}
    for of, done in ((exp, [True, True]), (whole, [True, False]), (experiment(*slide[:2]), [True, False])):
        write_json(train.path / "eval.json", {**stored, "eval": exp.preset.eval.model_dump(mode="json"), "ms_flip": {}})
        assert [step.done for step in plan_run(of, silent)] == done
    write_json(train.path / "eval.json", {**stored, "eval": exp.preset.eval.model_dump(mode="json"), "ms_flip": {}})
    said = []
    monkeypatch.setattr("wsss_cli.stages.plan.masks_changed", lambda file, stored, samples: True)
    assert [step.done for step in plan_run(exp, said.append)] == [True, False]
    assert said == [f"true masks of split 'val' have changed since {train.path} was scored: it is scored anew"]
    asked = []
    monkeypatch.setattr("wsss_cli.stages.pipeline.run_eval", lambda run, ctx, **given: asked.append(given))
    monkeypatch.setattr("wsss_cli.stages.pipeline._leave_pictures", lambda step, ctx: None)
    run_step(plan_run(whole, silent)[-1], whole, None)
    on = ScoredOn(moved=str(whole.dataset.root))
    assert asked == [{"ms_flip": True, "views": whole.preset.eval.model_dump(), "on": on}]


def test_a_data_set_that_was_moved_after_the_training_has_its_scores_where_it_lies_now(experiment):
    exp = experiment("train.supervision=full")
    train, _ = plan_run(exp, silent)
    with open_step(train, exp) as run:
        write_json(train.path / "checkpoints" / "step-00000004" / "meta.json", {"step": 4})
        run.finish(lost=[])
    write_inputs(train.path, read_inputs(train.path).model_copy(update={"dataset": "/where/it/lay"}))
    stored = {"checkpoint": "latest", "step": 4, "split": "val", "lost": [], "ms_flip": {}}
    stored |= {"eval": exp.preset.eval.model_dump(mode="json"), "masks_stamp": masks_stamp(exp.dataset.split("val"))}
    for dataset, done in (("/where/it/lay", True), (str(exp.dataset.root), True), ("/another", False)):
        write_json(train.path / "eval.json", {**stored, "dataset": dataset})
        assert [step.done for step in plan_run(exp, silent)] == [True, done]


def test_true_masks_that_are_others_than_when_scores_were_made_are_seen(experiment, tmp_path):
    samples = experiment().dataset.split("val")
    written = samples[0].mask.stat().st_mtime
    write_json(tmp_path / "eval.json", {})
    for scored, changed in ((written + 10, False), (written - 10, True)):  # scores of an earlier version
        os.utime(tmp_path / "eval.json", (scored, scored))
        assert masks_changed(tmp_path / "eval.json", {}, samples) is changed
        assert not masks_changed(tmp_path / "eval.json", {"masks_stamp": masks_stamp(samples)}, samples)
    stored = {"masks_stamp": masks_stamp(samples)}
    os.utime(samples[0].mask, (written - 100, written - 100))  # as cp -p leaves another one
    assert masks_changed(tmp_path / "eval.json", stored, samples)


def test_cams_of_other_classes_are_refused(experiment, tmp_path):
    run = tmp_path / "cam-x"
    write_json(run / "run.json", {"stage": "cam", "state": "done", "identity": "x"})
    write_json(
        run / "inputs.json", {"dataset": "d", "classes": ["background", "cat"], "colors": [[0, 0, 0], [1, 1, 1]]}
    )
    with pytest.raises(UsageError, match="other classes"):
        plan_pseudo(experiment(), run, lambda line: None)


def test_lost_items_are_tried_again_by_the_command_that_lost_them(experiment, said):
    exp, lost = experiment(), [{"id": "a", "reason": "torn"}]
    classifier, cam = plan_cam(exp)
    finish(classifier, exp)
    finish(cam, exp, lost)
    assert [step.done for step in plan_cam(exp)] == [True, False]
    assert [step.done for step in plan_pseudo(exp, None, said.append)] == [True, False]
    assert outcome(plan_cam(exp)).lost == lost
    assert outcome(plan_pseudo(exp, None, said.append)[:1]).lost == []  # of a run that was taken as it is


# -- a classifier that is given ----------------------------------------------------------------------------------------


def test_a_given_file_counts_by_its_content_and_its_network(experiment, tmp_path):
    file, copy = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    file.write_bytes(b"weights")
    copy.write_bytes(b"weights")
    preset = experiment().preset
    taken = given_classifier(preset, file)
    assert taken.done and taken.identity == given_classifier(preset, copy).identity
    assert stages(plan_cam(experiment(f"classifier.weights={file}"))) == ["classifier", "cam"]
    longer = experiment("classifier.iters=7", "classifier.backbone.weights=none").preset
    assert given_classifier(longer, file).identity == taken.identity
    other = experiment("classifier.backbone.output_stride=32").preset
    assert given_classifier(other, file).identity != taken.identity
    copy.write_bytes(b"others")
    assert given_classifier(preset, copy).identity != taken.identity
    with pytest.raises(WeightsError, match=r"classifier\.weights: there is no "):
        given_classifier(preset, tmp_path / "c.safetensors")


def test_a_classifier_of_other_classes_is_refused_as_a_run_a_checkpoint_and_its_file(experiment, tmp_path):
    exp = experiment()
    run, file = tmp_path / "first", tmp_path / "first/checkpoints/step-00000003/model.safetensors"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"weights")
    write_json(file.parent / "meta.json", {"step": 3})
    (file.parent.parent / "latest").write_text(file.parent.name)
    write_json(run / "run.json", {"stage": "classifier", "state": "done", "identity": "x"})
    names = exp.dataset.classes
    colors = [list(color) for color in exp.dataset.colors]
    for classes, taken in ((names, True), ((names[0], names[2], names[1], *names[3:]), False)):
        write_json(run / "inputs.json", {"dataset": "d", "classes": list(classes), "colors": colors})
        for given_as in (run, file.parent, file):
            if taken:
                assert stages(plan_cam(experiment(f"classifier.weights={given_as}"))) == ["classifier", "cam"]
                continue
            with pytest.raises(UsageError, match=f"was trained for {names[2]}, {names[1]}, .* has {names[1]}, "):
                plan_cam(experiment(f"classifier.weights={given_as}"))


# -- only shown --------------------------------------------------------------------------------------------------------


def test_a_plan_can_be_shown_without_the_data_set(tmp_path, said):
    exp, missing = planned_experiment(load_preset("toy", ["dataset.path=nowhere"]), tmp_path)
    assert missing is not None and missing.message.startswith("no data set at nowhere")
    steps = plan_run(exp, said.append)
    assert stages(steps) == ["classifier", "cam", "pseudo", "train", "eval"]
    assert not any(step.done for step in steps)
