"""Labels, training, resuming and walking on a few generated images with a small random backbone."""

import signal

import numpy as np
import pytest
import torch

from wsss_cli.cam.store import read_cam, write_cam
from wsss_cli.config.affinity import IrnWalk, PsaWalk
from wsss_cli.config.load import load_preset
from wsss_cli.data.dataset import open_dataset
from wsss_cli.data.masks import read_mask
from wsss_cli.data.sources.toy import prepare_toy
from wsss_cli.engine.checkpoint import load_weights
from wsss_cli.engine.context import Context, Silent
from wsss_cli.engine.pointers import find_checkpoint
from wsss_cli.engine.records import RunRecord, read_inputs, read_record
from wsss_cli.engine.rundir import RunDir, read_metrics
from wsss_cli.errors import DataError, Preempted, UsageError
from wsss_cli.files import write_json
from wsss_cli.stages import affinity
from wsss_cli.stages.affinity import run_affinity
from wsss_cli.stages.paths import Files, cam_files, cam_path, label_path
from wsss_cli.stages.plan import Step, open_experiment
from wsss_cli.stages.walk import run_walk

TINY = "{ name = 'resnet10t', weights = 'none', output_stride = 32 }"
TRAINING = [
    "iters=4",
    "batch=2",
    "crop=64",
    "radius=3",
    "data_workers=0",
    "label_workers=1",
    "log_interval=1",
    f"backbone={TINY}",
]
KINDS = ["irn", "psa"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A data set of four images, and a folder with CAMs: blurred true masks of the tagged classes."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("affinity")
    prepare_toy(folder / "toy", images=4, val=1, size=64)
    for sample in open_dataset(folder / "toy").split("train"):
        mask = read_mask(sample.mask)
        cam = np.stack([(mask == label).reshape(16, 4, 16, 4).mean((1, 3)) for label in sample.labels]) * 0.9
        write_cam(cam_path(folder / "cam", sample.id), cam, sample.labels, mask.shape)
    write_json(folder / "cam" / "eval.json", {"best_threshold": 0.4})
    return folder


def make_preset(data, kind, *overrides):
    settings = [f"affinity.{kind}.{text}" for text in (*TRAINING, *overrides)]
    return load_preset("toy", [f"dataset.path={data / 'toy'}", *settings])


def context(folder):
    return Context(torch.device("cpu"), folder, Silent())


def weights(run):
    return load_weights(find_checkpoint(run / "checkpoints"))[0]


def step_of(kind, cam, folder):
    """A run of an affinity network in a folder, and the cam run that it reads."""
    return Step(kind, folder / f"{kind}-toy-00000000", "own-id", (Step("cam", cam, "cam-id", done=True),))


def made_affinity(preset, ctx, kind, cam):
    step, exp = step_of(kind, cam, ctx.runs), open_experiment(preset, ctx.runs)
    run_affinity(step, exp, ctx)
    return step.path


@pytest.mark.parametrize("kind", KINDS)
def test_a_network_is_trained_on_labels_of_tagged_classes_and_walks(data, tmp_path, kind):
    preset, ctx = make_preset(data, kind), context(tmp_path)
    network = made_affinity(preset, ctx, kind, data / "cam")
    assert read_inputs(network).cam_identity == "cam-id"
    assert [row["step"] for row in read_metrics(network)] == [1, 2, 3, 4]
    samples = open_dataset(data / "toy").split("train")
    seen = set()
    for sample in samples:
        label, truth = read_mask(label_path(network, sample.id)), read_mask(sample.mask)
        assert label.shape == truth.shape
        assert set(np.unique(label)) <= {0, 255, *sample.labels}
        decided = label != 255
        assert (label[decided] == truth[decided]).mean() > 0.8
        seen |= set(np.unique(label[decided]))
    assert len(seen) > 1  # objects, not background alone

    step = IrnWalk(iterations=8) if kind == "irn" else PsaWalk(iterations=8)
    out, run = Files(tmp_path / "walked", ".npz"), RunDir(tmp_path, RunRecord(stage="irn", state="running"))
    arguments = (preset, ctx, samples, cam_files(data / "cam"), network, run, out)
    assert run_walk(step, *arguments) == []
    for sample in samples:
        scores, classes, size = read_cam(out.of(sample.id))
        assert (classes, size) == (sample.labels, (64, 64))
        assert scores.shape == (len(classes), *((16, 16) if kind == "irn" else (8, 8)))
        assert scores.max() == 1.0 if kind == "irn" else 0.0 < scores.max() <= 1.0
    first = out.of(samples[0].id)
    out.of(samples[1].id).unlink()
    first.write_bytes(b"kept")
    assert run_walk(step, *arguments) == []
    assert first.read_bytes() == b"kept"
    assert out.of(samples[1].id).is_file()


@pytest.mark.parametrize("kind", KINDS)
def test_a_stopped_training_ends_with_the_same_weights(data, tmp_path, kind, monkeypatch):
    preset = make_preset(data, kind)
    whole = made_affinity(preset, context(tmp_path / "whole"), kind, data / "cam")
    stopped = context(tmp_path / "parts")
    losses = affinity.AffinityTask.losses
    calls = []

    def stop_in_the_second_step(self, batch):
        calls.append(1)
        if len(calls) == 2:
            stopped.stop.signal = signal.SIGTERM
        return losses(self, batch)

    monkeypatch.setattr(affinity.AffinityTask, "losses", stop_in_the_second_step)
    with pytest.raises(Preempted):
        made_affinity(preset, stopped, kind, data / "cam")
    parts = made_affinity(preset, context(tmp_path / "parts"), kind, data / "cam")
    assert len(calls) == 4
    ours, theirs = weights(parts), weights(whole)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_images_without_a_cam_are_named_and_the_others_go_on(data, tmp_path):
    some = tmp_path / "cam"
    samples = open_dataset(data / "toy").split("train")
    for sample in samples[1:]:
        target = cam_path(some, sample.id)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(cam_path(data / "cam", sample.id).read_bytes())
    network = made_affinity(make_preset(data, "irn"), context(tmp_path), "irn", some)
    assert [entry["id"] for entry in read_record(network).lost] == [samples[0].id]
    out = Files(tmp_path / "walked", ".npz")
    preset, run = make_preset(data, "irn"), RunDir(tmp_path, RunRecord(stage="irn", state="running"))
    lost = run_walk(IrnWalk(iterations=1), preset, context(tmp_path), samples, cam_files(some), network, run, out)
    assert [entry["id"] for entry in lost] == [samples[0].id]
    assert samples[0].id in (tmp_path / "log.txt").read_text()
    assert len(list(out.names())) == 3


def test_thresholds_may_be_offsets_from_the_best(data, tmp_path):
    threshold = "threshold={ kind='train-curve', fg_offset=0.2, bg_offset=-0.5 }"
    config = make_preset(data, "irn", threshold).affinity.irn
    assert affinity._thresholds(config, data / "cam") == (0.6, 0.01)
    with pytest.raises(DataError, match="no threshold curve"):
        affinity._thresholds(config, tmp_path)


def test_a_preset_without_the_table_is_refused(data, tmp_path):
    with pytest.raises(UsageError, match=r"no table \[affinity.psa\]"):
        made_affinity(make_preset(data, "irn"), context(tmp_path), "psa", data / "cam")


@pytest.mark.parametrize("kind", KINDS)
def test_a_training_asks_for_the_kernels_of_its_preset(data, tmp_path, kind, monkeypatch):
    asked = []

    def usable(check, device):
        asked.append(check.kernel)
        return False

    monkeypatch.setattr(affinity, "check_fused", lambda setting, kernels, device: asked.append((setting, kernels)))
    monkeypatch.setattr("wsss_cli.pseudo.affinity_loss.usable", usable)
    made_affinity(make_preset(data, kind, "kernels=fused", "iters=1"), context(tmp_path), kind, data / "cam")
    name = {"irn": "boundary loss of pairs", "psa": "feature loss of pairs"}[kind]
    assert asked == [(f"affinity.{kind}.kernels", "fused"), name]


def test_kernels_are_refused_where_they_cannot_run(data, tmp_path):
    with pytest.raises(UsageError, match=r"affinity\.irn\.kernels is 'fused': they run on CUDA"):
        made_affinity(make_preset(data, "irn", "kernels=fused"), context(tmp_path), "irn", data / "cam")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_labels_say_is_told_before_the_training(data, tmp_path, kind):
    said = []

    class Listening(Silent):
        def say(self, text):
            said.append(text)

    made_affinity(make_preset(data, kind), Context(torch.device("cpu"), tmp_path, Listening()), kind, data / "cam")
    labels = [read_mask(file) for file in sorted((tmp_path / f"{kind}-toy-00000000" / "labels").rglob("*.png"))]
    background, undecided = (100 * np.mean([(label == value).mean() for label in labels]) for value in (0, 255))
    shares = f"background {background:.0f} %, classes {100 - background - undecided:.0f} %, undecided {undecided:.0f} %"
    assert f"labels of 4 photographs: {shares}" in said
