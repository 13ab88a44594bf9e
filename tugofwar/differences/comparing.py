"""difference(): are two runs different in GD, GM and tug-of-war index (eq. 2 to 4), and how surely?

Not called difference.py: a submodule of that name would shadow the function ``tugofwar.difference``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from tugofwar.differences.alignment import align, same_batches
from tugofwar.differences.bounded import Uncertainty
from tugofwar.differences.changes import Batches, Comparison, draw_for_both, measure_run, pair_noise
from tugofwar.errors import UserError
from tugofwar.estimation import LabelledBounds, Table, label_bounds, label_values, rows_of_groups
from tugofwar.metrics import DEFAULT_ESTIMATOR, Array, check_estimator, maximum_normalised
from tugofwar.recording import Recording
from tugofwar.strata import Group, build_groups
from tugofwar.uncertainty import check_bootstrap

# A change is called sure when its p-value, adjusted for all cells of its measure, is at most this.
ALPHA = 0.05
FEWEST = 3
HIGHER, LOWER, NOT_SURE = "higher", "lower", "not sure"


@dataclass(frozen=True, eq=False)
class Change:
    """One measure in two runs, labelled like the measure.

    Attributes:
        a: the measure in the first run.
        b: the measure in the second.
        difference: ``b - a``.
        interval: of each difference alone.
        simultaneous: intervals that cover the differences of all cells together.
        p_values: two-sided, of no difference, adjusted for all cells of the measure.
    """

    a: Table
    b: Table
    difference: Table
    interval: LabelledBounds
    simultaneous: LabelledBounds
    p_values: Table

    def verdicts(self) -> Table:
        """``higher`` or ``lower`` (of b) where the adjusted p-value is at most 0.05, else ``not sure``."""
        direction = np.where(self.difference.to_numpy() > 0, HIGHER, LOWER)
        words = np.where(self.p_values.to_numpy() <= ALPHA, direction, NOT_SURE)
        return label_values(words, self.difference.index)


@dataclass(frozen=True, eq=False)
class Difference:
    """How two runs differ on the datasets that they share.

    Attributes:
        gd: gradient-direction interference (eq. 2); its diagonal is 1 in both.
        gm: gradient-magnitude similarity (eq. 3).
        index: tug-of-war index (eq. 4).
        index_normalised: index divided by the largest of its run; None where the largest of either run is not
            reliably positive.
        paired: whether both runs were probed with the same batches, which were then resampled together.
        estimator: of GD.
        level: probability that an interval should cover the truth.
        resamples: bootstrap draws behind the intervals.
        batches: number of batches of each group, the same in both runs.
        sign_uncertain: groups whose GD denominator may have either sign in either run: nothing is said of their row
            of GD and of their index, and nothing of any normalised index.
        only_a: datasets without a gradient in b, left out.
        only_b: datasets without a gradient in a, left out.
    """

    gd: Change
    gm: Change
    index: Change
    index_normalised: Change | None
    paired: bool
    estimator: str
    level: float
    resamples: int
    batches: Mapping[str, int]
    sign_uncertain: tuple[str, ...]
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]


def difference(
    a: Recording,
    b: Recording,
    groups: Mapping[str, Sequence[str]] | None = None,
    estimator: str = DEFAULT_ESTIMATOR,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    paired: bool | None = None,
) -> Difference:
    """What changed from recording ``a`` to recording ``b``, with bootstrap intervals and p-values.

    Batches are resampled within datasets: the same in both runs where both were probed with the same batches, so
    that what the batches share cancels; otherwise independently of each other. Rejecting every cell with a
    p-value up to 0.05 is wrong about any cell of that measure with a probability of about 5 %.

    GM has a bound: it is the same in two runs when their ``log(m_i / m_j)`` are equal or opposite. Only where
    both are rejected is there a difference (an intersection-union test; ``bounded.py``). The normalised index has a
    bound too: it is the same when the largest index is the same dataset's in both.

    Args:
        a: what ``record`` returned, or a selection of its blocks.
        b: another recording, with as many batches of the same size per dataset.
        groups: name to dataset names; by default one group per dataset. ``task_groups`` makes them by task.
        estimator: ``ratio_of_means`` or ``leave_one_out``; the plugin's bootstrap would miss its own point.
        resamples: bootstrap draws.
        level: probability that an interval should cover the truth.
        seed: seed of the bootstrap.
        paired: whether batch ``k`` of every dataset holds the same samples in both; None to find out from their
            metadata (``alignment.same_batches``).

    Raises:
        UserError: recordings that do not compare (``alignment.align``), under three batches, an unknown group, or a
            measure that does not exist in one of them.
    """
    check_estimator(estimator)
    if estimator == "plugin":
        raise UserError("The plugin has no interval of its own, nor has its difference; use 'ratio_of_means'.")
    check_bootstrap(resamples, level, seed)
    aligned = align(a, b)
    rows = rows_of_groups(aligned.a, groups, ())
    members = build_groups(rows, len(aligned.a), aligned.a.datasets)
    _check_enough(members)
    together = same_batches(aligned.a, aligned.b) if paired is None else paired
    grams = [aligned.a.gram, aligned.b.gram]
    batches = Batches(rows, aligned.a.datasets, members)
    one, other = (
        measure_run(gram, batches, estimator, counts, level)
        for gram, counts in zip(grams, draw_for_both(grams, members, resamples, seed, together), strict=True)
    )
    comparison = Comparison(one, other, pair_noise(grams, members, estimator, together), batches.sizes, level)
    names = pd.Index(list(rows))
    return Difference(
        gd=_change(one.gd, other.gd, comparison.direction(), names),
        gm=_change(one.gm, other.gm, comparison.magnitude(), names),
        index=_change(one.index, other.index, comparison.index(), names),
        index_normalised=_normalised(comparison, names),
        paired=together,
        estimator=estimator,
        level=level,
        resamples=resamples,
        batches={name: len(each) for name, each in rows.items()},
        sign_uncertain=tuple(name for name, flag in zip(rows, comparison.uncertain, strict=True) if flag),
        only_a=aligned.only_a,
        only_b=aligned.only_b,
    )


def _check_enough(members: Sequence[Group]) -> None:
    # Of two batches every usable resample holds both, so that nothing varies and everything would look sure.
    for stratum in (stratum for group in members for stratum in group.strata):
        if len(stratum.rows) < FEWEST:
            raise UserError(
                f"Dataset {stratum.name!r} has {len(stratum.rows)} batches, but a difference needs at least "
                f"{FEWEST} per dataset to resample; record more batches."
            )


def _normalised(comparison: Comparison, names: pd.Index) -> Change | None:
    found = comparison.normalised()
    if found is None:
        return None
    return _change(maximum_normalised(comparison.a.index), maximum_normalised(comparison.b.index), found, names)


def _change(a: Array, b: Array, found: Uncertainty, names: pd.Index) -> Change:
    return Change(
        a=label_values(a, names),
        b=label_values(b, names),
        difference=label_values(b - a, names),
        interval=label_bounds(found.interval, names),
        simultaneous=label_bounds(found.simultaneous, names),
        p_values=label_values(found.p_values, names),
    )
