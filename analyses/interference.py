"""How strongly do tasks fight over the selected parameters? (arXiv 2409.17508, section 3 and eq. 1 to 4)

Per level, ``dataset`` and ``task``, the folder holds:

* ``gd_<level>.csv``, ``gm_<level>.csv``: square matrices, row interfered with, column interfering;
  ``gd_<level>_plugin.csv`` and ``gd_<level>_leave_one_out.csv`` are GD by the other estimators;
* ``gd_<level>_intervals.csv``, ``gm_<level>_intervals.csv``: long, with single and simultaneous intervals and
  adjusted p-values;
* ``index_<level>.csv`` (and ``_plugin``, ``_leave_one_out``): tug-of-war indexes with theirs;
* ``diagnostics_<level>.csv``, ``noise_<level>.csv`` and, from batches of one sample, ``fisher_<level>.csv``;
* ``scores_<level>.csv``, ``scores_<level>_blocks.csv``, ``scores_<level>_parameters.csv``: statistics scores;
* ``blocks.csv``, ``gd_<level>_blocks.csv``, ``gm_<level>_blocks.csv``, ``index_<level>_blocks.csv``: the same measures
  on each expert, router or layer alone (``breakdown.py``);

and ``interference.json`` with all of it. Every number is finite: what does not exist has no column or row.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from analyses import tables
from analyses.breakdown import RESAMPLES, break_down, breakdown_tables
from analyses.parameter_statistics import score_tables
from tugofwar.diagnostics import Diagnostics, diagnose
from tugofwar.errors import UserError
from tugofwar.estimation import Interference, interference, task_groups
from tugofwar.forecast import batches_needed
from tugofwar.metrics import DEFAULT_ESTIMATOR, ESTIMATORS
from tugofwar.recording import Recording
from tugofwar.storage import strict_json

Level = Mapping[str, Interference]
# What the default estimator lacks is the better reason to tell.
_DEFAULT_FIRST = (DEFAULT_ESTIMATOR, *(name for name in ESTIMATORS if name != DEFAULT_ESTIMATOR))


@dataclass(frozen=True)
class Measurement:
    """A recording and its measures, by level (``dataset``, ``task``): results by estimator, and diagnostics.

    ``left_out``: a level whose measures do not exist to the reason.
    """

    recording: Recording
    levels: Mapping[str, Level]
    diagnostics: Mapping[str, Diagnostics]
    left_out: Mapping[str, str] = field(default_factory=dict)

    @property
    def untouched(self) -> tuple[str, ...]:
        """Datasets that do not touch the selected parameters."""
        return self.levels["dataset"][DEFAULT_ESTIMATOR].untouched


def write_tables(
    recording: Recording, folder: str | Path, resamples: int = 1000, level: float = 0.95, seed: int = 0
) -> Measurement:
    """Measure a recording by every estimator, and write the tables (see the module's text) into ``folder``.

    The task level is written when the recording knows the task of its datasets.

    Args:
        recording: what ``record`` returned.
        folder: an existing folder, or one to make.
        resamples: bootstrap draws behind every interval; behind those of single blocks at most
            ``breakdown.RESAMPLES``.
        level: probability that an interval should cover the truth.
        seed: seed of the bootstrap.

    Raises:
        UserError: a measure between datasets that does not exist, so that a table would have a hole; nothing is
            written then. Where one between tasks does not exist, as for a task of two exactly opposed datasets, the
            task level is left out, with the reason.
    """
    measurement = _measured(recording, resamples, level, seed)
    frames = score_tables(recording.statistics, level) if recording.statistics else {}
    for name, results in measurement.levels.items():
        frames |= tables.interference_tables(name, results, recording.tasks)
        frames |= tables.diagnostic_tables(name, measurement.diagnostics[name])
    breakdown = break_down(recording, min(resamples, RESAMPLES), level, seed)
    frames |= breakdown_tables(breakdown)
    for file, frame in frames.items():
        tables.check_complete(file, frame)
    content = tables.as_json(measurement.levels, measurement.diagnostics, recording, frames, seed)
    blocks = {"resamples": breakdown.resamples, "left_out": breakdown.left_out}
    text = strict_json({**content, "blocks": blocks, "left_out": dict(measurement.left_out)})
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    for file, frame in frames.items():
        frame.to_csv(target / file, index=False, lineterminator="\n")
    (target / "interference.json").write_text(text, encoding="utf-8")
    return measurement


def _measured(recording: Recording, resamples: int, level: float, seed: int) -> Measurement:
    groupings: dict[str, Mapping[str, Sequence[str]] | None] = {"dataset": None}
    if recording.tasks:
        groupings["task"] = task_groups(recording)
    levels: dict[str, Level] = {}
    diagnostics, left_out = {}, {}
    for name, groups in groupings.items():
        try:
            found = {e: interference(recording, groups, e, resamples, level, seed) for e in _DEFAULT_FIRST}
            diagnostics[name] = diagnose(recording, groups, resamples=resamples, level=level, seed=seed)
        except UserError as reason:
            if name == "dataset":
                raise
            left_out[name] = str(reason)
        else:
            levels[name] = {e: found[e] for e in ESTIMATORS}
    return Measurement(recording, levels, diagnostics, left_out)


def summary(measurement: Measurement) -> dict[str, Any]:
    """The indexes of every level by the default estimator, as JSON values: what a command prints.

    Returns:
        ``estimator``, ``interval_level``, ``untouched``, ``sign_uncertain`` and ``unstable`` (level to names; the
        latter for the estimator ``leave_one_out``), ``left_out`` (level to why it has no measures), ``scores`` (see
        ``high_scores``), ``missing_images`` (dataset to number of samples left out for them), ``sketch`` (see
        ``sketch_errors``; only of a sketched recording), and per level the rows of ``tables.index_table`` by name.
    """
    defaults = {level: results[DEFAULT_ESTIMATOR] for level, results in measurement.levels.items()}
    recording = measurement.recording
    sketch = {"sketch": sketch_errors(recording)} if "sketch" in recording.metadata else {}
    return {
        "estimator": DEFAULT_ESTIMATOR,
        "interval_level": defaults["dataset"].level,
        "untouched": list(measurement.untouched),
        "sign_uncertain": {level: list(result.sign_uncertain) for level, result in defaults.items()},
        "unstable": {level: list(results["leave_one_out"].unstable) for level, results in measurement.levels.items()},
        "left_out": dict(measurement.left_out),
        "scores": high_scores(recording),
        "missing_images": recording.metadata.get("missing_images", {}),
        **sketch,
        **{
            level: tables.index_table(result, recording.tasks).to_dict(orient="index")
            for level, result in defaults.items()
        },
    }


def high_scores(recording: Recording) -> dict[str, dict[str, float]]:
    """Share of parameters with a statistics score (eq. 5) of 0.9 or more, beside its nulls, by level.

    Returns:
        Per level ``share``, ``null_signs``, ``null_no_conflict`` (those that exist), and ``undefined``, the number
        of parameters without a score; empty without statistics. A level of a single name has nothing to compare.
    """
    statistics = recording.statistics
    if statistics is None:
        return {}
    shares = {}
    for level in (level for level, names in statistics.groups.items() if len(names) > 1):
        last = statistics.table(level).iloc[-1]
        names = [name for name in ("share", "null_signs", "null_no_conflict") if name in last]
        shares[level] = {name: float(last[name]) for name in names} | {"undefined": statistics.undefined(level)}
    return shares


def sketch_errors(recording: Recording) -> dict[str, Any]:
    """What a sketch adds to the errors: expected standard errors of a single inner product.

    Returns:
        ``dimension``; ``expected_error``, as a share of the product of two norms; and ``share_of_denominator``, per
        dataset the same as a share of the mean cosine within it, of which GD's denominator is made. A dataset whose
        mean cosine is not positive is not in it.
    """
    sketch = recording.metadata["sketch"]
    norms = np.sqrt(np.diagonal(recording.gram))
    shares = {}
    for name, rows in recording.rows.items():
        lengths = norms[rows]
        if (lengths > 0).all():
            cosines = recording.gram[np.ix_(rows, rows)] / np.outer(lengths, lengths)
            cosine = (cosines.sum() - len(rows)) / (len(rows) * (len(rows) - 1))
            if cosine > 0:
                shares[name] = float(sketch["expected_error"] / cosine)
    return {**sketch, "share_of_denominator": shares}


def batches_for_width(measurement: Measurement, width: float) -> dict[str, Any]:
    """How many batches per dataset would bring every interval of GD between datasets to ``width``.

    Returns:
        ``width``, ``batches``, ``widest`` (row and column) and ``widest_width``; or ``width`` and ``reason``, why
        nothing can be forecast.
    """
    try:
        found = batches_needed(measurement.levels["dataset"][DEFAULT_ESTIMATOR], width)
    except UserError as reason:
        return {"width": width, "reason": str(reason)}
    return {
        "width": width,
        "batches": max(found.batches.values()),
        "widest": list(found.widest),
        "widest_width": found.widest_width,
        "sign_uncertain": list(found.sign_uncertain),
    }
