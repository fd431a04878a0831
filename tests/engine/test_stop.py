import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from wsss_cli.engine import stop as module
from wsss_cli.engine.stop import Stop
from wsss_cli.errors import Interrupted, Preempted

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("number", "error", "code"),
    [
        (signal.SIGTERM, Preempted, 75),
        (signal.SIGHUP, Preempted, 75),
        (signal.SIGUSR1, Preempted, 75),
        (signal.SIGUSR2, Preempted, 75),
        (signal.SIGINT, Interrupted, 130),
    ],
)
def test_a_signal_is_noticed_at_the_next_check(number, error, code):
    said = []
    stop = Stop(said.append)
    before = signal.getsignal(number)
    with stop.listening():
        stop.check()
        os.kill(os.getpid(), number)
        with pytest.raises(error) as caught:
            stop.check()
    assert caught.value.exit_code == code
    more = "; once more ends at once" if code == 130 else ""
    assert said == [f"{number.name}: stopping after this step{more}"]
    assert signal.getsignal(number) is before


def test_a_second_interrupt_stops_at_once():
    stop = Stop()
    with stop.listening(), pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        signal.sigtimedwait([], 1)  # the handler runs at the latest here


def test_after_a_second_interrupt_the_process_ends_whatever_it_waits_for():
    code = (
        "import os, signal, threading; from wsss_cli.engine import stop; stop.HARD_END_S = 0.1\n"
        "with stop.Stop().listening():\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    try:\n"
        "        os.kill(os.getpid(), signal.SIGINT); signal.sigtimedwait([], 1)\n"
        "    finally:\n"
        "        threading.Event().wait()\n"
    )
    assert run(code) == (130, "")


def test_the_timer_of_a_second_interrupt_ends_with_the_work(monkeypatch):
    monkeypatch.setattr(module, "HARD_END_S", 0.05)
    test_a_second_interrupt_stops_at_once()
    time.sleep(0.2)  # this process goes on


def test_hangups_that_are_ignored_stay_so():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    stop = Stop()
    try:
        with stop.listening():
            os.kill(os.getpid(), signal.SIGHUP)
            stop.check()
    finally:
        signal.signal(signal.SIGHUP, before)


def run(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=ROOT)
    return done.returncode, done.stderr


@pytest.mark.parametrize(("name", "shown"), [("SIGTERM", "stopped by SIGTERM"), ("SIGINT", "interrupted")])
def test_where_nothing_is_to_be_saved_a_signal_ends_the_process_past_whoever_takes_exceptions(name, shown):
    code = (
        "import os, signal; from wsss_cli.engine.stop import Stopped, end_at_once; end_at_once()\n"
        "try:\n"
        "    try:\n"
        f"        os.kill(os.getpid(), signal.{name}); signal.sigtimedwait([], 1)\n"
        "    except Exception: pass\n"
        "except Stopped as stopped:\n"
        "    os.kill(os.getpid(), signal.SIGTERM)  # while it ends, more of them change nothing\n"
        "    raise SystemExit(f'{stopped.error.message} {stopped.error.exit_code}')\n"
    )
    assert run(code) == (1, f"{shown} {130 if name == 'SIGINT' else 75}\n")


def test_a_signal_that_a_library_takes_for_a_fault_of_its_own_is_still_a_signal():
    code = (
        "import os, signal, sys; from wsss_cli.cli import app\n"
        "def lost(*words, **options):\n"
        "    try: os.kill(os.getpid(), signal.SIGUSR1); signal.sigtimedwait([], 1)\n"
        "    except BaseException: raise RecursionError('an import within an import') from None\n"
        "app.app = lost; app.main()\n"
    )
    assert run(code) == (75, "error: stopped by SIGUSR1\nhint: run the same command again to go on\n")


def test_a_signal_that_became_a_fault_of_the_users_is_still_a_signal():
    code = (
        "import os, signal, sys; from wsss_cli.cli import app; from wsss_cli.errors import WeightsError\n"
        "def lost(*words, **options):\n"
        "    try: os.kill(os.getpid(), signal.SIGTERM); signal.sigtimedwait([], 1)\n"
        "    except BaseException: raise WeightsError('this network cannot be written as onnx') from None\n"
        "app.app = lost; app.main()\n"
    )
    assert run(code) == (75, "error: stopped by SIGTERM\nhint: run the same command again to go on\n")


def test_a_signal_that_a_library_has_swallowed_stops_what_listens_next():
    code = (
        "import os, signal; from wsss_cli.engine.stop import Stop, end_at_once; end_at_once()\n"
        "try: os.kill(os.getpid(), signal.SIGTERM); signal.sigtimedwait([], 1)\n"
        "except BaseException: pass\n"
        "with Stop().listening() as stop:\n"
        "    raise SystemExit(stop.signal != signal.SIGTERM)\n"
    )
    assert run(code) == (0, "")


def test_a_signal_after_the_end_changes_nothing():
    code = (
        "import os, signal; from wsss_cli.engine.stop import end_at_once, leave_on_signal\n"
        "end_at_once(); leave_on_signal(0)\n"
        "class Late:\n"
        "    def __del__(self, kill=os.kill, me=os.getpid(), number=signal.SIGUSR1): kill(me, number)\n"
        "import sys; sys.late = Late()  # goes when the interpreter has taken its handlers away\n"
        "raise SystemExit(3)\n"
    )
    assert run(code) == (3, "")


def test_a_command_that_listens_is_no_longer_ended_at_once():
    code = (
        "import os, signal; from wsss_cli.engine.stop import Stop, end_at_once; end_at_once()\n"
        "with Stop().listening() as stop:\n"
        "    os.kill(os.getpid(), signal.SIGUSR1)\n"
        "raise SystemExit(stop.signal != signal.SIGUSR1)\n"
    )
    assert run(code) == (0, "")


def test_a_second_sigterm_does_not_stop_at_once():
    stop = Stop()
    with stop.listening():
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)
    assert stop.signal == signal.SIGTERM


def test_another_thread_leaves_the_handlers_alone():
    before = signal.getsignal(signal.SIGTERM)
    seen = []

    def work():
        with Stop().listening():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]


def test_signals_are_heard_before_anything_that_takes_long_is_imported():
    code = "import sys, wsss_cli.__main__; print(*sys.modules, file=sys.stderr)"
    number, names = run(code)
    assert number == 0 and "wsss_cli.engine.stop" in names.split()
    assert not {"concurrent.futures", "multiprocessing", "typer", "wsss_cli.processes"} & set(names.split())
