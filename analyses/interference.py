"""How strongly do tasks fight over the selected parameters? (arXiv 2409.17508, section 3 and eq. 1 to 4)

Per level, ``dataset`` and ``task``, the folder holds:

* ``gd_<level>.csv``, ``gm_<level>.csv``: square matrices, row interfered with, column interfering;
  ``gd_<level>_plugin.csv`` and ``gd_<level>_leave_one_out.csv`` are GD by the other estimators;
* ``gd_<level>_intervals.csv``, ``gm_<level>_intervals.csv``: long, with ``value``, ``low`` and ``high``;
* ``index_<level>.csv`` (and ``_plugin``, ``_leave_one_out``): tug-of-war indexes with their intervals;

and ``interference.json`` with all of it. Every number is finite: what does not exist has no column.
"""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from tugofwar.errors import UserError
from tugofwar.estimation import Interference, LabelledBounds, interference, task_groups
from tugofwar.folders import check_replaceable, replacing
from tugofwar.metrics import DEFAULT_ESTIMATOR, ESTIMATORS
from tugofwar.naming import closest
from tugofwar.own_setup import open_study
from tugofwar.recording import Recording
from tugofwar.storage import strict_json
from tugofwar.study import Study

Level = Mapping[str, Interference]


@dataclass(frozen=True)
class Measurement:
    """A recording and its measures: level (``dataset``, ``task``) to estimator to result."""

    recording: Recording
    levels: Mapping[str, Level]

    @property
    def untouched(self) -> tuple[str, ...]:
        """Datasets that do not touch the selected parameters."""
        return self.levels["dataset"][DEFAULT_ESTIMATOR].untouched


def measure(
    checkpoint: Path,
    data_roots: Sequence[Path],
    out: Path,
    *,
    parameters: str | Sequence[str] = "connector.*",
    batches: int = 100,
    batch_size: int = 4,
    datasets: Sequence[str] | None = None,
    seed: int = 0,
    with_replacement: bool = False,
    quiet: bool = False,
) -> Measurement:
    """Probe a trained Uni-Med run and write its recording and tables into ``out``, all or nothing.

    Args:
        checkpoint: the run folder that ``unimed-train`` wrote.
        data_roots: folders with the datasets' raw files, or YAML files that name them.
        out: output folder; an earlier recording there is replaced.
        parameters: glob, or list of globs, of the shared parameters.
        batches: batches per dataset, at least 2.
        batch_size: samples per batch.
        datasets: names of the datasets to probe; by default all that the data roots offer.
        seed: seed of the draw of batches and of the bootstrap.
        with_replacement: let samples repeat, for a dataset with too few of them.
        quiet: no progress bar.

    Raises:
        UserError: a path that is missing, settings out of range, or what ``record`` and ``write_tables``
            raise.
    """
    _check_settings(checkpoint, batches, batch_size)
    check_replaceable(out)
    from unimed_model.probing import load_for_probing

    wanted = list(datasets) if datasets else None
    probed = load_for_probing(checkpoint, list(data_roots), wanted, batches, batch_size, seed, with_replacement)
    settings = {
        "parameters": parameters if isinstance(parameters, str) else list(parameters),
        "batches": batches,
        "batch_size": batch_size,
        "seed": seed,
        "with_replacement": with_replacement,
    }
    study = Study(probed.model, probed.batches, tasks=probed.tasks, metadata=probed.metadata)
    return _measure_study(study, out, settings, datasets, quiet)


def measure_setup(
    target: str,
    out: Path,
    *,
    parameters: str | Sequence[str] = "*",
    batches: int = 100,
    datasets: Sequence[str] | None = None,
    seed: int = 0,
    quiet: bool = False,
) -> Measurement:
    """Probe a model of the user's own and write its recording and tables into ``out``, all or nothing.

    Args:
        target: ``FILE.py:FUNCTION`` or ``package.module:function``; see ``tugofwar.own_setup``.
        out: output folder; an earlier recording there is replaced.
        parameters: glob, or list of globs, of the shared parameters; by default all that are trainable.
        batches: batches per dataset, at least 2, taken from the start of each.
        datasets: names of the datasets to probe; by default all that the function returns.
        seed: seed of the random generators during the passes, and of the bootstrap.
        quiet: no progress bar.

    Raises:
        UserError: settings out of range, an unknown dataset, or what ``open_study``, ``record`` and
            ``write_tables`` raise.
    """
    _check_batches(batches)
    check_replaceable(out)
    settings = {
        "parameters": parameters if isinstance(parameters, str) else list(parameters),
        "batches": batches,
        "seed": seed,
    }
    with open_study(target) as study:
        if datasets is not None:
            study = replace(study, datasets=_chosen(study.datasets, datasets))
        return _measure_study(study, out, settings, datasets, quiet)


def _measure_study(
    study: Study, out: Path, settings: Mapping[str, Any], datasets: Sequence[str] | None, quiet: bool
) -> Measurement:
    from tugofwar.recorder import record

    # Given only when there is one, so that a run without it is the same call as ever.
    geometry = {} if study.preconditioner is None else {"preconditioner": study.preconditioner}
    command = _command({**study.metadata, **settings}, datasets)
    with replacing(out) as folder:
        recording = record(
            study.model,
            study.datasets,
            settings["parameters"],
            settings["batches"],
            loss=study.loss,
            seed=settings["seed"],
            progress=not quiet,
            metadata={**study.metadata, **settings, "command": command},
            tasks=study.tasks,
            **geometry,
        )
        recording.save(folder)
        return write_tables(recording, folder, seed=settings["seed"])


def _chosen(datasets: Mapping[str, Iterable[Any]], names: Sequence[str]) -> dict[str, Iterable[Any]]:
    for name in names:
        if name not in datasets:
            raise UserError(f"--datasets names {name!r}; {closest(name, datasets)}.")
    return {name: source for name, source in datasets.items() if name in names}


def write_tables(
    recording: Recording, folder: str | Path, resamples: int = 1000, level: float = 0.95, seed: int = 0
) -> Measurement:
    """Measure a recording by every estimator, and write the tables (see the module's text) into ``folder``.

    The task level is written when the recording knows the task of its datasets.

    Args:
        recording: what ``record`` returned.
        folder: an existing folder, or one to make.
        resamples: bootstrap draws behind every interval.
        level: probability that an interval should cover the truth.
        seed: seed of the bootstrap.

    Raises:
        UserError: a measure that does not exist, so that a table would have a hole; nothing is written then.
    """
    groupings: dict[str, Mapping[str, Sequence[str]] | None] = {"dataset": None}
    if recording.tasks:
        groupings["task"] = task_groups(recording)
    levels: dict[str, Level] = {
        name: {e: interference(recording, groups, e, resamples, level, seed) for e in ESTIMATORS}
        for name, groups in groupings.items()
    }
    measurement = Measurement(recording, levels)
    tables = {
        file: frame for name, results in levels.items() for file, frame in _tables(name, results, recording).items()
    }
    for file, frame in tables.items():
        _check_complete(file, frame)
    text = strict_json(_json(measurement, seed))
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    for file, frame in tables.items():
        frame.to_csv(target / file, lineterminator="\n")
    (target / "interference.json").write_text(text, encoding="utf-8")
    return measurement


def _check_settings(checkpoint: Path, batches: int, batch_size: int) -> None:
    if not checkpoint.is_dir():
        raise UserError(f"There is no checkpoint folder {checkpoint}; name the folder that unimed-train wrote.")
    _check_batches(batches)
    if batch_size < 1:
        raise UserError(f"--batch-size is {batch_size}; a batch needs at least 1 sample.")


def _check_batches(batches: int) -> None:
    if batches < 2:
        raise UserError(f"--batches is {batches}, but leaving a batch out needs at least 2 per dataset.")


def _command(settings: Mapping[str, Any], datasets: Sequence[str] | None) -> str:
    """The command line without its paths, which would make equal runs differ."""
    patterns = settings["parameters"]
    words = ["tugofwar", "gradients"]
    words += ["--setup", settings["setup"]] if "setup" in settings else []
    words += ["--params", patterns if isinstance(patterns, str) else ",".join(patterns)]
    words += ["--batches", str(settings["batches"])]
    words += ["--batch-size", str(settings["batch_size"])] if "batch_size" in settings else []
    words += ["--datasets", ",".join(datasets)] if datasets else []
    words += ["--seed", str(settings["seed"])]
    words += ["--with-replacement"] if settings.get("with_replacement") else []
    return shlex.join(words)


def _tables(level: str, results: Level, recording: Recording) -> dict[str, pd.DataFrame]:
    default = results[DEFAULT_ESTIMATOR]
    tables = {
        f"gd_{level}_intervals.csv": _long_gd(results),
        f"gm_{level}.csv": default.gm.rename_axis(level),
        f"gm_{level}_intervals.csv": _long(default.gm, default.intervals["gm"]).set_index("row"),
    }
    for estimator, result in results.items():
        suffix = "" if estimator == DEFAULT_ESTIMATOR else f"_{estimator}"
        tables[f"gd_{level}{suffix}.csv"] = result.gd.rename_axis(level)
        tables[f"index_{level}{suffix}.csv"] = index_table(result, recording.tasks).rename_axis(level)
    return tables


def summary(measurement: Measurement) -> dict[str, Any]:
    """The indexes of every level by the default estimator, as JSON values: what a command prints.

    Returns:
        ``estimator``, ``interval_level``, ``untouched``, ``sign_uncertain`` (level to names), and per level
        the rows of ``index_table`` by name.
    """
    defaults = {level: results[DEFAULT_ESTIMATOR] for level, results in measurement.levels.items()}
    tables = {level: index_table(result, measurement.recording.tasks) for level, result in defaults.items()}
    return {
        "estimator": DEFAULT_ESTIMATOR,
        "interval_level": defaults["dataset"].level,
        "untouched": list(measurement.untouched),
        "sign_uncertain": {level: list(result.sign_uncertain) for level, result in defaults.items()},
        **{level: table.to_dict(orient="index") for level, table in tables.items()},
    }


def index_table(result: Interference, tasks: Mapping[str, str]) -> pd.DataFrame:
    """Tug-of-war indexes (eq. 4) of one result, with the ends of their intervals, one row each.

    Args:
        result: what ``interference`` returned.
        tasks: task of each dataset; a column ``task`` stands first when it knows every row.
    """
    names = list(result.index.index)
    table = pd.DataFrame(index=result.index.index)
    if all(name in tasks for name in names):
        table["task"] = [tasks[name] for name in names]
    table["batches"] = [result.batches[name] for name in names]
    for measure_name, values in (("index", result.index), ("index_normalised", result.index_normalised)):
        if values is None:
            continue
        table[measure_name] = values
        if measure_name in result.intervals:
            bounds = result.intervals[measure_name]
            table[f"{measure_name}_low"], table[f"{measure_name}_high"] = bounds.low, bounds.high
    return table


def _long(values: pd.DataFrame, bounds: LabelledBounds) -> pd.DataFrame:
    rows = [
        (row, column, values.loc[row, column], bounds.low.loc[row, column], bounds.high.loc[row, column])
        for row in values.index
        for column in values.columns
    ]
    return pd.DataFrame(rows, columns=["row", "column", "value", "low", "high"])


def _long_gd(results: Level) -> pd.DataFrame:
    parts = [
        _long(result.gd, result.intervals["gd"]).assign(estimator=estimator)
        for estimator, result in results.items()
        if "gd" in result.intervals
    ]
    return pd.concat(parts).set_index("estimator")


def _check_complete(file: str, frame: pd.DataFrame) -> None:
    if frame.isna().to_numpy().any():
        raise UserError(f"{file} would have undefined cells; record more batches, or leave the dataset out.")


def _json(measurement: Measurement, seed: int) -> dict[str, Any]:
    default = measurement.levels["dataset"][DEFAULT_ESTIMATOR]
    return {
        "default_estimator": DEFAULT_ESTIMATOR,
        "interval_level": default.level,
        "resamples": default.resamples,
        "bootstrap_seed": seed,
        "tasks": dict(measurement.recording.tasks),
        "untouched": list(measurement.untouched),
        "levels": {name: _json_level(results) for name, results in measurement.levels.items()},
    }


def _json_level(results: Level) -> dict[str, Any]:
    default = results[DEFAULT_ESTIMATOR]
    return {
        "names": list(default.index.index),
        "batches": dict(default.batches),
        "gm": _json_measure(default.gm, default.intervals.get("gm")),
        "sign_uncertain": list(default.sign_uncertain),
        "estimators": {
            estimator: {
                "gd": _json_measure(result.gd, result.intervals.get("gd")),
                "index": _json_measure(result.index, result.intervals.get("index")),
                "index_normalised": _json_measure(result.index_normalised, result.intervals.get("index_normalised")),
            }
            for estimator, result in results.items()
        },
    }


def _json_measure(values: pd.DataFrame | pd.Series | None, bounds: LabelledBounds | None) -> dict[str, Any] | None:
    """Values and ends in the order of ``names``; null for a measure that does not exist."""
    if values is None:
        return None
    content = {"value": values.to_numpy().tolist()}
    if bounds is not None:
        content |= {"low": bounds.low.to_numpy().tolist(), "high": bounds.high.to_numpy().tolist()}
    return content
