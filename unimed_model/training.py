"""unimed-train: a run from settings to a finished folder, on transformers' Trainer."""

import json
import platform
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from .building import build
from .data import DatasetSource, Samples, discover, open_source, select_sources
from .data.collator import Collator
from .data.mixture import Draw, Mixture
from .data.sample import Sample
from .data.sources import skipping
from .errors import UserError
from .folders import replacing
from .loading import read_object, transformers_in_silence
from .modeling import UniMedForConditionalGeneration
from .moments import write_second_moments
from .prompts import profile_named, prompt_pieces
from .schedule import SCHEDULER, scheduler_options
from .settings import RunSettings

RUN_FILE = "run.json"
LOG_FILE = "training_log.jsonl"
MIXED = "mixed"
"""Stands in the log for the dataset of a batch that has samples of several."""


def train(
    settings: RunSettings,
    root: Path,
    out: Path,
    *,
    weights: Path | None = None,
    quiet: bool = False,
    overwrite: bool = False,
    skip_missing: bool = False,
) -> bool:
    """Train a model and leave a finished run folder; a run that fails leaves none.

    Args:
        settings: the resolved settings.
        root: data root (see ``unimed_model.data.discover``).
        out: the run folder: model, processor, second moments, ``run.json``, ``training_log.jsonl``.
        weights: folder with pretrained parts, as ``unimed-data weights`` writes it.
        quiet: no progress bar.
        overwrite: replace the run that stands in ``out``; a folder that is no run is never replaced.
        skip_missing: leave out samples whose image file is missing; ``run.json`` counts them.

    Returns:
        False when ``out`` already holds a run with these settings and as many samples of the same datasets, and
        nothing was done.

    Raises:
        UserError: ``out`` holds something else, the data are unusable, or the loss is not a number.
    """
    if settings.llm.quantisation == "4bit" and not torch.cuda.is_available():
        # bitsandbytes repacks the weights at the first evaluation, for a product without a right backward pass
        raise UserError("llm.quantisation=4bit cannot be trained on a CPU: its gradients would be wrong; use a GPU.")
    datasets = open_training_data(root, settings.data.datasets, skip_missing)
    standing = _standing_run(out)
    if standing is not None and not overwrite:
        _require_same_run(out, standing, settings, {name: len(samples) for name, samples in datasets.items()})
        return False
    profile = profile_named(settings.prompt.profile, settings.prompt.identifiers)
    mixture = Mixture(
        datasets,
        settings.training.batch_size,
        settings.training.steps,
        settings.seed,
        profile,
        batches=settings.data.batches,
        **settings.data.mixing.arguments,
    )
    skipped = {name: samples.skipped for name, samples in datasets.items() if samples.skipped}
    with replacing(out) as folder:
        _train_into(folder, settings, mixture, skipped, weights, quiet)
    return True


def open_training_data(root: Path, names: tuple[str, ...] | None, skip_missing: bool = False) -> dict[str, Samples]:
    """Return the training split of the named datasets, or of all that the root offers.

    Raises:
        UserError: a name that the root does not offer, or unusable data.
    """
    sources: list[DatasetSource] = select_sources(discover(root), names, str(root))
    return {s.name: open_source(skipping(s) if skip_missing else s, "train") for s in sources}


def left_out(run: Path) -> dict[str, dict[str, int]]:
    """Return dataset -> reason -> number of training samples that a run was trained without.

    Raises:
        UserError: a damaged ``run.json``.
    """
    skipped = read_object(run / RUN_FILE).get("skipped", {})
    return dict(skipped)


def _standing_run(out: Path) -> dict[str, Any] | None:
    """Return the ``run.json`` of the run that stands in a folder; None where there is no folder or an empty one.

    Raises:
        UserError: something else stands there.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    if not (out / RUN_FILE).is_file():
        raise UserError(f"{out} exists and is not a finished run; choose another --out or remove it.")
    run = read_object(out / RUN_FILE)
    if not isinstance(run.get("settings"), dict) or not isinstance(run.get("datasets"), dict):
        raise UserError(f"{out / RUN_FILE} does not say how the run was trained; choose another --out or remove it.")
    return run


def _require_same_run(out: Path, run: dict[str, Any], settings: RunSettings, samples: dict[str, int]) -> None:
    for what, found, wanted in (
        ("settings", run["settings"], settings.model_dump(mode="json")),
        ("data", run["datasets"], samples),
    ):
        different = _differences(found, wanted)
        if different:
            raise UserError(
                f"{out} holds a run with other {what} ({', '.join(different)}); choose another --out or say "
                "--overwrite."
            )


def _differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    found: list[str] = []
    for key in sorted(old.keys() | new.keys()):
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            found += _differences(before, after, f"{prefix}{key}.")
        elif before != after:
            found.append(f"{prefix}{key}: {before} there, {after} asked for")
    return found


def _train_into(
    folder: Path,
    settings: RunSettings,
    mixture: Mixture,
    skipped: dict[str, dict[str, int]],
    weights: Path | None,
    quiet: bool,
) -> None:
    started = time.time()
    with transformers_in_silence():
        model, processor = build(settings, _texts(mixture), weights)
    log: list[dict[str, Any]] = []
    trainer = UniMedTrainer(
        model,
        _arguments(settings, folder),
        mixture=mixture,
        collator=Collator(processor),
        log=log,
        callbacks=[] if quiet else [ProgressBar()],
    )
    trainer.train()
    with transformers_in_silence():
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
    write_second_moments(folder, model, _unwrapped(trainer.optimizer))
    lines = "".join(json.dumps(entry) + "\n" for entry in log)
    (folder / LOG_FILE).write_text(lines, encoding="utf-8")
    _write_run_file(folder, settings, mixture, skipped, model, time.time() - started)


def _unwrapped(optimizer: Any) -> torch.optim.Optimizer:
    """The optimizer inside what accelerate puts around it."""
    return getattr(optimizer, "optimizer", optimizer)


def _texts(mixture: Mixture) -> Iterator[str]:
    """Every prompt and answer the tokenizer should know, in a fixed order, with a template drawn for each."""
    rng = random.Random(mixture.seed)
    for samples in mixture.datasets.values():
        for sample in samples:
            written = mixture.profile.for_training(sample, rng)
            yield from prompt_pieces(
                written.task, written.instruction, written.image_source is not None, mixture.profile
            )
            yield written.answer


def _arguments(settings: RunSettings, folder: Path) -> TrainingArguments:
    training = settings.training
    return TrainingArguments(
        output_dir=str(folder),
        max_steps=training.steps,
        per_device_train_batch_size=training.batch_size,
        learning_rate=training.peak_learning_rate,
        lr_scheduler_type=SCHEDULER,
        lr_scheduler_kwargs=scheduler_options(training),
        warmup_steps=training.warmup_steps,
        weight_decay=training.weight_decay,
        adam_beta1=training.beta1,
        adam_beta2=training.beta2,
        max_grad_norm=training.gradient_clip or 0.0,
        seed=settings.seed,
        data_seed=settings.seed,
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
        remove_unused_columns=False,
    )


def _write_run_file(
    folder: Path,
    settings: RunSettings,
    mixture: Mixture,
    skipped: dict[str, dict[str, int]],
    model: UniMedForConditionalGeneration,
    seconds: float,
) -> None:
    run = {
        "settings": settings.model_dump(mode="json"),
        "datasets": {name: len(samples) for name, samples in mixture.datasets.items()},
        "skipped": skipped,
        "realised_mixture": mixture.realised(mixture.steps),
        "parameters": {
            name: sum(parameter.numel() for parameter in part.parameters()) for name, part in model.named_children()
        },
        "versions": {name: version(name) for name in ("torch", "transformers", "tokenizers", "numpy")}
        | {"python": platform.python_version()},
        "hardware": {"device": str(model.device), "threads": torch.get_num_threads()},
        "seconds": round(seconds, 1),
        "exit_reason": "finished",
    }
    (folder / RUN_FILE).write_text(json.dumps(run, indent=2) + "\n", encoding="utf-8")


class UniMedTrainer(Trainer):
    """transformers' Trainer on a mixture, the loss of every step logged with its dataset or datasets.

    Args:
        model: the model.
        arguments: transformers' training arguments.
        mixture: what to train on, as batch sampler and dataset.
        collator: samples to tensors.
        log: receives one entry per step: step, dataset (and samples by dataset where there are several), loss, learning
            rate.
        callbacks: further callbacks.
    """

    def __init__(
        self,
        model: UniMedForConditionalGeneration,
        arguments: TrainingArguments,
        *,
        mixture: Mixture,
        collator: Collator,
        log: list[dict[str, Any]],
        callbacks: list[TrainerCallback],
    ) -> None:
        super().__init__(model, arguments, callbacks=callbacks)
        self.remove_callback(PrinterCallback)  # it prints to stdout, which is for results
        self.mixture = mixture
        self.collator = collator
        self.step_log = log

    def get_train_dataloader(self) -> DataLoader:
        """Return batches as the mixture draws them."""
        return DataLoader(_Named(self.mixture), batch_sampler=self.mixture, collate_fn=self._collate)

    def _collate(self, named: list[tuple[str, Sample]]) -> dict[str, Any]:
        return self.collator([sample for _, sample in named]) | {"datasets": Counter(name for name, _ in named)}

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return the mean loss over the batch's answer tokens; it is logged with the batch's dataset or datasets.

        Raises:
            UserError: the loss is not a finite number.
        """
        datasets = inputs.pop("datasets")
        outputs = model(**inputs)
        self._log_loss(datasets, outputs.loss)
        return (outputs.loss, outputs) if return_outputs else outputs.loss

    def _log_loss(self, datasets: Counter[str], loss: Tensor) -> None:
        step = self.state.global_step + 1
        if not torch.isfinite(loss):
            raise UserError(
                f"The loss is {loss.item()} at step {step} on {', '.join(datasets)}; lower "
                "training.peak_learning_rate or set training.gradient_clip."
            )
        rate = self.lr_scheduler.get_last_lr()[0] if self.lr_scheduler else 0.0
        where: dict[str, Any] = {"dataset": next(iter(datasets))}
        if len(datasets) > 1:
            where = {"dataset": MIXED, "samples": dict(datasets)}
        self.step_log.append({"step": step, **where, "loss": loss.item(), "learning_rate": rate})


class _Named(Dataset):
    """A mixture as a torch dataset whose items know the dataset they were drawn from."""

    def __init__(self, mixture: Mixture) -> None:
        self.mixture = mixture

    def __len__(self) -> int:
        return sum(len(samples) for samples in self.mixture.datasets.values())

    def __getitem__(self, draw: Draw) -> tuple[str, Sample]:
        return draw.dataset, self.mixture[draw]


class ProgressBar(TrainerCallback):
    """One line on stderr: steps done and to do."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Open the bar."""
        self.bar = tqdm(total=state.max_steps, desc="training", unit="step", file=sys.stderr)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Advance by one step."""
        self.bar.update(1)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Close the bar."""
        self.bar.close()
