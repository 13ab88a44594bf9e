"""``tugofwar dynamics``: how interference changes during training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tugofwar import options, terminal
from tugofwar.commands.words import print_json, split_names
from tugofwar.errors import UserError
from tugofwar.plain_table import plain_table

if TYPE_CHECKING:
    from analyses.dynamics.sources import Timeline

BATCHES = 20

Run = Annotated[
    Path,
    typer.Argument(
        help="Run folder of unimed-train, or the output folder of any transformers Trainer with a TugOfWarCallback."
    ),
]
Data = Annotated[
    list[Path] | None,
    typer.Option(
        help="Folder with datasets, repeatable: measure the checkpoints RUN/checkpoint-N on them, instead of reading "
        "what was recorded during training."
    ),
]
Out = Annotated[Path | None, typer.Option(help="Output folder; default RUN/dynamics.")]
Params = Annotated[
    str | None,
    typer.Option(help="Globs of the shared parameters, separated by commas; default connector.*; with --data."),
]
Batches = Annotated[
    int | None,
    typer.Option(help=f"Batches per dataset, at least 2; default {BATCHES}; with --data.", show_default=False),
]
BatchSize = Annotated[int | None, typer.Option(help="Samples per batch; default 4; with --data.", show_default=False)]
WithReplacement = Annotated[
    bool, typer.Option("--with-replacement", help="Let samples repeat where a dataset has too few; with --data.")
]
SkipMissing = Annotated[
    bool,
    typer.Option("--skip-missing", help="Leave out, and count, samples whose image file is missing; with --data."),
]


def dynamics(
    run: Run,
    data: Data = None,
    out: Out = None,
    params: Params = None,
    batches: Batches = None,
    batch_size: BatchSize = None,
    datasets: options.Datasets = None,
    seed: options.Seed = 0,
    with_replacement: WithReplacement = False,
    skip_missing: SkipMissing = False,
    quiet: options.Quiet = False,
    as_json: options.AsJson = False,
) -> None:
    """Follow GD, GM and tug-of-war indexes over the steps of a training run (eq. 2 to 4 of arXiv 2409.17508)."""
    if not run.is_dir():
        raise UserError(f"There is no folder {run}; name a run of unimed-train, or a Trainer's output folder.")
    folder = out or run / "dynamics"
    names = split_names(datasets, "--datasets") if datasets is not None else None
    of_checkpoints = {
        "--params": params,
        "--batches": batches,
        "--batch-size": batch_size,
        "--with-replacement": with_replacement or None,
        "--skip-missing": skip_missing or None,
    }
    from analyses.dynamics import measuring as over_training

    over_training.check_output(folder)
    with terminal.plain_warnings("tugofwar"):
        if data:
            timeline = _of_checkpoints(run, data, folder, names, seed, quiet, of_checkpoints)
        else:
            timeline = _during_training(run, of_checkpoints)
        found = over_training.measure(timeline, names, seed=seed, quiet=quiet)
    over_training.write(found, run, folder)
    if as_json:
        print_json({"folder": str(folder), **found.manifest, "headline": found.headline})
    else:
        typer.echo("\n".join([_table(found.headline), *over_training.notes(found), _last_line(found.manifest, folder)]))


def _during_training(run: Path, of_checkpoints: Mapping[str, object]) -> Timeline:
    from analyses.dynamics.sources import models_of, recorded_during_training

    for option, value in of_checkpoints.items():
        if value is not None:
            raise UserError(f"{option} is for measuring checkpoints, which needs --data, a folder with datasets.")
    timeline = recorded_during_training(run)
    if timeline is not None:
        return timeline
    if models_of(run):
        raise UserError(f"Nothing was recorded while {run} was trained; give --data ROOT to measure its checkpoints.")
    raise UserError(
        f"{run} holds neither recordings (tugofwar/step-000100, by unimed-train --probe-every or TugOfWarCallback) nor "
        "checkpoints (checkpoint-100)."
    )


def _of_checkpoints(
    run: Path,
    data: Sequence[Path],
    folder: Path,
    names: list[str] | None,
    seed: int,
    quiet: bool,
    given: Mapping[str, Any],
) -> Timeline:
    from analyses.dynamics.sources import models_of, record_models
    from analyses.measuring import Settings, TrainedRun

    models = models_of(run)
    if not models:
        raise UserError(f"{run} holds no checkpoints (checkpoint-100) to measure.")
    patterns = split_names("connector.*" if given["--params"] is None else given["--params"], "--params")
    settings = Settings(
        parameters=patterns[0] if len(patterns) == 1 else patterns,
        batches=BATCHES if given["--batches"] is None else given["--batches"],
        datasets=names,
        seed=seed,
        statistics=False,
        quiet=quiet,
    )
    size = 4 if given["--batch-size"] is None else given["--batch-size"]
    repeat, skip = bool(given["--with-replacement"]), bool(given["--skip-missing"])
    return record_models(models, TrainedRun(run, data, size, repeat, skip), settings, folder)


def _table(headline: Sequence[Mapping[str, Any]]) -> str:
    header = ["step", "loss", "mean GD", "lowest GD (row, column)", "index", "sign uncertain"]
    return plain_table(header, [_row(line) for line in headline])


def _row(line: Mapping[str, Any]) -> list[str]:
    def number(key: str) -> str:
        return f"{line[key]:.3f}" if key in line else "-"

    lowest = f"{number('gd_min')} ({line['gd_min_row']}, {line['gd_min_column']})" if "gd_min" in line else "-"
    indexes = f"{number('index_min')} to {number('index_max')}" if "index_min" in line else "-"
    uncertain = line.get("sign_uncertain")
    return [
        str(line["step"]),
        number("loss"),
        number("gd_mean"),
        lowest,
        indexes,
        "-" if uncertain is None else str(len(uncertain)),
    ]


def _last_line(manifest: Mapping[str, Any], folder: Path) -> str:
    source = {"callback": "recorded during training", "checkpoints": "measured at checkpoints"}[manifest["source"]]
    return f"{source}; estimator {manifest['estimator']}; tables in {folder}"
