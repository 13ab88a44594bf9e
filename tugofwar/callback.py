"""Interference during training: small recordings at steps of a transformers Trainer run."""

import itertools
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from tugofwar import history
from tugofwar.errors import UserError
from tugofwar.folders import replacing
from tugofwar.recorder import Loss, record
from tugofwar.recording import Recording
from tugofwar.restoring import probing_state
from tugofwar.selection import select_parameters

_log = logging.getLogger(__name__)


class TugOfWarCallback(TrainerCallback):
    """Measure interference every so many steps, on the same held-out batches each time.

    ``Trainer(..., callbacks=[callback])`` writes ``<folder>/step-000100/{recording.safetensors,
    manifest.json}`` and ``<folder>/history.csv`` (``step,name,value``; the names of ``history.headline``),
    and adds the numbers as ``tugofwar/<name>`` to the trainer's ``log_history``. With
    ``callback.attach(trainer)`` they go through ``trainer.log``, hence to TensorBoard and every other
    reporter too: a callback cannot reach those by itself.

    Training is, bit for bit, what it is without the callback. Mistakes in the set-up end ``train()`` before
    its first step, where one batch of every dataset is tried; what fails later (a loss that is not finite at
    some step, a full disk, memory) is logged as a warning that names the step, and training goes on.

    In distributed data-parallel runs every process must be given the same datasets; rank 0 writes.
    Parameters that are sharded over processes (FSDP, DeepSpeed's stage 3) are refused.

    Args:
        datasets: name to an iterable of held-out batches, each batch of that dataset only. The first
            ``batches`` of each are read once, when training begins, and kept in memory.
        parameters: the shared parameters, as in ``record``.
        every: steps of the optimizer between recordings. The last step is recorded as well, unless early
            stopping has put the weights of another step into the model by then.
        batches: batches per dataset, at least 2.
        loss: ``loss(model, batch)``, a scalar; by default ``model(**batch).loss``.
        tasks: task of each dataset, kept in the recordings.
        folder: where to write; by default ``tugofwar`` in the trainer's ``output_dir``.
        at_start: record before the first step, too.
        seed: seeds the generators while batches are read and probed.

    Raises:
        UserError: settings out of range.
    """

    def __init__(
        self,
        datasets: Mapping[str, Iterable[Any]],
        parameters: str | Sequence[str] | Callable[[str, nn.Parameter], bool] = "connector.*",
        every: int = 100,
        batches: int = 10,
        loss: Loss | None = None,
        tasks: Mapping[str, str] | None = None,
        folder: str | Path | None = None,
        at_start: bool = False,
        seed: int = 0,
    ) -> None:
        if every < 1:
            raise UserError(f"`every` is the number of steps between recordings, at least 1; got {every}.")
        if batches < 2:
            raise UserError(f"`batches` is {batches}, but leaving a batch out needs at least 2 per dataset.")
        self.datasets = datasets
        self.parameters = parameters
        self.every = every
        self.batches = batches
        self.loss = loss
        self.tasks = dict(tasks or {})
        self.folder = None if folder is None else Path(folder)
        self.at_start = at_start
        self.seed = seed
        self._drawn: dict[str, list[Any]] = {}
        self._last_step: int | None = None
        self._trainer: Trainer | None = None

    def attach(self, trainer: Trainer) -> None:
        """Send the numbers through ``trainer.log`` from now on, adding the callback where it is not there yet."""
        if self not in trainer.callback_handler.callbacks:
            trainer.add_callback(self)
        self._trainer = trainer

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, *, model: nn.Module, **kwargs: Any
    ) -> None:
        """Read the batches and try one of each dataset.

        Raises:
            UserError: whatever would make every later recording fail.
        """
        probed = _unwrapped(model)
        _refuse_shards(select_parameters(probed, self.parameters))
        if not self._drawn:
            self._drawn = self._draw(probed)
        self._last_step = None
        if state.is_world_process_zero:
            self._begin_history(args, state)
        if self.at_start:
            self._measure(args, state, control, probed)
        else:
            self._record(probed, batches=1, state=state)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, *, model: nn.Module, **kwargs: Any
    ) -> None:
        """Record every ``every`` steps and at the last one."""
        if state.global_step % self.every == 0 or state.global_step >= state.max_steps:
            self._measure_or_warn(args, state, control, _unwrapped(model))

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, *, model: nn.Module, **kwargs: Any
    ) -> None:
        """Record the last step of training that was stopped early."""
        if self._last_step != state.global_step and not args.load_best_model_at_end:
            self._measure_or_warn(args, state, control, _unwrapped(model))

    def _draw(self, model: nn.Module) -> dict[str, list[Any]]:
        """The batches of every dataset, read with the generators seeded and put back as in ``record``."""
        with probing_state(model, set(), self.seed):
            drawn = {name: list(itertools.islice(source, self.batches)) for name, source in self.datasets.items()}
        for name, found in drawn.items():
            if len(found) < self.batches:
                raise UserError(f"Dataset {name!r} has {len(found)} batches but {self.batches} are asked for.")
        return drawn

    def _begin_history(self, args: TrainingArguments, state: TrainerState) -> None:
        history.forget_after(self._folder(args), state.global_step if state.global_step else -1)
        if args.report_to and self._trainer is None:
            _log.warning(
                "Interference goes to %s and the trainer's log_history, but not to %s: call attach(trainer) for that.",
                self._folder(args) / history.HISTORY,
                ", ".join(args.report_to),
            )

    def _measure_or_warn(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: nn.Module
    ) -> None:
        try:
            self._measure(args, state, control, model)
        except (UserError, OSError, torch.OutOfMemoryError) as error:
            _log.warning("Step %d: interference is not measured, training goes on: %s", state.global_step, error)

    def _measure(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: nn.Module) -> None:
        self._last_step = state.global_step
        recording = self._record(model, self.batches, state)
        if not state.is_world_process_zero:
            return
        folder = self._folder(args)
        with replacing(folder / f"step-{state.global_step:06d}") as step_folder:
            recording.save(step_folder)
        numbers = history.headline(recording)
        history.append(folder, state.global_step, numbers)
        self._log_numbers({f"tugofwar/{name}": value for name, value in numbers.items()}, state, control)

    def _record(self, model: nn.Module, batches: int, state: TrainerState) -> Recording:
        with _buffers_kept(model):
            return record(
                model,
                self._drawn,
                self.parameters,
                batches,
                loss=self.loss,
                seed=self.seed,
                progress=False,
                metadata={"step": state.global_step, "epoch": state.epoch, "seed": self.seed},
                tasks=self.tasks,
            )

    def _log_numbers(self, numbers: dict[str, float], state: TrainerState, control: TrainerControl) -> None:
        if self._trainer is None:
            state.log_history.append({**numbers, "epoch": state.epoch, "step": state.global_step})
            return
        # Trainer.log takes back a request to log, and this step's loss may still be due.
        due = control.should_log
        self._trainer.log(numbers)
        control.should_log = due

    def _folder(self, args: TrainingArguments) -> Path:
        return self.folder or Path(args.output_dir) / "tugofwar"


def _unwrapped(model: nn.Module) -> nn.Module:
    while isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel):
        model = model.module
    return model


def _refuse_shards(selected: Mapping[str, nn.Parameter]) -> None:
    for name, parameter in selected.items():
        # DeepSpeed leaves an empty tensor where a parameter's shard is elsewhere.
        if isinstance(parameter, DTensor) or parameter.numel() == 0:
            raise UserError(f"Parameter {name} is sharded over processes, which TugOfWarCallback cannot measure.")


@contextmanager
def _buffers_kept(model: nn.Module) -> Iterator[None]:
    """Buffers as they were, also those that a model writes in evaluation mode, such as counters of tokens."""
    kept = [
        (module, name, buffer, buffer.detach().to("cpu", copy=True))
        for module in model.modules()
        for name, buffer in module._buffers.items()
        if buffer is not None
    ]
    try:
        yield
    finally:
        for module, name, buffer, copy in kept:
            module._buffers[name] = buffer
            if not torch.equal(buffer.detach().cpu(), copy):
                with torch.no_grad():
                    buffer.copy_(copy)
