"""What a short run shows on terminals of three widths and in a log, and the main help: as in the golden files."""

from pathlib import Path

import make_terminal
import pytest
from command import wsss

GOLDEN = Path(make_terminal.__file__).parent


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    return make_terminal.shown(tmp_path_factory.mktemp("terminal"), make_terminal.WIDTHS)


@pytest.mark.slow
@pytest.mark.parametrize("name", make_terminal.WIDTHS)
def test_a_run_shows_what_it_did(shown, name):
    """Where a change is meant: python tests/golden/make_terminal.py, and read the difference."""
    assert shown[name] == (GOLDEN / f"terminal-{name}.txt").read_text(encoding="utf-8")


def test_the_main_help_is_as_it_was(tmp_path):
    assert wsss(tmp_path, "--help", COLUMNS="80").stdout == (GOLDEN / "help.txt").read_text(encoding="utf-8")


def test_a_screen_is_what_is_left_of_what_was_redrawn():
    assert make_terminal.screen("one\r\n\x1b[1mtwo\x1b[0m\r\n\x1b[1A\x1b[2KTWO\r\nthree", 80) == "one\nTWO\nthree\n"
    assert make_terminal.screen("abc\rx", 80) == "xbc\n"


def test_masks_hide_figures_and_nothing_else():
    text = "a-toy-0123abcd  1/4  25 %, 1.5/s\ncams  4/4  100 %, 3.5/s, 12 s left, lr 1.00e-02\nclasses: 5\n"
    assert make_terminal.masked(text) == "cams  4/4  # %, #/s, <time> left, lr #\nclasses: 5\n"
