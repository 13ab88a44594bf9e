"""What captions and warnings of one recording of gradients have in common."""

from collections.abc import Mapping, Sequence

from figures.explaining.sentences import counted, named
from figures.tables.gradients import GradientTables

FEW_BATCHES = 10
"""Under this many batches per dataset the bootstrap draws from too few different ones."""


def gradient_sampling(run: GradientTables) -> str:
    """Sample sizes, estimator, intervals, parameters, and what is not in the picture."""
    sentences = [
        batches_text(" or ".join(map(str, run.batches)), run.metadata.get("batch_size")),
        f"estimator {run.estimator}",
        f"{run.interval_level:.0%} percentile bootstrap over batches ({run.resamples:,} resamples)",
    ]
    if "parameters" in run.metadata:
        patterns = run.metadata["parameters"]
        sentences.append(f"parameters {patterns if isinstance(patterns, str) else ', '.join(patterns)}")
    return "; ".join(sentences) + "." + _left_out(run)


def batches_text(batches: str, batch_size: int | None) -> str:
    """``8 batches per dataset of 4 samples each``."""
    text = f"{batches} {'batch' if batches == '1' else 'batches'} per dataset"
    return text if batch_size is None else f"{text} of {counted(batch_size, 'sample')} each"


def few_batches(batches: int, run: str) -> list[str]:
    """The warning that there are too few, if there are."""
    if batches >= FEW_BATCHES:
        return []
    return [
        f"Run {run} has only {counted(batches, 'batch', 'batches')} per dataset: under {FEW_BATCHES} the bootstrap "
        "draws from too few different batches, and its intervals are rough."
    ]


def gradient_warnings(run: GradientTables, level: str) -> list[str]:
    """Too few batches, rows whose denominator may have either sign, and intervals too wide to say anything."""
    warnings = few_batches(min(run.batches), run.name)
    tables = run.levels[level]
    if tables.sign_uncertain:
        names = list(tables.sign_uncertain)
        warnings.append(
            f"In run {run.name} the sign of the denominator of {named(names)} is uncertain "
            f"({len(names)} of {counted(len(tables.gd), level)}): rows of GD and indexes there are not to be trusted, "
            "and no finding speaks of them."
        )
    cells = tables.gd_intervals
    shown = cells[(cells["row"] != cells["column"]) & ~cells["row"].isin(tables.sign_uncertain)]
    if "low" in shown and len(shown):
        wide = int((shown["high"] - shown["low"] > 1).sum())
        if 2 * wide > len(shown):
            warnings.append(
                f"In run {run.name} {wide:,} of {len(shown):,} single intervals of GD between {level}s are wider than "
                "1, more than an update along the own gradient is worth; more batches would narrow them."
            )
    return warnings


def left_out_images(missing: Mapping[str, int] | None) -> str:
    """The sentence on samples without an image file, or nothing."""
    if not missing:
        return ""
    counts = ", ".join(f"{count} of {name}" for name, count in missing.items())
    return f" Samples left out because their image file is missing: {counts}."


def not_touching(names: list[str] | tuple[str, ...]) -> str:
    """The sentence on datasets without a gradient on the parameters, or nothing."""
    return f" Not touching the selected parameters, hence not shown: {', '.join(names)}." if names else ""


def not_reaching(names: Sequence[str], module: str) -> str:
    """The sentence on datasets of which nothing reaches a module, or nothing."""
    return f" Not reaching {module}, hence not shown: {', '.join(names)}." if names else ""


def _left_out(run: GradientTables) -> str:
    return not_touching(run.untouched) + left_out_images(run.metadata.get("missing_images"))
