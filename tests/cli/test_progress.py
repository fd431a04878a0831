"""How far work is: lines off a terminal, rows of a terminal of any width, no long silence."""

import io
import time

import pytest
import torch

from wsss_cli import talk
from wsss_cli.cli import console, progress
from wsss_cli.engine.meter import Meter

TRAIN = {"kind": "train", "loss": 0.5, "lr": 0.01, "img_s": 20.0, "data_wait": 0.25, "eta_s": 3700.0}


@pytest.fixture
def clock(monkeypatch):
    """What the clock shows, in seconds."""
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(progress, "_memory", lambda: "1.0 GiB")
    return now


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0 s"), (99, "99 s"), (100, "2 min"), (3540, "59 min"), (3599, "1 h 00 min"), (11100, "3 h 05 min")],
)
def test_seconds_in_words(seconds, words):
    assert talk.duration(seconds) == words
    assert talk.duration(100 * 3600) == "4 d 04 h"


def test_a_sweep_off_a_terminal_is_a_line_at_once_and_at_the_end(capsys, clock):
    with console.progress(4, "cams [b]of[/b] cats") as bar:
        for _ in range(4):
            clock[0] += 2.0
            bar.advance(1, miou=5)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "cams [b]of[/b] cats  0/4",
        "cams [b]of[/b] cats  1/4  25 %, 0.5/s, 1.0 GiB, 6 s left, miou 5",
        "cams [b]of[/b] cats  4/4  100 %, 0.5/s, 1.0 GiB, 0 s left, miou 5",
    ]


def test_a_training_off_a_terminal_has_a_line_soon_then_every_minute_and_each_validation(capsys, clock):
    times = []
    with console.training_progress("train", 700) as show:
        for step in range(10, 710, 10):
            show({**TRAIN, "step": step})
            clock[0] += 5.0
            if err := capsys.readouterr().err:
                times.append((step, err))
        show({"kind": "val", "step": 700, "miou": 61.234})
    assert [step for step, _ in times] == [10, 30, 70, 150, 250, 350, 450, 550, 650, 700]  # 10, 20, 40, 50, 50, ... s
    assert times[0][1] == (
        "train  10/700  1 %, loss 0.5000, 20.0 img/s, 1.0 GiB, 1 h 02 min left, lr 1.00e-02, data wait 25 %\n"
    )
    assert capsys.readouterr().err == "train  val at 700: mIoU 61.23\n"


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_row_of_a_terminal_shows_all_that_matters_at_any_width(width, monkeypatch, clock):
    monkeypatch.setenv("COLUMNS", str(width))
    screen = io.StringIO()
    screen.isatty = lambda: True
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stderr", screen)
    with console.training_progress("deeplabv3plus, weak", 40_000) as show:
        show({**TRAIN, "step": 12_000, "loss": 2.34567, "img_s": 123.45, "eta_s": 40_000.0})
        rows = progress._rows[0]
        lines = [line.rstrip() for line in drawn(rows, width)]
    assert len(lines) == 1
    assert len(lines[0]) <= width
    for part in (
        "deeplabv",
        "12000/40000",
        "loss 2.3457",
        "123.5 img/s",
        "11h07min" if width == 60 else "11 h 07 min left",
    ):
        assert part in lines[0]
    assert ("30 %" in lines[0], "━" in lines[0], "lr 1.00e-02" in lines[0]) == (width >= 80, width == 120, width == 120)


def drawn(rows, width):
    from rich.console import Console

    file = io.StringIO()
    Console(file=file, width=width, color_system=None, force_terminal=True).print(rows.get_renderable())
    return file.getvalue().splitlines()


def test_work_within_work_has_a_row_below_while_it_lasts(monkeypatch):
    screen = io.StringIO()
    screen.isatty = lambda: True
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stderr", screen)
    with console.training_progress("train", 4) as show:
        show({**TRAIN, "step": 1})
        with console.progress(2, "validation") as bar:
            bar.advance(1)
            assert [task.description for task in progress._rows[0].tasks] == ["train", "validation"]
        assert [task.description for task in progress._rows[0].tasks] == ["train"]
    assert (progress._rows, progress._stack) == ([], [])


def test_nothing_is_silent_for_more_than_a_minute(capfd, monkeypatch):
    monkeypatch.setattr(progress, "LONGEST_S", 1.0)
    monkeypatch.setattr(progress, "FIRST_S", 2.9)
    monkeypatch.setattr(progress, "_memory", lambda: "1.0 GiB")
    with console.progress(3, "CAMs") as bar:
        bar.advance(1)
        progress.watch()
        until = time.monotonic() + 60
        text = ""
        while "still at work: CAMs  1/3  33 %" not in text and time.monotonic() < until:
            time.sleep(0.2)
            text += capfd.readouterr().err
        bar.advance(1)  # it has just been said how far that is
    assert "still at work: CAMs  1/3  33 %" in text
    assert "\nCAMs  2/3" not in text + capfd.readouterr().err
    monkeypatch.setattr(talk, "_quiet", True)  # the thread goes on, unheard
    time.sleep(2.2)  # it looks once a second
    capfd.readouterr()
    time.sleep(2.2)
    assert capfd.readouterr().err == ""


def test_who_looks_on_is_told_of_the_first_step_and_then_once_a_second(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("wsss_cli.engine.meter.time.perf_counter", lambda: now[0])
    meter, events = Meter(100, torch.device("cpu")), []
    for step in range(1, 9):
        now[0] += 0.5
        meter.add(["x"], torch.tensor([2.0 * step, 2.0 * step]), 4)
        if (event := meter.glance(step)) is not None:
            events.append(event)
    assert [event["step"] for event in events] == [1, 3, 5, 7]
    assert events[1] == {"kind": "now", "step": 3, "img_s": 8.0, "eta_s": 48.5, "loss": 4.0}
