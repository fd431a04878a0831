"""A list that changed after a run was made from it: noticed by its SHA-256, whatever its size and time say."""

import os

import pytest
import torch

from wsss_cli.config.load import load_preset
from wsss_cli.data.dataset import open_dataset
from wsss_cli.data.sources.toy import CLASSES, prepare_toy
from wsss_cli.engine.context import Context
from wsss_cli.engine.records import Inputs, read_inputs
from wsss_cli.errors import DataError
from wsss_cli.files import read_json, write_json, write_text
from wsss_cli.inference.network import Network
from wsss_cli.labels import voc_palette
from wsss_cli.scoring.results import finished_eval
from wsss_cli.stages import evaluate, pipeline
from wsss_cli.stages.changes import changed_lists, say_changes
from wsss_cli.stages.opening import open_step
from wsss_cli.stages.plan import Step, open_experiment, plan_cam, plan_pseudo, plan_relabel, plan_train


@pytest.fixture
def data(tmp_path):
    prepare_toy(tmp_path / "data", images=3, val=2, size=64)
    return tmp_path / "data"


@pytest.fixture
def said():
    return []


def experiment(data, tmp_path, *overrides):
    return open_experiment(load_preset("toy", [f"dataset.path={data}", *overrides]), tmp_path / "runs")


def finish(steps, exp):
    for step in steps:
        with open_step(step, exp) as run:
            run.finish(lost=[])
    return steps


def swap_rows(data, split):
    """Change a list, and leave it the size and time that it had."""
    file = data / "splits" / f"{split}.csv"
    before = file.stat()
    head, first, second, *more = file.read_text().splitlines()
    write_text(file, "\n".join([head, second, first, *more]) + "\n")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)


def test_a_data_set_with_an_edited_list_says_so(data, said, capsys):
    assert open_dataset(data).edited == ()
    assert capsys.readouterr().err == ""
    swap_rows(data, "val")
    assert open_dataset(data, said.append).edited == ("val",)
    assert said == [
        f"{data}/splits: val.csv changed after `wsss prepare` (another SHA-256 than in dataset.json): taken as is"
    ]


def test_a_list_that_changes_under_a_stage_is_refused(data):
    dataset = open_dataset(data)
    swap_rows(data, "train")
    with pytest.raises(DataError, match=r"splits/train\.csv has changed while it was worked with"):
        dataset.split("train")
    assert len(dataset.split("val")) == 2


def test_a_stage_that_is_made_anew_says_which_list_changed(data, tmp_path, said):
    exp = experiment(data, tmp_path)
    classifier, cam = finish(plan_cam(exp), exp)
    assert read_inputs(cam.path).split_sha256 == exp.dataset.split_sha256
    swap_rows(data, "val")
    exp = experiment(data, tmp_path)
    steps = plan_cam(exp)
    assert [step.done for step in steps] == [False, False]
    say_changes(steps, exp, said.append)
    assert said == [f"split val of {data} changed since {classifier.path} was made (SHA-256): that is made anew"]


def test_other_settings_on_the_same_lists_are_no_change(data, tmp_path, said):
    exp = experiment(data, tmp_path)
    finish(plan_cam(exp), exp)
    other = experiment(data, tmp_path, "classifier.iters=7")
    say_changes(plan_cam(other), other, said.append)
    assert said == []


@pytest.mark.parametrize(("split", "lines"), [("train", 2), ("val", 0)])  # no pseudo mask comes from val
def test_a_run_that_is_given_and_older_than_a_list_is_named(data, tmp_path, said, split, lines):
    exp = experiment(data, tmp_path)
    cam = finish(plan_cam(exp), exp)[-1]
    swap_rows(data, split)
    exp = experiment(data, tmp_path)
    say_changes(plan_pseudo(exp, cam.path, str), exp, said.append)
    assert len(said) == lines
    if lines:
        assert said[0] == f"{cam.path} was made before split train of {data} changed (SHA-256); read all the same"
        assert said[1].startswith("hint: ")


def test_masks_and_a_network_that_are_given_are_looked_at_too(data, tmp_path, said):
    exp = experiment(data, tmp_path)
    finish(plan_cam(exp), exp)
    finish(plan_pseudo(exp, None, str), exp)
    *_, pseudo, trained = finish(plan_train(exp, None, str), exp)
    swap_rows(data, "train")
    exp = experiment(data, tmp_path)
    say_changes(plan_train(exp, pseudo.path, str), exp, said.append)
    say_changes(plan_relabel(exp, trained.path), exp, said.append)
    named = [line.split(" was made before")[0] for line in said if "read all the same" in line]
    assert named == [str(pseudo.path), str(trained.path)]


def test_runs_of_earlier_versions_know_less_and_stay_valid(data):
    dataset = open_dataset(data)
    known = {"dataset": str(data), "classes": dataset.classes, "colors": dataset.colors}
    assert changed_lists(Inputs(**known), dataset) == ""
    same = Inputs(**known, dataset_fingerprint=dataset.fingerprint)
    assert changed_lists(same, dataset) == ""
    other = Inputs(**known, dataset_fingerprint="0" * 64)
    assert changed_lists(other, dataset) == "a list (which one is not recorded)"


def test_the_pipeline_says_so(data, tmp_path, said, monkeypatch):
    exp = experiment(data, tmp_path)
    finish(plan_cam(exp), exp)
    swap_rows(data, "train")
    exp, ctx = experiment(data, tmp_path), Context(torch.device("cpu"), tmp_path)
    monkeypatch.setattr(ctx.ui, "say", said.append)
    monkeypatch.setattr(pipeline, "run_step", lambda *_: None)
    pipeline.run_steps(plan_cam(exp), exp, ctx)
    assert any(line.startswith(f"split train of {data} changed since ") for line in said)


class Grey(torch.nn.Module):
    @property
    def backbone(self):
        return self

    def normalise(self, x):
        return x.float() / 255

    def forward(self, x):
        return torch.cat([x, -x], 1)


def test_scores_on_a_list_that_changed_after_the_training_say_so(data, tmp_path, monkeypatch):
    exp = experiment(data, tmp_path, "eval.scales=[1.0]")
    run, ctx, told = tmp_path / "train-x", Context(torch.device("cpu"), tmp_path), []
    monkeypatch.setattr(ctx.ui, "say", told.append)
    known = (exp.preset, CLASSES, voc_palette(6), 4, str(data), "weak supervision", exp.dataset.split_sha256)
    monkeypatch.setattr(evaluate, "load_network", lambda *_: Network(Grey(), *known))
    with open_step(Step("train", run, "x"), exp):
        write_json(run / "checkpoints" / "step-00000004" / "meta.json", {"step": 4})
    evaluate.run_eval(run, ctx, ms_flip=False)
    assert told == [] and "SHA-256" not in (run / "eval.json").read_text()
    assert finished_eval(run, ms_flip=False)
    list_before = (data / "splits" / "val.csv").read_bytes()
    swap_rows(data, "val")
    evaluate.run_eval(run, ctx, ms_flip=False)
    line = "changed after the training (another SHA-256)"
    assert told == [f"split 'val' of {data} {line}: scored as it is now, and the protocol says so"]
    assert f"split val {line}" in read_json(run / "eval.json")["protocol"]
    (data / "splits" / "val.csv").write_bytes(list_before)
    assert finished_eval(run, ms_flip=False) is None  # the scores are of another list
