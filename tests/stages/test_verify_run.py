"""What `wsss verify` finds in a run: a case for each kind of finding, and none in sound ones."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from wsss_cli.cam.store import write_cam
from wsss_cli.config.load import load_preset
from wsss_cli.data.masks import write_mask
from wsss_cli.data.sources.toy import prepare_toy
from wsss_cli.engine.checkpoint import mark_best, save_checkpoint
from wsss_cli.engine.context import Silent
from wsss_cli.errors import UsageError
from wsss_cli.files import read_json, sha256_file, write_json
from wsss_cli.inference.journal import Journal
from wsss_cli.labels import voc_palette
from wsss_cli.stages.opening import open_step
from wsss_cli.stages.paths import cam_path, confidence_path, label_path, mask_path
from wsss_cli.stages.plan import Step, open_experiment
from wsss_cli.stages.verify import CODES, verify_predictions, verify_run

COLORS = voc_palette(6)


@pytest.fixture
def exp(tmp_path):
    prepare_toy(tmp_path / "data", images=3, val=1, size=64)
    return open_experiment(load_preset("toy", [f"dataset.path={tmp_path / 'data'}"]), tmp_path / "runs")


def labels_of(sample):
    labels = np.zeros((64, 64), np.uint8)
    labels[:20], labels[20:30] = sample.labels[0], 255
    return labels


def write_outputs(run, stage, samples):
    for sample in samples:
        labels = labels_of(sample)
        if stage == "cam":
            write_cam(cam_path(run, sample.id), np.zeros((len(sample.labels), 8, 8)), sample.labels, (64, 64))
        elif stage == "irn":
            write_mask(label_path(run, sample.id), labels, COLORS)
        else:
            write_mask(mask_path(run, sample.id), labels, COLORS)
            write_mask(confidence_path(run, sample.id), np.where(labels == 255, 0, 99).astype(np.uint8), COLORS)
            scores = run / "scores" / "1-irn-walk" / f"{sample.id}.npz"
            write_cam(scores, np.zeros((len(sample.labels), 8, 8)), sample.labels, (64, 64))


def finished(exp, stage, *reads, lost=(), checkpoint=None):
    step = Step(stage, exp.runs / f"{stage}-x", f"identity of {stage}", reads)
    samples = exp.dataset.split("train")
    with open_step(step, exp) as run:
        if stage in ("cam", "pseudo", "irn"):
            write_outputs(run.path, stage, [sample for sample in samples if sample.id not in lost])
        if stage in ("irn", "train"):
            model = checkpoint or nn.Linear(2, 2)
            save_checkpoint(run.path / "checkpoints", 4, model, {"moment": [torch.zeros(2)]}, {})
            mark_best(run.path / "checkpoints", 4)
        run.metric({"step": 1, "loss": 1.0})
        run.finish(lost=[{"id": name, "reason": "torn"} for name in lost])
    return step


def look(run, workers=1):
    return verify_run(run, workers, lambda: None, Silent().progress)


def told(run):
    return [(finding.code, Path(finding.file).name) for finding in look(run).findings]


@pytest.mark.parametrize("stage", ["cam", "pseudo", "irn", "train"])
def test_a_sound_run_has_no_findings(exp, stage):
    run = finished(exp, stage).path
    report = look(run)
    assert (report.findings, report.notes) == ([], [])
    images = {} if stage == "train" else {stage: 3}
    assert report.checked == images | ({"checkpoints": 1} if stage in ("irn", "train") else {})


def test_worker_processes_find_the_same(exp, processes_at_once):
    run = finished(exp, "pseudo").path
    next((run / "masks").glob("*.png")).write_bytes(b"no mask")
    assert look(run, workers=2) == look(run)
    assert [finding.code for finding in look(run).findings] == ["size-changed"]  # once


def test_no_run(tmp_path):
    with pytest.raises(UsageError, match="no run directory"):
        look(tmp_path)


# -- records -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["run.json", "inputs.json", "preset.lock.toml", "outputs.json", "eval.json"])
def test_a_record_that_does_not_parse(exp, name):
    run = finished(exp, "pseudo").path
    (run / name).write_text("{torn")
    assert ("record", name) in told(run)


def test_a_row_of_metrics_that_does_not_parse(exp):
    run = finished(exp, "train").path
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2')  # a last line that was torn
    assert told(run) == []
    with (run / "metrics.jsonl").open("a") as file:
        file.write("\n")
    assert told(run) == [("record", "metrics.jsonl")]


def test_a_run_that_is_not_finished_and_lost_items(exp):
    first, second, _ = exp.dataset.split("train")
    run = finished(exp, "cam", lost=[first.id]).path
    report = look(run)
    assert report.findings == [] and report.checked == {"cam": 2}
    assert [note.code for note in report.notes] == ["lost"]
    write_json(run / "run.json", read_json(run / "run.json") | {"state": "preempted", "lost": []})
    (run / "outputs.json").unlink()
    cam_path(run, second.id).unlink()
    report = look(run)
    assert report.findings == [] and [note.code for note in report.notes] == ["state"]


def test_a_finished_run_without_a_list_of_files(exp):
    run = finished(exp, "cam").path
    (run / "outputs.json").unlink()
    cam_path(run, exp.dataset.split("train")[0].id).unlink()
    report = look(run)
    assert [finding.code for finding in report.findings] == ["gone"]
    assert [note.code for note in report.notes] == ["no-list"]


# -- what was made of images -------------------------------------------------------------------------------------------


def relist(run):
    """Take the list of files away, which would tell first."""
    (run / "outputs.json").unlink()


@pytest.mark.parametrize("path", [cam_path, mask_path, confidence_path, label_path])
def test_files_that_are_gone_or_do_not_decode(exp, path):
    stage = {cam_path: "cam", label_path: "irn"}.get(path, "pseudo")
    run = finished(exp, stage).path
    first, second, _ = exp.dataset.split("train")
    torn, gone = path(run, first.id), path(run, second.id)
    data = torn.read_bytes()
    torn.write_bytes(data[:40] + bytes(len(data) - 40))  # as long as before
    gone.unlink()
    assert sorted(told(run)) == [("gone", gone.name), ("unreadable", torn.name)]


def test_a_file_of_another_size(exp):
    run = finished(exp, "cam").path
    file = cam_path(run, exp.dataset.split("train")[0].id)
    file.write_bytes(file.read_bytes() + b"x")
    assert ("size-changed", file.name) in told(run)


def test_cams_of_another_photograph(exp):
    run = finished(exp, "cam").path
    relist(run)
    first, second, third = exp.dataset.split("train")
    write_cam(cam_path(run, first.id), np.zeros((len(first.labels), 8, 8)), first.labels, (64, 63))
    other = tuple(label % 5 + 1 for label in second.labels)
    write_cam(cam_path(run, second.id), np.zeros((len(other), 8, 8)), other, (64, 64))
    wild = {"cam": np.full((len(third.labels), 8, 8), 2.0, np.float32), "classes": third.labels, "size": (64, 64)}
    np.savez(cam_path(run, third.id), **wild)
    assert told(run) == [
        ("wrong-size", f"{first.id}.npz"),
        ("wrong-value", f"{second.id}.npz"),
        ("unreadable", f"{third.id}.npz"),
    ]


@pytest.mark.parametrize(("stage", "path"), [("pseudo", mask_path), ("irn", label_path)])
def test_masks_of_another_photograph(exp, stage, path):
    run = finished(exp, stage).path
    relist(run)
    first, second, third = exp.dataset.split("train")
    write_mask(path(run, first.id), np.zeros((64, 63), np.uint8), COLORS)
    no_tag = next(label for label in range(1, 6) if label not in second.labels)
    write_mask(path(run, second.id), np.full((64, 64), no_tag, np.uint8), COLORS)
    write_mask(path(run, third.id), np.full((64, 64), 77, np.uint8), COLORS)
    findings = look(run).findings
    assert [finding.code for finding in findings] == ["wrong-size", "wrong-value", "wrong-value"]
    assert "a class that is no tag" in findings[1].problem and "77, which is no class" in findings[2].problem


def test_confidence_of_another_mask(exp):
    run = finished(exp, "pseudo").path
    relist(run)
    file = confidence_path(run, exp.dataset.split("train")[0].id)
    write_mask(file, np.full((64, 64), 9, np.uint8), COLORS)
    (finding,) = look(run).findings
    assert finding.code == "wrong-value" and "is not 0 where" in finding.problem


# -- checkpoints -------------------------------------------------------------------------------------------------------


def test_a_checkpoint_that_was_changed(exp):
    run = finished(exp, "train").path
    file = run / "checkpoints" / "step-00000004" / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    (finding,) = look(run).findings
    assert finding.code == "checkpoint" and "its SHA-256 is not the one in meta.json" in finding.problem


def test_a_checkpoint_that_is_not_finite(exp):
    model = nn.Linear(2, 2)
    model.weight.data[0, 1] = float("nan")
    (finding,) = look(finished(exp, "train", checkpoint=model).path).findings
    assert finding.code == "checkpoint" and "weight is not finite" in finding.problem


def test_an_optimiser_that_is_not_finite(exp):
    run = finished(exp, "train").path
    step = run / "checkpoints" / "step-00000004"
    torch.save({"moments": [torch.zeros(2), torch.full((2,), float("inf"))]}, step / "trainer.pt")
    meta = read_json(step / "meta.json")
    meta["sha256"]["trainer.pt"] = sha256_file(step / "trainer.pt")
    write_json(step / "meta.json", meta)
    relist(run)
    (finding,) = look(run).findings
    assert finding.code == "checkpoint" and "moments.1 is not finite" in finding.problem


def test_prototypes_that_do_not_load(exp):
    run = finished(exp, "cam").path
    (run / "prototypes.safetensors").write_bytes(b"torn")
    assert told(run) == [("checkpoint", "prototypes.safetensors")]


def test_a_checkpoint_that_is_gone(exp):
    run = finished(exp, "train").path
    (run / "checkpoints" / "best").write_text("step-00000003\n")
    assert ("gone", "best") in told(run)


# -- what it was made from ---------------------------------------------------------------------------------------------


def test_a_list_that_changed_since(exp):
    run = finished(exp, "train").path
    file = exp.dataset.root / "splits" / "val.csv"
    file.write_text(file.read_text().replace("val", "other", 1))
    (finding,) = look(run).findings
    assert finding.code == "list-changed" and "split val of" in finding.problem
    inputs = json.loads((run / "inputs.json").read_text())
    write_json(run / "inputs.json", inputs | {"split_sha256": {}, "dataset_fingerprint": ""})  # of an earlier version
    report = look(run)
    assert report.findings == [] and [note.code for note in report.notes] == ["lists-unknown"]


def test_without_its_data_set_files_are_decoded_all_the_same(exp):
    run = finished(exp, "pseudo").path
    (exp.dataset.root / "dataset.json").unlink()
    report = look(run)
    assert [finding.code for finding in report.findings] == ["data"] and report.checked == {"pseudo": 3}
    relist(run)
    file = mask_path(run, exp.dataset.split("train")[0].id)
    write_mask(file, np.full((64, 64), 77, np.uint8), COLORS)
    assert [finding.code for finding in look(run).findings] == ["data", "wrong-value"]


def test_another_run_in_the_place_of_an_input(exp):
    cam = finished(exp, "cam")
    run = finished(exp, "pseudo", cam).path
    assert told(run) == []
    write_json(cam.path / "run.json", read_json(cam.path / "run.json") | {"identity": "another"})
    assert told(run) == [("input-changed", "cam-x")]
    cam.path.rename(exp.runs / "elsewhere")
    report = look(run)
    assert report.findings == [] and [note.code for note in report.notes] == ["input-gone"]


def test_predictions(exp, tmp_path):
    out, samples = tmp_path / "out", exp.dataset.split("train")
    journal = Journal(out, {"network": "x"})
    for sample in samples:
        write_mask(out / "masks" / f"{sample.image.stem}.png", labels_of(sample), COLORS)
        journal.add(sample.image.stem, sample.image, overlay=False)

    def predictions():
        report = verify_predictions(out, 1, lambda: None, Silent().progress)
        return [finding.code for finding in report.findings], [note.code for note in report.notes], report.checked

    assert predictions() == ([], [], {"predictions": 3})
    journal.add(samples[0].image.stem, samples[0].image, overlay=True)  # which is not there
    write_mask(out / "masks" / f"{samples[1].image.stem}.png", np.zeros((64, 63), np.uint8), COLORS)
    (out / "masks" / f"{samples[2].image.stem}.png").write_bytes(b"torn")
    samples[2].image.unlink()
    assert predictions() == (["gone", "wrong-size", "unreadable"], ["input-gone"], {"predictions": 3})


def test_every_finding_has_a_case_here():
    text = Path(__file__).read_text()
    assert [code for code in CODES if f'"{code}"' not in text] == []
