"""What recording may change about a model and its surroundings, and that all of it is put back."""

import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from torch import nn


@contextmanager
def probing_state(model: nn.Module, selected: set[nn.Parameter] | None, seed: int) -> Iterator[None]:
    """Inside: evaluation mode, random generators seeded, autograd on, ``.grad`` empty everywhere, no synchronising.

    With ``selected``, only those parameters require gradients; without, those that did before.

    Afterwards, also after an exception: every module's train/eval mode, every ``requires_grad``, every
    ``.grad`` and the states of the generators of Python, numpy and torch are what they were before.
    """
    with ExitStack() as stack:
        stack.enter_context(_random_state(seed))
        stack.enter_context(_evaluation_mode(model))
        if selected is not None:
            stack.enter_context(_only_requiring(model, selected))
        stack.enter_context(_gradients_aside(model))
        stack.enter_context(_apart_from_other_processes(model))
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
    before = {parameter: parameter.requires_grad for parameter in model.parameters()}
    try:
        for parameter, required in before.items():
            if required and parameter not in selected:
                parameter.requires_grad_(False)
        yield
    finally:
        # All of them: what runs inside may switch selected ones off and on as well.
        for parameter, required in before.items():
            parameter.requires_grad_(required)


@contextmanager
def _gradients_aside(model: nn.Module) -> Iterator[None]:
    """Reentrant checkpoints need ``backward()``, which adds to ``.grad``; what was there waits outside."""
    before = {parameter: parameter.grad for parameter in model.parameters()}
    try:
        for parameter in before:
            parameter.grad = None
        yield
    finally:
        for parameter, gradient in before.items():
            parameter.grad = gradient


@contextmanager
def _apart_from_other_processes(model: nn.Module) -> Iterator[None]:
    """Each process passes batches of its own, so ``DistributedDataParallel`` must not wait for the others."""
    wrappers = [module for module in model.modules() if isinstance(module, nn.parallel.DistributedDataParallel)]
    before = [(each.require_backward_grad_sync, each.require_forward_param_sync) for each in wrappers]
    try:
        for wrapper in wrappers:
            wrapper.require_backward_grad_sync = wrapper.require_forward_param_sync = False
        yield
    finally:
        for wrapper, (backward, forward) in zip(wrappers, before, strict=True):
            wrapper.require_backward_grad_sync, wrapper.require_forward_param_sync = backward, forward
