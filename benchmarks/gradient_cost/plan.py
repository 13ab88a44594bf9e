"""Which measurements are made, in which order, and how long they may take."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from gradient_cost.job import Job
from gradient_cost.scale import Scale

OURS = ("ours", "ours, without statistics")
BASELINES = ("naive loop", "two-pass streaming")
PEERS = (
    "TorchJD, batches apart",
    "TorchJD, batches joined",
    "dattri-llm",
    "kronfluence (identity)",
    "opacus",
    "BackPACK",
)
# Their passes take as long with every batch as with the first; those of the others do not, or hold all graphs.
STEADY_PEERS = ("dattri-llm", "BackPACK")
# They hold every gradient.
HOLDING = ("naive loop", "opacus", "BackPACK")

MOST_FOR_PEERS = 32
# All gradients of more batches do not fit.
MOST_FOR_STEADY = 200
_BATCHES_PER_DATASET = 100
_BATCHES_OF_REFERENCE = 16

# Rough time of a method, in plain passes per batch; only the forecast knows them.
_ROUGHLY: dict[str, Callable[[int], float]] = {
    "two-pass streaming": lambda n: 2.1,
    "TorchJD, batches apart": lambda n: 0.4 + 0.8 * n,
    "TorchJD, batches joined": lambda n: 3,
    "dattri-llm": lambda n: 2,
    "kronfluence (identity)": lambda n: 5,
    "opacus": lambda n: 1.5,
    "BackPACK": lambda n: 1.5,
    "reference": lambda n: 2.5,
}
_SECONDS_TO_START = 5


@dataclass(frozen=True)
class Extent:
    """How much is measured.

    Attributes:
        batches: numbers of batches of the table.
        repeats: of measurements with up to ``MOST_FOR_PEERS``, up to ``MOST_FOR_STEADY``, and more batches.
        growth_batches: numbers of batches, with 2 datasets.
        growth_datasets: numbers of datasets, with ``growth_total`` batches.
        growth_total: see above.
        growth_widths: times the width, with the first of ``growth_batches``.
    """

    batches: tuple[int, ...]
    repeats: tuple[int, int, int]
    growth_batches: tuple[int, ...]
    growth_datasets: tuple[int, ...]
    growth_total: int
    growth_widths: tuple[int, ...]


FULL = Extent((16, 200, 1000), (3, 2, 1), (50, 100, 200, 400, 800), (2, 4, 8, 12), 96, (1, 2, 4))
QUICK = Extent((8, 40), (1, 1, 1), (50, 100), (2, 6), 48, (1, 2))


@dataclass(frozen=True)
class Step:
    """A job and where its outcome belongs: ``section`` and a label within it."""

    section: str
    label: str
    job: Job


def datasets_of(batches: int) -> int:
    """Datasets that so many batches belong to: 100 batches each as in the paper, but at least two."""
    return max(2, batches // _BATCHES_PER_DATASET)


def reference_rows(batches: int) -> list[int]:
    """The batches that the Gram matrix is compared on, spread over all."""
    rows = min(batches, _BATCHES_OF_REFERENCE)
    return [place * (batches - 1) // max(1, rows - 1) for place in range(rows)]


def table_steps(scale: Scale, extent: Extent, sections: Iterable[str]) -> list[Step]:
    """Every method at every number of batches that suits it; repeats alternate, as the machine's state does."""
    steps = []
    for batches in sorted(extent.batches):
        methods = _methods(batches, sections)
        if not methods:
            continue
        datasets = datasets_of(batches)
        steps.append(Step("reference", str(batches), Job("reference", scale, reference_rows(batches), datasets)))
        small, middle, large = extent.repeats
        repeats = small if batches <= MOST_FOR_PEERS else middle if batches <= MOST_FOR_STEADY else large
        for _ in range(repeats):
            steps += [Step("table", str(batches), Job(name, scale, range(batches), datasets)) for name in methods]
    return steps


def _methods(batches: int, sections: Iterable[str]) -> list[str]:
    if batches > MOST_FOR_STEADY:
        return ["ours"] if "ours" in sections else []
    few = batches <= MOST_FOR_PEERS
    methods: list[str] = []
    if "ours" in sections or "peers" in sections:
        methods += [*OURS, *(BASELINES if few else BASELINES[:1])]
    if "peers" in sections:
        methods += PEERS if few else STEADY_PEERS
    return methods


def growth_steps(scale: Scale, extent: Extent) -> list[Step]:
    """Ours under one layer of language model: over batches, over datasets, over parameters; the longest last."""
    shallow = scale.shallow()
    first = extent.growth_batches[0]
    steps = [Step("growth", "batches", Job("ours", shallow, range(n), 2)) for n in extent.growth_batches]
    steps += [
        Step("growth", "datasets", Job("ours", shallow, range(extent.growth_total), n)) for n in extent.growth_datasets
    ]
    steps += [
        Step("growth", "parameters", Job("ours", shallow.wider(times), range(first), 2))
        for times in extent.growth_widths
    ]
    return sorted(steps, key=lambda step: len(step.job.numbers) * step.job.scale.parameters)


def forecast_seconds(steps: Sequence[Step], scale: Scale, deep: float, shallow: float) -> float:
    """Rough time of all steps.

    Args:
        steps: what is to be done.
        scale: of the table.
        deep: seconds of a plain pass at ``scale``.
        shallow: seconds of a plain pass under one layer of language model.
    """
    total = 0.0
    for step in steps:
        batches = len(step.job.numbers)
        roughly = _ROUGHLY.get(step.job.method, lambda n: 1.1 + n / 8000)(batches)
        plain = deep if step.section != "growth" else shallow * step.job.scale.parameters / scale.parameters
        # Products cost the same per batch under a shallow model as under a deep one.
        products = 0.0 if step.section != "growth" else deep * step.job.scale.parameters / scale.parameters
        beside = min(1.0, 100 / batches)
        total += _SECONDS_TO_START + batches * (plain * (beside + roughly) + products * (0.05 + batches / 8000))
    return total
