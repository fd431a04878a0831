import os
import signal
import threading

import pytest

from wsss_cli.engine.stop import Stop
from wsss_cli.errors import Interrupted, Preempted


@pytest.mark.parametrize(
    ("number", "error", "code"), [(signal.SIGTERM, Preempted, 75), (signal.SIGINT, Interrupted, 130)]
)
def test_a_signal_is_noticed_at_the_next_check(number, error, code):
    stop = Stop()
    before = signal.getsignal(number)
    with stop.listening():
        stop.check()
        os.kill(os.getpid(), number)
        with pytest.raises(error) as caught:
            stop.check()
    assert caught.value.exit_code == code
    assert signal.getsignal(number) is before


def test_a_second_interrupt_stops_at_once():
    stop = Stop()
    with stop.listening(), pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        signal.sigtimedwait([], 1)  # the handler runs at the latest here


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
