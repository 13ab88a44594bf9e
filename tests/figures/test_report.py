import json
import re
import stat
import subprocess
import sys
from itertools import pairwise

import pytest
from plotly import graph_objects
from plotly.offline import get_plotlyjs

from figures.errors import UserError
from figures.report.page import report
from figures.report.parts import Parts
from figures.report.safety import json_for_script, plot_text
from figures.tables.runs import read_material

from . import made_runs
from .report_content import Page

pytestmark = pytest.mark.slow

EVERY_PICTURE = {
    "interference", "intervals", "indexes", "breakdown", "breakdown-cells", "scores", "score-blocks",
    "routing", "routing-measures", "routing-divergence", "switched-off", "tokens",
    "features-2d", "features-3d", "separation", "alignment", "stability",
    "dynamics-index", "dynamics-gd", "dynamics-routing", "dynamics-loss",
    "difference", "difference-indexes", "difference-scores", "forest",
}  # fmt: skip


@pytest.fixture(scope="module", name="runs")
def two_runs_and_an_ablation(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    mlp = made_runs.complete(folder / "mlp", seed=1)
    return [mlp, made_runs.complete(folder / "cmoe", mlp, seed=2), made_runs.ablation(folder / "2a.csv")]


@pytest.fixture(scope="module", name="path")
def written_report(runs, tmp_path_factory):
    return report(runs, tmp_path_factory.mktemp("out") / "made" / "report.html")


@pytest.fixture(scope="module", name="page")
def read_report(path):
    return Page(path)


def test_every_picture_is_there(page):
    assert set(page.pictures) == EVERY_PICTURE


def test_maps_show_the_numbers_of_the_tables(page, runs):
    for run in read_material(runs).measured:
        for level, tables in run.levels.items():
            gd, gm = page.figure("interference", run.name, level, "GD and GM")["data"]
            # the tables' own order is that of the tasks only if someone sorted them
            names = [cells[0][0] for cells in gd["customdata"]]
            assert sorted(names) == sorted(tables.gd.index)
            assert gd["z"] == tables.gd.loc[names, names].to_numpy().tolist()
            assert gm["z"] == tables.gm.loc[names, names].to_numpy().tolist()


def test_rows_of_intervals_are_those_of_the_tables(page, runs):
    run = read_material(runs).measured[1]
    cells = run.levels["dataset"].gd_intervals.set_index(["row", "column"])
    figure = page.figure("intervals", "cmoe", "dataset", "GD (direction)", "derma")
    outer, inner, points = figure["data"][:3]
    names = [line[0] for line in points["customdata"]]
    expected = cells.loc["derma"].loc[names]
    assert points["x"] == expected["value"].tolist()
    assert inner["x"][0::3] == expected["low"].tolist()
    assert inner["x"][1::3] == expected["high"].tolist()
    assert outer["x"][0::3] == expected["simultaneous_low"].tolist()
    assert outer["x"][1::3] == expected["simultaneous_high"].tolist()
    assert set(inner["x"][2::3]) == {None}


def test_indexes_of_both_runs_are_those_of_the_tables(page, runs):
    for scale, column in (("divided by the run's maximum", "index_normalised"), ("as it is", "index")):
        data = page.figure("indexes", "task", scale)["data"]
        drawn = {trace["name"]: trace for trace in data if trace.get("mode") == "markers" and "name" in trace}
        for run in read_material(runs).measured:
            names = [line[0] for line in drawn[run.name]["customdata"]]
            assert drawn[run.name]["x"] == run.levels["task"].index.loc[names, column].tolist()
            assert len(names) == len(run.levels["task"].index)


def test_scores_with_their_nulls_are_those_of_the_tables(page, runs):
    table = read_material(runs).measured[0].levels["task"].scores
    data = page.figure("scores", "task", "mlp")["data"]
    assert data[0]["y"] == table["share"].tolist()
    lines = {trace["name"]: trace["y"] for trace in data if trace.get("mode") == "lines+markers"}
    assert lines["if signs were independent"] == table["null_signs"].tolist()
    assert lines["if there were no conflict"] == table["null_no_conflict"].tolist()


def test_routing_weights_are_those_of_the_table(page, runs):
    table = read_material(runs).runs[1].routing.weights
    map_ = page.figure("routing", "cmoe", "connector.router", "dataset", "mean weight", "after warm-up", "Map")
    here = table[(table["checkpoint"] == "checkpoint-200") & (table["level"] == "dataset")]
    square = here.pivot(index="name", columns="expert", values="weight")
    names = [line[0][0] for line in map_["data"][0]["customdata"]]
    assert map_["data"][0]["z"] == square.loc[names].to_numpy().tolist()


@pytest.mark.parametrize(("dimensions", "axes"), [(2, "xy"), (3, "xyz")])
def test_points_of_the_embedding_are_those_of_the_table(page, runs, dimensions, axes):
    table = read_material(runs).runs[1].features.embeddings[dimensions]
    data = page.figure(f"features-{dimensions}d", "cmoe", "by dataset")["data"]
    drawn = [
        (trace["customdata"][number][0], *(trace[axis][number] for axis in axes))
        for trace in data
        for number in range(len(trace["x"]))
    ]
    assert sorted(drawn) == sorted(table[["dataset", *axes]].itertuples(index=False, name=None))


def test_losses_over_steps_are_those_of_the_table(page, runs):
    table = read_material(runs).runs[0].dynamics.loss
    for line in page.figure("dynamics-loss", "mlp", "all together")["data"]:
        here = table[table["dataset"] == line["name"]]
        assert line["x"] == here["step"].tolist()
        assert line["y"] == here["loss"].tolist()
    assert len(page.figure("dynamics-loss", "mlp", "all together")["data"]) == table["dataset"].nunique()


def test_differences_that_are_sure_are_marked_and_no_others(page, runs):
    table = read_material(runs).differences[0].gd["dataset"].set_index(["row", "column"])
    cells = page.figure("difference", "cmoe − mlp", "dataset", "GD", "Map")["data"][0]
    marks = {"higher": "▲ ", "lower": "▼ ", "not sure": ""}
    seen = set()
    for row, line in enumerate(cells["customdata"]):
        for column, (one, other, *_) in enumerate(line):
            assert cells["z"][row][column] == table.loc[(one, other), "difference"]
            assert cells["text"][row][column] == marks[table.loc[(one, other), "verdict"]]
            seen.add(table.loc[(one, other), "verdict"])
    assert {"not sure", "higher"} <= seen or {"not sure", "lower"} <= seen


def test_parts_of_the_network_with_uncertain_signs_are_marked_and_no_others(page, runs):
    seen = set()
    for run, found in zip(runs, read_material(runs).measured, strict=False):
        table = found.levels["dataset"].index_blocks.set_index(["block", "name"])
        cells = page.figure("breakdown", run.name, "dataset", "Map")["data"][0]
        for numbers, texts, values in zip(cells["customdata"], cells["text"], cells["z"], strict=True):
            for (block, name, *_), text, value in zip(numbers, texts, values, strict=True):
                assert value == table.loc[(block, name), "index"]
                assert text == ("†" if table.loc[(block, name), "sign_uncertain"] else "")
                seen.add(text)
    assert seen == {"", "†"}


def test_what_the_table_shows_is_what_the_picture_is_about(page):
    for name, picture in page.pictures.items():
        for view in picture["views"]:
            shown = page.tables[view["table"]].iloc[slice(*view["rows"])]
            assert len(shown), (name, view["at"])
            for label, column in (("Run", "run"), ("Level", "level")):
                if label in picture["pickers"] and column in shown and name not in ("routing-measures", "scores"):
                    chosen = view["at"][picture["pickers"].index(label)]
                    if "side by side" not in chosen and "all " not in chosen:
                        assert set(shown[column]) == {chosen}, (name, view["at"])


def test_no_number_of_a_table_is_rounded(page, runs):
    run = read_material(runs).runs[0]
    shown = page.shown("dynamics-index", "mlp", "task", "as it is")
    merged = shown.merge(run.dynamics.index["task"], on=["step", "name"], suffixes=("", "_table"))
    assert len(merged) == len(shown) == len(run.dynamics.index["task"])
    assert (merged["value"] == merged["index_table"]).all()


def test_every_figure_is_valid_for_plotly(page):
    for name, picture in page.pictures.items():
        for view in [*picture["views"][:3], *picture["views"][-3:]]:
            figure = page.figure(name, *view["at"])
            # what the page alone knows: its colours
            plain = _without_page_colours({"data": figure["data"], "layout": figure["layout"]})
            graph_objects.Figure(plain)


def _without_page_colours(part):
    if isinstance(part, dict):
        return {key: _without_page_colours(value) for key, value in part.items()}
    if isinstance(part, list):
        return [_without_page_colours(item) for item in part]
    return "#123456" if isinstance(part, str) and part.startswith("var(--") else part


def test_every_colour_of_the_page_that_figures_name_exists_in_both_themes(path, page):
    css = re.search(r"<style>(.*?)</style>", path.read_text(), re.S)[1]
    light, dark = css.split('[data-theme="dark"]')[:2]
    named = set(re.findall(r"var\((--[a-z0-9-]+)\)", str([page.pictures, page.parts])))
    assert named
    for name in named:
        assert f"{name}:" in light
        assert f"{name}:" in dark.split("}")[0]


def test_findings_and_warnings_of_every_picture_are_in_the_overview(page):
    explained = [text for picture in page.pictures.values() for text in picture["texts"]]
    assert any(text["finding"] for text in explained)
    for text in explained:
        for warning in text["warnings"]:
            assert warning in page.text


def test_equations_are_named(page):
    for number in (1, 2, 3, 4, 5):
        assert f"Equation {number}" in page.text


def test_nothing_is_fetched_from_elsewhere(path, page):
    for tag, attributes in page.tags:
        for name in ("src", "href", "srcset", "data", "action", "poster"):
            value = attributes.get(name) or ""
            assert value.startswith(("#", "data:")) or not value, (tag, value)
    rest = path.read_text(encoding="utf-8").replace(get_plotlyjs(), "")
    assert not re.findall(r"https?://[^\s\"'<]*", rest)
    assert "@import" not in rest
    assert "url(" not in rest
    policy = next(attributes["content"] for _, attributes in page.tags if "http-equiv" in attributes)
    assert "default-src 'none'" in policy
    assert "connect-src 'none'" in policy


def test_headings_do_not_skip_a_level_and_labels_belong_to_something(page):
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    names = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(names) == len(set(names))
    for tag, attributes in page.tags:
        if tag == "a":
            assert attributes["href"][1:] in names
        for key in ("aria-labelledby", "aria-describedby", "for"):
            if key in attributes:
                assert attributes[key] in names


def test_equal_runs_give_equal_bytes(path, runs, tmp_path):
    assert report(runs, tmp_path / "again.html").read_bytes() == path.read_bytes()


def test_it_is_small_enough(path):
    assert path.stat().st_size < 9e6


def test_a_script_cannot_be_ended_from_inside():
    text = json_for_script({"</script>": "<!--\u2028&", "number": float("nan"), "end": float("inf")})
    assert not set("<>&\u2028") & set(text)
    assert '"number":null' in text
    assert '"end":null' in text
    assert plot_text("<b>&") == "&lt;b&gt;&amp;"


def test_the_output_may_not_be_a_folder_and_nothing_is_left(tmp_path, runs):
    with pytest.raises(UserError, match="is a folder"):
        report(runs, tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file"):
        report(runs, tmp_path / "file" / "report.html")
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


def test_a_failure_leaves_the_earlier_report_and_nothing_else(tmp_path, runs, monkeypatch):
    out = tmp_path / "report.html"
    out.write_text("earlier")
    monkeypatch.setattr("pathlib.Path.replace", lambda *_: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(UserError, match=r"report\.html cannot be written: full"):
        report(runs[:1], out)
    assert out.read_text() == "earlier"
    assert list(tmp_path.iterdir()) == [out]


# An interpreter in which no file can grow beyond a megabyte, as if the disk were full.
SHORT_OF_ROOM = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
sys.argv[0] = "tugofwar"
from tugofwar.cli import main
main()
"""


def test_no_room_for_the_page_is_one_sentence_and_leaves_nothing(tmp_path):
    run, out = made_runs.gradients(tmp_path / "run"), tmp_path / "out" / "report.html"
    out.parent.mkdir()
    command = [sys.executable, "-c", SHORT_OF_ROOM, "report", str(run), "--out", str(out), "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(f"Error: The output {out} cannot be written:")
    assert len(done.stderr.splitlines()) == 1
    assert list(out.parent.iterdir()) == []


def test_others_may_read_it_as_any_new_file(path, tmp_path):
    (tmp_path / "new").touch()
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE((tmp_path / "new").stat().st_mode)


def test_the_command_prints_the_file_and_its_size(tmp_path):
    run = made_runs.gradients(tmp_path / "run")
    out = tmp_path / "new" / "report.html"
    command = [sys.executable, "-m", "tugofwar.cli", "report", str(run), "--out", str(out), "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert re.fullmatch(rf"{re.escape(str(out))} \([0-9.]+ MB\)\n", done.stdout)
    assert done.stderr == ""
    failed = subprocess.run([*command[:-2], str(tmp_path)], capture_output=True, text=True, check=False)
    assert failed.returncode == 2
    assert failed.stderr.splitlines()[-1].startswith("Error: The output")


def test_marks_of_chance_are_on_the_axis(page):
    for name in ("separation", "stability"):
        for view in page.pictures[name]["views"]:
            figure = page.figure(name, *view["at"])
            low, high = figure["layout"]["xaxis"]["range"]
            chance = next(trace["x"] for trace in figure["data"] if trace.get("name") == "by chance")
            assert all(low <= place <= high for place in chance)


def test_the_overview_has_findings_by_question_and_links_them(page, path):
    links = [attributes for tag, attributes in page.tags if tag == "a" and "data-at" in attributes]
    assert links
    for link in links:
        picture = page.pictures[link["href"][1:]]
        assert json.loads(link["data-at"]) in [view["at"] for view in picture["views"]]
    # one shown per question at least, and none twice
    text = path.read_text()
    head = text[text.index('id="overview"') : text.index('class="card care"')]
    assert head.index('href="#gradients"') < head.index('href="#parameters"')


def test_the_first_row_of_intervals_is_one_to_be_trusted(page, runs):
    run = read_material(runs).measured[0]
    shown = page.pictures["intervals"]["views"][page.pictures["intervals"]["first"]]
    assert shown["at"][-1] not in run.levels[shown["at"][1]].sign_uncertain


def test_weights_on_an_image_begin_with_the_expert_that_has_most(page, runs):
    tokens = read_material(runs).runs[0].routing.tokens
    _, _, label, image, expert = page.pictures["tokens"]["views"][page.pictures["tokens"]["first"]]["at"]
    assert label == "final"
    here = tokens[(tokens["checkpoint"] == "final") & (tokens["image"] == image)]
    assert expert == f"expert {here.groupby('expert')['weight'].mean().idxmax()}"


def test_equal_parts_are_held_once_and_unequal_ones_kept_apart():
    label = {"text": "a label of an axis", "size": 1, "colour": "#123456", "angle": 90}
    parts = Parts()
    figures = [{"axis": label, "n": 1}, {"axis": dict(label), "n": True}, {"axis": label | {"size": 1.0}}]
    shown, common = parts.resolve([parts.add(figure) for figure in figures])
    assert shown[0] == {"axis": {"$part": 0}, "n": 1}
    assert shown[1]["axis"] == {"$part": 0}
    assert shown[1]["n"] is True
    # 1 and 1.0 are equal, and are not the same in JSON
    assert shown[2] == figures[2]
    assert isinstance(shown[2]["axis"]["size"], float)
    assert common == [label]
