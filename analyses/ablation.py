"""Tables 2 (a to e) and 5: every arm trained and evaluated with several seeds, and the table of what came out.

python -m analyses.ablation run --table 2a --preset tiny --seeds 3 --data demo/data --out runs/2a
python -m analyses.ablation table runs/2a --format markdown
python -m analyses.ablation compare runs/2a 2a-soft-token-task fair-mlp
"""

from pathlib import Path
from typing import Annotated

import typer

from analyses import ablation_runs, ablation_tables
from tugofwar import terminal
from tugofwar.errors import UserError
from unimed_model import errors

app = typer.Typer(
    help="Ablations of the paper: run them, and print their tables.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
Folder = Annotated[Path, typer.Argument(help="Folder that `run` wrote.")]
Format = Annotated[str, typer.Option("--format", help="markdown, csv or latex.")]
Flavour = Annotated[
    str, typer.Option(help="How answers are scored: paper (the equations of Appendix D) or released (the scripts).")
]
Out = Annotated[Path | None, typer.Option(help="File to write; default stdout.")]


@app.command()
def run(
    table: Annotated[str, typer.Option(help=f"Table: {', '.join(ablation_tables.TABLES)}.")],
    data: Annotated[Path, typer.Option(help="Data root: a folder with datasets, or a YAML file that names them.")],
    out: Annotated[Path, typer.Option(help="Folder of the ablation; the same command goes on there.")],
    preset: Annotated[str, typer.Option(help="Shipped preset, or path of a YAML file.")] = "tiny",
    seeds: Annotated[int, typer.Option(help="Runs per arm, at least 1.")] = 3,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="Override for all arms, such as training.steps=500; repeatable.", metavar="K=V"),
    ] = None,
    weights: Annotated[Path | None, typer.Option(envvar="UNIMED_WEIGHTS", help="Folder with pretrained parts.")] = None,
    feature_cache: Annotated[
        Path | None, typer.Option(help="Folder for a frozen vision encoder's features, shared by all runs.")
    ] = None,
    only: Annotated[str | None, typer.Option(help="Arms to run now, separated by commas; default all.")] = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Runs at a time; default 1, on a cluster all.")] = None,
    engine: Annotated[str, typer.Option(help="local (processes here) or submitit (a cluster).")] = "local",
    slurm: Annotated[
        list[str] | None,
        typer.Option("--slurm", help="Resource of a job, such as gpus_per_node=1; repeatable.", metavar="K=V"),
    ] = None,
    cluster: Annotated[
        str | None, typer.Option(help="submitit's cluster: slurm, local or debug; default what it finds.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No line per finished run.")] = False,
) -> None:
    """Train and evaluate every arm with every seed; what is finished is not run again."""
    from analyses.ablation_run import run as run_all

    asked = ablation_runs.Ablation(
        table=ablation_tables.table_named(table),
        preset=preset,
        overrides=tuple(settings or ()),
        seeds=seeds,
        data=data,
        out=out,
        weights=weights,
        feature_cache=feature_cache,
    )
    failed = run_all(asked, only, engine, jobs, tuple(slurm or ()), cluster, quiet)
    if failed:
        raise typer.Exit(1)


@app.command()
def table(
    folder: Folder,
    form: Format = "markdown",
    flavour: Flavour = "paper",
    out: Out = None,
) -> None:
    """Print the table in the paper's layout, with 95 % intervals."""
    from analyses.ablation_table import table_text
    from analyses.printing import deliver

    deliver(table_text(folder, form, flavour), out)


@app.command()
def compare(
    folder: Folder,
    arm: Annotated[str, typer.Argument(help="Arm of the table.")],
    other: Annotated[str, typer.Argument(help="Arm that it is compared with.")],
    form: Format = "markdown",
    flavour: Flavour = "paper",
    out: Out = None,
) -> None:
    """Print the paired difference of two arms on every dataset, with 95 % intervals and p-values."""
    from analyses.ablation_table import comparison_text
    from analyses.printing import deliver

    deliver(comparison_text(folder, arm, other, form, flavour), out)


def main() -> None:
    """Entry point of ``python -m analyses.ablation``."""
    terminal.run(app, (UserError, errors.UserError))


if __name__ == "__main__":
    main()
