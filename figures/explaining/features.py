"""What the connector does to the features: t-SNE pictures, and the numbers that stand behind them."""

from collections.abc import Sequence

import pandas as pd

from figures.explaining.sampling import not_reaching
from figures.explaining.sentences import counted, interval, named, number, percent, percent_interval, within
from figures.explaining.support import judge
from figures.explanation import Explanation
from figures.tables.features import FeatureTables
from figures.tables.runs import Run

STAGES = ("before", "after")
FEW_SAMPLES = 30
"""Under this many samples per dataset the jackknife over samples is rough."""
STEADY = 0.5
"""Pictures of two seeds that share fewer of the nearest neighbours than this are not to be read in detail."""


def embedding(runs: Sequence[Run], dimensions: int) -> Explanation:
    """Text beside t-SNE pictures before and after the connector.

    Args:
        runs: with feature tables.
        dimensions: 2 or 3.
    """
    return Explanation(
        title=f"Features before and after {module_of(runs)}, t-SNE in {dimensions}-D",
        reading=(
            "Each point is one sample, and points that lie close together had similar features. "
            "Only who is near whom counts: the size of clusters, the gaps between them and the axes mean nothing, and "
            "clusters may appear by chance."
        ),
        finding=None,
        caption=(
            f"t-SNE in {dimensions} dimensions of features of {_names(runs)}, before and after {_modules(runs)}. "
            f"{' '.join(_drawn(run, dimensions) for run in runs)}"
        ),
        warnings=tuple(text for run in runs for text in _embedding_warnings(run, dimensions)),
    )


def separation(runs: Sequence[Run]) -> Explanation:
    """Text beside silhouette and kNN purity."""
    return Explanation(
        title="How far tasks and datasets are apart",
        reading=(
            "kNN purity is the share of a sample's nearest neighbours with its own label, and the silhouette runs from "
            "−1 over 0 (overlapping) to 1 (tight clusters far apart). "
            "Both are taken in the space of the features itself, and the marks for chance say what unrelated labels "
            "would give."
        ),
        finding=_separation_finding(runs),
        caption=(
            f"Silhouette and kNN purity by task and by dataset, in the space of the features, of {_names(runs)}. "
            f"{' '.join(_sampled(run) for run in runs)}"
        ),
        warnings=tuple(text for run in runs for text in _sample_warnings(run)),
    )


def alignment(runs: Sequence[Run]) -> Explanation:
    """Text beside linear CKA between the features before and after the connector."""
    return Explanation(
        title=f"How much of the geometry {module_of(runs)} keeps",
        reading=(
            f"Linear CKA is 1 when the features after {module_of(runs)} are those before it up to rotation and scale, "
            "and about 0 when nothing of their arrangement is left; chance may take it a little below. "
            "It says how much was rearranged, not whether tasks became easier to tell apart."
        ),
        finding=_alignment_finding(runs),
        caption=(
            f"Linear CKA (debiased) between features before and after {_modules(runs)}, of {_names(runs)}. "
            f"{' '.join(_sampled(run) for run in runs)}"
        ),
        warnings=tuple(text for run in runs for text in _sample_warnings(run)),
    )


def stability(runs: Sequence[Run]) -> Explanation:
    """Text beside the stability of t-SNE over seeds."""
    ranges = [text for run in runs for text in _overlaps(run)]
    return Explanation(
        title="How much of the t-SNE picture is chance",
        reading=(
            "Neighbour overlap is the share of nearest neighbours that the pictures of two seeds have in common, and "
            "trustworthiness says how far neighbours in a picture are neighbours in the features, too. "
            "Where the overlap is not far above its chance value, another seed would show another picture."
        ),
        finding=None,
        caption=" ".join(
            [
                f"Stability of t-SNE over seeds, of {_names(runs)}.",
                *ranges,
                *(f"Run {run.name}: {_settings(run)}." for run in runs),
            ]
        ),
        warnings=tuple(text for run in runs for number_of in (2, 3) for text in _unsteady(run, number_of)),
    )


def features_of(run: Run) -> FeatureTables:
    """The run's feature tables.

    Raises:
        ValueError: a run without any.
    """
    if run.features is None:
        raise ValueError(f"Run {run.name} has no feature tables.")
    return run.features


def module_of(runs: Sequence[Run]) -> str:
    """What the module is called: the connector where it is Uni-Med's."""
    modules = {str(name) for run in runs for name in features_of(run).manifest["modules"]}
    return "the connector" if {name.rpartition(".")[2] for name in modules} == {"connector"} else "the module"


def _modules(runs: Sequence[Run]) -> str:
    """Names of the modules, as the model has them."""
    return ", ".join(sorted({str(name) for run in runs for name in features_of(run).manifest["modules"]}))


def _names(runs: Sequence[Run]) -> str:
    return ("run " if len(runs) == 1 else "runs ") + ", ".join(run.name for run in runs)


def _separation_finding(runs: Sequence[Run]) -> str | None:
    rows = pd.concat([_purity(run) for run in runs], ignore_index=True)
    if rows.empty or "chance" not in rows:
        return None
    level = float(features_of(runs[0]).manifest["interval_level"])
    after = rows[rows["stage"] == "after"]
    found = judge(after, ["run", "label"], after["chance"], level, null_name="chance")
    if not found.above:
        return None
    module = module_of(runs)
    chances = {(row["run"], row["label"]): float(row["chance"]) for _, row in after.iterrows()}
    clauses = [
        f"in run {case.names[0]}, after {module} {percent_interval(case.value, case.low, case.high)} of a sample's "
        f"nearest neighbours share its {case.names[1]} ({_beforehand(rows, case.names[0])}by chance "
        f"{percent(chances[case.names[0], case.names[1]])})"
        for case in found.above
    ]
    first, *others = clauses
    basis = f"; {found.basis}, no test of one stage or run against another"
    return within([first[0].upper() + first[1:], *others], basis)


def _purity(run: Run) -> pd.DataFrame:
    """kNN purity over all samples, by task where tasks are known."""
    table = features_of(run).separation
    if table is None:
        return pd.DataFrame()
    label = "task" if "task" in set(table["label"]) else "dataset"
    rows = table[(table["measure"] == "knn_purity") & (table["label"] == label) & (table["name"] == "all")]
    return rows.assign(run=run.name)


def _beforehand(rows: pd.DataFrame, run: str) -> str:
    before = rows[(rows["run"] == run) & (rows["stage"] == "before")]
    if before.empty:
        return ""
    row = before.iloc[0]
    return f"before it {percent_interval(row['value'], row['low'], row['high'])}, "


def _interval(row: pd.Series) -> str:
    return interval(row["value"], row["low"], row["high"])


def _alignment_finding(runs: Sequence[Run]) -> str | None:
    clauses = []
    level = 0.0
    for run in runs:
        tables = features_of(run)
        if tables.alignment is None:
            continue
        level = float(tables.manifest["interval_level"])
        rows = tables.alignment[tables.alignment["name"] == "all"]
        clauses += [f"{_interval(row)} in run {run.name}" for _, row in rows.iterrows() if row["high"] < 1]
    if not clauses:
        return None
    begin = f"{module_of(runs).capitalize()} changes more than rotation and scale of the features: linear CKA is "
    return within([begin + clauses[0], *clauses[1:]], f" (1 would be the same geometry; single {level:.0%} intervals)")


def _sampled(run: Run) -> str:
    """Sample sizes and settings of what is measured in the space of the features."""
    manifest = features_of(run).manifest
    parts = [f"Run {run.name}: {_samples(manifest.get('samples') or {})}"]
    if manifest.get("pooling"):
        parts.append(str(manifest["pooling"]))
    if "neighbours" in manifest:
        parts.append(f"{manifest['neighbours']} neighbours")
    parts.append(f"{manifest['interval_level']:.0%} intervals by {manifest['interval']}, leaving out one at a time")
    return "; ".join(parts) + "." + not_reaching(manifest.get("untouched") or [], "the module")


def _samples(samples: dict[str, int]) -> str:
    sizes = sorted(samples.values())
    if not sizes:
        return "samples as in the table"
    each = f"{sizes[0]:,}" if sizes[0] == sizes[-1] else f"{sizes[0]:,} to {sizes[-1]:,}"
    return f"{each} samples per dataset, {sum(sizes):,} in all"


def _drawn(run: Run, dimensions: int) -> str:
    shown, of = _points(run, dimensions)
    seeds = features_of(run).manifest["seeds"]
    which = f"; drawn is seed {seeds[0]} where no other is chosen" if len(seeds) > 1 else ""
    return f"Run {run.name}: {shown:,} of {of:,} samples drawn; {_settings(run)}{which}."


def _settings(run: Run) -> str:
    """PCA, perplexity and seeds behind a picture."""
    manifest = features_of(run).manifest
    parts = [
        f"{entry['components']} PCA components ({percent(entry['variance'])} of the variance) {stage}"
        for stage in STAGES
        for entry in [manifest["pca"].get(stage)]
        if entry is not None
    ]
    if "perplexity" in manifest:
        parts.append(f"perplexity {manifest['perplexity']:g}")
    if manifest.get("seeds"):
        seeds = manifest["seeds"]
        parts.append(f"{'seed' if len(seeds) == 1 else 'seeds'} {', '.join(map(str, seeds))}")
    return "; ".join(parts)


def _points(run: Run, dimensions: int) -> tuple[int, int]:
    """How many samples are drawn, and of how many."""
    tables = features_of(run)
    table = tables.embeddings.get(dimensions)
    drawn = 0 if table is None else int(table["sample"].nunique())
    samples = sum((tables.manifest.get("samples") or {}).values())
    return drawn, max(samples, drawn)


def _embedding_warnings(run: Run, dimensions: int) -> list[str]:
    shown, of = _points(run, dimensions)
    warnings = _unsteady(run, dimensions)
    if shown < of:
        warnings.append(
            f"The {dimensions}-D picture of run {run.name} shows {shown:,} of {of:,} samples, drawn evenly from the "
            "datasets."
        )
    return warnings


def _overlap(run: Run, dimensions: int) -> pd.DataFrame:
    table = features_of(run).stability
    if table is None:
        return pd.DataFrame(columns=["stage", "value"])
    return table[(table["measure"] == "neighbour_overlap") & (table["dimensions"] == dimensions)]


def _overlaps(run: Run) -> list[str]:
    sentences = []
    for dimensions in (2, 3):
        for stage, rows in _overlap(run, dimensions).groupby("stage", sort=False):
            values = rows["value"]
            chance = f", by chance {number(rows['chance'].mean())}" if "chance" in rows else ""
            sentences.append(
                f"Run {run.name}, {dimensions}-D, {stage}: neighbour overlap {number(values.min())} to "
                f"{number(values.max())} over {counted(len(values), 'pair')} of seeds{chance}."
            )
    return sentences


def _unsteady(run: Run, dimensions: int) -> list[str]:
    return [
        f"The {dimensions}-D picture of run {run.name} {stage} {module_of([run])} changes with the seed: two seeds "
        f"share as few as {percent(rows['value'].min())} of the nearest neighbours."
        for stage, rows in _overlap(run, dimensions).groupby("stage", sort=False)
        if rows["value"].min() < STEADY
    ]


def _sample_warnings(run: Run) -> list[str]:
    samples = features_of(run).manifest.get("samples") or {}
    few = sorted(name for name, size in samples.items() if size < FEW_SAMPLES)
    if not few:
        return []
    return [
        f"Features of run {run.name} come from fewer than {FEW_SAMPLES} samples of {named(few)}: intervals there are "
        "rough."
    ]
