"""The cam stage with a small network: every method and loss, what resumes, and which classifiers can be given."""

import shutil
import signal
from pathlib import Path
from types import SimpleNamespace

import fsspec
import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from torch import nn

from wsss_cli.cam.store import read_cam
from wsss_cli.config.load import load_preset
from wsss_cli.data.dataset import open_dataset
from wsss_cli.data.images import image_size
from wsss_cli.data.sources.toy import prepare_toy
from wsss_cli.engine.checkpoint import load_weights
from wsss_cli.engine.context import Context
from wsss_cli.engine.pointers import find_checkpoint
from wsss_cli.engine.records import read_inputs
from wsss_cli.errors import DataError, Preempted, UsageError, WeightsError
from wsss_cli.models.backbones import Backbone
from wsss_cli.models.build import build_classifier
from wsss_cli.models.classifier import CamClassifier, SeamClassifier
from wsss_cli.stages import cam, classifier, pipeline, scored
from wsss_cli.stages.outcome import outcome
from wsss_cli.stages.pipeline import run_steps
from wsss_cli.stages.plan import open_experiment, plan_cam


class Info:
    def channels(self):
        return [4, 8]

    def reduction(self):
        return [4, 8]


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.feature_info = Info()
        self.conv1 = nn.Conv2d(3, 4, 4, stride=4)
        self.conv2 = nn.Conv2d(4, 8, 2, stride=2)

    def forward(self, x):
        first = torch.relu(self.conv1(x))
        return [first, torch.relu(self.conv2(first))]


def build(config, num_classes, device, weights=True):
    backbone = Backbone(Net(), (0.0, 0.0, 0.0), (255.0, 255.0, 255.0))
    seam = config.consistency.kind == "seam"
    return (SeamClassifier(backbone, num_classes, 8) if seam else CamClassifier(backbone, num_classes)).eval()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    prepare_toy(folder / "toy", images=8, val=1, seed=0, size=64)
    return folder / "toy"


@pytest.fixture
def make(data, tmp_path, monkeypatch):
    """Makes a cam run in a folder of the test; returns its directory."""
    monkeypatch.setattr(classifier, "build_classifier", build)
    monkeypatch.setattr(pipeline, "build_classifier", build)  # which looks whether networks can be made
    monkeypatch.setattr(scored, "cores", lambda: 1)

    def run(*overrides, runs="runs", ctx=None):
        common = [
            "classifier.iters=3",
            "classifier.batch=2",
            "classifier.crop=64",
            "cam.scales=[1.0]",
            "classifier.precision=fp32",
            "classifier.data_workers=0",
        ]
        preset = load_preset("toy", [f'dataset.path="{data}"', *common, *overrides])
        ctx = ctx or Context(torch.device("cpu"), tmp_path / runs)
        exp = open_experiment(preset, ctx.runs)
        steps = plan_cam(exp)
        run_steps(steps, exp, ctx)
        done = outcome(steps)
        assert done.lost == []
        return done.last.run

    return run


def reads(run):
    """The network that a cam run was made with: the run that it names."""
    inputs = read_inputs(run)
    return Path(inputs.recam_run or inputs.classifier_run)


def runs_in(folder):
    return sorted(path.name.split("-")[0] for path in folder.iterdir())


def maps(run):
    return {path.name: path.read_bytes() for path in sorted((run / "cams").iterdir())}


METHODS = {
    "cam": [],
    "gradcam": ["cam.method.kind=gradcam"],
    "gradcam-layer": ["cam.method.kind=gradcam", "cam.method.layer=conv1"],
    "recam": ["cam.method.kind=recam", "cam.method.iters=2"],
    "lpcam": ["cam.method.kind=lpcam", "cam.method.clusters=3", "cam.method.images_per_class=3"],
    "seam-er": ["classifier.consistency.kind=seam-er", "classifier.consistency.scale=0.5"],
    "seam": ["classifier.consistency.kind=seam", "classifier.consistency.scale=0.5"],
    "puzzle": ["classifier.consistency.kind=puzzle"],
}


@pytest.mark.parametrize("name", METHODS)
def test_every_method_gives_maps_of_the_tagged_classes(make, data, name):
    run = make(*METHODS[name])
    samples = open_dataset(data).split("train")
    highest = []
    for sample in samples:
        found, classes, size = read_cam(run / "cams" / f"{sample.id}.npz")
        assert classes == sample.labels
        assert size == (64, 64)
        highest += [float(plane.max()) for plane in found]
    assert 0.9 < max(highest) <= 1.0
    assert min(highest) >= 0.0
    assert (run / "eval.json").is_file()
    assert (run / "prototypes.safetensors").is_file() == (name == "lpcam")
    assert runs_in(run.parent) == (["cam", "classifier", "recam"] if name == "recam" else ["cam", "classifier"])
    assert not (run / "checkpoints").exists()


@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_maps_that_are_0_all_over_are_said(make, monkeypatch, tmp_path, scale):
    ctx, said = Context(torch.device("cpu"), tmp_path / "runs"), []
    monkeypatch.setattr(ctx.ui, "say", said.append)
    normalised = cam.normalise_cam
    monkeypatch.setattr(cam, "normalise_cam", lambda planes: normalised(planes * 0 + scale))
    make(ctx=ctx)
    lines = [line for line in said if line.startswith("warning")]
    assert lines == ([] if scale else ["warning: all CAMs of 8 of 8 photographs are 0: is the classifier trained?"])


def test_grad_cam_of_the_last_map_is_the_plain_cam(make):
    plain = make()
    given = make(*METHODS["gradcam"], f'classifier.weights="{plain}"')
    for name in maps(plain):
        a, b = read_cam(plain / "cams" / name)[0], read_cam(given / "cams" / name)[0]
        assert abs(a - b).max() < 1.5 / 255


# -- ReCAM -------------------------------------------------------------------------------------------------------------

RECAM = ["cam.method.kind=recam", "cam.method.iters=4"]


def second_weights(run):
    return load_weights(find_checkpoint(reads(run) / "checkpoints"))[0]


def test_the_second_phase_starts_from_the_first_and_is_a_run_of_its_own(make, tmp_path):
    plain, run = make(), make(*RECAM)
    assert runs_in(tmp_path / "runs") == ["cam", "cam", "classifier", "recam"]
    first = load_weights(find_checkpoint(reads(plain) / "checkpoints"))[0]
    state = second_weights(run)
    assert set(state) == set(first) | {"second.weight"}
    again = make(*RECAM, "cam.flip=false")
    assert again != run and reads(again) == reads(run)
    assert not torch.equal(state["backbone.net.conv2.weight"], first["backbone.net.conv2.weight"])
    assert maps(plain) != maps(run)


@pytest.mark.parametrize("how", ["killed after the first phase", "stopped in the second"])
def test_a_second_phase_that_was_broken_off_ends_with_the_same_bits(make, monkeypatch, tmp_path, how):
    whole = make(*RECAM, runs="whole")
    ctx = Context(torch.device("cpu"), tmp_path / "broken")
    loss, calls = classifier.softmax_loss, []

    def broken(*arguments):
        calls.append(1)
        if how.startswith("killed"):
            raise KeyboardInterrupt
        if len(calls) == 2:
            ctx.stop.signal = signal.SIGTERM
        return loss(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(classifier, "softmax_loss", broken)
        with pytest.raises(KeyboardInterrupt if how.startswith("killed") else Preempted):
            make(*RECAM, ctx=ctx)
    steps = [path.name for path in (tmp_path / "broken").glob("recam-*/checkpoints/step-*")]
    assert steps == ([] if how.startswith("killed") else ["step-00000002"])
    monkeypatch.setattr(classifier.ClassifierTask, "losses", None)  # the first phase is not trained again
    resumed = make(*RECAM, runs="broken")
    expected = second_weights(whole)
    assert all(torch.equal(tensor, expected[key]) for key, tensor in second_weights(resumed).items())
    assert maps(resumed) == maps(whole)


# -- LPCAM -------------------------------------------------------------------------------------------------------------


def test_prototypes_are_a_function_of_the_seed_and_are_made_once(make):
    run = make(*METHODS["lpcam"])
    again = make(*METHODS["lpcam"], runs="again")
    file = run / "prototypes.safetensors"
    before = file.read_bytes()
    assert (again / "prototypes.safetensors").read_bytes() == before
    assert maps(again) == maps(run)
    state = safetensors.torch.load(before)
    kept = {key: tensor for key, tensor in state.items() if not key.startswith("1.")}
    assert 0 < len(kept) < len(state)
    file.write_bytes(safetensors.torch.save(kept))  # as if the run had ended after the other classes
    record = run / "run.json"
    record.write_text(record.read_text().replace('"state": "done"', '"state": "running"'))
    make(*METHODS["lpcam"])
    resumed = safetensors.torch.load(file.read_bytes())
    assert resumed.keys() == state.keys()
    assert all(torch.equal(resumed[key], state[key]) for key in state)
    file.write_bytes(before[:40])
    record.write_text(record.read_text().replace('"state": "done"', '"state": "running"'))
    with pytest.raises(DataError, match="is damaged"):
        make(*METHODS["lpcam"])


# -- a classifier that is there ----------------------------------------------------------------------------------------


def test_classes_that_no_photograph_is_tagged_with_are_said(data, tmp_path):
    exp = open_experiment(load_preset("toy", [f'dataset.path="{data}"']), tmp_path)
    samples, said = exp.dataset.split("train"), []
    ctx = SimpleNamespace(ui=SimpleNamespace(say=said.append))
    classifier._say_untaught(samples, exp, ctx)
    assert said == []
    first = exp.dataset.classes[1]
    classifier._say_untaught([one for one in samples if 1 not in one.labels], exp, ctx)
    assert len(said) == 1 and said[0].startswith("a tag of no photograph of the split train: ") and first in said[0]


def test_a_classifier_is_given_by_its_run_its_folder_or_its_file(make, monkeypatch):
    run = make()
    trained = reads(run)
    checkpoint = find_checkpoint(trained / "checkpoints")
    monkeypatch.setattr(classifier, "train_network", None)  # nothing is trained
    assert make(f'classifier.weights="{trained}"') == make(f'classifier.weights="{run}"') == run
    for given in (trained / "checkpoints", checkpoint, checkpoint / "model.safetensors"):
        assert maps(make(f'classifier.weights="{given}"')) == maps(run), given
    for method in ("gradcam-layer", "lpcam"):
        assert maps(make(*METHODS[method], f'classifier.weights="{run}"')).keys() == maps(run).keys()


def test_a_classifier_trained_with_seam_serves_other_methods(make):
    run = make(*METHODS["seam"])
    assert maps(make(*METHODS["lpcam"], f'classifier.weights="{run}"')).keys() == maps(run).keys()


def test_a_folder_without_a_checkpoint_is_refused(make, data):
    with pytest.raises(WeightsError, match="holds no checkpoint") as caught:
        make(f'classifier.weights="{data}"')
    assert "classifier run" in caught.value.hint


def test_weights_of_imagenet_are_no_classifier_and_the_setting_that_takes_them_is_named(make, tmp_path):
    file = tmp_path / "lite0.safetensors"
    safetensors.torch.save_file(timm.create_model("tf_efficientnet_lite0", num_classes=5).state_dict(), file)
    with pytest.raises(WeightsError, match="is EfficientNet-Lite0, timm's naming, no CAM classifier") as caught:
        make(f'classifier.weights="{file}"')
    assert f"--set classifier.backbone.weights={file}" in caught.value.hint


def test_other_maps_of_the_same_classifier_train_none(make, monkeypatch, tmp_path):
    run = make()
    monkeypatch.setattr(classifier, "train_network", None)
    others = [make(*settings) for settings in (["cam.flip=false"], ["cam.scales=[0.5]"], METHODS["gradcam-layer"])]
    assert len({run, *others}) == 4
    assert {reads(other) for other in others} == {reads(run)}
    assert runs_in(tmp_path / "runs") == ["cam"] * 4 + ["classifier"]


def test_a_classifier_that_was_trained_beside_its_cams_is_taken(make, tmp_path):
    run = make()
    old = tmp_path / "cam-toy-old"  # of a version whose cam runs had the classifier in them
    shutil.copytree(reads(run) / "checkpoints", old / "checkpoints")
    for name in ("run.json", "preset.lock.toml", "inputs.json"):
        (old / name).write_text((run / name).read_text())
    assert maps(make(f'classifier.weights="{old}"', "cam.scales=[1.0]")) == maps(run)


# -- what does not go together -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (["classifier.consistency.kind=puzzle", "classifier.crop=72"], "no multiple of 32"),
        (["classifier.consistency.kind=seam-er", "classifier.consistency.scale=0.1"], "fewer than two steps"),
        (["classifier.consistency.kind=seam", "cam.method.kind=lpcam"], "take consistency seam-er, or method cam"),
        (["classifier.consistency.kind=seam", "cam.method.kind=recam"], "take consistency seam-er, or method cam"),
        (["cam.method.kind=lpcam", "cam.method.tau=1.0"], "cam.method.tau"),
        (["cam.method.kind=smoothgrad"], "cam.method"),
        (["cam.method.kind=gradcam", "cam.method.clusters=3"], "unknown key cam.method.clusters"),
    ],
)
def test_settings_that_do_not_go_together_are_refused_with_the_reason(overrides, reason):
    with pytest.raises(UsageError, match=reason):
        load_preset("toy", overrides)


def test_a_backbone_for_images_of_one_size_is_refused():
    sized = ["classifier.backbone.name=maxvit_pico_rw_256", "classifier.backbone.weights=none"]
    sized += ["classifier.backbone.frozen_stages=0", "classifier.backbone.output_stride=32"]
    with pytest.raises(UsageError, match="does not take images of any size"):
        build_classifier(load_preset("toy", sized).classifier, 3, torch.device("cpu"))


def test_a_transformer_has_no_stages_to_freeze_and_none_for_seam():
    vit = ["classifier.backbone.name=vit_tiny_patch16_224", "classifier.backbone.weights=none"]
    with pytest.raises(UsageError, match="frozen_stages"):
        build_classifier(load_preset("toy", vit).classifier, 3, torch.device("cpu"))
    vit += [
        "classifier.backbone.frozen_stages=0",
        "classifier.consistency.kind=seam",
        "classifier.consistency.scale=0.5",
    ]
    with pytest.raises(UsageError, match="one map"):
        build_classifier(load_preset("toy", vit).classifier, 3, torch.device("cpu"))


def test_sizes_of_the_list_are_used_and_wrong_ones_make_the_same_cams(make, data, tmp_path, monkeypatch):
    sound = make()
    asked = []
    monkeypatch.setattr(cam, "image_size", lambda path: asked.append(path) or image_size(path))
    other = shutil.copytree(data, tmp_path / "other")
    listed = (other / "splits" / "train.csv").read_text()
    assert listed.count(",64,64\n") == 8
    wrong = listed.replace(",64,64\n", ",300,64\n", 3).replace(",64,64\n", ",,\n", 1)
    (other / "splits" / "train.csv").write_text(wrong)
    again = make(f'dataset.path="{other}"', runs="again")
    assert again.name == sound.name  # sizes are no part of the identity
    assert [path.parent.parent for path in asked] == [other]  # the one that the list does not say
    files = sorted((sound / "cams").iterdir())
    assert len(files) == 8
    for file in files:
        (maps, classes, size), (others, *same) = read_cam(file), read_cam(again / "cams" / file.name)
        assert (classes, size) == tuple(same)
        assert np.allclose(maps, others, atol=1e-3)


def test_photographs_at_urls_make_the_same_cams(make, data, tmp_path):
    whole = make()
    shutil.copytree(data / "splits", tmp_path / "toy" / "splits")
    shutil.copytree(data / "SegmentationClass", tmp_path / "toy" / "SegmentationClass")
    shutil.copy(data / "dataset.json", tmp_path / "toy")
    listed = tmp_path / "toy" / "splits" / "train.csv"
    text = listed.read_text()
    assert text.count(",JPEGImages/") == 8
    listed.write_text(text.replace(",JPEGImages/", ",memory://toy/"))
    for file in (data / "JPEGImages").iterdir():
        with fsspec.open(f"memory://toy/{file.name}", "wb") as remote:
            remote.write(file.read_bytes())
    urls = make(f'dataset.path="{tmp_path / "toy"}"', runs="others")
    assert urls.name == whole.name  # the same data elsewhere
    assert maps(urls) == maps(whole)
