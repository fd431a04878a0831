"""Exported files against the network itself, on sizes that were not traced."""

import importlib.util
import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import wsss_cli
from wsss_cli.config.load import load_preset
from wsss_cli.config.lock import to_toml
from wsss_cli.engine.checkpoint import save_checkpoint
from wsss_cli.engine.context import Context
from wsss_cli.errors import UsageError, WeightsError
from wsss_cli.files import write_json, write_text
from wsss_cli.inference.network import load_network
from wsss_cli.interchange import export, portable
from wsss_cli.interchange.export import run_export
from wsss_cli.interchange.portable import SameConv2d
from wsss_cli.labels import voc_palette
from wsss_cli.models.build import build_segmentor

CLASSES = ("background", "cat", "dog")
SMALL = [
    "train.head.aspp_channels=16",
    "train.head.low_channels=8",
    "train.head.dilations=[1,2]",
    "train.backbone.weights=none",
]
needs_onnx = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in export.EXTRA), reason="the extra `export` is not installed"
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A training run whose weights are random."""
    path = tmp_path_factory.mktemp("runs") / "train-toy-0"
    preset = load_preset("toy", SMALL)
    torch.manual_seed(0)
    model = build_segmentor(preset.train, len(CLASSES), torch.device("cpu"))
    model.backbone.freeze_bn = False
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():  # so that every layer, and every class, has its say
        model.train()(model.backbone.normalise(torch.cat([photograph(45, 61), photograph(46, 61)[..., :45, :]])))
        logits = model.eval()(model.backbone.normalise(photograph(45, 61)))
        model.head.classifier.bias -= logits.mean((0, 2, 3))
    write_text(path / "preset.lock.toml", to_toml(preset))
    write_json(path / "inputs.json", {"dataset": "nowhere", "classes": CLASSES, "colors": voc_palette(3)})
    write_json(path / "run.json", {"stage": "train", "state": "done", "preset": "toy"})
    save_checkpoint(path / "checkpoints", 7, model, {}, {})
    return path


def network(run):
    return load_network(run, Context(torch.device("cpu"), run.parent))


def expected(run, image):
    segmentor = wsss_cli.load_segmentor(run)
    logits = segmentor.logits(segmentor.model.backbone.normalise(image))
    return F.interpolate(logits, image.shape[-2:], mode="bilinear", align_corners=False)


def relative_difference(ours, theirs):
    assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


def photograph(height, width):
    return torch.from_numpy(np.random.default_rng(height).integers(0, 256, (1, 3, height, width), dtype=np.uint8))


def test_a_run_and_its_checkpoint_are_opened(run):
    whole, one = wsss_cli.load_segmentor(run), wsss_cli.load_segmentor(str(run / "checkpoints/step-00000007"))
    assert whole.classes == one.classes == CLASSES
    x = torch.randn(1, 3, 50, 70)
    assert torch.equal(whole.logits(x), one.logits(x)) and whole.logits(x).shape == (1, 3, 13, 18)
    assert whole.network.origin == "weak supervision, 7 iterations (latest checkpoint)"
    assert one.network.origin == "weak supervision, 7 iterations (step-00000007 checkpoint)"
    assert whole.predict(np.zeros((30, 44, 3), np.uint8)).shape == (30, 44)


def test_torchscript_agrees_on_other_sizes(run, tmp_path):
    made = run_export(network(run), tmp_path / "x.pt", "torchscript", "logits")
    assert made["difference"] < 1e-5 and [check["height"] for check in made["checked"]] == [97, 160]
    metadata = {"classes": "", "origin": ""}
    loaded = torch.jit.load(tmp_path / "x.pt", _extra_files=metadata)
    assert json.loads(metadata["classes"]) == list(CLASSES)
    for size in ((33, 40), (64, 51)):
        image = photograph(*size)
        with torch.jit.optimized_execution(False):
            for given in (image, image.float()):
                scores = loaded(given)
                assert not scores.requires_grad
                assert relative_difference(scores, expected(run, image)) < 1e-4


def test_labels_are_the_argmax(run, tmp_path):
    made = run_export(network(run), tmp_path / "x.pt", "torchscript", "labels")
    assert made["difference"] < 1e-3
    image = photograph(45, 61)
    with torch.jit.optimized_execution(False):
        labels = torch.jit.load(tmp_path / "x.pt")(image)
    assert labels.dtype == torch.uint8 and labels.shape == (1, 45, 61)
    assert (labels == expected(run, image).argmax(1)).float().mean() > 0.999
    assert len(labels.unique()) > 1


@pytest.mark.slow
@needs_onnx
@pytest.mark.parametrize("output", ["labels", "logits"])
def test_onnx_agrees_on_other_sizes(run, tmp_path, output):
    import onnxruntime

    made = run_export(network(run), tmp_path / "x.onnx", "onnx", output)
    assert made["difference"] < 1e-3
    session = onnxruntime.InferenceSession(tmp_path / "x.onnx", providers=["CPUExecutionProvider"])
    assert [(given.name, given.type) for given in session.get_inputs()] == [("image", "tensor(uint8)")]
    assert json.loads(session.get_modelmeta().custom_metadata_map["classes"]) == list(CLASSES)
    image = photograph(45, 61)
    (found,) = session.run([output], {"image": image.numpy()})
    theirs = expected(run, image)
    if output == "logits":
        assert relative_difference(torch.from_numpy(found), theirs) < 1e-3
    else:
        assert found.dtype == np.uint8 and (found == theirs.argmax(1).numpy()).mean() > 0.999


def test_a_folder_in_place_of_the_file_is_refused_before_any_work(tmp_path):
    with pytest.raises(UsageError, match="is a folder"):
        run_export(None, tmp_path, "torchscript", "labels")


def test_the_same_again_is_kept_and_nothing_else_is_written_over(run, tmp_path, monkeypatch):
    out = tmp_path / "x.pt"
    (tmp_path / ".x.pt.abcd1234.part").write_bytes(b"of a kill")
    first = run_export(network(run), out, "torchscript", "labels", str(run))
    assert not first["kept"] and sorted(file.name for file in tmp_path.iterdir()) == ["x.pt", "x.pt.json"]
    record, data = json.loads((tmp_path / "x.pt.json").read_text()), out.read_bytes()
    assert (record["run"], record["bytes"], record["settings"]["output"]) == (str(run), len(data), "labels")
    monkeypatch.setattr(export, "_torchscript", None)  # nothing is done
    assert run_export(network(run), out, "torchscript", "labels") == {**first, "kept": True}
    other = network(run)
    other.model.head.classifier.bias.data += 1

    def refused(words, which=None, output="labels"):
        with pytest.raises(UsageError, match=words) as caught:
            run_export(which or network(run), out, "torchscript", output)
        assert caught.value.hint == "choose another --out, or remove the file"
        assert out.read_bytes() == data

    refused("was made with another output: see", output="logits")
    refused("was made with another weights: see", other)
    for damaged in ("{", "5", "{}", '{"settings": 3, "bytes": 1, "checked": []}'):
        (tmp_path / "x.pt.json").write_text(damaged)
        refused("nothing says what it was made from")
    (tmp_path / "x.pt.json").unlink()
    refused("nothing says what it was made from")
    (tmp_path / "x.pt.json").write_text(json.dumps(record))
    data = data[:-1]
    out.write_bytes(data)
    refused("has changed since it was made")


def test_what_a_kill_left_between_record_and_file_is_made_anew(run, tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(export, "write_bytes", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        run_export(network(run), tmp_path / "x.pt", "torchscript", "labels")
    assert [file.name for file in tmp_path.iterdir()] == ["x.pt.json"]
    assert not run_export(network(run), tmp_path / "x.pt", "torchscript", "logits")["kept"]
    assert run_export(network(run), tmp_path / "x.pt", "torchscript", "logits")["kept"]


def test_a_file_that_does_not_agree_is_not_written(run, tmp_path, monkeypatch):
    right = portable.SameConv2d._pads

    def wrong(self, size):
        before, after = right(self, size)
        return (after, before) if self.stride == 2 else (before, after)

    monkeypatch.setattr(portable.SameConv2d, "_pads", wrong)
    with pytest.raises(WeightsError, match=r"does not agree with the network: .* at \d+x\d+") as caught:
        run_export(network(run), tmp_path / "x.pt", "torchscript", "logits")
    assert "--format onnx" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_without_the_extra_one_line_says_how_to_install_it(run, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "EXTRA", ("onnx", "no_such_package_here"))
    with pytest.raises(UsageError, match=r"needs .*no_such_package_here") as caught:
        run_export(network(run), tmp_path / "x.onnx", "onnx", "labels")
    assert caught.value.hint.startswith("pip install onnx ")


@pytest.mark.parametrize(("kernel", "stride", "dilation"), [(3, 2, 1), (5, 2, 1), (3, 1, 2), (5, 1, 1), (3, 3, 1)])
def test_the_padding_is_tensorflows(kernel, stride, dilation):
    from timm.layers.conv2d_same import Conv2dSame

    conv = Conv2dSame(2, 4, kernel, stride=stride, dilation=dilation, bias=True)
    for size in ((8, 9), (10, 11), (12, 13)):
        x = torch.randn(1, 2, *size)
        torch.testing.assert_close(SameConv2d(conv)(x), conv(x))
    with pytest.raises(ValueError, match="passes over pixels"):
        SameConv2d(Conv2dSame(2, 4, 1, stride=2))
