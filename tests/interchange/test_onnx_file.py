"""ONNX files scored as networks are, and in 8 bits: with onnxruntime where it is installed, else with a stand-in."""

import importlib.machinery
import importlib.util
import json
import shutil
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from command import wsss as command

from wsss_cli.config.load import load_preset
from wsss_cli.config.lock import to_toml
from wsss_cli.data.dataset import open_dataset
from wsss_cli.data.sources.toy import prepare_toy
from wsss_cli.engine.checkpoint import save_checkpoint
from wsss_cli.engine.context import Context
from wsss_cli.engine.records import Inputs, write_inputs
from wsss_cli.errors import DataError, UsageError, WeightsError
from wsss_cli.files import read_json, write_json, write_text
from wsss_cli.inference.network import load_network
from wsss_cli.inference.onnx_file import open_onnx
from wsss_cli.interchange import export
from wsss_cli.models.build import build_segmentor
from wsss_cli.stages import int8
from wsss_cli.stages.evaluate import ScoredOn, run_eval

SMALL = ["train.head.aspp_channels=16", "train.head.low_channels=8", "train.head.dilations=[1,2]"]
SMALL += ["train.backbone.weights=none", "train.precision=fp32", "eval.scales=[1.0,1.5]"]
needs_onnx = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in export.EXTRA), reason="the extra `export` is not installed"
)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A data set, and a training run on it whose network is drawn so that several classes have their say."""
    folder = tmp_path_factory.mktemp("home")
    dataset = prepare_toy(folder / "toy", images=4, val=3, size=64)
    preset = load_preset("toy", [*SMALL, f'dataset.path="{folder / "toy"}"'])
    torch.manual_seed(0)
    model = build_segmentor(preset.train, dataset.num_classes, torch.device("cpu"), weights=False)
    model.backbone.freeze_bn = False
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 3, 64, 64), dtype=np.uint8))
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = 1.0
        model.train()(model.backbone.normalise(images))
        model.head.classifier.bias -= model.eval()(model.backbone.normalise(images)).mean((0, 2, 3))
    run = folder / "runs/train-toy-1"
    write_text(run / "preset.lock.toml", to_toml(preset))
    lists = {"dataset_name": "toy", "split_sha256": dataset.split_sha256}
    write_inputs(run, Inputs(dataset=str(dataset.root), classes=dataset.classes, colors=dataset.colors, **lists))
    write_json(run / "run.json", {"stage": "train", "state": "done", "preset": "toy"})
    save_checkpoint(run / "checkpoints", 7, model, {}, {})
    return folder


@pytest.fixture
def ctx(tmp_path):
    return Context(torch.device("cpu"), tmp_path)


class Session:
    """A stand-in for a file: the reddest class of six; labels, or ten times the redness as logits."""

    output, metadata = "labels", {}

    def __init__(self, file, options, providers):
        if isinstance(file, str) and Path(file).read_bytes() == b"damaged":
            raise RuntimeError("Protobuf parsing failed\nand more")

    def get_modelmeta(self):
        return types.SimpleNamespace(custom_metadata_map=self.metadata)

    def get_inputs(self):
        return [types.SimpleNamespace(name="image", type="tensor(uint8)")]

    def get_outputs(self):
        return [types.SimpleNamespace(name=self.output)]

    def run(self, names, inputs):
        red = np.minimum(inputs["image"][:, 0] // 43, 5)
        return [red if self.output == "labels" else 10.0 * np.eye(6, dtype=np.float32)[red].transpose(0, 3, 1, 2)]


@pytest.fixture
def stand_in(home, tmp_path, monkeypatch):
    """Makes the file x.onnx, which `Session` reads: `stand_in(output)`."""
    module = types.ModuleType("onnxruntime")
    module.__spec__ = importlib.machinery.ModuleSpec("onnxruntime", None)
    module.InferenceSession, module.SessionOptions, module.__version__ = Session, types.SimpleNamespace, "0"
    monkeypatch.setitem(sys.modules, "onnxruntime", module)
    classes = open_dataset(home / "toy").classes

    def write(output="labels", **views):
        monkeypatch.setattr(Session, "output", output)
        metadata = {"classes": json.dumps(classes), "origin": "weak supervision", "eval": json.dumps(views)}
        monkeypatch.setattr(Session, "metadata", metadata)
        (tmp_path / "x.onnx").write_bytes(b"")
        write_json(tmp_path / "x.onnx.json", {"dataset": str(home / "toy")})
        return tmp_path / "x.onnx"

    return write


def test_a_file_is_scored_as_what_it_says(stand_in, home, ctx):
    from wsss_cli.data.images import read_image
    from wsss_cli.data.masks import read_mask
    from wsss_cli.scoring.counts import Counts

    counts = Counts(6)
    for sample in open_dataset(home / "toy").split("val"):
        counts.add(np.minimum(read_image(sample.image)[..., 0] // 43, 5), read_mask(sample.mask))
    expected = counts.scores(open_dataset(home / "toy").classes)
    for output in ("labels", "logits"):
        file = stand_in(output)
        scores = run_eval(file, ctx, ms_flip=False)
        assert scores["single"]["confusion"] == expected["confusion"] and scores["single"]["miou"] == expected["miou"]
        assert scores["file"] == f"{file}.eval.json" and read_json(file.with_name("x.onnx.eval.json")) == scores
        assert "weak supervision, x.onnx in onnxruntime 0; whole image" in scores["protocol"][0]
    assert run_eval(file, ctx, ms_flip=False, on=ScoredOn(split="train"))["file"] == f"{file}.eval-train.json"
    assert "ms_flip" in run_eval(stand_in("logits", scales=[1.0]), ctx, ms_flip=True)


def test_photographs_are_resized_as_the_network_wants_them(stand_in, ctx):
    scores = run_eval(stand_in("logits", base="short", short_side=32), ctx, ms_flip=False)
    assert "scale 1 = short side 32" in scores["protocol"][0]
    assert scores["single"]["confusion"] != run_eval(stand_in("logits"), ctx, ms_flip=False)["single"]["confusion"]


def test_what_a_file_cannot_do_is_refused(stand_in, home, tmp_path, ctx):
    file = stand_in("labels")
    with pytest.raises(UsageError, match="gives labels; --ms-flip and --crf need the scores"):
        run_eval(file, ctx, ms_flip=True)
    file.with_name("x.onnx.json").unlink()
    with pytest.raises(UsageError, match=r"nothing says which data set .*x\.onnx was trained on"):
        run_eval(file, ctx, ms_flip=False)
    assert run_eval(file, ctx, ms_flip=False, on=ScoredOn(data=str(home / "toy")))["single"]["miou"] is not None
    Session.metadata["classes"] = '["background", "cat"]'
    with pytest.raises(DataError, match="other classes") as caught:
        run_eval(file, ctx, ms_flip=False, on=ScoredOn(data=str(home / "toy")))
    assert "--init" not in caught.value.hint
    del Session.metadata["classes"]
    with pytest.raises(WeightsError, match="wsss export has not written"):
        open_onnx(file)
    file.write_bytes(b"damaged")
    with pytest.raises(WeightsError, match=r"cannot be read by onnxruntime: Protobuf parsing failed \(export"):
        open_onnx(file)


def test_without_onnxruntime_one_line_says_what_to_install(tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "onnxruntime" else find(name))
    (tmp_path / "x.onnx").write_bytes(b"")
    with pytest.raises(UsageError, match="needs onnxruntime") as caught:
        open_onnx(tmp_path / "x.onnx")
    assert caught.value.hint == "pip install onnxruntime"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("eval", "x.onnx", "--gpus", "2"), "scored on the CPU by one process"),
        (("eval", "x.onnx", "--device", "cuda"), "scored on the CPU by one process"),
        (("eval", "x.onnx", "--best"), "holds one network"),
        (("eval", "x.onnx", "--shard", "1/2"), "--shard divides"),
        (("eval", "y.onnx"), "y.onnx"),
        (("export", "runs/train-toy-1", "--int8", "--out", "x8.onnx"), "--int8 needs photographs"),
        (("export", "runs/train-toy-1", "--calibrate", "toy", "--out", "x8.onnx"), "--calibrate goes with --int8"),
        (("export", "runs/train-toy-1", "--int8", "--calibrate", "toy", "--out", "x.pt"), "not torchscript"),
    ],
)
def test_options_that_do_not_go_together_are_one_line(home, arguments, words):
    (home / "x.onnx").write_bytes(b"")
    done = command(home, *arguments)
    assert done.returncode == 2 and words in done.stderr and "Traceback" not in done.stderr, done.stderr


def photographs(folder, count):
    """Some of a list, as `int8` divides them."""
    for number in range(count):
        (folder / f"{number}.jpg").write_bytes(b"")
    return int8._photographs(folder, None, Path("run"))


def test_a_folder_is_divided_into_what_is_calibrated_with_and_what_is_compared_on(tmp_path, monkeypatch):
    monkeypatch.setattr(int8, "IMAGES", 3)
    with pytest.raises(UsageError, match="has 1 photograph"):
        photographs(tmp_path, 1)
    with pytest.raises(UsageError, match="no data set and no folder"):
        int8._photographs(tmp_path / "nowhere", None, tmp_path)
    half = photographs(tmp_path, 10)
    assert [file.name for file in half.calibrate] == ["0.jpg", "2.jpg", "6.jpg"]
    assert [file.name for file in half.compare] == ["1.jpg", "3.jpg", "7.jpg"] and not half.scored


def test_photographs_that_cannot_be_read_are_passed_over(tmp_path, ctx):
    preset = load_preset("toy")
    (tmp_path / "0.jpg").write_bytes(b"")
    with pytest.raises(DataError, match="none of the photographs"):
        list(int8._inputs([tmp_path / "0.jpg"], preset, ctx))
    import cv2

    cv2.imwrite(str(tmp_path / "1.png"), np.full((8, 12, 3), (1, 2, 3), np.uint8))
    (image,) = int8._inputs([tmp_path / "0.jpg", tmp_path / "1.png"], preset, ctx)
    assert image.dtype == np.uint8 and image.shape == (1, 3, 8, 12) and image[0, :, 0, 0].tolist() == [3, 2, 1]


@pytest.mark.slow
@needs_onnx
@pytest.mark.parametrize("output", ["labels", "logits"])
def test_a_file_has_the_scores_of_its_network(home, tmp_path, ctx, output):
    run = home / "runs/train-toy-1"
    export.run_export(load_network(run, ctx), tmp_path / "x.onnx", "onnx", output)
    views = {"ms_flip": output == "logits"}
    theirs = run_eval(run, ctx, **views)
    ours = run_eval(tmp_path / "x.onnx", ctx, **views)
    for mode in ("single", "ms_flip") if output == "logits" else ("single",):
        assert ours[mode]["miou"] == pytest.approx(theirs[mode]["miou"], abs=0.05)
    assert sum(value is not None and value > 0 for value in ours["single"]["iou"]) > 1


@pytest.mark.slow
@needs_onnx
def test_8_bits_are_scored_beside_32(home, tmp_path, ctx):
    run, out = home / "runs/train-toy-1", tmp_path / "x8.onnx"
    result = int8.run_int8(load_network(run, ctx), out, "labels", home / "toy", ctx, str(run))
    figures = result["int8"]
    assert figures["images"] == 4 and figures["compared_on"] == "toy/val, 3 images with true masks"
    assert figures["float_miou"] == pytest.approx(run_eval(run, ctx, ms_flip=False)["single"]["miou"], abs=0.05)
    assert figures["loss"] == pytest.approx(figures["float_miou"] - figures["int8_miou"], abs=0.011)
    assert abs(figures["loss"]) < 5 and out.stat().st_size == figures["bytes"] < 0.5 * figures["float_bytes"]
    assert read_json(tmp_path / "x8.onnx.json")["int8"] == figures
    assert run_eval(out, ctx, ms_flip=False)["single"]["miou"] == figures["int8_miou"]
    assert "in 8 bits" in open_onnx(out).origin
    import onnx

    nodes = {node.op_type for node in onnx.load(out).graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= nodes
    again = int8.run_int8(load_network(run, ctx), out, "labels", home / "toy", ctx, str(run))
    assert again == {**result, "kept": True}
    with pytest.raises(UsageError, match="was made with another int8"):
        export.run_export(load_network(run, ctx), out, "onnx", "labels")
    with pytest.raises(UsageError, match="was made with another output"):
        int8.run_int8(load_network(run, ctx), out, "logits", home / "toy", ctx, str(run))


@pytest.mark.slow
@needs_onnx
def test_without_masks_8_bits_are_compared_with_32(home, tmp_path, ctx):
    shutil.copytree(home / "toy", tmp_path / "photos", ignore=shutil.ignore_patterns("*.json", "*.csv", "Segm*"))
    network, photographs = load_network(home / "runs/train-toy-1", ctx), tmp_path / "photos"
    result = int8.run_int8(network, tmp_path / "y.onnx", "logits", photographs, ctx)
    figures = result["int8"]
    assert 10 < figures["agreement"] <= 100 and 30 < figures["same_pixels"] <= 100  # of a network that is drawn
    assert "the float file's labels as the truth" in figures["compared_on"] and "loss" not in figures
