"""Runs an ablation: what is missing of it, by the real commands, a few at a time."""

import sys
from dataclasses import replace

from analyses.ablation_runs import Ablation, is_finished, locked
from analyses.ablation_tables import rows_named
from analyses.launching import Engine, LocalEngine, Outcome, launch, told
from tugofwar.errors import UserError
from tugofwar.naming import closest

ENGINES = ("local", "submitit")


def run(
    ablation: Ablation,
    only: str | None = None,
    engine: str = "local",
    at_once: int | None = None,
    resources: tuple[str, ...] = (),
    cluster: str | None = None,
    quiet: bool = False,
) -> list[Outcome]:
    """Train and evaluate every arm with every seed; what is finished is left alone.

    A run that fails does not stop the others.

    Args:
        ablation: what is asked for.
        only: arms to run now, separated by commas; None: all.
        engine: one of ``ENGINES``.
        at_once: runs at a time.
        resources: ``key=value`` of a job on a cluster.
        cluster: submitit's cluster.
        quiet: say nothing but what failed.

    Returns:
        How the runs ended that did not succeed.

    Raises:
        UserError: anything that is asked for is unknown, or does not fit the folder or each other.
    """
    rows = rows_named(ablation.table, only)
    ablation.check(rows)
    where = _engine(ablation, engine, at_once, resources, cluster)
    with locked(ablation.out) as lock:
        ablation.enter()
        if isinstance(where, LocalEngine):
            where = replace(where, inherited=(lock,))
        pairs = [(row.arm, seed) for row in rows for seed in range(ablation.seeds)]
        missing = [pair for pair in pairs if not is_finished(ablation.folder(*pair))]
        if not quiet and len(missing) < len(pairs):
            print(f"{len(pairs) - len(missing)} of {len(pairs)} runs are finished already", file=sys.stderr)
        outcomes = launch([ablation.job(*pair) for pair in missing], where, quiet)
    failed = [outcome for outcome in outcomes if not outcome.well]
    if failed:
        print(f"{len(failed)} of {len(pairs)} runs failed:", *map(told, failed), sep="\n", file=sys.stderr)
    return failed


def _engine(
    ablation: Ablation, name: str, at_once: int | None, resources: tuple[str, ...], cluster: str | None
) -> Engine:
    if name not in ENGINES:
        raise UserError(f"There is no engine {name!r}; {closest(name, ENGINES)}.")
    if name == "local":
        if resources or cluster:
            raise UserError("--slurm and --cluster are for --engine submitit.")
        return LocalEngine(at_once or 1)
    from analyses.cluster import SubmititEngine, resources_of

    engine = SubmititEngine(ablation.out / "submitit", resources_of(resources), cluster, at_once)
    engine.check()
    return engine
