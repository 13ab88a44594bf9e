"""The command ``tugofwar``: measure interference in a checkpoint, draw it, look into a recording.

tugofwar gradients --ckpt runs/cmoe --data data --out runs/cmoe/gradients
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
from tugofwar.plain_table import plain_table

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
    ckpt: Annotated[Path, typer.Option(help="Run folder of a trained model.")],
    data: Annotated[list[Path], typer.Option(help="Folder with datasets; repeat for several.")],
    out: Annotated[Path | None, typer.Option(help="Output folder; default CKPT/gradients.")] = None,
    params: Annotated[str, typer.Option(help="Globs of the shared parameters, separated by commas.")] = "connector.*",
    batches: Annotated[int, typer.Option(help="Batches per dataset, at least 2.")] = 100,
    batch_size: Annotated[int, typer.Option(help="Samples per batch.")] = 4,
    datasets: Annotated[
        str | None,
        typer.Option(help="Names of datasets, separated by commas; default all that the data roots offer."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the draw of batches and of the intervals.")] = 0,
    with_replacement: Annotated[
        bool, typer.Option("--with-replacement", help="Let samples repeat where a dataset has too few.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Measure GD, GM and tug-of-war indexes of a checkpoint (eq. 1 to 4 of arXiv 2409.17508)."""
    from analyses.interference import measure

    folder = out or ckpt / "gradients"
    patterns = _split(params, "--params")
    measurement = measure(
        ckpt,
        data,
        folder,
        parameters=patterns[0] if len(patterns) == 1 else patterns,
        batches=batches,
        batch_size=batch_size,
        datasets=_split(datasets, "--datasets") if datasets is not None else None,
        seed=seed,
        with_replacement=with_replacement,
        quiet=quiet,
    )
    if as_json:
        _print_json(_summary(measurement, folder))
    else:
        _print_measurement(measurement, params, folder)


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
        _print_inspection(content)


def _split(text: str, option: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise UserError(f"{option} is empty; give at least one name, or leave the option out.")
    return names


def _print_json(content: Mapping[str, Any]) -> None:
    typer.echo(json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False))


def _summary(measurement: Measurement, folder: Path) -> dict[str, Any]:
    from analyses.interference import index_table
    from tugofwar.metrics import DEFAULT_ESTIMATOR

    tables = {
        level: index_table(results[DEFAULT_ESTIMATOR], measurement.recording.tasks)
        for level, results in measurement.levels.items()
    }
    return {
        "folder": str(folder),
        "estimator": DEFAULT_ESTIMATOR,
        "untouched": list(measurement.untouched),
        **{level: table.to_dict(orient="index") for level, table in tables.items()},
    }


def _print_measurement(measurement: Measurement, params: str, folder: Path) -> None:
    content = _summary(measurement, folder)
    rows = [
        [name, row.get("task", ""), str(row["batches"]), _with_interval(row)]
        for name, row in content["dataset"].items()
    ]
    level = next(iter(measurement.levels["dataset"].values())).level
    typer.echo(plain_table(["dataset", "task", "batches", f"index / max [{level:.0%} interval]"], rows))
    if content["untouched"]:
        typer.echo(f"not touching {params}: {', '.join(content['untouched'])}")
    for level_name, results in measurement.levels.items():
        for name in results[content["estimator"]].sign_uncertain:
            typer.echo(f"{level_name} {name}: the sign of its denominator is uncertain; do not trust its row of GD")
    typer.echo(f"estimator {content['estimator']}; tables in {folder}")


def _with_interval(row: Mapping[str, Any]) -> str:
    if "index_normalised" not in row:
        return "undefined: no index is positive"
    text = f"{row['index_normalised']:.3f}"
    if "index_normalised_low" not in row:
        return text
    return f"{text} [{row['index_normalised_low']:.3f}, {row['index_normalised_high']:.3f}]"


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


def _print_inspection(content: Mapping[str, Any]) -> None:
    datasets = content["datasets"]
    rows = [[n, d["task"] or "", str(d["batches"]), f"{d['mean_loss']:.4f}"] for n, d in datasets.items()]
    typer.echo(plain_table(["dataset", "task", "batches", "mean loss"], rows))
    if content["untouched"]:
        typer.echo(f"not touching the selected parameters: {', '.join(content['untouched'])}")
    blocks = content["blocks"]
    sizes = [[name, str(len(block)), f"{sum(block.values()):,}"] for name, block in blocks.items()]
    total = sum(sum(block.values()) for block in blocks.values())
    typer.echo("\n" + plain_table(["block", "tensors", "parameters"], [*sizes, ["all", "", f"{total:,}"]]))
    defined = {name: index for name, index in content["index"].items() if not isinstance(index, str)}
    names = list(dict.fromkeys(dataset for index in defined.values() for dataset in index))
    table = [[dataset, *(f"{index[dataset]:.4f}" for index in defined.values())] for dataset in names]
    typer.echo("\nTug-of-war index (eq. 4) by estimator")
    typer.echo(plain_table(["dataset", *defined], table))
    for name, index in content["index"].items():
        if isinstance(index, str):
            typer.echo(f"{name}: {index}")


if __name__ == "__main__":
    main()
