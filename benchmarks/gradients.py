"""What exact inner products of gradients cost: ``tugofwar`` beside the naive loop and other libraries.

    python benchmarks/gradients.py --quick                   several minutes on two cores
    python benchmarks/gradients.py                           everything, a few hours on two cores
    python benchmarks/gradients.py --scale tiny --quick      the script itself, in seconds
    python benchmarks/gradients.py --only peers --batches 16

Other libraries are measured where they are installed (``benchmarks/README.md``). The tables are written to
``benchmarks/results.md`` and ``.json`` after every measurement, and printed at the end.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from gradient_cost.job import Job, Outcome, run
from gradient_cost.plan import FULL, HOLDING, QUICK, Step, datasets_of, forecast_seconds, growth_steps, table_steps
from gradient_cost.report import Report, to_json, to_markdown
from gradient_cost.scale import SCALES, Scale
from tqdm import tqdm

from tugofwar.sizes import available_memory, format_bytes

SECTIONS = ("ours", "peers", "growth")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what the command line asks for."""
    options = _parse(arguments)
    scale = SCALES[options.scale]
    changes = {"batches": options.batches, "repeats": options.repeats and (options.repeats,) * 3}
    extent = replace(QUICK if options.quick else FULL, **{key: value for key, value in changes.items() if value})
    steps = table_steps(scale, extent, options.only)
    if "growth" in options.only:
        steps += growth_steps(scale, extent)
    if not steps:
        sys.exit("Nothing to measure: other libraries are measured with up to 200 batches; see --batches and --only.")
    _say_forecast(steps, scale)
    report = Report(scale)
    for step in tqdm(steps, desc="measurements", unit="job"):
        outcome, gram = _too_large(step.job) or run(step.job)
        report.add(step.section, step.label, step.job, outcome, gram)
        _write(report, options.out)
        if outcome.failure is not None:
            tqdm.write(f"{step.job.method}, {len(step.job.numbers)} batches: {outcome.failure}", file=sys.stderr)
    print(to_markdown(report))


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Time and memory of exact inner products of gradients.")
    parser.add_argument("--quick", action="store_true", help="fewer batches, no repeats, a shorter growth section")
    parser.add_argument("--batches", type=_numbers, help="numbers of batches of the table, such as 16,200,1000")
    parser.add_argument("--repeats", type=int, help="of every measurement of the table")
    parser.add_argument("--only", type=_sections, default=SECTIONS, help=f"some of {','.join(SECTIONS)}")
    parser.add_argument("--scale", choices=SCALES, default="paper", help="tiny: to try the script, not to measure")
    parser.add_argument(
        "--out",
        type=_output,
        default=Path(__file__).with_name("results.md"),
        help="Markdown file to write; a .json of the same name is written beside it",
    )
    return parser.parse_args(arguments)


def _numbers(text: str) -> tuple[int, ...]:
    numbers = tuple(int(each) for each in text.split(","))
    for number in numbers:
        if number < 4 or number % datasets_of(number):
            raise argparse.ArgumentTypeError(
                f"{number} batches are too few or no multiple of their {datasets_of(number)} datasets"
            )
    return tuple(dict.fromkeys(numbers))


def _sections(text: str) -> tuple[str, ...]:
    sections = tuple(text.split(","))
    for section in sections:
        if section not in SECTIONS:
            raise argparse.ArgumentTypeError(f"{section!r} is none of {', '.join(SECTIONS)}")
    return sections


def _output(text: str) -> Path:
    path = Path(text)
    if path.suffix != ".md" or not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} is no .md file in an existing folder")
    return path


def _say_forecast(steps: Sequence[Step], scale: Scale) -> None:
    """Time a few plain passes and say how long all steps may take."""
    seconds = {}
    for each in {scale, scale.shallow()} if any(step.section == "growth" for step in steps) else {scale}:
        outcome, _ = run(Job("naive loop", each, range(4), 2))
        if outcome.failure is not None:
            sys.exit(f"Plain passes already fail: {outcome.failure}.")
        seconds[each] = outcome.plain_seconds
    deep = seconds[scale]
    minutes = forecast_seconds(steps, scale, deep, seconds.get(scale.shallow(), deep)) / 60
    print(f"{len(steps)} measurements, about {minutes:.0f} minutes.", file=sys.stderr)


def _too_large(job: Job) -> tuple[Outcome, None] | None:
    """An outcome that says so, for a job that keeps more gradients than there is memory."""
    free = available_memory()
    needed = len(job.numbers) * job.scale.gradient_bytes
    if job.method not in HOLDING or free is None or needed < free:
        return None
    return Outcome(failure=f"does not fit: {format_bytes(needed)} of gradients, {format_bytes(free)} free"), None


def _write(report: Report, path: Path) -> None:
    for target, text in ((path, to_markdown(report)), (path.with_suffix(".json"), to_json(report))):
        temporary = target.with_name(f"{target.name}.part")
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(target)


if __name__ == "__main__":
    main()
