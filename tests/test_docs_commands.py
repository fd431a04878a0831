"""Commands of the how-to pages, run as they stand there, with a small data set and preset in place of the user's."""

import os
import re
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from command import PATIENCE, ROOT, environment
from warm import warm_wsss

from wsss_cli.data.dataset import open_dataset
from wsss_cli.data.masks import read_mask
from wsss_cli.data.trusted import read_trusted
from wsss_cli.engine.records import find_runs, read_inputs
from wsss_cli.stages.paths import mask_path

PRESET = """
extends = "toy"
dataset = { path = "data/mine" }
classifier = { iters = 2, crop = 64, batch = 4 }
cam = { scales = [1.0] }
train = { iters = 3, crop = 64, batch = 2 }
eval = { scales = [1.0] }
"""


def commands_of(page):
    """The lines of the indented blocks of a page; a line that ends in a backslash goes on in the next."""
    text = (ROOT / "docs/how-to" / page).read_text(encoding="utf-8")
    blocks = re.findall(r"^\n((?:    .*\n)+)", text, re.MULTILINE)
    return [line.strip() for block in blocks for line in re.sub(r"\\\n", " ", block).splitlines()]


@pytest.fixture
def shell(tmp_path):
    """Runs a line in the folder of the user, who has a data set and a preset, with torch loaded already."""
    variables = environment(tmp_path, OMP_NUM_THREADS="1", PATH=f"{tmp_path}:{os.environ['PATH']}")
    home = tmp_path / "home"
    home.mkdir()
    (home / "mine.toml").write_text(PRESET)
    with warm_wsss(tmp_path, variables):

        def run(line):
            done = subprocess.run(
                ["bash", "-c", line], cwd=home, env=variables, capture_output=True, text=True, timeout=PATIENCE
            )
            assert done.returncode == 0, (line, done.stdout, done.stderr)
            return done.stdout

        run("wsss prepare toy --images 6 --val 2 --size 64 --out data/mine")
        run.home = home
        yield run


def test_masks_are_corrected_and_trained_on(shell):
    home, corrected = shell.home, {}
    for line in commands_of("correct-and-train-again.md"):
        if "corrected.xml" in line:
            correct(home / "to-correct/annotations.xml", home / "corrected.xml")
            shell(line)
            trusted = read_trusted(home / "data/mine")
            corrected = {name: trusted.of(name).read() for name in trusted.entries}
        else:
            shell(line)
    assert len(list((home / "photographs").iterdir())) == 6
    expected = np.zeros((64, 64), np.uint8)
    expected[10:30, 5:50] = 2
    assert len(corrected) == 2 and all((mask == expected).all() for mask in corrected.values())
    pseudo, before = (path for path, _ in find_runs(home / "runs", "pseudo"))
    assert read_inputs(pseudo).trusted_words == "2 whole masks of 6 photographs (from corrected.xml)"
    for sample in open_dataset(home / "data/mine").split("train"):
        now = read_mask(mask_path(pseudo, sample.id))
        assert (now == corrected.get(sample.id, read_mask(mask_path(before, sample.id)))).all()
    trained, _ = find_runs(home / "runs", "train")
    assert trained[1].state == "done" and home / read_inputs(trained[0]).pseudo_run == pseudo


def correct(file: Path, out: Path):
    """Draw a bar of the second class on the first two photographs in place of what is there; drop the others."""
    tree = ElementTree.parse(file)
    images = tree.getroot().findall("image")
    for image in images[2:]:
        tree.getroot().remove(image)
    label = tree.getroot().findall("meta/task/labels/label/name")[2].text
    for image in images[:2]:
        for shape in list(image):
            image.remove(shape)
        ElementTree.SubElement(image, "polygon", label=label, points="5,10;50,10;50,30;5,30", z_order="0")
    tree.write(out)
