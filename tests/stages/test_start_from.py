"""A training that starts from the network of another."""

import pytest
import torch
from safetensors.torch import load_file

from wsss_cli.config.load import load_preset
from wsss_cli.data.sources.toy import prepare_toy
from wsss_cli.engine.checkpoint import save_checkpoint
from wsss_cli.engine.context import Context
from wsss_cli.errors import UsageError, WeightsError
from wsss_cli.files import read_json, write_json
from wsss_cli.interchange.import_mmseg import run_inspect
from wsss_cli.models.build import build_segmentor
from wsss_cli.stages.pipeline import run_steps
from wsss_cli.stages.plan import open_experiment, plan_train
from wsss_cli.stages.train import start_from

SMALL = (
    *("train.supervision=full", "train.backbone.weights=none", "train.head.aspp_channels=16"),
    *("train.head.low_channels=8", "train.head.dilations=[1,2]", "train.iters=1", "train.batch=2", "train.crop=32"),
    *("train.data_workers=0", "train.val_interval=0"),
)


def network(num_classes, *overrides, seed=0):
    torch.manual_seed(seed)
    return build_segmentor(load_preset("toy", [*SMALL, *overrides]).train, num_classes, torch.device("cpu"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a checkpoint of a network with three classes, and its state."""
    model = network(3)
    save_checkpoint(tmp_path_factory.mktemp("run"), 7, model, {}, {})
    folder = next(tmp_path_factory.getbasetemp().glob("run*/step-*"))
    return folder, model.state_dict()


def same(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


@pytest.mark.parametrize("file", ["", "model.safetensors"])
def test_all_weights_are_taken_over(trained, file):
    model = network(3, seed=1)
    assert not same(model.state_dict(), trained[1])
    start_from(model, trained[0] / file, reset_head=False)
    assert same(model.state_dict(), trained[1])


def test_another_class_count_is_refused_or_the_classifiers_stay_new(trained):
    model = network(5, seed=1)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    with pytest.raises(WeightsError) as caught:
        start_from(model, trained[0], reset_head=False)
    for words in (
        "has 3 classes, 5 are needed: 4 of another shape",
        "head.classifier.weight is [3, 16, 1, 1], not [5, 16, 1, 1]",
    ):
        assert words in caught.value.message
    assert "--reset-head" in caught.value.hint
    assert same(model.state_dict(), before)
    start_from(model, trained[0], reset_head=True)
    fresh = {"head.classifier.weight", "head.classifier.bias", "aux.classifier.weight", "aux.classifier.bias"}
    for key, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[key] if key in fresh else trained[1][key]), key


def test_as_many_other_classes_get_new_classifiers_where_that_is_asked_for(trained):
    model = network(3, seed=1)
    before = model.head.classifier.weight.clone()
    start_from(model, trained[0], reset_head=True)
    assert torch.equal(model.head.classifier.weight, before)
    assert torch.equal(model.head.bottleneck.conv.weight, trained[1]["head.bottleneck.conv.weight"])


@pytest.mark.parametrize("reset_head", [False, True])
def test_another_architecture_is_refused_with_the_first_keys(trained, reset_head):
    model = network(3, "train.head.low_channels=4", "train.head.dilations=[1,2,3]")
    with pytest.raises(WeightsError) as caught:
        start_from(model, trained[0], reset_head=reset_head)
    for words in (
        "missing (head.aspp.2.depthwise.conv.weight, ",
        "head.low.conv.weight is [8, 24, 1, 1], not [4, 24, 1, 1]",
    ):
        assert words in caught.value.message
    assert "--reset-head" not in caught.value.hint


def test_weights_without_an_auxiliary_head_need_a_new_one(tmp_path):
    plain = network(3, "train.aux.weight=0.0")
    save_checkpoint(tmp_path, 1, plain, {}, {})
    model = network(3, seed=1)
    with pytest.raises(WeightsError, match=r"has no auxiliary head: .* missing \(aux\.conv\.conv\.weight"):
        start_from(model, tmp_path / "step-00000001", reset_head=False)
    start_from(model, tmp_path / "step-00000001", reset_head=True)
    assert torch.equal(model.head.low.conv.weight, plain.head.low.conv.weight)


def test_an_auxiliary_head_that_is_not_wanted_is_left_out(trained):
    model = network(3, "train.aux.weight=0.0", seed=1)
    start_from(model, trained[0], reset_head=False)
    assert torch.equal(model.head.classifier.weight, trained[1]["head.classifier.weight"])


def test_new_classifiers_of_nothing_are_refused():
    with pytest.raises(UsageError, match="reset_head is for a network that training starts from"):
        load_preset("toy", ["train.reset_head=true"])


def test_a_checkpoint_of_mmsegmentation_is_to_be_imported_first(tmp_path):
    body = {f"backbone.layer{stage}.0.conv1.weight": torch.zeros(1) for stage in (1, 2, 3, 4)}
    torch.save({"state_dict": {**body, "decode_head.conv_seg.weight": torch.zeros(3, 1, 1, 1)}}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="no network to start from"):
        start_from(network(3), tmp_path / "w.pth", reset_head=False)
    with pytest.raises(WeightsError, match="is no run, checkpoint or imported directory"):
        start_from(network(3), tmp_path, reset_head=False)


def test_a_network_in_a_file_of_its_own_is_said_with_the_command_that_takes_it(trained, tmp_path):
    """Its directory was named, which no command takes."""
    torch.save(trained[1], tmp_path / "w.pth")
    assert f"wsss train --init {tmp_path / 'w.pth'} takes it" in run_inspect(tmp_path / "w.pth")["advice"]
    start_from(network(3, seed=1), tmp_path / "w.pth", reset_head=False)  # as the line says


def test_a_backbone_alone_is_said_with_the_setting_that_takes_it(trained, tmp_path):
    body = {key: tensor for key, tensor in trained[1].items() if key.startswith("backbone.")}
    torch.save(body, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="a backbone of this program, no network to start from") as caught:
        start_from(network(3), tmp_path / "w.pth", reset_head=False)
    assert "--set train.backbone.name=tf_efficientnet_lite0 --set train.backbone.weights=" in caught.value.hint
    model = network(3, f'train.backbone.weights="{tmp_path / "w.pth"}"', seed=1)  # as the hint says
    assert all(torch.equal(tensor, body[key]) for key, tensor in model.state_dict().items() if key in body)


def test_a_file_with_a_blank_in_its_name_is_a_word_of_the_command_that_takes_it(trained, tmp_path):
    file = tmp_path / "my w.pth"
    torch.save({key: tensor for key, tensor in trained[1].items() if key.startswith("backbone.")}, file)
    with pytest.raises(WeightsError) as caught:
        start_from(network(3), file, reset_head=False)
    assert f"--set 'train.backbone.weights={file}'" in caught.value.hint


def test_a_classifier_is_said_with_the_setting_that_takes_its_backbone(trained, tmp_path):
    body = {key: tensor for key, tensor in trained[1].items() if key.startswith("backbone.")}
    torch.save({**body, "classifier.weight": torch.zeros(2, 320, 1, 1)}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="a CAM classifier of this program, no network to start from") as caught:
        start_from(network(3), tmp_path / "w.pth", reset_head=False)
    assert "--set train.backbone.name=tf_efficientnet_lite0 --set train.backbone.weights=" in caught.value.hint
    model = network(3, f'train.backbone.weights="{tmp_path / "w.pth"}"', seed=1)  # as the hint says
    assert all(torch.equal(tensor, body[key]) for key, tensor in model.state_dict().items() if key in body)


def test_a_training_begins_with_these_weights_and_has_a_run_of_its_own(trained, tmp_path):
    prepare_toy(tmp_path / "data", images=4, val=1, size=32)
    ctx = Context(torch.device("cpu"), tmp_path / "runs")
    still = [*SMALL, f"dataset.path={tmp_path / 'data'}", "train.optim.lr=1e-12", "train.optim.weight_decay=0.0"]

    def train(preset):
        exp = open_experiment(preset, ctx.runs)
        steps = plan_train(exp, None, ctx.ui.say)
        run_steps(steps, exp, ctx)
        return steps[-1].path

    init = [f"train.init={trained[0]}", "train.reset_head=true"]
    made = train(load_preset("toy", [*still, *init]))
    ended = load_file(made / "checkpoints/step-00000001/model.safetensors")
    weights = [key for key, tensor in trained[1].items() if tensor.ndim == 4 and "classifier" not in key]
    assert weights and all(torch.allclose(ended[key], trained[1][key], atol=1e-6) for key in weights)
    assert train(load_preset("toy", still)) != made


def test_the_command_says_how_to_go_on_in_one_line(trained, tmp_path, wsss):
    prepare_toy(tmp_path / "data", images=2, val=1, size=32)
    settings = [word for setting in SMALL for word in ("--set", setting)]
    arguments = ["train", "--preset", "toy", *settings, "--data", "data", "--init", str(trained[0])]
    done = wsss(*arguments)
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert (done.returncode, done.stdout, len(errors)) == (3, "", 1)
    assert "has 3 classes, 6 are needed" in errors[0]
    assert "hint: --reset-head" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("reset_head", [False, True])
def test_a_network_of_as_many_other_classes_is_said(tmp_path, monkeypatch, reset_head):
    prepare_toy(tmp_path / "data", images=2, val=1, size=32)
    ctx = Context(torch.device("cpu"), tmp_path / "runs")
    heard = []
    monkeypatch.setattr(ctx.ui, "say", heard.append)

    def train(*settings):
        exp = open_experiment(load_preset("toy", [*SMALL, f"dataset.path={tmp_path / 'data'}", *settings]), ctx.runs)
        steps = plan_train(exp, None, ctx.ui.say)
        run_steps(steps, exp, ctx)
        return steps[-1].path

    first = train()
    record = read_json(tmp_path / "data/dataset.json")
    names = [entry["name"] for entry in record["classes"]]
    record["classes"][1]["name"], record["classes"][2]["name"] = names[2], names[1]
    write_json(tmp_path / "data/dataset.json", record)
    heard.clear()
    train(f"train.init={first}", f"train.reset_head={str(reset_head).lower()}")
    said = [line for line in heard if line.startswith(f"train.init: {first} was trained for {names[1]}, {names[2]}, ")]
    assert len(said) == (not reset_head)
