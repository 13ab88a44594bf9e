"""Numbers behind the feature pictures: how far tasks stand apart, how much is kept, how steady the pictures are."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from figures import palette
from figures.whiskers import Panels, dot_panels

MEASURES = {"silhouette": "Silhouette", "knn_purity": "kNN purity"}
STEADINESS = {"trustworthiness": "Trustworthiness", "neighbour_overlap": "Neighbours shared by two seeds"}


def separation_measures(
    runs: Mapping[str, pd.DataFrame],
    tasks: Mapping[str, str] | None = None,
    title: str | None = None,
    look: str = "paper",
) -> Figure:
    """Silhouette and kNN purity by task and by dataset, before and after, in the space of the features.

    Args:
        runs: per run name ``stage``, ``label``, ``name``, ``measure``, ``value``, ``low``, ``high``, ``chance``.
        tasks: task of each dataset, which orders them.
        title: text above the panels.
        look: ``paper`` or ``talk``.

    Returns:
        Dots with intervals, a panel per measure and stage, a series per run, ticks where chance alone would be.
    """
    table = pd.concat([one.assign(series=run) for run, one in runs.items()], ignore_index=True)
    table["row"] = table["name"].where(table["name"] != "all", "all " + table["label"] + "s")
    table["panel"] = table["measure"] + " " + table["stage"]
    rows = []
    for label in ("task", "dataset"):
        here = list(dict.fromkeys(table.loc[table["label"] == label, "row"]))
        whole = f"all {label}s"
        rows += [whole] * (whole in here)
        rows += palette.order_by_task([name for name in here if name != whole], tasks or {})
    panels = {
        f"{measure} {stage}": f"{heading}, {stage}"
        for measure, heading in MEASURES.items()
        for stage in dict.fromkeys(table["stage"])
        if ((table["measure"] == measure) & (table["stage"] == stage)).any()
    }
    layout = Panels(
        panels=panels,
        rows=list(dict.fromkeys(rows)),
        label="0: mixed, 1: apart",
        tasks=tasks,
        series=list(runs) if len(runs) > 1 else (),
        columns=4,
    )
    return dot_panels(table, layout, title, look)


def feature_alignment(
    runs: Mapping[str, pd.DataFrame],
    tasks: Mapping[str, str] | None = None,
    title: str | None = None,
    look: str = "paper",
) -> Figure:
    """Linear CKA between features before and after, over all samples and by dataset.

    Args:
        runs: per run name ``name``, ``value``, ``low``, ``high``.
        tasks: task of each dataset, which orders and colours them.
        title: text above.
        look: ``paper`` or ``talk``.

    Returns:
        Dots with intervals on a scale from 0 to 1, a series per run.
    """
    table = pd.concat([one.assign(series=run, row=one["name"], panel="cka") for run, one in runs.items()])
    names = list(dict.fromkeys(table["row"]))
    layout = Panels(
        panels={"cka": "Linear CKA, before and after"},
        rows=["all"] * ("all" in names) + palette.order_by_task([n for n in names if n != "all"], tasks or {}),
        label="0: nothing in common, 1: the same up to rotation and scale",
        tasks=tasks,
        # The estimate is debiased and may fall below 0.
        limits=(min(0.0, float(np.nanmin(table[["value", "low"]])) - 0.02), 1.02),
        series=list(runs) if len(runs) > 1 else (),
    )
    return dot_panels(table.reset_index(drop=True), layout, title, look)


def picture_stability(runs: Mapping[str, pd.DataFrame], title: str | None = None, look: str = "paper") -> Figure:
    """How far the t-SNE pictures keep neighbours, and how far those of different seeds agree.

    Args:
        runs: per run name ``stage``, ``dimensions``, ``measure``, ``value``, ``chance``, a row per seed or pair.
        title: text above the panels.
        look: ``paper`` or ``talk``.

    Returns:
        A dot per seed or pair of seeds, a panel per measure, a tick at chance.
    """
    table = pd.concat([one.assign(series=run) for run, one in runs.items()], ignore_index=True)
    table["row"] = table["stage"] + ", " + table["dimensions"].astype(str) + "-D"
    table["panel"] = table["measure"]
    layout = Panels(
        panels={name: heading for name, heading in STEADINESS.items() if (table["measure"] == name).any()},
        rows=list(dict.fromkeys(table["row"])),
        label="share, 1: all (a dot per seed or pair of seeds)",
        limits=(0.0, 1.02),
        series=list(runs) if len(runs) > 1 else (),
        line=0.2,
    )
    columns = ["panel", "row", "series", "value", "chance"]
    return dot_panels(table[columns], layout, title, look)
