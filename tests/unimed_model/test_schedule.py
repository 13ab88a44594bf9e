"""Learning rates of both profiles against numbers worked out by hand."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import get_scheduler

from unimed_model.presets import resolve
from unimed_model.schedule import learning_rate_factor, learning_rates

# paper: 0 at the start, 1e-6 after 10,000 steps, then 1e-7 + 9e-7 (1 + cos(pi t)) / 2 with t = (s - 10,000) / 90,000
PAPER = {0: 0.0, 5000: 5e-7, 10000: 1e-6, 32500: 8.681980515339464e-7, 55000: 5.5e-7, 100000: 1e-7}

# released: from 1e-6 to 1e-5 over 5,000 steps, then 1e-7 + 9.9e-6 (1 + cos(pi s / 50,000)) / 2
RELEASED = {
    0: 1e-6,
    2500: 5.5e-6,
    4999: 9.9982e-6,
    5000: 9.757729755661009e-6,
    25000: 5.05e-6,
    50000: 1e-7,
}


@pytest.mark.parametrize(("preset", "expected"), [("paper", PAPER), ("released", RELEASED)])
def test_the_rates_of_a_profile_are_those_worked_out_by_hand(preset, expected):
    assert learning_rates(resolve(preset).training, expected) == pytest.approx(list(expected.values()), rel=1e-12)


def test_the_released_cosine_drops_when_the_warm_up_ends():
    before, after = learning_rates(resolve("released").training, [4999, 5000])
    assert before > 9.99e-6
    assert after == pytest.approx(9.76e-6, rel=1e-3)


@given(steps=st.integers(1, 300), warmup=st.integers(0, 300), floor=st.floats(0, 1))
def test_after_the_warm_up_it_is_the_cosine_of_transformers(steps, warmup, floor):
    training = resolve("tiny").training.model_copy(
        update={
            "steps": steps,
            "warmup_steps": warmup,
            "floor_learning_rate": floor * 1e-3,
            "peak_learning_rate": 1e-3,
        }
    )
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1e-3)
    theirs = get_scheduler(
        "cosine_with_min_lr",
        optimizer,
        num_warmup_steps=warmup,
        num_training_steps=steps,
        scheduler_specific_kwargs={"min_lr": floor * 1e-3},
    ).lr_lambdas[0]
    ours = learning_rate_factor(training)
    assert [ours(step) for step in range(steps + 1)] == pytest.approx([theirs(step) for step in range(steps + 1)])
