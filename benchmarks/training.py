"""What training costs beside a bare PyTorch loop: the step, waiting for batches, what the feature cache saves.

    python benchmarks/training.py                    a quarter of an hour on two cores
    python benchmarks/training.py --quick            the script itself, in a minute or two
    python benchmarks/training.py --only steps

Written to ``benchmarks/training.md`` (``--out`` names another place).
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from data_cost.command import write_table
from data_cost.row import Row
from training_cost import caching, loading, steps

SECTIONS: dict[str, Callable[[bool], list[Row]]] = {
    "steps": steps.measure,
    "loading": loading.measure,
    "caching": caching.measure,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what the command line asks for."""
    write_table(Path(__file__), "What training costs", SECTIONS, arguments)


if __name__ == "__main__":
    main()
