"""How the router divides the work: weights, their entropies and information, divergence, experts switched off."""

import pandas as pd

from figures.explaining import routing_findings as findings
from figures.explaining.sampling import not_reaching
from figures.explaining.sentences import counted, named
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
    level = tables.level
    return Explanation(
        title=f"{run.name}: routing weights of {router}",
        reading=(
            f"Each row shows how one {level}'s tokens spread their weight over the experts, and sums to 1. "
            f"Rows that look alike mean that the router treats these {level}s alike; a column that is pale in every "
            "row is an expert that hardly works."
        ),
        finding=findings.weights(run.name, tables, router),
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
            f"{tables.level} sum to 1 over the experts. "
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
    level = tables.level
    return Explanation(
        title=f"{run.name}: how much the expert of {router} tells about the {level}",
        reading=(
            f"Mutual information is how many bits the expert of a token tells about its {level}: 0 when all {level}s "
            "are routed alike. "
            "Chance alone lifts it above 0, so it is to be read against its mark for shuffled labels, which only one "
            "shuffle in twenty exceeds."
        ),
        finding=findings.information(run.name, tables, router),
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
    level = tables.level
    return Explanation(
        title=f"{run.name}: which {level}s {router} routes differently",
        reading=(
            f"A cell is 0 when two {level}s spread their weight over the experts in the same way, and 1 bit when they "
            "share no expert at all. "
            "It is never negative, and noise alone lifts it a little above 0, so small values are no evidence of a "
            "difference."
        ),
        finding=findings.divergence(run.name, tables, router),
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
    level = tables.level
    chosen = tables.at_end(tables.switched_off, router)
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
        finding=findings.switched_off(run.name, tables, router),
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


def _range(numbers: pd.Series) -> str:
    low, high = int(numbers.min()), int(numbers.max())
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _sampling(tables: RoutingTables, drawn: str = "samples") -> str:
    """Checkpoints, sample sizes and intervals; ``drawn`` are what the bootstrap draws."""
    manifest = tables.manifest
    parts = [_checkpoints(tables).strip().rstrip(".")]
    samples, images = manifest.get("samples") or {}, tables.units
    if samples:
        text = f"{_range(pd.Series(list(samples.values())))} samples per dataset"
        if images != samples:
            text += f" of {_range(pd.Series(list(images.values())))} images"
            drawn = "images" if drawn == "samples" else drawn
        everything = tables.weights[tables.weights["level"] == "all"]
        if "tokens" in everything and len(everything):
            text += f", {int(everything['tokens'].max()):,} tokens in all"
        parts.append(text)
    parts.append(
        f"{tables.interval_level:.0%} intervals by bootstrap over {drawn} within datasets"
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
    few = sorted(name for name, size in tables.units.items() if size < FEW_SAMPLES)
    if few:
        what = "images" if tables.units != tables.manifest.get("samples") else "samples"
        warnings.append(
            f"Routing of run {run.name} was measured on fewer than {FEW_SAMPLES} {what} of {named(few)}: intervals "
            "there are rough."
        )
    load = tables.at_end(tables.load, router)
    dead = load[(load["level"] == "all") & load["dead"].astype(bool)]
    if len(dead):
        experts = [str(expert) for expert in sorted(dead["expert"])]
        warnings.append(
            f"In run {run.name} {'expert' if len(dead) == 1 else 'experts'} {', '.join(experts)} of {router} "
            f"{'is' if len(dead) == 1 else 'are'} dead ({tables.labels[tables.last]}): less than a hundredth of a "
            "fair share of the weight."
        )
    return warnings
