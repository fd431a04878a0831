"""Shards of a run: together they make what one command makes, whatever happens between them."""

import shutil
import signal
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from test_cam_stage import METHODS, build

from wsss_cli.cam.store import read_cam, write_cam
from wsss_cli.config.load import load_preset
from wsss_cli.data.dataset import open_dataset
from wsss_cli.data.sources.toy import prepare_toy
from wsss_cli.engine.context import Context
from wsss_cli.engine.records import is_run, read_record
from wsss_cli.engine.shards import Shard, read_shards, shard_of
from wsss_cli.errors import BusyError, Preempted, ResourceError, UsageError, WriteError
from wsss_cli.files import read_json
from wsss_cli.locks import locked
from wsss_cli.stages import cam, classifier, scored, shards, waiting
from wsss_cli.stages import pseudo as pseudo_stage
from wsss_cli.stages.pipeline import run_steps
from wsss_cli.stages.plan import open_experiment, plan_cam, plan_pseudo, plan_relabel, plan_train

COMMON = [
    "classifier.iters=2",
    "classifier.batch=2",
    "classifier.crop=64",
    "cam.scales=[1.0]",
    "classifier.precision=fp32",
    "classifier.data_workers=0",
    "pseudo.workers=1",
]


TRAINED = [
    "train.supervision=full",
    "train.batch=2",
    "train.crop=32",
    "train.augment.base_short=64",
    "train.augment.base_long=128",
    "train.iters=1",
    "train.val_interval=0",
    "train.data_workers=0",
    "train.precision=fp32",
    "train.head.aspp_channels=16",
    "train.backbone.weights=none",
]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    prepare_toy(folder / "toy", images=8, val=1, seed=0, size=64)
    return folder / "toy"


@pytest.fixture
def work(data, tmp_path, monkeypatch):
    """Makes CAMs or masks in a folder of the test, whole or a shard: the last step's directory."""
    monkeypatch.setattr(classifier, "build_classifier", build)
    monkeypatch.setattr(scored, "cores", lambda: 1)
    monkeypatch.setattr(pseudo_stage, "cores", lambda: 1)
    monkeypatch.setattr(waiting, "POLL_S", 0.05)

    def work(*overrides, shard=None, runs="runs", stage="cam", ctx=None):
        preset = load_preset("toy", [f'dataset.path="{data}"', *COMMON, *overrides])
        ctx = ctx or Context(torch.device("cpu"), tmp_path / runs)
        exp = open_experiment(preset, ctx.runs)
        if isinstance(stage, Path):
            steps = plan_relabel(exp, stage)
        elif stage == "train":
            steps = plan_train(exp, None, print)
        else:
            steps = plan_cam(exp) if stage == "cam" else plan_pseudo(exp, None, lambda line: None)
        if shard is None:
            run_steps(steps, exp, ctx)
        else:
            shards.run_shard(steps, exp, Shard(*shard), ctx)
        return steps[-1].path

    return work


def contents(run):
    """Bytes of all that a run made of images, and its scores without what depends on the clock."""
    folders = ("cams", "masks", "confidence")
    files = {str(f.relative_to(run)): f.read_bytes() for name in folders for f in sorted((run / name).glob("*"))}
    scores = read_json(run / "eval.json")
    clock = ("crf_backend", "seconds_per_image", "timed_images", "peak_memory_mib", "walk_seconds_per_image")
    return files, {key: value for key, value in scores.items() if key not in clock}


def state(run):
    return read_record(run).state


@pytest.mark.parametrize("method", ["cam", "lpcam"])
def test_shards_give_the_cams_of_one_run_and_the_last_finishes_it(work, method):
    whole = work(*METHODS[method], runs="whole")
    run = work(*METHODS[method], shard=(2, 2))
    assert 0 < len(list((run / "cams").iterdir())) < 8
    assert (state(run), (run / "eval.json").exists()) == ("created", False)
    work(*METHODS[method], shard=(1, 2))
    assert state(run) == "done"
    assert contents(run) == contents(whole)


def test_shards_give_the_masks_of_one_run(work):
    whole = work(runs="whole", stage="pseudo")
    with pytest.raises(UsageError, match=r"cam .* is to be done first"):
        work(shard=(1, 2), stage="pseudo")
    work()
    run = work(shard=(1, 2), stage="pseudo")
    assert 0 < len(list((run / "masks").iterdir())) < 8
    assert state(run) == "created"
    assert work(shard=(2, 2), stage="pseudo") == run
    assert state(run) == "done"
    assert contents(run) == contents(whole)


def test_shards_give_the_masks_of_one_network(work, data, tmp_path):
    network = work(*TRAINED, stage="train")
    settings = ["relabel.scales=[1.0]", "relabel.steps=[]"]
    whole = work(*settings, runs="whole", stage=network)
    work(*settings, shard=(1, 2), stage=network)
    run = work(*settings, shard=(2, 2), stage=network)
    assert state(run) == "done"
    assert contents(run) == contents(whole)


def walk(step, preset, ctx, samples, cams, network, run, out):
    """In place of a random walk: blurred CAMs."""
    for sample in samples:
        if not out.of(sample.id).is_file():
            planes, classes, size = read_cam(cams.of(sample.id))
            blurred = np.stack([cv2.GaussianBlur(plane, (0, 0), 1) for plane in planes])
            write_cam(out.of(sample.id), blurred, classes, size)
    return []


@pytest.mark.parametrize("threshold", ["self", "fixed"])
def test_thresholds_of_walked_scores_are_those_of_all_images(work, monkeypatch, threshold):
    monkeypatch.setattr(pseudo_stage, "run_walk", walk)
    settings = ['pseudo.steps=[{kind="irn-walk"}]', f"pseudo.threshold.kind={threshold}"]
    settings += ["pseudo.threshold.fg=0.4", "pseudo.threshold.bg=0.2"] if threshold == "fixed" else []
    settings += ["affinity.irn.iters=1", "affinity.irn.batch=2", "affinity.irn.crop=64", "affinity.irn.radius=2"]
    settings += ["affinity.irn.data_workers=0", "affinity.irn.label_workers=1"]
    settings += ["affinity.irn.backbone={name='resnet10t', weights='none', output_stride=32}"]
    whole = work(*settings, runs="whole", stage="pseudo")
    work(*settings)
    run = work(*settings, shard=(1, 2), stage="pseudo")
    assert (run / "masks").exists() == (threshold == "fixed")
    work(*settings, shard=(2, 2), stage="pseudo")
    assert state(run) == "done"
    assert contents(run) == contents(whole)


def test_a_shard_that_is_made_twice_makes_nothing_again(work, monkeypatch):
    run = work(shard=(1, 2))
    before = {file: file.stat().st_mtime_ns for file in (run / "cams").iterdir()}
    work(shard=(1, 2))
    assert {file: file.stat().st_mtime_ns for file in (run / "cams").iterdir()} == before
    assert [len(record.attempts) for record in read_shards(run)] == [2]
    work(shard=(2, 2))
    attempts = read_record(run).attempts
    work(shard=(2, 2))  # the run is done
    assert read_record(run).attempts == attempts


def test_a_command_without_shards_finishes_what_is_missing(work):
    whole, run = work(runs="whole"), work(shard=(2, 3))
    assert work() == run
    assert (state(run), contents(run)) == ("done", contents(whole))


@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_a_shard_that_was_broken_off_goes_on(work, monkeypatch, tmp_path, how):
    whole = work(runs="whole")
    run = work(shard=(1, 2))
    ctx, compute = Context(torch.device("cpu"), tmp_path / "runs"), cam.multiscale_cam

    def broken(*arguments):
        ctx.stop.signal = signal.SIGTERM
        return compute(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(cam, "multiscale_cam", broken)
        patch.setattr(cam, "images_per_batch", lambda *arguments: 1)
        with pytest.raises(Preempted):
            work(shard=(2, 2), ctx=ctx)
    assert [record.state for record in read_shards(run)] == ["done", "preempted"]
    if how == "killed":  # a killed process leaves the record as it was, and half a file
        file = Shard(2, 2).file(run, "json")
        file.write_text(file.read_text().replace("preempted", "working"))
        (run / "cams" / ".x.npz.y.part").write_bytes(b"half")
        work(shard=(1, 2))  # its own is done; the run is not
        assert state(run) == "created"
    work(shard=(2, 2))
    assert (state(run), contents(run)) == ("done", contents(whole))
    assert not list(run.rglob("*.part"))


def test_the_last_shard_that_was_killed_before_it_finished_the_run(work, monkeypatch):
    whole, run = work(runs="whole"), work(shard=(1, 2))
    with monkeypatch.context() as patch:
        patch.setattr(shards, "run_step", lambda *arguments: None)
        work(shard=(2, 2))
    assert state(run) == "created"
    work(shard=(1, 5))  # the division before is done, so another one may follow; any of them finishes the run
    assert (state(run), contents(run)) == ("done", contents(whole))


def test_another_number_of_shards_is_refused_before_any_work(work, monkeypatch):
    work(shard=(1, 2))
    monkeypatch.setattr(shards, "check_networks", None)
    with pytest.raises(UsageError, match="is divided by 2; 1 of 2 shards are done; missing 2"):
        work(shard=(1, 3))


def test_lost_images_of_a_shard_are_its_own_until_the_run_is_done(work, data, tmp_path):
    samples = open_dataset(data).split("train")
    lost = next(sample for sample in samples if shard_of(sample.id, 2) == 1)
    photograph = lost.image.read_bytes()
    try:
        work(runs="runs", shard=(2, 2))  # the classifier is trained with all photographs
        lost.image.write_bytes(b"no photograph")
        run = work(shard=(1, 2))
        assert [[entry["id"] for entry in record.lost] for record in read_shards(run)] == [[lost.id], []]
        assert (state(run), [entry["id"] for entry in read_record(run).lost]) == ("done", [lost.id])
    finally:
        lost.image.write_bytes(photograph)


def test_a_damaged_file_of_a_done_run_is_made_again_by_its_shard(work):
    whole, run = work(runs="whole"), work(shard=(1, 2))
    work(shard=(2, 2))
    next((run / "cams").iterdir()).write_bytes(b"")
    work(shard=(1, 2))
    work(shard=(2, 2))
    assert (state(run), contents(run)) == ("done", contents(whole))


def test_a_run_that_is_removed_under_a_shard_is_not_begun_anew(work, monkeypatch):
    run = work(shard=(1, 2))

    def remove(*arguments):
        shutil.rmtree(run)
        return []

    monkeypatch.setattr(shards, "cams_of", remove)
    with pytest.raises(WriteError, match="was removed"):
        work(shard=(2, 2))
    assert not is_run(run)


def test_one_process_at_a_time_makes_a_shard(work):
    run = work(shard=(1, 3))
    with locked(Shard(2, 3).file(run, "lock"), "busy"):
        with pytest.raises(BusyError, match="shard 2/3"):
            work(shard=(2, 3))
        work(shard=(3, 3))  # beside it
        with pytest.raises(BusyError, match=r"shards of .* are at work: 2/3"):
            work()


def test_a_training_of_another_process_is_waited_for(work, monkeypatch, tmp_path):
    run = work(shard=(1, 2))
    trained = next(run.parent.glob("classifier-*"))
    record = trained / "run.json"
    record.write_text(record.read_text().replace('"done"', '"failed"'))
    ctx = Context(torch.device("cpu"), tmp_path / "runs")
    monkeypatch.setattr(ctx.stop, "check", lambda: (_ for _ in ()).throw(Preempted("asked")))
    with locked(trained / "LOCK", "busy"), pytest.raises(Preempted):
        work(shard=(2, 2), ctx=ctx)
    monkeypatch.setattr(shards, "is_locked", lambda file: False)  # it has ended
    with locked(trained / "LOCK", "busy"), pytest.raises(ResourceError, match="classifier failed"):
        work(shard=(2, 2))
    work(shard=(2, 2))  # tries it
    assert (state(trained), state(run)) == ("done", "done")
