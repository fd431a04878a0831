"""`wsss weights`, `wsss export`, and imported directories given to `wsss infer`, through the real process."""

import json
from ast import literal_eval
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from command import wsss

from wsss_cli.data.masks import read_mask
from wsss_cli.files import read_json

ROOT = Path(__file__).resolve().parents[2]
KEYS = {
    key: literal_eval(shape)
    for key, shape, _ in (
        line.split("\t") for line in (ROOT / "tests/golden/mmseg_r50_state_dict.txt").read_text().splitlines()
    )
}


def hollow(key, shape):
    counter = key.endswith("num_batches_tracked")
    # a variance of one, and else zeros: class 3 wins by its bias
    value = torch.zeros((), dtype=torch.int64) if counter else torch.ones(()) if "var" in key else torch.zeros(())
    return value.expand(shape)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("home")
    state = {f"module.{key}": hollow(key, shape) for key, shape in KEYS.items()}
    state["module.decode_head.conv_seg.bias"] = torch.nn.functional.one_hot(torch.tensor(3), 21).float()
    state["module.extra.scale"] = torch.ones(2)
    torch.save({"state_dict": state, "meta": {"mmseg_version": "0.11.0"}}, folder / "r50.pth")
    done = wsss(folder, "weights", "import-mmseg", "r50.pth", "--out", "zoo")
    assert done.returncode == 0, done.stderr
    torch.save({f"ema.{key.removeprefix('module.')}": value for key, value in state.items()}, folder / "ema.pth")
    psp = {key.replace("aspp_modules", "psp_modules"): value for key, value in state.items()}
    torch.save({"state_dict": psp}, folder / "psp.pth")
    (folder / "shown.txt").write_text(done.stdout)
    return folder


def test_import_shows_a_table_of_its_keys_and_writes_the_directory(home):
    lines = (home / "shown.txt").read_text().splitlines()
    assert lines[0] == "DeepLabV3+ on resnet50c, 21 classes (VOC, by their number), with auxiliary head"
    rows = {line.split()[0]: line.split()[1:] for line in lines if line}
    assert rows["backbone.stem"] == ["18", "0", "0"]
    assert rows["all"] == [str(len(KEYS)), "0", "1"]
    assert "left over: extra.scale" in lines
    assert "prefix 'module.' taken off" in lines
    meta = read_json(home / "zoo/meta.json")
    assert meta["keys"]["used"]["decode_head.conv_seg.bias"] == "head.classifier.bias"


def test_infer_takes_an_imported_directory(home):
    cv2.imwrite(str(home / "photo.png"), np.zeros((24, 26, 3), np.uint8))  # 512x555 for the network
    done = wsss(home, "infer", "zoo", "photo.png", "--out", "predicted", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["images"] == 1
    mask = read_mask(home / "predicted/masks/photo.png")
    assert mask.shape == (24, 26) and (mask == 3).all()


def test_inspect_prints_what_the_file_is(home):
    shown = wsss(home, "weights", "inspect", "r50.pth")
    assert shown.returncode == 0
    assert "MMSegmentation's DeepLabV3+ on ResNet-50 with a deep stem" in shown.stdout
    assert "wsss weights import-mmseg r50.pth --out DIR" in shown.stdout
    found = json.loads(wsss(home, "weights", "inspect", "zoo", "--json").stdout)
    assert (found["kind"], found["run"]) == ("wsss-segmentor", "imported from r50.pth")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["weights", "import-mmseg", "r50.pth", "--out", "x", "--classes", "5"], 3, "has 21 classes, not 5"),
        (["weights", "import-mmseg", "ema.pth", "--out", "x"], 3, "every key begins with 'ema'"),
        (["weights", "import-mmseg", "psp.pth", "--out", "x"], 3, "missing (decode_head.aspp_modules.0.conv.weight, "),
        (["weights", "import-mmseg", "none.pth", "--out", "x"], 3, "none.pth do not exist"),
        (["weights", "inspect", "shown.txt"], 3, "shown.txt is no weight file: it is text"),
        (["weights", "import-mmseg", "r50.pth", "--out", "."], 2, "is no imported directory"),
        (["export", "none", "--format", "torchscript", "--out", "x.pt"], 2, "none is no run directory"),
    ],
)
def test_a_failure_is_one_line(home, arguments, code, words):
    done = wsss(home, *arguments)
    assert done.returncode == code, done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and words in errors[0]
    assert "Traceback" not in done.stderr and done.stdout == ""
    assert ("--reset-head" in done.stderr) == ("--classes" in arguments)


def test_export_writes_a_file_and_prints_the_differences(home):
    done = wsss(home, "export", "zoo", "--format", "torchscript", "--out", "r50.pt")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"{size}: pixels that differ: 0.00e+00" for size in ("97x130", "160x64")]
    assert "short side of 512" in done.stderr
    assert (torch.jit.load(home / "r50.pt")(torch.zeros(1, 3, 20, 22, dtype=torch.uint8)) == 3).all()
    again = wsss(home, "export", "zoo", "--format", "torchscript", "--out", "r50.pt")
    assert (again.returncode, again.stdout) == (0, done.stdout) and again.stderr.splitlines()[
        -1
    ] == "already there: r50.pt"
    other = wsss(home, "export", "zoo", "--format", "torchscript", "--out", "r50.pt", "--output", "logits", "--json")
    assert other.returncode == 2 and "made with another output" in json.loads(other.stdout)["error"]
