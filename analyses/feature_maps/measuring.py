"""What does the connector do to the features? (arXiv 2409.17508, Figure 5)

Features before and after a module, averaged over the tokens of an image; their t-SNE pictures; and what the pictures
alone cannot show: how far tasks and datasets are apart in the space of the features itself, how much of their geometry
the module keeps, and how far each picture is to be trusted. The files are those of docs/formats.md, "Features".
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
from safetensors.numpy import save

from analyses.feature_maps.sources import Passes, Source, check_samples
from analyses.feature_maps.tables import PICTURES, alignment_table, picture_tables, sample_table, separation_table
from analyses.tables import check_complete
from tugofwar.errors import UserError
from tugofwar.features.capture import STAGES, Features, capture_features, require_comparable
from tugofwar.features.embedding import LIMITS, Components, iterations_for, perplexity_for, principal_components
from tugofwar.features.separation import ALL
from tugofwar.folders import check_replaceable, replacing
from tugofwar.storage import MANIFEST, format_of, strict_json
from unimed_model.data.progress import reading_quietly

KIND = "features"
FORMAT_VERSION = 1
LEVEL = 0.95
NEIGHBOURS = 10
FEWEST = 10
POOLING = "mean over tokens"


@dataclass(frozen=True)
class Settings:
    """How to look; each is an option of ``tugofwar features`` of the same name.

    Attributes:
        samples: samples per dataset, or as many as it has.
        datasets: names of the datasets; None for all that there are.
        seed: of the draw of samples, of the pictures (the first one's; the others' follow it) and of chance levels.
        quiet: no progress bars.
    """

    samples: int = 100
    datasets: Sequence[str] | None = None
    seed: int = 0
    quiet: bool = False

    @property
    def seeds(self) -> list[int]:
        """Seeds of the pictures."""
        return [self.seed + number for number in range(PICTURES)]


@dataclass(frozen=True, eq=False)
class FeatureMaps:
    """What was found: the manifest, and the tables by file name."""

    manifest: dict[str, Any]
    tables: Mapping[str, pd.DataFrame]


def map_features(source: Source, out: Path, settings: Settings) -> FeatureMaps:
    """Capture features and write their tables into ``out``, all or nothing.

    Args:
        source: the model and its batches.
        out: output folder; earlier output of this command there is replaced.
        settings: how to look.

    Raises:
        UserError: a path that is missing, settings out of range, a module that does not exist or is not reached, or
            features that cannot be compared.
    """
    check_samples(settings.samples)
    check_replaceable(out, KIND)
    opened = source.open(settings.samples, settings.datasets, settings.seed)
    with reading_quietly(settings.quiet), opened as passes:
        features = capture_features(
            passes.model,
            passes.datasets,
            passes.module,
            settings.samples,
            passes.forward,
            settings.seed,
            progress=not settings.quiet,
        )
        passes = replace(passes, tasks={name: task for name, task in passes.tasks.items() if name in features.datasets})
        _require_names((*features.datasets, *passes.tasks.values()))
        require_comparable(features, FEWEST)
        found = _found(features, passes, settings)
    for file, frame in found.tables.items():
        check_complete(file, frame)
    with replacing(out, KIND) as folder:
        for file, frame in found.tables.items():
            frame.to_csv(folder / file, index=False, lineterminator="\n")
        (folder / "features.safetensors").write_bytes(save(dict(features.stages)))
        (folder / MANIFEST).write_text(strict_json(found.manifest), encoding="utf-8")
    return found


def _require_names(names: Sequence[str]) -> None:
    if ALL in names:
        raise UserError(
            f"A dataset or task is called {ALL!r}, which is what the tables call all samples together; rename it."
        )


def _found(features: Features, passes: Passes, settings: Settings) -> FeatureMaps:
    neighbours = min(NEIGHBOURS, (len(features.datasets) - 1) // 2)
    components = {stage: principal_components(rows, settings.seed) for stage, rows in features.stages.items()}
    samples = sample_table(features, passes.tasks)
    tables = {
        "samples.csv": samples,
        "separation.csv": separation_table(features, passes.tasks, neighbours, LEVEL, settings.seed),
        "alignment.csv": alignment_table(features, LEVEL),
        **picture_tables(features, samples, components, neighbours, settings.seeds, not settings.quiet),
    }
    return FeatureMaps(_manifest(features, passes, components, neighbours, settings), tables)


def _manifest(
    features: Features, passes: Passes, components: Mapping[str, Components], neighbours: int, settings: Settings
) -> dict[str, Any]:
    total = len(features.datasets)
    drawn = {number: min(limit, total) for number, limit in LIMITS.items()}
    return {
        "format": format_of(KIND),
        "format_version": FORMAT_VERSION,
        "modules": [features.module],
        "calls": features.calls,
        "stages": {stage: features.stages[stage].shape[1] for stage in STAGES},
        "pooling": POOLING,
        "datasets": list(dict.fromkeys(features.datasets)),
        "untouched": list(features.untouched),
        "tasks": dict(passes.tasks),
        "samples": {name: features.datasets.count(name) for name in dict.fromkeys(features.datasets)},
        "samples_wanted": settings.samples,
        "pca": {
            stage: {"components": found.scores.shape[1], "variance": found.share} for stage, found in components.items()
        },
        "perplexity": perplexity_for(min(drawn.values())),
        "iterations": {str(number): iterations_for(points) for number, points in drawn.items()},
        "starts": ["pca", *["random"] * (PICTURES - 1)],
        "seed": settings.seed,
        "seeds": settings.seeds,
        "neighbours": neighbours,
        "points": {str(number): [points, total] for number, points in drawn.items()},
        "interval": "jackknife over samples within datasets",
        "interval_level": LEVEL,
        "resamples": total,
        **passes.metadata,
    }


def summary(found: FeatureMaps) -> dict[str, Any]:
    """What a command prints, as JSON values: the manifest, and the rows of the tables but those of the points."""
    rows = {
        name: found.tables[f"{name}.csv"].to_dict(orient="records") for name in ("separation", "alignment", "stability")
    }
    return {**found.manifest, **rows}
