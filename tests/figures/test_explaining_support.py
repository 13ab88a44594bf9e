import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from figures.explaining.support import (
    apart_by_chance,
    by_chance,
    judge,
    widened,
    widening,
    widening_apart,
)

Z = 1.959963984540054


def cells(values, half, joint=False, names=None):
    table = pd.DataFrame({"name": names or [f"cell {n}" for n in range(len(values))], "value": values})
    table["low"], table["high"] = table["value"] - half, table["value"] + half
    if joint:
        table["simultaneous_low"], table["simultaneous_high"] = table["value"] - 2 * half, table["value"] + 2 * half
        table["p_value"] = np.where(table["value"].abs() > 2 * half, 0.01, 1.0)
    return table


def names_of(found):
    return [case.names[0] for case in found.cases]


def test_joint_intervals_and_p_values_decide_where_there_are_any():
    found = judge(cells([0.9, 0.15, -0.5], 0.1, joint=True), ["name"], 0.0, 0.95)
    assert [case.names[0] for case in found.above] == ["cell 0"]
    assert [case.names[0] for case in found.below] == ["cell 2"]
    assert found.above[0].low == pytest.approx(0.7)
    assert (found.tested, found.basis) == (3, "simultaneous 95% intervals")


def test_one_of_both_is_not_enough():
    table = cells([0.9, 0.9], 0.1, joint=True)
    table["p_value"] = [0.2, 0.01]
    table.loc[1, "simultaneous_low"] = -0.1
    assert judge(table, ["name"], 0.0, 0.95).cases == ()


def test_single_intervals_are_widened_for_their_number():
    # z of 20 cells is 3.02: 0.25 is 2.5 half-widths of 0.1, which is 4.9 standard errors; 0.12 only 2.4.
    found = judge(cells([0.25, 0.12, *[0.0] * 18], 0.1), ["name"], 0.0, 0.95)
    assert names_of(found) == ["cell 0"]
    assert found.excluding == 2
    assert (
        found.basis
        == "2 of 20 single 95% intervals leave out 0 (by chance about 1.0), those named even when widened for all 20"
    )
    assert found.above[0].low == pytest.approx(0.15), "the interval shown is that of the table"


def test_one_cell_needs_no_widening():
    found = judge(cells([0.12], 0.1), ["name"], 0.0, 0.95)
    assert names_of(found) == ["cell 0"]
    assert found.basis == "single 95% interval"


def test_the_widening_is_bonferronis():
    assert widening(0.95, 1) == 1
    assert widening(0.95, 20) == pytest.approx(3.0233414 / Z)
    assert apart_by_chance(0.95) == pytest.approx(0.00557, abs=1e-4)
    assert widening_apart(0.95, 1) == 1
    # As many cells as make the stricter rule bind: z / sqrt(2) beyond 1.96.
    assert widening_apart(0.95, 1000) == pytest.approx(4.0556270 / 2**0.5 / Z, rel=1e-4)


def test_an_interval_that_leaves_out_its_own_estimate_gets_wider_all_the_same():
    value, low, high = (pd.Series([number]) for number in (0.5, 0.1, 0.4))
    wide = widened(value, low, high, 2.0)
    assert wide[0][0] < 0.1
    assert wide[1][0] > 0.4


def test_rows_without_numbers_and_tables_without_intervals_support_nothing():
    table = cells([0.9, 0.9], 0.1)
    table.loc[0, "low"] = np.nan
    assert judge(table, ["name"], 0.0, 0.95).tested == 1
    assert judge(table[["name", "value"]], ["name"], 0.0, 0.95).cases == ()
    assert judge(table.iloc[:0], ["name"], 0.0, 0.95).cases == ()


def test_the_strongest_is_the_one_whose_interval_stays_furthest_away():
    table = pd.DataFrame(
        {"name": ["noisy", "sure"], "value": [2.0, 0.9], "low": [0.3, 0.8], "high": [3.7, 1.0]},
    )
    assert names_of(judge(table, ["name"], 0.0, 0.95))[0] == "sure"


def test_equally_strong_ones_follow_their_names():
    table = cells([0.9, 0.9, 0.9], 0.1, names=["b", "c", "a"])
    assert names_of(judge(table, ["name"], 0.0, 0.95)) == ["a", "b", "c"]


def test_a_null_value_of_each_row():
    table = cells([0.5, 0.5], 0.1)
    found = judge(table, ["name"], pd.Series([0.5, 0.9]), 0.95, null_name="chance")
    assert [case.names[0] for case in found.below] == ["cell 1"]
    assert "leave out chance" in found.basis


def test_what_chance_gives_is_never_called_zero():
    assert by_chance(0.011) == "by chance under 0.1"
    assert by_chance(1.25) == "by chance about 1.2"
    assert by_chance(156) == "by chance about 156"


numbers = st.floats(-3, 3)
tables = st.lists(st.tuples(numbers, st.floats(0.01, 2), st.floats(0.01, 2)), min_size=1, max_size=30)


def table_of(rows):
    return pd.DataFrame(
        [
            {"name": f"cell {n:02}", "value": value, "low": value - below, "high": value + above}
            for n, (value, below, above) in enumerate(rows)
        ]
    )


@settings(max_examples=60, deadline=None)
@given(tables, st.floats(-1, 1))
def test_nothing_is_supported_whose_interval_holds_the_null_value(rows, null):
    table = table_of(rows)
    found = judge(table, ["name"], null, 0.95)
    away = set(table.loc[(table["low"] > null) | (table["high"] < null), "name"])
    assert set(names_of(found)) <= away
    assert found.excluding <= len(away)


@settings(max_examples=60, deadline=None)
@given(tables, st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(rows, random):
    table = table_of(rows)
    order = list(range(len(table)))
    random.shuffle(order)
    assert judge(table, ["name"], 0.0, 0.95) == judge(table.iloc[order].reset_index(drop=True), ["name"], 0.0, 0.95)


def test_under_no_effect_a_table_is_wrong_about_any_cell_once_in_twenty():
    rng = np.random.default_rng(0)
    wrong = [bool(judge(cells(rng.normal(size=30), Z), ["name"], 0.0, 0.95).cases) for _ in range(300)]
    assert 0.02 < np.mean(wrong) < 0.08
