"""The command ``tugofwar``: measure interference in a checkpoint, draw it, look into a recording.

tugofwar gradients --ckpt runs/cmoe --data data --out runs/cmoe/gradients
tugofwar gradients --setup my_study.py:setup --params 'encoder.*' --out study/gradients
tugofwar figures runs/mlp runs/cmoe --out figures-out
tugofwar inspect runs/cmoe/gradients
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tugofwar import terminal
from tugofwar.errors import UserError
from tugofwar.report_text import inspection_text, measurement_text

if TYPE_CHECKING:
    from analyses.interference import Measurement
    from tugofwar.recording import Recording

app = typer.Typer(
    help="See and measure how tasks fight over shared parameters.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Entry point of the console script."""
    from figures.errors import UserError as FigureError
    from unimed_model.errors import UserError as ModelError

    terminal.run(app, (UserError, FigureError, ModelError))


def _print_version(wanted: bool) -> None:
    if wanted:
        import tugofwar

        typer.echo(f"tugofwar {tugofwar.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command()
def gradients(
    ckpt: Annotated[Path | None, typer.Option(help="Run folder of a trained Uni-Med; needs --data.")] = None,
    data: Annotated[list[Path] | None, typer.Option(help="Folder with datasets; repeat for several.")] = None,
    setup: Annotated[
        str | None,
        typer.Option(
            help="Your own model: FILE.py:FUNCTION or package.module:function, a function that returns (model, "
            "datasets), (model, datasets, loss) or a mapping; see docs/own-model.md."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Output folder; default CKPT/gradients, to be given with --setup.")
    ] = None,
    params: Annotated[
        str | None,
        typer.Option(
            help="Globs of the shared parameters, separated by commas; default connector.* with --ckpt, all trainable "
            "ones (*) with --setup."
        ),
    ] = None,
    batches: Annotated[int, typer.Option(help="Batches per dataset, at least 2.")] = 100,
    batch_size: Annotated[
        int | None, typer.Option(help="Samples per batch, with --ckpt only; default 4.", show_default=False)
    ] = None,
    datasets: Annotated[
        str | None,
        typer.Option(help="Names of datasets, separated by commas; default all that there are."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the draw of batches and of the intervals.")] = 0,
    with_replacement: Annotated[
        bool, typer.Option("--with-replacement", help="Let samples repeat where a dataset has too few (--ckpt only).")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Measure GD, GM and tug-of-war indexes of a model (eq. 1 to 4 of arXiv 2409.17508)."""
    patterns = params if params is not None else ("*" if setup else "connector.*")
    names = _split(patterns, "--params")
    settings: dict[str, Any] = {
        "parameters": names[0] if len(names) == 1 else names,
        "batches": batches,
        "datasets": _split(datasets, "--datasets") if datasets is not None else None,
        "seed": seed,
        "quiet": quiet,
    }
    if setup is not None and ckpt is None:
        of_a_run = {"--data": data, "--batch-size": batch_size, "--with-replacement": with_replacement or None}
        folder = _folder_of_setup(out, of_a_run)
        measurement = _measure_setup(setup, folder, settings)
    elif ckpt is not None and setup is None:
        settings |= {"batch_size": 4 if batch_size is None else batch_size, "with_replacement": with_replacement}
        folder = out or ckpt / "gradients"
        measurement = _measure_checkpoint(ckpt, data, folder, settings)
    else:
        raise UserError("Give either --ckpt RUN with --data ROOT, or --setup FILE.py:FUNCTION with --out FOLDER.")
    _report(measurement, patterns, folder, as_json)


@app.command()
def figures(
    runs: Annotated[list[Path], typer.Argument(help="Run folders with measured gradients.", metavar="RUN...")],
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")],
    formats: Annotated[str, typer.Option("--format", help="png, pdf or both, separated by commas.")] = "png,pdf",
) -> None:
    """Draw heat maps of every run and the tug-of-war indexes of all of them side by side."""
    from figures.draw import draw

    for path in draw(runs, out, _split(formats, "--format")):
        typer.echo(path)


@app.command()
def inspect(
    recording: Annotated[Path, typer.Argument(help="Folder of a recording, or a run that has one.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Say what a recording holds: datasets, blocks, parameters, and the index by every estimator."""
    from tugofwar.recording import Recording

    nested = recording / "gradients"
    inner = not (recording / "manifest.json").exists() and nested.is_dir()
    content = _inspection(Recording.load(nested if inner else recording))
    if as_json:
        _print_json(content)
    else:
        typer.echo(inspection_text(content))


def _measure_checkpoint(ckpt: Path, data: list[Path] | None, folder: Path, settings: Mapping[str, Any]) -> Measurement:
    if not data:
        raise UserError("--ckpt needs --data, a folder with datasets.")
    from analyses.interference import measure

    return measure(ckpt, data, folder, **settings)


def _folder_of_setup(out: Path | None, of_a_run: Mapping[str, object]) -> Path:
    for option, value in of_a_run.items():
        if value is not None:
            raise UserError(f"{option} has no meaning with --setup, whose function returns the batches as they are.")
    if out is None:
        raise UserError("--setup needs --out, the folder to write to, for example study/gradients.")
    return out


def _measure_setup(setup: str, folder: Path, settings: Mapping[str, Any]) -> Measurement:
    from analyses.interference import measure_setup
    from tugofwar.own_setup import SetupFailed

    try:
        return measure_setup(setup, folder, **settings)
    except SetupFailed as failure:
        # What the user has to mend is in their code, so they see where, without our frames around it.
        typer.echo(failure.report, err=True, nl=False)
        raise


def _report(measurement: Measurement, patterns: str, folder: Path, as_json: bool) -> None:
    from analyses.interference import summary

    content = summary(measurement)
    if as_json:
        _print_json({"folder": str(folder), **content})
    else:
        typer.echo(measurement_text(content, patterns, str(folder)))


def _split(text: str, option: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise UserError(f"{option} is empty; give at least one name, or leave the option out.")
    return names


def _print_json(content: Mapping[str, Any]) -> None:
    typer.echo(json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False))


def _inspection(recording: Recording) -> dict[str, Any]:
    from tugofwar.metrics import ESTIMATORS

    return {
        "datasets": {
            name: {
                "task": recording.tasks.get(name),
                "batches": len(rows),
                "mean_loss": float(recording.losses[rows].mean()),
            }
            for name, rows in recording.rows.items()
        },
        "untouched": list(recording.untouched),
        "blocks": {block.name: dict(block.parameters) for block in recording.blocks},
        "index": {estimator: _index_or_reason(recording, estimator) for estimator in ESTIMATORS},
        "metadata": dict(recording.metadata),
    }


def _index_or_reason(recording: Recording, estimator: str) -> dict[str, float] | str:
    from tugofwar.estimation import interference

    try:
        return {str(k): float(v) for k, v in interference(recording, estimator=estimator, resamples=0).index.items()}
    except UserError as reason:
        return str(reason)


if __name__ == "__main__":
    main()
