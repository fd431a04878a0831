import contextlib
import os
import pickle
from pathlib import Path

import pytest
import torch
from torch import nn

from wsss_cli.engine.checkpoint import load_newest, load_trainer, load_weights, mark_best, save_checkpoint
from wsss_cli.engine.pointers import find_checkpoint
from wsss_cli.errors import WeightsError, WriteError
from wsss_cli.files import read_json, remove_temporaries, sha256_file, write_json


def net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))


def save(folder, step, seed=0):
    return save_checkpoint(folder, step, net(seed), {"optimiser": {"lr": 0.5, "m": torch.ones(2)}}, {"note": "x"})


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_checkpoint_comes_back(tmp_path):
    target = save(tmp_path, 12000, seed=3)
    assert target == find_checkpoint(tmp_path) == tmp_path / "step-00012000"
    assert names(target) == ["meta.json", "model.safetensors", "trainer.pt"]
    state, meta = load_weights(target)
    assert (meta["step"], meta["note"]) == (12000, "x")
    expected = net(3).state_dict()
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[key], expected[key]) for key in expected)
    trainer = load_trainer(target)
    assert trainer["optimiser"]["lr"] == 0.5
    assert torch.equal(trainer["optimiser"]["m"], torch.ones(2))


def test_weights_in_channels_last_come_back(tmp_path):
    model = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    state, _ = load_weights(save_checkpoint(tmp_path, 1, model, {}, {}))
    assert torch.equal(state["weight"], model.weight)


def test_the_older_go_and_the_one_before_and_the_best_stay(tmp_path):
    for step in (10, 20):
        save(tmp_path, step)
    assert names(tmp_path) == ["latest", "step-00000010", "step-00000020"]
    mark_best(tmp_path, 20)
    for step in (30, 40, 50):
        save(tmp_path, step)
    assert names(tmp_path) == ["best", "latest", "step-00000020", "step-00000040", "step-00000050"]
    assert find_checkpoint(tmp_path, "best") == tmp_path / "step-00000020"
    mark_best(tmp_path, 50)
    assert names(tmp_path) == ["best", "latest", "step-00000040", "step-00000050"]


def test_where_there_is_none_there_is_none(tmp_path):
    assert find_checkpoint(tmp_path / "nothing") is None
    save(tmp_path, 1)
    assert find_checkpoint(tmp_path, "best") is None


def test_a_checkpoint_that_was_taken_away_gives_way_to_the_one_before(tmp_path):
    save(tmp_path, 10)
    mark_best(tmp_path, 10)
    for file in (latest := save(tmp_path, 20)).iterdir():
        file.unlink()
    latest.rmdir()
    assert find_checkpoint(tmp_path) == tmp_path / "step-00000010"


@pytest.mark.parametrize("file", ["model.safetensors", "trainer.pt"])
@pytest.mark.parametrize("damage", ["cut", "changed", "missing"])
def test_a_damaged_file_is_refused(tmp_path, file, damage):
    target = save(tmp_path, 1)
    data = (target / file).read_bytes()
    if damage == "missing":
        (target / file).unlink()
    else:
        (target / file).write_bytes(data[: len(data) // 2] if damage == "cut" else data[:-1] + bytes([data[-1] ^ 1]))
    load = load_weights if file == "model.safetensors" else load_trainer
    with pytest.raises(WeightsError, match=file) as caught:
        load(target)
    assert caught.value.exit_code == 3
    assert "remove this checkpoint" in caught.value.hint


@pytest.mark.parametrize("meta", ["missing", "{", "[]", "{}", '{"sha256": {}}'])
def test_a_damaged_meta_file_is_refused(tmp_path, meta):
    target = save(tmp_path, 1)
    (target / "meta.json").unlink() if meta == "missing" else (target / "meta.json").write_text(meta)
    for load in (load_weights, load_trainer):
        with pytest.raises(WeightsError, match=r"meta\.json"):
            load(target)


def test_a_truncated_model_with_a_matching_hash_is_refused(tmp_path):
    target = save(tmp_path, 1)
    (target / "model.safetensors").write_bytes((target / "model.safetensors").read_bytes()[:40])
    rehash(target, "model.safetensors")
    with pytest.raises(WeightsError, match="cannot be read"):
        load_weights(target)


class Hostile:
    def __init__(self, victim):
        self.victim = victim

    def __reduce__(self):
        return os.mkdir, (str(self.victim),)


@pytest.mark.parametrize("write", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value, 2))])
def test_a_hostile_pickle_is_refused_and_not_run(tmp_path, write):
    target = save(tmp_path / "c", 1)
    write({"optimiser": Hostile(tmp_path / "harm")}, target / "trainer.pt")
    rehash(target, "trainer.pt")
    with pytest.raises(WeightsError, match="nothing in it was run"):
        load_trainer(target)
    assert not (tmp_path / "harm").exists()
    with contextlib.suppress(RuntimeError):  # the attack is real
        torch.load(target / "trainer.pt", weights_only=False)
    assert (tmp_path / "harm").is_dir()


def rehash(target, file):
    meta = read_json(target / "meta.json")
    meta["sha256"][file] = sha256_file(target / file)
    write_json(target / "meta.json", meta)


def test_a_full_disk_keeps_the_checkpoint_before(tmp_path, monkeypatch):
    save(tmp_path, 10, seed=1)
    real, calls = os.fsync, []

    def full(handle):
        calls.append(handle)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        real(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(WriteError):
        save(tmp_path, 20)
    assert find_checkpoint(tmp_path) == tmp_path / "step-00000010"
    state, _ = load_weights(tmp_path / "step-00000010")
    assert torch.equal(state["0.weight"], net(1)[0].weight)
    monkeypatch.undo()
    save(tmp_path, 20)
    assert names(tmp_path) == ["latest", "step-00000010", "step-00000020"]


@pytest.mark.parametrize("at", ["rename", "latest"])
def test_an_end_between_the_files_the_rename_and_the_pointer_keeps_the_checkpoint_before(tmp_path, monkeypatch, at):
    save(tmp_path, 10, seed=1)
    real = Path.replace

    def end(path, target):
        if Path(target).name == ("step-00000020" if at == "rename" else "latest"):
            raise KeyboardInterrupt
        return real(path, target)

    monkeypatch.setattr(Path, "replace", end)
    with pytest.raises(KeyboardInterrupt):
        save(tmp_path, 20)
    monkeypatch.undo()
    remove_temporaries(tmp_path)
    state, _, meta = load_newest(tmp_path, print)
    assert meta["step"] == 10
    assert torch.equal(state["0.weight"], net(1)[0].weight)
    save(tmp_path, 15)
    assert names(tmp_path) == ["latest", "step-00000010", "step-00000015"]


def test_the_pointer_that_a_full_disk_left_out_is_written_when_training_goes_on(tmp_path):
    save(tmp_path, 5)
    (tmp_path / "latest").unlink()
    _, _, meta = load_newest(tmp_path, print)
    assert meta["step"] == 5
    assert (tmp_path / "latest").read_text() == "step-00000005\n"
