"""What recording may change about a model and its surroundings, and that all of it is put back."""

import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from torch import nn


@contextmanager
def probing_state(model: nn.Module, selected: set[nn.Parameter], seed: int) -> Iterator[None]:
    """Inside: evaluation mode, only ``selected`` requires gradients, random generators seeded, autograd on.

    Afterwards, also after an exception: every module's train/eval mode, every ``requires_grad`` and the
    states of the generators of Python, numpy and torch are what they were before. ``.grad`` is not touched
    at all.
    """
    with ExitStack() as stack:
        stack.enter_context(_random_state(seed))
        stack.enter_context(_evaluation_mode(model))
        stack.enter_context(_only_requiring(model, selected))
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        yield


@contextmanager
def _random_state(seed: int) -> Iterator[None]:
    python_state = random.getstate()
    numpy_state = np.random.get_state()
    with torch.random.fork_rng():
        try:
            random.seed(seed)
            np.random.seed(seed % 2**32)
            torch.manual_seed(seed)
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)


@contextmanager
def _evaluation_mode(model: nn.Module) -> Iterator[None]:
    training = {module: module.training for module in model.modules()}
    try:
        model.eval()
        yield
    finally:
        # Set one by one: a frozen part may be in eval mode inside a model that trains.
        for module, mode in training.items():
            module.training = mode


@contextmanager
def _only_requiring(model: nn.Module, selected: set[nn.Parameter]) -> Iterator[None]:
    switched_off = [p for p in model.parameters() if p.requires_grad and p not in selected]
    try:
        for parameter in switched_off:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in switched_off:
            parameter.requires_grad_(True)
