import argparse
import collections
import io
import os
import pickle
import shlex
import zipfile
from pathlib import PurePosixPath

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from wsss_cli.errors import WeightsError
from wsss_cli.models.backbones import build_backbone
from wsss_cli.weights.load import (
    efficientnet_lite_names,
    load_into,
    load_state,
    mmseg_key_map,
    not_finite,
    read_checkpoint,
)
from wsss_cli.weights.tables import without_prefix, without_wrapper

STATE = {"weight": torch.arange(6.0).view(2, 3), "bias": torch.tensor([1.0, 2.0])}


def assert_same(state):
    assert sorted(state) == sorted(STATE)
    assert all(torch.equal(state[key], STATE[key]) for key in STATE)


@pytest.mark.parametrize("wrap", [None, "state_dict", "model"])
def test_torch_files_are_read_and_unwrapped(tmp_path, wrap):
    torch.save({wrap: STATE, "meta": {"epoch": 3}} if wrap else STATE, tmp_path / "w.pth")
    assert_same(load_state(tmp_path / "w.pth"))


def test_legacy_torch_files_are_read(tmp_path):
    torch.save(STATE, tmp_path / "w.pt", _use_new_zipfile_serialization=False)
    assert_same(load_state(str(tmp_path / "w.pt")))


def test_safetensors_are_read(tmp_path):
    save_file(STATE, tmp_path / "w.safetensors")
    assert_same(load_state(tmp_path / "w.safetensors"))


def test_what_is_not_a_tensor_is_left_out(tmp_path):
    torch.save({**STATE, "epoch": 3}, tmp_path / "w.pth")
    assert_same(load_state(tmp_path / "w.pth"))


class Hostile:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def plain_pickle(protocol):
    return lambda value, path: path.write_bytes(pickle.dumps(value, protocol))


def legacy(value, path):
    torch.save(value, path, _use_new_zipfile_serialization=False)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol 4")
@pytest.mark.parametrize("save", [torch.save, legacy, plain_pickle(0), plain_pickle(2), plain_pickle(4)])
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_a_hostile_pickle_is_refused_and_not_run(tmp_path, save, suffix):
    marker, path = tmp_path / "ran", tmp_path / f"w.{suffix}"
    save({"state_dict": {**STATE, "x": Hostile(marker)}}, path)
    with pytest.raises(WeightsError) as caught:
        load_state(path)
    assert not marker.exists()
    assert str(path) in caught.value.message and caught.value.hint
    assert "refused" in caught.value.message or suffix == "safetensors"
    with pytest.raises(WeightsError):
        load_state(path)
    assert not marker.exists()
    # the file does run when it is unpickled without care: the test would see it
    if save is not torch.save:
        return
    with zipfile.ZipFile(path) as archive:
        data = archive.read(next(name for name in archive.namelist() if name.endswith("data.pkl")))

    class Careless(pickle.Unpickler):
        def persistent_load(self, pid):
            return None

        def find_class(self, module, name):
            return super().find_class(module, name) if name == "mkdir" else lambda *args: {}

    Careless(io.BytesIO(data)).load()
    assert marker.exists()


def test_paths_and_containers_beside_weights_are_left_untouched(tmp_path):
    history = collections.defaultdict(list, a=[1])
    args = argparse.Namespace(out=PurePosixPath("/a/b"), kind=dict)
    torch.save({"state_dict": STATE, "history": history, "args": args}, tmp_path / "w.pth")
    checkpoint = read_checkpoint(tmp_path / "w.pth")
    assert_same(checkpoint.state)
    assert {"builtins.list", "builtins.dict", "argparse.Namespace"} < set(checkpoint.objects)


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
@pytest.mark.parametrize("keep", [0, 1, 10, 0.5, 0.95])
def test_a_truncated_file_is_named(tmp_path, kind, keep):
    path = tmp_path / ("w.safetensors" if kind == "safetensors" else "w.pth")
    state = {"weight": torch.zeros(500, 3)}
    if kind == "safetensors":
        save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=kind == "zip")
    data = path.read_bytes()
    path.write_bytes(data[: keep if isinstance(keep, int) else int(keep * len(data))])
    with pytest.raises(WeightsError) as caught:
        load_state(path)
    assert str(path) in caught.value.message and "refused" not in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("value", [3, [1, 2], {}, {"state_dict": {}}, {"epoch": 1}])
def test_a_file_without_weights_is_refused(tmp_path, value):
    torch.save(value, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"hold"):
        load_state(tmp_path / "w.pth")


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    for path, says in ((tmp_path / "no.pth", "do not exist"), (tmp_path, "are a folder")):
        with pytest.raises(WeightsError, match=says):
            load_state(path)


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"<!DOCTYPE html><html>Sign in</html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "a pointer of Git LFS"),
        (b"hello, weights\n", "text"),
        (b"", "empty"),
    ],
)
@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_what_was_saved_in_place_of_weights_is_named(tmp_path, name, data, kind):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(WeightsError, match=f"{name} is no weight file: it is {kind}") as caught:
        load_state(tmp_path / name)
    assert "download the file again" in caught.value.hint


@pytest.mark.parametrize("name", ["model-00002-of-00003.safetensors", "model.safetensors.index.json"])
def test_a_part_of_weights_in_several_files_is_called_that(tmp_path, name):
    save_file(STATE, tmp_path / name)
    with pytest.raises(WeightsError, match="is a part of weights that lie in several files") as caught:
        load_state(tmp_path / name)
    assert "save_file" in caught.value.hint
    save_file(STATE, tmp_path / "model-00001-of-00001.safetensors")
    assert_same(load_state(tmp_path / "model-00001-of-00001.safetensors"))


def test_load_into_loads():
    layer = nn.Linear(3, 2)
    load_into(layer, STATE, "here")
    assert_same(layer.state_dict())


def test_load_into_names_keys_and_shapes_and_changes_nothing():
    layer = nn.Linear(3, 2)
    before = {key: value.clone() for key, value in layer.state_dict().items()}
    wrong = {"weight": torch.zeros(2, 4), "gamma": torch.zeros(1)}
    with pytest.raises(WeightsError) as caught:
        load_into(layer, wrong, "file.pth")
    assert caught.value.message == (
        "weights file.pth do not fit the network of these settings: 1 missing (bias); 1 unknown (gamma); "
        "1 of another shape (weight is [2, 4], not [2, 3])"
    )
    assert all(torch.equal(before[key], value) for key, value in layer.state_dict().items())


def test_batch_counters_may_be_missing():
    norm = nn.BatchNorm2d(2)
    state = {key: value + 1 for key, value in norm.state_dict().items() if key != "num_batches_tracked"}
    load_into(norm, state, "here")
    assert norm.weight.tolist() == [2.0, 2.0]
    del state["running_var"]
    with pytest.raises(WeightsError, match="running_var"):
        load_into(norm, state, "here")


def test_efficientnet_lite_names():
    state = {
        "_conv_stem.weight": 0, "_bn0.bias": 1, "_blocks.0._depthwise_conv.weight": 2, "_blocks.0._bn1.bias": 3,
        "_blocks.0._project_conv.weight": 4, "_blocks.0._bn2.bias": 5, "_blocks.1._expand_conv.weight": 6,
        "_blocks.1._bn0.bias": 7, "_blocks.1._depthwise_conv.weight": 8, "_blocks.1._bn1.bias": 9,
        "_blocks.1._project_conv.weight": 10, "_blocks.1._bn2.bias": 11, "_conv_head.weight": 12, "_bn1.bias": 13,
        "_fc.weight": 14,
    }  # fmt: skip
    assert efficientnet_lite_names(state, {0: "blocks.0.0", 1: "blocks.1.0"}) == {
        "conv_stem.weight": 0, "bn1.bias": 1, "blocks.0.0.conv_dw.weight": 2, "blocks.0.0.bn1.bias": 3,
        "blocks.0.0.conv_pw.weight": 4, "blocks.0.0.bn2.bias": 5, "blocks.1.0.conv_pw.weight": 6,
        "blocks.1.0.bn1.bias": 7, "blocks.1.0.conv_dw.weight": 8, "blocks.1.0.bn2.bias": 9,
        "blocks.1.0.conv_pwl.weight": 10, "blocks.1.0.bn3.bias": 11, "conv_head.weight": 12, "bn2.bias": 13,
        "classifier.weight": 14,
    }  # fmt: skip


@pytest.mark.parametrize("key", ["_other.weight", "_blocks.2._bn1.bias", "_blocks.0._se_reduce.weight"])
def test_an_efficientnet_key_without_a_place_is_named(key):
    with pytest.raises(WeightsError, match=f"no place for {key}"):
        efficientnet_lite_names({key: torch.zeros(1)}, {0: "blocks.0.0"})


def test_a_network_of_another_family_has_no_mmseg_names():
    with pytest.raises(WeightsError, match="weight has no name"):
        mmseg_key_map(nn.Linear(1, 1))


# -- where in a file the weights are -----------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["state_dict", "model", "teacher", "state_dict_ema", "model_state", "checkpoint/net"])
def test_weights_are_found_under_any_key(tmp_path, key):
    value = STATE
    for name in reversed(key.split("/")):
        value = {name: value, "epoch": 3, "optimizer": {"state": {0: {"m": torch.ones(1)}}, "m": torch.ones(1)}}
    torch.save(value, tmp_path / "w.pth")
    checkpoint = read_checkpoint(tmp_path / "w.pth")
    assert_same(checkpoint.state)
    assert checkpoint.where == key


def test_of_several_networks_one_is_to_be_chosen(tmp_path):
    path = tmp_path / "both.pth"
    other = {key: tensor + 1 for key, tensor in STATE.items()}
    torch.save({"model": STATE, "model_ema": other, "epoch": 1}, path)
    with pytest.raises(
        WeightsError, match=r"several networks: 'model' \(2 tensors\), 'model_ema' \(2 tensors\)"
    ) as caught:
        load_state(path)
    assert caught.value.hint == f"choose one: {path}:model or {path}:model_ema"
    assert_same(load_state(f"{path}:model"))
    assert torch.equal(load_state(f"{path}:model_ema")["weight"], other["weight"])
    torch.save({"model": STATE, "a b": {"state_dict": other}}, tmp_path / "a 1.pth")
    with pytest.raises(WeightsError) as caught:
        load_state(tmp_path / "a 1.pth")
    ways = shlex.split(caught.value.hint.removeprefix("choose one: "))
    assert ways == [f"{tmp_path}/a 1.pth:model", "or", f"{tmp_path}/a 1.pth:a b/state_dict"]
    assert torch.equal(load_state(ways[2])["weight"], other["weight"])
    with pytest.raises(WeightsError, match="have no part 'ema'") as caught:
        load_state(f"{path}:ema")
    assert "model, model_ema" in caught.value.hint


def test_a_part_may_be_what_keys_begin_with(tmp_path):
    path = tmp_path / "moco.pth"
    queries = {f"module.encoder_q.{key}": tensor for key, tensor in STATE.items()}
    keys = {f"module.encoder_k.{key}": tensor + 1 for key, tensor in STATE.items()}
    torch.save({"state_dict": {**queries, **keys, "module.queue": torch.zeros(2)}}, path)
    assert_same(load_state(f"{path}:encoder_q"))


def test_a_file_whose_name_has_a_colon_is_a_file(tmp_path):
    torch.save(STATE, tmp_path / "w.pth")
    torch.save({key: tensor + 1 for key, tensor in STATE.items()}, tmp_path / "w.pth:model")
    assert torch.equal(load_state(tmp_path / "w.pth:model")["weight"], STATE["weight"] + 1)
    with pytest.raises(WeightsError, match=r"no\.pth:model do not exist"):
        load_state(tmp_path / "no.pth:model")


def test_what_all_keys_begin_with_is_passed_over():
    state = {f"module.encoder_q.{key}": tensor for key, tensor in STATE.items()}
    assert_same(without_prefix(state, STATE))
    assert without_prefix(state, ["encoder_q.weight"]).keys() == {"encoder_q.weight", "encoder_q.bias"}
    assert without_prefix({"a.b": torch.ones(1), "a": torch.ones(1)}, STATE).keys() == {"a.b", "a"}
    assert without_prefix({}, STATE) == {}


def test_files_are_read_by_their_content(tmp_path):
    save_file(STATE, tmp_path / "w.pth")
    assert_same(load_state(tmp_path / "w.pth"))
    torch.save(STATE, tmp_path / "w.safetensors")
    assert_same(load_state(tmp_path / "w.safetensors"))
    torch.save(STATE, tmp_path / "old.safetensors", _use_new_zipfile_serialization=False)
    assert_same(load_state(tmp_path / "old.safetensors"))


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float8_e5m2])
def test_numbers_that_are_not_finite_are_named(tmp_path, number, dtype):
    weight = STATE["weight"].clone()
    weight[1, 2] = number
    torch.save({**STATE, "weight": weight.to(dtype), "steps": torch.tensor(3)}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"not finite, in 1 of 3 tensors: weight") as caught:
        load_state(tmp_path / "w.pth")
    assert "diverged" in caught.value.hint
    assert not_finite(read_checkpoint(tmp_path / "w.pth").state) == ["weight"]


def test_a_network_that_was_saved_as_an_object_is_said_in_words(tmp_path):
    for value in (nn.Linear(3, 2), {"model": nn.Linear(3, 2), "epoch": 3}):
        torch.save(value, tmp_path / "w.pth")
        with pytest.raises(WeightsError, match="a whole network as an object") as caught:
            load_state(tmp_path / "w.pth")
        assert "Inert" not in caught.value.message and "state_dict()" in caught.value.hint


def test_keys_of_a_file_without_tensors_are_named(tmp_path):
    torch.save({"epoch": 3, "arch": "vit"}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"hold no tensor under their keys \(epoch, arch\)"):
        load_state(tmp_path / "w.pth")


def test_what_torch_wraps_networks_in_is_passed_over_in_names():
    state = {"_orig_mod.module.net._orig_mod.conv.weight": 1, "_orig_mod.module.net._orig_mod.conv.bias": 2}
    assert without_wrapper(state) == {"net.conv.weight": 1, "net.conv.bias": 2}
    assert without_wrapper({"module._fsdp_wrapped_module.a._checkpoint_wrapped_module.b": 1}) == {"a.b": 1}
    assert without_wrapper({"my_orig_mod.a": 1}) == {"my_orig_mod.a": 1}


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.bool, torch.complex64])
def test_numbers_of_a_quantised_network_are_not_taken_for_its_weights(dtype):
    layer = nn.Linear(3, 2)
    before = layer.weight.clone()
    with pytest.raises(WeightsError, match=r"1 not floating point \(weight is (u?int8|bool|complex64)\)"):
        load_into(layer, {"weight": torch.ones(2, 3).to(dtype), "bias": torch.ones(2)}, "w.pth")
    assert torch.equal(layer.weight, before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_floating_point_of_any_width_is_taken(dtype):
    norm = nn.BatchNorm1d(2)
    load_into(norm, {name: tensor.to(dtype) for name, tensor in norm.state_dict().items()}, "w.pth")
    assert norm.weight.dtype == torch.float32
    assert norm.num_batches_tracked.dtype == torch.int64


@pytest.mark.parametrize(
    ("form", "words"),
    [
        (lambda t: t.to_sparse(), "weight is sparse (sparse_coo)"),
        (lambda t: t.to("meta"), "weight is a shape without numbers (on the device meta)"),
        (lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8), "weight is quantised (qint8)"),
    ],
)
@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
def test_tensors_that_are_not_plain_are_named(tmp_path, form, words):
    torch.save({**STATE, "weight": form(STATE["weight"])}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="1 of 2 tensors in a form that cannot be used") as raised:
        load_state(tmp_path / "w.pth")
    assert words in raised.value.message


def test_of_two_networks_of_which_one_is_wrapped_none_is_made_of_both():
    both = {"a.weight": torch.zeros(1), "_orig_mod.a.weight": torch.ones(1)}
    assert without_wrapper(both).keys() == both.keys()
    assert without_wrapper({"_orig_mod.a.weight": torch.ones(1)}).keys() == {"a.weight"}


def test_of_a_backbone_that_a_file_has_twice_the_parts_are_named(tmp_path):
    """As MoCo's checkpoints have it: the same names below encoder_q and encoder_k."""
    plain = build_backbone("resnet18", output_stride=32, weights="none").net.state_dict()
    both = {f"module.{part}.{key}": tensor for part in ("encoder_q", "encoder_k") for key, tensor in plain.items()}
    torch.save({"state_dict": {**both, "module.queue": torch.zeros(4, 2)}}, tmp_path / "moco.pth")
    with pytest.raises(WeightsError, match="several networks: encoder_q, encoder_k") as caught:
        build_backbone("resnet18", output_stride=32, weights=str(tmp_path / "moco.pth"))
    assert caught.value.hint == "choose one: FILE:encoder_q or FILE:encoder_k"
    build_backbone("resnet18", output_stride=32, weights=f"{tmp_path / 'moco.pth'}:encoder_q")
