"""Hand-built tables whose right sentence is known."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from figures.explaining import ablation, difference, dynamics, features, interference, scores
from figures.tables.ablation import AblationTables
from figures.tables.difference import DifferenceTables
from figures.tables.dynamics import DynamicsTables
from figures.tables.features import FeatureTables
from figures.tables.gradients import GradientTables, LevelTables
from figures.tables.runs import Run

NAMES = ("VQA", "REC", "REG")


def pairs(values=None, null=0.0, half=0.1):
    """All cells of a matrix, those not in ``values`` (by row and column) at the null value."""
    rows = []
    for row in NAMES:
        for column in NAMES:
            value = 1.0 if row == column else (values or {}).get((row, column), null)
            reach = 0.0 if row == column else half
            sure = abs(value - null) > 2 * half
            rows.append(
                {"row": row, "column": column, "value": value, "low": value - reach, "high": value + reach}
                | {"simultaneous_low": value - 2 * reach, "simultaneous_high": value + 2 * reach}
                | {"p_value": 0.01 if sure else 1.0}
            )
    return pd.DataFrame(rows)


def index_of(values, half=0.2):
    table = pd.DataFrame({"task": list(values), "batches": 20, "index": list(values.values())}).set_index("task")
    for kind, reach in (("", half), ("simultaneous_", 2 * half)):
        table[f"index_{kind}low"], table[f"index_{kind}high"] = table["index"] - reach, table["index"] + reach
    table["index_p_value"] = np.where((table["index"] - 1).abs() > 2 * half, 0.01, 1.0)
    return table


def shares(last, null=0.7, half=0.05):
    table = pd.DataFrame({"interval_low": np.arange(10) / 10, "interval_high": np.arange(1, 11) / 10})
    table["share"] = [*[(1 - last) / 9] * 9, last]
    table["low"], table["high"] = table["share"] - half, table["share"] + half
    return table.assign(null_signs=0.1, null_no_conflict=[*[(1 - null) / 9] * 9, null])


def measured(name="mlp", gd=None, gm=None, index=None, doubtful=(), **more):
    square = pd.DataFrame(np.eye(3), NAMES, NAMES)
    level = LevelTables(
        gd=square,
        gm=square,
        gd_intervals=pairs(gd),
        gm_intervals=pairs(gm, null=1.0),
        index=index_of(index or dict.fromkeys(NAMES, 1.0)),
        sign_uncertain=doubtful,
        **more,
    )
    return GradientTables(
        name=name,
        levels={"dataset": level, "task": level},
        tasks={},
        untouched=("pubmedqa",),
        estimator="ratio_of_means",
        interval_level=0.95,
        resamples=1000,
        metadata={"batch_size": 4, "parameters": "connector.*"},
        blocks=None,
        undefined={"dataset": (3, 1000), "task": (0, 1000)},
    )


def run_of(name="cmoe", **parts):
    empty = dict.fromkeys(("gradients", "routing", "features", "dynamics"))
    return Run(name=name, folder=Path(name), about={}, **{**empty, **parts})


def test_the_strongest_help_and_harm_are_named_with_simultaneous_intervals():
    run = measured(gd={("REG", "REC"): 0.62, ("VQA", "REC"): 0.3, ("REC", "VQA"): -0.4, ("REC", "REG"): 0.15})
    assert interference.heatmap(run, "task").finding == (
        "In run mlp, most clearly REC's updates help REG's batches (GD 0.62 [0.42, 0.82]) and VQA's updates harm REC's "
        "batches (GD −0.40 [−0.60, −0.20]); of 6 ordered pairs 2 surely help and 1 surely harms (simultaneous 95% "
        "intervals, estimator ratio_of_means)."
    )


def test_a_row_of_uncertain_sign_is_left_out_and_named_in_a_warning():
    run = measured(gd={("REG", "REC"): 0.62}, doubtful=("REG",))
    told = interference.heatmap(run, "task")
    assert told.finding is None
    assert "the sign of the denominator of REG is uncertain (1 of 3 tasks)" in told.warnings[0]
    assert "† The sign of the denominator of REG is uncertain" in told.caption


def test_a_cell_whose_single_interval_alone_leaves_out_zero_is_no_finding():
    assert interference.heatmap(measured(gd={("REG", "REC"): 0.15}), "task").finding is None


def test_magnitudes_count_each_pair_once():
    found = interference.intervals(measured(gm={("REC", "VQA"): 0.3, ("VQA", "REC"): 0.3}), "task").finding
    assert found == (
        "In run mlp, 1 of 3 pairs of tasks surely has gradients of different length, REC and VQA (GM 0.30 [0.10, "
        "0.50]; simultaneous 95% intervals)."
    )


def test_indexes_are_told_run_by_run_and_never_compared():
    runs = [
        measured("a", index={"VQA": 2.0, "REC": 0.3, "REG": 1.1}),
        measured("b", index={"VQA": 1.2, "REC": 1, "REG": 1}),
    ]
    assert interference.indexes(runs).finding == (
        "In run a, 1 of 3 tasks surely gains from the others on balance (index above 1; VQA, 2.00 [1.60, 2.40]) and 1 "
        "of 3 tasks surely suffers from the others on balance (index below 1; REC, 0.30 [−0.10, 0.70]); indexes before "
        "division, simultaneous 95% intervals."
    )
    assert interference.indexes(runs[1:]).finding is None


def test_runs_on_different_datasets_are_warned_of():
    one, other = measured("a"), measured("b")
    square = pd.DataFrame(np.eye(2), NAMES[:2], NAMES[:2])
    level = replace(other.levels["dataset"], gd=square)
    other = replace(other, levels={**other.levels, "dataset": level})
    assert any("different datasets" in text for text in interference.indexes([one, other]).warnings)
    assert not any("different datasets" in text for text in interference.indexes([one, one]).warnings)


def test_indexes_without_a_positive_maximum_are_warned_of():
    assert any("divided by their maximum" in text for text in interference.indexes([measured()]).warnings)


def test_parts_of_the_network_of_uncertain_sign_are_left_out():
    table = pd.DataFrame(
        [
            {"block": block, "name": name, "batches": 20, "index": value, "low": value - 0.1, "high": value + 0.1}
            | {"sign_uncertain": doubtful}
            for block, name, value, doubtful in (
                ("expert 0", "VQA", 3.0, True),
                ("expert 0", "REC", 2.0, False),
                ("router", "VQA", 0.2, False),
                ("router", "REC", 1.0, False),
            )
        ]
    )
    told = interference.breakdown(measured(index_blocks=table), "task")
    assert told.finding == (
        "In run mlp, most clearly the index of REC on expert 0 seems above 1 (2.00 [1.90, 2.10]) and that of VQA on "
        "router below 1 (0.20 [0.10, 0.30]); 2 of 3 single 95% intervals leave out 1 (by chance about 0.2), those "
        "named even when widened for all 3."
    )
    assert any("1 of 4 indexes on parts of the network" in text for text in told.warnings)


def test_scores_are_held_against_the_null_without_conflict():
    runs = [measured("mlp", scores=shares(0.27)), measured("cmoe", scores=shares(0.68))]
    assert scores.distribution(runs, "task").finding == (
        "Noise alone does not seem to explain the low scores of 1 of 2 runs: 27% [22%, 32%] of mlp's parameters are "
        "above 0.9 (70% if all tasks pulled one way); 1 of 2 single 95% intervals leave out their null (by chance "
        "about 0.1), those named even when widened for all 2."
    )
    assert scores.distribution(runs[1:], "task").finding is None


def test_scores_without_the_null_support_nothing_and_say_so():
    told = scores.distribution([measured(scores=shares(0.27).drop(columns="null_no_conflict"))], "task")
    assert told.finding is None
    assert any("no null without conflict" in text for text in told.warnings)


def test_undefined_parameters_are_counted():
    told = scores.distribution([measured(scores=shares(0.27))], "dataset")
    assert any("3 of 1,000 parameters (0.3%) have no statistics score" in text for text in told.warnings)


def test_the_clearest_block_is_named():
    table = pd.concat([shares(0.5).assign(block="layer 0"), shares(0.2).assign(block="layer 1")], ignore_index=True)
    assert (
        "most clearly in layer 1: 20% [15%, 25%] are above 0.9"
        in scores.blocks(measured(score_blocks=table), "task").finding
    )


def looked_at(purity, name="cmoe", overlap=0.9, cka=0.6):
    rows = [
        {"stage": stage, "label": "task", "name": "all", "measure": "knn_purity", "value": value, "low": value - 0.05}
        | {"high": value + 0.05, "chance": 0.3}
        for stage, value in (("before", 0.4), ("after", purity))
    ]
    stability = [
        {
            "stage": "after",
            "dimensions": 2,
            "measure": "neighbour_overlap",
            "seed": 0,
            "other_seed": 1,
            "value": overlap,
        }
        | {"chance": 0.1}
    ]
    return run_of(
        name,
        features=FeatureTables(
            manifest={
                "modules": ["connector"],
                "samples": dict.fromkeys(NAMES, 100),
                "interval": "jackknife over samples within datasets",
                "interval_level": 0.95,
                "pca": {"before": {"components": 50, "variance": 0.97}},
                "perplexity": 30.0,
                "seeds": [0, 1],
                "neighbours": 10,
            },
            embeddings={2: pd.DataFrame({"sample": range(60), "stage": "after", "dataset": "VQA", "seed": 0})},
            separation=pd.DataFrame(rows),
            alignment=pd.DataFrame(
                [{"name": "all", "value": cka, "low": cka - 0.05, "high": cka + 0.05, "samples": 300}]
            ),
            stability=pd.DataFrame(stability),
        ),
    )


def test_purity_is_held_against_chance():
    assert features.separation([looked_at(0.8)]).finding == (
        "In run cmoe, after the connector 80% [75%, 85%] of a sample's nearest neighbours share its task (before it "
        "40% [35%, 45%], by chance 30%); single 95% interval, no test of one stage or run against another."
    )
    assert features.separation([looked_at(0.33)]).finding is None


def test_alignment_that_may_be_perfect_is_no_finding():
    assert "linear CKA is 0.60 [0.55, 0.65] in run cmoe" in features.alignment([looked_at(0.8)]).finding
    assert features.alignment([looked_at(0.8, cka=0.97)]).finding is None


def test_the_embedding_says_what_it_was_made_from_and_claims_nothing():
    told = features.embedding([looked_at(0.8, overlap=0.2)], 2)
    assert told.finding is None
    for fact in ("60 of 300 samples", "50 PCA components (97% of the variance)", "perplexity 30", "seeds 0, 1"):
        assert fact in told.caption
    assert "changes with the seed" in told.warnings[0]
    assert "shows 60 of 300 samples" in told.warnings[1]


def trained(first, last, doubtful=False):
    def table(step, values):
        return [
            {"step": step, "name": name, "batches": 20, "index": value, "index_low": value - 0.2}
            | {"index_high": value + 0.2, "sign_uncertain": doubtful}
            for name, value in zip(NAMES, values, strict=True)
        ]

    cells = [
        {"step": step, **cell}
        for step, values in ((0, first), (500, last))
        for cell in pairs({("REG", "REC"): values[0]}).to_dict(orient="records")
    ]
    index = {"task": pd.DataFrame([*table(0, first), *table(500, last)])}
    manifest = {"steps": [0, 500], "batches": 20, "batch_size": 4, "estimator": "ratio_of_means"}
    manifest |= {"interval_level": 0.95, "resamples": 1000, "source": "checkpoints"}
    return run_of(dynamics=DynamicsTables(manifest, index, {"task": pd.DataFrame(cells)}, {}, None, None))


def test_a_change_over_training_is_hedged_as_no_test():
    run = trained((1.0, 1.0, 1.0), (2.0, 1.1, 1.0))
    assert dynamics.index(run, "task").finding == (
        "In run cmoe, from step 0 to 500, 1 of 3 indexes moved until their intervals no longer touch, that of VQA "
        "(from 1.00 [0.80, 1.20] to 2.00 [1.80, 2.20]); by chance under 0.1, and no test, as all steps share their "
        "batches."
    )
    assert (
        "that of REG under REC's updates (from 1.00 [0.90, 1.10] to 2.00 [1.90, 2.10])"
        in dynamics.gd(run, "task").finding
    )


def test_intervals_that_touch_or_are_of_uncertain_sign_show_no_change():
    assert dynamics.index(trained((1.0, 1.0, 1.0), (1.3, 1.1, 1.0)), "task").finding is None
    doubtful = trained((1.0, 1.0, 1.0), (2.0, 1.1, 1.0), doubtful=True)
    for told in (dynamics.index(doubtful, "task"), dynamics.gd(doubtful, "task")):
        assert told.finding is None
        assert "6 of 6 denominators have an uncertain sign" in told.warnings[0]


def changed(paired=True, **changes):
    def cell(change):
        sure = abs(change) > 0.2
        return {"a": 0.5, "b": 0.5 + change, "difference": change, "low": change - 0.1, "high": change + 0.1} | {
            "simultaneous_low": change - 0.2,
            "simultaneous_high": change + 0.2,
            "p_value": 0.01 if sure else 1.0,
            "verdict": ("higher" if change > 0 else "lower") if sure else "not sure",
        }

    matrix = {
        measure: pd.DataFrame(
            [
                {"row": row, "column": column, **cell(changes.get(measure, {}).get((row, column), 0.05))}
                for row in NAMES
                for column in NAMES
            ]
        )
        for measure in ("gd", "gm")
    }
    index = pd.DataFrame([{"measure": "index", "name": n, **cell(changes.get("index", {}).get(n, 0.0))} for n in NAMES])
    tenths = pd.DataFrame({"interval_low": np.arange(10) / 10, "interval_high": np.arange(1, 11) / 10})
    tenths["difference"] = [0.001] * 9 + [changes.get("score", 0.0)]
    tenths["low"], tenths["high"] = tenths["difference"] - 0.01, tenths["difference"] + 0.01
    manifest = {"paired": paired, "estimator": "ratio_of_means", "batches": dict.fromkeys(NAMES, 20), "batch_size": 4}
    manifest |= {"interval_level": 0.95, "resamples": 1000, "seed": 0, "sign_uncertain": [], "left_out": []}
    return DifferenceTables(
        "mlp", "cmoe", manifest, {"task": matrix["gd"]}, {"task": matrix["gm"]}, {"task": index}, {"task": tenths}
    )


def test_what_changed_between_runs_follows_the_verdicts():
    tables = changed(gd={("REG", "REC"): 0.5, ("VQA", "REC"): -0.3}, gm={("REC", "REG"): 0.4, ("REG", "REC"): 0.4})
    assert difference.maps(tables, "task").finding == (
        "From mlp to cmoe, 2 of 6 values of GD changed surely, most clearly that of REG under REC's updates (+0.50 "
        "[0.30, 0.70]); 1 of 3 values of GM changed surely, that of REC and REG (+0.40 [0.20, 0.60]); paired, "
        "simultaneous 95% intervals, ratio_of_means."
    )
    assert difference.maps(changed(), "task").finding is None


def test_indexes_and_scores_that_changed():
    tables = changed(index={"REC": -0.4}, score=0.03, paired=False)
    assert difference.indexes(tables, "task").finding == (
        "From mlp to cmoe, 1 of 3 indexes is surely lower (REC, −0.40 [−0.60, −0.20]); simultaneous 95% intervals, "
        "ratio_of_means."
    )
    assert difference.scores(tables, "task").finding == (
        "From mlp to cmoe, more parameters score 0.9 to 1.0 (+3.0 [2.0, 4.0] percentage points); 1 of 10 single 95% "
        "intervals leave out 0 (by chance about 0.5), those named even when widened for all 10."
    )
    assert "not paired" in difference.indexes(tables, "task").caption
    assert any("different batches" in text for text in difference.indexes(tables, "task").warnings)
    assert difference.scores(changed(), "task").finding is None


def deltas(**gains):
    rows = [
        {
            "arm": arm,
            "baseline": "mlp",
            "seeds": 3,
            "parameters": 1,
            "group": "Total",
            "value": value,
            "low": value - half,
        }
        | {"high": value + half}
        for arm, (value, half) in gains.items()
    ]
    return AblationTables("2a", "paper", pd.DataFrame(rows), ("mlp", "sparse"))


def test_the_best_and_the_worst_arm_are_named_against_their_baseline():
    told = ablation.forest(deltas(soft=(8.0, 3.0), hard=(1.0, 4.0), linear=(-6.0, 2.0)))
    assert told.finding == (
        "In table 2a, most clearly soft scores better than mlp (total Δ +8.0% [5.0%, 11.0%]) and linear scores worse "
        "than mlp (total Δ −6.0% [−8.0%, −4.0%]); 2 of 3 single 95% intervals leave out 0 (by chance about 0.2), those "
        "named even when widened for all 3."
    )
    assert told.warnings == ("Table 2a has no Δ yet for sparse.",)


def test_an_ablation_without_intervals_supports_nothing():
    assert ablation.forest(deltas(soft=(8.0, np.nan))).finding is None


@pytest.mark.parametrize("name", ["it's; 50 % off", "data.set", "<b>&amp;</b>", "Ünïcode → 数据", "None of them"])
def test_odd_names_stay_as_they_are(name):
    run = measured(gd={("REG", "REC"): 0.62})
    level = run.levels["task"]
    cells = level.gd_intervals.replace("REC", name)
    run = replace(run, levels={**run.levels, "task": replace(level, gd_intervals=cells)})
    assert f"{name}'s updates help REG's batches" in interference.heatmap(run, "task").finding
