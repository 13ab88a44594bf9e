"""The forecast against results at the number of batches that it names."""

from dataclasses import replace

import numpy as np
import pytest

import tugofwar as tow
from tugofwar.errors import UserError
from tugofwar.forecast import batches_needed
from tugofwar.recording import Block, Recording, upper_triangle


def recording_of(rng, batches, cosine=0.1, dimension=400):
    noise = np.sqrt((1 / cosine - 1) / dimension)
    gradients = noise * rng.normal(size=(3 * batches, dimension))
    gradients[:, 0] += 1
    gradients[batches:, 1] += 1
    datasets = [name for name in "abc" for _ in range(batches)]
    block = Block("layer", {"layer.weight": dimension})
    return Recording((block,), {"layer": upper_triangle(gradients @ gradients.T)}, datasets, np.ones(len(datasets)))


def widest(result, measure):
    low, high = result.intervals[measure]
    return float((high - low).to_numpy().max())


@pytest.mark.parametrize("measure", ["gd", "index"])
def test_the_forecast_number_of_batches_is_enough(measure):
    rng = np.random.default_rng(0)
    now = tow.interference(recording_of(rng, 40))
    target = widest(now, measure) / 2
    forecast = batches_needed(now, target, measure)
    assert set(forecast.batches.values()) == {160}
    then = np.mean([widest(tow.interference(recording_of(rng, 160)), measure) for _ in range(4)])
    # Rather too many than too few: the noise of pairs shrinks faster than the law.
    assert 0.7 * target <= then <= 1.1 * target


def test_the_widest_cell_is_named():
    result = tow.interference(recording_of(np.random.default_rng(1), 30))
    low, high = result.intervals["gd"]
    forecast = batches_needed(result, 0.1)
    row, column = forecast.widest
    assert row != column
    assert high.loc[row, column] - low.loc[row, column] == forecast.widest_width == widest(result, "gd")
    (name,) = batches_needed(result, 0.1, "index").widest
    low, high = result.intervals["index"]
    assert name == (high - low).idxmax()


def test_a_width_that_is_met_needs_fewer_batches_but_two():
    result = tow.interference(recording_of(np.random.default_rng(2), 30))
    assert batches_needed(result, widest(result, "gd")).batches == {"a": 30, "b": 30, "c": 30}
    assert batches_needed(result, 1000).batches == {"a": 2, "b": 2, "c": 2}


def test_rows_of_uncertain_sign_are_listed_apart():
    result = tow.interference(recording_of(np.random.default_rng(3), 30))
    row = batches_needed(result, 0.1).widest[0]
    doubtful = replace(result, sign_uncertain=(row,))
    forecast = batches_needed(doubtful, 0.1)
    assert forecast.sign_uncertain == (row,)
    assert forecast.widest[0] != row
    assert forecast.batches["a"] < batches_needed(result, 0.1).batches["a"]
    with pytest.raises(UserError, match="every group's denominator"):
        batches_needed(replace(result, sign_uncertain=("a", "b", "c")), 0.1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0.0,), "over 0; got 0.0"),
        ((-1.0,), "over 0"),
        ((float("nan"),), "over 0"),
        ((float("inf"),), "over 0"),
        ((0.1, "gm"), "measure='gm'"),
    ],
)
def test_bad_widths(arguments, message):
    result = tow.interference(recording_of(np.random.default_rng(4), 10), resamples=20)
    with pytest.raises(UserError, match=message):
        batches_needed(result, *arguments)


def test_no_intervals_no_forecast():
    recording = recording_of(np.random.default_rng(5), 10)
    for options in ({"resamples": 0}, {"estimator": "plugin", "resamples": 20}):
        with pytest.raises(UserError, match="no intervals of 'gd'"):
            batches_needed(tow.interference(recording, **options), 0.1)
    alone = tow.interference(recording, {"a": ["a"]}, resamples=20)
    with pytest.raises(UserError, match="no interval of 'gd' has a width"):
        batches_needed(alone, 0.1)
