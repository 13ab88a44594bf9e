"""Scores with 95 % intervals, differences with p-values, and the paper's relative gain Delta (Section 4.1)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from unimed_model.errors import UserError

from .draws import Array, aligned, mean_draws, paired
from .permutation import permutation_p
from .statistics import Metric
from .tally import Tally

_TAILS = (0.025, 0.975)
_SCORE, _DIFFERENCE = (0.0, 1.0), (-1.0, 1.0)

_TOO_FEW = "an interval needs samples of at least two images"
_NEAR_ZERO = "the interval of a baseline's score reaches 0"


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval.

    Attributes:
        value: a score in [0, 1], a difference of two, or Delta in percent; NaN if it is undefined.
        low: lower end; NaN if there is no interval.
        high: upper end.
        samples: on how many samples it rests.
        clusters: on how many images, or samples without one.
        runs: on how many runs (seeds), of the arm that has fewest; from one, the interval knows nothing of seeds.
        undefined: why there is no value or no interval; None if there are both.
    """

    value: float
    low: float
    high: float
    samples: int
    clusters: int
    runs: int
    undefined: str | None = None

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True)
class Difference(Estimate):
    """A difference of two scores, and its two-sided p-value, which is never 0."""

    p_value: float = field(kw_only=True)


def estimate(runs: Sequence[Tally], metric: str, flavour: str, seed: int = 0) -> Estimate:
    """Return a score, the mean over runs (seeds) of one arm on the same samples, with its interval.

    Raises:
        UserError: no such score, or runs that differ in their samples.
    """
    return estimates(runs, [(metric, flavour)], seed)[metric, flavour]


def estimates(runs: Sequence[Tally], metrics: Sequence[Metric] | None = None, seed: int = 0) -> dict[Metric, Estimate]:
    """Return estimates of several metrics, by default of all that there are, from one set of draws.

    Each is what `estimate` returns; together they take hardly longer than one.

    Raises:
        UserError: no such score, or runs that differ in their samples.
    """
    runs = aligned(runs)
    wanted = runs[0].metrics if metrics is None else list(metrics)
    draws = mean_draws(runs, wanted, seed)
    return {metric: _estimate(_mean(runs, metric), draws[metric], _SCORE, [runs]) for metric in wanted}


def difference(a: Sequence[Tally], b: Sequence[Tally], metric: str, flavour: str, seed: int = 0) -> Difference:
    """Return score of a minus score of b, paired by sample id, with interval and two-sided p-value.

    Of single runs the p-value is that of a permutation test which exchanges the two answers to all samples of an
    image; with several runs it is read off the draws, and so agrees with the interval.

    Args:
        a: runs (seeds) of one arm on one dataset.
        b: runs of another on the same samples.
        metric: its name.
        flavour: paper or released.
        seed: of the draws.

    Raises:
        UserError: no such score, or samples that only one of them has.
    """
    first, second = paired(a, b)
    wanted = (metric, flavour)
    draws = mean_draws(first, [wanted], seed, "a")[wanted] - mean_draws(second, [wanted], seed, "b")[wanted]
    found = _estimate(_mean(first, wanted) - _mean(second, wanted), draws, _DIFFERENCE, [first, second])
    single = len(first) == len(second) == 1
    p_value = permutation_p(first[0], second[0], metric, flavour, seed) if single else _draws_p(draws)
    return Difference(**vars(found), p_value=p_value)


def delta(
    models: Mapping[str, Sequence[Tally]],
    baselines: Mapping[str, Sequence[Tally]],
    metric_of: Callable[[str], str],
    flavour: str,
    seed: int = 0,
) -> Estimate:
    """Return Delta, the mean over datasets of (M_m - M_b) / M_b in percent (Section 4.1), with its interval.

    Datasets are resampled independently, model and baseline on the same images; the seeds of an arm are drawn once
    for all datasets. It has no value where a baseline scores 0, and no interval where over 2.5 % of the draws of a
    baseline are not above 0.

    Args:
        models: dataset -> runs (seeds) of the model, in the same order of seeds for all datasets.
        baselines: dataset -> runs of the baseline; the same datasets.
        metric_of: task -> metric, such as ``PRIMARY.__getitem__``.
        flavour: paper or released.
        seed: of the draws.

    Raises:
        UserError: datasets or samples that only one of them has, or no such score.
    """
    _same_datasets(models, baselines)
    gains, draws, arms = [], [], []
    for dataset in sorted(models):
        ours, theirs = paired(models[dataset], baselines[dataset])
        metric = (metric_of(ours[0].task), flavour)
        gains.append(_relative(np.float64(_mean(ours, metric)), np.float64(_mean(theirs, metric))))
        m, b = mean_draws(ours, [metric], seed, "model"), mean_draws(theirs, [metric], seed, "baseline")
        draws.append(_relative(m[metric], b[metric]))
        arms += [ours, theirs]
    if np.isinf(gains).any():
        at_zero = [dataset for dataset, gain in zip(sorted(models), gains, strict=True) if np.isinf(gain)]
        return _without_interval(np.nan, arms, f"the baseline scores 0 on {', '.join(at_zero)}")
    return _estimate(float(np.mean(gains)), np.mean(draws, axis=0), (-np.inf, np.inf), arms)


def _relative(model: Array | np.float64, baseline: Array | np.float64) -> Array:
    """Gain in percent; infinite over a baseline that is not above 0."""
    positive = np.where(baseline > 0, baseline, 1.0)
    return np.where(baseline > 0, 100 * (model - baseline) / positive, np.inf)


def _same_datasets(models: Mapping[str, Sequence[Tally]], baselines: Mapping[str, Sequence[Tally]]) -> None:
    alone = sorted(models.keys() ^ baselines.keys())
    if alone:
        raise UserError(f"only one of model and baseline was evaluated on {', '.join(alone)}.")
    if not models:
        raise UserError("there is no dataset to compare on.")


def _mean(runs: Sequence[Tally], metric: Metric) -> float:
    return float(np.mean([run.value(*metric) for run in runs]))


def _draws_p(draws: Array) -> float:
    tail = min(np.count_nonzero(draws <= 0), np.count_nonzero(draws >= 0))
    return float(min(1.0, 2 * (1 + tail) / (1 + len(draws))))


def _estimate(value: float, draws: Array, bounds: tuple[float, float], arms: Sequence[Sequence[Tally]]) -> Estimate:
    """An estimate with the percentiles of its draws, kept within the bounds of what is estimated.

    Args:
        value: the estimate itself.
        draws: (replicates,) of it; NaN where a draw of images holds no sample that counts.
        bounds: within which it lies for certain.
        arms: the runs of each arm on each dataset.
    """
    if min(len(set(runs[0].clusters)) for runs in arms) < 2:
        return _without_interval(value, arms, _TOO_FEW)
    with np.errstate(invalid="ignore"):  # between two infinite draws
        low, high = np.quantile(draws[~np.isnan(draws)], _TAILS)
    if not np.isfinite(high):
        return _without_interval(value, arms, _NEAR_ZERO)
    low, high = np.clip((low, high), *bounds)
    return Estimate(value, float(low), float(high), *_sizes(arms))


def _without_interval(value: float, arms: Sequence[Sequence[Tally]], reason: str) -> Estimate:
    return Estimate(value, np.nan, np.nan, *_sizes(arms), undefined=reason)


def _sizes(arms: Sequence[Sequence[Tally]]) -> tuple[int, int, int]:
    datasets = {runs[0].dataset: runs[0] for runs in arms}
    samples = sum(len(tally.ids) for tally in datasets.values())
    return samples, sum(len(set(tally.clusters)) for tally in datasets.values()), min(map(len, arms))
