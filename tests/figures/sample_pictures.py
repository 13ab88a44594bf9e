"""One picture of every function of ``figures``, from fixed tables; ``python -m tests.figures.sample_pictures FOLDER``
draws the image baselines anew: ``python -m tests.figures.sample_pictures tests/figures/baselines``.
"""

import sys
import tempfile
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd

import figures
from figures import style
from figures.tables.ablation import read_ablation
from figures.tables.difference import read_difference
from figures.tables.dynamics import read_dynamics
from figures.tables.features import read_features
from figures.tables.routing import read_routing

from . import made_runs

TASKS = {"slake": "VQA", "mimic": "RG", "derma": "CLS"}
NAMES = list(TASKS)
ROUTER = "connector.router"
CHECKPOINTS = {"checkpoint-200": "after warm-up", "final": "final"}
DPI = 50


def cells(seed=0, names=NAMES, **keys):
    """GD with single and simultaneous intervals, as ``gd_dataset_intervals.csv``."""
    rng = np.random.default_rng(seed)
    rows = []
    for row in names:
        for column in names:
            value = 1.0 if row == column else rng.normal(0.3, 0.4)
            half = 0.0 if row == column else rng.uniform(0.05, 0.3)
            rows.append(
                {**keys, "row": row, "column": column, "value": value, "low": value - half, "high": value + half}
                | {"simultaneous_low": value - 2 * half, "simultaneous_high": value + 2 * half}
                | {"p_value": 0.01 if abs(value) > 2 * half else 1.0}
            )
    return pd.DataFrame(rows)


def square(seed=0, names=NAMES):
    return cells(seed, names).pivot(index="row", columns="column", values="value").loc[names, names]


def indexes(seed=0):
    value = np.random.default_rng(seed).uniform(0.2, 1, len(NAMES))
    columns = {"index_normalised": value, "index_normalised_low": value - 0.1, "index_normalised_high": value + 0.1}
    return pd.DataFrame(columns, index=NAMES)


def block_indexes(seed=0, blocks=("experts.0", "experts.1", "router")):
    rng = np.random.default_rng(seed)
    rows = [
        {"block": block, "name": name, "index": value, "low": value - 0.3, "high": value + 0.3}
        | {"sign_uncertain": name == "mimic" and block == "router"}
        for block in blocks
        for name in NAMES
        for value in [rng.normal(1.2, 0.5)]
    ]
    return pd.DataFrame(rows)


def histogram(seed=0):
    share = np.random.default_rng(seed).dirichlet(np.ones(10) * 20)
    low = np.arange(10) / 10
    return pd.DataFrame(
        {"interval_low": low, "interval_high": low + 0.1, "share": share, "low": share * 0.9, "high": share * 1.1}
        | {"null_signs": 0.16 - low * 0.12, "null_no_conflict": 0.1}
    )


def made(folder):
    """Made-up tables of everything but gradients, read back."""
    other, run = folder / "mlp", folder / "cmoe"
    for make in (made_runs.routing, made_runs.features, made_runs.dynamics):
        make(run, tasks=TASKS, seed=3)
    made_runs.difference(run, other, tasks=TASKS, seed=3)
    return {
        "routing": read_routing(run / "routing"),
        "features": read_features(run / "features"),
        "dynamics": read_dynamics(run / "dynamics"),
        "difference": read_difference(run / "difference" / "mlp", "mlp", "cmoe"),
        "ablation": read_ablation(made_runs.ablation(folder / "2a.csv")),
    }


def every_picture(tables, look="paper"):
    """Name of each public function to the figure that it draws."""
    routing, features, dynamics = tables["routing"], tables["features"], tables["dynamics"]
    difference, ablation = tables["difference"], tables["ablation"]
    blocks = pd.concat([cells(n, block=name) for n, name in enumerate(("experts.0", "experts.1", "router"))])
    scores = pd.concat([histogram(n).assign(block=name) for n, name in enumerate(("experts.0", "router"))])
    off = routing.switched_off[routing.switched_off["checkpoint"] == "final"]
    tokens = routing.tokens[routing.tokens["checkpoint"] == "final"]
    calls = {
        "interference_heatmap": (square(0), square(1).abs().clip(upper=1), TASKS, "title", ["mimic"]),
        "interval_forest": (cells(), "GD", TASKS),
        "index_comparison": ({"mlp": indexes(0), "cmoe": indexes(1)}, None, TASKS),
        "block_maps": (block_indexes(), blocks, TASKS),
        "block_intervals": (block_indexes(), TASKS),
        "score_distribution": ({"mlp": histogram(0), "cmoe": histogram(1)},),
        "score_blocks": (scores,),
        "routing_maps": (routing.weights, CHECKPOINTS, TASKS),
        "routing_measures": (routing.measures, CHECKPOINTS, TASKS),
        "routing_information": (routing.information, CHECKPOINTS),
        "expert_load": (routing.load, CHECKPOINTS, TASKS),
        "routing_divergence": (routing.divergence, CHECKPOINTS, TASKS),
        "switched_off_experts": (off, TASKS),
        "token_weights": (tokens, routing.images, TASKS),
        "feature_map": ({"cmoe": features.embeddings[2]}, TASKS),
        "separation_measures": ({"cmoe": features.separation}, TASKS),
        "feature_alignment": ({"cmoe": features.alignment}, TASKS),
        "picture_stability": ({"cmoe": features.stability},),
        "index_over_steps": (dynamics.index["dataset"], TASKS),
        "gd_over_steps": (dynamics.gd["dataset"], TASKS),
        "routing_over_steps": (dynamics.routing,),
        "difference_maps": (difference.gd["dataset"], difference.gm["dataset"], TASKS),
        "difference_indexes": (difference.index["dataset"], TASKS),
        "difference_scores": (difference.scores["dataset"], "mlp", "cmoe"),
        "delta_forest": (ablation.deltas, ablation.waiting),
    }
    return {name: getattr(figures, name)(*arguments, look=look) for name, arguments in calls.items()}


def main(folder):
    """Write every baseline, and which matplotlib drew them."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        for name, figure in every_picture(made(Path(scratch))).items():
            style.settle(figure)
            figure.savefig(folder / f"{name}.png", dpi=DPI, metadata={"Software": None})
    (folder / "matplotlib_version.txt").write_text(".".join(mpl.__version__.split(".")[:2]) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
