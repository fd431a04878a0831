"""What two ranks make of a batch is what one makes of all of it."""

import json
import socket
import subprocess
from pathlib import Path

import pytest
from command import PATIENCE, environment, forking
from warm import Forked

SCRIPT = Path(__file__).with_name("two.py")
LOSSES = [
    "cross-entropy, all",
    "cross-entropy, valid",
    "cross-entropy, weight",
    "cross-entropy, balance",
    "cross-entropy, class weights",
    "cross-entropy, hard ones",
    "cross-entropy, hard by class",
    "cross-entropy, unsure ones",
    "focal",
    "dice",
    "dice, by class",
    "lovasz",
    "lovasz, by image",
    "gated crf",
    "tags",
    "consistency",
    "irn",
    "psa",
    "network",
]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    meeting = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    streams = (subprocess.DEVNULL, subprocess.PIPE)
    ranks = [
        Forked(forking(), ["python", str(SCRIPT), "out"], folder, environment(folder, RANK=rank, **meeting), streams)
        for rank in ("0", "1")
    ]
    for rank in ranks:
        _, said = rank.communicate(PATIENCE)
        assert rank.returncode == 0, said
    return [json.loads((folder / f"out.{rank}").read_text()) for rank in (0, 1)]


@pytest.mark.parametrize("name", LOSSES)
def test_shares_and_their_gradients_are_those_of_the_whole_batch(results, name):
    for rank in results:
        value, gradient, scale = rank[name]
        assert scale > 0
        assert value < 1e-6
        assert gradient < 1e-6 * scale


def test_batch_norm_has_the_statistics_and_the_names_of_one_rank(results):
    assert all(rank["statistics"][0] < 1e-6 and rank["keys"] for rank in results)


def test_rows_of_all_ranks_stand_in_the_order_of_ranks(results):
    assert [rank["concatenated"] for rank in results] == [[[0, 1, 2, 0, 1], [0, 3]], [[0, 1, 2, 0, 1], [3, 5]]]


def test_all_know_what_each_says_before_a_step(results):
    assert [rank["word"] for rank in results] == [[15, True, [["s0", "torn"], ["s1", "torn"]]]] * 2


def test_what_only_the_first_makes_all_have(results):
    assert [rank["first"] for rank in results] == ["by rank 0"] * 2
