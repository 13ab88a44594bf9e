"""How the router divides the work: weights, their entropies and information, divergence, experts switched off."""

from math import log2

import pandas as pd

from figures.explaining.sampling import not_reaching
from figures.explaining.sentences import counted, interval, named, number, p_value, within
from figures.explaining.support import Case, Support, judge, widened, widening_apart
from figures.explanation import Explanation
from figures.tables.routing import RoutingTables
from figures.tables.runs import Run

FEW_SAMPLES = 30
"""Under this many samples per dataset the bootstrap over samples is rough."""


def weights(run: Run, router: str) -> Explanation:
    """Text beside the maps of mean weights, tasks x experts, one per checkpoint.

    Args:
        run: with routing tables.
        router: name of the router.
    """
    tables = routing_of(run)
    level = level_of(tables)
    return Explanation(
        title=f"{run.name}: routing weights of {router}",
        reading=(
            f"Each row shows how one {level}'s tokens spread their weight over the experts, and sums to 1. "
            f"Rows that look alike mean that the router treats these {level}s alike; a column that is pale in every "
            "row is an expert that hardly works."
        ),
        finding=_weights_finding(run, router),
        caption=f"Mean routing weight of every expert in router {router} of run {run.name}. {_sampling(tables)}",
        warnings=tuple(_warnings(run, router)),
    )


def measures(run: Run, router: str) -> Explanation:
    """Text beside the entropies.

    Args:
        run: with routing tables.
        router: name of the router.
    """
    tables = routing_of(run)
    return Explanation(
        title=f"{run.name}: how evenly and how decidedly {router} routes",
        reading=(
            "Both entropies are 1 when weight is spread evenly over all experts and 0 when it sits on one. "
            "That of the mean weights tells whether all experts are used, that of single tokens whether each token is "
            "decided: both high means that the experts are hardly told apart, the first high and the second low that "
            "each works on tokens of its own."
        ),
        finding=None,
        caption=(
            "Entropy of the mean weights, and mean over tokens of that of their weights, both divided by the logarithm "
            f"of the number of experts, router {router} of run {run.name}. {_sampling(tables)}"
        ),
        warnings=tuple(_warnings(run, router)),
    )


def load(run: Run, router: str) -> Explanation:
    """Text beside the share of tokens that each expert leads.

    Args:
        run: with routing tables.
        router: name of the router.
    """
    tables = routing_of(run)
    return Explanation(
        title=f"{run.name}: how many tokens each expert of {router} leads",
        reading=(
            "The load of an expert is the share of tokens whose largest weight it has, so that the loads of one "
            f"{level_of(tables)} sum to 1 over the experts. "
            "An expert without load may still have weight, as the second choice of many tokens; one that is dead has "
            "hardly any of either."
        ),
        finding=None,
        caption=(
            f"Share of tokens whose largest weight each expert has, router {router} of run {run.name}. "
            f"{_sampling(tables)} Dead: less than a hundredth of a fair share of the weight."
        ),
        warnings=tuple(_warnings(run, router)),
    )


def information(run: Run, router: str) -> Explanation:
    """Text beside the mutual information of task and expert.

    Args:
        run: with routing tables that have mutual information.
        router: name of the router.
    """
    tables = routing_of(run)
    level = level_of(tables)
    return Explanation(
        title=f"{run.name}: how much the expert of {router} tells about the {level}",
        reading=(
            f"Mutual information is how many bits the expert of a token tells about its {level}: 0 when all {level}s "
            "are routed alike. "
            "Chance alone lifts it above 0, so it is to be read against its mark for shuffled labels, which only one "
            "shuffle in twenty exceeds."
        ),
        finding=_information_finding(run, router),
        caption=(
            f"Mutual information of label and expert in bits, router {router} of run {run.name}. {_sampling(tables)} "
            "Each label counts the same; the null is the 95% point under labels shuffled between samples."
        ),
        warnings=tuple(_warnings(run, router)),
    )


def divergence(run: Run, router: str) -> Explanation:
    """Text beside the Jensen-Shannon divergence between tasks.

    Args:
        run: with routing tables that have divergences.
        router: name of the router.
    """
    tables = routing_of(run)
    level = level_of(tables)
    return Explanation(
        title=f"{run.name}: which {level}s {router} routes differently",
        reading=(
            f"A cell is 0 when two {level}s spread their weight over the experts in the same way, and 1 bit when they "
            "share no expert at all. "
            "It is never negative, and noise alone lifts it a little above 0, so small values are no evidence of a "
            "difference."
        ),
        finding=_divergence_finding(run, router),
        caption=(
            f"Jensen-Shannon divergence of mean routing weights in bits, router {router} of run {run.name}. "
            f"{_sampling(tables)}"
        ),
        warnings=tuple(_warnings(run, router)),
    )


def switched_off(run: Run, router: str) -> Explanation:
    """Text beside the change of loss when one expert is switched off.

    Args:
        run: with routing tables that have switched-off experts.
        router: name of the router.
    """
    tables = routing_of(run)
    level = level_of(tables)
    chosen = _at(tables.switched_off, router, _last(tables))
    batches = (
        "" if chosen.empty else f" {_range(chosen['batches'])} batches per row, the same with and without the expert."
    )
    return Explanation(
        title=f"{run.name}: what switching off an expert of {router} costs",
        reading=(
            f"Each number is how much a {level}'s loss rises when one expert's weight is set to 0 and the others are "
            "scaled up to make up for it. "
            f"Near 0 the expert is not missed by that {level}, and below 0 the {level} does better without it."
        ),
        finding=_switched_off_finding(run, router),
        caption=(
            f"Change of the mean loss (of Uni-Med in nats per answer token) with one expert of router {router} "
            f"switched off, run {run.name}.{batches} {_sampling(tables, 'batches')}"
        ),
        warnings=tuple(_warnings(run, router)),
    )


def tokens(run: Run, router: str) -> Explanation:
    """Text beside the weights drawn over a few images.

    Args:
        run: with routing tables that have tokens.
        router: name of the router.
    """
    tables = routing_of(run)
    table = tables.tokens
    chosen = None if table is None else table[table["router"] == router]
    shown = 0 if chosen is None else int(chosen["image"].nunique())
    return Explanation(
        title=f"{run.name}: routing weights on images, {router}",
        reading=(
            "Every strip is one visual token, drawn over the part of the image that it was made from and shaded by the "
            "weight that the expert has there. "
            "An expert whose shade follows the anatomy looks at where, and one of even shade is chosen by the task as "
            "a whole."
        ),
        finding=None,
        caption=(
            f"Per-token weights of router {router} of run {run.name} on {counted(shown, 'image')}, in colours that "
            "begin at 0; without intervals. Datasets without images, and those whose licence forbids passing them on, "
            f"have none here.{_checkpoints(tables)}"
        ),
        warnings=(
            f"{counted(shown, 'image')} of run {run.name} illustrate the routing and prove nothing about the others.",
        )
        if shown
        else (),
    )


def routing_of(run: Run) -> RoutingTables:
    """The run's routing tables.

    Raises:
        ValueError: a run without any.
    """
    if run.routing is None:
        raise ValueError(f"Run {run.name} has no routing tables.")
    return run.routing


def level_of(tables: RoutingTables) -> str:
    """The level that findings speak of: tasks where they are known."""
    return "task" if "task" in set(tables.weights["level"]) else "dataset"


def _last(tables: RoutingTables) -> str:
    return tables.checkpoints[-1]


def _at(table: pd.DataFrame | None, router: str, checkpoint: str) -> pd.DataFrame:
    if table is None:
        return pd.DataFrame()
    return table[(table["router"] == router) & (table["checkpoint"] == checkpoint)]


def _where(run: Run, tables: RoutingTables) -> str:
    return f"In run {run.name}, {tables.labels[_last(tables)]},"


def _interval_level(tables: RoutingTables) -> float:
    return float(tables.manifest["interval_level"])


def _experts(tables: RoutingTables, router: str) -> int:
    return int(tables.weights.loc[tables.weights["router"] == router, "expert"].nunique())


def _weights_finding(run: Run, router: str) -> str | None:
    tables = routing_of(run)
    level, experts = level_of(tables), _experts(tables, router)
    table = _at(tables.weights, router, _last(tables))
    table = table[table["level"] == level]
    if experts < 2 or table.empty:
        return None
    even = 1 / experts
    found = judge(
        table,
        ["name", "expert"],
        even,
        _interval_level(tables),
        value="weight",
        null_name=f"the even share {number(even)}",
    )
    if not found.cases:
        return None
    clauses = [_leaning(case, "most on") for case in found.above[:1]]
    clauses += [_leaning(case, "least on") for case in found.below[:1]]
    return within(
        [f"{_where(run, tables)} {clauses[0]}", *clauses[1:]], f"; {found.basis}", " and ", f"; {found.brief}"
    )


def _leaning(case: Case, how: str) -> str:
    return f"{case.names[0]} leans {how} expert {case.names[1]} ({interval(case.value, case.low, case.high)})"


def _information_finding(run: Run, router: str) -> str | None:
    tables = routing_of(run)
    found = _informed(tables, router)
    if found is None:
        return None
    row, tests = found
    level = str(row["level"])
    labels = tables.weights.loc[tables.weights["level"] == level, "name"].nunique()
    fewest = min(labels, _experts(tables, router))
    if fewest < 2:
        return None
    most = log2(fewest)
    text = (
        f"{_where(run, tables)} the router tells {level}s apart: {level} and expert share "
        f"{interval(row['value'], row['low'], row['high'])} bits, of at most {number(most)}, where shuffled labels "
        f"stay under {number(row['null_high'])} ({p_value(min(1.0, row['p_value'] * tests))}"
        f"{f', adjusted for {tests:,} routers' if tests > 1 else ''})"
    )
    return within([text])


def _informed(tables: RoutingTables, router: str) -> tuple[pd.Series, int] | None:
    """Information at the last checkpoint if it is above its null after adjustment, and the number of tests."""
    if tables.information is None:
        return None
    last = tables.information["checkpoint"] == _last(tables)
    table = tables.information[last & (tables.information["level"] == level_of(tables))]
    tests = len(table)
    table = table[table["router"] == router]
    if table.empty:
        return None
    row = table.iloc[0]
    sure = row["p_value"] * tests <= 0.05 and row["value"] > row["null_high"]
    return (row, tests) if sure else None


def _divergence_finding(run: Run, router: str) -> str | None:
    tables = routing_of(run)
    table = _at(tables.divergence, router, _last(tables))
    if table.empty or _informed(tables, router) is None:
        return None
    # A divergence is symmetric: each pair counts once, under the names in their order.
    table = table[(table["level"] == level_of(tables)) & (table["row"] < table["column"])]
    if len(table) < 2:
        return None
    ordered = table.sort_values(["value", "row", "column"])
    closest, furthest = ordered.iloc[0], ordered.iloc[-1]
    comparisons = len(ordered) * (len(ordered) - 1) // 2
    low, high = widened(
        ordered["value"], ordered["low"], ordered["high"], widening_apart(_interval_level(tables), comparisons)
    )
    if not low.iloc[-1] > high.iloc[0]:
        return None
    text = (
        f"{_where(run, tables)} {furthest['row']} and {furthest['column']} are routed further apart "
        f"({interval(furthest['value'], furthest['low'], furthest['high'])} bits) than {closest['row']} and "
        f"{closest['column']} ({interval(closest['value'], closest['low'], closest['high'])} bits; single "
        f"{_interval_level(tables):.0%} intervals, apart even when widened for all pairs)"
    )
    return within([text])


def _switched_off(tables: RoutingTables, router: str) -> Support:
    table = _at(tables.switched_off, router, _last(tables))
    if len(table):
        table = table[table["level"] == level_of(tables)]
    return judge(table, ["expert", "name"], 0.0, _interval_level(tables), value="change")


def _switched_off_finding(run: Run, router: str) -> str | None:
    tables = routing_of(run)
    found = _switched_off(tables, router)
    if not found.cases:
        return None
    clauses = [
        f"{case.names[1]} {verb} most clearly without expert {case.names[0]} (loss {_signed(case)})"
        for cases, verb in ((found.above, "suffers"), (found.below, "gains"))
        for case in cases[:1]
    ]
    return within(
        [f"{_where(run, tables)} {clauses[0]}", *clauses[1:]], f"; {found.basis}", " and ", f"; {found.brief}"
    )


def _signed(case: Case) -> str:
    sign = "+" if case.value > 0 else ""
    return sign + interval(case.value, case.low, case.high)


def _range(numbers: pd.Series) -> str:
    low, high = int(numbers.min()), int(numbers.max())
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _sampling(tables: RoutingTables, drawn: str = "samples") -> str:
    """Checkpoints, sample sizes and intervals; ``drawn`` are what the bootstrap draws."""
    manifest = tables.manifest
    parts = [_checkpoints(tables).strip().rstrip(".")]
    samples = manifest.get("samples") or {}
    if samples:
        text = f"{_range(pd.Series(list(samples.values())))} samples per dataset"
        everything = tables.weights[tables.weights["level"] == "all"]
        if "tokens" in everything and len(everything):
            text += f", {int(everything['tokens'].max()):,} tokens in all"
        parts.append(text)
    parts.append(
        f"{_interval_level(tables):.0%} intervals by bootstrap over {drawn} within datasets"
        + (f" ({manifest['resamples']:,} resamples)" if "resamples" in manifest else "")
    )
    if "seed" in manifest:
        parts.append(f"seed {manifest['seed']}")
    return "; ".join(parts) + "." + not_reaching(manifest.get("untouched") or [], "the router")


def _checkpoints(tables: RoutingTables) -> str:
    steps = {entry["name"]: entry.get("step") for entry in tables.manifest["checkpoints"]}
    return f" Checkpoints: {', '.join(_checkpoint(label, steps[name]) for name, label in tables.labels.items())}."


def _checkpoint(label: str, step: int | None) -> str:
    """A checkpoint's label with its step, which it may name already."""
    return label if step is None or "step" in label else f"{label} (step {step})"


def _warnings(run: Run, router: str) -> list[str]:
    tables = routing_of(run)
    warnings = []
    samples = tables.manifest.get("samples") or {}
    few = sorted(name for name, size in samples.items() if size < FEW_SAMPLES)
    if few:
        warnings.append(
            f"Routing of run {run.name} was measured on fewer than {FEW_SAMPLES} samples of {named(few)}: intervals "
            "there are rough."
        )
    load = _at(tables.load, router, _last(tables))
    dead = load[(load["level"] == "all") & load["dead"].astype(bool)]
    if len(dead):
        experts = [str(expert) for expert in sorted(dead["expert"])]
        warnings.append(
            f"In run {run.name} {'expert' if len(dead) == 1 else 'experts'} {', '.join(experts)} of {router} "
            f"{'is' if len(dead) == 1 else 'are'} dead ({tables.labels[_last(tables)]}): less than a hundredth of a "
            "fair share of the weight."
        )
    return warnings
