"""The command ``unimed-train``, and what it shares with ``unimed-eval`` and ``unimed-data`` (``cli_*.py``)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tugofwar import terminal
from tugofwar.launch import is_first

from .data.left_out import missing_images, missing_line
from .errors import UserError

if TYPE_CHECKING:
    from .dry_run import DryRun


def application(help_text: str) -> typer.Typer:
    """Return a Typer application that shows help without arguments, with ``-h`` too, and leaves errors to us."""
    return typer.Typer(
        help=help_text,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


train_app = application("Train a Uni-Med model.")


def train_main() -> None:
    """Entry point of ``unimed-train``."""
    terminal.run(train_app, (UserError,))


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
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Train anew where --out holds a finished run, or one with other settings."),
    ] = False,
    feature_cache: Annotated[
        Path | None,
        typer.Option(help="Folder that keeps the frozen vision encoder's tokens, so that each image is encoded once."),
    ] = None,
    probe_every: Annotated[
        int | None,
        typer.Option(min=1, help="Steps between measurements of interference (RUN/tugofwar); default none."),
    ] = None,
    skip_missing: SkipMissing = False,
    quiet: Quiet = False,
    version: Version = False,
) -> None:
    """Train a model: unimed-train --preset tiny --set connector.kind=cmoe --data ROOT --out RUN.

    The same command goes on from the newest checkpoint of a run that was stopped or killed.
    """
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
    from .data.progress import reading_quietly
    from .standing import left_out

    with reading_quietly(quiet):
        outcome = training.train(
            resolved,
            data,
            out,
            weights=weights,
            quiet=quiet,
            overwrite=overwrite,
            skip_missing=skip_missing,
            feature_cache=feature_cache,
            probe_every=probe_every,
        )
    training.leave_processes()
    if is_first():
        _print_outcome(out, outcome.value, missing_images(left_out(out)))


def _print_outcome(out: Path, outcome: str, missing: dict[str, int]) -> None:
    ends = {
        "trained": "trained",
        "already trained": "already trained with these settings; nothing to do",
        "stopped": "stopped after a checkpoint; the same command goes on from it",
    }
    typer.echo(f"{out}: {ends[outcome]}")
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
    typer.echo(f"{run.steps} steps of {run.samples} samples; learning rate at step {rates}")
    typer.echo(f"prompt: {run.profile}; datasets: {', '.join(run.datasets or ('all that the data root offers',))}")


if __name__ == "__main__":
    train_main()
