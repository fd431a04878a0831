"""Every head trains, goes on where it was stopped, is scored, shown in the table, exported and started from."""

import importlib.util
import json
from typing import get_args

import pytest
import torch
from safetensors.torch import load_file

import wsss_cli
from wsss_cli.config.heads import TITLES, Head
from wsss_cli.config.load import load_preset
from wsss_cli.data.sources.toy import prepare_toy
from wsss_cli.engine.context import Context, Silent
from wsss_cli.errors import Preempted, WeightsError
from wsss_cli.inference.network import load_network
from wsss_cli.interchange import export
from wsss_cli.interchange.export import run_export
from wsss_cli.interchange.import_mmseg import run_inspect
from wsss_cli.models.build import build_segmentor
from wsss_cli.scoring.results import run_row
from wsss_cli.stages.evaluate import run_eval
from wsss_cli.stages.pipeline import run_steps
from wsss_cli.stages.plan import open_experiment, plan_train
from wsss_cli.stages.train import start_from

KINDS = [variant.model_fields["kind"].default for variant in get_args(get_args(Head)[0])]
BACKBONES = {"deeplabv3plus": "test_efficientnet", "fcn": "test_resnet"}  # timm's smallest
NARROW = {"deeplabv3plus": ["aspp_channels=8", "low_channels=4", "dilations=[1,2]"]}
SMALL = [
    *("train.supervision=full", "train.backbone.weights=none", "train.backbone.frozen_stages=0"),
    *("train.backbone.output_stride=32", "train.backbone.freeze_bn=false", "train.precision=fp32"),
    *("train.iters=3", "train.batch=2", "train.crop=32", "train.data_workers=0"),
    *("train.log_interval=1", "train.checkpoint_interval=2", "eval.scales=[1.0]"),
]


class StopsAt(Silent):
    """Asks a training to stop at its first log line."""

    def __init__(self):
        self.stop = None

    def training_progress(self, title, iters):
        return self

    def __enter__(self):
        return lambda event: setattr(self.stop, "signal", 15)

    def __exit__(self, *_):
        return None


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data")
    prepare_toy(path, images=4, val=2, size=40)
    return path


def configured(kind, data):
    head = [f"train.head.{setting}" for setting in NARROW.get(kind, ["channels=8"])]
    backbone = f"train.backbone.name={BACKBONES.get(kind, 'test_convnext')}"
    return load_preset("toy", [*SMALL, f"dataset.path={data}", f"train.head.kind={kind}", *head, backbone])


def train(preset, ctx):
    exp = open_experiment(preset, ctx.runs)
    steps = plan_train(exp, None, ctx.ui.say)
    run_steps(steps, exp, ctx)
    return steps[-1].path


@pytest.fixture(scope="module", params=KINDS)
def trained(request, data, tmp_path_factory):
    """(kind, its preset, a finished run)."""
    preset = configured(request.param, data)
    ctx = Context(torch.device("cpu"), tmp_path_factory.mktemp("runs"))
    return request.param, preset, train(preset, ctx)


def weights(run):
    return load_file(run / "checkpoints/step-00000003/model.safetensors")


def test_a_stopped_training_goes_on_to_the_same_bits(trained, tmp_path):
    _, preset, run = trained
    stops = StopsAt()
    ctx = Context(torch.device("cpu"), tmp_path, ui=stops)
    stops.stop = ctx.stop
    with pytest.raises(Preempted):
        train(preset, ctx)
    again = train(preset, Context(torch.device("cpu"), tmp_path))
    assert len(json.loads((again / "run.json").read_text())["attempts"]) == 2
    expected, found = weights(run), weights(again)
    assert all(torch.equal(found[key], tensor) for key, tensor in expected.items())


def test_it_is_scored_and_in_the_table(trained):
    kind, _, run = trained
    scores = run_eval(run, Context(torch.device("cpu"), run.parent), ms_flip=True)
    row = run_row(run)
    assert (row["method"], row["miou"]) == (TITLES[kind], scores["single"]["miou"])
    assert row["miou_ms_flip"] is not None


def test_a_checkpoint_says_what_it_holds(trained, data, tmp_path):
    kind, preset, run = trained
    meta = json.loads((run / "checkpoints/step-00000003/meta.json").read_text())
    assert [meta[key] for key in ("kind", "head", "backbone")] == ["segmentor", kind, preset.train.backbone.name]
    shown = run_inspect(run)
    assert (shown["title"], shown["head"]) == (f"a {TITLES[kind]} of this program", kind)
    assert (shown["num_classes"], shown["auxiliary_head"]) == (6, True)
    torch.manual_seed(1)
    model = build_segmentor(preset.train, 6, torch.device("cpu"))
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    start_from(model, run, reset_head=True)
    fresh = model.classifier_keys()
    assert len(fresh) == 4  # weight and bias, of the head and of the auxiliary head
    assert all(torch.equal(model.state_dict()[key], before[key]) for key in fresh)
    assert torch.equal(model.state_dict()["aux.conv.conv.weight"], weights(run)["aux.conv.conv.weight"])
    other = next(name for name in KINDS if name != kind)
    with pytest.raises(WeightsError, match=f"train.head.kind is {other}, not {kind}"):
        start_from(build_segmentor(configured(other, data).train, 6, torch.device("cpu")), run, reset_head=True)


FORMATS = [
    "torchscript",
    pytest.param(
        "onnx",
        marks=[
            pytest.mark.slow,
            pytest.mark.skipif(
                any(importlib.util.find_spec(name) is None for name in export.EXTRA),
                reason="the extra `export` is not installed",
            ),
        ],
    ),
]


@pytest.mark.parametrize("form", FORMATS)
def test_its_export_agrees_with_it(trained, tmp_path, form):
    _, _, run = trained
    network = load_network(run, Context(torch.device("cpu"), run.parent))
    made = run_export(network, tmp_path / "network", form, "logits")
    assert made["difference"] < 1e-4
    print(form, made["difference"])


def test_it_is_opened_from_python(trained):
    kind, _, run = trained
    network = wsss_cli.load_segmentor(run)
    stride = 32 if kind == "fcn" else 4
    logits = network.logits(torch.randn(1, 3, 70, 97))
    assert logits.shape == (1, 6, -(-70 // stride), -(-97 // stride))
