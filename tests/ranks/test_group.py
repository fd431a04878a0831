import pytest

from wsss_cli.errors import UsageError
from wsss_cli.ranks.group import TIMEOUT_S, timeout_s


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
