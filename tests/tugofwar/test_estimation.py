import numpy as np
import pytest

import tugofwar as tow
from tugofwar import metrics
from tugofwar.errors import UserError
from tugofwar.recording import Block, Recording, upper_triangle


def build_recording(gradients, datasets, **options):
    triangle = upper_triangle(gradients @ gradients.T)
    block = Block("connector", {"connector.weight": gradients.shape[1]})
    return Recording((block,), {"connector": triangle}, datasets, np.ones(len(datasets)), **options)


@pytest.fixture
def recording():
    gradients = np.random.default_rng(0).normal(size=(20, 12)) + 1
    gradients[10:15] = 0
    datasets = ["a"] * 6 + ["b"] * 4 + ["idle"] * 5 + ["c"] * 5
    tasks = {"a": "VQA", "b": "VQA", "c": "CLS", "idle": "RG", "text": "QA"}
    return build_recording(gradients, datasets, untouched=("text",), tasks=tasks)


@pytest.mark.parametrize("estimator", metrics.ESTIMATORS)
def test_tables_hold_the_metrics_of_each_dataset(recording, estimator):
    result = tow.interference(recording, estimator=estimator, resamples=50)
    rows = {name: recording.rows[name] for name in ("a", "b", "c")}
    np.testing.assert_array_equal(result.gd, metrics.gradient_direction(recording.gram, rows, estimator))
    np.testing.assert_array_equal(result.gm, metrics.gradient_magnitude_similarity(recording.gram, rows))
    np.testing.assert_allclose(result.index, (result.gd * result.gm).sum(axis=1), rtol=1e-12)
    assert result.index_normalised.max() == 1
    assert list(result.gd.index) == list(result.gd.columns) == ["a", "b", "c"]
    assert result.estimator == estimator
    assert result.untouched == ("text", "idle")
    assert set(result.intervals) == ({"gm"} if estimator == "plugin" else {"gd", "gm", "index", "index_normalised"})


def test_intervals_are_labelled_like_the_measures(recording):
    result = tow.interference(recording, resamples=200)
    low, high = result.intervals["gd"]
    assert list(low.index) == list(result.gd.index)
    assert (low <= high).all(axis=None)
    low, high = result.intervals["index"]
    assert list(low.index) == ["a", "b", "c"]
    assert (low < high).all()


def test_tasks_pool_their_datasets_with_equal_weight(recording):
    groups = tow.task_groups(recording)
    assert groups == {"VQA": ["a", "b"], "CLS": ["c"]}
    result = tow.interference(recording, groups, resamples=0)
    rows = {"VQA": range(10), "CLS": range(15, 20)}
    expected = metrics.gradient_direction(recording.gram, rows, datasets=recording.datasets)
    np.testing.assert_array_equal(result.gd, expected)
    assert result.batches == {"VQA": 10, "CLS": 5}
    assert result.intervals == {}


def test_groups_can_be_rows(recording):
    by_rows = tow.interference(recording, {"x": [0, 1, 2], "y": [15, 16]}, resamples=0)
    assert by_rows.batches == {"x": 3, "y": 2}


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({"x": ["nobody"]}, "the recording has a, b, idle, c"),
        ({"x": ["text"]}, "'text', which does not touch"),
        ({"x": ["idle"]}, "'idle', which does not touch"),
        ({"x": "a"}, "must be a list"),
    ],
)
def test_groups_name_datasets_that_are_there(recording, groups, message):
    with pytest.raises(UserError, match=message):
        tow.interference(recording, groups)


def test_the_plugin_works_on_single_batches():
    gradients = np.random.default_rng(1).normal(size=(2, 5)) + 1
    recording = build_recording(gradients, ["a", "b"])
    assert tow.interference(recording, estimator="plugin").intervals == {}
    with pytest.raises(UserError, match="'a' has one batch"):
        tow.interference(recording)


def test_no_maximum_no_normalised_index():
    gradients = np.random.default_rng(2).normal(size=(8, 5)) * 0.1 + 1
    recording = build_recording(np.concatenate([gradients, -1.02 * gradients]), ["a"] * 8 + ["b"] * 8)
    result = tow.interference(recording, resamples=50)
    assert result.index.max() <= 0
    assert result.index_normalised is None
    assert "index_normalised" not in result.intervals


def test_a_recording_without_tasks_cannot_be_grouped_by_task(recording):
    with pytest.raises(UserError, match="which task dataset 'a' belongs to"):
        tow.task_groups(build_recording(np.ones((2, 2)), ["a", "a"]))


def test_blocks_that_nobody_touches_are_an_error():
    with pytest.raises(UserError, match="No dataset has a gradient"):
        tow.interference(build_recording(np.zeros((2, 2)), ["a", "a"]))


def test_simultaneous_intervals_and_p_values_are_labelled_like_the_measures(recording):
    result = tow.interference(recording, resamples=200)
    assert set(result.simultaneous) == set(result.p_values) == {"gd", "gm", "index"}
    for measure, p_values in result.p_values.items():
        low, high = result.simultaneous[measure]
        value = getattr(result, measure)
        assert p_values.index.equals(value.index)
        assert ((low <= value + 1e-12) & (value <= high + 1e-12)).all(axis=None)
        assert ((p_values >= 0) & (p_values <= 1)).all(axis=None)
    assert (np.diagonal(result.p_values["gd"]) == 0).all()
    plugin = tow.interference(recording, estimator="plugin", resamples=200)
    assert set(plugin.simultaneous) == set(plugin.p_values) == {"gm"}
    assert tow.interference(recording, resamples=0).p_values == {}


@pytest.fixture
def noisy():
    """Dataset ``lost`` has no direction of its own; the others share one."""
    gradients = np.random.default_rng(3).normal(size=(90, 60)) * 3
    gradients[30:] += 1
    return build_recording(gradients, ["lost"] * 30 + ["b"] * 30 + ["c"] * 30, untouched=("text",))


def test_the_text_names_what_is_uncertain_instead_of_a_number(noisy):
    result = tow.interference(noisy, resamples=200)
    assert result.sign_uncertain == ("lost",)
    assert result.unstable == ()
    lines = str(result).splitlines()
    rows = [line.split("  ") for line in lines if line.startswith("lost")]
    directions, magnitudes, indexes = ([cell for cell in row if cell.strip()][1:] for row in rows)
    assert [cell.strip() for cell in directions] == ["sign uncertain"] * 3
    assert not any("uncertain" in cell for cell in magnitudes)
    assert [cell.strip() for cell in indexes] == ["30", "sign uncertain"]
    low, high = result.intervals["gd"]
    expected = f"{result.gd.loc['b', 'c']:.3f} [{low.loc['b', 'c']:.3f}, {high.loc['b', 'c']:.3f}]"
    assert expected in next(line for line in lines if line.startswith("b "))
    assert "ratio_of_means" in lines[0]
    assert "95% interval of 200 resamples" in lines[0]
    assert "Not touching the selected parameters: text" in lines[-1]


def test_unstable_groups_are_named_for_the_mean_of_ratios_only(noisy):
    result = tow.interference(noisy, estimator="leave_one_out", resamples=50)
    assert "lost" in result.unstable
    assert f"Unstable: {', '.join(result.unstable)}:" in result.summary()
    assert "Unstable" not in tow.interference(noisy, estimator="plugin", resamples=50).summary()


def test_text_without_intervals(recording):
    text = tow.interference(recording, estimator="plugin", resamples=0).summary()
    assert "interval" not in text
    assert "nan" not in text.lower()
