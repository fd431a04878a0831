"""What newcomers meet: mistakes that are easily made, and the line that says what was meant."""

import json
import re
import shlex
from pathlib import Path

import pytest
from command import ROOT, python, wsss

from wsss_cli.cli import console
from wsss_cli.cli.infer import run_and_photographs
from wsss_cli.cli.serve import _listening
from wsss_cli.errors import UsageError
from wsss_cli.talk import counted, sides

QUICK = ("--preset", "toy", "--limit", "3", "--iters", "1", "--device", "cpu")
SMALL = ("--set", "classifier.crop=64", "--set", "train.crop=64", "--set", "cam.scales=[1.0]")
SETTINGS = (*SMALL, "--set", "classifier.iters=1", "--data", "data/my toy")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with a data set and a training, run."""
    folder = tmp_path_factory.mktemp("messages")
    assert wsss(folder, "prepare", "toy", "--images", "4", "--size", "64", "--out", "data/my toy").returncode == 0
    assert wsss(folder, "train", *QUICK, *SETTINGS).returncode == 0
    (next((folder / "runs").glob("train-*"))).rename(folder / "run")
    (folder / "my run").symlink_to("run")
    (folder / "lost-link").symlink_to("nowhere")
    (folder / "a b.pth").touch()
    (folder / "-photos").mkdir()
    (folder / "untold/splits").mkdir(parents=True)
    (folder / "untold/dataset.json").write_text('{"classes": ["background", "cat"]}')
    (folder / "alone").mkdir()
    (folder / "alone/model.safetensors").touch()
    (folder / "untold/splits/train.csv").write_text("id,image,mask,labels\na,a.jpg,,cat\n")
    return folder


@pytest.mark.parametrize(
    ("command", "error", "hint"),
    [
        (
            "cam --preset toy --set cam.scales=1.0,0.5",
            'cam.scales (given: "1.0,0.5") from --set: a list is needed, as TOML writes it: '
            "--set 'cam.scales=[1.0, 0.5]'",
            "wsss presets show toy --describe",
        ),
        ("cam --preset toy --set cam.flip=maybe", '(given: "maybe") from --set: it should be a boolean', "--describe"),
        ("cam --preset toy --set classifier.iters=1.5", "it should be an integer", "--describe"),
        (
            "cam --preset toy --data 'data/my toy/dataset.json'",
            "data/my toy/dataset.json lies in a data set and is none",
            "give the folder: 'data/my toy'",
        ),
        ("cam --preset toy --data 'data/my toy/splits'", "lies in a data set", "give the folder: 'data/my toy'"),
        ("export run --out file.bin", "--out file.bin: its ending does not say", "add --format onnx or torchscript"),
        ("eval classifier", "classifier is no run directory", "wsss runs list names those there are"),
        ("eval gone.onnx --data data/toy", "there is no file gone.onnx", "wsss export RUN --format onnx"),
        ("prepare toy --images 2 --size 32 --out lost-link", "it is a link to nowhere, which is not", "choose another"),
        ("eval alone", "alone has weights, but no run.json or meta.json", "copy, publish or import it again"),
        ("report photo.jpg", "photo.jpg is no run directory", "wsss runs list names those there are"),
        ("infer run 'data/my toy' --out masks", "data/my toy is a data set", "give the folder of its images"),
        ("eval --pred a", "--pred goes with --truth and --num-classes", "wsss eval --pred masks/ --truth"),
        ("demo --images 3", "'--images': it should be greater than or equal to 8", "see wsss demo --help"),
        ("infer --out masks", "no photographs are named", "wsss infer photos/ --out DIR"),
        ("infer run --out masks", "no photographs are named after run", "wsss infer run photos/ --out DIR"),
        ("infer run run photos --out masks", "run is a run, and photographs are named here", "give one run, then ph"),
        ("infer photos --out masks --runs none", "no finished train run in none", "wsss train --preset"),
        ("eval run --data untold --limit 1", "untold has no split 'val' with masks to score against", "wsss infer"),
        ("infer run photo.jpg --out masks --overlap 8", "--overlap 8 is that of tiles", "add --tile 1024"),
        ("infer run photo.jpg --out masks --tile 64 --overlap 64", "is not below --tile 64", "for example --overlap 8"),
        ("infer run photo.jpg", "Missing option '--out'.", "see wsss infer --help"),
        ("infer 'my run' --out masks", "no photographs are named after my run", "wsss infer 'my run' photos/ --out"),
        ("infer 'a b.pth' photo.jpg --out m", "a b.pth is a weight file", "wsss weights inspect 'a b.pth'"),
        ("infer -photos --out masks", "No such option", "begins with a hyphen write ./-photos; see wsss infer"),
        ("show run --out 'my pic'", "--out my pic: the picture ends in", "--out 'my pic.png'"),
        ("runs compare run run --runs 'my runs'", "two runs at least", "wsss runs list --runs 'my runs' names"),
        ("demo --images 8 --out 'a b.pth'", "--out a b.pth is no folder", "choose another --out"),
        ("verify gone --split val", "there is no gone", "name a directory that has dataset.json"),
        ("eval --base x", "Invalid value for '--base'", "see wsss eval --help"),
    ],
)
def test_a_mistake_is_one_line_and_what_was_meant(home, command, error, hint):
    done = wsss(home, *shlex.split(command))
    (said,) = (line for line in done.stderr.splitlines() if line.startswith("error: "))
    (helps,) = (line for line in done.stderr.splitlines() if line.startswith("hint: "))
    assert done.returncode in (2, 3)
    assert error in said
    assert hint in helps


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["photos"], ("newest", ["photos"])),
        (["a.jpg", "b.jpg"], ("newest", ["a.jpg", "b.jpg"])),
        (["run", "photos"], ("run", ["photos"])),
        (["zoo", "photos"], ("zoo", ["photos"])),
        (["photos", "a.jpg"], ("newest", ["photos", "a.jpg"])),
        (["mistyped", "photos"], ("mistyped", ["photos"])),
    ],
)
def test_infer_takes_photographs_alone_with_the_newest_training(words, meant, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("wsss_cli.scoring.results.newest_run", lambda runs: Path("newest"))
    for name in ("run/run.json", "zoo/meta.json", "photos/a.jpg", "a.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    run, photographs = run_and_photographs(Path(words[0]), words[1:], Path("runs"))
    assert (str(run), photographs) == meant


@pytest.mark.parametrize("name", ["net.pth", "step-00000002/model.safetensors", "NET.PT", "net.onnx"])
def test_infer_takes_no_weight_file_for_a_photograph(name, tmp_path, monkeypatch):
    """Masks of the newest training would be written, and the weight file would be lost as an image."""
    monkeypatch.chdir(tmp_path)
    Path(name).parent.mkdir(exist_ok=True)
    Path(name).touch()
    with pytest.raises(UsageError, match=f"{name} is a weight file, neither a run nor a photograph") as caught:
        run_and_photographs(Path(name), ["photos"], Path("runs"))
    assert "name the folder of a run" in caught.value.hint


def test_a_run_that_is_named_without_its_folder_is_suggested(home):
    name = next((home / "runs").glob("classifier-*")).name
    assert f"hint: did you mean runs/{name}? wsss runs list" in wsss(home, "eval", name).stderr


def test_the_names_of_checkpoints_are_taken_where_a_run_is(home):
    latest = "run/checkpoints/latest"
    images = ("data/my toy/JPEGImages", "--limit", "1")
    assert wsss(home, "infer", latest, *images, "--out", "masks").stdout.startswith("1 mask in masks/masks\n")
    assert json.loads(wsss(home, "eval", latest, "--limit", "2", "--json").stdout)["step"] == 1
    started = wsss(home, "train", *QUICK, *SETTINGS, "--init", latest, "--dry-run")
    assert started.returncode == 0
    (home / "other.pth").write_bytes(b"no weights")
    for option in (("--init", "other.pth"), ("--set", "train.backbone.weights=other.pth")):
        refused = wsss(home, "train", *QUICK, *SETTINGS, *option, "--dry-run")
        assert refused.returncode == 3 and "other.pth" in refused.stderr.splitlines()[-2]
    classifier = next((home / "runs").glob("classifier-*")) / "checkpoints/latest"
    quick = (*QUICK[:4], *QUICK[6:], *SETTINGS)  # no iterations: none are trained
    planned = json.loads(wsss(home, "cam", *quick, "--weights", classifier, "--dry-run", "--json").stdout)
    assert [(stage["stage"], stage["done"]) for stage in planned["stages"]] == [("classifier", True), ("cam", False)]


def test_a_file_that_ends_in_pt_is_torchscript(home):
    done = wsss(home, "export", "run", "--out", "net.pt")
    assert (done.returncode, (home / "net.pt").is_file()) == (0, True)


def test_an_address_of_another_machine_is_refused_once():
    with pytest.raises(UsageError) as caught:
        _listening("192.0.2.1", 8000)
    assert caught.value.message == "cannot listen at 192.0.2.1, port 8000: Cannot assign requested address"


def test_one_thing_is_one():
    assert [counted(count, "image") for count in (0, 1, 2, 1234)] == ["0 images", "1 image", "2 images", "1,234 images"]
    assert [counted(count, "class") for count in (1, 2)] == ["1 class", "2 classes"]


def test_a_size_is_width_by_height_in_every_message():
    """One writes 500x375 of the file that another calls 375x500, and both are right, unless one place says it."""
    assert (sides((375, 500)), sides((2, 3, 4))) == ("500x375", "2x3x4")
    by_hand = re.compile(r"\[0\]\}x\{\w[\w.]*\[1\]\}")
    files = [(file.name, by_hand.findall(file.read_text())) for file in sorted((ROOT / "wsss_cli").rglob("*.py"))]
    assert [each for each in files if each[1]] == [("painting.py", ["[0]}x{mask.shape[1]}"])]  # bytes that are hashed


def test_nothing_to_do_is_no_progress(capsys):
    with console.progress(0, "infer"):
        pass
    assert capsys.readouterr().err == ""


def test_the_script_lists_messages_of_the_source(tmp_path):
    done = python(tmp_path, ROOT / "benchmarks/list_messages.py", "errors", "no preset")
    assert "config/load.py" in done.stdout
    assert "there is no preset {name}" in done.stdout
    assert "-> {meant}wsss presets list names all" in done.stdout


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("infer", "run", "x.jpg", "--out", ""), "--out"),
        (("infer", "run", "x.jpg", "--out="), "--out"),
        (("infer", "run", "", "--out", "x"), "an argument"),
        (("runs", "list", "--runs", ""), "--runs"),
    ],
)
def test_an_empty_word_is_no_path_to_the_current_folder(tmp_path, words, named):
    done = wsss(tmp_path, *words)
    assert (done.returncode, done.stderr.splitlines()[0]) == (2, f"error: {named} is empty")
    assert not list(tmp_path.iterdir())


def test_a_data_set_that_is_gone_is_to_be_named_where_it_was_moved_to(home):
    (home / "data/my toy").rename(home / "data/moved")
    try:
        done = wsss(home, "eval", "run")
        assert done.returncode == 3 and "is gone" in done.stderr and "--data DIR" in done.stderr
    finally:
        (home / "data/moved").rename(home / "data/my toy")


def test_a_circle_of_links_is_no_bug(home):
    (home / "one").symlink_to("two")
    (home / "two").symlink_to("one")
    photograph = next((home / "data/my toy").rglob("*.jpg"))
    done = wsss(home, "infer", "run", photograph, "--out", "one")
    assert done.returncode == 3 and "no circle of links" in done.stderr
