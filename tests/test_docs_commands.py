"""Commands of the how-to pages, run as they stand there, with a small data set and preset in place of the user's."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from command import PATIENCE, ROOT, environment, executable

from wsss_cli.data.dataset import open_dataset
from wsss_cli.data.drawings.label_studio import encode_rle
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
    executable(tmp_path)

    def run(line):
        done = subprocess.run(
            ["bash", "-c", line], cwd=home, env=variables, capture_output=True, text=True, timeout=PATIENCE
        )
        assert done.returncode == 0, (line, done.stdout, done.stderr)
        return done.stdout

    run("wsss prepare toy --images 6 --val 2 --size 64 --out data/mine")
    run.home = home
    return run


def test_masks_are_corrected_and_trained_on(shell):
    home, corrected = shell.home, {}
    shutil.copytree(home / "data/mine/JPEGImages", home / "photos")
    for line in commands_of("correct-and-train-again.md"):
        if "corrected.xml" in line:
            correct(home / "to-correct/annotations.xml", home / "corrected.xml")
            shell(line)
            trusted = read_trusted(home / "data/mine")
            corrected = {name: trusted.of(name).read() for name in trusted.entries}
        else:
            shell(line)
    assert len(list((home / "to-correct/photographs").iterdir())) == 6
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


def test_scribbles_points_and_boxes_are_read_and_trained_on(shell):
    home = shell.home
    lines = commands_of("scribbles.md")
    assert sum(line.startswith("wsss ") for line in lines) == 9
    shell("wsss prepare toy --images 6 --val 2 --size 64 --out data/voc-aug")
    shell("cp data/voc-aug/splits/train.csv data/voc-aug/splits/train_aug.csv; rm -r data/mine")
    draw_in_tools(home)
    for line in lines:
        if line.startswith("wsss "):
            shell(line)
    kinds = {entry.source: entry.kind for entry in read_trusted(home / "data/mine").entries.values()}
    boxes = "boxes from boxes.csv, inside told by a dense CRF"
    joined = f"scribbles from project.json and points from annotations.xml and {boxes}"
    assert kinds == {joined: "partial"}  # all kinds of each photograph
    assert {path.name.split("-")[0] for path in (home / "runs").iterdir()} == {"train"}
    first, second = (path for path, _ in find_runs(home / "runs", "train"))
    words = "2 partial label maps of 6 photographs"
    assert read_inputs(second).trusted_words == f"{words} (scribbles from project.json)"
    assert read_inputs(first).trusted_words == f"{words} ({joined})"


def draw_in_tools(home):
    """Two photographs in each tool's form, and ScribbleSup's XML of the other data set."""
    (home / "photographs").mkdir()
    names = []
    for sample in open_dataset(home / "data/voc-aug").split("train"):
        shutil.copy(sample.image, home / "photographs")
        names.append(sample.image.name)
    (home / "labels.csv").write_text("image,labels\n" + "".join(f"{name},\n" for name in names))
    two, tasks = names[:2], []
    for name in two:
        size = {"original_width": 64, "original_height": 64, "image_rotation": 0}
        results = []
        for label, row in (("background", 2), ("cat", 20), ("dog", 40)):
            pixels = np.zeros((64, 64), bool)
            pixels[row : row + 3, 10:50] = True
            results.append(
                {"type": "brushlabels", **size, "value": {"rle": encode_rle(pixels), "brushlabels": [label]}}
            )
        tasks.append(
            {"id": 1, "data": {"image": f"/data/local-files/?d=x/{name}"}, "annotations": [{"result": results}]}
        )
    (home / "project.json").write_text(json.dumps(tasks))
    shapes = '<points label="cat" points="20,20;30,30"/><points label="background" points="5,5"/>'
    images = "".join(f'<image name="{name}" width="64" height="64">{shapes}</image>' for name in two)
    (home / "annotations.xml").write_text(f"<annotations>{images}</annotations>")
    (home / "boxes.csv").write_text("image,class,x0,y0,x1,y1\n" + "".join(f"{name},cat,10,12,50,44\n" for name in two))
    (home / "pascal_2012").mkdir()
    label = open_dataset(home / "data/voc-aug").classes[1]
    for name in two:
        points = "".join(f"<point><X>{x}</X><Y>9</Y></point>" for x in (3, 9, 20))
        text = f"<annotation><polygon><tag>{label}</tag>{points}</polygon></annotation>"
        (home / "pascal_2012" / f"{Path(name).stem}.xml").write_text(text)


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
