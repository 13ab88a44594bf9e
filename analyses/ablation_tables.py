"""The ablation tables of the paper, row by row: Tables 2 (a to e) and 5, with their baselines and rows of our own.

The arms themselves, what each changes in a preset, are in ``unimed_model/presets/arms.yaml``.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from analyses.paper_tables import TASKS
from tugofwar.errors import UserError
from unimed_model.closed import nearest

QA = "QA"
COLUMNS = (*TASKS, QA)
"""Tasks in the order of the columns. The paper's tables have no QA; where the data do, it stands at the end and no
Total Delta counts it: text never passes the connector that is ablated."""


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes:
        arm: what is trained.
        labels: the cells that name it, as in the paper.
        baseline: the arm that its Deltas compare it with; None: it is a baseline.
        ours: whether the paper lacks it.
    """

    arm: str
    labels: tuple[str, ...]
    baseline: str | None
    ours: bool = False


@dataclass(frozen=True)
class Table:
    """A table of the paper: its name, what it is about, the headings of its labels, and its rows."""

    name: str
    title: str
    headings: tuple[str, ...]
    rows: tuple[Row, ...]

    @property
    def arms(self) -> list[str]:
        """All arms, in the order of the rows."""
        return [row.arm for row in self.rows]


MLP = "2a-mlp"


def _connector_design() -> Table:
    soft = "Soft"
    return Table(
        "2a",
        "Connector design",
        ("Connector", "Router", "Strategy"),
        (
            Row("2a-linear", ("Linear", "-", "-"), MLP),
            Row(MLP, ("MLP", "-", "-"), None),
            Row("2a-constant", ("CMoE", "Constant", "-"), MLP),
            Row("2a-hard", ("CMoE", "Hard", "-"), MLP),
            Row("2a-sparse", ("CMoE", "Sparse", "Token"), MLP),
            Row("2a-soft-token", ("CMoE", soft, "Token"), MLP),
            Row("2a-soft-task", ("CMoE", soft, "Task"), MLP),
            Row("2a-soft-token-task", ("CMoE", soft, "Token & Task"), MLP),
            Row("fair-mlp", ("MLP as large as CMoE", "-", "-"), MLP, ours=True),
            Row("fair-light-router", ("CMoE", "Soft, 64 wide", "Token & Task"), MLP, ours=True),
        ),
    )


def _resampler_design() -> Table:
    return Table(
        "2b",
        "Resampler design",
        ("Connector", "Resampler"),
        (
            Row(MLP, ("MLP", "as the preset"), None),
            Row("2b-rate-1", ("CMoE", "Compression rate 1"), MLP),
            Row("2b-rate-2", ("CMoE", "Compression rate 2, projection"), MLP),
            Row("2b-max", ("CMoE", "Compression rate 4, max pooling"), MLP),
            Row("2b-average", ("CMoE", "Compression rate 4, average pooling"), MLP),
            Row("2b-rate-4", ("CMoE", "Compression rate 4, projection"), MLP),
        ),
    )


def _number_of_experts() -> Table:
    numbers = (3, 5, 8, 10, 16)
    rows = (Row(f"2c-experts-{number}", ("CMoE", str(number)), MLP) for number in numbers)
    return Table(
        "2c",
        "Number of projection experts",
        ("Connector", "Experts"),
        (Row(MLP, ("MLP", "-"), None), *rows),
    )


def _lora_rank() -> Table:
    rows: list[Row] = []
    for rank in (4, 8, 16, 32, 64):
        baseline = f"2d-rank-{rank}-mlp"
        rows.append(Row(baseline, (str(rank), "MLP"), None))
        rows += [
            Row(f"2d-rank-{rank}-{router}", (str(rank), f"CMoE, {router.capitalize()}"), baseline)
            for router in ("hard", "soft")
        ]
    return Table("2d", "LoRA rank", ("Rank", "Connector & router"), tuple(rows))


def _lora_moe() -> Table:
    baseline = "2e-lora-mlp"
    return Table(
        "2e",
        "LoRA-MoE (rank 4)",
        ("LLM fine-tuning", "Connector & router"),
        (
            Row(baseline, ("LoRA", "MLP"), None),
            Row("2e-lora-moe-mlp", ("LoRA-MoE", "MLP"), baseline),
            Row("2e-lora-moe-hard", ("LoRA-MoE", "CMoE, Hard"), baseline),
            Row("2e-lora-moe-soft", ("LoRA-MoE", "CMoE, Soft"), baseline),
        ),
    )


def _tokens_and_identifiers() -> Table:
    baseline, yes = "5-mlp", "✓"
    return Table(
        "5",
        "Special tokens and identifiers",
        ("Connector", "Text-level", "Vision-level"),
        (
            Row(baseline, ("MLP", "-", "-"), None),
            Row("5-neither", ("CMoE", "-", "-"), baseline),
            Row("5-vision", ("CMoE", "-", yes), baseline),
            Row("5-text", ("CMoE", yes, "-"), baseline),
            Row("5-both", ("CMoE", yes, yes), baseline),
        ),
    )


TABLES: Mapping[str, Table] = {
    table.name: table
    for table in (
        _connector_design(),
        _resampler_design(),
        _number_of_experts(),
        _lora_rank(),
        _lora_moe(),
        _tokens_and_identifiers(),
    )
}


def table_named(name: str) -> Table:
    """Return a table by its name, such as ``2a``.

    Raises:
        UserError: there is none of that name; the nearest is named.
    """
    if name not in TABLES:
        raise UserError(
            f"There is no ablation table {name!r}; the nearest is {nearest(name, TABLES)!r} (all: {', '.join(TABLES)})."
        )
    return TABLES[name]


def rows_named(table: Table, arms: str | None) -> list[Row]:
    """Return the rows of the arms in a comma-separated list, in the table's order; all rows for None.

    Raises:
        UserError: the table has no such arm; the nearest is named.
    """
    if arms is None:
        return list(table.rows)
    wanted = [name.strip() for name in arms.split(",") if name.strip()]
    for name in wanted:
        require_arm(table, name)
    if not wanted:
        raise UserError(f"--only names no arm; Table {table.name} has {', '.join(table.arms)}.")
    return [row for row in table.rows if row.arm in wanted]


def require_arm(table: Table, arm: str) -> None:
    """Raise a UserError, with the nearest name, unless a table has an arm."""
    if arm not in table.arms:
        raise UserError(f"Table {table.name} has no arm {arm!r}; the nearest is {nearest(arm, table.arms)!r}.")
