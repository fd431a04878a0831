"""`wsss eval --shard`: several processes score one network, to the digit of one."""

import json
import shutil
import signal

import pytest
import torch
import typer
from test_evaluate import Colours, Stopping

from wsss_cli.cli import eval as command
from wsss_cli.cli import runs
from wsss_cli.config.load import load_preset
from wsss_cli.data import batches
from wsss_cli.data.dataset import open_dataset
from wsss_cli.data.sources.toy import CLASSES, prepare_toy
from wsss_cli.engine.context import Context
from wsss_cli.engine.shards import Shard, read_shards, shard_of
from wsss_cli.errors import BusyError, Interrupted, Preempted, UsageError
from wsss_cli.files import read_json
from wsss_cli.inference.network import Network
from wsss_cli.labels import voc_palette
from wsss_cli.locks import locked
from wsss_cli.scoring.partial import counted_of, evaluations_at
from wsss_cli.stages import evaluate, waiting
from wsss_cli.stages.eval_shards import run_eval_shard
from wsss_cli.stages.evaluate import open_evaluation, run_eval

IMAGES = 7


@pytest.fixture
def data(tmp_path):
    prepare_toy(tmp_path / "toy", images=1, val=IMAGES, size=64)
    return tmp_path / "toy"


@pytest.fixture
def score(data, tmp_path, monkeypatch):
    """Scores a network in a folder of the test, whole or a shard: what is returned."""
    monkeypatch.setattr(waiting, "POLL_S", 0.05)
    monkeypatch.setitem(batches.PIXELS_PER_BATCH, "cpu", 2 * 64 * 64)  # two images in a batch
    preset = load_preset("toy", ["eval.scales=[1.0]", "eval.crf.iterations=1"])
    models = {}

    def network(run, ctx, which):
        colors = voc_palette(6)
        return Network(models.get(run.name, Colours()), preset, CLASSES, colors, 4, str(data), "weak supervision")

    monkeypatch.setattr(evaluate, "load_network", network)

    def score(shard=None, run="run", ctx=None, model=None, **asked):
        folder = tmp_path / run
        folder.mkdir(exist_ok=True)
        models[run] = model or Colours()
        ctx, asked = ctx or Context(torch.device("cpu"), tmp_path), {"ms_flip": True, **asked}
        if shard is None:
            return run_eval(folder, ctx, **asked)
        return run_eval_shard(open_evaluation(folder, ctx, **asked), Shard(*shard), ctx)

    return score


def files_of(folder):
    """What an evaluation leaves, without the name of the folder."""
    scores = {key: value for key, value in read_json(folder / "eval.json").items() if key not in ("run", "file")}
    return json.dumps(scores), (folder / "eval.images.npz").read_bytes()


def names_of_shard(data, number, of):
    return [sample.id for sample in open_dataset(data).split("val") if shard_of(sample.id, of) == number]


@pytest.mark.parametrize("asked", [{}, {"crf": True, "boundary": True}], ids=["plain", "crf, boundaries"])
@pytest.mark.parametrize("order", [(1, 2, 3), (3, 1, 2)])
def test_shards_give_the_scores_of_one_process_and_the_last_writes_them(score, tmp_path, order, asked):
    score(run="whole", **asked)
    assert [score((number, 3), **asked) for number in order[:2]] == [None, None]
    assert not (tmp_path / "run" / "eval.json").exists()
    scores = score((order[2], 3), **asked)
    assert scores == read_json(tmp_path / "run" / "eval.json")
    assert files_of(tmp_path / "run") == files_of(tmp_path / "whole")
    assert sorted(file.name for file in (tmp_path / "run").iterdir()) == [
        ".eval.lock",
        "eval.images.npz",
        "eval.json",
    ]


def test_more_shards_than_images_give_the_same(score, tmp_path):
    score(run="whole")
    for number in range(1, 17):
        scores = score((number, 16))
        assert (scores is None) == (number < 16)
    assert files_of(tmp_path / "run") == files_of(tmp_path / "whole")


def test_a_shard_that_is_counted_is_not_counted_again_before_or_after_the_end(score, tmp_path):
    score((1, 2))
    again = Stopping()
    assert score((1, 2), model=again) is None
    assert again.seen == 0
    scores = score((2, 2))
    assert score((1, 2), model=again) == scores
    assert again.seen == 0
    assert score((1, 2), ms_flip=False) is None  # another evaluation, which the scores are not of
    assert (tmp_path / "run" / "eval.json").is_file()


def test_missing_shards_are_named_and_show_how_far_they_are(score, tmp_path, data, capsys):
    with pytest.raises(typer.Exit) as ended:
        command.evaluate(tmp_path / "run", ms_flip=True, shard="2/3", device="cpu")
    assert ended.value.exit_code == 0
    assert "1 of 3 shards are done; missing 1, 3" in capsys.readouterr().err
    (place,) = evaluations_at(tmp_path / "run")
    (_, listing), *_ = runs._evaluations(tmp_path / "run")
    count = len(names_of_shard(data, 2, 3))
    assert count
    assert [(one["shard"], one["state"], one["done"], one["items"]) for one in listing] == [
        ("1/3", None, 0, None),
        ("2/3", "done", count, count),
        ("3/3", None, 0, None),
    ]
    assert ("eval shards", "1 of 3 shards are done; missing 1, 3") in runs._shard_rows(place, listing, "eval ")
    with pytest.raises(typer.Exit):
        command.evaluate(tmp_path / "run", ms_flip=True, shard="1/3", device="cpu", json_output=True)
    assert json.loads(capsys.readouterr().out)["missing"] == [3]
    command.evaluate(tmp_path / "run", ms_flip=True, shard="3/3", device="cpu", json_output=True)
    assert json.loads(capsys.readouterr().out)["single"] == score(run="whole")["single"]
    assert evaluations_at(tmp_path / "run") == []


def test_a_stopped_shard_goes_on_where_it_stood(score, tmp_path, data, monkeypatch):
    monkeypatch.setitem(batches.PIXELS_PER_BATCH, "cpu", 64 * 64)
    count = max(len(names_of_shard(data, number, 2)) for number in (1, 2))
    number = next(number for number in (1, 2) if len(names_of_shard(data, number, 2)) == count)
    ctx = Context(torch.device("cpu"), tmp_path)
    with pytest.raises(Interrupted):
        score((number, 2), ctx=ctx, model=Stopping(ctx, 2), ms_flip=False)
    (place,) = evaluations_at(tmp_path / "run")
    assert [record.state for record in read_shards(place)] == ["preempted"]
    assert counted_of(place, Shard(number, 2)) == 2
    rest = Stopping()
    score((number, 2), model=rest, ms_flip=False)
    assert rest.seen == count - 2
    score((3 - number, 2), ms_flip=False)
    score(run="whole", ms_flip=False)
    assert files_of(tmp_path / "run") == files_of(tmp_path / "whole")


@pytest.mark.parametrize("damage", ["gone", "cut"])
def test_counts_that_are_gone_or_damaged_are_counted_again(score, tmp_path, damage):
    score((1, 2))
    (place,) = evaluations_at(tmp_path / "run")
    (file,) = (place / "shards").glob("*.counts.json")
    file.unlink() if damage == "gone" else file.write_text(file.read_text()[:-40])
    ctx = Context(torch.device("cpu"), tmp_path)
    said = []
    ctx.ui.say = said.append
    assert score((2, 2), ctx=ctx) is None
    assert said == [f"{file} is gone or damaged: shard 1/2 is to be counted again"]
    assert score((1, 2)) is not None
    score(run="whole")
    assert files_of(tmp_path / "run") == files_of(tmp_path / "whole")


def test_lost_images_are_those_of_one_process_and_are_tried_again(score, tmp_path, data):
    first, second = (names_of_shard(data, number, 2) for number in (1, 2))
    files = {sample.id: sample.image for sample in open_dataset(data).split("val")}
    whole = {name: files[name].read_bytes() for name in (first[0], first[1], second[0])}
    files[first[0]].write_bytes(b"torn")
    files[first[1]].write_bytes(whole[first[1]][:-30])
    files[second[0]].write_bytes(b"torn")
    scores = score(run="whole")
    assert len(scores["lost"]) == 3
    score((1, 2))
    score((2, 2))
    assert files_of(tmp_path / "run") == files_of(tmp_path / "whole")
    shutil.rmtree(tmp_path / "run")
    score((1, 2))
    for name, content in whole.items():
        files[name].write_bytes(content)
    score((1, 2))
    assert score((2, 2))["lost"] == []
    assert read_json(tmp_path / "run" / "eval.json")["single"] == score(run="mended")["single"]


def test_one_process_at_a_time_counts_a_shard_and_another_number_is_refused(score, tmp_path):
    score((1, 3))
    (place,) = evaluations_at(tmp_path / "run")
    with locked(Shard(2, 3).file(place, "lock"), "busy"):
        with pytest.raises(BusyError, match="shard 2/3"):
            score((2, 3))
        assert score((3, 3)) is None  # beside it
    with pytest.raises(UsageError, match="is divided by 3; 2 of 3 shards are done; missing 2"):
        score((1, 2))
    score()  # all at once: the scores are there, and shards have nothing to do
    assert evaluations_at(tmp_path / "run") == []
    idle = Stopping()
    assert score((1, 2), model=idle) and idle.seen == 0


def test_whoever_begins_waits_for_whoever_adds_up(score, tmp_path, monkeypatch):
    ctx = Context(torch.device("cpu"), tmp_path)
    score((1, 2))
    ctx.stop.signal = signal.SIGTERM
    with locked(tmp_path / "run" / ".eval.lock", "busy"), pytest.raises(Preempted):
        score((2, 2), ctx=ctx)


@pytest.mark.parametrize(
    "arguments",
    [("--pred", "a", "--truth", "b", "--num-classes", "3"), (), ("cam-toy-0",), ("pseudo-toy-0",)],
    ids=["folder", "no run", "cam", "pseudo"],
)
def test_what_is_not_divided_says_so(wsss, tmp_path, arguments):
    for stage in ("cam", "pseudo"):
        (tmp_path / f"{stage}-toy-0").mkdir()
        record = {"form": 1, "stage": stage, "preset": "toy", "identity": "x", "state": "done", "created": 0.0}
        record |= {"versions": {}, "argv": [], "attempts": []}
        (tmp_path / f"{stage}-toy-0" / "run.json").write_text(json.dumps(record))
    done = wsss("eval", *arguments, "--shard", "1/2")
    assert done.returncode == 2
    assert "--shard divides the images of a network that is scored, whose run is named" in done.stderr
    assert done.stderr.count("error:") == 1


def test_a_run_that_cannot_take_the_scores_is_seen_before_any_image(score, tmp_path, monkeypatch):
    (tmp_path / "run" / "eval.json").mkdir(parents=True)
    monkeypatch.setattr(evaluate, "count_evaluation", None)
    with pytest.raises(UsageError, match=r"eval\.json is a folder"):
        score()
