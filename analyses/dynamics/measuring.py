"""How does interference change during training? (arXiv 2409.17508, eq. 2 to 4, at every recorded step)

Reads the recordings that ``unimed-train --probe-every`` and ``TugOfWarCallback`` leave, or measures checkpoints, and
writes ``RUN/dynamics`` (docs/formats.md, "Over training").
"""

import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from analyses.dynamics.sources import RECORDINGS, Timeline, step_folders
from analyses.dynamics.tables import Step, headlines, measure_step, normalised_everywhere, tables
from analyses.tables import check_complete
from tugofwar.errors import UserError
from tugofwar.folders import check_replaceable
from tugofwar.metrics import DEFAULT_ESTIMATOR
from tugofwar.naming import closest
from tugofwar.recording import Recording
from tugofwar.storage import MANIFEST, format_of, strict_json
from unimed_model.folders import replacing

KIND, FORMAT_VERSION = "dynamics", 1
ROUTING_LOG, ROUTING = "routing_weights.csv", "routing.csv"

_ROUTING_COLUMNS = ["step", "stage", "task", "expert", "weight", "images"]


@dataclass(frozen=True, eq=False)
class Dynamics:
    """Interference over training.

    Attributes:
        manifest: what stands in ``manifest.json``.
        frames: the tables by file name.
        headline: each step in a few numbers (``dynamics_tables.headlines``).
    """

    manifest: dict[str, Any]
    frames: dict[str, pd.DataFrame]
    headline: list[dict[str, Any]]


def measure(
    timeline: Timeline,
    datasets: Sequence[str] | None = None,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    quiet: bool = False,
) -> Dynamics:
    """Measure every recording of a run.

    A step at which a measure does not exist has no rows there, and the manifest says why.

    Args:
        timeline: the recordings.
        datasets: names of those to look at; None for all.
        resamples: bootstrap draws behind every interval.
        level: probability that an interval should cover the truth.
        seed: seed of the bootstrap.
        quiet: no progress bar.

    Raises:
        UserError: a damaged recording, an unknown dataset, or no step at which the measures exist.
    """
    steps: list[Step] = []
    left_over, batches, known = [], set(), set[str]()
    for step, folder in tqdm(timeline.steps.items(), desc="steps", unit="step", disable=quiet):
        recording = Recording.load(folder)
        measured = measure_step(step, recording, datasets, resamples, level, seed)
        # The callback notes every step that has measures; what else has some is of an earlier training here.
        if timeline.logged is not None and step not in timeline.logged and "dataset" in measured.levels:
            left_over.append(step)
            continue
        steps.append(measured)
        known |= {*recording.rows, *recording.untouched}
        batches |= {len(rows) for rows in recording.rows.values()}
    for name in datasets or ():
        if name not in known:
            raise UserError(f"--datasets names {name!r}, which no recording has; {closest(name, sorted(known))}.")
    _require_measures(steps, timeline)
    frames = tables(steps)
    for file, frame in frames.items():
        check_complete(file, frame)
    manifest = {
        "format": format_of(KIND),
        "format_version": FORMAT_VERSION,
        "source": timeline.source,
        "steps": [each.step for each in steps],
        "estimator": DEFAULT_ESTIMATOR,
        "batches": min(batches),
        "batch_size": timeline.batch_size,
        "interval_level": level,
        "resamples": resamples,
        "seed": seed,
        "tasks": _tasks(steps),
        "left_over": left_over,
        **_what_is_missing(steps, timeline),
    }
    return Dynamics(manifest, frames, headlines(steps))


def write(dynamics: Dynamics, run: Path, out: Path) -> None:
    """Write the tables and ``manifest.json`` into ``out``, all or nothing; recordings that are there stay.

    Args:
        dynamics: what ``measure`` returned.
        run: where training logged routing weights, if it did.
        out: output folder; an earlier one is replaced.

    Raises:
        UserError: a folder that holds something else, or a routing log that is damaged.
    """
    check_output(out)
    log = run / ROUTING_LOG
    if log.is_file():
        _check_routing(log)
    with replacing(out) as staging:
        for folder in step_folders(out / RECORDINGS).values():
            shutil.copytree(folder, staging / RECORDINGS / folder.name, copy_function=_link)
        for file, frame in dynamics.frames.items():
            frame.to_csv(staging / file, index=False, lineterminator="\n")
        if log.is_file():
            shutil.copyfile(log, staging / ROUTING)
        (staging / MANIFEST).write_text(strict_json(dynamics.manifest), encoding="utf-8")


def check_output(out: Path) -> None:
    """Raise a UserError unless a folder is absent, empty, or holds what this module writes."""
    # A call that was killed leaves recordings alone, which are gone on from.
    if not out.is_dir() or {path.name for path in out.iterdir()} != {RECORDINGS}:
        check_replaceable(out, KIND)


def _require_measures(steps: Sequence[Step], timeline: Timeline) -> None:
    if any("dataset" in each.levels for each in steps):
        return
    reasons = [f"of step {each.step}: {each.undefined['dataset']}" for each in steps if "dataset" in each.undefined]
    reasons += [f"of step {step}: {reason}" for step, reason in timeline.failures.items()]
    why = reasons[0] if reasons else "its history.csv knows none of them; remove it to use all recordings."
    raise UserError(f"No recording has measures of interference; {why}")


def _what_is_missing(steps: Sequence[Step], timeline: Timeline) -> dict[str, Any]:
    """What has no rows: steps, by level, and why; datasets that some steps lack; datasets that no step touches."""
    undefined = [
        {"step": each.step, "level": level, "reason": reason}
        for each in steps
        for level, reason in each.undefined.items()
    ]
    undefined += [{"step": step, "reason": reason} for step, reason in timeline.failures.items()]
    measured = [each for each in steps if "dataset" in each.levels]
    names = list(dict.fromkeys(str(name) for each in measured for name in each.levels["dataset"].index.index))
    lacking = {name: [each.step for each in measured if name not in each.levels["dataset"].index] for name in names}
    plain = [
        level
        for level in ("dataset", "task")
        if not normalised_everywhere([each.levels[level] for each in steps if level in each.levels])
    ]
    untouched = dict.fromkeys(name for each in steps for name in each.untouched)
    return {
        "undefined": sorted(undefined, key=lambda entry: int(entry["step"])),
        "missing": {name: lacked for name, lacked in lacking.items() if lacked},
        "untouched": [name for name in untouched if name not in names],
        "without_normalised_index": plain,
    }


def _tasks(steps: Sequence[Step]) -> dict[str, str]:
    return {name: task for each in steps for name, task in each.tasks.items()}


def _check_routing(path: Path) -> None:
    try:
        table = pd.read_csv(path, dtype={"task": str, "stage": str}, keep_default_na=False)
    except (ValueError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise UserError(f"{path} is no readable table ({error}); remove it, or train again.") from None
    if list(table.columns) != _ROUTING_COLUMNS:
        raise UserError(f"{path} has the columns {', '.join(table.columns)}, not {', '.join(_ROUTING_COLUMNS)}.")


def _link(source: str, target: str) -> None:
    """A second name for a file that is never changed, or where the file system knows none, a copy."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def notes(dynamics: Dynamics) -> Iterator[str]:
    """What has no rows, and what is not to be trusted, a line each."""
    manifest = dynamics.manifest
    for entry in manifest["undefined"]:
        level = f" ({entry['level']} level)" if "level" in entry else ""
        yield f"step {entry['step']}{level} has no measures: {entry['reason']}"
    for name, lacked in manifest["missing"].items():
        yield f"{name} is not in the recordings of step {', '.join(map(str, lacked))}"
    if manifest["left_over"]:
        yield f"left out, of an earlier training in this folder: step {', '.join(map(str, manifest['left_over']))}"
    if manifest["untouched"]:
        yield f"not touching the selected parameters: {', '.join(manifest['untouched'])}"
