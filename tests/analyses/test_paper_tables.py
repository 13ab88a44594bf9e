"""The paper's own arithmetic, on its own numbers."""

import pytest

from analyses.ablation_tables import TABLES
from analyses.paper_tables import DATASETS, TASKS, TOTAL, ablations, comparison
from unimed_model.presets import arms

GROUPS = {task: list(DATASETS)[2 * place : 2 * place + 2] for place, task in enumerate(TASKS)} | {TOTAL: list(DATASETS)}
NOT_TO_THE_LAST_DIGIT = {
    ("2a-linear", "RG"): -11.67,
    ("2d-rank-64-hard", "RG"): 6.75,
    ("2d-rank-64-soft", "RG"): 14.35,
    ("2e-lora-moe-mlp", "REC"): -9.75,
    ("5-neither", "RG"): 16.35,
    ("5-vision", TOTAL): 7.75,
}
"""Deltas that the printed values do not round to: what they give instead."""


def recomputed():
    rows = {row.arm: row for row in ablations()}
    for row in rows.values():
        if row.baseline is None:
            continue
        base = rows[row.baseline].values
        for group, datasets in GROUPS.items():
            gains = [100 * (row.values[name] - base[name]) / base[name] for name in datasets]
            yield row, group, sum(gains) / len(gains)


def test_every_printed_delta_follows_from_the_printed_values_to_a_tenth():
    found = list(recomputed())
    assert len(found) == 204
    off = {(row.arm, group): value for row, group, value in found if abs(value - row.deltas[group]) > 0.1}
    assert off == {}


def test_the_deltas_that_do_not_round_as_printed_are_these_and_no_others():
    off = {
        (row.arm, group): value for row, group, value in recomputed() if abs(value - row.deltas[group]) > 0.05 + 1e-9
    }
    assert off == pytest.approx(NOT_TO_THE_LAST_DIGIT, abs=0.005)


def test_rounding_of_the_printed_values_explains_every_difference():
    rows = {row.arm: row for row in ablations()}
    for row, group, value in recomputed():
        base, datasets = rows[row.baseline].values, GROUPS[group]
        slack = sum(
            100 * (row.values[name] + 0.005) / (base[name] - 0.005) - 100 * row.values[name] / base[name]
            for name in datasets
        )
        assert abs(value - row.deltas[group]) <= 0.05 + slack / len(datasets), (row.arm, group)


def test_the_published_rows_are_the_rows_of_our_tables():
    for name, table in TABLES.items():
        published = [row for row in ablations() if row.table == name]
        ours = [row.arm for row in table.rows if not row.ours and row.arm.startswith(f"{name}-")]
        assert [row.arm for row in published] == ours
        assert {row.arm: row.baseline for row in table.rows if row.arm in ours} == {
            row.arm: row.baseline for row in published
        }


def test_every_row_of_our_tables_is_an_arm_and_every_arm_a_row():
    assert {row.arm for table in TABLES.values() for row in table.rows} == set(arms())


def test_rows_that_the_paper_prints_twice_have_the_same_numbers():
    rows = {row.arm: row.values for row in ablations()}
    for same in (
        ("2a-mlp", "2d-rank-8-mlp", "5-mlp"),
        ("2a-hard", "2d-rank-8-hard"),
        ("2a-soft-token", "5-text"),
        ("2a-soft-token-task", "2b-rate-4", "2c-experts-5", "2d-rank-8-soft", "5-both"),
        ("2d-rank-4-mlp", "2e-lora-mlp"),
    ):
        assert all(rows[name] == rows[same[0]] for name in same)


def test_what_was_assigned_by_inference_is_said_to_be():
    assigned = {row.arm: row.assigned for row in ablations() if row.assigned != "printed"}
    assert assigned == {
        "2a-sparse": "inferred",
        "2a-soft-task": "inferred",
        "2a-soft-token": "table 5",
        "2a-soft-token-task": "table 5",
    }


@pytest.mark.parametrize(
    ("arm", "dataset", "value"),
    [
        ("2a-linear", "mimic_cxr", 13.80),
        ("2a-sparse", "slake_rec", 37.07),
        ("2b-average", "organsmnist", 74.54),
        ("2c-experts-16", "sa_med2d_reg", 61.45),
        ("2d-rank-64-hard", "sa_med2d_reg", 46.29),
        ("2e-lora-moe-mlp", "mpx_single", 14.05),
        ("5-vision", "sa_med2d_reg", 62.72),
    ],
)
def test_numbers_of_table_2_and_5_read_off_the_paper_by_eye(arm, dataset, value):
    assert {row.arm: row for row in ablations()}[arm].values[dataset] == value


@pytest.mark.parametrize(
    ("model", "dataset", "metric", "value", "deviation", "leakage"),
    [
        ("RadFM", "slake_vqa", "f1", 82.38, None, False),
        ("XrayGPT", "mimic_cxr", "bleu_1", 27.11, None, False),
        ("Uni-Med", "mimic_cxr", "rouge_l", 22.58, 2.86, False),
        ("RadFM", "mpx_single", "meteor", 16.79, None, True),
        ("Med-Flamingo", "organsmnist", "accuracy", 8.90, None, False),
        ("Uni-Med", "sa_med2d_rec", "recall_at_0.5", 14.42, 3.20, False),
        ("Uni-Med", "slake_reg", "accuracy", 68.16, 1.32, False),
    ],
)
def test_numbers_of_tables_3_and_6_read_off_the_paper_by_eye(model, dataset, metric, value, deviation, leakage):
    (found,) = [n for n in comparison() if (n.model, n.dataset, n.metric) == (model, dataset, metric)]
    assert (found.value, found.deviation, found.leakage) == (value, deviation, leakage)


def test_tables_3_and_6_are_whole():
    counts = {}
    for number in comparison():
        counts[number.table, number.model] = counts.get((number.table, number.model), 0) + 1
    assert counts == {
        ("3", "Med-Flamingo"): 18,
        ("3", "RadFM"): 18,
        ("3", "LLaVA-Med"): 16,
        ("3", "XrayGPT"): 12,
        ("3", "Uni-Med"): 18,
        ("6", "Uni-Med"): 10,
    }
