"""``tugofwar features``: what a module, such as a connector, does to the features."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tugofwar import options
from tugofwar.commands.words import print_json, split_names
from tugofwar.errors import UserError

if TYPE_CHECKING:
    from analyses.feature_maps.sources import Source

Module = Annotated[
    str | None,
    typer.Option(help="Glob of the one module to look at; default connector with --ckpt, to be given with --setup."),
]
Samples = Annotated[
    int, typer.Option(help="Samples per dataset, or as many as it has; with --ckpt of different images.")
]
Out = Annotated[Path | None, typer.Option(help="Output folder; default CKPT/features, to be given with --setup.")]


def features(
    ckpt: options.Checkpoint = None,
    data: options.Data = None,
    setup: options.Setup = None,
    module: Module = None,
    out: Out = None,
    samples: Samples = 100,
    batch_size: options.BatchSize = None,
    datasets: options.Datasets = None,
    seed: options.Seed = 0,
    skip_missing: options.SkipMissing = False,
    quiet: options.Quiet = False,
    as_json: options.AsJson = False,
) -> None:
    """Measure what a module does to features: t-SNE, silhouette, kNN purity, CKA (Fig. 5 of arXiv 2409.17508)."""
    source, folder = _source(ckpt, data, setup, module, out, batch_size, skip_missing)
    names = split_names(datasets, "--datasets") if datasets is not None else None
    from analyses.feature_maps.measuring import Settings, map_features, summary
    from tugofwar.features.text import features_text
    from tugofwar.own_setup import SetupFailed

    try:
        found = map_features(source, folder, Settings(samples, names, seed, quiet))
    except SetupFailed as failure:
        # what the user has to mend is in their code, so they see where
        typer.echo(failure.report, err=True, nl=False)
        raise
    content = summary(found)
    if as_json:
        print_json({"folder": str(folder), **content})
    else:
        typer.echo(features_text(content, str(folder)))


def _source(
    ckpt: Path | None,
    data: list[Path] | None,
    setup: str | None,
    module: str | None,
    out: Path | None,
    batch_size: int | None,
    skip_missing: bool,
) -> tuple[Source, Path]:
    """Where the model comes from, and the output folder."""
    if (setup is None) == (ckpt is None):
        raise UserError(
            "Give either --ckpt RUN with --data ROOT, or --setup FILE.py:FUNCTION with --module GLOB and --out FOLDER."
        )
    if setup is not None:
        return _own_model(
            setup, module, out, {"--data": data, "--batch-size": batch_size, "--skip-missing": skip_missing}
        )
    assert ckpt is not None
    if not data:
        raise UserError("--ckpt needs --data, a folder with datasets.")
    from analyses.feature_maps.sources import CONNECTOR, TrainedRun

    size = 4 if batch_size is None else batch_size
    return TrainedRun(ckpt, data, size, module or CONNECTOR, skip_missing), out or ckpt / "features"


def _own_model(setup: str, module: str | None, out: Path | None, of_a_run: dict[str, object]) -> tuple[Source, Path]:
    for option, value in of_a_run.items():
        if value:
            raise UserError(f"{option} has no meaning with --setup, whose function returns the batches as they are.")
    if module is None:
        raise UserError("--setup needs --module, a glob of the module to look at, for example 'projector'.")
    if out is None:
        raise UserError("--setup needs --out, the folder to write to, for example study/features.")
    from analyses.feature_maps.sources import OwnModel

    return OwnModel(setup, module), out
