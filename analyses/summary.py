"""What came out of a few runs, in one short table: held-out scores beside baselines, and tug-of-war indexes.

python -m analyses.summary demo/runs/mlp demo/runs/cmoe
"""

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from tugofwar import terminal
from tugofwar.errors import UserError
from unimed_model.data.left_out import missing_images, missing_line

SCORES = Path("evaluation") / "scores.json"
INDEXES = Path("gradients") / "index_dataset.csv"
MANIFEST = Path("gradients") / "manifest.json"
TRAINING = "run.json"
FLAVOUR = "paper"
"""Of the two flavours of every score: Appendix D's equations."""
NOT_EVALUATED = "not evaluated"


def summarise(runs: Sequence[Path]) -> str:
    """Return the tables in Markdown, and below them what was left out because image files were missing.

    Args:
        runs: run folders with an evaluation and measured gradients.

    Raises:
        UserError: a run that lacks either; names the command that makes it.
    """
    parts = [scores_table(runs), index_table(runs)]
    missing = [line for run in runs for line in _missing_lines(run)]
    return "\n\n".join([*parts, "\n".join(missing)] if missing else parts)


def scores_table(runs: Sequence[Path]) -> str:
    """Return held-out scores of every dataset with a column per run, then the lead over each baseline.

    The metric is the one by which the paper reports the dataset's task.
    """
    scores = {run.name: _scores(run) for run in runs}
    first = next(iter(scores.values()))
    rows = []
    for dataset, result in first.items():
        metric = result["primary"]
        every = {name: found.get(dataset) for name, found in scores.items()}
        cells = {name: _interval(_primary(one)) if one else NOT_EVALUATED for name, one in every.items()}
        rows.append({"held-out score [95 %]": f"{dataset} {metric}", **cells})
        for baseline, means in result["baselines"].items():
            value = means[FLAVOUR][metric]["value"]
            leads = {name: _lead_cell(one, baseline) for name, one in every.items()}
            rows.append({"held-out score [95 %]": f"· lead over {baseline} ({value:.3f})", **leads})
    return _markdown(rows)


def _primary(result: dict[str, Any]) -> dict[str, Any]:
    return dict(result["metrics"][FLAVOUR][result["primary"]])


def _lead_cell(result: dict[str, Any] | None, baseline: str) -> str:
    found = result["baselines"].get(baseline) if result else None
    return _signed_interval(found[FLAVOUR]["lead"]) if found else NOT_EVALUATED


def index_table(runs: Sequence[Path]) -> str:
    """Return maximum-normalised tug-of-war indexes (eq. 4) with a column per run."""
    tables = {run.name: _indexes(run) for run in runs}
    first = next(iter(tables.values()))
    rows = []
    for dataset in first.index:
        cells = {name: _index_cell(table.loc[dataset]) for name, table in tables.items()}
        rows.append({"tug-of-war index / max [95 %]": f"{dataset} ({first.loc[dataset, 'task']})", **cells})
    return _markdown(rows)


def _scores(run: Path) -> dict[str, Any]:
    path = run / SCORES
    if not path.is_file():
        raise UserError(f"{path} does not exist; make it with: unimed-eval {run} --data ROOT")
    try:
        scores = dict(json.loads(path.read_text(encoding="utf-8"))["datasets"])
        for result in scores.values():
            _primary(result)
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} is of an older version or damaged; make it again with: unimed-eval {run} --data ROOT"
        ) from error
    return scores


def _indexes(run: Path) -> pd.DataFrame:
    path = run / INDEXES
    if not path.is_file():
        raise UserError(f"{path} does not exist; make it with: tugofwar gradients --ckpt {run} --data ROOT")
    return pd.read_csv(path, index_col=0)


def _missing_lines(run: Path) -> Iterator[str]:
    """What a run was trained, evaluated and measured without, because image files were missing."""
    found = {"training": _object(run / TRAINING).get("skipped", {})}
    for dataset, result in _scores(run).items():
        for split, reasons in result.get("skipped", {}).items():
            found.setdefault(f"evaluation, split {split}", {})[dataset] = reasons
    for what, skipped in found.items():
        if missing := missing_images(skipped):
            yield f"{run.name}, {what}: {missing_line(missing)}"
    if missing := _object(run / MANIFEST).get("metadata", {}).get("missing_images"):
        yield f"{run.name}, gradients: {missing_line(missing)}"


def _object(path: Path) -> dict[str, Any]:
    """The JSON object in a file that a run need not have; empty without it."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}
    except (ValueError, TypeError) as error:
        raise UserError(f"{path} is damaged: it holds no JSON object.") from error


def _interval(mean: dict[str, Any], number: str = "{:.3f}") -> str:
    if mean["low"] is None:
        return f"{number.format(mean['value'])} [no interval]"
    return f"{number.format(mean['value'])} [{number.format(mean['low'])}, {number.format(mean['high'])}]"


def _signed_interval(mean: dict[str, Any]) -> str:
    return _interval(mean, "{:+.3f}")


def _index_cell(row: "pd.Series[Any]") -> str:
    # columns that do not exist for a run are left out of its table: see analyses/interference.py
    if "index_normalised" not in row:
        return "undefined: no index is positive"
    value = f"{row['index_normalised']:.3f}"
    if "index_normalised_low" not in row:
        return f"{value} [no interval]"
    return f"{value} [{row['index_normalised_low']:.3f}, {row['index_normalised_high']:.3f}]"


def _markdown(rows: Sequence[dict[str, str]]) -> str:
    names = list(rows[0])
    widths = [max(len(name), *(len(row[name]) for row in rows)) for name in names]
    lines = [[name.ljust(width) for name, width in zip(names, widths, strict=True)], ["-" * width for width in widths]]
    lines += [[row[name].ljust(width) for name, width in zip(names, widths, strict=True)] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    """Print the summary of the runs named on the command line."""
    runs = [Path(argument) for argument in sys.argv[1:]]
    if not runs:
        terminal.fail("name one or more run folders: python -m analyses.summary RUN...")
    terminal.run(lambda: print(summarise(runs)), (UserError,))


if __name__ == "__main__":
    main()
