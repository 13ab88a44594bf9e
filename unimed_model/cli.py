"""The commands ``unimed-data``, ``unimed-train`` and ``unimed-eval``."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tugofwar import terminal

from .errors import UserError

if TYPE_CHECKING:
    from .evaluation import DatasetResult


def _app(help_text: str) -> typer.Typer:
    return typer.Typer(
        help=help_text,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


data_app = _app("Datasets of Uni-Med: the sample corpus, what a data root offers.")
train_app = _app("Train a Uni-Med model.")
eval_app = _app("Evaluate a trained Uni-Med model.")


def data_main() -> None:
    """Entry point of ``unimed-data``."""
    terminal.run(data_app, (UserError,))


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
Data = Annotated[Path, typer.Option(help="Data root: a folder with datasets, or a YAML file that names them.")]


@data_app.callback()
def _data_root(version: Version = False) -> None:
    pass


@data_app.command()
def sample(
    root: Annotated[Path, typer.Argument(help="Folder to write; must not hold anything else.")],
    seed: Annotated[int, typer.Option(min=0, help="Seed of every random choice.")] = 0,
) -> None:
    """Write the sample corpus: real brain images in the published raw layouts, labels true by construction."""
    from .data.corpus import write_sample_corpus

    written = write_sample_corpus(root, seed)
    typer.echo(f"{root}: sample corpus written" if written else f"{root}: the sample corpus is there already")


@data_app.command("list")
def list_datasets(root: Annotated[Path, typer.Argument(help="Data root.")], as_json: AsJson = False) -> None:
    """List the datasets that a data root offers, with their numbers of samples."""
    from .data import discover

    rows = []
    for source in discover(root):
        counts = {split: _count(source, split) for split in ("train", "test")}
        rows.append({"dataset": source.name, "task": source.task, "layout": source.layout, **counts})
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    for row in rows:
        typer.echo(
            f"{row['dataset']:<16} {row['task']:<4} {row['layout']:<11} train {row['train']}  test {row['test']}"
        )


def _count(source: object, split: str) -> int | str:
    """Number of samples of a split, or why there are none."""
    from .data import open_source

    try:
        return len(open_source(source, split))  # type: ignore[arg-type]
    except UserError as reason:
        return f"unusable: {reason}"


@train_app.command()
def train(
    preset: Annotated[str, typer.Option(help="Shipped preset (tiny), or path of a YAML file.")] = "tiny",
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="Override, such as connector.kind=mlp; repeatable.", metavar="KEY=VALUE"),
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Data root: a folder with datasets, or a YAML file.")] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder to write.")] = None,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Print the resolved settings as YAML and stop.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a run that stands in --out.")] = False,
    quiet: Quiet = False,
    version: Version = False,
) -> None:
    """Train a model from scratch: unimed-train --preset tiny --set connector.kind=cmoe --data ROOT --out RUN."""
    from .settings import resolve

    resolved = resolve(preset, settings or ())
    if print_config:
        import yaml

        typer.echo(yaml.safe_dump(resolved.model_dump(mode="json"), sort_keys=False).rstrip())
        return
    if data is None or out is None:
        raise UserError("Training needs --data ROOT and --out RUN.")
    from . import training

    trained = training.train(resolved, data, out, quiet=quiet, overwrite=overwrite)
    typer.echo(f"{out}: trained" if trained else f"{out}: already trained with these settings; nothing to do")


@eval_app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    data: Data,
    out: Annotated[Path | None, typer.Option(help="Output folder; default RUN/evaluation.")] = None,
    split: Annotated[str, typer.Option(help="Split to answer.")] = "test",
    datasets: Annotated[str | None, typer.Option(help="Names, separated by commas; default all.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most this many samples per dataset.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Samples answered at once.")] = 64,
    quiet: Quiet = False,
    as_json: AsJson = False,
    version: Version = False,
) -> None:
    """Answer held-out samples greedily and score the answers, baselines and 95 % intervals beside them."""
    from .evaluation import evaluate as run_evaluation

    names = tuple(name.strip() for name in datasets.split(",")) if datasets else None
    target = out or run / "evaluation"
    results = run_evaluation(
        run, data, target, split=split, names=names, limit=limit, batch_size=batch_size, quiet=quiet
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
