"""How good each arm of an ablation is: mean relative gain over the baseline."""

import pandas as pd
from matplotlib.figure import Figure

from figures import palette
from figures.whiskers import Panels, dot_panels

TOTAL = "Total"


def delta_forest(
    deltas: pd.DataFrame,
    waiting: tuple[str, ...] = (),
    title: str | None = None,
    look: str = "paper",
) -> Figure:
    """Delta of every arm with its interval, a panel per task and one for all of them.

    Args:
        deltas: ``arm``, ``baseline``, ``group`` (a task or ``Total``), ``value``, ``low``, ``high`` in percent, the
            ends NaN where there is no interval.
        waiting: arms without a number, named below the others.
        title: text above the panels.
        look: ``paper`` or ``talk``.

    Returns:
        Dots with intervals about a line at 0, the baseline; all on one scale.
    """
    groups = list(dict.fromkeys(deltas["group"]))
    tasks = palette.order_by_task([group for group in groups if group != TOTAL], {})
    arms = list(dict.fromkeys(deltas["arm"]))
    baselines = " or ".join(dict.fromkeys(deltas["baseline"]))
    table = deltas.rename(columns={"arm": "row", "group": "panel"})
    layout = Panels(
        panels={group: "All tasks" if group == TOTAL else group for group in [TOTAL] * (TOTAL in groups) + tasks},
        rows=[*arms, *(f"{arm} (waiting)" for arm in waiting)],
        label=f"Δ over {baselines}, percent (line: 0, as good)",
        reference=0.0,
        columns=7,
        line=0.18,
    )
    return dot_panels(table, layout, title, look)
