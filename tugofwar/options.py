"""Options that several commands have, with what ``--help`` says about each."""

from pathlib import Path
from typing import Annotated

import typer

_SOURCE, _COST, _KEPT = "What is measured", "Time, memory and disk", "What is kept"
# The random generators of all libraries take it, also with a few added.
LARGEST_SEED = 2**31 - 1

Checkpoint = Annotated[
    Path | None, typer.Option(help="Run folder of a trained Uni-Med; needs --data.", rich_help_panel=_SOURCE)
]
Data = Annotated[
    list[Path] | None, typer.Option(help="Folder with datasets; repeat for several.", rich_help_panel=_SOURCE)
]
Setup = Annotated[
    str | None,
    typer.Option(
        help="Your own model: FILE.py:FUNCTION or package.module:function, a function that returns (model, "
        "datasets), (model, datasets, loss) or a mapping; see docs/own-model.md.",
        rich_help_panel=_SOURCE,
    ),
]
Out = Annotated[Path | None, typer.Option(help="Output folder; default CKPT/gradients, to be given with --setup.")]
Params = Annotated[
    str | None,
    typer.Option(
        help="Globs of the shared parameters, separated by commas; default connector.* with --ckpt, all trainable "
        "ones (*) with --setup.",
        rich_help_panel=_SOURCE,
    ),
]
Batches = Annotated[
    int | None,
    typer.Option(help="Batches per dataset, at least 2; default 100.", show_default=False, rich_help_panel=_SOURCE),
]
BatchSize = Annotated[
    int | None,
    typer.Option(help="Samples per batch, with --ckpt only; default 4.", show_default=False, rich_help_panel=_SOURCE),
]
Datasets = Annotated[
    str | None,
    typer.Option(help="Names of datasets, separated by commas; default all that there are.", rich_help_panel=_SOURCE),
]
Seed = Annotated[
    int,
    typer.Option(
        min=0, max=LARGEST_SEED, help="Seed of the draw of batches and of the intervals.", rich_help_panel=_SOURCE
    ),
]
WithReplacement = Annotated[
    bool,
    typer.Option(
        "--with-replacement",
        help="Let samples repeat where a dataset has too few (--ckpt only).",
        rich_help_panel=_SOURCE,
    ),
]
SkipMissing = Annotated[
    bool,
    typer.Option(
        "--skip-missing",
        help="Leave out, and count, samples whose image file is missing (--ckpt only).",
        rich_help_panel=_SOURCE,
    ),
]
Preconditioner = Annotated[
    str | None,
    typer.Option(
        help="adam: also measure in the geometry of Adam's update; tables in OUT/adam.", rich_help_panel=_SOURCE
    ),
]
NoStatistics = Annotated[
    bool, typer.Option("--no-statistics", help="Count no statistics scores (eq. 5).", rich_help_panel=_SOURCE)
]
TargetWidth = Annotated[
    float | None,
    typer.Option(
        help="Say how many batches would bring the widest interval of GD under this width, such as 0.1.",
        rich_help_panel=_SOURCE,
    ),
]
Plan = Annotated[
    bool,
    typer.Option("--plan", help="Forecast time, memory and disk, write nothing, and stop.", rich_help_panel=_COST),
]
Memory = Annotated[
    str | None,
    typer.Option(
        help="Memory to hold besides the model, such as 8GB; the rest goes to disk. Default most of what is free.",
        rich_help_panel=_COST,
    ),
]
FactorDtype = Annotated[
    str | None,
    typer.Option(
        help="Precision to store factors in: bfloat16, float16 or float32; default the one they come in.",
        rich_help_panel=_COST,
    ),
]
GroupBlocks = Annotated[
    str | None,
    typer.Option(
        help="Globs, separated by commas: the blocks that one matches become a single block.", rich_help_panel=_COST
    ),
]
Sketch = Annotated[
    int | None,
    typer.Option(
        help="Hash each gradient to this many numbers, such as 65536: inexact, for when nothing else fits.",
        rich_help_panel=_COST,
    ),
]
NoResume = Annotated[
    bool,
    typer.Option(
        "--no-resume",
        help="Start afresh, and keep finished datasets in memory only: an interrupted run is lost.",
        rich_help_panel=_COST,
    ),
]
KeepFactors = Annotated[
    bool,
    typer.Option("--keep-factors", help="Keep what --extend needs, in OUT/factors (large).", rich_help_panel=_KEPT),
]
Extend = Annotated[
    int | None,
    typer.Option(
        help="Add this many batches per dataset to the recording in OUT, made with --keep-factors.",
        rich_help_panel=_KEPT,
    ),
]
KeepScores = Annotated[
    bool,
    typer.Option("--keep-scores", help="Write every parameter's score, OUT/scores.safetensors.", rich_help_panel=_KEPT),
]
KeepMeans = Annotated[
    bool,
    typer.Option(
        "--keep-means", help="Write every dataset's mean gradient, OUT/means.safetensors.", rich_help_panel=_KEPT
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress bar.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
