"""Numbers in figure objects are those of the tables; pictures look as they did; settings are left alone."""

import subprocess
import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import LineCollection, PathCollection, PolyCollection
from matplotlib.colors import to_hex
from matplotlib.testing.compare import compare_images

import figures
from figures import style

from . import sample_pictures as samples

BASELINES = Path(__file__).parent / "baselines"
# Root mean square of differences between pixels of 0 to 255.
TOLERANCE = 2.0


@pytest.fixture(scope="module", name="tables")
def made_tables(tmp_path_factory):
    return samples.made(tmp_path_factory.mktemp("made"))


@pytest.fixture(scope="module", name="pictures")
def all_pictures(tables):
    return samples.every_picture(tables)


def test_there_is_a_sample_of_every_public_function(pictures):
    assert set(pictures) == set(figures.__all__)


@pytest.mark.parametrize("name", figures.__all__)
def test_pictures_look_as_they_did(pictures, tmp_path, name):
    drawn_with = (BASELINES / "matplotlib_version.txt").read_text().strip()
    if mpl.__version__.split(".")[:2] != drawn_with.split("."):
        pytest.skip(f"the baselines were drawn with matplotlib {drawn_with}, which places text differently")
    style.settle(pictures[name])
    pictures[name].savefig(tmp_path / "drawn.png", dpi=samples.DPI, metadata={"Software": None})
    assert compare_images(str(BASELINES / f"{name}.png"), str(tmp_path / "drawn.png"), TOLERANCE) is None


def test_the_callers_settings_and_pyplot_are_left_alone(tables):
    import matplotlib.pyplot as plt

    with mpl.rc_context({"font.size": 31}):
        before = dict(mpl.rcParams)
        samples.every_picture(tables)
        assert dict(mpl.rcParams) == before
    assert plt.get_fignums() == []


def test_importing_the_room_loads_nothing_heavy():
    code = "import sys, figures; print(*{'matplotlib', 'pandas', 'numpy', 'plotly'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_an_unknown_name_of_the_room_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'pie'"):
        figures.pie  # noqa: B018


def dots(axes):
    """Values of a panel's dots, from top to bottom."""
    places = np.concatenate([found.get_offsets() for found in axes.collections if isinstance(found, PathCollection)])
    return places[np.argsort(places[:, 1])][:, 0]


def lines(axes, number):
    """Ends of a panel's intervals, from top to bottom; 0 are the thin ones where there are two kinds."""
    found = [collection for collection in axes.collections if isinstance(collection, LineCollection)][number]
    segments = sorted(found.get_segments(), key=lambda segment: segment[0, 1])
    return np.array([segment[:, 0] for segment in segments])


def test_dots_and_both_intervals_of_a_cell_are_those_of_the_table():
    table = samples.cells().set_index(["row", "column"])
    axes = figures.interval_forest(samples.cells(), "GD", samples.TASKS).axes[0]
    here = table.loc[[("slake", "mimic"), ("slake", "derma")]]
    np.testing.assert_allclose(dots(axes), here["value"])
    np.testing.assert_allclose(lines(axes, 0), here[["simultaneous_low", "simultaneous_high"]])
    np.testing.assert_allclose(lines(axes, 1), here[["low", "high"]])


def test_cells_that_are_not_sure_are_hollow():
    table = samples.cells()
    figure = figures.interval_forest(table, "GD", samples.TASKS)
    scatter = next(found for found in figure.axes[0].collections if isinstance(found, PathCollection))
    here = table[(table["row"] == "slake") & (table["column"] != "slake")]
    hollow = [tuple(face[:3]) == (1, 1, 1) for face in scatter.get_facecolors()]
    assert hollow == [p > 0.05 for p in here["p_value"]]


def test_many_names_become_maps_of_what_is_sure_and_of_widths():
    names = [f"dataset {number}" for number in range(20)]
    table = samples.cells(names=names)
    left, right = figures.interval_forest(table, "GD").axes[:2]
    matrix = table.pivot(index="row", columns="column")
    shown = left.images[0].get_array()
    sure = (matrix["p_value"] <= 0.05).loc[names, names].to_numpy()
    np.testing.assert_array_equal(np.isfinite(shown.filled(np.nan)), sure)
    np.testing.assert_allclose(right.images[0].get_array(), (matrix["high"] - matrix["low"]).loc[names, names])


def test_bars_of_scores_are_the_shares(pictures):
    axes = pictures["score_distribution"].axes[0]
    shares = [bar.get_height() for bar in axes.patches if bar.__class__.__name__ == "Rectangle"]
    expected = np.concatenate([samples.histogram(0)["share"], samples.histogram(1)["share"]])
    np.testing.assert_allclose(shares, expected)
    np.testing.assert_allclose([segment[:, 1] for segment in axes.collections[0].get_segments()],
                               samples.histogram(0)[["low", "high"]])  # fmt: skip


def test_blocks_stand_in_their_rows():
    index = samples.block_indexes()
    blocks = samples.cells(block="router")
    axes = figures.block_maps(index, blocks, samples.TASKS).axes
    expected = index.pivot(index="block", columns="name", values="index")
    rows = [label.get_text() for label in axes[0].get_yticklabels()]
    columns = [label.get_text() for label in axes[0].get_xticklabels()]
    np.testing.assert_allclose(axes[0].images[0].get_array(), expected.loc[rows, columns])
    others = blocks[blocks["row"] != blocks["column"]].groupby("row")["value"].mean()
    np.testing.assert_allclose(axes[1].images[0].get_array()[rows.index("router")], others[columns])


def test_blocks_of_uncertain_sign_are_pale_and_no_others():
    index = samples.block_indexes()
    figure = figures.block_maps(index, samples.cells(block="router"), samples.TASKS)
    doubtful = index.pivot(index="block", columns="name", values="sign_uncertain")
    for axes in figure.axes[:2]:
        rows = [label.get_text() for label in figure.axes[0].get_yticklabels()]
        columns = [label.get_text() for label in axes.get_xticklabels()]
        pale = axes.images[0].get_alpha() < 1
        assert (pale == doubtful.loc[rows, columns].to_numpy()).all()
        assert pale.any()
        assert not pale.all()


def test_maps_of_routing_are_the_weights(tables, pictures):
    weights = tables["routing"].weights
    here = weights[(weights["checkpoint"] == "final") & (weights["level"] == "task")]
    axes = pictures["routing_maps"].axes[3]
    expected = here.pivot(index="name", columns="expert", values="weight").loc[["VQA", "RG", "CLS"]]
    np.testing.assert_allclose(axes.images[0].get_array(), expected)


def test_strips_of_an_image_have_the_weights_of_their_tokens(tables, pictures):
    tokens = tables["routing"].tokens
    here = tokens[(tokens["checkpoint"] == "final") & (tokens["dataset"] == "slake") & (tokens["expert"] == 0)]
    strips = next(found for found in pictures["token_weights"].axes[1].collections if isinstance(found, PolyCollection))
    np.testing.assert_allclose(strips.get_array(), here["weight"])
    corner = strips.get_paths()[0].vertices[:3]
    first = here.iloc[0]
    assert corner.tolist() == [
        [first["left"], first["top"]],
        [first["right"], first["top"]],
        [first["right"], first["bottom"]],
    ]


def test_points_of_features_are_all_there(tables, pictures):
    table = tables["features"].embeddings[2]
    axes = pictures["feature_map"].axes[1]
    here = table[(table["stage"] == "after") & (table["dataset"] == "mimic")]
    scatter = next(found for found in axes.collections if found.get_label() == "mimic")
    np.testing.assert_allclose(scatter.get_offsets(), here[["x", "y"]])


def test_three_dimensions_have_all_three(tables):
    table = tables["features"].embeddings[3]
    axes = figures.feature_map({"cmoe": table}, samples.TASKS).axes[0]
    here = table[(table["stage"] == "before") & (table["dataset"] == "slake")]
    scatter = next(found for found in axes.collections if found.get_label() == "slake")
    np.testing.assert_allclose(np.array(scatter._offsets3d).T, here[["x", "y", "z"]])


def arrows(axes):
    """Places of a panel's small arrows at its edges, by colour."""
    found = {}
    for collection in axes.collections:
        if isinstance(collection, PathCollection) and len(collection.get_paths()[0].vertices) <= 5:
            for place in collection.get_offsets():
                found.setdefault(to_hex(collection.get_facecolor()[0]), []).append(tuple(float(x) for x in place))
    return found


def labels(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_what_lies_beyond_an_axis_ends_in_an_arrow_and_the_legend_says_so():
    table = pd.DataFrame(
        {"block": ["one", "two", "three"], "name": "a", "index": [1.0, 2.0, 900.0], "low": [0.5, -35.0, 300.0]}
        | {"high": [1.5, 3.0, 2000.0], "sign_uncertain": [False, True, False]}
    )
    figure = figures.block_intervals(table)
    axes = figure.axes[0]
    low, high = axes.get_xlim()
    assert high - low < 10
    assert arrows(axes) == {"#4d4d4d": [(low, 1.0)], "#c00000": [(high, 2.0)]}
    round_dots = [d for d in axes.collections if isinstance(d, PathCollection) and len(d.get_paths()[0].vertices) > 5]
    assert np.isfinite(np.ma.filled(round_dots[0].get_offsets()[:, 0], np.nan)).tolist() == [True, True, False]
    assert labels(figure) == [
        "interval", "sign of the denominator uncertain", "interval goes on", "value beyond the axis",
    ]  # fmt: skip


def test_where_all_fits_there_are_no_arrows():
    figure = figures.block_intervals(samples.block_indexes().assign(index=1.0, low=0.5, high=1.5))
    assert all(arrows(axes) == {} for axes in figure.axes)
    assert "interval goes on" not in labels(figure)


def test_an_index_and_its_share_of_the_maximum_have_axes_of_their_own():
    ends = {"low": -40.0, "high": 4.0, "simultaneous_low": -60.0, "simultaneous_high": 6.0, "verdict": "not sure"}
    shares = {"low": -0.2, "high": 0.3, "simultaneous_low": -0.4, "simultaneous_high": 0.5, "verdict": "not sure"}
    rows = [{"measure": "index", "name": "a", "difference": 0.1, **ends}]
    rows += [{"measure": "index_normalised", "name": "a", "difference": 0.1, **shares}]
    index, share = figures.difference_indexes(pd.DataFrame(rows)).axes[:2]
    assert index.get_xlim() == (-5, 5)
    assert -0.6 < share.get_xlim()[0] < -0.4
    assert 0.5 < share.get_xlim()[1] < 0.7


def over_steps(steps):
    """An index over so many steps, the last of them without a bound and of uncertain sign."""
    step = np.arange(steps)
    table = pd.DataFrame({"step": step, "name": "a", "index": 1.5, "index_low": 1.0, "index_high": 2.0})
    table.loc[steps - 1, ["index_low", "index_high"]] = -500.0, 700.0
    return table.assign(sign_uncertain=step == steps - 1)


def test_few_steps_have_whiskers_and_many_a_band():
    few, many = (figures.index_over_steps(over_steps(steps)) for steps in (3, 40))
    segments = next(found for found in few.axes[0].collections if isinstance(found, LineCollection)).get_segments()
    np.testing.assert_allclose([segment[:, 1] for segment in segments], [[1, 2], [1, 2], [-500, 700]])
    low, high = few.axes[0].get_ylim()
    assert arrows(few.axes[0]) == {"#4d4d4d": [(2.0, low), (2.0, high)]}
    assert labels(few) == ["sign of the denominator uncertain", "interval goes on"]
    assert not any(isinstance(found, LineCollection) for found in many.axes[0].collections)
    assert any(isinstance(found, PolyCollection) for found in many.axes[0].collections)


def test_gd_that_leaves_its_panel_is_marked_at_the_edge():
    rows = [
        {"step": step, "row": row, "column": column, "value": value}
        for step, value in ((0, 0.5), (1, 900.0))
        for row, column in (("a", "b"), ("b", "a"))
    ]
    figure = figures.gd_over_steps(pd.DataFrame(rows))
    high = figure.axes[0].get_ylim()[1]
    assert high == 2
    assert {place for places in arrows(figure.axes[0]).values() for place in places} == {(1.0, high)}
    assert "value beyond the axis" in labels(figure)


def test_the_null_of_the_highest_block_is_not_cut():
    low, tall = samples.histogram(0).assign(block="low"), samples.histogram(1).assign(block="tall")
    axes = figures.score_blocks(pd.concat([low, tall.assign(null_no_conflict=0.97)])).axes[0]
    assert axes.get_ylim()[0] == 0
    assert axes.get_ylim()[1] > 0.97


def test_a_debiased_alignment_below_zero_is_inside_the_axis():
    table = pd.DataFrame({"name": ["all"], "value": [-0.05], "low": [-0.2], "high": [0.1]})
    assert figures.feature_alignment({"run": table}).axes[0].get_xlim()[0] < -0.2


def test_lines_over_steps_are_those_of_the_table(tables, pictures):
    table = tables["dynamics"].index["dataset"]
    axes = pictures["index_over_steps"].axes[0]
    here = table[table["name"] == "slake"]
    np.testing.assert_allclose(axes.lines[0].get_xydata(), here[["step", "index"]])


def test_differences_that_are_sure_are_outlined(tables, pictures):
    table = tables["difference"].gd["dataset"]
    axes = pictures["difference_maps"].axes[0]
    outlined = {(patch.get_x() + 0.5, patch.get_y() + 0.5) for patch in axes.patches if not patch.get_fill()}
    sure = table[table["verdict"] != "not sure"]
    places = {name: place for place, name in enumerate(samples.NAMES)}
    assert outlined == {(places[c], places[r]) for r, c in zip(sure["row"], sure["column"], strict=True)}
    np.testing.assert_allclose(
        axes.images[0].get_array(),
        table.pivot(index="row", columns="column", values="difference").loc[samples.NAMES, samples.NAMES],
    )


def test_a_forest_has_every_arm_and_names_those_that_wait(tables, pictures):
    deltas = tables["ablation"].deltas
    axes = pictures["delta_forest"].axes[0]
    total = deltas[deltas["group"] == "Total"]
    np.testing.assert_allclose(dots(axes), total["value"])
    np.testing.assert_allclose(lines(axes, 0), total[["low", "high"]])
    assert [label.get_text() for label in axes.get_yticklabels()] == [*total["arm"], "2a-sparse (waiting)"]
