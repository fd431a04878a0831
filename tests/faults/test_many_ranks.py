"""Two ranks, one of which is killed, asked to stop, or cannot write: all end with the right code, in words and in time,
and the same command ends with the bytes of two that nobody disturbed.

`make faults` disturbs at more moments, and the whole pipeline.
"""

import contextlib
import os
import random
import signal
import time

import command
import pytest
from sizes import toy_of_sizes
from test_limits import BROKEN, FULL, HOOK, STORM
from test_storm import COMMAND

SETTINGS = ("iters=12", "batch=2", "crop=64", "data_workers=0", "precision='fp32'", "checkpoint_interval=2")
SETTINGS += ("log_interval=1", "backbone={name='resnet10t',weights='none'}")
SHORT = ["cam", "--preset=toy", "--data=toy", "--device=cpu", "--set=cam.scales=[1.0]"]
SHORT += [f"--set=classifier.{setting}" for setting in SETTINGS]
LONG = [*COMMAND, "--data=toy"]  # a pipeline
AT_ONE_RANK = 'if os.environ.get("WSSS_TEST_FAIL_AT") and os.environ.get("RANK") == os.environ["WSSS_TEST_RANK"]:'
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def results(folder):
    """Bytes of what was made, by place; of checkpoints the last."""
    kinds = ("cams/*.npz", "masks/*.png", "checkpoints/latest")
    files = [file for kind in kinds for file in folder.glob(f"runs/*/{kind}")]
    files += [file.parent / file.read_text().strip() / "model.safetensors" for file in files if file.name == "latest"]
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def begin(folder, words, **more):
    return command.start(folder, *words, "--gpus=2", **more)


def finished(folder, words):
    done = command.wsss(folder, *words, "--gpus=2", OMP_NUM_THREADS="1")
    assert done.returncode == 0
    assert list(folder.rglob(".*.part")) == []
    return results(folder)


def prepared(folder):
    toy_of_sizes(folder / "toy", (32, 64, 96, 128), images=8, val=2, seed=0, size=64)


def undisturbed(folder, words):
    prepared(folder)
    start = time.monotonic()
    return finished(folder, words), time.monotonic() - start


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    return undisturbed(tmp_path_factory.mktemp("short"), SHORT)


@pytest.fixture(scope="module")
def long(tmp_path_factory):
    return undisturbed(tmp_path_factory.mktemp("long"), LONG)


def ended(process, codes):
    """What was said; the launcher and its ranks have ended."""
    start = time.monotonic()
    try:
        _, said = process.communicate(timeout=command.PATIENCE)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    print(said)
    assert time.monotonic() - start < command.GRACE_S
    assert process.returncode in codes
    assert "Traceback" not in said and "a bug" not in said
    return said


def rank_of(process, rank):
    """The process id of a rank, once it is there; None: the command has ended."""
    until = time.monotonic() + command.PATIENCE
    while process.poll() is None and rank not in command.ranks_below(process.pid):
        assert time.monotonic() < until
        time.sleep(0.05)
    return command.ranks_below(process.pid).get(rank)


def strike(process, rank, number):
    if pid := rank_of(process, rank):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def wait_for(process, folder, pattern):
    until = time.monotonic() + command.PATIENCE
    while not list(folder.glob(pattern)) and process.poll() is None:
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.mark.parametrize("rank", [0, 1] if STORM else [1])
def test_a_rank_that_is_killed_in_a_training(short, tmp_path, rank):
    prepared(tmp_path)
    process = begin(tmp_path, SHORT)
    wait_for(process, tmp_path, "runs/classifier-*/checkpoints/step-*/meta.json")
    strike(process, rank, signal.SIGKILL)
    said = ended(process, (3,))
    assert f"rank {rank}" in said and "SIGKILL" in said
    assert finished(tmp_path, SHORT) == short[0]


@pytest.mark.skipif(not STORM, reason="make faults runs it; one is in tests/ranks")
@pytest.mark.parametrize(("rank", "number"), [(at % 2, number) for at, number in enumerate(SIGNALS, 1)])
def test_a_signal_to_one_rank_in_a_sweep(short, tmp_path, rank, number):
    prepared(tmp_path)
    process = begin(tmp_path, SHORT)
    wait_for(process, tmp_path, "runs/cam-*/run.json")
    strike(process, rank, number)
    said = ended(process, (0, 130 if number == signal.SIGINT else 75))
    assert said.count("error: ") == (process.returncode != 0)
    assert finished(tmp_path, SHORT) == short[0]


@pytest.mark.parametrize(
    ("rank", "at"), [(1, at) for at in (1, 3, 5, 8)] + [(0, at) for at in (2, 9, 22, 37)] if STORM else [(1, 3)]
)
def test_a_write_that_fails_at_one_rank(short, tmp_path, rank, at):
    """The second rank writes files of images alone, the first one records and checkpoints, too."""
    folder, number = tmp_path / "work", FULL if at % 2 else BROKEN
    (tmp_path / "hook").mkdir()
    hook = HOOK.replace('if os.environ.get("WSSS_TEST_FAIL_AT"):', AT_ONE_RANK)
    hook = hook.replace('("os.rename", "os.mkdir")', '("os.rename",)')  # a folder that is there already may fail
    assert AT_ONE_RANK in hook and "mkdir" not in hook
    file = tmp_path / "hook" / "sitecustomize.py"
    file.write_text(hook)
    prepared(folder)
    more = command.hooked(file) | {"WSSS_TEST_PLACE": str(folder)}
    more |= {"WSSS_TEST_RANK": str(rank), "WSSS_TEST_FAIL_AT": str(at), "WSSS_TEST_ERRNO": str(number)}
    of_an_image = rank == 1 and at > 2  # what is opened before may do without: a look at a lock, say
    said = ended(begin(folder, SHORT, **more), (3,) if of_an_image else (0, 3))
    if of_an_image:
        assert ("No space left" if number == FULL else "Input/output error") in said and "rank 1" in said
    assert finished(folder, SHORT) == short[0]


@pytest.mark.skipif(not STORM, reason="make faults runs it")
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(2))
def test_kills_of_ranks_at_chance_moments_of_the_pipeline(long, tmp_path, seed):
    whole, seconds = long
    chance = random.Random(seed)
    prepared(tmp_path)
    for _ in range(3):
        process = begin(tmp_path, LONG)
        with contextlib.suppress(Exception):
            process.wait(chance.uniform(0.2, 0.7) * seconds)
        strike(process, chance.choice((0, 1)), signal.SIGKILL)
        ended(process, (0, 3))
    assert finished(tmp_path, LONG) == whole
