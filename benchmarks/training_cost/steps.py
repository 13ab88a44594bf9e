"""A training step by ours, beside one of a bare PyTorch loop over the same model and batches."""

import copy
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from data_cost.row import Row
from transformers import TrainerCallback, TrainingArguments

from training_cost.workload import built, corpus, loader_of, mixture_of, settings_of
from unimed_model.data.collator import Collator
from unimed_model.loader import DATASETS
from unimed_model.modeling import UniMedForConditionalGeneration
from unimed_model.schedule import learning_rate_factor
from unimed_model.settings import RunSettings
from unimed_model.stopping import StopRequest
from unimed_model.train_log import TrainLog
from unimed_model.trainer import UniMedTrainer
from unimed_model.trainer_arguments import training_arguments

GOAL = 1.05


def measure(quick: bool) -> list[Row]:
    """Return times over those of the bare loop: for ``small``, which the goal is for, and for ``tiny``."""
    with tempfile.TemporaryDirectory() as folder:
        datasets = corpus()
        rows = []
        for preset, steps in [("tiny", 20)] if quick else [("small", 42), ("tiny", 1500)]:
            settings = settings_of(preset, steps)
            model, processor = built(settings, datasets)
            pairs = _Pairs(
                settings, copy.deepcopy(model), loader_of(mixture_of(settings, datasets, processor), processor)
            )
            log = TrainLog(Path(folder), 50, {n: s[0].task for n, s in datasets.items()}, steps=steps, warmup_steps=0)
            trainer = UniMedTrainer(
                model,
                training_arguments(settings, Path(folder) / preset),
                settings=settings,
                mixture=mixture_of(settings, datasets, processor),
                collator=Collator(processor),
                log=log,
                stop=StopRequest(),
                callbacks=[pairs],
            )
            log.rewind(0)
            trainer.train()
            log.close()
            assert pairs.agree(model), "the two loops do not train alike"
            rows.append(Row(f"step of `{preset}`: ours over a bare loop", pairs.ratios[2:], GOAL, "at most", digits=3))
        return rows


class _Pairs(TrainerCallback):
    """After every step of ours, one of the bare loop; each from asking for its batch to the zeroed gradients."""

    def __init__(self, settings: RunSettings, model: UniMedForConditionalGeneration, batches: object) -> None:
        self._model = model.train()
        self._bare = _bare_loop(settings, model, batches)
        self._since = 0.0
        self.ratios: list[float] = []

    def on_train_begin(self, args: TrainingArguments, state: object, control: object, **kwargs: object) -> None:
        """Start the clock of the first step."""
        self._since = time.perf_counter()

    def on_step_end(self, args: TrainingArguments, state: object, control: object, **kwargs: object) -> None:
        """Take a step of the bare loop."""
        ours, began = time.perf_counter() - self._since, time.perf_counter()
        next(self._bare)
        self.ratios.append(ours / (time.perf_counter() - began))
        self._since = time.perf_counter()

    def agree(self, model: UniMedForConditionalGeneration) -> bool:
        """Whether both loops came to the same weights."""
        mine = dict(self._model.named_parameters())
        return all(torch.allclose(p, mine[name], rtol=1e-3, atol=1e-4) for name, p in model.named_parameters())


def _bare_loop(settings: RunSettings, model: UniMedForConditionalGeneration, batches: object) -> Iterator[None]:
    training = settings.training
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": training.weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(
        groups, lr=training.peak_learning_rate, betas=(training.beta1, training.beta2), fused=True
    )
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, learning_rate_factor(training))
    for batch in batches:  # type: ignore[attr-defined]
        batch.pop(DATASETS)
        loss = model(**batch, use_cache=False).loss
        loss.backward()
        if training.gradient_clip is not None:
            torch.nn.utils.clip_grad_norm_(trained, training.gradient_clip)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        loss.item()
        yield
