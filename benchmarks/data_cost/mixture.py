"""Time that the mixture adds to a sample: drawing it and writing its instruction, without opening its image."""

import time

from data_cost.row import Row
from unimed_model.data.mixture import Mixture
from unimed_model.data.sample import Sample, Samples
from unimed_model.prompts import PAPER, RELEASED, PromptProfile

SIZES = {"large": 80_000, "middle": 50_000, "small": 20_000}
"""150,000 samples, as the paper's datasets have together."""

GOAL = 50.0


def measure(quick: bool) -> list[Row]:
    """Return microseconds a sample, for both prompt profiles and kinds of batches, alone and as one of 8 processes."""
    datasets = {name: _samples(name, count // (100 if quick else 1)) for name, count in SIZES.items()}
    repeats, steps = (3, 100) if quick else (9, 5_000)
    rows = []
    for profile, size, options in (
        (PAPER, 4, {}),
        (RELEASED, 4, {}),
        (PAPER, 1, {}),
        (RELEASED, 4, {"batches": "mixed"}),
        (RELEASED, 4, {"world": 8, "rank": 7}),
    ):
        said = "".join(f", {key} {value}" for key, value in options.items())
        seconds = [_seconds(Mixture(datasets, size, steps, seed, profile, **options)) for seed in range(repeats)]
        what = f"mixture, {_name(profile)}, batches of {size}{said}"
        rows.append(Row(what, [each * 1e6 for each in seconds], GOAL, "at most", " µs a sample", 1))
    return rows


def _name(profile: PromptProfile) -> str:
    return f"profile {profile.name}"


def _seconds(mixture: Mixture) -> float:
    start = time.perf_counter()
    for batch in mixture:
        for draw in batch:
            mixture[draw]
    return (time.perf_counter() - start) / (mixture.steps * mixture.batch_size)


def _samples(name: str, count: int) -> Samples:
    meta = {"templates": "vqa", "subject": "Which organ is abnormal in this picture?"}
    answer = " ".join(["The left lung is smaller than the right one."] * 8)
    return Samples(
        Sample(name, "VQA", "train", str(i), f"{name}{i}", None, "fixed", answer, (), meta) for i in range(count)
    )
