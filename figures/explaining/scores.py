"""How many parameters are torn: the statistics score (equation 5) against what noise alone would give."""

from collections.abc import Sequence

import pandas as pd

from figures.explaining.sampling import few_batches, gradient_sampling
from figures.explaining.sentences import counted, percent, percent_interval, within
from figures.explaining.support import Case, Support, judge
from figures.explanation import Explanation
from figures.tables.gradients import GradientTables

AGREEING = 0.9
"""Parameters scoring above this are those whose gradients agree; the last of the ten intervals."""


def distribution(runs: Sequence[GradientTables], level: str) -> Explanation:
    """Text beside the distribution of statistics scores of several runs, with both nulls.

    Args:
        runs: gradient tables.
        level: ``dataset`` or ``task``.
    """
    scored = [run for run in runs if level in run.levels and run.levels[level].scores is not None]
    return Explanation(
        title=f"Statistics scores between {level}s",
        reading=(
            f"A parameter scores 1 when all {level}s push it the same way, and near 0 when they tear it in opposite "
            "ones; the height says what share of the parameters falls into each tenth. "
            "Read a run against its own two lines, because noise lowers scores as conflict does: one is what random "
            "signs would give, the other what the same noise would give if all pulled one way."
        ),
        finding=_distribution_finding(scored, level),
        caption=(
            f"Share of parameters in each tenth of the statistics score (equation 5) between {level}s, for "
            f"{', '.join(run.name for run in scored)}. {' '.join(_parameters(run, level) for run in scored)} "
            f"{gradient_sampling(scored[0])} Intervals and nulls come from a seeded sample of each block's parameters."
        ),
        warnings=tuple(dict.fromkeys(text for run in scored for text in _warnings(run, level))),
    )


def blocks(run: GradientTables, level: str) -> Explanation:
    """Text beside the distribution by block.

    Args:
        run: gradient tables with scores by block.
        level: ``dataset`` or ``task``.
    """
    return Explanation(
        title=f"{run.name}: statistics scores by block, {level}s",
        reading=(
            "Each block of parameters is cut into the tenths of the statistics score: the larger the share near 1, the "
            f"more the {level}s agree on its parameters. "
            "Blocks differ in noise too, so a block is to be read against its own null, not only against its "
            "neighbours."
        ),
        finding=_blocks_finding(run, level),
        caption=(
            f"Share of parameters in each tenth of the statistics score (equation 5) between {level}s in run "
            f"{run.name}, block by block. {_parameters(run, level)} {gradient_sampling(run)} Intervals and nulls come "
            "from a seeded sample of each block's parameters."
        ),
        warnings=tuple(_warnings(run, level)),
    )


def agreeing(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of the last tenth; 0.9 may have been written as 0.9000000000000001."""
    return table[table["interval_low"] > AGREEING - 0.05]


def _judged(table: pd.DataFrame, names: Sequence[str], level: float) -> Support | None:
    if "null_no_conflict" not in table:
        return None
    return judge(table, names, table["null_no_conflict"], level, value="share", null_name="their null")


def _distribution_finding(runs: Sequence[GradientTables], level: str) -> str | None:
    parts = []
    for run in runs:
        scores = run.levels[level].scores
        if scores is not None:
            parts.append(agreeing(scores).assign(run=run.name))
    if not parts or any("null_no_conflict" not in part for part in parts):
        return None
    table = pd.concat(parts, ignore_index=True)
    found = _judged(table, ["run"], runs[0].interval_level)
    if found is None or not found.below:
        return None
    nulls = dict(zip(table["run"], table["null_no_conflict"], strict=True))
    clauses = [
        f"{_share(case)} of {case.names[0]}'s parameters are above {AGREEING} ({percent(nulls[case.names[0]])} if "
        f"all {level}s pulled one way)"
        for case in found.below
    ]
    runs_of = "the run" if found.tested == 1 else f"{len(found.below)} of {found.tested} runs"
    begin = f"Noise alone does not seem to explain the low scores of {runs_of}: "
    return within([begin + clauses[0], *clauses[1:]], f"; {found.basis}", brief=f"; {found.brief}")


def _blocks_finding(run: GradientTables, level: str) -> str | None:
    table = run.levels[level].score_blocks
    if table is None:
        return None
    last = agreeing(table)
    found = _judged(last, ["block"], run.interval_level)
    if found is None or not found.below:
        return None
    case = found.below[0]
    null = dict(zip(last["block"], last["null_no_conflict"], strict=True))[case.names[0]]
    text = (
        f"In run {run.name}, noise alone does not seem to explain the low scores, most clearly in {case.names[0]}: "
        f"{_share(case)} are above {AGREEING} ({percent(null)} if all {level}s pulled one way)"
    )
    return within([text], f"; {found.basis}", brief=f"; {found.brief}")


def _share(case: Case) -> str:
    return percent_interval(case.value, case.low, case.high)


def _parameters(run: GradientTables, level: str) -> str:
    undefined, parameters = run.undefined.get(level, (0, 0))
    if not parameters:
        return ""
    return f"Run {run.name}: {counted(parameters - undefined, 'parameter')}."


def _warnings(run: GradientTables, level: str) -> list[str]:
    undefined, parameters = run.undefined.get(level, (0, 0))
    warnings = few_batches(min(run.batches), run.name)
    if undefined:
        warnings.append(
            f"In run {run.name} {undefined:,} of {counted(parameters, 'parameter')} "
            f"({percent(undefined / parameters)}) have no statistics score between {level}s, because no {level} moves "
            "them (0/0 in equation 5); they are left out."
        )
    scores = run.levels[level].scores
    if scores is not None and "null_no_conflict" not in scores:
        warnings.append(
            f"Run {run.name} has no null without conflict for its scores, so that noise and conflict cannot be told "
            "apart."
        )
    if scores is not None and "null_no_conflict" in scores:
        noise = float(agreeing(scores)["null_no_conflict"].iloc[0])
        if noise < 0.5:
            warnings.append(
                f"In run {run.name} noise alone would leave only {percent(noise)} of the parameters above {AGREEING} "
                f"at {level} level: a low score there is by itself no sign of conflict."
            )
    return warnings
