"""Table 2a on the sample corpus, with the preset ``tiny`` and three seeds: every arm trained, answered and scored.

    python benchmarks/ablation.py --work DIR            about an hour on two cores; goes on where it was stopped
    python benchmarks/ablation.py --work DIR --quick    the script itself, in minutes

Written to ``benchmarks/ablation.md``; the table is made by ``python -m analyses.ablation table DIR/2a``.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

from calling import call

OUT = Path(__file__).with_name("ablation.md")
WINDOW = 100
"""Steps at the beginning and the end of a run whose mean losses are told."""


def main() -> None:
    """Run the ablation and write what came of it."""
    options = _parse()
    data, runs = options.work / "data", options.work / "2a"
    options.work.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    call("unimed_model.cli_data", "sample", data)
    shorter = ["--set", "training.steps=200", "--set", "training.warmup_steps=20"] if options.quick else []
    asked = ["--table", "2a", "--preset", "tiny", "--seeds", options.seeds, "--data", data, "--out", runs]
    call("analyses.ablation", "run", *asked, "--jobs", options.jobs, *shorter)
    hours = (time.monotonic() - began) / 3600
    table = call("analyses.ablation", "table", runs)
    lines = [
        "# Table 2a on the sample corpus",
        "",
        "Made by `python benchmarks/ablation.py`: preset `tiny`, "
        f"{options.seeds} seeds, {options.jobs} runs at a time.",
        f"The command took {hours:.2f} hours. No number here is comparable with the paper's.",
        "",
        table,
        "",
        "| arm | seed | mean loss of the first steps | of the last | minutes of training |",
        "|---|---|---|---|---|",
        *(_row(run) for run in sorted(runs.glob("*/seed-*"))),
    ]
    options.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(options.out.read_text(encoding="utf-8"))


def _row(run: Path) -> str:
    losses = [json.loads(line)["loss"] for line in (run / "training_log.jsonl").read_text().splitlines()]
    first, last = statistics.mean(losses[:WINDOW]), statistics.mean(losses[-WINDOW:])
    seconds = json.loads((run / "run.json").read_text())["seconds"]
    return f"| {run.parent.name} | {run.name.removeprefix('seed-')} | {first:.2f} | {last:.2f} | {seconds / 60:.1f} |"


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder for corpus and runs")
    parser.add_argument("--seeds", type=int, default=3, help="runs of every arm")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    parser.add_argument("--quick", action="store_true", help="200 steps a run: to try the script, not to measure")
    parser.add_argument("--out", type=Path, default=OUT, help="Markdown file to write")
    return parser.parse_args()


if __name__ == "__main__":
    main()
