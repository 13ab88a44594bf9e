"""Signals that end training after the step at hand: preemption by a cluster, and Ctrl-C."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


class StopRequest:
    """Whether a signal has asked training to stop.

    Args:
        speaks: whether this process says on stderr that it heard Ctrl-C; of several processes one does.

    Attributes:
        signal: the one that came first; None: none did.
    """

    def __init__(self, speaks: bool = True) -> None:
        self.speaks = speaks
        self.signal: signal.Signals | None = None
        self._heard_ctrl_c = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take note of signals inside instead of dying of them; a second Ctrl-C interrupts at once.

        Signals that the process ignores already (Ctrl-C in the background of a shell) stay ignored. Outside the main
        thread Python lets nobody listen, and nothing is changed.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in SIGNALS}
        heard = [number for number in SIGNALS if before[number] is not signal.SIG_IGN]
        for number in heard:
            signal.signal(number, self._note)
        try:
            yield
        finally:
            for number in heard:
                signal.signal(number, before[number])

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal = self.signal or signal.Signals(number)
        if number != signal.SIGINT:
            return
        if self._heard_ctrl_c:
            raise KeyboardInterrupt
        self._heard_ctrl_c = True
        if self.speaks:
            print("\nSaving after this step; once more Ctrl-C stops at once.", file=sys.stderr)


def deaf_worker(_: int) -> None:
    """Start of a data worker: it inherits the listening, but must die of being terminated, and leave Ctrl-C to us."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
