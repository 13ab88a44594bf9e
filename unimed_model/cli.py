"""The commands ``unimed-train`` and ``unimed-eval``, and what they share with ``unimed-data`` (``cli_data.py``)."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tugofwar import terminal

from .data.left_out import missing_images, missing_line
from .errors import UserError

if TYPE_CHECKING:
    from .dry_run import DryRun
    from .evaluation import DatasetResult


def application(help_text: str) -> typer.Typer:
    """Return a Typer application that shows help without arguments, with ``-h`` too, and leaves errors to us."""
    return typer.Typer(
        help=help_text,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


train_app = application("Train a Uni-Med model.")
eval_app = application("Evaluate a trained Uni-Med model.")


def train_main() -> None:
    """Entry point of ``unimed-train``."""
    terminal.run(train_app, (UserError,))


def eval_main() -> None:
    """Entry point of ``unimed-eval``."""
    terminal.run(eval_app, (UserError,))


def _print_version(wanted: bool) -> None:
    if wanted:
        import unimed_model

        typer.echo(f"unimed_model {unimed_model.__version__}")
        raise typer.Exit


Version = Annotated[bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress bar.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Weights = Annotated[
    Path | None,
    typer.Option(envvar="UNIMED_WEIGHTS", help="Folder with pretrained parts, as unimed-data weights writes it."),
]
Data = Annotated[Path, typer.Option(help="Data root: a folder with datasets, or a YAML file that names them.")]
SkipMissing = Annotated[
    bool,
    typer.Option("--skip-missing", help="Leave out, and count, samples whose image file is missing."),
]
RestrictedText = Annotated[
    bool,
    typer.Option(
        "--allow-restricted-text", help="Also write text whose licence forbids passing it on, such as MIMIC-CXR's."
    ),
]


@train_app.command()
def train(
    preset: Annotated[
        str, typer.Option(help="Shipped preset (tiny, small, paper, released), or path of a YAML file.")
    ] = "tiny",
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="Override, such as connector.kind=mlp; repeatable.", metavar="KEY=VALUE"),
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Data root: a folder with datasets, or a YAML file.")] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder to write.")] = None,
    arm: Annotated[
        str | None, typer.Option(help="Arm of the paper's Tables 2 and 5, such as 2a-hard; see unimed-train --arms.")
    ] = None,
    weights: Weights = None,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Print the resolved settings as YAML and stop.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print parameters, memory, steps and learning rates, and stop.")
    ] = False,
    list_arms: Annotated[bool, typer.Option("--arms", help="List the arms and what they override, and stop.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a run that stands in --out.")] = False,
    skip_missing: SkipMissing = False,
    quiet: Quiet = False,
    version: Version = False,
) -> None:
    """Train a model: unimed-train --preset tiny --set connector.kind=cmoe --data ROOT --out RUN."""
    from .presets import arms, resolve

    if list_arms:
        for name, overrides in arms().items():
            typer.echo(f"{name:<20} {json.dumps(overrides)}")
        return
    resolved = resolve(preset, settings or (), arm)
    if print_config:
        import yaml

        typer.echo(yaml.safe_dump(resolved.model_dump(mode="json"), sort_keys=False).rstrip())
        return
    if dry_run:
        from .dry_run import dry_run as count

        _print_dry_run(count(resolved))
        return
    if data is None or out is None:
        raise UserError("Training needs --data ROOT and --out RUN.")
    from . import training

    trained = training.train(
        resolved, data, out, weights=weights, quiet=quiet, overwrite=overwrite, skip_missing=skip_missing
    )
    typer.echo(f"{out}: trained" if trained else f"{out}: already trained with these settings; nothing to do")
    missing = missing_images(training.left_out(out))
    if missing:
        typer.echo(missing_line(missing))


def _print_dry_run(run: DryRun) -> None:
    def gigabytes(count: int) -> str:
        return f"{count / 1e9:8.3f}"

    typer.echo(f"{'part':<26}{'trainable':>14}{'frozen':>15}   GB: weights gradients  moments")
    for part in run.parts:
        memory = " ".join(gigabytes(count) for count in (part.weights, part.gradients, part.optimizer))
        typer.echo(f"{part.name:<26}{part.trainable:>14,}{part.frozen:>15,}     {memory}")
    typer.echo(f"{'all':<26}{run.trainable:>14,}{run.frozen:>15,}")
    typer.echo(
        f"activations of a batch of {run.batch_size} x {run.sequence} tokens: {run.activations / 1e9:.3f} GB; "
        f"all together {run.memory / 1e9:.1f} GB, without what a library holds for itself"
    )
    rates = ", ".join(f"{step}: {rate:.3g}" for step, rate in run.learning_rates.items())
    typer.echo(f"{run.steps} steps of {run.batch_size} samples; learning rate at step {rates}")
    typer.echo(f"prompt: {run.profile}; datasets: {', '.join(run.datasets or ('all that the data root offers',))}")


@eval_app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    data: Data,
    out: Annotated[Path | None, typer.Option(help="Output folder; default RUN/evaluation.")] = None,
    split: Annotated[str, typer.Option(help="Split to answer.")] = "test",
    datasets: Annotated[str | None, typer.Option(help="Names, separated by commas; default all.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most this many samples per dataset.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Samples answered at once.")] = 64,
    skip_missing: SkipMissing = False,
    allow_restricted_text: RestrictedText = False,
    weights: Weights = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
    version: Version = False,
) -> None:
    """Answer held-out samples greedily and score the answers, baselines and 95 % intervals beside them."""
    from .evaluation import evaluate as run_evaluation

    names = tuple(name.strip() for name in datasets.split(",")) if datasets else None
    target = out or run / "evaluation"
    results = run_evaluation(
        run,
        data,
        target,
        split=split,
        names=names,
        limit=limit,
        batch_size=batch_size,
        weights=weights,
        quiet=quiet,
        skip_missing=skip_missing,
        allow_restricted_text=allow_restricted_text,
    )
    if as_json:
        typer.echo(json.dumps({name: asdict(result) for name, result in results.items()}, indent=2))
        return
    for name, result in results.items():
        _print_result(name, result)
    print(f"tables and predictions in {target}", file=sys.stderr)


def _print_result(name: str, result: DatasetResult) -> None:
    on_images = f" on {result.images} images" if result.images else ""
    typer.echo(f"{name} ({result.task}): {result.samples} samples{on_images}")
    for metric, mean in result.metrics.items():
        typer.echo(f"  {metric:<32} {mean}")
    for baseline, means in result.baselines.items():
        metric = next(iter(means))
        typer.echo(f"  {metric + ' of ' + baseline:<32} {means[metric]}   lead {means['lead']}")
    if result.unparsable:
        typer.echo(f"  {result.unparsable} answers spell no box and score 0")
    missing = missing_images(result.skipped)
    if missing:
        typer.echo(f"  {missing_line(missing)}")
