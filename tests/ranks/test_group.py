import threading
from types import SimpleNamespace

import pytest

from wsss_cli.errors import Interrupted, ResourceError, UsageError
from wsss_cli.ranks import group
from wsss_cli.ranks.group import TIMEOUT_S, joined, timeout_s


def test_how_late_a_rank_may_be_is_a_setting_of_the_environment(monkeypatch):
    monkeypatch.delenv("WSSS_RANK_TIMEOUT", raising=False)
    assert timeout_s() == TIMEOUT_S
    monkeypatch.setenv("WSSS_RANK_TIMEOUT", "2.5")
    assert timeout_s() == 2.5


@pytest.mark.parametrize("text", ["ten", "0", "-1", "nan", "inf"])
def test_what_is_no_time_is_refused(monkeypatch, text):
    monkeypatch.setenv("WSSS_RANK_TIMEOUT", text)
    with pytest.raises(UsageError, match="a number above 0"):
        timeout_s()


@pytest.fixture
def rank_of_eight(monkeypatch):
    for name, value in {"RANK": "0", "WORLD_SIZE": "8", "LOCAL_RANK": "0", "MASTER_ADDR": "here"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MASTER_PORT", "1")
    monkeypatch.setattr(group, "here", lambda: SimpleNamespace(rank=0, world=8))  # the true one remembers
    monkeypatch.setattr(group, "_check", group._check)  # put back afterwards


def test_who_waits_for_others_says_so_and_can_be_stopped(rank_of_eight, monkeypatch, capsys):
    come = threading.Event()
    monkeypatch.setattr(group, "rendezvous", lambda url, timeout: iter([(come.wait(10), 0, 8)]))
    monkeypatch.setattr(group, "SILENT_S", 0.0)
    looked = []

    def check():
        looked.append(0)
        if len(looked) > 2:
            raise Interrupted("stopped", "")

    with pytest.raises(Interrupted), joined(check, print):
        raise AssertionError
    come.set()
    assert capsys.readouterr().out == (
        "waiting for other ranks (RANK=0, WORLD_SIZE=8, MASTER_ADDR=here, MASTER_PORT=1); of one process alone, unset "
        "RANK and WORLD_SIZE\n"
    )


def test_ranks_that_do_not_meet_are_said_to_be_that(rank_of_eight, monkeypatch):
    def fail(url, timeout):
        raise ValueError("no port")

    monkeypatch.setattr(group, "rendezvous", fail)
    with (
        pytest.raises(ResourceError, match="did not find the others: no port"),
        joined(lambda: None, print),
    ):
        raise AssertionError
