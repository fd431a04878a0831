"""Folders to give away: what is in them, and that they are taken wherever a network is."""

import hashlib
import json
import shutil

import cv2
import numpy as np
import pytest
import torch
from command import wsss as command
from torch.hub import HASH_REGEX, download_url_to_file

import wsss_cli
from wsss_cli.config.load import load_preset
from wsss_cli.config.lock import to_toml
from wsss_cli.data.sources.toy import prepare_toy
from wsss_cli.engine.checkpoint import save_checkpoint
from wsss_cli.engine.context import Context
from wsss_cli.engine.records import Inputs, write_inputs
from wsss_cli.errors import UsageError, WeightsError, WriteError
from wsss_cli.files import read_json, write_json, write_text
from wsss_cli.inference.network import Which, load_network
from wsss_cli.interchange import publish
from wsss_cli.interchange.publish import run_publish
from wsss_cli.models.build import build_segmentor

SMALL = ["train.head.aspp_channels=16", "train.head.low_channels=8", "train.head.dilations=[1,2]"]
SMALL += ["train.backbone.weights=none", "train.precision=fp32", "train.ema=0.5", "eval.scales=[1.0]"]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A data set, and a training run on it whose network is drawn, its average another one."""
    folder = tmp_path_factory.mktemp("home")
    dataset = prepare_toy(folder / "toy", images=4, val=2, size=64)
    preset = load_preset("toy", [*SMALL, f'dataset.path="{folder / "toy"}"'])
    torch.manual_seed(0)
    networks = [build_segmentor(preset.train, dataset.num_classes, torch.device("cpu"), weights=False) for _ in "ab"]
    run = folder / "runs/train-toy-1"
    write_text(run / "preset.lock.toml", to_toml(preset))
    inputs = {"dataset": str(dataset.root), "classes": dataset.classes, "colors": dataset.colors}
    further = {"dataset_name": "toy", "split_sha256": dataset.split_sha256, "teacher": "a <b>|teacher"}
    write_inputs(run, Inputs(**inputs, **further))
    write_json(run / "run.json", {"stage": "train", "state": "done", "preset": "toy"})
    save_checkpoint(run / "checkpoints", 7, networks[0], {"optimiser": torch.zeros(5)}, {}, networks[1])
    assert command(folder, "eval", "runs/train-toy-1", "--ms-flip").returncode == 0
    return folder


@pytest.fixture
def run(home):
    return home / "runs/train-toy-1"


def opened(path, which=None):
    return load_network(path, Context(torch.device("cpu"), path.parent), which or Which())


def photograph():
    return np.random.default_rng(3).integers(0, 256, (40, 56, 3), dtype=np.uint8)


def test_the_file_is_named_after_its_hash(run, tmp_path):
    result = run_publish(opened(run), run, tmp_path / "zoo")
    names = sorted(path.name for path in (tmp_path / "zoo").iterdir())
    assert names == ["README.md", "meta.json", result["file"]]
    file = tmp_path / "zoo" / result["file"]
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert (result["sha256"], result["file"]) == (digest, f"toy-{digest[:8]}.safetensors")
    assert HASH_REGEX.search(file.name)[1] == digest[:8]
    download_url_to_file(file.as_uri(), str(tmp_path / "copy"), digest[:8], progress=False)  # checks the hash
    weights = sum(value.numel() for value in opened(run).model.state_dict().values())
    assert 4 * weights <= file.stat().st_size < 4 * weights + 200_000  # and nothing of the optimiser


def test_the_network_is_the_one_of_the_run(run, tmp_path):
    before = opened(run)
    run_publish(before, run, tmp_path / "zoo")
    after = opened(tmp_path / "zoo")
    for name in ("preset", "classes", "colors", "step", "dataset", "origin", "weights", "split_sha256"):
        assert getattr(after, name) == getattr(before, name), name
    assert (after.step, after.weights) == (7, "ema")
    expected = wsss_cli.load_segmentor(run).predict(photograph())
    assert np.array_equal(wsss_cli.load_segmentor(tmp_path / "zoo").predict(photograph()), expected)
    assert len(np.unique(expected)) > 1
    raw = run_publish(opened(run, Which(weights="raw")), run, tmp_path / "raw")
    assert raw["file"] != next((tmp_path / "zoo").glob("*.safetensors")).name
    assert "not averaged" in opened(tmp_path / "raw").origin


def test_the_card_says_what_is_known(run, tmp_path):
    result = run_publish(opened(run), run, tmp_path / "a b")
    card = (tmp_path / "a b/README.md").read_text()
    scores = read_json(run / "eval.json")
    assert "| classes | 6: background, " in card and "| network | DeepLabV3+ on tf_efficientnet_lite0 |" in card
    assert "| data set | toy (train: 4 images, 4 with masks; val: 2 images, 2 with masks) |" in card
    assert "| supervision | image tags; nobody drew a mask" in card
    assert "| teacher | a <b>&#124;teacher |" in card
    assert "7 iterations (latest checkpoint), weights averaged (EMA 0.5) |" in card
    assert result["scores"] == 2
    for key, words in (("single", "single scale"), ("ms_flip", "ms+flip")):
        assert f"| val | {words} | {scores[key]['miou']:.2f} |" in card
    assert all(f"- {line}" in card for line in scores["protocol"]) and card.count("Protocol, val") == 1
    assert f"| background | {scores['ms_flip']['iou'][0]:.2f} |" in card
    assert "| license | not stated here: whoever publishes" in card
    assert f"wsss {wsss_cli.__version__}" in card and f"`{result['sha256']}`" in card
    assert "wsss infer 'a b' photos/" in card and "load_segmentor('a b')" in card


def test_scores_of_other_weights_are_not_told(run, tmp_path):
    result = run_publish(opened(run, Which(weights="raw")), run, tmp_path / "raw")
    assert result["scores"] == 0 and "None are recorded." in (tmp_path / "raw/README.md").read_text()
    step = run / "checkpoints/step-00000007"
    assert run_publish(opened(step), step, tmp_path / "step")["scores"] == 2


def test_a_data_set_that_is_gone_has_no_counts(home, tmp_path):
    folder = tmp_path / "train-toy-2"
    shutil.copytree(home / "runs/train-toy-1", folder)
    inputs = read_json(folder / "inputs.json")
    write_json(folder / "inputs.json", {**inputs, "dataset": str(tmp_path / "nowhere")})
    run_publish(opened(folder), folder, tmp_path / "zoo")
    assert "| data set | toy (its lists were not there to be counted) |" in (tmp_path / "zoo/README.md").read_text()


def test_the_hint_how_to_score_fits_what_is_there(home, tmp_path):
    shutil.copytree(home, tmp_path / "home")
    lock = tmp_path / "home/runs/train-toy-1/preset.lock.toml"
    lock.write_text(lock.read_text().replace(str(home), str(tmp_path / "home")))

    def hint():
        done = command(tmp_path / "home", "weights", "publish", "runs/train-toy-1", "--weights=raw", "--out=zoo")
        assert done.returncode == 0
        (line,) = (line for line in done.stderr.splitlines() if line.startswith("no scores of these weights"))
        return line.removeprefix("no scores of these weights are recorded: ")

    assert hint() == "wsss eval runs/train-toy-1 --weights raw, then the same command again"
    file = tmp_path / "home/toy/splits/val.csv"
    rows = [line.split(",") for line in file.read_text().splitlines()]
    file.write_text("\n".join(",".join([*row[:2], row[2] * (not at), *row[3:]]) for at, row in enumerate(rows)) + "\n")
    assert hint().startswith(
        f"the val split of {tmp_path}/home/toy has no true masks; with some (`prepare folder --masks`)"
    )
    shutil.rmtree(tmp_path / "home/toy")
    assert hint() == "wsss eval runs/train-toy-1 --data DATASET --weights raw, then the same command again"


@pytest.mark.parametrize("network", ["zoo/given", "runs/train-toy-1/checkpoints/step-00000007"])
def test_scores_of_a_folder_that_is_no_run_are_told_once_it_was_scored(home, tmp_path, network):
    shutil.copytree(home, tmp_path / "home")

    def run(*arguments):
        done = command(tmp_path / "home", *arguments)
        assert done.returncode == 0, done.stderr
        return done

    (tmp_path / "home/runs/train-toy-1/eval.json").unlink()
    run("weights", "publish", "runs/train-toy-1", "--out=zoo/given")
    hint = f"no scores of these weights are recorded: wsss eval {network}, then"
    assert hint in run("weights", "publish", network, "--out=zoo/b").stderr
    run("eval", network)
    told = run("weights", "publish", network, "--out=zoo/b", "--json")
    assert json.loads(told.stdout)["scores"] == 1 and "no scores" not in told.stderr


def test_every_command_takes_the_folder(home, tmp_path):
    def run(*arguments):
        done = command(home, *arguments)
        assert done.returncode == 0, done.stderr
        return done

    done = run("weights", "publish", "--out", "zoo/toy", "--json")
    result = json.loads(done.stdout)
    assert "train-toy-1" in done.stderr  # the newest finished one
    assert "license is yours" in done.stderr
    inspected = json.loads(run("weights", "inspect", "zoo/toy", "--json").stdout)
    assert (inspected["kind"], inspected["head"], inspected["sha256"]) == (
        "wsss-segmentor",
        "deeplabv3plus",
        result["sha256"],
    )
    assert inspected["run"].startswith("published, weak supervision")
    assert inspected["classes"] == result["classes"]
    cv2.imwrite(str(home / "photo.png"), photograph())
    run("infer", "zoo/toy", "photo.png", "--out", "a")
    run("infer", "runs/train-toy-1", "photo.png", "--out", "b")
    assert (home / "a/masks/photo.png").read_bytes() == (home / "b/masks/photo.png").read_bytes()
    scores = [
        json.loads(run("eval", network, "--ms-flip", "--json").stdout) for network in ("zoo/toy", "runs/train-toy-1")
    ]
    assert scores[0]["ms_flip"] == scores[1]["ms_flip"] and scores[0]["protocol"] == scores[1]["protocol"]
    assert (home / "zoo/toy/eval.json").is_file()
    run("export", "zoo/toy", "--out", "toy.pt")
    settings = [*SMALL, "train.crop=64", "train.batch=2", 'train.supervision="full"']
    tiny = [word for setting in settings for word in ("--set", setting)]
    run("train", "--preset", "toy", "--data", "toy", *tiny, "--iters", "1", "--init", "zoo/toy", "--device", "cpu")
    assert json.loads(run("weights", "publish", "runs/train-toy-1", "--out", "zoo/toy", "--json").stdout)["kept"]


def test_again_it_is_kept_and_new_scores_reach_the_card(run, tmp_path):
    zoo = tmp_path / "zoo"
    stored = read_json(run / "eval.json")
    run_publish(opened(run), run, zoo)
    before = {path.name: path.stat().st_mtime_ns for path in zoo.iterdir()}
    assert run_publish(opened(run), run, zoo)["kept"]
    assert before == {path.name: path.stat().st_mtime_ns for path in zoo.iterdir()}
    (zoo / "README.md").unlink()
    assert not run_publish(opened(run), run, zoo)["kept"] and (zoo / "README.md").is_file()
    try:
        write_json(run / "eval-train.json", {**stored, "split": "train", "single": {**stored["single"], "miou": 12.5}})
        again = run_publish(opened(run), run, zoo)
        assert (again["kept"], again["scores"]) == (False, 4)
        assert "| train | single scale | 12.50 |" in (zoo / "README.md").read_text()
        card = (zoo / "README.md").read_text().replace("not stated here", "CC0")
        (zoo / "README.md").write_text(card)
        (run / "eval-train.json").unlink()
        again = run_publish(opened(run), run, zoo)
        assert again["card_edited"] and (zoo / "README.md").read_text() == card
        assert len(read_json(zoo / "meta.json")["scores"]) == 2
    finally:
        (run / "eval-train.json").unlink(missing_ok=True)


def test_nothing_else_is_written_over(run, tmp_path):
    zoo = tmp_path / "zoo"
    result = run_publish(opened(run), run, zoo)
    with pytest.raises(UsageError, match=f"holds another network: {result['file']}"):
        run_publish(opened(run, Which(weights="raw")), run, zoo)
    file = zoo / result["file"]
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(UsageError, match="has changed since it was written"):
        run_publish(opened(run), run, zoo)
    with pytest.raises(WeightsError, match="is damaged"):
        opened(zoo)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/1.jpg").write_bytes(b"mine")
    with pytest.raises(UsageError, match="wsss weights publish has not made it"):
        run_publish(opened(run), run, tmp_path / "photos")
    with pytest.raises(UsageError, match="wsss weights publish has not made it"):
        run_publish(opened(run), run, run)
    with pytest.raises(WriteError):
        run_publish(opened(run), run, tmp_path / "photos/1.jpg")
    (tmp_path / "empty").mkdir()
    assert not run_publish(opened(run), run, tmp_path / "empty")["kept"]


@pytest.mark.parametrize("last", ["write_bytes", "write_json", "write_text"])
def test_a_kill_leaves_nothing_and_the_next_call_writes_the_folder(run, tmp_path, monkeypatch, last):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(publish, last, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        run_publish(opened(run), run, tmp_path / "zoo")
    assert not (tmp_path / "zoo").exists()
    run_publish(opened(run), run, tmp_path / "zoo")
    assert [path.name for path in tmp_path.iterdir()] == ["zoo"]


def test_a_folder_inside_a_run_is_no_checkpoint_of_it(home, tmp_path):
    folder = tmp_path / "train-toy-3"
    shutil.copytree(home / "runs/train-toy-1", folder)
    run_publish(opened(folder, Which(weights="raw")), folder, folder / "release/raw")
    assert opened(folder / "release/raw").weights == "raw"
