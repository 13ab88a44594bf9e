"""`tugofwar figures`: every picture of measured runs, each with the table it shows and a caption."""

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from figures import style
from figures.errors import UserError
from figures.interference import GD_BOUND, INDEX_FLOOR, index_comparison, interference_heatmap
from figures.tables import RunTables, check_comparable, read_runs


@dataclass(frozen=True, eq=False)
class Picture:
    """A figure, the numbers in it and what to say below it."""

    stem: str
    figure: Figure
    table: pd.DataFrame
    caption: str


def draw(runs: Sequence[Path], out: Path, formats: Sequence[str] = ("png", "pdf")) -> list[Path]:
    """Draw heat maps of every run and the indexes of all runs side by side.

    Args:
        runs: run folders, each with ``gradients`` as ``tugofwar gradients`` writes it.
        out: folder for the pictures; made if it is not there.
        formats: any of ``png`` and ``pdf``.

    Returns:
        Paths of the pictures; a ``.csv`` and a ``.txt`` with the caption stand beside each.

    Raises:
        UserError: a run that was not measured, runs that cannot be compared, an index without a maximum, or
            an unknown format; nothing is written then.
    """
    for name in formats:
        if name not in style.FORMATS:
            raise UserError(f"There is no picture format {name!r}; choose from {', '.join(style.FORMATS)}.")
    if out.exists() and not out.is_dir():
        raise UserError(f"The output {out} is a file; name a folder.")
    tables = read_runs(runs)
    check_comparable(tables)
    pictures = [_heatmap(run, level) for run in tables for level in run.levels]
    pictures.append(_indexes(tables))
    return _write(pictures, out, formats)


def _heatmap(run: RunTables, level: str) -> Picture:
    tables = run.levels[level]
    figure = interference_heatmap(
        tables.gd,
        tables.gm,
        tasks=run.tasks,
        title=f"{run.name}: interference between {level}s",
        uncertain=tables.sign_uncertain,
    )
    gd = tables.gd_intervals[tables.gd_intervals["estimator"] == run.estimator].drop(columns="estimator")
    keys = ["row", "column"]
    table = gd.merge(tables.gm_intervals, on=keys, suffixes=("_gd", "_gm"), validate="one_to_one")
    stem = f"interference_{run.name}" + ("" if level == "dataset" else f"_{level}")
    caption = (
        f"Interference between {level}s in run {run.name}. Left: gradient direction GD (equation 2; "
        "1 means that "
        "the column's update helps the row as much as the row's own, negative that it harms it; "
        "colours end at "
        f"±{GD_BOUND:g}). Right: gradient magnitude similarity GM (equation 3). {_sampling(run)} "
        f"Intervals are in {stem}.csv."
    )
    if tables.sign_uncertain:
        caption += (
            f" † The sign of the denominator of {', '.join(tables.sign_uncertain)} is uncertain: "
            "its row of GD is "
            "not to be trusted."
        )
    return Picture(stem, figure, table, caption)


def _indexes(runs: Sequence[RunTables]) -> Picture:
    for run in runs:
        for level, tables in run.levels.items():
            if "index_normalised" not in tables.index:
                raise UserError(
                    f"No tug-of-war index of run {run.name} is positive at {level} level, so that "
                    "they cannot be "
                    "divided by their maximum and compared."
                )
    by_dataset = {run.name: run.levels["dataset"].index for run in runs}
    with_tasks = all("task" in run.levels for run in runs)
    by_task = {run.name: run.levels["task"].index for run in runs} if with_tasks else None
    figure = index_comparison(by_dataset, by_task, tasks=runs[0].tasks)
    levels = {"dataset": by_dataset, "task": by_task or {}}
    parts = [
        table.drop(columns="task", errors="ignore").rename_axis("name").reset_index().assign(run=run, level=level)
        for level, tables in levels.items()
        for run, table in tables.items()
    ]
    table = pd.concat(parts)
    leading = ["run", "level", "name"]
    names = ", ".join(run.name for run in runs)
    caption = (
        f"Tug-of-war indexes (equation 4) divided by the largest of the same run, for {names}. "
        f"{_sampling(runs[0])} "
        f"Error bars are {runs[0].interval_level:.0%} intervals; one that ends in an arrow goes on below "
        f"{INDEX_FLOOR:g}, to the end given in the table."
    )
    ordered = table[leading + [column for column in table if column not in leading]]
    return Picture("tug_of_war_indexes", figure, ordered, caption)


def _sampling(run: RunTables) -> str:
    sampled = f"{' or '.join(map(str, run.batches))} batches per dataset"
    if "batch_size" in run.metadata:
        sampled += f" of {run.metadata['batch_size']} samples each"
    sentences = [
        sampled,
        f"estimator {run.estimator}",
        f"{run.interval_level:.0%} percentile bootstrap over batches ({run.resamples:,} resamples)",
    ]
    if "parameters" in run.metadata:
        patterns = run.metadata["parameters"]
        sentences.append(f"parameters {patterns if isinstance(patterns, str) else ', '.join(patterns)}")
    text = "; ".join(sentences) + "."
    if run.untouched:
        text += f" Not touching the selected parameters, hence not shown: {', '.join(run.untouched)}."
    if missing := run.metadata.get("missing_images"):
        counts = ", ".join(f"{count} of {name}" for name, count in missing.items())
        text += f" Samples left out because their image file is missing: {counts}."
    return text


def _write(pictures: Sequence[Picture], out: Path, formats: Sequence[str]) -> list[Path]:
    """Write everything into a folder inside ``out``'s parent first, so that a failure leaves no half set."""
    out.parent.mkdir(parents=True, exist_ok=True)
    written = []
    temporary = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        for picture in pictures:
            picture.table.to_csv(temporary / f"{picture.stem}.csv", index=False, lineterminator="\n")
            (temporary / f"{picture.stem}.txt").write_text(picture.caption + "\n", encoding="utf-8")
            for kind in formats:
                style.save(picture.figure, temporary / f"{picture.stem}.{kind}")
                written.append(out / f"{picture.stem}.{kind}")
        out.mkdir(exist_ok=True)
        for path in sorted(temporary.iterdir()):
            path.replace(out / path.name)
    finally:
        shutil.rmtree(temporary)
    return written
