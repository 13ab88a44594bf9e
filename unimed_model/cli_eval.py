"""The command ``unimed-eval``: answer and score a run, score a prediction file, compare two models."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from typer.core import TyperGroup

from tugofwar import terminal

from .cli import AsJson, Data, Quiet, RestrictedText, SkipMissing, Version, Weights
from .errors import UserError


class _AnswerByDefault(TyperGroup):
    """Takes what is no command for the arguments of ``answer``, so that ``unimed-eval RUN`` is enough."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        own = {name for parameter in self.get_params(ctx) for name in parameter.opts}
        if args and args[0] not in own | set(self.commands):
            args = ["answer", *args]
        return super().parse_args(ctx, args)


eval_app = typer.Typer(
    cls=_AnswerByDefault,
    help="Evaluate a model: unimed-eval RUN --data ROOT answers and scores. Its options: unimed-eval answer --help.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def eval_main() -> None:
    """Entry point of ``unimed-eval``."""
    terminal.run(eval_app, (UserError,))


@eval_app.callback()
def _evaluation(version: Version = False) -> None:
    pass


@eval_app.command()
def answer(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    data: Data,
    out: Annotated[Path | None, typer.Option(help="Output folder; default RUN/evaluation.")] = None,
    split: Annotated[str, typer.Option(help="Split to answer.")] = "test",
    datasets: Annotated[str | None, typer.Option(help="Names, separated by commas; default all.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most this many samples per dataset.")] = None,
    batch_size: Annotated[
        int, typer.Option(min=1, help="Samples answered at once; halved as often as memory is short.")
    ] = 64,
    skip_missing: SkipMissing = False,
    allow_restricted_text: RestrictedText = False,
    weights: Weights = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Answer held-out samples and score the answers (the default: unimed-eval RUN --data ROOT).

    Greedy answers, both flavours of every metric, baselines and 95 % intervals beside them. What was interrupted goes
    on by the same command.
    """
    from .data.progress import reading_quietly
    from .evaluation import evaluate
    from .score_text import results_text

    target = out or run / "evaluation"
    with reading_quietly(quiet):
        results = evaluate(
            run,
            data,
            target,
            split=split,
            names=tuple(name.strip() for name in datasets.split(",")) if datasets else None,
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
    typer.echo(results_text(results))
    print(f"tables and predictions in {target}", file=sys.stderr)


@eval_app.command()
def score(
    file: Annotated[Path, typer.Argument(help="Predictions, ours or anyone's: JSON lines.", metavar="FILE")],
    out: Annotated[Path | None, typer.Option(help="Folder for tables of the scores; none by default.")] = None,
    as_json: AsJson = False,
) -> None:
    """Score a file of predictions, without a model: id, task, prediction and reference on every line."""
    from .predictions import read_predictions
    from .score_text import results_text
    from .scores import score_answers

    results = score_answers(read_predictions(file), out)
    if as_json:
        typer.echo(json.dumps({name: asdict(result) for name, result in results.items()}, indent=2))
        return
    typer.echo(results_text(results))
    if out is not None:
        print(f"tables in {out}", file=sys.stderr)


@eval_app.command()
def compare(
    first: Annotated[
        str, typer.Argument(help="Run folder, evaluation folder or prediction file; several (seeds) with commas.")
    ],
    second: Annotated[str, typer.Argument(help="The same of another model.")],
    as_json: AsJson = False,
) -> None:
    """Compare two models on the same samples: both values, their difference with its interval, and a p-value."""
    from .comparing import compare as compared
    from .comparing import open_side
    from .score_text import comparison_text

    sides = open_side(first), open_side(second)
    results = compared(*sides)
    for name in [*sides[0], *sides[1]]:
        if name not in results:
            print(f"{name} is left out: only one of the two has it", file=sys.stderr)
    if as_json:
        typer.echo(json.dumps({name: asdict(result) for name, result in results.items()}, indent=2))
        return
    typer.echo(comparison_text(results))


if __name__ == "__main__":
    eval_main()
