"""What happened in every step of training: lines on disk for later, and numbers for trackers now and then.

``training_log.jsonl`` has a line per step and holds no times, so that equal runs give equal bytes.
``performance.jsonl`` has a line per interval; ``routing_weights.csv`` is ``unimed_model.routing_log``'s.
"""

import json
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from .data.sample import TASKS
from .memory import peak_memory
from .routing_log import RoutingLog
from .step_lines import StepLines, step_of_json

LOG_FILE = "training_log.jsonl"
PERFORMANCE_FILE = "performance.jsonl"
MIXED = "mixed"
"""Stands for the dataset, or the task, of a batch that has samples of several."""


@dataclass
class WeightedMean:
    """A mean that grows; of a single value it is that value to the last bit."""

    value: float = 0.0
    weight: float = 0.0

    def add(self, value: float, weight: float) -> None:
        """Take in a value that stands for so many others."""
        if weight:
            self.weight += weight
            self.value += (value - self.value) * (weight / self.weight)

    @property
    def finite(self) -> float | None:
        """The mean; None where there is none or it is no finite number."""
        return finite(self.value) if self.weight else None


@dataclass
class _Step:
    """What the batches of a step had."""

    loss: WeightedMean = field(default_factory=WeightedMean)
    samples: Counter[str] = field(default_factory=Counter)
    tokens: int = 0


@dataclass
class _Interval:
    """Means since the numbers were last given."""

    steps: WeightedMean = field(default_factory=WeightedMean)
    tasks: dict[str, WeightedMean] = field(default_factory=dict)
    datasets: dict[str, WeightedMean] = field(default_factory=dict)
    norm: WeightedMean = field(default_factory=WeightedMean)
    largest_norm: float = 0.0

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> "_Interval":
        """Return the interval that ``asdict`` gave."""
        return cls(
            WeightedMean(**state["steps"]),
            {name: WeightedMean(**mean) for name, mean in state["tasks"].items()},
            {name: WeightedMean(**mean) for name, mean in state["datasets"].items()},
            WeightedMean(**state["norm"]),
            state["largest_norm"],
        )


@dataclass
class _Pace:
    """What was done since a moment, for rates."""

    since: float
    steps: int = 0
    samples: int = 0
    tokens: int = 0


class TrainLog:
    """The log of a run, kept by one process of those that train together.

    Call order: `rewind`, then for every step `batch` and `routing` for each of its batches and `step`; `summary` and
    `close` in the end. Of several processes' batches the first process is told: samples are counted over all of them,
    a loss is the mean over the tokens of the batch that it is told with.

    Args:
        folder: the run folder.
        every: steps of an interval, after which `step` returns numbers. The last interval may be shorter.
        tasks: dataset -> task.
        steps: of the whole run.
        warmup_steps: how many of them are the warm-up.
        clock: returns seconds.

    Attributes:
        loss: of the last step.
        learning_rate: of the last step.
        samples: that this process has logged since `rewind`.
    """

    def __init__(
        self,
        folder: Path,
        every: int,
        tasks: Mapping[str, str],
        *,
        steps: int,
        warmup_steps: int,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.every = every
        self.tasks = dict(tasks)
        self.steps = steps
        self.loss: float | None = None
        self.learning_rate = 0.0
        self.samples = 0
        self._clock = clock
        self._lines = StepLines(folder / LOG_FILE, step_of_json)
        self._performance = StepLines(folder / PERFORMANCE_FILE, step_of_json)
        self._routing = RoutingLog(folder, warmup_steps)
        self._step = _Step()
        self._interval = _Interval()
        self._pace: _Pace | None = None  # begins with the end of the process' first step, which takes longer

    def batch(self, datasets: Mapping[str, int], loss: float, tokens: int) -> None:
        """Take in a batch, or a part of one.

        Args:
            datasets: dataset -> number of samples.
            loss: mean over ``tokens``.
            tokens: answer tokens that the loss was taken on.
        """
        self._step.loss.add(loss, tokens)
        self._step.samples.update(datasets)
        self._step.tokens += tokens
        tasks = {self.tasks[name] for name in datasets}
        for means, names in ((self._interval.datasets, datasets), (self._interval.tasks, tasks)):
            name = next(iter(names)) if len(names) == 1 else MIXED
            means.setdefault(name, WeightedMean()).add(loss, tokens)

    def routing(self, task_ids: Tensor, weights: Tensor) -> None:
        """Take in the routing weights of a batch's images; see ``RoutingLog.add``."""
        self._routing.add(task_ids, weights)

    def step(self, step: int, learning_rate: float, grad_norm: float) -> dict[str, float] | None:
        """Write the line of a step that was taken.

        Args:
            step: its number, from 1.
            learning_rate: that it was taken with.
            grad_norm: of all gradients together, before they were clipped.

        Returns:
            At the end of an interval what it had, else None: ``loss/mean``, ``loss/task/<task>`` and
            ``loss/dataset/<dataset>`` (means over answer tokens), ``learning_rate``, ``gradient/norm_mean`` and
            ``gradient/norm_max`` (of finite norms), ``throughput/…``, ``memory/peak_<kind>_bytes``, and
            ``routing/<task>/expert_<number>``. Means that are no finite numbers are left out.
        """
        taken, self._step = self._step, _Step()
        self._write(step, taken, learning_rate, grad_norm)
        self.loss, self.learning_rate = taken.loss.finite, learning_rate
        self._interval.steps.add(taken.loss.value, taken.tokens)
        if math.isfinite(grad_norm):
            self._interval.norm.add(grad_norm, 1)
            self._interval.largest_norm = max(self._interval.largest_norm, grad_norm)
        samples = taken.samples.total()
        self.samples += samples
        if self._pace is None:
            self._pace = _Pace(self._clock())
        else:
            self._pace.steps += 1
            self._pace.samples += samples
            self._pace.tokens += taken.tokens
        if step % self.every == 0 or step == self.steps:
            return self._end_interval(step, learning_rate)
        if step == self._routing.warmup_steps:
            self._routing.end_interval(step)
        return None

    def _write(self, step: int, taken: _Step, learning_rate: float, grad_norm: float) -> None:
        where: dict[str, Any] = {"dataset": next(iter(taken.samples), None)}
        if len(taken.samples) > 1:
            where = {"dataset": MIXED, "samples": dict(sorted(taken.samples.items()))}
        entry = {
            "step": step,
            **where,
            "loss": taken.loss.finite,
            "learning_rate": learning_rate,
            "grad_norm": finite(grad_norm),
            "tokens": taken.tokens,
        }
        self._lines.append(json.dumps(entry, allow_nan=False) + "\n")

    def _end_interval(self, step: int, learning_rate: float) -> dict[str, float]:
        interval, self._interval = self._interval, _Interval()
        means = {
            "loss/mean": interval.steps,
            **{f"loss/task/{task}": interval.tasks[task] for task in (*TASKS, MIXED) if task in interval.tasks},
            **{f"loss/dataset/{name}": interval.datasets[name] for name in sorted(interval.datasets)},
            "gradient/norm_mean": interval.norm,
        }
        numbers = {name: mean.value for name, mean in means.items() if mean.finite is not None}
        if interval.norm.weight:
            numbers["gradient/norm_max"] = interval.largest_norm
        return {
            **numbers,
            "learning_rate": learning_rate,
            **self._end_pace(step),
            **self._routing.end_interval(step),
        }

    def _end_pace(self, step: int) -> dict[str, float]:
        assert self._pace is not None  # since the end of a step
        now = self._clock()
        pace, self._pace = self._pace, _Pace(now)
        seconds, memory = now - pace.since, peak_memory()
        rates: dict[str, float] = {}
        if pace.steps and seconds > 0:
            rates = {"samples_per_second": pace.samples / seconds, "tokens_per_second": pace.tokens / seconds}
        done = {"step": step, "steps": pace.steps, "seconds": seconds, "samples": pace.samples, "tokens": pace.tokens}
        self._performance.append(json.dumps({**done, **rates, "memory": memory}, allow_nan=False) + "\n")
        return {
            **{f"throughput/{name}": rate for name, rate in rates.items()},
            **{f"memory/peak_{kind}_bytes": float(peak) for kind, peak in memory.items()},
        }

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Inside, time does not count: a checkpoint is written, held-out samples are looked at, or gradients probed."""
        began = self._clock()
        try:
            yield
        finally:
            if self._pace is not None:
                self._pace.since += self._clock() - began

    def state_dict(self) -> dict[str, Any]:
        """Return the interval at hand, between two steps, as values that JSON keeps: for a checkpoint of that step."""
        return {"interval": asdict(self._interval), "routing": self._routing.state_dict()}

    def rewind(self, step: int, state: Mapping[str, Any] | None = None) -> None:
        """Make the files those of a run that has come to a step.

        Args:
            step: that training goes on from; 0: it begins.
            state: what ``state_dict`` gave at that step, so that the log becomes that of a run that was never
                interrupted; None: an interval begins here.
        """
        self._lines.rewind(step)
        self._performance.rewind(step)
        self._routing.rewind(step, state["routing"] if state else None)
        self._step = _Step()
        self._interval = _Interval.of(state["interval"]) if state else _Interval()
        self._pace = None
        self.samples = 0

    def summary(self) -> dict[str, Any]:
        """Return what ``run.json`` says of the log, read from the files, so that resumed runs count as a whole.

        Returns:
            ``throughput``: mean rates over all intervals that ended, without each session's first step, which also
            sets things up; ``peak_memory``: kind -> bytes; ``routing``: see
            ``RoutingLog.summary``. A part that does not exist is left out.
        """
        rows = [json.loads(line) for line in self._performance.lines()]
        seconds = sum(row["seconds"] for row in rows)
        found: dict[str, Any] = {}
        if seconds > 0:
            found["throughput"] = {
                f"{what}_per_second": sum(row[what] for row in rows) / seconds for what in ("samples", "tokens")
            }
        if rows:
            kinds = sorted({kind for row in rows for kind in row["memory"]})
            found["peak_memory"] = {kind: max(row["memory"].get(kind, 0) for row in rows) for kind in kinds}
        if routing := self._routing.summary():
            found["routing"] = routing
        return found

    def close(self) -> None:
        """Let go of the files."""
        for file in (self._lines, self._performance, self._routing):
            file.close()


def finite(value: float) -> float | None:
    """Return a number that JSON can hold; None for those that are not finite."""
    return value if math.isfinite(value) else None
