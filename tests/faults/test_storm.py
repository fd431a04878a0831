"""Kills and signals at chance moments of the whole pipeline: minutes, so `make faults` runs them and not `make test`.

After each: the right code, in time, no process and no temporary left; and in the end the bytes of an undisturbed run.
"""

import os
import random
import signal
import subprocess
import time

import pytest
from command import GRACE_S, left_of, start

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(not os.environ.get("WSSS_STORM"), reason="make faults runs it"),
]
SETTINGS = (
    "classifier.iters=8 classifier.batch=2 classifier.crop=32 classifier.backbone.weights=none cam.scales=[1.0] "
    "cam.flip=false train.iters=8 train.batch=2 train.crop=32 train.data_workers=2 train.checkpoint_interval=2 "
    "train.log_interval=1 train.backbone.weights=none train.head.aspp_channels=8 train.head.low_channels=8 "
    "eval.scales=[1.0]"
)
PREPARE = ["prepare", "toy", "--images", "6", "--val", "2", "--size", "32", "--seed", "1"]
COMMAND = ["run", "--preset", "toy", "--device", "cpu", *(f"--set={setting}" for setting in SETTINGS.split())]


def finished(folder):
    process = start(folder, *COMMAND)
    _, talk = process.communicate(timeout=1800)
    assert process.returncode == 0, talk
    return talk


def prepared(folder):
    folder.mkdir()
    process = start(folder, *PREPARE)
    assert process.wait(300) == 0
    return folder


def results(folder):
    """Bytes of all that the stages made, by place; of checkpoints the last, as others go by where a run was stopped."""
    kinds = ("cams/*.npz", "masks/*.png", "checkpoints/latest")
    files = [file for kind in kinds for file in (folder / "runs").glob(f"*/{kind}")]
    files += [file.parent / file.read_text().strip() / "model.safetensors" for file in files if file.name == "latest"]
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    folder = prepared(tmp_path_factory.mktemp("whole") / "work")
    begin = time.monotonic()
    finished(folder)
    return results(folder), time.monotonic() - begin


@pytest.mark.parametrize("seed", range(3))
def test_kills_at_chance_moments_lose_nothing(reference, tmp_path, seed):
    whole, seconds = reference
    folder, chance = prepared(tmp_path / "work"), random.Random(seed)
    for _ in range(6):
        process = start(folder, *COMMAND)
        try:
            process.wait(chance.uniform(0.2, 0.7) * seconds)
        except subprocess.TimeoutExpired:
            process.kill()  # the parent alone: its workers follow
        process.communicate()
        assert left_of(process.pid, GRACE_S) == 0
    finished(folder)
    assert results(folder) == whole
    assert list(folder.rglob(".*.part")) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2])
@pytest.mark.parametrize("group", [False, True])
def test_signals_at_chance_moments_save_what_is_done(reference, tmp_path, number, group):
    whole, seconds = reference
    folder, chance = prepared(tmp_path / "work"), random.Random(int(number) * 2 + group)
    for _ in range(3):
        process = start(folder, *COMMAND)
        try:
            process.wait(chance.uniform(0.05, 0.9) * seconds)
        except subprocess.TimeoutExpired:
            (os.killpg if group else os.kill)(process.pid, number)
        begin = time.monotonic()
        _, talk = process.communicate(timeout=600)
        assert time.monotonic() - begin < GRACE_S
        assert process.returncode in (0, 130 if number == signal.SIGINT else 75), talk
        assert "Traceback" not in talk and "a bug" not in talk
        assert left_of(process.pid, 5.0) == 0
    finished(folder)
    assert results(folder) == whole
