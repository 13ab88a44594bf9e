"""Signals that ask training to stop."""

import os
import signal

import pytest

from unimed_model.stopping import StopRequest


def test_the_first_signal_is_the_reason(capfd):
    stop = StopRequest()
    with stop.listening():
        for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT):
            os.kill(os.getpid(), number)
    assert stop.signal is signal.SIGUSR1
    assert "once more Ctrl-C stops at once" in capfd.readouterr().err


@pytest.mark.parametrize("before", [(signal.SIGTERM, signal.SIGINT), (signal.SIGINT,), (signal.SIGINT, signal.SIGTERM)])
def test_a_second_ctrl_c_stops_at_once_whatever_came_first(before):
    stop = StopRequest(speaks=False)
    with stop.listening():
        for number in before:
            os.kill(os.getpid(), number)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert stop.signal is before[0]


def test_the_handlers_before_come_back():
    before = signal.getsignal(signal.SIGTERM)
    with StopRequest().listening():
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before
