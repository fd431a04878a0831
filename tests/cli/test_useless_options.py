"""Options that say nothing of what is asked for are refused, not passed over."""

import pytest
from typer.testing import CliRunner

from wsss_cli.cli.app import app
from wsss_cli.config.load import load_preset
from wsss_cli.data.sources.toy import prepare_toy
from wsss_cli.engine.records import Inputs
from wsss_cli.engine.rundir import open_run
from wsss_cli.errors import UsageError

INPUTS = Inputs(dataset="data", classes=(), colors=())
FOLDER = "eval --pred pred --truth pred --num-classes 2"


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("home")
    prepare_toy(folder / "data", images=3, val=1, size=32)
    for stage in ("cam", "pseudo", "train", "classifier"):
        with open_run(folder / "runs" / stage, stage, load_preset("toy"), stage, INPUTS) as run:
            run.finish()
    for name in ("cams", "pred"):
        (folder / name).mkdir()
    (folder / "cams" / "a.npz").touch()
    (folder / "labels.csv").write_text("image,labels\ntrain_000000.jpg,cat\ntrain_000001.jpg,dog\n")
    return folder


@pytest.mark.parametrize(
    ("words", "options"),
    [
        *((f"eval runs/pseudo {more}", more.split()[0]) for more in ("--split val", "--data data", "--ms-flip")),
        *((f"eval runs/cam {more}", more.split()[0]) for more in ("--metrics dice", "--crf", "--gpus 2")),
        *((f"eval runs/{run} --undecided drop", "--undecided") for run in ("cam", "pseudo", "train")),
        (f"{FOLDER} --mode slide --best", "--best, --mode"),
        ("eval --pred cams --truth pred --num-classes 2 --metrics dice", "--metrics"),
        ("cam --preset toy --data data --set classifier.weights=runs/classifier --iters 3 --dry-run", "--iters"),
        ("prepare folder data/JPEGImages labels.csv --out made --val-fraction 0.5", "--val-fraction"),
        ("prepare labels data pred --share 0.5 --seed 1", "--share, --seed"),
        ("prepare labels data pred --box-fill none", "--box-fill"),
        ("prepare labels data --draw points --kind scribbles", "--kind"),
        ("prepare labels data --draw points --rename a=cat", "--rename"),
        ("prepare labels data --clear --split val", "--split"),
        ("export-masks runs/pseudo --out made --format coco --prefix here", "--prefix"),
        ("table --format csv --json", "--format"),
        ("show runs/train --photographs 3 --image a", "--photographs"),
        ("bench data --data data --height 100", "--height"),
        ("bench cam --data data --width 100", "--width"),
        ("submit --local --mem 3G --cpus 2 -- run --preset toy --data data", "--cpus, --mem"),
    ],
)
def test_an_option_that_would_be_passed_over_is_refused(home, monkeypatch, words, options):
    monkeypatch.chdir(home)
    ended = CliRunner().invoke(app, words.split())
    assert isinstance(ended.exception, UsageError), ended.output
    assert str(ended.exception).startswith(f"{options}: ") and ended.exception.hint


def test_options_of_their_default_value_pass(home, monkeypatch):
    monkeypatch.chdir(home)
    words = "prepare folder data/JPEGImages labels.csv --out as-ever --val-fraction 0.1 --seed 0"
    assert CliRunner().invoke(app, words.split()).exit_code == 0


@pytest.mark.parametrize("more", ["", " --dry-run"])
@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--logger nonsense", "there is no logger 'nonsense'"),
        ("--gpus 3 --set train.batch=2", "train: 2 images at a time for 3 ranks"),
        ("--gpus 3 --set classifier.batch=2", "classifier: 2 images at a time for 3 ranks"),
    ],
)
def test_a_dry_run_refuses_what_the_run_does_before_any_work(home, monkeypatch, words, said, more):
    monkeypatch.chdir(home)
    ended = CliRunner().invoke(app, f"run --preset toy --data data --runs none {words}{more}".split())
    assert isinstance(ended.exception, UsageError) and said in str(ended.exception), ended.output
    assert not (home / "none").exists()
