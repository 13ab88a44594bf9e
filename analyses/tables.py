"""Tidy tables of the measures of a recording, and all of them as one JSON object.

Tables have no row numbers and no holes: what does not exist has no column or no row.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from tugofwar.diagnostics import Diagnostics
from tugofwar.errors import UserError
from tugofwar.estimation import Interference, LabelledBounds
from tugofwar.metrics import DEFAULT_ESTIMATOR
from tugofwar.recording import Recording

Level = Mapping[str, Interference]
Frames = Mapping[str, pd.DataFrame]


def interference_tables(level: str, results: Level, tasks: Mapping[str, str]) -> dict[str, pd.DataFrame]:
    """GD, GM and indexes of one level, by file name.

    Args:
        level: ``dataset`` or ``task``.
        results: estimator to result.
        tasks: task of each dataset, where it is known.
    """
    default = results[DEFAULT_ESTIMATOR]
    parts = [
        _long_measure(result, "gd").assign(estimator=estimator)
        for estimator, result in results.items()
        if "gd" in result.intervals
    ]
    gd = pd.concat(parts)
    tables = {
        f"gd_{level}_intervals.csv": gd[["estimator", *gd.columns.drop("estimator")]],
        f"gm_{level}.csv": default.gm.rename_axis(level).reset_index(),
        f"gm_{level}_intervals.csv": _long_measure(default, "gm"),
    }
    for estimator, result in results.items():
        suffix = "" if estimator == DEFAULT_ESTIMATOR else f"_{estimator}"
        tables[f"gd_{level}{suffix}.csv"] = result.gd.rename_axis(level).reset_index()
        tables[f"index_{level}{suffix}.csv"] = index_table(result, tasks).rename_axis(level).reset_index()
    return tables


def index_table(result: Interference, tasks: Mapping[str, str]) -> pd.DataFrame:
    """Tug-of-war indexes (eq. 4) of one result, with their intervals and p-values, one row each.

    Args:
        result: what ``interference`` returned.
        tasks: task of each dataset; a column ``task`` stands first when it knows every row.
    """
    names = list(result.index.index)
    table = pd.DataFrame(index=result.index.index)
    if all(name in tasks for name in names):
        table["task"] = [tasks[name] for name in names]
    table["batches"] = [result.batches[name] for name in names]
    for measure, values in (("index", result.index), ("index_normalised", result.index_normalised)):
        if values is None:
            continue
        table[measure] = values
        for column, found in _uncertainty(result, measure).items():
            table[f"{measure}_{column}"] = found
    return table


def diagnostic_tables(level: str, diagnostics: Diagnostics) -> dict[str, pd.DataFrame]:
    """What else the Gram matrix knows of one level, by file name; a table without rows is left out.

    Args:
        level: ``dataset`` or ``task``.
        diagnostics: what ``diagnose`` returned.
    """
    parts = [
        _long(values, _ends(diagnostics.intervals.get(measure))).assign(measure=measure)
        for measure, values in (("cosine", diagnostics.cosine), ("conflict", diagnostics.conflict))
        if len(values)
    ]
    pairs = pd.concat(parts)
    tables = {f"diagnostics_{level}.csv": pairs[["measure", *pairs.columns.drop("measure")]]}
    if len(diagnostics.noise):
        tables[f"noise_{level}.csv"] = diagnostics.noise.rename_axis(level).reset_index()
    if diagnostics.spectra is not None:
        tables[f"fisher_{level}.csv"] = diagnostics.spectra.rename_axis(level).reset_index()
    return tables


def check_complete(file: str, frame: pd.DataFrame) -> None:
    """Raise a UserError if a cell of the table has no value."""
    if frame.isna().to_numpy().any():
        raise UserError(f"{file} would have undefined cells; record more batches, or leave the dataset out.")


def as_json(
    levels: Mapping[str, Level],
    diagnostics: Mapping[str, Diagnostics],
    recording: Recording,
    frames: Frames,
    seed: int,
) -> dict[str, Any]:
    """Everything in one object, of JSON values: matrices in the order of ``names``, other tables by column.

    Args:
        levels: per level the result of every estimator.
        diagnostics: per level the diagnostics.
        recording: what was measured.
        frames: the tables by file name, those of the statistics scores among them.
        seed: of the bootstrap.
    """
    default = levels["dataset"][DEFAULT_ESTIMATOR]
    return {
        "default_estimator": DEFAULT_ESTIMATOR,
        "interval_level": default.level,
        "resamples": default.resamples,
        "bootstrap_seed": seed,
        "tasks": dict(recording.tasks),
        "untouched": list(default.untouched),
        "missing_images": recording.metadata.get("missing_images", {}),
        "levels": {
            name: {
                **_json_level(results),
                "diagnostics": {
                    "undefined": list(diagnostics[name].undefined),
                    **_columns(frames, {kind: f"{kind}_{name}.csv" for kind in ("diagnostics", "noise", "fisher")}),
                },
                "scores": _columns(frames, {kind: f"scores_{name}{end}.csv" for kind, end in _SCORE_TABLES.items()}),
            }
            for name, results in levels.items()
        },
    }


_SCORE_TABLES = {"all": "", "blocks": "_blocks", "parameters": "_parameters"}


def _columns(frames: Frames, files: Mapping[str, str]) -> dict[str, Any]:
    return {key: frames[file].to_dict(orient="list") for key, file in files.items() if file in frames}


def _json_level(results: Level) -> dict[str, Any]:
    default = results[DEFAULT_ESTIMATOR]
    return {
        "names": list(default.index.index),
        "batches": dict(default.batches),
        "gm": _json_measure(default, "gm"),
        "sign_uncertain": list(default.sign_uncertain),
        "unstable": list(results["leave_one_out"].unstable),
        "estimators": {
            estimator: {measure: _json_measure(result, measure) for measure in ("gd", "index", "index_normalised")}
            for estimator, result in results.items()
        },
    }


def _json_measure(result: Interference, measure: str) -> dict[str, Any] | None:
    """Values and their uncertainty in the order of ``names``; null for a measure that does not exist."""
    values = getattr(result, measure)
    if values is None:
        return None
    return {
        "value": values.to_numpy().tolist(),
        **{column: found.to_numpy().tolist() for column, found in _uncertainty(result, measure).items()},
    }


def _uncertainty(result: Interference, measure: str) -> dict[str, Any]:
    """Single interval, simultaneous interval and adjusted p-value of a measure, those that exist."""
    found = _ends(result.intervals.get(measure))
    found |= {f"simultaneous_{end}": values for end, values in _ends(result.simultaneous.get(measure)).items()}
    if measure in result.p_values:
        found["p_value"] = result.p_values[measure]
    return found


def _ends(bounds: LabelledBounds | None) -> dict[str, Any]:
    return {} if bounds is None else {"low": bounds.low, "high": bounds.high}


def _long_measure(result: Interference, measure: str) -> pd.DataFrame:
    return _long(getattr(result, measure), _uncertainty(result, measure))


def _long(values: pd.DataFrame, more: Mapping[str, Any]) -> pd.DataFrame:
    """One row per cell: ``row``, ``column``, ``value``, and the same cell of every further table."""
    tables = {"value": values, **more}
    cells: Sequence[tuple[Any, Any]] = [(row, column) for row in values.index for column in values.columns]
    return pd.DataFrame(
        {"row": [row for row, _ in cells], "column": [column for _, column in cells]}
        | {name: table.to_numpy().reshape(-1) for name, table in tables.items()}
    )
