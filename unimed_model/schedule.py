"""The learning rate over a run: linear warm-up, then a cosine down to a floor."""

from typing import Any

from .settings import TrainingSettings

SCHEDULER = "cosine_with_min_lr"
"""Name of transformers' scheduler."""


def scheduler_options(training: TrainingSettings) -> dict[str, Any]:
    """Return what the scheduler needs beside steps and peak."""
    return {"min_lr": training.floor_learning_rate}


def learning_rates(training: TrainingSettings, steps: list[int]) -> list[float]:
    """Return the learning rate at each of the steps, from the scheduler that training uses."""
    import torch
    from transformers import get_scheduler

    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=training.peak_learning_rate)
    scheduler: Any = get_scheduler(
        SCHEDULER,
        optimizer,
        num_warmup_steps=training.warmup_steps,
        num_training_steps=training.steps,
        scheduler_specific_kwargs=scheduler_options(training),
    )
    return [training.peak_learning_rate * scheduler.lr_lambdas[0](step) for step in steps]
