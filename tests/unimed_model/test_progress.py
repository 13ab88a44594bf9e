import io
import os
import re
import sys
import threading
from types import SimpleNamespace

import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

from unimed_model.progress import ProgressLine


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def run(stream, clock, *, steps, start=0, pace=1.0, stop_at=None, between=lambda step: None):
    """Drive the callback as the Trainer does, with a loss that falls from 5 by 1 % a step."""
    log = SimpleNamespace(loss=None, learning_rate=0.0, samples=0)
    line = ProgressLine(log, stream, clock)
    state, arguments, control = TrainerState(global_step=start, max_steps=steps), TrainingArguments, TrainerControl()
    try:
        line.on_train_begin(arguments, state, control)
        while state.global_step < steps:
            clock.now += pace
            state.global_step += 1
            log.loss, log.learning_rate, log.samples = 5 * 0.99**state.global_step, 2e-5, log.samples + 4
            line.on_step_end(arguments, state, control)
            between(state.global_step)
            if state.global_step == stop_at:
                raise KeyboardInterrupt
        line.on_train_end(arguments, state, control)
    finally:
        line.close()
        line.close()


def test_elsewhere_than_in_a_terminal_a_tenth_is_a_plain_line(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    stream = io.StringIO()
    run(stream, Clock(), steps=200)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 10
    assert lines[0].startswith("training: 20/200 (10 %), loss 4.5")
    assert lines[0].endswith("lr 2.0e-05, 4.0 samples/s, 0:03:00 left")
    assert lines[-1].startswith("training: 200/200 (100 %)")
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", stream.getvalue())


def test_a_short_run_says_each_step_once():
    stream = io.StringIO()
    run(stream, Clock(), steps=3)
    assert [line.split(",")[0] for line in stream.getvalue().splitlines()] == [
        "training: 1/3 (33 %)",
        "training: 2/3 (66 %)",
        "training: 3/3 (100 %)",
    ]


def test_a_run_that_goes_on_judges_its_time_by_this_session():
    stream = io.StringIO()
    run(stream, Clock(), steps=100, start=50, pace=2.0)
    first, *rest = stream.getvalue().splitlines()
    assert first.startswith("training: 60/100 (60 %)")
    assert first.endswith("2.0 samples/s, 0:01:20 left")
    assert len(rest) == 4


def test_the_rate_follows_what_is_recent():
    clock, stream = Clock(), io.StringIO()

    def slow_down(step):
        if step > 1000:
            clock.now += 3.0

    run(stream, clock, steps=2000, between=slow_down)
    assert " 1.0 samples/s" in stream.getvalue().splitlines()[-1]


@pytest.fixture
def terminal(monkeypatch):
    """A pseudo-terminal of 100 columns, and what was written to it."""
    pty = pytest.importorskip("pty")
    for name in ("NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    controller, own = pty.openpty()
    seen = []

    def read():
        try:
            while chunk := os.read(controller, 4096):
                seen.append(chunk)
        except OSError:  # the other end is closed
            pass

    reader = threading.Thread(target=read)
    reader.start()
    stream = os.fdopen(own, "w", encoding="utf-8")

    def written():
        stream.close()
        reader.join(10)
        return b"".join(seen).decode()

    yield stream, written
    if not stream.closed:
        written()
    os.close(controller)


def looks(text):
    """The states of the line, in order."""
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    return [look.strip() for look in re.split(r"[\r\n]+", plain) if look.strip()]


def test_in_a_terminal_one_line_stays_in_place(terminal):
    stream, written = terminal
    clock = Clock()
    run(stream, clock, steps=40, pace=0.025)
    text = written()
    shown = looks(text)
    assert 10 <= len(shown) <= 13  # one look per tenth of a second, not per step
    assert text.count("\n") == 1  # at the end
    assert "40/40 100 %" in shown[-1]
    losses = [5 * 0.99**step for step in range(1, 41)]
    smoothed = sum(losses[:20]) / 20  # the mean until there are enough, then each new loss weighs 5 %
    for loss in losses[20:]:
        smoothed = 0.95 * smoothed + 0.05 * loss
    assert f"loss {smoothed:.3f}" in shown[-1]
    assert all(look.startswith("training") and len(look) <= 100 for look in shown)
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1  # the cursor comes back


def test_in_a_narrow_terminal_the_words_fit_without_the_bar(terminal, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    stream, written = terminal
    run(stream, Clock(), steps=100_000, start=99_990, pace=0.01)
    last = looks(written())[-1]
    assert last.startswith("training 100000/100000 100 % loss ")
    assert last.endswith(", lr 2.0e-05, 400 samples/s, 0:00:00 left")
    assert "━" not in last


def test_an_interruption_gives_the_terminal_back(terminal):
    stream, written = terminal
    before = sys.stderr
    with pytest.raises(KeyboardInterrupt):
        run(stream, Clock(), steps=40, stop_at=7)
    assert sys.stderr is before
    text = written()
    assert text.endswith("\n\x1b[?25h")  # the cursor comes back
    assert "7/40 18 %" in looks(text)[-1]


def test_results_on_stdout_are_left_alone(terminal, capsys):
    stream, written = terminal
    run(stream, Clock(), steps=3, between=lambda step: print(f"result {step}"))
    assert capsys.readouterr().out == "result 1\nresult 2\nresult 3\n"
    assert "result" not in written()


def test_a_terminal_that_cannot_move_its_cursor_gets_plain_lines(terminal, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    stream, written = terminal
    run(stream, Clock(), steps=3)
    text = written()
    assert "\x1b" not in text
    assert len(looks(text)) == 3
