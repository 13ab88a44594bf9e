"""What the pictures and measures of `tugofwar features` cost at 10,000 samples of width 4,096.

    OMP_NUM_THREADS=2 python benchmarks/features.py     about ten minutes on two cores
    python benchmarks/features.py --quick               the script itself, on few samples; measures nothing

Every part runs in a process of its own, whose peak resident size is that of the part, imports and features (164 MB)
included. Times are seconds on this machine and, for any other, multiples of the principal components' time. Written to
``benchmarks/features.md``.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

OUT = Path(__file__).parent / "features.md"
SAMPLES, WIDTH, DATASETS, NEIGHBOURS = 10_000, 4096, 12, 10
_GIGABYTE = 10**9


@dataclass(frozen=True)
class Part:
    """What is timed, and the goals that the project set itself."""

    name: str
    run: Callable[[NDArray[np.float32], list[str]], None]
    seconds: float | None = None
    gigabytes: float = 4


def made_features(samples: int, width: int) -> tuple[NDArray[np.float32], list[str]]:
    """Features of a few overlapping datasets with a falling spectrum, and the dataset of each sample."""
    rng = np.random.default_rng(0)
    codes = np.sort(rng.integers(0, DATASETS, samples))
    spectrum = np.exp(-np.arange(width) / 100).astype(np.float32)
    centres = rng.standard_normal((DATASETS, width), dtype=np.float32)
    points = rng.standard_normal((samples, width), dtype=np.float32)
    points += centres[codes]
    points *= spectrum
    return points, [f"dataset_{code}" for code in codes]


def components(points: NDArray[np.float32], datasets: list[str]) -> None:
    """Fifty principal components."""
    from tugofwar.features.embedding import principal_components

    principal_components(points)


def two_dimensions(points: NDArray[np.float32], datasets: list[str]) -> None:
    """t-SNE in 2-D, principal components included."""
    _picture(points, datasets, 2)


def three_dimensions(points: NDArray[np.float32], datasets: list[str]) -> None:
    """t-SNE in 3-D of the 2,000 samples that are drawn, principal components of all included."""
    _picture(points, datasets, 3)


def apart(points: NDArray[np.float32], datasets: list[str]) -> None:
    """Silhouette and purity by task and by dataset, with intervals and chance levels."""
    from tugofwar.features.separation import separation

    tasks = [f"task {int(name.split('_')[1]) % 5}" for name in datasets]
    separation(points, {"task": tasks, "dataset": datasets}, datasets, NEIGHBOURS)


def aligned(points: NDArray[np.float32], datasets: list[str]) -> None:
    """Linear CKA with its interval, of features and their positive parts."""
    from tugofwar.features.cka import linear_cka

    linear_cka(points, np.maximum(points, 0), datasets)


def faithful(points: NDArray[np.float32], datasets: list[str]) -> None:
    """Trustworthiness of three pictures."""
    from tugofwar.features.faithfulness import picture_neighbours, trustworthiness

    rng = np.random.default_rng(1)
    pictures = [picture_neighbours(rng.normal(size=(len(points), 2)), NEIGHBOURS) for _ in range(3)]
    trustworthiness(points, pictures)


def _picture(points: NDArray[np.float32], datasets: list[str], dimensions: int) -> None:
    from tugofwar.features.embedding import LIMITS, embed, principal_components, stratified

    scores = principal_components(points).scores
    embed(scores[stratified(datasets, LIMITS[dimensions])], dimensions, 0)


PARTS = {
    "pca": Part("50 principal components", components),
    "2d": Part("t-SNE in 2-D of 10,000", two_dimensions, seconds=180),
    "3d": Part("t-SNE in 3-D of 2,000", three_dimensions, seconds=180),
    "separation": Part("silhouette, kNN purity", apart),
    "cka": Part("linear CKA", aligned),
    "trustworthiness": Part("trustworthiness of 3 pictures", faithful),
}


def main() -> None:
    """Measure every part and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few samples: to try the script, not to measure")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    samples, width = (400, 64) if options.quick else (SAMPLES, WIDTH)
    if options.part:
        print(json.dumps(_measured(PARTS[options.part], samples, width)))
        return
    rows: list[dict[str, Any]] = []
    for name in PARTS:
        rows.append(_in_a_process(name, options.quick))
        text = "\n".join(_lines(rows, samples, width))
        if not options.quick:
            OUT.write_text(text + "\n", encoding="utf-8")
    print(text)


def _measured(part: Part, samples: int, width: int) -> dict[str, Any]:
    points, datasets = made_features(samples, width)
    start, work = time.perf_counter(), time.process_time()
    part.run(points, datasets)
    seconds, work = time.perf_counter() - start, time.process_time() - work
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"seconds": seconds, "processor_seconds": work, "gigabytes": peak / _GIGABYTE}


def _in_a_process(name: str, quick: bool) -> dict[str, Any]:
    command = [sys.executable, __file__, "--part", name, *(["--quick"] if quick else [])]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return {"part": name, **json.loads(done.stdout)}


def _lines(rows: list[dict[str, Any]], samples: int, width: int) -> list[str]:
    unit = rows[0]["seconds"]
    load = os.getloadavg()[0]
    threads = os.environ.get("OMP_NUM_THREADS", "all")
    return [
        "# What pictures and measures of features cost",
        "",
        f"Made by `python benchmarks/features.py` on {os.cpu_count()} cores with {threads} threads: {samples:,}",
        f"samples of width {width:,} in {DATASETS} datasets. Every part runs in a process of its own; its peak memory",
        "includes imports and the features. The cores were shared with other programs (load at the end",
        f"{load:.0f}), so that the seconds on the clock are more than an idle machine's; processor seconds are summed",
        "over threads. The goals are about three minutes for a picture and 4 GB.",
        "",
        "| what | seconds | times PCA | processor seconds | peak GB | goal | met |",
        "|---|---|---|---|---|---|---|",
        *(_line(row, unit) for row in rows),
    ]


def _line(row: dict[str, Any], unit: float) -> str:
    part = PARTS[row["part"]]
    met = row["gigabytes"] <= part.gigabytes and (part.seconds is None or row["seconds"] <= part.seconds)
    goal = f"{part.seconds:.0f} s, {part.gigabytes:.0f} GB" if part.seconds else f"{part.gigabytes:.0f} GB"
    return (
        f"| {part.name} | {row['seconds']:.0f} | {row['seconds'] / unit:.1f} | {row['processor_seconds']:.0f} | "
        f"{row['gigabytes']:.1f} | {goal} | "
        f"{'yes' if met else 'no'} |"
    )


if __name__ == "__main__":
    main()
