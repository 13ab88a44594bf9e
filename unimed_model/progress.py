"""How far training has come, on stderr: a line that stays in place in a terminal, a line per tenth elsewhere."""

import sys
import time
from collections import deque
from collections.abc import Callable
from typing import IO, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from .train_log import TrainLog, WeightedMean

_REFRESH = 0.1
"""Least seconds between two looks of the line."""
_WINDOW = 100
"""Looks that the rate is taken over."""
_SMOOTHING = 0.05
"""Weight of the newest loss."""
_WIDE = 100
"""Columns of a terminal that has room for a bar beside the words."""


class ProgressLine(TrainerCallback):
    """Steps, smoothed loss, learning rate, samples per second and time left.

    Args:
        log: knows loss, learning rate and samples.
        stream: where it is written; None: stderr.
        clock: returns seconds.
    """

    def __init__(
        self, log: TrainLog, stream: IO[str] | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._log = log
        self._stream = stream or sys.stderr
        self._clock = clock
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._loss = WeightedMean()
        self._marks: deque[tuple[float, int, int]] = deque(maxlen=_WINDOW)
        self._tenth = 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Open the line."""
        self._marks.append((self._clock(), state.global_step, self._log.samples))
        self._tenth = _tenth(state)
        console = Console(file=self._stream, force_jupyter=False)
        # not `console.is_terminal`, which FORCE_COLOR makes true of a file
        if self._stream.isatty() and not console.is_dumb_terminal:
            self._bar = _bar(console)
            self._task = self._bar.add_task("", total=state.max_steps, completed=state.global_step, said="")
            self._bar.start()
        else:
            self._marks = deque(self._marks, maxlen=1)  # a line tells of what came since the last

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Say what the step brought, if it is time to."""
        if self._log.loss is not None:
            self._loss.add(self._log.loss, 1)
            # so many earlier losses weigh as much as the newest one
            self._loss.weight = min(self._loss.weight, 1 / _SMOOTHING - 1)
        now, last = self._clock(), state.global_step == state.max_steps
        if self._bar is not None and (now - self._marks[-1][0] >= _REFRESH or last):
            said = self._said(now, state)
            self._bar.update(self._task, completed=state.global_step, said=said, refresh=True)
        elif self._bar is None and _tenth(state) > self._tenth:
            self._tenth = _tenth(state)
            done = f"{state.global_step}/{state.max_steps} ({100 * state.global_step // state.max_steps} %)"
            print(f"training: {done}, {self._said(now, state)}", file=self._stream, flush=True)

    def _said(self, now: float, state: TrainerState) -> str:
        then, step, samples = self._marks[0]
        self._marks.append((now, state.global_step, self._log.samples))
        words = [f"loss {self._loss.value:.3f}"] if self._loss.weight else []
        words.append(f"lr {self._log.learning_rate:.1e}")
        if now > then and state.global_step > step:
            left = (state.max_steps - state.global_step) * (now - then) / (state.global_step - step)
            rate = (self._log.samples - samples) / (now - then)
            words += [f"{rate:,.{1 if rate < 100 else 0}f} samples/s", f"{_duration(left)} left"]
        return ", ".join(words)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Close the line."""
        self.close()

    def close(self) -> None:
        """Leave the line as it is and give the terminal back; also after an exception, and more than once."""
        bar, self._bar = self._bar, None
        if bar is not None:
            bar.stop()


def _bar(console: Console) -> Progress:
    bar = [BarColumn(bar_width=None)] if console.width >= _WIDE else []
    return Progress(
        TextColumn("training"),
        *bar,
        TextColumn("{task.completed:.0f}/{task.total:.0f} {task.percentage:.0f} %"),
        TextColumn("{task.fields[said]}"),
        console=console,
        auto_refresh=False,  # no thread: data workers may be forked
        redirect_stdout=False,  # stdout is for results
        expand=True,
    )


def _tenth(state: TrainerState) -> int:
    return 10 * state.global_step // max(1, state.max_steps)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
