"""True masks without a single label: scores are undefined, and nothing compares or formats them as numbers."""

import json

import numpy as np
import pytest
import torch
import typer

from wsss_cli.cli import console, eval_sources, runs, stage, table
from wsss_cli.cli import eval as command
from wsss_cli.config.load import load_preset
from wsss_cli.data.masks import write_mask
from wsss_cli.data.sources.toy import prepare_toy
from wsss_cli.engine.context import Context, Silent
from wsss_cli.engine.records import read_record
from wsss_cli.engine.rundir import read_metrics
from wsss_cli.errors import Preempted, UsageError
from wsss_cli.labels import voc_palette
from wsss_cli.stages.cam import run_cam
from wsss_cli.stages.pipeline import run_steps
from wsss_cli.stages.plan import open_experiment, plan_cam, plan_train

SMALL = (
    *("train.supervision=full", "train.backbone.weights=none", "train.head.aspp_channels=16"),
    *("train.head.low_channels=8", "train.head.dilations=[1,2]", "train.iters=3", "train.batch=2", "train.crop=32"),
    *("train.data_workers=0", "train.val_interval=1", "train.log_interval=1", "eval.scales=[1.0]"),
    *("classifier.backbone.weights=none", "classifier.iters=1", "classifier.batch=2", "classifier.crop=32"),
    *("classifier.data_workers=0", "cam.scales=[1.0]"),
)


class Talk(Silent):
    def __init__(self):
        self.lines = []

    def say(self, line):
        self.lines.append(line)


@pytest.fixture
def unlabelled(tmp_path):
    """An experiment on a data set one of whose splits has masks of 255 only."""

    def experiment(split, *overrides):
        prepare_toy(tmp_path / "data", images=2, val=2, size=48)
        for mask in (tmp_path / "data" / "SegmentationClass").glob(f"{split}_*.png"):
            write_mask(mask, np.full((48, 48), 255, np.uint8), voc_palette(6))
        preset = load_preset("toy", [f"dataset.path={tmp_path / 'data'}", *SMALL, *overrides])
        return open_experiment(preset, tmp_path / "runs")

    return experiment


def train(exp, stop=False):
    torch.set_num_threads(1)
    ctx = Context(torch.device("cpu"), exp.runs, Talk())
    ctx.stop.signal = 15 if stop else 0
    steps = plan_train(exp, None, ctx.ui.say)
    run_steps(steps, exp, ctx)
    return steps[-1].path, ctx.ui.lines


def test_a_training_with_a_validation_without_labels_ends_goes_on_and_is_shown(unlabelled, monkeypatch, capsys):
    monkeypatch.setenv("WSSS_DATA", "")
    exp = unlabelled("val")
    with pytest.raises(Preempted):
        train(exp, stop=True)
    run, _ = train(exp)
    rows = read_metrics(run)
    assert [(row["step"], row["miou"]) for row in rows if row["kind"] == "val"] == [(1, None), (2, None), (3, None)]
    assert not (run / "checkpoints" / "best").exists()
    assert read_record(run).state == "done" and read_record(run).labelled is True
    with console.training_progress("train", 3) as show:
        for row in rows:
            show(row)
    assert "val at 3: mIoU -\n" in capsys.readouterr().err

    arguments = dict.fromkeys(("pred", "truth", "num_classes", "confusion", "mode", "base"))
    arguments |= {"split": "", "data": "", "metrics": "iou,biou", "crf": False, "ms_flip": True}
    arguments |= {"runs": exp.runs, "device": "cpu", "json_output": False}
    command.evaluate(run, best=False, min_miou=None, **arguments)
    out = capsys.readouterr().out
    assert "mean" in out and "nan" not in out.lower() and "None" not in out
    assert next(line for line in out.splitlines() if line.startswith("mean")).split() == ["mean", *"----"]
    with pytest.raises(typer.Exit) as ended:
        command.evaluate(run, best=False, min_miou=1.0, **arguments)
    assert ended.value.exit_code == 4
    assert "there is no mIoU, as no pixel of the truth has a label" in capsys.readouterr().err
    with pytest.raises(UsageError, match="no best checkpoint, as no validation has scored one") as caught:
        command.evaluate(run, best=True, min_miou=None, **arguments)
    assert "leave out --best" in caught.value.hint
    runs.list_runs(exp.runs, json_output=False)
    assert " - / -" in capsys.readouterr().out
    runs.show(str(run), exp.runs, json_output=True)
    assert json.loads(capsys.readouterr().out)["scores"] == {"mIoU, single scale": None, "mIoU, ms+flip": None}
    for form in ("text", "markdown", "csv", "json"):
        table.table([run], form, exp.runs)
        assert "nan" not in capsys.readouterr().out.lower()


def test_a_validation_on_masks_of_other_classes_or_without_an_image_is_said_and_ends_no_training(unlabelled):
    exp = unlabelled("none")
    first, second = (exp.dataset.root / "SegmentationClass" / f"val_00000{n}.png" for n in (0, 1))
    write_mask(first, np.full((48, 48), 9, np.uint8), voc_palette(10))
    run, lines = train(exp)
    assert [row["miou"] for row in read_metrics(run) if row["kind"] == "val"] == [None, None, None]
    assert sum("validation without a score" in line and f"{first} holds the value 9" in line for line in lines) == 3
    assert [(one["id"], "holds the value 9" in one["reason"]) for one in read_record(run).lost] == [
        ("val_000000", True)
    ]
    first.unlink()
    exp.runs.rename(exp.runs.parent / "before")
    run, lines = train(exp)
    assert all(row["miou"] is not None for row in read_metrics(run) if row["kind"] == "val")
    assert sum("validation without 1 of 2 images" in line for line in lines) == 3
    assert [one["id"] for one in read_record(run).lost] == ["val_000000"]
    assert second.is_file()
    train(exp)
    assert [one["id"] for one in read_record(run).lost] == ["val_000000"]  # it still cannot be scored


def test_a_training_that_sees_no_label_says_so(unlabelled, capsys):
    exp = unlabelled("train", "train.val_interval=0")
    run, lines = train(exp)
    (line,) = [line for line in lines if line.startswith("warning")]
    assert "no pixel that the training saw has a label" in line
    assert read_record(run).labelled is False
    assert line.removeprefix("warning: ") in (run / "log.txt").read_text()
    runs.show(str(run), exp.runs, json_output=False)
    assert "no pixel that the training saw has a label" in capsys.readouterr().out


def test_a_training_without_validations_has_no_best_checkpoint_and_says_so(unlabelled):
    run, _ = train(unlabelled("none", "train.val_interval=0"))
    for named, best in ((run, True), (run / "checkpoints/best", False)):
        with pytest.raises(UsageError, match=f"^{run} has no best checkpoint"):
            eval_sources.network(named, ["iou"], stage.working("cpu", run.parent), ms_flip=False, best=best)


def test_cams_of_a_split_without_labels_are_made_and_not_scored(unlabelled):
    exp = unlabelled("train")
    ctx = Context(torch.device("cpu"), exp.runs, Talk())
    torch.set_num_threads(1)
    steps = plan_cam(exp)
    run_steps(steps[:-1], exp, ctx)
    run_cam(steps[-1], exp, ctx)
    assert "the CAMs are not scored: no pixel of the true masks has a label" in ctx.ui.lines
    assert read_record(steps[-1].path).state == "done"
    assert len(list((steps[-1].path / "cams").glob("*.npz"))) == 2
    assert not (steps[-1].path / "eval.json").exists()
