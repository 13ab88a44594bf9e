"""The table of an ablation, as ``python -m analyses.ablation table RUNS --format csv --out FILE`` writes it."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from figures.errors import UserError
from figures.tables.reading import read_table

COMMAND = "python -m analyses.ablation table"
DELTA = "delta"
TOTAL = "Total"


@dataclass(frozen=True, eq=False)
class AblationTables:
    """One table of the paper.

    Attributes:
        name: of the table, such as ``2a``.
        flavour: how answers were scored.
        deltas: arm, baseline, seeds, parameters, group (a task, or ``Total``), value, low, high: mean relative gain
            over the baseline, in percent; without intervals where there are none (NaN).
        waiting: arms without a number.
    """

    name: str
    flavour: str
    deltas: pd.DataFrame
    waiting: tuple[str, ...]


def read_ablation(path: Path) -> AblationTables:
    """Read a table in CSV.

    Raises:
        UserError: a file that is no such table, or one without any Delta.
    """
    columns = ("table", "arm", "baseline", "seeds", "parameters", "task", "metric", "flavour", "value", "low", "high")
    table = read_table(path, COMMAND, columns, complete=False)
    chosen = table[table["metric"] == DELTA].rename(columns={"task": "group"})
    numbers = {name: pd.to_numeric(chosen[name], errors="coerce") for name in ("value", "low", "high")}
    deltas = chosen.assign(**numbers).dropna(subset=["value"])
    if deltas.empty:
        raise UserError(f"{path} holds no Δ; draw it when at least one arm and its baseline have finished runs.")
    kept = ["arm", "baseline", "seeds", "parameters", "group", "value", "low", "high"]
    return AblationTables(
        name=str(table["table"].iloc[0]),
        flavour=str(deltas["flavour"].iloc[0]),
        deltas=deltas[kept].reset_index(drop=True),
        waiting=tuple(arm for arm in dict.fromkeys(table["arm"]) if arm not in set(deltas["arm"])),
    )
