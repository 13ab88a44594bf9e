"""transformers' Trainer on a mixture: exact resumption, whole checkpoints, and every step's loss said by dataset."""

import errno
import math
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from torch import Tensor, distributed, nn
from torch.utils.data import DataLoader
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from .best import Best
from .checkpoint import load_trained
from .checkpoints import checkpoint_folder, commit, prune, sealed_state, staging_folder
from .data.collator import Collator
from .data.mixture import Mixture
from .errors import UserError
from .loader import DATASETS, training_loader
from .loading import transformers_in_silence
from .modeling import UniMedForConditionalGeneration
from .moments import write_second_moments
from .schedule import learning_rate_factor
from .settings import RunSettings
from .stopping import StopRequest
from .validation import Validation, append_validation, rewind_validation

if TYPE_CHECKING:
    from .feature_cache import FeatureCache
    from .train_log import TrainLog

_NOT_DECAYED = ("bias", "ln", "bn", "norm")
"""Parts of names of parameters without weight decay: the released code's, and what transformers calls norms."""


_NO_ROOM = 2**20
"""Bytes that are free on a disk that is called full."""


@dataclass(frozen=True)
class _Batch:
    """What one batch of one process had: samples by dataset, mean loss over so many answer tokens, routing."""

    datasets: Counter[str]
    loss: float
    tokens: int
    task_ids: Tensor | None
    routing: Tensor | None


class UniMedTrainer(Trainer):
    """transformers' Trainer on a mixture.

    The loss is the mean over all answer tokens of a step, over processes and accumulated batches alike.

    Args:
        model: the model.
        arguments: transformers' training arguments.
        settings: the run's settings.
        mixture: what to train on, as batch sampler and dataset.
        collator: samples to tensors.
        log: receives every batch and step; None in all processes but the first.
        stop: asks to save and stop.
        validation: held-out samples; None: none are looked at.
        cache: the frozen encoder's tokens, the collator's too; None: it encodes every time.
        saved: is called with the step of every checkpoint, in the first process.
        callbacks: further callbacks.
    """

    lr_scheduler: Any
    optimizer: Any
    control: TrainerControl

    def __init__(
        self,
        model: UniMedForConditionalGeneration,
        arguments: TrainingArguments,
        *,
        settings: RunSettings,
        mixture: Mixture,
        collator: Collator,
        log: "TrainLog | None",
        stop: StopRequest,
        validation: Validation | None = None,
        cache: "FeatureCache | None" = None,
        saved: Callable[[int], None] | None = None,
        callbacks: list[TrainerCallback] | None = None,
    ) -> None:
        super().__init__(model, arguments, callbacks=callbacks)
        self.add_callback(_EndOfStep(self))
        self.remove_callback(PrinterCallback)  # it prints to stdout, which is for results
        # compute_loss weighs every batch itself
        self.model_accepts_loss_kwargs, self.loss_is_scaled_for_ga = True, True
        self.settings = settings
        self.mixture = mixture
        self.collator = collator
        self.train_log = log
        self.stop = stop
        self.validation = validation
        self.cache = cache
        self.saved = saved
        self.best = Best("validation loss" if validation else "training loss")
        self._batches: list[_Batch] = []
        self._routed: tuple[Tensor | None, Tensor] | None = None
        self._rate: float = 0.0
        self._norm: float = 0.0
        self._listen_to_router(model)

    # What is trained on

    def get_train_dataloader(self) -> DataLoader:
        """Return batches as the mixture draws them."""
        return training_loader(self.mixture, self.collator, self.settings.training.workers)

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """Return the names of the parameters with weight decay: matrices that are no biases and no norms."""
        return [
            name
            for name, parameter in model.named_parameters()
            if parameter.ndim > 1 and not any(word in name for word in _NOT_DECAYED)
        ]

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """Return the schedule of the settings (``unimed_model.schedule``)."""
        if self.lr_scheduler is None:
            factor = learning_rate_factor(self.settings.training)
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer or self.optimizer, factor)
            self._created_lr_scheduler = True
        return self.lr_scheduler

    # A step

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return the batch's loss, weighted by its share of the answer tokens of the whole step.

        Raises:
            UserError: the loss is not a finite number.
        """
        datasets = inputs.pop(DATASETS)
        self._routed = None
        outputs = model(**inputs, use_cache=False)
        tokens = int((inputs["labels"][:, 1:] != -100).sum())
        self._note(datasets, outputs.loss, tokens)
        loss = outputs.loss
        if self.args.world_size > 1 or self.args.gradient_accumulation_steps > 1:
            # gradients are averaged over processes and added over accumulated batches
            loss = loss * (tokens * self.args.world_size / num_items_in_batch)
        return (loss, outputs) if return_outputs else loss

    def _prepare_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        # before they go to the device, where DeepSpeed would round the pixels
        return super()._prepare_inputs(inputs if self.cache is None else self.cache.complete(self.model, inputs))

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Return 0: nobody reads the estimate, for which transformers counts all parameters in every step."""
        return 0

    def _note(self, datasets: Counter[str], loss: Tensor, tokens: int) -> None:
        value = loss.item()
        if not math.isfinite(value):
            raise UserError(
                f"The loss is {value} at step {self.state.global_step + 1} on {', '.join(sorted(datasets))}; lower "
                "training.peak_learning_rate or set training.gradient_clip."
            )
        if not self._batches:
            self._rate = float(self.lr_scheduler.get_last_lr()[0]) if self.lr_scheduler else 0.0
        task_ids, routing = self._routed or (None, None)
        self._batches.append(_Batch(datasets, value, tokens, task_ids, routing))

    def _listen_to_router(self, model: UniMedForConditionalGeneration) -> None:
        router = getattr(model.connector, "router", None)
        if router is None:
            return

        def note(_: nn.Module, arguments: tuple[Any, ...], weights: Tensor) -> None:
            if self.is_in_train:
                tasks = arguments[2]
                mean = weights.detach().float().mean(dim=1, keepdim=True)
                self._routed = (None if tasks is None else tasks.cpu(), mean.cpu())

        router.register_forward_hook(note)

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        norm = super()._get_grad_norm(model, grad_norm)
        # DeepSpeed knows none before its first step
        self._norm = math.nan if norm is None else float(norm)
        return norm

    def end_step(self) -> None:
        """Say what the step was that has just been taken."""
        batches = [batch for of_process in self._of_all_processes(self._batches) for batch in of_process]
        self._batches = []
        for batch in batches:
            self.best.note_training(batch.datasets, batch.loss * batch.tokens, batch.tokens)
        if self.train_log is None:
            return
        for batch in batches:
            self.train_log.batch(batch.datasets, batch.loss, batch.tokens)
            if batch.task_ids is not None and batch.routing is not None:
                self.train_log.routing(batch.task_ids, batch.routing)
        step = self.state.global_step
        numbers = self.train_log.step(step, self._rate, self._norm)
        if numbers is not None:
            self.log(numbers)

    def _of_all_processes(self, mine: Any) -> list[Any]:
        if self.args.world_size == 1:
            return [mine]
        gathered: list[Any] = [None] * self.args.world_size
        distributed.all_gather_object(gathered, mine)
        return gathered

    def asked_to_stop(self) -> bool:
        """Whether a signal has reached any of the processes: all of them stop at the same step."""
        asked = self.stop.signal is not None
        if self.args.world_size > 1:
            flag = torch.tensor(float(asked), device=self.args.device)
            distributed.all_reduce(flag, distributed.ReduceOp.MAX)
            asked = bool(flag)
        return asked

    # Held-out samples

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Return the mean of the datasets' losses on held-out samples; all are logged."""
        assert self.validation is not None
        with self.off_the_clock():
            losses = self.validation.losses(self.model_wrapped, self.args.device)
        mean = sum(losses.values()) / len(losses)
        self.best.note_validation(mean)
        if self.args.should_save:
            append_validation(Path(self.args.output_dir), self.state.global_step, losses)
        self.log({"validation/loss": mean, **{f"validation/loss/{name}": loss for name, loss in losses.items()}})
        metrics = {"eval_loss": mean}
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def off_the_clock(self) -> AbstractContextManager[None]:
        """Inside, time does not count for throughput."""
        return nullcontext() if self.train_log is None else self.train_log.paused()

    # Checkpoints

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        with self.off_the_clock():
            self._save_whole_checkpoint(model, trial)

    def _save_whole_checkpoint(self, model: nn.Module, trial: Any) -> None:
        step, run = self.state.global_step, Path(self.args.output_dir)
        self._require_finite_weights(step)
        staging = staging_folder(run)
        try:
            if self.args.should_save:
                shutil.rmtree(staging, ignore_errors=True)
            self.accelerator.wait_for_everyone()
            with self._writing_to(staging):
                super()._save_checkpoint(model, trial)
            self.accelerator.wait_for_everyone()
            if self.is_checkpoint(step):
                self.best.at_checkpoint(step)
            if self.args.should_save:
                commit(checkpoint_folder(staging, step), checkpoint_folder(run, step), self._state(step))
                prune(run, self.settings.checkpoints.keep, self._protected(), step)
                if self.saved is not None:
                    self.saved(step)
        except (OSError, RuntimeError, SafetensorError) as error:
            raise _not_written(step, run, error) from error
        finally:
            if self.args.should_save:
                shutil.rmtree(staging, ignore_errors=True)
        self.accelerator.wait_for_everyone()

    def _state(self, step: int) -> dict[str, Any]:
        """What the first process needs to go on, beside what transformers keeps."""
        return {
            "step": step,
            "mixture": self.mixture.state_dict(step * self.args.gradient_accumulation_steps),
            "best": self.best.state_dict(),
            "log": None if self.train_log is None else self.train_log.state_dict(),
        }

    def is_checkpoint(self, step: int) -> bool:
        """Whether the settings ask for a checkpoint of a step."""
        training = self.settings.training
        return _is_due(step, self.settings.checkpoints.every) or step in (training.warmup_steps, training.steps)

    def _protected(self) -> set[int]:
        kept = {self.settings.training.warmup_steps}
        return kept if self.best.step is None else kept | {self.best.step}

    @contextmanager
    def _writing_to(self, folder: Path) -> Iterator[None]:
        run, self.args.output_dir = self.args.output_dir, str(folder)
        try:
            yield
        finally:
            self.args.output_dir = run

    def _require_finite_weights(self, step: int) -> None:
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad and not torch.isfinite(parameter).all():
                raise UserError(
                    f"{name} holds values that are no finite numbers after step {step}, so no checkpoint is written; "
                    "lower training.peak_learning_rate or set training.gradient_clip."
                )

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        if not self.args.should_save:  # every process comes here, the first one writes
            return
        folder = Path(output_dir or str(self.args.output_dir))
        folder.mkdir(parents=True, exist_ok=True)
        model = self.accelerator.unwrap_model(self.model)
        with transformers_in_silence():
            model.save_pretrained(folder, state_dict=state_dict)
            self.collator.processor.save_pretrained(folder)
        if not self.is_fsdp_enabled and not self.is_deepspeed_enabled:
            # inside what accelerate puts around it
            write_second_moments(folder, model, getattr(self.optimizer, "optimizer", self.optimizer))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        if self.is_fsdp_enabled:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        else:
            load_trained(model or self.model, Path(resume_from_checkpoint))

    def go_on_from(self, checkpoint: Path | None) -> int:
        """Set mixture, log and choice of the best to what they were at a checkpoint; ``train`` loads the rest.

        Args:
            checkpoint: a whole one; None: the beginning of the run.

        Returns:
            The step.

        Raises:
            UserError: the checkpoint is of another mixture.
        """
        step, log = 0, None
        if checkpoint is not None:
            seal = sealed_state(checkpoint)
            step, log = seal["step"], seal["log"]
            self.mixture.load_state_dict(seal["mixture"])
            self.best.load_state_dict(seal["best"])
        if self.train_log is not None:
            self.train_log.rewind(step, log)
            rewind_validation(Path(self.args.output_dir), step)
        return step


class _EndOfStep(TrainerCallback):
    """After every step: say what it was, and whether to validate, to save and to stop."""

    def __init__(self, trainer: UniMedTrainer) -> None:
        self.trainer = trainer

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """Set the control of what comes after the step."""
        self.trainer.end_step()
        settings, step = self.trainer.settings, state.global_step
        stop = self.trainer.asked_to_stop()
        control.should_training_stop |= stop
        control.should_save = stop or self.trainer.is_checkpoint(step)
        # every checkpoint that may become the best needs its loss; one written because of a signal does not
        control.should_evaluate = self.trainer.validation is not None and (
            _is_due(step, settings.validation.every) or self.trainer.is_checkpoint(step)
        )
        return control


def _not_written(step: int, run: Path, error: Exception) -> UserError:
    reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
    if isinstance(error, RuntimeError) and shutil.disk_usage(run).free < _NO_ROOM:
        # torch's writer says only that a file has another length than it should
        reason = f"{os.strerror(errno.ENOSPC)} (os error {errno.ENOSPC})"
    return UserError(f"The checkpoint of step {step} cannot be written to {run} ({reason}).")


def _is_due(step: int, every: int | None) -> bool:
    return every is not None and step % every == 0
