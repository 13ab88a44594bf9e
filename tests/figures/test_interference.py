import itertools

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.container import BarContainer
from matplotlib.figure import Figure

from figures import palette, style
from figures.indexes import index_comparison
from figures.interference import interference_heatmap
from figures.palette import INDEX_FLOOR

NAMES = ["derma", "slake", "chest"]
TASKS = {"derma": "CLS", "slake": "VQA", "chest": "RG"}


def square(values):
    return pd.DataFrame(values, index=NAMES, columns=NAMES)


@pytest.fixture
def matrices():
    gd = square([[1, -0.25, 0.001], [0.5, 1, -0.004], [-3, 0.1, 1]])
    gm = square([[1, 0.5, 0.25], [0.5, 1, 0.75], [0.25, 0.75, 1]])
    return gd, gm


def labels(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


def test_heatmap_orders_by_task_and_writes_every_value(matrices):
    figure = interference_heatmap(*matrices, tasks=TASKS, title="run cmoe")
    assert isinstance(figure, Figure)
    left, right = figure.axes[:2]
    assert labels(left.xaxis) == ["slake", "chest", "derma"]
    assert labels(left.yaxis) == ["slake", "chest", "derma"]
    assert [text.get_text() for text in left.texts] == [
        *("1.00", "0.00", "0.50"),
        *("0.10", "1.00", "−3.00"),
        *("−0.25", "0.00", "1.00"),
    ]
    assert [text.get_text() for text in right.texts][:3] == ["1.00", "0.75", "0.50"]
    np.testing.assert_array_equal(left.images[0].get_array(), matrices[0].loc[labels(left.yaxis), labels(left.xaxis)])
    assert left.images[0].get_clim() == (-1, 1)
    assert right.images[0].get_clim() == (0, 1)
    assert figure.get_suptitle() == "run cmoe"
    assert left.get_ylabel() == "interfered with"
    assert [axes.get_xlabel() for axes in figure.axes[2:]] == [
        "Gradient direction GD (colours end at ±1)",
        "Gradient magnitude similarity GM",
    ]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["VQA", "RG", "CLS"]


def test_heatmap_marks_rows_that_are_not_to_be_trusted(matrices):
    figure = interference_heatmap(*matrices, tasks=TASKS, uncertain=["chest"])
    assert labels(figure.axes[0].yaxis) == ["slake", "chest †", "derma"]
    assert figure.legends[0].get_title().get_text() == "† pale: sign of the denominator uncertain"
    left, right = (axes.images[0] for axes in figure.axes[:2])
    assert (left.get_alpha() < 1).tolist() == [[False] * 3, [True] * 3, [False] * 3]
    # its magnitude is as sure as any
    assert right.get_alpha() is None
    assert interference_heatmap(*matrices, tasks=TASKS).legends[0].get_title().get_text() == ""


@pytest.mark.parametrize("tasks", [None, {"derma": "planes", "slake": "questions", "chest": "reports"}])
def test_no_strip_and_no_legend_where_no_task_has_a_colour(matrices, tasks):
    assert len(interference_heatmap(*matrices, tasks=TASKS).axes[0].patches) == 6
    figure = interference_heatmap(*matrices, tasks=tasks)
    assert not figure.legends
    assert not figure.axes[0].patches
    marked = interference_heatmap(*matrices, tasks=tasks, uncertain=["chest"])
    assert marked.legends[0].get_title().get_text() == "† pale: sign of the denominator uncertain"
    assert not marked.legends[0].get_texts()
    bars = index_comparison({"r": indexes([0, 0, 0], [1, 1, 1], [1, 1, 1])}, tasks=tasks)
    assert [text.get_text() for text in bars.legends[0].get_texts()] == ["r", "interval"]


def indexes(low, value, high):
    columns = {"index_normalised_low": low, "index_normalised": value, "index_normalised_high": high}
    return pd.DataFrame(columns, index=NAMES)


def test_indexes_stand_side_by_side_with_their_intervals():
    runs = {
        "mlp": indexes([0.1, 0.9, 0.2], [0.2, 1.0, 0.5], [0.4, 1.0, 0.6]),
        "cmoe": indexes([0.6, 0.8, 0.7], [0.7, 0.9, 1.0], [0.8, 0.95, 1.0]),
    }
    by_task = {name: table.rename(index=TASKS) for name, table in runs.items()}
    figure = index_comparison(runs, by_task, TASKS)
    assert [axes.get_title() for axes in figure.axes] == ["Datasets", "Tasks"]
    assert labels(figure.axes[0].xaxis) == ["slake", "chest", "derma"]
    assert labels(figure.axes[1].xaxis) == ["VQA", "RG", "CLS"]
    bars = [c for c in figure.axes[0].containers if isinstance(c, BarContainer)]
    assert [container.get_label() for container in bars] == ["mlp", "cmoe"]
    assert [bar.get_height() for bar in bars[0]] == [1.0, 0.5, 0.2]
    ends = [segment[:, 1].tolist() for segment in figure.axes[0].collections[0].get_segments()]
    np.testing.assert_allclose(ends, [[0.9, 1.0], [0.2, 0.6], [0.1, 0.4]])
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["mlp", "cmoe", "interval", "VQA", "RG", "CLS"]


def test_indexes_without_tasks_and_intervals():
    table = pd.DataFrame({"index_normalised": [0.2, 1.0, 0.5]}, index=NAMES)
    figure = index_comparison({"only": table})
    assert len(figure.axes) == 1
    assert not figure.axes[0].collections


def test_task_colours_are_the_same_everywhere_and_tell_apart(matrices):
    assert len({*palette.TASK_COLOURS.values(), palette.OTHER_COLOUR}) == len(palette.TASK_ORDER) + 1
    heatmap = interference_heatmap(*matrices, tasks=TASKS)
    indexes_figure = index_comparison({"r": indexes([0, 0, 0], [1, 1, 1], [1, 1, 1])}, tasks=TASKS)
    for figure in (heatmap, indexes_figure):
        legend = figure.legends[0]
        shown = dict(zip((t.get_text() for t in legend.get_texts()), legend.legend_handles, strict=True))
        for task in ("VQA", "RG", "CLS"):
            assert to_hex(shown[task].get_facecolor()).upper() == palette.TASK_COLOURS[task].upper()


def test_the_callers_matplotlib_settings_are_left_alone(matrices):
    with mpl.rc_context({"font.size": 31}):
        before = dict(mpl.rcParams)
        figure = interference_heatmap(*matrices, tasks=TASKS)
        assert dict(mpl.rcParams) == before
    assert figure.axes[0].texts[0].get_fontsize() == 7


@pytest.mark.parametrize("kind", style.FORMATS)
def test_equal_figures_give_equal_bytes_without_dates(matrices, tmp_path, kind):
    for name in ("one", "two"):
        style.save(interference_heatmap(*matrices, tasks=TASKS), tmp_path / f"{name}.{kind}")
    content = (tmp_path / f"one.{kind}").read_bytes()
    assert content == (tmp_path / f"two.{kind}").read_bytes()
    assert b"CreationDate" not in content


def test_labels_do_not_overlap_with_ten_long_names():
    names = [f"a_long_dataset_{number}" for number in range(10)]
    values = pd.DataFrame(np.full((10, 10), -0.55), index=names, columns=names)
    figure = interference_heatmap(values, values.abs(), tasks=dict.fromkeys(names, "VQA"))
    figure.canvas.draw()
    for axes in figure.axes[:2]:
        boxes = [text.get_window_extent() for text in axes.texts[:10]]
        assert all(a.x1 < b.x0 for a, b in itertools.pairwise(boxes))
    legend = figure.legends[0].get_window_extent()
    assert all(legend.y1 < axes.xaxis.label.get_window_extent().y0 for axes in figure.axes[:2])


def test_an_interval_without_end_is_cut_and_ends_in_an_arrow():
    table = pd.DataFrame(
        {"index_normalised": [1.0, 0.5], "index_normalised_low": [-12.0, 0.4], "index_normalised_high": [1.0, 0.6]},
        index=["a", "b"],
    )
    axes = index_comparison({"run": table}).axes[0]
    assert axes.get_ylim()[0] > -1.5
    arrows = [line for line in axes.lines if line.get_marker() == "v"]
    assert [len(line.get_xdata()) for line in arrows] == [1]
    assert arrows[0].get_ydata()[0] == INDEX_FLOOR
