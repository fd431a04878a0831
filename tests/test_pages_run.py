"""Pages for a new user: their commands run, in the order of the page, with schedules of two iterations.

Run directories that a page names by way of example are the newest of that stage; large presets are the one for
generated data.
"""

import re
import shutil

import cv2
import numpy as np
import pytest
from command import wsss
from pages import ROOT, commands

SMALL = {
    "classifier.iters": 2, "classifier.batch": 2, "classifier.crop": 32, "classifier.data_workers": 0,
    "cam.scales": [1.0],
    "train.batch": 2, "train.crop": 32, "train.data_workers": 0, "train.iters": 2, "train.val_interval": 0,
    "train.head.aspp_channels": 8, "pseudo.workers": 1, "eval.scales": [1.0],
}  # fmt: skip
ALSO = {"run": 2, "train": 2}
"""Commands with --iters."""
SKIPPED = ("demo", "submit", "table")
"""Commands that other tests run whole: the demo takes minutes."""


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with photographs and tags, as the pages have them, and generated data."""
    folder = tmp_path_factory.mktemp("pages")
    assert wsss(folder, "prepare", "toy", "--images=8", "--val=4", "--size=48").returncode == 0
    images = sorted((folder / "data/toy/JPEGImages").glob("train*"))
    for name in ("photos/holiday/001", "photos/holiday/002", "photos/003", "photos/004", "photos/2024-05", "large/001"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / f"{name}.jpg"), cv2.imread(str(images.pop())))
    clip = cv2.VideoWriter(str(folder / "clip.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 5, (64, 48))
    for grey in range(0, 250, 40):
        clip.write(np.full((48, 64, 3), grey, np.uint8))
    clip.release()
    rows = ["holiday/001.jpg,cat|person", "holiday/002.jpg,dog", "003.jpg,", "004.jpg,cat", "2024-05.jpg,dog|person"]
    (folder / "tags.csv").write_text("\n".join(["image,labels", *rows]) + "\n")
    assert wsss(folder, "prepare", "folder", "photos", "tags.csv", "--out=data/mine").returncode == 0
    return folder


def newest(folder, name):
    """The newest run of the stage of a run that a page names."""
    stage = re.match(r"(?:runs/)?([a-z]+)-", name)[1]
    return max((folder / "runs").glob(f"{stage}-*"), key=lambda run: run.stat().st_mtime)


@pytest.fixture(scope="module")
def trained(world):
    """The same, with a finished training."""
    train = ["train", "--preset", "toy", "--set=train.supervision=full", "--set=seed=7"]
    assert wsss(world, *written(world, train)).returncode == 0
    return world


@pytest.mark.parametrize("page", ["start/first-run.md", "start/own-photographs.md", "how-to/presets.md"])
def test_the_commands_of_a_page_run(world, page):
    run_page(world, page)


def test_the_commands_for_photographs_run_and_take_the_newest_training_where_none_is_named(trained):
    run_page(trained, "how-to/inference.md")
    masks = trained / "predicted/masks"
    assert {file.name for file in masks.iterdir()} == {
        "holiday",
        "001.png",
        "003.png",
        "004.png",
        "2024-05.png",
        "clip",
    }
    shutil.rmtree(trained / "predicted")
    done = wsss(trained, "infer", "photos", "--out=predicted")
    assert f"newest finished training run: runs/{newest(trained, 'train-').name}\n" in done.stderr
    nothing = wsss(trained, "infer", "runs/train-toy-00000000", "photos", "--out=other")
    assert nothing.returncode == 2
    assert "runs/train-toy-00000000" in nothing.stderr.partition("error: ")[2]
    alone = wsss(trained, "infer", newest(trained, "train-"), "--out=other")
    assert alone.returncode == 2
    assert "no photographs are named after" in alone.stderr
    exported = wsss(trained, "export", "--out=toy.pt")
    assert exported.returncode == 0 and (trained / "toy.pt").is_file()
    assert "newest finished training run" in exported.stderr


def run_page(world, page):
    text = (ROOT / "docs" / page).read_text()
    for block in re.findall(r"```toml\n(.*?)```", text, flags=re.DOTALL):
        (world / "mine.toml").write_text(block)
    for line, words in commands(text):
        if words[0] in SKIPPED or ("mine.toml" in line and ">" in line):
            continue
        done = wsss(world, *written(world, words))
        assert done.returncode == 0, line


def written(world, words):
    """The words of a command with small schedules, and with runs that are there."""
    words = [
        str(newest(world, word)) if re.fullmatch(r"(runs/)?[a-z]+-[a-z0-9-]+-(1a2b3c4d|5e6f7a8b|\*)", word) else word
        for word in words
    ]
    if "--preset" in words and words[0] != "show":
        words += [f"--set={key}={value}" for key, value in SMALL.items()]
        words += [f"--iters={ALSO[words[0]]}"] if words[0] in ALSO else []
    return words
