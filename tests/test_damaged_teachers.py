"""Simulated teachers (`benchmarks/damaged_teachers.py`): each damage by itself, and that all come of the seed."""

import importlib.util
import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from command import python, wsss

from wsss_cli.cam.store import write_cam
from wsss_cli.config.load import load_preset
from wsss_cli.data.dataset import open_dataset
from wsss_cli.data.masks import read_mask
from wsss_cli.data.sources.toy import prepare_toy
from wsss_cli.engine.records import Inputs
from wsss_cli.engine.rundir import open_run
from wsss_cli.stages.paths import cam_path

SCRIPT = Path(__file__).resolve().parents[1] / "benchmarks/damaged_teachers.py"
SPEC = importlib.util.spec_from_file_location("damaged_teachers", SCRIPT)
teachers = importlib.util.module_from_spec(SPEC)
sys.modules["damaged_teachers"] = teachers
SPEC.loader.exec_module(teachers)


def truth():
    mask = np.zeros((100, 120), np.uint8)
    mask[20:60, 20:60], mask[70:90, 80:110], mask[:3] = 1, 2, 255
    return mask


def by(seed=0, **damage):
    return teachers.damaged(truth(), teachers.Damage(**damage), 4, np.random.default_rng(seed))


def test_without_damage_it_is_the_mask_and_255_is_background():
    assert (by() == np.where(truth() == 255, 0, truth())).all()


def test_classes_are_missing_or_taken_for_the_next_one():
    assert not by(missing=1.0).any()
    confused = by(confused=1.0)
    assert (confused[truth() == 1] == 2).all() and (confused[truth() == 2] == 3).all()
    last = teachers.damaged(np.full((9, 9), 3, np.uint8), teachers.Damage(confused=1.0), 4, np.random.default_rng(0))
    assert (last == 1).all()


@pytest.mark.parametrize(("share", "radius"), [(0.1, 4), (-0.1, 4), (0.05, 2)])
def test_shapes_are_larger_or_smaller_by_a_share_of_their_side(share, radius):
    grown = by(grown=share) == 1  # of 40 x 40 pixels
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    plain = (truth() == 1).astype(np.uint8)
    expected = cv2.dilate(plain, kernel) if share > 0 else cv2.erode(plain, kernel)
    assert (grown == (expected > 0)).all()
    assert grown[40].sum() == 40 + (2 if share > 0 else -2) * radius


def test_a_class_is_seen_where_it_is_not():
    shapes = [by(seed, stray=1.0) for seed in range(20)]
    for one in shapes:
        assert (one[truth() == 1] == 1).all() and (one[truth() == 2] == 2).all()
    added = np.array([(one == 1).sum() - (truth() == 1).sum() for one in shapes])
    assert (added >= 0).all() and added.max() <= 0.15 * 12_000 and (added > 0.02 * 12_000).mean() > 0.5


def test_each_damage_has_the_share_that_is_asked_for_and_does_not_move_the_others():
    gone = [not (by(seed, missing=0.3) == 1).any() for seed in range(300)]
    assert np.mean(gone) == pytest.approx(0.3, abs=0.08)
    assert gone == [not np.isin(by(seed, missing=0.3, confused=1.0), (2,)).any() for seed in range(300)]
    assert any((by(seed, stray=0.5) != by(seed + 1, stray=0.5)).any() for seed in range(5))


def test_the_script_writes_a_folder_for_each_teacher_by_the_seed(tmp_path):
    prepare_toy(tmp_path / "toy", images=3, val=2, size=48)
    for out in ("one", "two"):
        done = python(tmp_path, SCRIPT, "toy", out, "--seed", "3")
        assert done.returncode == 0
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.png"))
    assert len(files) == 3 * len(teachers.TEACHERS)
    assert all((tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes() for file in files)
    for place, sample in enumerate(open_dataset(tmp_path / "toy").split("train")):
        rng = np.random.default_rng((3, place))
        expected = teachers.damaged(read_mask(sample.mask), teachers.TEACHERS["all"], 6, rng)
        assert (read_mask(tmp_path / "one/all" / f"{sample.id}.png") == expected).all()


def test_what_is_measured_is_what_the_commands_make(tmp_path):
    """The script's figures beside those of `import-scores` and `pseudo`, with and without `agree`."""
    prepare_toy(tmp_path / "toy", images=3, val=2, size=48)
    cams = tmp_path / "runs/cam-tags-1"
    preset = load_preset("toy", [f'dataset.path="{tmp_path / "toy"}"'])
    dataset = open_dataset(tmp_path / "toy")
    inputs = Inputs(
        dataset=str(dataset.root), classes=dataset.classes, colors=dataset.colors, split_sha256=dataset.split_sha256
    )
    with open_run(cams, "cam", preset, "1", inputs) as opened:
        for number, sample in enumerate(dataset.split("train")):
            maps = np.random.default_rng(number).random((len(sample.labels), 12, 12)).astype(np.float32)
            write_cam(cam_path(cams, sample.id), maps, sample.labels, (48, 48))
        opened.finish()
    shown = python(tmp_path, SCRIPT, "toy", "out", "--cams", cams).stdout
    figures = {line.split(" | ")[0]: [float(cell) for cell in line.split(" | ")[1:]] for line in shown.splitlines()}
    assert figures["good"][:2] == [100, 100] and len(figures) == len(teachers.TEACHERS)
    assert python(tmp_path, SCRIPT, "toy", "out").returncode == 0
    done = wsss(tmp_path, "import-scores", "toy", "out/all", "--teacher=simulated", "--json")
    run = json.loads(done.stdout)["run"]
    expected = []
    for steps in ("[]", f'[{{kind="agree", cams="{cams}"}}]'):
        settings = ("--set=pseudo.threshold.kind=complement", f"--set=pseudo.steps={steps}")
        done = wsss(tmp_path, "pseudo", "--preset=toy", "--data=toy", f"--cams={run}", *settings, "--json")
        assert done.returncode == 0
        scores = json.loads(done.stdout)["scores"]
        expected += [scores["background"]["miou"], scores["drop"]["miou"]]
    assert figures["all"] == pytest.approx(expected, abs=0.006)
