"""`--gpus 2` on a CPU: CAMs, masks, validation and scores are made by two processes, to the bits of one."""

import contextlib
import json
import os
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
from command import PATIENCE, ranks_below, start, wsss
from sizes import toy_of_sizes

from wsss_cli.config.load import load_preset
from wsss_cli.engine.context import Context
from wsss_cli.inference.network import load_network
from wsss_cli.stages.infer import run_infer
from wsss_cli.stages.photographs import find_images
from wsss_cli.stages.pipeline import run_steps
from wsss_cli.stages.plan import open_experiment, plan_run

SETTINGS = [
    "--preset=toy", "--data=data/toy", "--set=rounds=2", "--set=classifier.iters=2", "--set=classifier.batch=2",
    "--set=classifier.crop=64", "--set=classifier.data_workers=0", "--set=classifier.precision=fp32",
    "--set=cam.scales=[1.0]", "--set=train.batch=2", "--set=train.crop=32", "--set=train.augment.base_short=64",
    "--set=train.augment.base_long=128", "--set=train.data_workers=0", "--set=train.iters=2",
    "--set=train.val_interval=1", "--set=train.head.aspp_channels=16", "--set=train.precision=fp32",
    "--set=pseudo.workers=1", "--set=eval.scales=[1.0]", "--set=relabel.scales=[1.0]",
    '--set=pseudo.steps=[{kind="crf",crf={iterations=100}}]',
    '--set=relabel.steps=[{kind="crf",on="scores",crf={iterations=100}}]',
]  # fmt: skip
MADE = ("cams", "masks", "confidence")
CLOCK = {"seconds_per_image", "timed_images", "peak_memory_mib", "run", "file"}


def prepared(folder):
    """Toy images of three sizes, one of them with a single image."""
    widths = [{0: 32, 2: 32, 5: 32, 4: 96}.get(number, 64) for number in range(12)]
    toy_of_sizes(folder / "data" / "toy", widths, images=8, val=4, seed=0, size=64)


def without_clock(file):
    return {key: value for key, value in json.loads(file.read_text()).items() if key not in CLOCK}


def images_of(run):
    return {
        str(file.relative_to(run)): file.read_bytes()
        for name in MADE
        for file in sorted((run / name).glob("*"))
        if name
    }


def forget(runs):
    """Leave networks as they are; take CAMs, masks and scores away, and the last validation of the first one."""
    for run in [*runs.glob("cam-*"), *runs.glob("pseudo-*")]:
        shutil.rmtree(run)
    for run in runs.glob("train-*"):
        (run / "eval.json").unlink(missing_ok=True)
        rows = [row for row in (run / "metrics.jsonl").read_text().splitlines() if '"val"' not in row]
        (run / "metrics.jsonl").write_text("\n".join(rows) + "\n")
        record = json.loads((run / "run.json").read_text())
        (run / "run.json").write_text(json.dumps(record | {"state": "preempted"}))


def ended_by(folder, number, masks):
    """`wsss run` on two ranks, the second of which gets a signal once there are masks: exit code, and what was said."""
    process = start(folder, "run", *SETTINGS, "--runs=two", "--gpus=2")
    ranks = {}
    try:
        end = time.monotonic() + PATIENCE
        while len(list((folder / "two").glob("pseudo-*/masks/*.png"))) < masks:
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < end
            time.sleep(0.05)
        ranks = ranks_below(process.pid)
        os.kill(ranks[1], number)
        _, said = process.communicate(timeout=PATIENCE)
    finally:
        for pid in [*ranks.values(), process.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()
    print(said)
    assert "Traceback" not in said
    return process.returncode, said


def run_by_one():
    preset = load_preset("toy", [*(word.removeprefix("--set=") for word in SETTINGS[2:]), 'dataset.path="data/toy"'])
    exp = open_experiment(preset, Path("one"))
    run_steps(plan_run(exp, lambda line: None), exp, Context(torch.device("cpu"), Path("one")))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweeps")
    prepared(folder)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as each rank has
    with contextlib.chdir(folder):
        run_by_one()
    torch.set_num_threads(threads)
    shutil.copytree(folder / "one", folder / "two")
    forget(folder / "two")
    return folder


@pytest.fixture(scope="module")
def ends(folder):
    """How a run on two ranks was stopped, killed, and went on; what is there then is whole."""
    stopped = ended_by(folder, signal.SIGTERM, 1)
    states = [json.loads(file.read_text())["state"] for file in (folder / "two").glob("pseudo-*/run.json")]
    count = len(list((folder / "two").glob("pseudo-*/masks/*.png")))
    killed = ended_by(folder, signal.SIGKILL, 9)
    finished = wsss(folder, "run", *SETTINGS, "--runs=two", "--gpus=2", OMP_NUM_THREADS="1")
    return {"stopped": stopped, "states": states, "count": count, "killed": killed, "finished": finished}


def test_a_signal_to_one_rank_in_a_sweep_ends_all_with_75(ends):
    code, said = ends["stopped"]
    assert code == 75
    assert said.count("error: ") == 1 and "SIGTERM" in said
    assert ends["states"] == ["preempted"]
    assert 1 <= ends["count"] < 8


def test_a_rank_that_is_killed_in_a_sweep_is_named(ends):
    code, said = ends["killed"]
    assert code == 3
    assert "rank 1" in said and "SIGKILL" in said


def test_two_ranks_make_what_one_makes(folder, ends):
    assert ends["finished"].returncode == 0
    runs = sorted(run.name for run in (folder / "one").iterdir())
    assert [name.split("-")[0] for name in runs] == ["cam", "classifier", "pseudo", "pseudo", "train", "train"]
    for name in runs:
        one, two = folder / "one" / name, folder / "two" / name
        assert images_of(two) == images_of(one)
        if not name.startswith("classifier"):
            assert json.loads((two / "run.json").read_text())["state"] == "done"
        if (one / "eval.json").exists():
            assert without_clock(two / "eval.json") == without_clock(one / "eval.json")
        if name.startswith("train"):
            last = [json.loads((run / "metrics.jsonl").read_text().splitlines()[-1]) for run in (one, two)]
            assert last[0]["kind"] == "val" and last[1] == last[0]
    assert not list((folder / "two").rglob("*.part"))


def test_two_ranks_predict_what_one_predicts_and_lose_what_it_loses(folder, ends):
    network, photographs = min((folder / "two").glob("train-*")), folder / "photographs"
    shutil.copytree(folder / "data" / "toy" / "JPEGImages", photographs)
    (photographs / "torn.jpg").write_bytes(sorted(photographs.iterdir())[1].read_bytes()[:-200])
    with contextlib.chdir(folder):
        ctx = Context(torch.device("cpu"), Path("two"))
        one = run_infer(
            load_network(network, ctx),
            find_images(["photographs"], Path("by-one"), print),
            Path("by-one"),
            ctx,
            ms_flip=False,
        )
    command = ["infer", network, "photographs", "--json", "--out=by-two", "--gpus=2"]
    done = wsss(folder, *command, OMP_NUM_THREADS="1")
    two = json.loads(done.stdout)
    assert done.returncode == 3
    assert done.stderr.count("error: ") == 1
    assert (one["images"], two["images"]) == (12, 12)
    assert two["lost"] == one["lost"] and one["lost"][0]["id"].endswith("torn.jpg")
    for file in (folder / "by-one").glob("*/*.png"):
        assert (folder / "by-two" / file.relative_to(folder / "by-one")).read_bytes() == file.read_bytes()
    lines = [(folder / out / "made.jsonl").read_text().count('"item"') for out in ("by-one", "by-two")]
    assert lines == [12, 12]
