"""Hand-built tables of routing whose right sentence is known."""

from pathlib import Path

import pandas as pd

from figures.explaining import routing
from figures.tables.routing import RoutingTables
from figures.tables.runs import Run

NAMES = ("VQA", "REC", "REG")


def routed(weights=None, information=None, switched=None, divergence=None, samples=40, dead=False, units=None):
    where = {"checkpoint": "final", "router": "r"}
    weight = pd.DataFrame(
        [
            {**where, "level": level, "name": name, "expert": expert, "weight": value, "low": value - 0.02}
            | {"high": value + 0.02, "samples": 40, "tokens": 640}
            for level, names in (("all", ("all",)), ("task", NAMES))
            for name in names
            for expert in (0, 1)
            for value in [(weights or {}).get((name, expert), 0.5)]
        ]
    )
    load = weight.rename(columns={"weight": "load"}).assign(dead=[dead and row == 1 for row in weight["expert"]])

    def table(rows):
        return None if rows is None else pd.DataFrame([{**where, "level": "task", **row} for row in rows])

    return Run(
        name="cmoe",
        folder=Path("cmoe"),
        about={},
        gradients=None,
        features=None,
        dynamics=None,
        routing=RoutingTables(
            manifest={
                "checkpoints": [{"name": "final", "label": "final", "step": 6000}],
                "routers": [{"name": "r", "experts": 2}],
                "samples": dict.fromkeys(NAMES, samples),
                **({"units": dict.fromkeys(NAMES, units)} if units else {}),
                "interval_level": 0.95,
                "resamples": 1000,
                "seed": 0,
            },
            weights=weight,
            load=load,
            measures=pd.DataFrame(),
            information=table(information),
            divergence=table(divergence),
            switched_off=table(switched),
            tokens=None,
            images={},
        ),
    )


INFORMED = {"value": 0.3, "low": 0.25, "high": 0.35, "null_high": 0.02, "p_value": 0.001}


def test_weights_are_held_against_an_even_share():
    run = routed(weights={("REC", 0): 0.8, ("REC", 1): 0.2})
    assert routing.weights(run, "r").finding == (
        "In run cmoe, final, REC leans most on expert 0 (0.80 [0.78, 0.82]) and REC leans least on expert 1 (0.20 "
        "[0.18, 0.22]); 2 of 6 single 95% intervals leave out the even share 0.50 (by chance about 0.3), those named "
        "even when widened for all 6."
    )
    assert routing.weights(routed(), "r").finding is None


def test_information_is_held_against_shuffled_labels():
    assert routing.information(routed(information=[INFORMED]), "r").finding == (
        "In run cmoe, final, the router tells tasks apart: task and expert share 0.30 [0.25, 0.35] bits, of at most "
        "1.00, where shuffled labels stay under 0.02 (p = 0.001)."
    )
    chance = {**INFORMED, "value": 0.015, "p_value": 0.2}
    assert routing.information(routed(information=[chance]), "r").finding is None
    assert routing.information(routed(), "r").finding is None


def test_divergence_needs_information_and_intervals_that_are_apart():
    cells = [
        {"row": row, "column": column, "value": value, "low": value - 0.01, "high": value + 0.01}
        for (row, column), value in {("REC", "REG"): 0.02, ("REC", "VQA"): 0.4, ("REG", "VQA"): 0.2}.items()
    ]
    assert routing.divergence(routed(divergence=cells, information=[INFORMED]), "r").finding == (
        "In run cmoe, final, REC and VQA are routed further apart (0.40 [0.39, 0.41] bits) than REC and REG (0.02 "
        "[0.01, 0.03] bits; single 95% intervals, apart even when widened for all pairs)."
    )
    assert routing.divergence(routed(divergence=cells), "r").finding is None
    near = [{**cell, "value": 0.1, "low": 0.05, "high": 0.15} for cell in cells]
    assert routing.divergence(routed(divergence=near, information=[INFORMED]), "r").finding is None


def test_an_expert_that_is_missed_is_named_with_its_task():
    changes = [
        {"expert": expert, "name": name, "loss": 1.0, "change": value, "low": value - 0.05, "high": value + 0.05}
        | {"batches": 10}
        for expert in (0, 1)
        for name in NAMES
        for value in [0.3 if (expert, name) == (1, "REC") else 0.01]
    ]
    assert routing.switched_off(routed(switched=changes), "r").finding == (
        "In run cmoe, final, REC suffers most clearly without expert 1 (loss +0.30 [0.25, 0.35]); 1 of 6 single 95% "
        "intervals leave out 0 (by chance about 0.3), those named even when widened for all 6."
    )


def test_dead_experts_and_few_samples_are_warned_of():
    warnings = routing.weights(routed(samples=5, dead=True), "r").warnings
    assert "fewer than 30 samples" in warnings[0]
    assert "expert 1 of r is dead (final)" in warnings[1]


def test_images_that_have_several_questions_are_what_intervals_are_about():
    told = routing.weights(routed(samples=40, units=12), "r")
    assert "40 samples per dataset of 12 images, 640 tokens in all" in told.caption
    assert "bootstrap over images within datasets" in told.caption
    assert "fewer than 30 images" in told.warnings[0]
    alone = routing.weights(routed(samples=40, units=40), "r")
    assert "bootstrap over samples within datasets" in alone.caption
    assert alone.warnings == ()
