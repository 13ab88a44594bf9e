"""``tugofwar gradients``: who pulls against whom, how hard, and how surely."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from tugofwar import options, terminal
from tugofwar.commands.words import print_json, split_names, their_traceback
from tugofwar.errors import UserError
from tugofwar.launch import is_first
from tugofwar.report_text import measurement_text

if TYPE_CHECKING:
    from analyses.interference import Measurement
    from analyses.measuring import Settings, Source


def gradients(
    ckpt: options.Checkpoint = None,
    data: options.Data = None,
    setup: options.Setup = None,
    out: options.Out = None,
    params: options.Params = None,
    batches: options.Batches = None,
    batch_size: options.BatchSize = None,
    datasets: options.Datasets = None,
    seed: options.Seed = 0,
    with_replacement: options.WithReplacement = False,
    skip_missing: options.SkipMissing = False,
    preconditioner: options.Preconditioner = None,
    no_statistics: options.NoStatistics = False,
    target_width: options.TargetWidth = None,
    plan: options.Plan = False,
    memory: options.Memory = None,
    factor_dtype: options.FactorDtype = None,
    group_blocks: options.GroupBlocks = None,
    sketch: options.Sketch = None,
    no_resume: options.NoResume = False,
    keep_factors: options.KeepFactors = False,
    extend: options.Extend = None,
    keep_scores: options.KeepScores = False,
    keep_means: options.KeepMeans = False,
    quiet: options.Quiet = False,
    as_json: options.AsJson = False,
) -> None:
    """Measure GD, GM and tug-of-war indexes of a model (eq. 1 to 4 of arXiv 2409.17508)."""
    source, folder = _source(ckpt, data, setup, out, batch_size, with_replacement, skip_missing)
    _check_numbers(batches, extend, target_width)
    patterns = params if params is not None else ("*" if setup else "connector.*")
    names = split_names(patterns, "--params")
    from analyses.measuring import Settings

    settings = Settings(
        parameters=names[0] if len(names) == 1 else names,
        batches=100 if batches is None else batches,
        datasets=split_names(datasets, "--datasets") if datasets is not None else None,
        seed=seed,
        statistics=not no_statistics,
        preconditioner=preconditioner,
        factor_dtype=factor_dtype,
        group_blocks=split_names(group_blocks, "--group-blocks") if group_blocks is not None else [],
        sketch=sketch,
        memory=memory,
        resume=not no_resume,
        keep_factors=keep_factors,
        keep_scores=keep_scores,
        keep_means=keep_means,
        extend=extend,
        quiet=quiet,
    )
    with terminal.plain_warnings("tugofwar"):
        if plan:
            _print_plan(source, folder, settings, as_json)
        else:
            measurement = _measure(source, folder, settings)
            if measurement is not None:
                _report(measurement, patterns, folder, target_width, as_json)


def _source(
    ckpt: Path | None,
    data: list[Path] | None,
    setup: str | None,
    out: Path | None,
    batch_size: int | None,
    with_replacement: bool,
    skip_missing: bool,
) -> tuple[Source, Path]:
    """Where the model comes from, and the output folder."""
    if (setup is None) == (ckpt is None):
        raise UserError("Give either --ckpt RUN with --data ROOT, or --setup FILE.py:FUNCTION with --out FOLDER.")
    if setup is not None:
        of_a_run = {
            "--data": data,
            "--batch-size": batch_size,
            "--with-replacement": with_replacement or None,
            "--skip-missing": skip_missing or None,
        }
        return _own_setup(setup, out, of_a_run)
    assert ckpt is not None
    if not data:
        raise UserError("--ckpt needs --data, a folder with datasets.")
    from analyses.measuring import TrainedRun

    size = 4 if batch_size is None else batch_size
    return TrainedRun(ckpt, data, size, with_replacement, skip_missing), out or ckpt / "gradients"


def _own_setup(setup: str, out: Path | None, of_a_run: Mapping[str, object]) -> tuple[Source, Path]:
    for option, value in of_a_run.items():
        if value is not None:
            raise UserError(f"{option} has no meaning with --setup, whose function returns the batches as they are.")
    if out is None:
        raise UserError("--setup needs --out, the folder to write to, for example study/gradients.")
    from analyses.measuring import OwnSetup

    return OwnSetup(setup), out


def _check_numbers(batches: int | None, extend: int | None, target_width: float | None) -> None:
    if extend is not None and batches is not None:
        raise UserError("--extend adds to the batches that were recorded; leave --batches out.")
    if target_width is not None and not 0 < target_width < float("inf"):
        raise UserError(f"--target-width is {target_width}; an interval's width is a number over 0, such as 0.1.")


def _measure(source: Source, folder: Path, settings: Settings) -> Measurement | None:
    from analyses.measuring import measure

    with their_traceback():
        return measure(source, folder, settings)


def _print_plan(source: Source, folder: Path, settings: Settings, as_json: bool) -> None:
    from analyses.measuring import forecast

    with their_traceback():
        plan = forecast(source, folder, settings)
    if is_first():
        print_json(plan.as_dict()) if as_json else typer.echo(plan.text())


def _report(measurement: Measurement, patterns: str, folder: Path, target_width: float | None, as_json: bool) -> None:
    from analyses.interference import batches_for_width, summary

    content = summary(measurement)
    if target_width is not None:
        content["target_width"] = batches_for_width(measurement, target_width)
    if as_json:
        print_json({"folder": str(folder), **content})
    else:
        typer.echo(measurement_text(content, patterns, str(folder)))
