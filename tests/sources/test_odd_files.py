"""Files that are no plain files, and files of another kind than the one that is needed: said as what they are."""

import json
import os
import tarfile
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from wsss_cli.config.load import load_preset
from wsss_cli.data.sources.instances import read_instances
from wsss_cli.data.sources.photographs import Photographs
from wsss_cli.data.sources.table import open_table, read_text
from wsss_cli.data.sources.tags import refuse_twins
from wsss_cli.data.sources.template import write_template
from wsss_cli.engine.records import find_runs
from wsss_cli.engine.rundir import _append
from wsss_cli.errors import DataError, UsageError, WeightsError, WriteError
from wsss_cli.files import read_json
from wsss_cli.weights.load import load_state


def test_a_photograph_that_is_no_file_is_said_as_what_it_is(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    os.mkfifo(folder / "pipe.png")
    (folder / "link.jpg").symlink_to(tmp_path / "nowhere.jpg")
    photos = Photographs(folder, tmp_path)
    assert photos.why_missing("pipe.png") == "it is there, but is a pipe, a socket or a device"
    assert photos.why_missing("link.jpg") == "it is there, but is a link to a file that is not there"


def test_masks_that_are_no_files_are_counted(tmp_path, wsss):
    for name in ("photos/a.png", "photos/b.png", "masks/a.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(np.ones((30, 40), np.uint8)).save(tmp_path / name)
    (tmp_path / "masks/b.png").symlink_to("nowhere.png")
    (tmp_path / "l.csv").write_text("image,labels\na.png,cat\nb.png,cat\n")
    done = wsss("prepare", "folder", "photos", "l.csv", "--masks", "masks", "--out", "d")
    assert "1 file not taken for masks: first b.png, which is a link to a file that is not there" in (
        done.stdout + done.stderr
    )


@pytest.mark.parametrize("read", [open_table, read_text, read_json])
def test_a_named_pipe_is_refused_where_opening_it_would_wait_for_ever(tmp_path, read):
    os.mkfifo(tmp_path / "l.csv")
    with pytest.raises(DataError, match=r"l.csv is a named pipe"):
        read(tmp_path / "l.csv")


def test_presets_and_weights_that_are_pipes_are_not_said_to_be_missing(tmp_path):
    os.mkfifo(tmp_path / "p.toml")
    with pytest.raises(UsageError, match=r"p.toml is no plain file"):
        load_preset(str(tmp_path / "p.toml"))
    with pytest.raises(WeightsError, match=r"p.toml are no plain file"):
        load_state(tmp_path / "p.toml")


def test_a_pipe_in_place_of_a_record_does_not_break_the_list(tmp_path):
    (tmp_path / "train-a").mkdir()
    os.mkfifo(tmp_path / "train-a/run.json")
    assert find_runs(tmp_path, None) == []


def test_folders_of_splits_are_no_classes(tmp_path):
    for name in ("train/cat/1.png", "train/dog/2.png", "Test/cat/3.png"):
        (tmp_path / "photos" / name).parent.mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "photos" / name)
    with pytest.raises(DataError, match=r"are splits, not classes: Test, train \(give one of them.*photos/Test\)"):
        write_template(tmp_path / "photos", tmp_path / "t.csv", from_folders=True, check=lambda: None)
    assert not (tmp_path / "t.csv").exists()
    written = write_template(tmp_path / "photos/train", tmp_path / "t.csv", from_folders=True, check=lambda: None)
    assert written.classes == {"cat": 1, "dog": 1}


@pytest.mark.parametrize("sign", ["\u200b", "\u200e", "\u00ad", "\ufeff", "\u2060"])
def test_tags_that_differ_by_a_sign_that_nobody_sees_are_refused(sign):
    with pytest.raises(DataError, match=r"differ by case or spaces \(or signs of no width\) only: 'cat' .* 'cat\\"):
        refuse_twins({"cat": (2, 2), f"cat{sign}": (3, 1), "dog": (4, 1)}, "t.csv")


def test_json_of_another_kind_is_said_as_what_it_is(tmp_path):
    file = tmp_path / "instances_train2014.json"
    top = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 8, "height": 8}],
        "categories": [{"id": 1, "name": "cat"}],
    }
    for content, says in (
        ([{"image_id": 1, "category_id": 1, "score": 1.0}], "is a list, as results of a network are"),
        ({**top, "annotations": [{"image_id": 1, "segments_info": []}]}, "holds panoptic segments, not outlines"),
        ({**top, "annotations": [{"id": 1, "image_id": 1, "caption": "a cat"}]}, "holds captions, not outlines"),
    ):
        file.write_text(json.dumps(content))
        with pytest.raises(DataError, match=says) as caught:
            read_instances(file)
        assert "cut off" not in caught.value.hint


def test_a_folder_that_is_gone_is_not_a_full_disk(tmp_path):
    with pytest.raises(WriteError, match="its folder is gone"):
        _append(tmp_path / "gone/metrics.jsonl", "{}\n")


@pytest.mark.filterwarnings("ignore")
def test_archives_of_another_kind_are_not_said_to_be_damaged(tmp_path, recwarn):
    np.savez(tmp_path / "w.npz", a=np.ones(3))
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        archive.writestr("a.txt", "a")
    with tarfile.open(tmp_path / "net.pth.tar", "w") as archive:
        archive.add(tmp_path / "w.npz", "net.pth")
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "jit.pt")
    (tmp_path / "net.onnx").write_bytes(b"\x08\x0a\x12\x07pytorch\x1a\x062.14.1:\x05\x0a\x03")
    (tmp_path / "net.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(40))
    for name, says in (
        ("net.onnx", "a network as ONNX, as `wsss export` writes, not a state dict"),
        ("net.h5", "HDF5, as Keras writes, not a state dict"),
        ("w.npz", r"arrays of NumPy \(.npz\), not a state dict"),
        ("photos.zip", "a zip archive that torch has not written, not a state dict"),
        ("net.pth.tar", "a tar archive, not a state dict"),
        ("jit.pt", "a network as TorchScript, as `wsss export` writes, not a state dict"),
    ):
        with pytest.raises(WeightsError, match=f"{name} are {says}") as caught:
            load_state(tmp_path / name)
        assert ("name the run" in caught.value.hint) == ("export" in says)
        assert caught.value.hint.startswith("unpack it") == ("archive" in says)
        assert ("torch.from_numpy" in caught.value.hint) == ("NumPy" in says)


@pytest.mark.parametrize("held", [{"a.b": np.ones(3)}, {"state_dict": {"a.b": np.ones(3)}, "epoch": 3}, [np.ones(3)]])
def test_arrays_in_place_of_tensors_are_said_to_be_that(tmp_path, held):
    torch.save(held, tmp_path / "net.pth")
    with pytest.raises(WeightsError, match="hold arrays of NumPy, not tensors") as caught:
        load_state(tmp_path / "net.pth")
    assert "torch.from_numpy" in caught.value.hint


def test_a_checkpoint_that_is_cut_off_has_not_been_downloaded(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"{")
    with pytest.raises(WeightsError, match="truncated or damaged") as caught:
        load_state(tmp_path / "model.safetensors")
    assert "download the file again" in caught.value.hint
    (tmp_path / "meta.json").write_text("{}")
    with pytest.raises(WeightsError) as caught:
        load_state(tmp_path / "model.safetensors")
    assert caught.value.hint.startswith("remove this checkpoint folder and run its training again")


@pytest.mark.parametrize(
    "words",
    [
        ("export", "--format", "torchscript", "--out", "new/"),
        ("report", "--out", "new/"),
        ("eval", "--pred", "d", "--truth", "d", "--num-classes", "2", "--confusion", "d"),
        ("prepare", "template", "d", "--out", "new/"),
    ],
)
def test_a_folder_in_place_of_a_file_to_write_is_refused_and_no_file_of_its_name_written(tmp_path, wsss, words):
    (tmp_path / "d").mkdir()
    done = wsss(*words)
    assert done.returncode == 2
    assert f"error: {words[-1]} is a folder\nhint: give the name of a file, in it or elsewhere\n" in done.stderr
    assert not (tmp_path / "new").exists()
