"""What is known to fail before any work, on a tiny data set; and how long steps take, from the records of runs."""

import re
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from wsss_cli.config.load import load_preset
from wsss_cli.config.noise import ConsistencyConfig
from wsss_cli.config.schema import DatasetConfig
from wsss_cli.data.dataset import open_dataset, write_dataset
from wsss_cli.data.sources.toy import prepare_toy
from wsss_cli.engine.context import make_context
from wsss_cli.errors import DataError, ResourceError, UsageError, WeightsError, together
from wsss_cli.files import write_json
from wsss_cli.stages import estimate
from wsss_cli.stages.opening import open_step
from wsss_cli.stages.pipeline import run_steps
from wsss_cli.stages.plan import Step, plan_run, plan_train
from wsss_cli.stages.preflight import planned, problems

IRN = ['pseudo.steps=[{kind="irn-walk"}]', "affinity.irn.iters=3"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    prepare_toy(folder, images=3, val=1, size=64)
    return folder


def plan(exp):
    return plan_run(exp, lambda line: None)


@pytest.fixture
def check(tmp_path, data):
    """All that is known to fail of `wsss run --preset toy` with these settings."""

    def check(*settings, device="cpu", path=data):
        preset = load_preset("toy", [f"dataset.path={path}", *settings])
        exp, steps, faults = planned(preset, plan, tmp_path / "runs")
        return [*faults, *problems(exp, steps, device)]

    return check


def without_masks(data, folder, **changes):
    """A copy of the data set whose train split has other samples."""
    there = open_dataset(data)
    samples = [replace(sample, **changes) for sample in there.split("train")]
    named = {"name": "other", "source": "", "protocol": (), "findings": ()}
    splits = {"train": samples, "val": there.split("val")}
    write_dataset(folder, classes=there.classes, colors=there.colors, splits=splits, **named)
    return folder


def test_the_path_of_a_data_set_counts_from_the_current_folder_as_its_description_says(data, tmp_path, monkeypatch):
    (tmp_path / "settings").mkdir()
    (tmp_path / "settings/mine.toml").write_text('extends = "toy"\n[dataset]\npath = "here"\n')
    (tmp_path / "here").symlink_to(data)
    monkeypatch.chdir(tmp_path)
    assert planned(load_preset("settings/mine.toml"), plan, tmp_path / "runs")[2] == []
    monkeypatch.chdir(tmp_path / "settings")
    (fault,) = planned(load_preset("mine.toml"), plan, tmp_path / "runs")[2]
    assert "no data set" in fault.message
    described = DatasetConfig.model_fields["path"].description
    assert "the folder in which the command is run, not from that of the preset" in described


def test_nothing_is_wrong_with_the_toy(check):
    assert check() == check(*IRN) == check("train.supervision=full") == []


def test_all_weights_that_are_missing_are_named_with_their_keys(check):
    names = ("classifier.backbone", "affinity.irn.backbone", "train.backbone")
    faults = check(*IRN, *(f"{name}.weights=/nowhere/{i}.pth" for i, name in enumerate(names)))
    assert [fault.message for fault in faults] == [
        f"{name}.weights: there is no file /nowhere/{i}.pth" for i, name in enumerate(names)
    ]
    assert all(f"--set {name}.weights=FILE" in fault.hint for name, fault in zip(names, faults, strict=True))
    one = together(faults)
    assert isinstance(one, WeightsError)
    assert one.message.count("\n") == one.hint.count("\n") == 2


def test_a_backbone_that_is_not_there_is_known_before_without_weights_too(check):
    (fault,) = check("train.supervision=full", "train.backbone.name=resnet999", "train.backbone.weights=none")
    assert fault.message == "train.backbone.name: backbone 'resnet999' is not a timm model"
    assert "resnet50" in fault.hint


def test_only_what_is_used_is_missed(check):
    wrong = ("classifier.backbone.weights=/nowhere.pth", "affinity.psa.backbone.weights=/nowhere.pth")
    assert check("train.supervision=full", *wrong) == []


def test_a_network_to_start_from_takes_the_place_of_the_backbones_weights(check, tmp_path):
    (fault,) = check("train.backbone.weights=/nowhere.pth", "train.init=/gone", "train.supervision=full")
    assert fault.message == "train.init: there is no file /gone"
    (tmp_path / "w.safetensors").write_bytes(b"1")
    assert check("train.backbone.weights=/nowhere.pth", f"train.init={tmp_path / 'w.safetensors'}") == []


def test_one_file_cannot_be_of_two_backbones(check, tmp_path):
    (tmp_path / "w.pth").write_bytes(b"1")
    given = [f"{name}.backbone.weights={tmp_path / 'w.pth'}" for name in ("classifier", "train")]
    assert check(*given) == []
    (fault,) = check(*given, "train.backbone.name=resnet18")
    assert re.search("train.backbone.weights: .*/w.pth cannot be of resnet18 and, as classifier", fault.message)


def test_a_classifier_that_is_not_there_hides_nothing_else(check):
    first, second = check("classifier.weights=/gone", "train.backbone.weights=/nowhere.pth")
    assert (first.message, second.message[:14]) == ("classifier.weights: there is no /gone", "train.backbone")


def test_a_data_set_that_is_not_there_hides_nothing_else(check):
    first, second = check("train.backbone.weights=/nowhere.pth", path="nowhere")
    assert isinstance(first, DataError) and isinstance(second, WeightsError)


def test_splits_images_tags_and_masks_are_looked_for(check, data, tmp_path):
    (fault,) = check("dataset.train=trian")
    assert "has no split 'trian'" in fault.message and "did you mean 'train'" in fault.hint
    bare = without_masks(data, tmp_path / "bare", mask=None)
    (fault,) = check(path=bare)
    assert "pseudo.threshold is of kind train-curve, and split 'train'" in fault.message
    assert "--set pseudo.threshold.kind=self" in fault.hint
    (fault,) = check("train.supervision=full", path=bare)
    assert fault.message == "3 of 3 training images have no mask, first: train_000000"
    (fault,) = check(*IRN, "pseudo.threshold.kind=self", "affinity.irn.threshold.kind=train-curve", path=bare)
    assert "--set affinity.irn.threshold.kind=fixed" in fault.hint
    (fault,) = check(path=without_masks(data, tmp_path / "untagged", labels=()))
    assert "has a tag to learn from" in fault.message
    (fault,) = check(path=without_masks(data, tmp_path / "gone", image=Path("/gone/a.png")))
    assert fault.message == "none of the images of split 'train' is there, first: /gone/a.png"


def test_a_split_that_cannot_be_read_is_one_fault(check, data, tmp_path):
    folder = shutil.copytree(data, tmp_path / "copy")
    (folder / "splits/train.csv").write_text("id,image,mask,labels\n")
    (fault,) = check(path=folder)
    assert fault.message == f"split 'train' of data set {folder} is empty"
    weights, seeds = check("dataset.score=train", "dataset.train=val", "train.backbone.weights=/no.pth", path=folder)
    assert weights.message == "train.backbone.weights: there is no file /no.pth"
    assert seeds.message.endswith("has a mask in split 'train' to score its seeds on")


def test_a_trial_names_the_classes_that_it_sees_nothing_of(check, data, tmp_path, capsys):
    there = open_dataset(data)
    tagged = without_masks(data, tmp_path / "sorted", labels=(1,))
    assert check("dataset.limit=2", path=tagged) == []
    unseen = ", ".join(there.classes[2:])
    assert f"limit 2: the first 2 training images show nothing of {unseen}; " in capsys.readouterr().err
    assert check(path=tagged) == [] and "show nothing of" not in capsys.readouterr().err


def test_the_device_and_what_needs_it_are_looked_at(check):
    (fault,) = check(device="gpu")
    assert isinstance(fault, UsageError)
    (fault,) = check("train.kernels=fused")
    assert fault.message == "train.kernels is 'fused': they run on CUDA, and the device is cpu"
    (fault,) = check(*IRN, "affinity.irn.kernels=fused")
    assert fault.message == "affinity.irn.kernels is 'fused': they run on CUDA, and the device is cpu"
    assert fault.hint == "--set affinity.irn.kernels=plain"
    assert check("affinity.irn.kernels=fused") == []  # no step needs it
    (fault,) = check('train.loss=[{kind="cross-entropy", class_weights=[1.0, 2.0]}]')
    assert "class_weights has 2 numbers" in fault.message


def test_a_disk_that_is_plainly_too_small_is_refused(check, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=1_000_000))
    (fault,) = check()
    assert isinstance(fault, ResourceError)
    assert re.match(r"about 0\.\d GB are to be written to .*runs, and 0\.0 GB are free there", fault.message)


def test_the_room_for_checkpoints_goes_by_the_network(data, tmp_path):
    def wanted(*settings):
        preset = load_preset("toy", [f"dataset.path={data}", "train.supervision=full", *settings])
        exp, steps, _ = planned(preset, plan, tmp_path / "runs")
        return estimate.bytes_to_write(exp, steps)

    small, large = wanted(), wanted("train.backbone.name=resnet101c", "train.head.aspp_channels=512")
    assert small == pytest.approx(4 * 3 * 4e6 * 4.0, rel=0.2)  # four checkpoints of 4.0 million weights under AdamW
    assert large == pytest.approx(4 * 3 * 4e6 * 62.6, rel=0.2)
    assert wanted("train.optim.kind=sgd") == pytest.approx(small * 2 / 3)


def test_what_is_done_is_not_looked_at(check, data, tmp_path):
    preset = load_preset("toy", [f"dataset.path={data}", "train.supervision=full"])
    exp, steps, _ = planned(preset, plan, tmp_path / "runs")
    with open_step(steps[0], exp) as run:
        run.finish()
    exp, steps, _ = planned(preset, plan, tmp_path / "runs")
    assert [step.done for step in steps] == [True, False]
    assert problems(exp, steps, "cpu") == []


def test_weights_that_do_not_fit_are_all_named_before_the_first_stage(data, tmp_path):
    torch.manual_seed(0)
    save_file({"some.weight": torch.randn(3)}, tmp_path / "w.safetensors")
    given = [f"{name}.backbone.weights={tmp_path / 'w.safetensors'}" for name in ("classifier", "train")]
    exp, steps, faults = planned(load_preset("toy", [f"dataset.path={data}", *given]), plan, tmp_path / "runs")
    assert [*faults, *problems(exp, steps, "cpu")] == []
    with pytest.raises(WeightsError) as caught:
        run_steps(steps, exp, make_context("cpu", tmp_path / "runs"))
    first, second = caught.value.message.splitlines()
    assert "(classifier.backbone.weights) do not fit" in first and "(train.backbone.weights) do not fit" in second
    assert not (tmp_path / "runs").exists()


def test_a_layer_that_there_is_not_is_named_before_the_classifier_is_trained(data, tmp_path):
    settings = [f"dataset.path={data}", "cam.method.kind=gradcam", "cam.method.layer=layer4.1"]
    exp, steps, _ = planned(load_preset("toy", settings), plan, tmp_path / "runs")
    with pytest.raises(UsageError, match=r"the backbone has no module 'layer4\.1'"):
        run_steps(steps, exp, make_context("cpu", tmp_path / "runs"))
    assert not (tmp_path / "runs").exists()


def test_errors_together_are_of_the_gravest_class():
    both = together([WeightsError("a", "x"), UsageError("b", "y"), DataError("c", "x")], "z")
    assert (type(both), both.message, both.hint) == (UsageError, "a\nb\nc", "x\ny\nz")
    alone = WeightsError("a")
    assert together([alone], "z") is alone


# -- time --------------------------------------------------------------------------------------------------------------


def test_the_time_of_a_training_is_that_of_an_earlier_one(data, tmp_path):
    settings = [f"dataset.path={data}", "train.supervision=full", "train.batch=4", "train.crop=64"]

    def step_of(*more):
        exp, steps, _ = planned(load_preset("toy", [*settings, *more]), plan_full, tmp_path)
        return exp, steps[0]

    def plan_full(exp):
        return plan_train(exp, None, lambda line: None)

    exp, step = step_of("train.iters=10")
    assert estimate.expected(exp, step, "cpu") is None
    with open_step(step, exp) as run:
        for number, pace in enumerate((2.0, 8.0, 9.0), 1):
            run.metric({"kind": "train", "step": 2 * number, "img_s": pace})
        run.finish(device="CPU, 2 threads")
    took = estimate.expected(*step_of("train.iters=100"), "cpu")
    assert (took.seconds, took.run, took.device) == (100 * 4 / 8, step.path, "CPU, 2 threads")
    assert estimate.expected(*step_of("train.iters=100", "train.crop=128"), "cpu").seconds == 4 * 50
    assert estimate.expected(*step_of("train.iters=100", "train.crop=256"), "cpu") is None  # four times as large
    assert estimate.expected(*step_of("train.iters=100"), "cuda") is None
    exp, step = step_of("train.iters=100")
    noise = exp.preset.train.noise.model_copy(update={"consistency": ConsistencyConfig()})
    train = exp.preset.train.model_copy(update={"noise": noise})
    views = replace(exp, preset=exp.preset.model_copy(update={"train": train}))
    assert estimate.expected(views, step, "cpu") is None  # each step takes three times as long
    assert estimate.expected(*step_of("train.iters=100", "train.backbone.name=resnet18"), "cpu") is None
    exp, begun = step_of("train.iters=100")
    (begun.path / "checkpoints/step-00000060").mkdir(parents=True)
    write_json(begun.path / "checkpoints/step-00000060/meta.json", {"step": 60})
    assert estimate.expected(exp, begun, "cpu").seconds == 40 * 4 / 8


def test_a_trial_of_a_few_iterations_is_no_measure_of_time(data, tmp_path):
    preset = load_preset("toy", [f"dataset.path={data}", "train.supervision=full"])

    def plan_full(exp):
        return plan_train(exp, None, lambda line: None)

    exp, (step, *_), _ = planned(preset, plan_full, tmp_path)
    with open_step(step, exp) as run:
        run.metric({"kind": "train", "step": 4, "img_s": 2.0})
        run.finish(device="CPU, 2 threads")
    assert estimate.expected(exp, step, "cpu") is None


def test_the_time_of_cams_goes_by_their_scales(data, tmp_path):
    def cam_of(*more):
        exp, steps, _ = planned(load_preset("toy", [f"dataset.path={data}", *more]), plan, tmp_path)
        return exp, next(step for step in steps if step.stage == "cam")

    exp, step = cam_of("cam.scales=[1.0]")
    with open_step(step, exp) as run:
        run.finish(device="CPU, 2 threads")
    with open_step(step, exp) as run:
        run.save(attempts=[{"host": "a", "pid": 1, "start": 100.0, "end": 160.0, "exit": 0}])
    assert estimate.expected(*cam_of("cam.scales=[2.0]"), "cpu").seconds == 240
    assert estimate.expected(*cam_of("cam.scales=[1.0, 2.0]", "cam.flip=false"), "cpu").seconds == 150
    assert estimate.expected(exp, Step("eval", step.path, ""), "cpu") is None


def test_the_time_of_imported_scores_and_of_other_networks_is_none_of_cams(data, tmp_path):
    def step_of(stage, *more):
        preset = load_preset("toy", [f"dataset.path={data}", "rounds=2", *more])
        exp, steps, _ = planned(preset, plan, tmp_path)
        return exp, next(step for step in steps if step.stage == stage)

    def timed(step, exp):
        with open_step(step, exp) as run:
            run.finish(device="CPU, 2 threads")
        with open_step(step, exp) as run:
            run.save(attempts=[{"host": "a", "pid": 1, "start": 100.0, "end": 160.0, "exit": 0}])

    exp, cam = step_of("cam")
    timed(replace(cam, reads=()), exp)  # as wsss import-scores leaves it
    assert estimate.expected(exp, cam, "cpu") is None
    for run in tmp_path.glob("cam-*"):
        shutil.rmtree(run)
    timed(cam, exp)
    assert estimate.expected(exp, cam, "cpu").seconds == 60
    for other in ("classifier.backbone.name=resnet50", "cam.method.kind=gradcam"):
        assert estimate.expected(*step_of("cam", other), "cpu") is None
    (exp, pseudo), (_, relabel) = step_of("pseudo"), step_of("relabel")
    timed(relabel, exp)  # of the same kind, by a network
    assert estimate.expected(exp, pseudo, "cpu") is None
    assert estimate.expected(exp, relabel, "cpu").seconds == 60
    timed(pseudo, exp)
    assert estimate.expected(exp, pseudo, "cpu").run == pseudo.path
    assert estimate.expected(exp, relabel, "cpu").run == relabel.path


@pytest.mark.parametrize(("seconds", "words"), [(0.2, "1 s"), (99, "99 s"), (720, "12 min"), (9000, "2 h 30 min")])
def test_a_time_is_told_in_words(seconds, words):
    assert estimate.in_words(seconds) == f"about {words}"


def test_runs_that_cannot_be_made_are_known_before(tmp_path, data, monkeypatch):
    (tmp_path / "file").touch()
    for runs, says in ((tmp_path / "file/a/b", "file is no folder"), (tmp_path / "shut/a", "Permission denied")):
        exp, steps, _ = planned(load_preset("toy", [f"dataset.path={data}"]), plan, runs)
        with monkeypatch.context() as patch:
            patch.setattr("os.access", lambda place, mode: False)
            said = [fault.message for fault in problems(exp, steps, "cpu")]
        assert any(line.startswith("cannot create the run directory") and says in line for line in said), said
    assert not (tmp_path / "shut").exists()
