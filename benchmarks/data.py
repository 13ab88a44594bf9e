"""What reading and mixing data costs: the mixture, one worker from file to batch, opening what was prepared.

    python benchmarks/data.py                    a few minutes on two cores
    python benchmarks/data.py --quick            the script itself, in seconds
    python benchmarks/data.py --only mixture

Written to ``benchmarks/data.md`` (``--out`` names another place).
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from data_cost import index, mixture, pipeline
from data_cost.command import write_table
from data_cost.row import Row

SECTIONS: dict[str, Callable[[bool], list[Row]]] = {
    "mixture": mixture.measure,
    "pipeline": pipeline.measure,
    "index": index.measure,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what the command line asks for."""
    write_table(Path(__file__), "What reading and mixing data costs", SECTIONS, arguments)


if __name__ == "__main__":
    main()
