"""unimed-train: a run from settings to a finished folder, or on from where it was stopped."""

import random
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from accelerate import PartialState
from transformers import TrainerCallback, TrainingArguments

from .building import build
from .checkpoints import newest
from .data import Sample, Samples, discover, open_source, select_sources
from .data.collator import Collator
from .data.files import noting
from .data.mixture import Mixture
from .data.sources import skipping
from .data_digests import data_digests
from .feature_cache import FeatureCache
from .folders import open_to_readers
from .loading import transformers_in_silence
from .modeling import UniMedForConditionalGeneration
from .probe_callback import attach_probe
from .processing import UniMedProcessor
from .progress import ProgressLine
from .prompts import profile_named, prompt_pieces
from .run_file import RunFile, facts_of, reason_of
from .settings import RunSettings
from .standing import (
    FINISHED,
    differences,
    forget_previous,
    is_finished,
    refuse_other_run,
    standing_run,
    training_folder,
)
from .stopping import StopRequest
from .train_log import TrainLog
from .trainer import UniMedTrainer
from .trainer_arguments import (
    checkpoint_gradients,
    require_hardware,
    require_suitable_spread,
    tracker_callbacks,
    training_arguments,
)
from .validation import Validation, held_out

_FINAL = ".final.partial"


class Outcome(Enum):
    """How training ended."""

    TRAINED = "trained"
    STOOD = "already trained"
    STOPPED = "stopped"


@dataclass(frozen=True)
class _Extras:
    """What stands beside training without changing what is trained; see ``train``."""

    weights: Path | None
    quiet: bool
    feature_cache: Path | None
    probe_every: int | None


@dataclass(frozen=True)
class _Data:
    """What is trained on, the digests of what it was read from, and what is looked at beside."""

    samples: dict[str, Samples]
    digests: dict[str, dict[str, Any]]
    held_out: dict[str, list[Sample]]

    @property
    def sizes(self) -> dict[str, int]:
        return {name: len(samples) for name, samples in self.samples.items()}


def train(
    settings: RunSettings,
    root: Path,
    out: Path,
    *,
    weights: Path | None = None,
    quiet: bool = False,
    overwrite: bool = False,
    skip_missing: bool = False,
    feature_cache: Path | None = None,
    probe_every: int | None = None,
) -> Outcome:
    """Train a model and leave a finished run folder, going on from the newest checkpoint where there is one.

    A run that fails keeps its checkpoints; one that has none leaves nothing. In several processes (``accelerate
    launch``, ``torchrun``) every one calls this, and the first writes.

    Args:
        settings: the resolved settings.
        root: data root (see ``unimed_model.data.discover``).
        out: the run folder (docs/formats.md).
        weights: folder with pretrained parts, as ``unimed-data weights`` writes it.
        quiet: no progress line.
        overwrite: train anew instead of a finished run or one with other settings, which is kept until then. A folder
            that is no run is never replaced.
        skip_missing: leave out samples whose image file is missing; ``run.json`` counts them.
        feature_cache: folder with the frozen encoder's tokens, read and filled.
        probe_every: steps between recordings of interference on the training split; None: none.

    Returns:
        ``STOOD`` when ``out`` already holds a finished run with these settings and data; ``STOPPED`` when SIGTERM or
        SIGUSR1 came, after a checkpoint was written.

    Raises:
        UserError: ``out`` holds something else, the data are unusable, or the loss is not a number.
        KeyboardInterrupt: Ctrl-C; what was trained is in a checkpoint.
    """
    require_hardware(settings)
    data = _open_data(settings, root, skip_missing)
    standing = standing_run(out)
    different = {} if standing is None else differences(standing, settings, data.sizes, data.digests)
    goes_on = standing is not None and not different and not is_finished(standing)
    if standing is not None and not goes_on and not overwrite:
        refuse_other_run(out, different)
        return Outcome.STOOD
    arguments = training_arguments(settings, out)
    processes = PartialState()
    processes.wait_for_everyone()  # every process has looked before the first one writes
    anew = standing is not None and not goes_on
    with training_folder(out, anew=anew) if processes.is_main_process else nullcontext():
        processes.wait_for_everyone()
        extras = _Extras(weights, quiet, feature_cache, probe_every)
        return _Run(settings, data, out, arguments, extras).train()


class _Run:
    """One session of training in a run folder."""

    def __init__(
        self, settings: RunSettings, data: _Data, out: Path, arguments: TrainingArguments, extras: _Extras
    ) -> None:
        self.settings = settings
        self.data = data
        self.out = out
        self.arguments = arguments
        self.extras = extras
        self.first = bool(arguments.should_save)
        self.mixture = Mixture(
            data.samples,
            settings.training.batch_size,
            settings.training.steps * settings.training.gradient_accumulation,
            settings.seed,
            profile_named(settings.prompt.profile, settings.prompt.identifiers),
            batches=settings.data.batches,
            world=arguments.world_size,
            rank=arguments.process_index,
            **settings.data.mixing.arguments,
        )
        self.trackers = tracker_callbacks(settings)
        self.stop = StopRequest(speaks=self.first)
        self._file: RunFile | None = None
        self._closing: list[Callable[[], None]] = []

    def train(self) -> Outcome:
        """Train to the end or to a request to stop.

        Raises:
            UserError: see ``train``.
        """
        checkpoint = self._checkpoint()
        with transformers_in_silence():
            model, processor = build(self.settings, _texts(self.mixture), self.extras.weights)
        if self.settings.training.gradient_checkpointing:
            checkpoint_gradients(model)
        trainer = self._trainer(model, processor)
        self._begin(trainer, checkpoint)
        try:
            with self.stop.listening():
                trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
            return self._end(trainer)
        except BaseException as error:
            self._failed(error, trainer)
            raise
        finally:
            for closing in self._closing:
                closing()

    def _checkpoint(self) -> Path | None:
        """The newest whole checkpoint; what is wrong with newer ones is said."""
        checkpoint, problems = newest(self.out)
        if self.first:
            for problem in problems:
                print(f"Warning: {problem}", file=sys.stderr)
            if checkpoint is not None or problems:
                print(f"going on from {checkpoint or 'the beginning'}", file=sys.stderr)
        return checkpoint

    def _trainer(self, model: UniMedForConditionalGeneration, processor: UniMedProcessor) -> UniMedTrainer:
        training = self.settings.training
        folder = self.extras.feature_cache
        cache = None if folder is None else FeatureCache(folder, model, processor, self.arguments.device)
        tasks = {name: samples[0].task for name, samples in self.data.samples.items()}
        log = None
        if self.first:
            log = TrainLog(
                self.out, self.settings.logging.every, tasks, steps=training.steps, warmup_steps=training.warmup_steps
            )
            self._closing.append(log.close)
        plain = Collator(processor)
        trainer = UniMedTrainer(
            model,
            self.arguments,
            settings=self.settings,
            mixture=self.mixture,
            collator=Collator(processor, cache),
            log=log,
            stop=self.stop,
            validation=Validation(self.data.held_out, plain, training.batch_size) if self.data.held_out else None,
            cache=cache,
            saved=lambda step: self._file.reached(step) if self._file else None,
            callbacks=[*self.trackers, *self._progress(log)],
        )
        require_suitable_spread(trainer, self.settings)
        if self.extras.probe_every is not None:
            attach_probe(trainer, self.data.samples, plain, self.extras.probe_every)
        return trainer

    def _progress(self, log: TrainLog | None) -> list[TrainerCallback]:
        if log is None or self.extras.quiet:
            return []
        line = ProgressLine(log)
        self._closing.append(line.close)
        return [line]

    def _begin(self, trainer: UniMedTrainer, checkpoint: Path | None) -> None:
        step = trainer.go_on_from(checkpoint)
        if self.first:
            facts = facts_of(
                self.settings,
                trainer.model,
                datasets=self.data.sizes,
                skipped={name: samples.skipped for name, samples in self.data.samples.items() if samples.skipped},
                data=self.data.digests,
                device=self.arguments.device,
                world_size=self.arguments.world_size,
            )
            self._file = RunFile(self.out, facts, step)

    def _failed(self, error: BaseException, trainer: UniMedTrainer) -> None:
        if self._file is None:
            return
        step = trainer.state.global_step
        try:
            self._file.end(reason_of(error), step, self._results(trainer))
        except OSError as second:  # such as a full disk, of which the first error tells
            error.add_note(f"run.json does not say so: {second}.")

    def _end(self, trainer: UniMedTrainer) -> Outcome:
        step = trainer.state.global_step
        finished = step == self.settings.training.steps
        if finished:
            self._finish(trainer)
        if self._file is not None:
            self._file.end(FINISHED if finished else self._reason(), step, self._results(trainer))
        if finished:
            if self.first:
                forget_previous(self.out)
            return Outcome.TRAINED
        if self.stop.signal == signal.SIGINT:
            raise KeyboardInterrupt
        return Outcome.STOPPED

    def _results(self, trainer: UniMedTrainer) -> dict[str, Any]:
        batches = trainer.state.global_step * self.settings.training.gradient_accumulation
        return {
            "realised_mixture": self.mixture.realised(batches),
            **(trainer.train_log.summary() if trainer.train_log else {}),
            **({"feature_cache": str(trainer.cache.folder)} if trainer.cache else {}),
        }

    def _reason(self) -> str:
        # another process may have heard the signal
        asked = self.stop.signal
        return "interrupted" if asked == signal.SIGINT else f"preempted: {asked.name if asked else 'another process'}"

    def _finish(self, trainer: UniMedTrainer) -> None:
        """Put the final model beside its checkpoints."""
        staging = self.out / _FINAL
        if self.first:
            shutil.rmtree(staging, ignore_errors=True)
        trainer.accelerator.wait_for_everyone()
        with transformers_in_silence():
            trainer.save_model(str(staging))
        if not self.first:
            return
        open_to_readers(staging)
        for path in staging.iterdir():
            path.replace(self.out / path.name)
        staging.rmdir()


def leave_processes() -> None:
    """Wait for the other processes and let go of them: torch may abort one that ends while another still talks."""
    processes = PartialState()
    if processes.num_processes > 1:
        processes.wait_for_everyone()
        processes.destroy_process_group()


def _open_data(settings: RunSettings, root: Path, skip_missing: bool) -> _Data:
    sources = select_sources(discover(root), settings.data.datasets, str(root))
    samples: dict[str, Samples] = {}
    noted: dict[str, set[Path]] = {}
    for source in sources:
        with noting() as noted[source.name]:
            samples[source.name] = open_source(skipping(source) if skip_missing else source, "train")
    looked_at = {} if settings.validation.every is None else held_out(sources, settings.validation, skip_missing)
    return _Data(samples, data_digests(root, noted), looked_at)


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
