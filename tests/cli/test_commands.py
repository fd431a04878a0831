"""The commands on a tiny generated data set, through the real process: the whole demo, kill and resume, bad input."""

import contextlib
import csv
import fcntl
import json
import os
import pickle
import queue
import shutil
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import command
import cv2
import numpy as np
import pytest
import torch
import warm

from wsss_cli.cam.store import read_cam
from wsss_cli.data.dataset import open_dataset
from wsss_cli.data.masks import read_mask, write_mask
from wsss_cli.data.sources.toy import prepare_toy
from wsss_cli.files import read_json, write_json
from wsss_cli.labels import voc_palette


def setting(*given):
    return [part for each in given for part in ("--set", each)]


SETTINGS = setting("classifier.iters=4", "classifier.batch=2", "classifier.crop=64", "cam.scales=[1.0,1.5]")
SETTINGS += setting("train.iters=4", "train.batch=2", "train.crop=32", "eval.scales=[1.0,1.25]")
DEMO = ["demo", "--json", "--out", "X", "--images", "16", *SETTINGS]
FULL = setting("train.supervision=full")
DATA = "X/data/toy-16-0"
SCORES = ("seed_miou", "pseudo_miou", "weak_miou", "weak_miou_ms_flip", "full_miou", "full_miou_ms_flip")


@contextlib.contextmanager
def core(number):
    """What is started in the body runs on one core, so that commands beside each other do not slow each other down."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[number % len(cores)]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, set(cores))


class Started:
    """A command that is under way, with its worker processes in a process group of its own."""

    def __init__(self, folder, *arguments):
        self.folder = folder
        pipes = (subprocess.PIPE, subprocess.PIPE)
        self.process = warm.Forked(command.forking(), arguments, folder, command.environment(folder), pipes)

    def until(self, ready):
        end = time.monotonic() + command.PATIENCE
        while not ready():
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < end
            time.sleep(0.005)

    def send(self, number, *, group=False):
        """Exit code and stderr after a signal to the process, or to its workers too, as a batch system does it."""
        (os.killpg if group else os.kill)(self.process.pid, number)
        return self.end()

    def end(self):
        self.talk = self.process.communicate(timeout=command.PATIENCE)[1]
        return self.process.returncode


@pytest.fixture
def started(tmp_path):
    """Starts commands in the test's folder; what is left of them at the end is killed."""
    processes = []

    def start(*arguments):
        processes.append(Started(tmp_path, *arguments))
        return processes[-1]

    yield start
    for each in processes:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(each.process.pid, signal.SIGKILL)
        each.process.communicate()


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def demo(home):
    done = command.wsss(home, *DEMO)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def wsss(home, demo):
    """Runs a command in the folder in which the demo has run."""
    return partial(command.wsss, home)


def one_error(done):
    """The one `error:` line of a command that failed as it should."""
    assert "Traceback" not in done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, done.stderr
    return errors[0].removeprefix("error: ")


def half_written(folder):
    return [path for path in Path(folder).rglob("*") if path.name.endswith(".part")]


# The whole demo, and what comes after


def test_the_demo_prints_one_object_with_scores_and_run_directories(home, demo):
    assert all(isinstance(demo[key], float) and 0 <= demo[key] <= 100 for key in SCORES)
    assert demo["ratio"] == pytest.approx(demo["weak_miou_ms_flip"] / demo["full_miou_ms_flip"], abs=1e-4)
    assert demo["seconds"] > 0
    assert demo["runs"].keys() == {"cam", "pseudo", "train_weak", "train_full"}
    for run in demo["runs"].values():
        record = read_json(home / run / "run.json")
        assert (record["state"], record["lost"], len(record["attempts"])) == ("done", [], 1)
    picture = cv2.imread(str(home / demo["sheet"]))
    assert picture.shape[1] > 5 * 100  # image, CAM, pseudo mask, prediction and truth beside each other
    masks = sorted((home / "X/infer/masks").glob("*.png"))
    assert [path.stem for path in masks] == [f"val_{index:06d}" for index in range(4)]
    assert all(read_mask(path).shape == (128, 128) for path in masks)
    assert half_written(home) == []


def test_the_demo_again_does_nothing_twice_and_says_the_same(wsss, demo):
    done = wsss(*DEMO)
    assert done.returncode == 0
    again = json.loads(done.stdout)
    assert {key: again[key] for key in (*SCORES, "ratio", "runs")} == {
        key: demo[key] for key in (*SCORES, "ratio", "runs")
    }
    work = {name: seconds for name, seconds in again["stage_seconds"].items() if name != "pictures"}
    assert sum(work.values()) < 2
    assert again["seconds"] < demo["seconds"]


def test_eval_takes_the_newest_training_says_so_and_fails_a_gate(wsss, demo):
    done = wsss("eval", "--runs", "X/runs", "--ms-flip", "--json", "--min-miou", "101")
    assert done.returncode == 4
    newest = demo["runs"]["train_full"]
    assert f"newest finished training run: {newest}" in done.stderr.splitlines()
    assert one_error(done).endswith("is below --min-miou 101.0")
    scores = json.loads(done.stdout)
    assert (scores["passed"], scores["run"], scores["step"]) == (False, newest, 4)
    assert (scores["single"]["miou"], scores["ms_flip"]["miou"]) == (demo["full_miou"], demo["full_miou_ms_flip"])
    protocol = "\n".join(scores["protocol"])
    for part in ("toy/val (4 images)", "full supervision", "4 iterations", "255 ignored", "scales 1, 1.25"):
        assert part in protocol


def test_eval_of_a_training_is_a_table_with_its_protocol(wsss, home, demo):
    page = home / demo["runs"]["train_weak"] / "report.html"
    page.unlink()
    done = wsss("eval", demo["runs"]["train_weak"], "--split", "train", "--min-miou", "0")
    assert "No scores" not in page.read_text()  # drawn anew
    assert done.returncode == 0
    assert "ladybug" in done.stdout
    assert "toy/train (16 images), weak supervision" in done.stdout


def test_eval_shows_the_columns_asked_for_and_writes_the_confusion(wsss, home, demo):
    run = demo["runs"]["train_full"]
    before = (home / run / "eval.json").read_bytes()
    more = ("--ms-flip", "--crf", "--mode", "slide", "--base", "image", "--metrics", "iou,dice,biou")
    done = wsss("eval", run, "--split", "train", *more, "--confusion", "confusion.csv")
    assert done.returncode == 0, done.stderr
    assert "single scale IoU" in done.stdout
    assert "ms+flip, CRF IoU" in done.stdout
    assert "boundary IoU" in done.stdout
    assert "windows of 512, stride 341, scale 1 = original image" in done.stdout
    scores = read_json(home / run / "eval-train.json")
    rows = [line.split(",") for line in (home / "confusion.csv").read_text().splitlines()]
    assert rows[0][1:] == [*scores["classes"], "outside"]
    assert [[int(cell) for cell in row[1:]] for row in rows[1:]] == scores["ms_flip_crf"]["confusion"]
    assert (home / run / "eval.json").read_bytes() == before
    unknown = wsss("eval", run, "--metrics", "iou,kappa")
    assert unknown.returncode == 2
    assert "there is no 'kappa'" in one_error(unknown)


def test_table_and_bench_of_a_training(wsss, home, demo):
    run = demo["runs"]["train_weak"]
    done = wsss("bench", "model", run, "--crop", "32", "--steps", "1", "--no-train", "--json")
    assert done.returncode == 0, done.stderr
    fps = json.loads(done.stdout)["fps"]
    made = wsss("table", run, "--format", "csv")
    assert made.returncode == 0, made.stderr
    head, row = csv.reader(made.stdout.splitlines())
    assert float(row[head.index("fps")]) == pytest.approx(fps, abs=0.01)
    assert row[head.index("mIoU (ms+flip)")] == f"{demo['weak_miou_ms_flip']:.2f}"
    (home / run / "bench.json").unlink()


@pytest.mark.parametrize(("run", "score"), [("cam", "seed_miou"), ("pseudo", "pseudo_miou")])
def test_eval_of_an_earlier_stage_shows_its_scores(wsss, demo, run, score):
    shown = wsss("eval", demo["runs"][run])
    assert shown.returncode == 0
    assert f"{demo[score]:.2f}" in shown.stdout
    done = wsss("eval", demo["runs"][run], "--json", "--min-miou", "101")
    assert done.returncode == 4
    scores = json.loads(done.stdout)
    assert scores["best" if run == "cam" else "background"]["miou"] == demo[score]
    assert one_error(done)


def test_runs_lists_and_shows_what_the_demo_made(wsss, demo):
    listed = json.loads(wsss("runs", "list", "--runs", "X/runs", "--json").stdout)["runs"]
    order = [demo["runs"][stage] for stage in ("train_full", "train_weak", "pseudo", "cam")]
    assert [run["run"] for run in listed[:-1]] == order
    assert (listed[-1]["stage"], listed[-1]["scores"]) == ("classifier", {})
    assert {run["state"] for run in listed} == {"done"}
    shown = wsss("runs", "show", demo["runs"]["cam"])
    assert shown.returncode == 0
    assert f"{demo['seed_miou']:.2f}" in shown.stdout


def test_eval_of_folders_agrees_with_a_plain_count(wsss, home):
    draw, classes = np.random.default_rng(0), 5
    pairs = []
    for index in range(3):
        pred, truth = (draw.integers(0, 4, (17, 23 + index)).astype(np.uint8) for _ in range(2))  # class 4 is nowhere
        truth[draw.random(truth.shape) < 0.2] = 255
        pairs.append((pred, truth))
        for folder, mask in (("pred", pred), ("truth", truth)):
            write_mask(home / folder / f"{index}.png", mask, voc_palette(classes))
    done = wsss("eval", "--pred", "pred", "--truth", "truth", "--num-classes", str(classes), "--json")
    assert done.returncode == 0, done.stderr
    scores = json.loads(done.stdout)
    areas = {name: [0] * classes for name in ("intersect", "union", "pred", "label")}
    for pred, truth in pairs:
        for p, t in zip(pred.ravel().tolist(), truth.ravel().tolist(), strict=True):
            if t != 255:
                areas["pred"][p] += 1
                areas["label"][t] += 1
                areas["intersect"][p] += p == t
                areas["union"][p] += 1
                areas["union"][t] += p != t
    for name, counts in areas.items():
        assert scores[name] == counts
        assert all(type(count) is int for count in scores[name])
    iou = [100 * i / u if u else None for i, u in zip(areas["intersect"], areas["union"], strict=True)]
    acc = [100 * i / n if n else None for i, n in zip(areas["intersect"], areas["label"], strict=True)]
    assert iou[4] is scores["iou"][4] is scores["acc"][4] is None
    assert scores["iou"][:4] == pytest.approx(iou[:4])
    assert scores["acc"][:4] == pytest.approx(acc[:4])
    assert scores["miou"] == pytest.approx(sum(iou[:4]) / 4)
    assert scores["macc"] == pytest.approx(sum(acc[:4]) / 4)
    assert scores["aacc"] == pytest.approx(100 * sum(areas["intersect"]) / sum(areas["label"]))


@pytest.mark.parametrize(("background", "held"), [(0, "0 and 255"), (255, "255")])
def test_true_masks_in_which_objects_are_255_are_refused(wsss, home, background, held):
    """All that is scored of them is background: 100 per cent."""
    for folder, blank, label in (("found", 0, 1), ("wrong", background, 255)):
        mask = np.full((9, 11), blank, np.uint8)
        mask[2:5, 3:8] = label
        write_mask(home / folder / "a.png", mask, voc_palette(2))
    done = wsss("eval", "--pred", "found", "--truth", "wrong", "--num-classes", "2")
    assert done.returncode == 3 and f"the true masks in wrong hold {held} only: are objects 255?" in one_error(done)


def test_eval_of_a_folder_of_cams_is_the_curve_of_the_run(wsss, demo):
    cams, truth = f"{demo['runs']['cam']}/cams", f"{DATA}/SegmentationClass"
    done = wsss("eval", "--pred", cams, "--truth", truth, "--num-classes", "6", "--json")
    assert done.returncode == 0, done.stderr
    curve = json.loads(done.stdout)
    assert (curve["best"]["miou"], curve["best_threshold"]) == (demo["seed_miou"], demo["seed_threshold"])
    assert len(curve["miou"]) == len(curve["fp"]) == len(curve["fn"]) == len(curve["thresholds"])


def test_infer_names_what_it_cannot_read_does_the_others_and_goes_on(wsss, home, demo):
    photos = home / "photos"
    photos.mkdir()
    good = [home / DATA / "JPEGImages" / f"val_{index:06d}.jpg" for index in range(3)]
    for path in good[:2]:
        shutil.copy(path, photos)
    (photos / "torn.jpg").write_bytes(good[2].read_bytes()[:1500])
    (photos / "notes.txt").write_text("no photograph")
    run = demo["runs"]["train_weak"]
    done = wsss("infer", run, "photos", str(good[2]), "--out", "predicted", "--json")
    assert done.returncode == 3
    made = json.loads(done.stdout)
    assert (made["images"], made["kept"]) == (3, 0)
    assert [entry["id"] for entry in made["lost"]] == ["photos/torn.jpg"]
    assert "torn.jpg" in one_error(done)
    names = {path.stem for path in good}
    assert {path.stem for path in (home / "predicted/masks").iterdir()} == names
    assert {path.stem for path in (home / "predicted/overlays").iterdir()} == names
    first = read_mask(home / "predicted/masks" / f"{good[0].stem}.png")
    assert first.shape == (128, 128)
    assert first.max() < 6

    (photos / "torn.jpg").write_bytes(good[2].read_bytes())
    done = wsss("infer", run, "photos/*.jpg", "--out", "predicted")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "1 mask in predicted/masks (2 were there already)"
    assert (home / "predicted/masks/torn.png").is_file()


def test_a_dry_run_says_what_it_knows_without_a_data_set(wsss):
    done = wsss("train", "--preset", "toy", "--data", "nowhere", "--dry-run", "--json", *SETTINGS)
    assert done.returncode == 3
    shown = json.loads(done.stdout)
    expected = [(stage, False) for stage in ("classifier", "cam", "pseudo", "train")]
    assert [(step["stage"], step["done"]) for step in shown["stages"]] == expected
    assert [problem["message"][:22] for problem in shown["problems"]] == ["no data set at nowhere"]
    assert shown["missing"] == shown["problems"][0]["message"]
    assert shown["preset"]["train"]["iters"] == 4


def test_weights_that_nobody_can_fetch_are_all_named_within_seconds(tmp_path):
    prepare_toy(tmp_path / "data", images=2, val=1, size=64)
    splits = setting(*(f"dataset.{split}=train" for split in ("train", "score", "val")))
    arguments = ["run", "--preset", "deeplabv3p-r50-voc-weak", "--data", "data", *splits]
    nowhere = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "0"}
    keys = [f"{table}.backbone.weights" for table in ("classifier", "affinity.irn", "train")]
    for more in ((), ("--dry-run",), ("--dry-run", "--json")):
        begin = time.monotonic()
        done = command.wsss(tmp_path, *arguments, *more, **nowhere)
        assert time.monotonic() - begin < 60  # the hub's own client takes as long for one of them, before torch
        assert done.returncode == 3
        lines = done.stderr.splitlines()
        assert [line.split(": ")[1] for line in lines if line.startswith("error: ")] == keys
        assert all("http://127.0.0.1:9 does not answer: Connection refused" in line for line in lines[: len(keys)])
        assert "--json" in more or [line.split()[2] for line in lines if line.startswith("hint: ")] == [
            *(f"{key}=FILE" for key in keys),
            "backbone_weights=FOLDER",
        ]
        assert not (tmp_path / "runs").exists()
    shown = json.loads(done.stdout)
    assert [problem["message"].split(": ")[0] for problem in shown["problems"]] == keys
    assert {(stage["seconds"], stage["as"]) for stage in shown["stages"]} == {(None, None)}
    assert min(shown["disk"]["bytes"], shown["disk"]["free"]) > 0


def test_what_is_done_is_said_without_torch(home, demo):
    code = "import atexit, sys; atexit.register(lambda: print('torch' in sys.modules, file=sys.stderr))\n"
    code += "from wsss_cli.cli.app import main; main()"
    for name in ("cam", "pseudo", "train", "run"):
        arguments = [name, "--preset", "toy", "--data", DATA, "--runs", "X/runs", *SETTINGS]
        done = command.python(home, "-c", code, *arguments, "--json")
        assert done.returncode == 0, done.stderr
        assert [done.stderr.splitlines()[-1], "already done" in done.stderr] == ["False", True]
        shown = json.loads(done.stdout)
        if name == "run":
            assert shown["scores"]["cam"]["best"]["miou"] == demo["seed_miou"]
            assert shown["scores"]["eval"]["ms_flip"]["miou"] == demo["weak_miou_ms_flip"]
        else:
            assert shown["run"] == demo["runs"]["train_weak" if name == "train" else name]
        planned = command.wsss(home, *arguments, "--dry-run")
        assert "would run" not in planned.stdout and f"done: {'eval' if name == 'run' else name} (" in planned.stdout


# Kill and resume


def run_of(folder, stage):
    found = list(Path(folder).glob(f"{stage}-*"))
    return found[0] if found else None


def rows(runs):
    file = runs and run_of(runs, "train")
    return (file / "metrics.jsonl").read_text().count("\n") if file and (file / "metrics.jsonl").is_file() else 0


def test_a_training_stopped_and_killed_ends_with_the_bits_of_an_unbroken_one(tmp_path, started):
    prepare_toy(tmp_path / "data", images=8, val=1, size=64)
    train = ["train", "--preset", "toy", "--data", "data", "--iters", "30", *FULL]
    train += setting("train.precision=fp32", "train.data_workers=1", "train.batch=2", "train.crop=32")
    train += setting("train.head.aspp_channels=32", "train.checkpoint_interval=5", "train.log_interval=1")
    with core(1):
        unbroken = started(*train, "--runs", "whole")
    with core(0):
        stopped = started(*train, "--json")
    stopped.until(lambda: rows(tmp_path / "runs") >= 3)
    assert stopped.send(signal.SIGTERM, group=True) == 75, stopped.talk
    assert "error: stopped by SIGTERM" in stopped.talk
    assert "Traceback" not in stopped.talk
    record = read_json(run_of(tmp_path / "runs", "train") / "run.json")
    assert (record["state"], [attempt["exit"] for attempt in record["attempts"]]) == ("preempted", [75])
    before = rows(tmp_path / "runs")
    assert 3 <= before < 30

    with core(0):
        killed = started(*train)
    killed.until(lambda: rows(tmp_path / "runs") >= before + 6)
    assert killed.send(signal.SIGKILL) == -signal.SIGKILL
    assert read_json(run_of(tmp_path / "runs", "train") / "run.json")["state"] == "running"

    with (run_of(tmp_path / "runs", "train") / "LOCK").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # its worker process, too, has let go of it
    with core(0):
        last = started(*train)
    assert last.end() == 0, last.talk
    assert unbroken.end() == 0, unbroken.talk
    assert read_json(run_of(tmp_path / "runs", "train") / "run.json")["state"] == "done"
    files = [
        run_of(tmp_path / runs, "train") / "checkpoints/step-00000030/model.safetensors" for runs in ("runs", "whole")
    ]
    assert files[0].read_bytes() == files[1].read_bytes()
    logged = [
        [(row["step"], row["loss"]) for row in map(json.loads, (file.parents[2] / "metrics.jsonl").open())]
        for file in files
    ]
    assert [step for step, _ in logged[0]] == list(range(1, 31))
    assert logged[0] == logged[1]


def test_cams_and_pseudo_masks_interrupted_and_killed_go_on(tmp_path, started):
    prepare_toy(tmp_path / "data", images=27, val=1, size=256)  # three batches of CAMs
    common = ["--preset", "toy", "--data", "data"]
    common += setting(
        "classifier.iters=1", "classifier.batch=2", "classifier.crop=64", "cam.scales=[0.5]", "cam.flip=false"
    )
    ids = {f"train_{index:06d}" for index in range(27)}

    def made(stage, what):
        run = run_of(tmp_path / "runs", stage)
        return {path.stem for path in (run / what).glob("[!.]*")} if run else set()

    cam = started("cam", *common)
    cam.until(lambda: made("cam", "cams"))
    assert cam.send(signal.SIGINT, group=True) == 130, cam.talk
    assert "error: interrupted" in cam.talk
    assert "Traceback" not in cam.talk
    assert read_json(run_of(tmp_path / "runs", "cam") / "run.json")["state"] == "preempted"
    before = made("cam", "cams")
    assert 0 < len(before) < 27

    cam = started("cam", *common)
    cam.until(lambda: len(made("cam", "cams")) > len(before))
    assert cam.send(signal.SIGKILL) == -signal.SIGKILL

    pseudo = started("pseudo", *common)  # finishes the CAMs first
    pseudo.until(lambda: made("pseudo", "masks"))
    assert pseudo.send(signal.SIGKILL) == -signal.SIGKILL
    assert read_json(run_of(tmp_path / "runs", "cam") / "run.json")["state"] == "done"
    assert made("cam", "cams") == ids
    assert len(made("pseudo", "masks")) < 27

    done = started("pseudo", *common, "--json")
    assert done.end() == 0, done.talk
    run = run_of(tmp_path / "runs", "pseudo")
    assert read_json(run / "run.json")["lost"] == []
    assert made("pseudo", "masks") == made("pseudo", "confidence") == ids
    for name in ids:
        mask = read_mask(run / "masks" / f"{name}.png")
        assert mask.shape == (256, 256)
        assert set(np.unique(mask)) <= {0, 1, 2, 3, 4, 5, 255}
        assert read_mask(run / "confidence" / f"{name}.png").shape == (256, 256)


# Bad input

FULL_DISK = """
import os
real, left = os.fsync, [5]
def fsync(handle):
    if ".npz." in os.readlink(f"/proc/self/fd/{handle}"):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(28, "No space left on device")
    real(handle)
os.fsync = fsync
"""
REFUSED = {  # name: (arguments, exit code, what the one line names)
    "image": (["cam", "--data", "torn", "--runs", "r-image", "--json"], 3, ["train_000003"]),
    "train": (
        ["train", "--data", "masks", "--runs", "r-train", "--json", *FULL],
        3,
        ["3 items", "all else is done"],
    ),
    "busy": (["train", "--data", DATA, "--runs", "X/begun", *FULL], 6, ["in use by another process", "train-toy-"]),
    "truncated": (["eval", "X/runs/cut"], 3, ["X/runs/cut/checkpoints/step-00000004/model.safetensors", "damaged"]),
    "classifier": (["cam", "--data", DATA, "--runs", "r-h1", "--weights", "plain.pt"], 3, ["plain.pt refused"]),
    "backbone": (
        ["cam", "--data", DATA, "--runs", "r-h2", "--set", 'classifier.backbone.weights="zip.pt"'],
        3,
        ["zip.pt"],
    ),
    "cuda": (["train", "--data", DATA, "--runs", "r-x", "--device", "cuda"], 2, ["--device cuda", "no usable CUDA"]),
    "device": (["train", "--data", DATA, "--runs", "r-x", "--device", "gpu"], 2, ["--device gpu"]),
    "empty": (["train", "--data", "empty", "--runs", "r-x", *FULL], 3, ["split 'train'", "empty"]),
    "no data": (["run", "--data", "nothing", "--runs", "r-x"], 3, ["no data set at nothing"]),
    "disk": (["cam", "--data", DATA, "--runs", "r-disk"], 3, ["cannot write", ".npz: No space left on device"]),
}


class Hostile:
    def __reduce__(self):
        return Path.touch, (Path("payload-ran"),)


@pytest.fixture(scope="module")
def refused(home, demo):
    """Every command of REFUSED, two at a time."""
    for folder in ("torn", "masks", "empty"):
        shutil.copytree(home / DATA, home / folder)
    for folder in ("torn", "masks"):
        photo = home / folder / "JPEGImages/train_000003.jpg"
        photo.write_bytes(photo.read_bytes()[:1000])
    masks = home / "masks/SegmentationClass"
    write_mask(masks / "train_000005.png", np.zeros((128, 100), np.uint8), voc_palette(6))
    write_mask(masks / "train_000007.png", np.full((128, 128), 77, np.uint8), voc_palette(6))
    (home / "empty/splits/train.csv").write_text("id,image,mask,labels\n")
    shutil.copytree(home / demo["runs"]["train_full"], home / "X/runs/cut")
    weights = home / "X/runs/cut/checkpoints/step-00000004/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    begun = home / "X/begun" / Path(demo["runs"]["train_full"]).name
    shutil.copytree(home / demo["runs"]["train_full"], begun)
    write_json(begun / "run.json", {**read_json(begun / "run.json"), "state": "running"})
    (home / "plain.pt").write_bytes(pickle.dumps(Hostile()))
    torch.save({"state_dict": Hostile()}, home / "zip.pt")
    hook = home / "hook" / "sitecustomize.py"
    hook.parent.mkdir()
    hook.write_text(FULL_DISK)
    full = command.hooked(hook)

    lanes = queue.SimpleQueue()
    for number in (0, 1):
        lanes.put(number)

    def one(name):
        arguments = REFUSED[name][0]
        preset = [] if arguments[0] == "eval" else ["--preset", "toy", *SETTINGS]
        number = lanes.get()
        try:
            with core(number):
                return command.wsss(home, *arguments, *preset, **(full if name == "disk" else {}))
        finally:
            lanes.put(number)

    with (begun / "LOCK").open() as lock, ThreadPoolExecutor(2) as pool:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return dict(zip(REFUSED, pool.map(one, REFUSED), strict=True))


@pytest.mark.parametrize("name", REFUSED)
def test_bad_input_is_one_line_that_names_it_and_its_exit_code(refused, name):
    done = refused[name]
    assert done.returncode == REFUSED[name][1], done.stderr
    error = one_error(done)
    for part in REFUSED[name][2]:
        assert part in error


def test_cams_of_all_images_but_the_torn_one_are_made(home, refused):
    assert "train_000003.jpg cannot be decoded" in refused["image"].stderr
    made = json.loads(refused["image"].stdout)
    assert [entry["id"] for entry in made["lost"]] == ["train_000003"]
    assert len(list((home / made["run"] / "cams").glob("*.npz"))) == 15
    record = read_json(home / made["run"] / "run.json")
    assert (record["state"], record["lost"]) == ("done", made["lost"])


def test_a_training_goes_on_without_what_it_cannot_use(home, refused):
    made = json.loads(refused["train"].stdout)
    lost = {entry["id"]: entry["reason"] for entry in made["lost"]}
    assert lost.keys() == {"train_000003", "train_000005", "train_000007"}
    assert "cannot be decoded" in lost["train_000003"]
    assert "train_000005.png is 100x128, its image is 128x128" in lost["train_000005"]
    assert "train_000007.png has the value 77, which is no class: they are 0..5 (and 255)" in lost["train_000007"]
    assert (home / made["run"] / "checkpoints/step-00000004/model.safetensors").is_file()


def test_nothing_of_a_hostile_file_runs(home, refused):
    assert not (home / "payload-ran").exists()
    for name in ("plain.pt", "zip.pt"):
        with contextlib.suppress(Exception):
            torch.load(home / name, weights_only=False)  # the payload is live
    assert Path("payload-ran").exists()
    Path("payload-ran").unlink()


def test_a_full_disk_leaves_whole_files_only_and_the_run_goes_on_later(home, refused):
    run = run_of(home / "r-disk", "cam")
    assert read_json(run / "run.json")["state"] == "failed"
    cams = list((run / "cams").iterdir())
    assert len(cams) == 5
    assert all(read_cam(path)[2] == (128, 128) for path in cams)
    assert half_written(home) == []
    done = command.wsss(home, "cam", "--preset", "toy", *SETTINGS, "--data", DATA, "--runs", "r-disk")
    assert done.returncode == 0, done.stderr
    assert len(list((run / "cams").glob("*.npz"))) == 16


def test_an_unknown_key_and_a_bad_value_are_named(wsss):
    unknown = wsss("cam", "--preset", "toy", "--data", DATA, "--set", "classifier.iterz=3")
    assert unknown.returncode == 2
    assert "unknown key classifier.iterz" in one_error(unknown)
    assert "classifier.iters" in unknown.stderr
    bad = wsss("pseudo", "--preset", "toy", "--data", DATA, "--set", 'pseudo.steps=[{kind="crf", gt_prob=1.5}]')
    assert bad.returncode == 2
    assert "pseudo.steps.0.gt_prob" in one_error(bad)


# Rounds


def test_a_second_round_trains_on_masks_of_the_first_network_and_is_done_once(home, demo):
    again = ["train", "--preset", "toy", "--data", DATA, "--runs", "X/rounds", "--masks", demo["runs"]["pseudo"]]
    again += [*SETTINGS, *setting("train.iters=2", "rounds=2", "relabel.scales=[1.0]", "relabel.min_confidence=0.5")]
    done = command.wsss(home, *again)
    assert done.returncode == 0, done.stderr
    assert "== relabel (2 of 3)" in done.stderr
    made = run_of(home / "X/rounds", "pseudo")
    inputs = read_json(made / "inputs.json")
    assert Path(inputs["train_run"]).name.startswith("train-toy-")
    tagged = {s.id: {0, 255, *s.labels} for s in open_dataset(home / DATA).split("train")}
    masks = sorted((made / "masks").glob("*.png"))
    assert {path.stem for path in masks} == tagged.keys()
    assert all(set(np.unique(read_mask(path)).tolist()) <= tagged[path.stem] for path in masks)
    assert read_json(made / "eval.json")["background"]["miou"] > 0
    trainings = {path.name: read_json(path / "inputs.json") for path in (home / "X/rounds").glob("train-*")}
    sources = {Path(inputs["pseudo_run"]).name for inputs in trainings.values()}
    assert sources == {Path(demo["runs"]["pseudo"]).name, made.name}
    last = Path(done.stdout.strip())
    assert Path(trainings[last.name]["pseudo_run"]).name == made.name

    once_more = command.wsss(home, *again)
    assert once_more.returncode == 0, once_more.stderr
    assert "already done" in once_more.stderr
    assert once_more.stdout == done.stdout

    shown = command.wsss(home, "eval", str(made))
    assert shown.returncode == 0
    assert "labelled by a network" in shown.stdout


def test_a_run_of_two_rounds_shows_the_masks_of_both(home, demo):
    more = setting("train.iters=2", "rounds=2", "relabel.scales=[1.0]", "eval.scales=[1.0]", "classifier.iters=2")
    done = command.wsss(home, "run", "--preset", "toy", "--data", DATA, "--runs", "X/both", *SETTINGS, *more)
    assert done.returncode == 0, done.stderr
    made = sorted((home / "X/both").glob("pseudo-*"))
    assert len(made) == 2
    lines = [line for line in done.stdout.splitlines() if line.startswith(("pseudo mask mIoU", "the same, last round"))]
    miou = {f"{read_json(run / 'eval.json')['background']['miou']:.2f}" for run in made}
    assert [len(lines), {line.split()[-1] for line in lines}] == [2, miou]
