"""``tugofwar routing``: how a router divides the work between experts (Fig. 4c of arXiv 2409.17508)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tugofwar import options, terminal
from tugofwar.commands.words import print_json, split_names, their_traceback
from tugofwar.errors import UserError

if TYPE_CHECKING:
    from analyses.routing_weights.sources import OwnModel, Runs

ROUTER = "connector.router"
BATCHES = 25

Checkpoints = Annotated[
    list[Path] | None,
    typer.Option(
        help="Run folder of a trained Uni-Med, or a checkpoint in it; repeat for several. One run alone stands for the "
        "end of its warm-up, where that was kept, and its end. Needs --data."
    ),
]
Router = Annotated[
    str, typer.Option(help="Glob of the routers' module names, such as connector.router or 'layers.*.mlp.gate'.")
]
TopK = Annotated[
    int | None,
    typer.Option(
        help="Of routers that give logits: how many experts the model keeps of them; default all, or what a Uni-Med's "
        "configuration says.",
        show_default=False,
    ),
]
NoSwitchingOff = Annotated[
    bool,
    typer.Option(
        "--no-switching-off",
        help="Do not measure the loss without each expert, which takes one more pass per expert and batch.",
    ),
]
Batches = Annotated[
    int, typer.Option(help="Batches per dataset, at least 2; those that `tugofwar gradients` draws with this seed.")
]
Seed = Annotated[
    int,
    typer.Option(
        min=0,
        max=options.LARGEST_SEED,
        help="Seed of the draw of batches, the intervals and the choice of images.",
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(
        help="Output folder; default routing in the --ckpt, of several in the last one's run; to be given with --setup."
    ),
]


def routing(
    ckpt: Checkpoints = None,
    data: options.Data = None,
    setup: options.Setup = None,
    out: Out = None,
    router: Router = ROUTER,
    top_k: TopK = None,
    batches: Batches = BATCHES,
    batch_size: options.BatchSize = None,
    datasets: options.Datasets = None,
    seed: Seed = 0,
    with_replacement: options.WithReplacement = False,
    skip_missing: options.SkipMissing = False,
    no_switching_off: NoSwitchingOff = False,
    quiet: options.Quiet = False,
    as_json: options.AsJson = False,
) -> None:
    """Measure how routers weigh experts: by task, how evenly, and what switching an expert off costs."""
    of_a_run = {
        "--data": data,
        "--batch-size": batch_size,
        "--with-replacement": with_replacement or None,
        "--skip-missing": skip_missing or None,
    }
    given = [option for option, value in of_a_run.items() if value is not None]
    if bool(ckpt) == bool(setup):
        raise UserError("Give either --ckpt RUN with --data ROOT, or --setup FILE.py:FUNCTION with --out FOLDER.")
    if setup and given:
        raise UserError(f"{given[0]} has no meaning with --setup, whose function returns the batches as they are.")
    if setup and out is None:
        raise UserError("--setup needs --out, the folder to write to, for example study/routing.")
    if ckpt and not data:
        raise UserError("--ckpt needs --data, a folder with datasets.")
    names = split_names(datasets, "--datasets") if datasets is not None else None
    from analyses.routing_weights.checkpoints import run_of
    from analyses.routing_weights.measuring import Settings, measure_routing, summary
    from analyses.routing_weights.sources import OwnModel, Runs
    from tugofwar.routing.text import routing_text

    source: Runs | OwnModel
    if setup:
        source = OwnModel(setup)
    else:
        source = Runs(ckpt or [], data or [], 4 if batch_size is None else batch_size, with_replacement, skip_missing)
    folder = out or run_of(ckpt or []) / "routing"
    settings = Settings(router, batches, names, seed, top_k, not no_switching_off, quiet)
    with terminal.plain_warnings("tugofwar"), their_traceback():
        content = summary(measure_routing(source, folder, settings))
    print_json({"folder": str(folder), **content}) if as_json else typer.echo(routing_text(content, str(folder)))
