"""Routing weights of the connector's experts by task, during the warm-up and after it (Figure 4c of the paper).

``routing_weights.csv`` is tidy: for every interval of training, task and expert the weight, a mean over all visual
tokens of the interval's images. An interval ends where the warm-up does, so that none has steps of both stages.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .data.sample import IMAGE_TASKS
from .step_lines import StepLines, step_of_csv

ROUTING_FILE = "routing_weights.csv"
STAGES = ("warmup", "main")
_HEAD = "step,stage,task,expert,weight,images\n"


class RoutingLog:
    """Routing weights, summed over an interval and then written.

    Args:
        folder: the run folder; without a router nothing is written to it.
        warmup_steps: steps of the stage ``warmup``.
    """

    def __init__(self, folder: Path, warmup_steps: int) -> None:
        self.warmup_steps = warmup_steps
        self._file = StepLines(folder / ROUTING_FILE, step_of_csv, _HEAD)
        self._sums: Tensor | None = None

    def add(self, task_ids: Tensor, weights: Tensor) -> None:
        """Add the images of a batch.

        Args:
            task_ids: (images,) index of each image's task in ``IMAGE_TASKS``.
            weights: (images, tokens, experts), detached.
        """
        # Apple's GPUs know no double precision.
        precision = torch.float32 if weights.device.type == "mps" else torch.float64
        means = weights.mean(dim=1, dtype=precision)
        tasks = torch.nn.functional.one_hot(task_ids.to(means.device), len(IMAGE_TASKS)).to(precision)
        # (tasks, experts + 1): the last column counts images
        sums = tasks.T @ torch.cat([means, means.new_ones(len(means), 1)], dim=1)
        self._sums = sums if self._sums is None else self._sums.to(sums) + sums

    def end_interval(self, step: int) -> dict[str, float]:
        """Write the mean weights since the last interval and return them as ``routing/<task>/expert_<number>``."""
        if self._sums is None:
            return {}
        rows, self._sums = self._sums.tolist(), None
        stage = STAGES[step > self.warmup_steps]
        lines, numbers = [], {}
        for task, (*summed, images) in zip(IMAGE_TASKS, rows, strict=True):
            for expert, weight in enumerate(summed if images else ()):
                numbers[f"routing/{task}/expert_{expert}"] = weight / images
                lines.append(f"{step},{stage},{task},{expert},{weight / images!r},{int(images)}\n")
        self._file.append("".join(lines))
        return numbers

    def state_dict(self) -> dict[str, Any]:
        """Return the interval at hand, as values that JSON keeps."""
        return {"sums": None if self._sums is None else self._sums.tolist()}

    def rewind(self, step: int, state: Mapping[str, Any] | None = None) -> None:
        """Drop what was written beyond a step and go on with the interval of a state; None: with a new one."""
        self._file.rewind(step)
        sums = state["sums"] if state else None
        self._sums = None if sums is None else torch.tensor(sums, dtype=torch.float64)

    def summary(self) -> dict[str, Any]:
        """Return what Figure 4c shows, read from the file: weights at the end of the warm-up and of the run.

        Returns:
            ``warmup_end`` and ``final``: task -> weight of each expert, in the last interval of the stage in which the
            task occurred; ``images``: stage -> task -> number of images that is a mean over. Empty without a router.
        """
        stages: dict[str, dict[str, _Interval]] = {stage: {} for stage in STAGES}
        for line in self._file.lines():
            step, stage, task, _, weight, images = line.strip().split(",")
            interval = stages[stage].get(task)
            if interval is None or interval.step != int(step):
                interval = stages[stage][task] = _Interval(int(step), int(images), [])
            interval.weights.append(float(weight))
        if not any(stages.values()):
            return {}
        named = {"warmup_end": _in_order(stages["warmup"]), "final": _in_order(stages["main"])}
        return {
            **{name: {task: interval.weights for task, interval in tasks.items()} for name, tasks in named.items()},
            "images": {
                name: {task: interval.images for task, interval in tasks.items()} for name, tasks in named.items()
            },
        }

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()


@dataclass(frozen=True)
class _Interval:
    """One interval of one task."""

    step: int
    images: int
    weights: list[float]


def _in_order(tasks: Mapping[str, _Interval]) -> dict[str, _Interval]:
    return {task: tasks[task] for task in IMAGE_TASKS if task in tasks}
