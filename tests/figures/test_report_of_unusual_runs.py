"""Reports of runs that are not as most are: odd names, few or many datasets, parts that are missing, wild numbers."""

import json
import re

import pandas as pd
import pytest

from figures.errors import UserError
from figures.report.about import about_runs
from figures.report.page import report
from figures.tables.runs import read_material

from . import made_runs
from .report_content import Page

pytestmark = pytest.mark.slow

HOSTILE = {
    "<script>alert(1)</script>": "VQA",
    "</script><img src=x onerror=alert(2)>": "RG",
    "<!-- -->&amp;": "REC",
    "a\"b'c`${d}\\": "CLS",
}
LONG = {f"{number:02d}_{'a_dataset_with_a_name_of_sixty_characters_or_so_'[:54]}end": "VQA" for number in range(40)}


def test_hostile_names_are_text_and_nothing_else(tmp_path):
    run = made_runs.complete(tmp_path / "run", tasks={name.replace("/", "∕"): task for name, task in HOSTILE.items()})
    run.joinpath("run.json").write_text('{"exit_reason": "finished", "</script><script>alert(3)</script>": "<b>x</b>"}')
    hostile = Page(report([run], tmp_path / "report.html"))
    count = lambda page, name: sum(tag == name for tag, _ in page.tags)  # noqa: E731
    assert count(hostile, "img") == 0
    assert len(hostile.scripts) == len(hostile.pictures) + 4
    assert not any(key.startswith("on") for _, attributes in hostile.tags for key in attributes)
    assert "</script><script>alert(3)</script>" in hostile.text
    labels = hostile.figure("interference")["layout"]["yaxis"]["ticktext"]
    assert any("&lt;" in label for label in labels)
    assert not any(re.search(r"<(?!/?span)", label) for label in labels)


@pytest.mark.parametrize(
    ("tasks", "options"),
    [({"one": "VQA"}, {}), (LONG, {}), (dict.fromkeys("abc", "VQA"), {"known_tasks": False})],
    ids=["one dataset", "40 datasets with long names", "no tasks"],
)
def test_unusual_sets_of_datasets_have_a_report(tmp_path, tasks, options):
    run = made_runs.complete(tmp_path / "run", tasks=tasks, **options)
    page = Page(report([run], tmp_path / "report.html"))
    data = page.figure("interference")["data"]
    assert len(data[0]["z"]) == len(tasks)
    assert len(page.figure("interference")["layout"]["yaxis"]["ticktext"]) == len(tasks)
    assert set(page.shown("interference")["row"]) == set(tasks)
    assert (tmp_path / "report.html").stat().st_size < 15e6


@pytest.mark.parametrize("question", ["gradients", "routing", "features", "dynamics"])
def test_a_run_with_one_question_answered_has_a_report(tmp_path, question):
    run = getattr(made_runs, question)(tmp_path / "run")
    page = Page(report([run], tmp_path / "report.html"))
    kinds = {"gradients": "interference", "routing": "routing", "features": "features-2d", "dynamics": "dynamics-gd"}
    assert {name for name in kinds.values() if name in page.pictures} == {kinds[question]}
    assert "Not measured of this run" in page.text


def test_an_ablation_alone_has_a_report(tmp_path):
    page = Page(report([made_runs.ablation(tmp_path / "2a.csv")], tmp_path / "report.html"))
    assert set(page.pictures) == {"forest"}
    assert page.figure("forest", "2a", "Total")["data"][1]["x"] == [-3.0, 2.0, 8.0]


def test_a_run_that_lacks_a_dataset_is_shown_and_said(tmp_path):
    fewer = {name: task for name, task in made_runs.TASKS.items() if name != "derma"}
    runs = [made_runs.gradients(tmp_path / "all"), made_runs.gradients(tmp_path / "fewer", tasks=fewer)]
    page = Page(report(runs, tmp_path / "report.html"))
    assert "fewer lacks derma" in page.text
    assert len(page.figure("interference", "fewer")["data"][0]["z"]) == len(fewer)


def test_an_image_that_is_missing_leaves_the_others(tmp_path):
    run = made_runs.routing(tmp_path / "run")
    (run / "routing" / "images" / "slake-0.png").unlink()
    page = Page(report([run], tmp_path / "report.html"))
    assert set(page.pictures["tokens"]["images"]) == {"run/mimic-0.png", "run/path-0.png"}
    for image in page.pictures["tokens"]["images"].values():
        assert image.startswith("data:image/png;base64,")


def test_tokens_lie_where_the_table_says(tmp_path):
    run = made_runs.routing(tmp_path / "run")
    page = Page(report([run], tmp_path / "report.html"))
    view = ("run", "connector.router", "final", "path-0.png", "expert 2")
    cells = page.figure("tokens", *view)["data"][0]
    table = pd.read_csv(run / "routing" / "tokens.csv")
    here = table[(table["checkpoint"] == "final") & (table["image"] == "path-0.png") & (table["expert"] == 2)]
    for _, token in here.iterrows():
        row, column = cells["y"].index(token["top"]), cells["x"].index(token["left"])
        assert cells["z"][row][column] == token["weight"]
        assert cells["x"][column + 1] == token["right"]
        assert cells["y"][row + 1] == token["bottom"]


def test_runs_that_cannot_be_compared_are_refused(tmp_path):
    runs = [made_runs.gradients(tmp_path / "a", batches=8), made_runs.gradients(tmp_path / "b", batches=9)]
    with pytest.raises(UserError, match="cannot be compared"):
        report(runs, tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


def test_a_point_that_says_nothing_does_not_press_the_others_flat(tmp_path):
    run = made_runs.gradients(tmp_path / "run")
    table = pd.read_csv(run / "gradients" / "index_dataset.csv")
    wild = {"index": -300.0, "index_low": -9000.0, "index_high": 8000.0}
    for end in ("low", "high"):
        wild[f"index_simultaneous_{end}"] = wild[f"index_{end}"]
    for column, value in wild.items():
        if column in table:
            table.loc[0, column] = value
    table.to_csv(run / "gradients" / "index_dataset.csv", index=False)
    figure = Page(report([run], tmp_path / "report.html")).figure("indexes", "dataset", "as it is")
    low, high = figure["layout"]["xaxis"]["range"]
    assert -30 < low < high < 30
    arrows = [
        trace for trace in figure["data"] if str(trace.get("marker", {}).get("symbol", "")).startswith("triangle-")
    ]
    # both ends go on, and hovering over the edge still tells the numbers
    assert {trace["marker"]["symbol"] for trace in arrows} >= {"triangle-left", "triangle-right"}
    assert any(-300.0 in line and 8000.0 in line for trace in arrows for line in trace["customdata"])
    assert "beyond the axis" in figure["layout"]["xaxis"]["title"]["text"]


def test_a_point_far_away_whose_interval_is_sure_stays_on_the_axis(tmp_path):
    run = made_runs.gradients(tmp_path / "run")
    table = pd.read_csv(run / "gradients" / "index_dataset.csv")
    table.loc[0, ["index", "index_low", "index_high"]] = [300.0, 290.0, 310.0]
    table.to_csv(run / "gradients" / "index_dataset.csv", index=False)
    figure = Page(report([run], tmp_path / "report.html")).figure("indexes", "dataset", "as it is")
    assert figure["layout"]["xaxis"]["range"][1] > 300


def test_four_runs_with_ten_thousand_points_each_fit_into_a_page(tmp_path):
    tasks = {f"dataset_{number}": task for number, task in enumerate(["VQA", "RG", "REC", "REG", "CLS"] * 2)}
    runs = [made_runs.features(tmp_path / f"run_{seed}", tasks=tasks, seed=seed, each=1000) for seed in range(4)]
    page = Page(report(runs, tmp_path / "report.html"))
    assert (tmp_path / "report.html").stat().st_size < 12e6
    shown = page.shown("features-2d", "run_2", "by dataset")
    # every dataset keeps its share, and before and after show the same samples
    assert set(shown.groupby(["stage", "dataset"]).size()) == {500}
    samples = shown.groupby("stage")["sample"].agg(set)
    assert samples["before"] == samples["after"]
    assert "40,000 of 80,000 points are in this page, one in 2 of every dataset" in page.text


def test_facts_at_a_glance_are_those_of_the_run(tmp_path):
    run = made_runs.gradients(tmp_path / "run")
    settings = {"connector": {"kind": "mlp", "router": "soft"}, "training": {"steps": 12000}}
    (run / "run.json").write_text(json.dumps({"settings": settings, "parameters": {"connector": 58560}}))
    glance = dict(about_runs(read_material([run]))[0].glance)
    assert glance["connector"] == "mlp"
    assert "router" not in glance  # an MLP has none, whatever its settings say
    assert glance["training steps"] == "12,000"
    assert glance["parameters of the connector"] == "58,560"
    assert glance["datasets"] == str(len(made_runs.TASKS))
