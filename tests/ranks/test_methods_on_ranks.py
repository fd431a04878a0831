"""LPCAM, random walks and named weights on two ranks of a CPU: what one process makes, to the byte."""

import contextlib
import json
import os
import shutil
import signal
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from command import PATIENCE, halt_rank, ranks_below, start, wsss
from sizes import toy_of_sizes

from wsss_cli.config.load import load_preset
from wsss_cli.engine.context import Context
from wsss_cli.inference.network import Which
from wsss_cli.stages.evaluate import run_eval
from wsss_cli.stages.pipeline import run_steps
from wsss_cli.stages.plan import open_experiment, plan_cam, plan_pseudo, plan_train

BACKBONE = "backbone={name='resnet10t',weights='none',output_stride=32}"
AFFINITY = ("iters=1", "batch=2", "crop=64", "radius=2", "data_workers=0", "label_workers=1", BACKBONE)
SETTINGS = [
    "classifier.iters=2", "classifier.batch=2", "classifier.crop=64", "classifier.data_workers=0", "cam.scales=[1.0]",
    "classifier.precision=fp32", "classifier.backbone={name='resnet10t',weights='none'}", "cam.method.kind=lpcam",
    "cam.method.clusters=3", "cam.method.images_per_class=3", "pseudo.workers=1", "pseudo.threshold.kind=self",
    "pseudo.steps=[{kind='irn-walk'},{kind='psa-walk'},{kind='crf',crf={iterations=300}}]",
    *(f"affinity.irn.{setting}" for setting in AFFINITY), *(f"affinity.psa.{setting}" for setting in AFFINITY),
    "train.supervision=full", "train.iters=2", "train.batch=2", "train.crop=32", "train.data_workers=0",
    "train.precision=fp32", f"train.{BACKBONE}", "train.head={kind='fcn',channels=8}", "train.aux.weight=0.0",
    "train.val_interval=0", "train.ema=0.9", "eval.scales=[1.0]",
]  # fmt: skip
COMMON = ["--preset=toy", "--data=toy", "--device=cpu", *(f"--set={setting}" for setting in SETTINGS)]
MADE = ("cams", "scores", "masks", "confidence")


def images_of(runs):
    """Files of images by place, and the prototypes."""
    files = [file for name in MADE for file in runs.glob(f"*/{name}/**/*") if file.is_file()]
    return {str(file.relative_to(runs)): file.read_bytes() for file in [*files, *runs.glob("*/prototypes.safetensors")]}


def by_one(folder, runs, plan, *settings):
    """Run the steps of a plan in this process, with one thread, as each rank has."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with contextlib.chdir(folder):
        ctx = Context(torch.device("cpu"), Path(runs))
        exp = open_experiment(load_preset("toy", [*settings, "dataset.path=toy"]), ctx.runs)
        run_steps(plan(exp), exp, ctx)
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Runs of one process in `one`; in `two` its networks alone."""
    folder = tmp_path_factory.mktemp("methods")
    toy_of_sizes(folder / "toy", (64, 32, 96), images=8, val=4, seed=0, size=64)
    by_one(folder, "one", partial(plan_pseudo, cams=None, say=print), *SETTINGS)
    by_one(folder, "one", partial(plan_train, masks=None, say=print), *SETTINGS)
    shutil.copytree(folder / "one", folder / "two")
    for run in [*(folder / "two").glob("cam-*"), *(folder / "two").glob("pseudo-*")]:
        shutil.rmtree(run)
    return folder


def test_lpcam_and_walks_are_those_of_one_process_and_a_rank_that_hangs_among_them_is_named(folder):
    masks = start(folder, "pseudo", *COMMON, "--runs=two", "--gpus=2", WSSS_RANK_TIMEOUT="4")
    ranks = {}
    try:
        until = time.monotonic() + PATIENCE
        while not list((folder / "two").glob("pseudo-*/masks/*.png")):
            assert masks.poll() is None, masks.stderr.read()
            assert time.monotonic() < until
            time.sleep(0.02)
        ranks = ranks_below(masks.pid)
        halt_rank(1)
        said = masks.communicate(timeout=PATIENCE)[1]
    finally:
        for pid in [*ranks.values(), masks.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        masks.wait()
    print(said)
    assert masks.returncode == 3
    assert "rank 1 of 2, in 'pseudo masks', has gone, or has not answered for 4 s" in said
    assert len(list((folder / "two").glob("pseudo-*/masks/*.png"))) < 8
    again = wsss(folder, "pseudo", *COMMON, "--runs=two", "--gpus=2", OMP_NUM_THREADS="1")
    assert again.returncode == 0
    one = images_of(folder / "one")
    assert {name.split("/")[1] for name in one} == {*MADE, "prototypes.safetensors"}
    assert images_of(folder / "two") == one


def test_cams_of_a_named_classifier_are_those_of_one_process(folder):
    trained, settings = next((folder / "one").glob("classifier-*")), [*SETTINGS, "cam.method.kind=cam"]
    settings = [setting for setting in settings if not setting.startswith(("cam.method.clusters", "cam.method.images"))]
    by_one(folder, "named-one", plan_cam, *settings, f"classifier.weights={trained}")
    words = [f"--set={setting}" for setting in settings]
    named = ("cam", "--preset=toy", "--data=toy", "--device=cpu", *words, f"--weights={trained}")
    assert wsss(folder, *named, "--runs=named-two", "--gpus=2", OMP_NUM_THREADS="1").returncode == 0
    one, two = images_of(folder / "named-one"), images_of(folder / "named-two")
    assert len(one) == 8 and two == one
    assert not list((folder / "named-two").glob("classifier-*"))


def test_scores_of_the_weights_that_are_asked_for_are_those_of_one_process(folder):
    run = next((folder / "one").glob("train-*"))
    ctx = Context(torch.device("cpu"), folder / "one")
    with contextlib.chdir(folder):
        one = {name: run_eval(run, ctx, ms_flip=False, which=Which(weights=name)) for name in ("ema", "raw")}
    assert one["ema"]["protocol"] != one["raw"]["protocol"]
    done = wsss(folder, "eval", run, "--weights=raw", "--gpus=2", "--json", OMP_NUM_THREADS="1")
    assert done.returncode == 0
    two = json.loads(done.stdout)
    assert (two["single"], two["protocol"]) == (one["raw"]["single"], one["raw"]["protocol"])
