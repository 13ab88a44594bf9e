"""Run folders with every table that pictures are drawn from: random numbers in the forms of docs/formats.md."""

import json
from itertools import pairwise

import numpy as np
import pandas as pd
from PIL import Image

from analyses.interference import write_tables
from tugofwar.recording import Block, Recording, upper_triangle

TASKS = {"slake": "VQA", "path": "VQA", "mimic": "RG", "slake_rec": "REC", "slake_reg": "REG", "derma": "CLS"}
EXPERTS = 5
STAGES = ("before", "after")


def write(folder, name, rows):
    folder.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_csv(folder / name, index=False, lineterminator="\n")


def manifest(folder, **content):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.json").write_text(json.dumps(content, indent=2))


def gradients(run, tasks=TASKS, seed=0, batches=8, batch_size=4, untouched=("pubmedqa",), known_tasks=True):
    """A real recording of random gradients, and the real tables of it."""
    rng = np.random.default_rng(seed)
    names = list(tasks)
    directions = rng.normal(size=(len(names), 24)) * 0.7 + 0.5
    rows = [direction + rng.normal(size=24) for direction in directions for _ in range(batches)]
    blocks = [f"connector.experts.{number}.layers.0" for number in range(3)] + ["connector.router"]
    parts = np.split(np.array(rows), len(blocks), axis=1)
    recording = Recording(
        tuple(Block(name, {f"{name}.weight": 6}) for name in blocks),
        {name: upper_triangle(part @ part.T) for name, part in zip(blocks, parts, strict=True)},
        [name for name in names for _ in range(batches)],
        np.ones(len(rows)),
        untouched=untouched,
        tasks={**tasks, **dict.fromkeys(untouched, "QA")} if known_tasks else {},
        metadata={"batch_size": batch_size, "parameters": "connector.*", "batches": batches},
    )
    recording.save(run / "gradients")
    write_tables(recording, run / "gradients", resamples=60)
    tables_by_block(run / "gradients", blocks, by_level(tasks, known_tasks), rng)
    return run


def tables_by_block(folder, blocks, levels, rng):
    """Statistics scores, and the tables by block where there are none yet."""
    edges = [(tenth / 10, (tenth + 1) / 10) for tenth in range(10)]

    def histogram():
        return [
            {"interval_low": low, "interval_high": high, "count": 60, "share": share}
            | {"low": share * 0.9, "high": share * 1.1, "null_signs": 0.16 - low * 0.12, "null_no_conflict": 0.1}
            for (low, high), share in zip(edges, rng.dirichlet(np.ones(10) * 30), strict=True)
        ]

    groups = [{"block": name, "kind": "expert", "members": 1, "parameters": 6} for name in blocks]
    if not (folder / "blocks.csv").is_file():
        write(folder, "blocks.csv", groups)
    for level, names in levels.items():
        if level == "all":
            continue
        write(folder, f"scores_{level}.csv", histogram())
        rows = [{"block": b, **line, "undefined": 0, "parameters": 6} for b in blocks for line in histogram()]
        write(folder, f"scores_{level}_blocks.csv", rows)
        rows = [{"block": b, "parameters": 6, "sampled": 6, "undefined": 0} for b in blocks]
        write(folder, f"scores_{level}_parameters.csv", rows)
        if (folder / f"index_{level}_blocks.csv").is_file():
            continue
        rows = [
            {"block": b, "name": name, "batches": 8, "index": index}
            | {**around(rng, index, 0.4), "sign_uncertain": bool(rng.random() < 0.1)}
            for b in blocks
            for name in names
            for index in [rng.normal(1.3, 0.6)]
        ]
        write(folder, f"index_{level}_blocks.csv", rows)
        for stem in ("gd", "gm"):
            rows = [
                {"block": b, "row": row, "column": column, "value": value}
                | ({"low": 1.0, "high": 1.0} if row == column else around(rng, value))
                for b in blocks
                for row in names
                for column in names
                for value in [1.0 if row == column else rng.uniform(0.1, 0.9)]
            ]
            write(folder, f"{stem}_{level}_blocks.csv", rows)


def by_level(tasks, known_tasks=True):
    levels = {"all": ["all"], "dataset": list(tasks)}
    return levels | ({"task": sorted(set(tasks.values()))} if known_tasks else {})


def around(rng, value, width=0.05):
    return {"low": value - width * rng.uniform(0.5, 1), "high": value + width * rng.uniform(0.5, 1)}


def routing(run, tasks=TASKS, seed=0, checkpoints=("checkpoint-200", "final"), strips=4, known_tasks=True):
    rng, folder, router = np.random.default_rng(seed), run / "routing", "connector.router"
    levels = by_level(tasks, known_tasks)
    tables = {name: [] for name in ("weights", "load", "measures", "information", "divergence", "switched_off")}
    tables["tokens"] = []
    for checkpoint in checkpoints:
        where = {"checkpoint": checkpoint, "router": router}
        for level, names in levels.items():
            for name in names:
                here = {**where, "level": level, "name": name}
                weights = rng.dirichlet(np.ones(EXPERTS) * 4)
                load = rng.dirichlet(np.ones(EXPERTS))
                for expert in range(EXPERTS):
                    one = {**here, "expert": expert}
                    spread = around(rng, weights[expert], 0.02)
                    tables["weights"].append(
                        {**one, "weight": weights[expert], **spread, "samples": 40, "tokens": 40 * strips**2}
                    )
                    spread = around(rng, load[expert], 0.02)
                    tables["load"].append({**one, "load": load[expert], **spread, "dead": expert == 4})
                    change = rng.normal(0.1, 0.1)
                    tables["switched_off"].append(
                        {
                            **where,
                            "expert": expert,
                            "level": level,
                            "name": name,
                            "loss": 0.4,
                            "change": change,
                            **around(rng, change),
                            "batches": 10,
                        }
                    )
                for measure in ("utilisation_entropy", "token_entropy"):
                    value = rng.uniform(0.6, 0.95)
                    tables["measures"].append({**here, "measure": measure, "value": value, **around(rng, value)})
            if level == "all":
                continue
            value = rng.uniform(0.05, 0.4)
            tables["information"].append(
                {**where, "level": level, "value": value, **around(rng, value), "null_high": 0.02, "p_value": 0.001}
            )
            for row in names:
                for column in names:
                    value = 0.0 if row == column else rng.uniform(0, 0.3)
                    tables["divergence"].append(
                        {**where, "level": level, "row": row, "column": column, "value": value}
                        | ({"low": 0.0, "high": 0.0} if row == column else around(rng, value, 0.02))
                    )
        for dataset, task in list(tasks.items())[:3]:
            image = f"{dataset}-0.png"
            (folder / "images").mkdir(parents=True, exist_ok=True)
            shades = np.random.default_rng(len(dataset)).integers(0, 255, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(shades).save(folder / "images" / image)
            for token in range(strips * strips * 2):
                row, column = divmod(token, strips)
                edges = {
                    "left": column / strips,
                    "top": row / (2 * strips),
                    "right": (column + 1) / strips,
                    "bottom": (row + 1) / (2 * strips),
                }
                for expert, weight in enumerate(rng.dirichlet(np.ones(EXPERTS))):
                    line = {**where, "dataset": dataset, **({"task": task} if known_tasks else {}), "image": image}
                    tables["tokens"].append({**line, "token": token, **edges, "expert": expert, "weight": weight})
    for name, rows in tables.items():
        write(folder, f"{name}.csv", rows)
    manifest(
        folder,
        format=1,
        checkpoints=[
            {
                "name": name,
                "label": "after warm-up" if number == 0 and len(checkpoints) > 1 else "final",
                "step": number,
            }
            for number, name in enumerate(checkpoints)
        ],
        routers=[{"name": router, "experts": EXPERTS, "gives": "weights"}],
        datasets=list(tasks),
        tasks=dict(tasks) if known_tasks else {},
        samples=dict.fromkeys(tasks, 40),
        untouched=["pubmedqa"],
        batch_size=4,
        batches=10,
        seed=0,
        interval_level=0.95,
        resamples=1000,
    )
    return run


def features(run, tasks=TASKS, seed=0, each=12, known_tasks=True):
    rng, folder = np.random.default_rng(seed), run / "features"
    names = [name for name in tasks for _ in range(each)]
    centres = {name: rng.normal(size=3) * 4 for name in tasks}
    write(folder, "samples.csv", [{"sample": n, "dataset": name} for n, name in enumerate(names)])
    for number, axes in ((2, "xy"), (3, "xyz")):
        rows = []
        for stage in STAGES:
            for sample, name in enumerate(names):
                place = centres[name][:number] * (0.4 if stage == "before" else 1) + rng.normal(size=number)
                line = {"stage": stage, "seed": 0, "sample": sample, "dataset": name}
                line |= {"task": tasks[name]} if known_tasks else {}
                rows.append(line | dict(zip(axes, place, strict=True)))
        write(folder, f"embedding_{number}d.csv", rows)
    labels = {"dataset": list(tasks)} | ({"task": sorted(set(tasks.values()))} if known_tasks else {})
    separation = [
        {"stage": stage, "label": label, "name": name, "measure": measure, "value": value}
        | around(rng, value)
        | {"chance": 0.0 if measure == "silhouette" else 1 / len(members)}
        for stage in STAGES
        for label, members in labels.items()
        for name in ["all", *members]
        for measure in ("silhouette", "knn_purity")
        for value in [rng.uniform(0.2, 0.8)]
    ]
    write(folder, "separation.csv", separation)
    alignment = [
        {"name": name, "value": value, **around(rng, value), "samples": each}
        for name in ["all", *tasks]
        for value in [rng.uniform(0.4, 0.9)]
    ]
    write(folder, "alignment.csv", alignment)
    stability = [
        {"stage": stage, "dimensions": number, "measure": "neighbour_overlap", "seed": one, "other_seed": other}
        | {"value": rng.uniform(0.5, 0.9), "chance": 0.1}
        for stage in STAGES
        for number in (2, 3)
        for one, other in [(0, 1), (0, 2), (1, 2)]
    ]
    stability += [
        {"stage": stage, "dimensions": number, "measure": "trustworthiness", "seed": one, "other_seed": one}
        | {"value": rng.uniform(0.9, 1), "chance": 0.5}
        for stage in STAGES
        for number in (2, 3)
        for one in (0, 1, 2)
    ]
    write(folder, "stability.csv", stability)
    manifest(
        folder,
        format=1,
        modules=["connector"],
        stages={"before": 64, "after": 128},
        pooling="mean over tokens",
        interval="jackknife over samples within datasets",
        datasets=list(tasks),
        tasks=dict(tasks) if known_tasks else {},
        samples=dict.fromkeys(tasks, each),
        untouched=["pubmedqa"],
        pca={stage: {"components": 50, "variance": 0.97} for stage in STAGES},
        perplexity=20.0,
        seeds=[0, 1, 2],
        neighbours=10,
        points={"2": [len(names), len(names)], "3": [len(names), len(names)]},
        interval_level=0.95,
        resamples=1000,
    )
    return run


def dynamics(run, tasks=TASKS, seed=0, steps=(0, 100, 200, 300), known_tasks=True):
    rng, folder = np.random.default_rng(seed), run / "dynamics"
    levels = {level: names for level, names in by_level(tasks, known_tasks).items() if level != "all"}
    for level, names in levels.items():
        index, gd, gm = [], [], []
        for step in steps:
            for name in names:
                value = rng.uniform(0.5, 4)
                spread = {f"index_{end}": at for end, at in around(rng, value, 0.4).items()}
                index.append(
                    {"step": step, "name": name, "batches": 10, "index": value, **spread, "sign_uncertain": False}
                )
                for other in names:
                    for table, number in ((gd, rng.normal(0.3, 0.4)), (gm, rng.uniform(0.5, 0.95))):
                        value = 1.0 if name == other else number
                        spread = {"low": 1.0, "high": 1.0} if name == other else around(rng, value)
                        table.append({"step": step, "row": name, "column": other, "value": value, **spread})
        for stem, table in (("index", index), ("gd", gd), ("gm", gm)):
            write(folder, f"{stem}_{level}.csv", table)
    losses = [
        {"step": step, "dataset": name, "loss": 4 * np.exp(-step / 100)}
        for step in steps
        for name in [*tasks, "pubmedqa"]
    ]
    write(folder, "loss.csv", losses)
    weights = [
        {"step": last, "stage": "warmup" if last <= 100 else "main", "task": task, "expert": expert, "weight": weight}
        | {"images": 40}
        for _, last in pairwise(steps)
        for task in sorted(set(tasks.values()))
        for expert, weight in enumerate(rng.dirichlet(np.ones(EXPERTS) * 4))
    ]
    if known_tasks:
        write(folder, "routing.csv", weights)
    manifest(
        folder,
        format=1,
        source="callback",
        steps=list(steps),
        estimator="ratio_of_means",
        tasks=dict(tasks) if known_tasks else {},
        untouched=["pubmedqa"],
        batches=10,
        batch_size=4,
        interval_level=0.95,
        resamples=1000,
    )
    return run


def difference(run, other, tasks=TASKS, seed=0, known_tasks=True):
    """What ``tugofwar compare OTHER RUN`` would leave; a few cells differ surely."""
    rng, folder = np.random.default_rng(seed), run / "difference" / other.name

    def cell(a, change, fixed=False):
        low, high = (change, change) if fixed else (change - 0.1, change + 0.1)
        sure = not fixed and abs(change) > 0.2
        return {
            "a": a,
            "b": a + change,
            "difference": change,
            "low": low,
            "high": high,
            "simultaneous_low": low if fixed else low - 0.1,
            "simultaneous_high": high if fixed else high + 0.1,
            "p_value": 0.01 if sure else 1.0,
            "verdict": ("higher" if change > 0 else "lower") if sure else "not sure",
        }

    levels = {level: names for level, names in by_level(tasks, known_tasks).items() if level != "all"}
    for level, names in levels.items():
        for stem in ("gd", "gm"):
            rows = [
                {"row": row, "column": column}
                | (cell(1.0, 0.0, True) if row == column else cell(rng.uniform(0.2, 0.6), rng.normal(0, 0.15)))
                for row in names
                for column in names
            ]
            write(folder, f"{stem}_{level}.csv", rows)
        rows = [
            {"measure": measure, "name": name} | cell(rng.uniform(0.5, 2), rng.normal(0, 0.2))
            for measure in ("index", "index_normalised")
            for name in names
        ]
        write(folder, f"index_{level}.csv", rows)
        rows = [
            {"interval_low": tenth / 10, "interval_high": (tenth + 1) / 10, "a": 0.1, "b": 0.1 + change}
            | {"difference": change, "low": change - 0.01, "high": change + 0.01}
            for tenth, change in enumerate(rng.normal(0, 0.02, 10))
        ]
        write(folder, f"scores_{level}.csv", rows)
    manifest(
        folder,
        format=1,
        a={"name": other.name, "sha256": "0" * 64},
        b={"name": run.name, "sha256": "1" * 64},
        paired=True,
        estimator="ratio_of_means",
        batches=8,
        batch_size=4,
        interval_level=0.95,
        resamples=1000,
        seed=0,
    )
    return run


def ablation(path):
    """A table as ``python -m analyses.ablation table … --format csv`` writes it."""
    rows = [
        {"table": "2a", "arm": arm, "baseline": "2a-mlp", "seeds": 3, "seeds_asked": 3, "parameters": 1_000_000}
        | {"task": group, "dataset": "", "metric": "delta", "flavour": "paper"}
        | {"value": gain, "low": gain - 4, "high": gain + 4, "deviation": 1.0, "reason": ""}
        for arm, gain in (("2a-linear", -3.0), ("2a-hard", 2.0), ("2a-soft-token-task", 8.0))
        for group in ("VQA", "REC", "Total")
    ]
    rows.append(
        {"table": "2a", "arm": "2a-sparse", "baseline": "2a-mlp", "seeds": 0, "seeds_asked": 3, "parameters": ""}
        | dict.fromkeys(("task", "dataset", "metric", "value", "low", "high", "deviation"), "")
        | {"flavour": "paper", "reason": "not run"}
    )
    pd.DataFrame(rows).to_csv(path, index=False, lineterminator="\n")
    return path


def complete(run, other=None, **options):
    """Everything that there can be of a run, and its difference from another."""
    seeds = {"seed": options.pop("seed", 0)}
    for make in (gradients, routing, features, dynamics):
        make(run, **options, **seeds)
    if other is not None:
        difference(run, other, **options, **seeds)
    (run / "run.json").write_text(
        json.dumps({"exit_reason": "finished", "config": {"connector": {"kind": run.name}}, "versions": {"torch": "2"}})
    )
    return run
