"""`wsss infer --shard`: several processes fill one folder of predictions."""

import pytest
import torch
from test_infer import Sees, photograph

from wsss_cli.config.load import load_preset
from wsss_cli.engine.context import Context
from wsss_cli.engine.shards import Shard, shard_of
from wsss_cli.errors import BusyError, Preempted, UsageError
from wsss_cli.inference.journal import noted_items
from wsss_cli.inference.network import Network
from wsss_cli.locks import locked
from wsss_cli.stages import waiting
from wsss_cli.stages.infer import run_infer

NAMES = [f"photo{number}" for number in range(8)]


@pytest.fixture
def infer(tmp_path, monkeypatch):
    monkeypatch.setattr(waiting, "POLL_S", 0.05)
    preset = load_preset("toy", ["eval.scales=[1.0]"])
    network = Network(Sees(), preset, tuple("abcdef"), ((0, 0, 0),) * 6, 3, "data/toy", "run 1")
    images = [photograph(tmp_path, name, 30 + 10 * (number % 3), 40) for number, name in enumerate(NAMES)]

    def infer(shard=None, out="out", ms_flip=False, ctx=None):
        ctx = ctx or Context(torch.device("cpu"), tmp_path)
        return run_infer(network, images, tmp_path / out, ctx, ms_flip=ms_flip, shard=shard and Shard(*shard))

    return infer


def contents(folder):
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.glob("*/*.png")}


def test_shards_make_what_one_command_makes_and_name_what_is_missing(infer, tmp_path):
    infer(out="whole")
    of = [sum(shard_of(name, 3) == number for name in NAMES) for number in (1, 2, 3)]
    assert all(of)
    second = infer((2, 3))
    assert (second["images"], second["missing"]) == (of[1], {"1/3": of[0], "3/3": of[2]})
    assert infer((1, 3))["missing"] == {"3/3": of[2]}
    again = infer((2, 3))
    assert (again["images"], again["kept"]) == (0, of[1])
    assert infer((3, 3))["missing"] == {}
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert set(noted_items(tmp_path / "out")) == set(NAMES)
    assert (infer()["images"], infer()["kept"]) == (0, 8)  # the whole command believes what shards have noted
    assert not list((tmp_path / "out" / "shards").glob("*.jsonl"))


def test_what_shards_noted_before_another_setting_is_not_believed_after_it(infer):
    for number in (1, 2):
        infer((number, 2))
    assert infer(ms_flip=True)["images"] == 8
    assert infer((1, 2))["images"] == sum(shard_of(name, 2) == 1 for name in NAMES)


def test_shards_work_beside_each_other_and_nobody_else_does(infer, tmp_path):
    infer((1, 3))
    with locked(Shard(2, 3).file(tmp_path / "out", "lock"), "busy"):
        with pytest.raises(BusyError, match="shard 2/3"):
            infer((2, 3))
        infer((3, 3))
        with pytest.raises(BusyError, match=r"shards of .* are at work: 2/3"):
            infer()
        with pytest.raises(UsageError, match=r"shard 2/3 is at work"):
            infer((1, 2))


def test_a_shard_waits_for_whoever_holds_the_folder(infer, tmp_path, monkeypatch):
    ctx = Context(torch.device("cpu"), tmp_path)
    infer((1, 2))
    monkeypatch.setattr(ctx.stop, "check", lambda: (_ for _ in ()).throw(Preempted("asked")))
    with locked(tmp_path / "out" / ".infer.lock", "busy"), pytest.raises(Preempted):
        infer((2, 2), ctx=ctx)
