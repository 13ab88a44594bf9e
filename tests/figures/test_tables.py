import json

import pytest

from figures.errors import UserError
from figures.explaining import routing
from figures.tables.runs import read_material

from . import made_runs


@pytest.fixture(scope="module", name="pair")
def two_runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    mlp = made_runs.gradients(folder / "mlp", seed=1)
    return mlp, made_runs.complete(folder / "cmoe", mlp, seed=2)


def test_everything_measured_of_each_run_is_read(pair, tmp_path):
    material = read_material([*pair, made_runs.ablation(tmp_path / "2a.csv")])
    mlp, cmoe = material.runs
    assert (mlp.name, cmoe.name) == ("mlp", "cmoe")
    assert mlp.routing is None
    assert cmoe.routing.checkpoints == ["checkpoint-200", "final"]
    assert set(cmoe.features.embeddings) == {2, 3}
    assert cmoe.dynamics.manifest["steps"] == [0, 100, 200, 300]
    assert [(found.a, found.b) for found in material.differences] == [("mlp", "cmoe")]
    assert material.ablations[0].waiting == ("2a-sparse",)
    assert cmoe.tasks["derma"] == "CLS"


def test_a_dataset_called_like_a_number_or_like_nothing_keeps_its_name(tmp_path):
    run = made_runs.complete(tmp_path / "run", tasks={"2024": "VQA", "NA": "VQA", "01": "CLS"})
    only = read_material([run]).runs[0]
    assert list(only.gradients.levels["dataset"].gd) == ["2024", "NA", "01"]
    assert set(only.gradients.levels["dataset"].gd_intervals["row"]) == {"2024", "NA", "01"}
    assert set(only.features.embeddings[2]["dataset"]) == {"2024", "NA", "01"}


def test_a_run_of_which_nothing_was_measured_names_the_command(tmp_path):
    with pytest.raises(UserError, match="tugofwar gradients"):
        read_material([tmp_path])


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match="no run folder"):
        read_material([tmp_path / "absent"])


@pytest.mark.parametrize("file", ["routing/weights.csv", "features/embedding_2d.csv", "dynamics/gd_dataset.csv"])
def test_a_damaged_table_is_named(tmp_path, file):
    run = made_runs.complete(tmp_path / "run")
    (run / file).write_text("nothing\n1\n")
    with pytest.raises(UserError, match=file.split("/")[1]):
        read_material([run])


TABLES = (
    "gradients/blocks.csv",
    "gradients/gd_dataset.csv",
    "gradients/gd_dataset_intervals.csv",
    "gradients/gm_task_blocks.csv",
    "gradients/index_dataset.csv",
    "gradients/scores_task.csv",
    "routing/load.csv",
    "features/separation.csv",
    "dynamics/loss.csv",
)


@pytest.mark.parametrize("file", TABLES)
def test_a_table_that_was_cut_short_is_named_with_its_line(tmp_path, file):
    run = made_runs.complete(tmp_path / "run")
    lines = (run / file).read_text().splitlines()
    place = min(2, len(lines) - 1)
    (run / file).write_text("\n".join([*lines[:place], lines[place].rpartition(",")[0]]) + "\n")
    with pytest.raises(UserError, match=rf"{file} is damaged at line {place + 1}, column "):
        read_material([run])
    (run / file).write_text("\n".join([*lines[:place], lines[place].rpartition(",")[0] + ",x"]) + "\n")
    with pytest.raises(UserError, match=rf"{file} is damaged at line {place + 1}, column "):
        read_material([run])


@pytest.mark.parametrize("file", [file for file in TABLES if file.startswith("gradients")])
def test_a_foreign_table_is_named(tmp_path, file):
    run = made_runs.complete(tmp_path / "run")
    (run / file).write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match=rf"{file} (has no column|is no square table)"):
        read_material([run])


@pytest.mark.parametrize("measure", ["gd", "gm"])
def test_intervals_of_other_pairs_than_the_map_has_are_refused(tmp_path, measure):
    run = made_runs.complete(tmp_path / "run")
    path = run / "gradients" / f"{measure}_task_intervals.csv"
    path.write_text(path.read_text().splitlines(keepends=True)[0])
    with pytest.raises(UserError, match=f"{measure}_task_intervals.csv has other rows and columns than gd_task.csv"):
        read_material([run])


@pytest.mark.parametrize("question", ["routing", "features", "dynamics"])
def test_a_foreign_manifest_is_named(tmp_path, question):
    run = made_runs.complete(tmp_path / "run")
    (run / question / "manifest.json").write_text('{"format": 3}')
    with pytest.raises(UserError, match=rf"{question}/manifest.json lacks the key"):
        read_material([run])


def renumbered(run, steps):
    """The made-up run's routing, its two checkpoints being of these steps, None for unknown."""
    path = run / "routing" / "manifest.json"
    content = json.loads(path.read_text())
    for entry, step in zip(content["checkpoints"], steps, strict=True):
        entry.pop("step")
        entry |= {} if step is None else {"step": step}
    path.write_text(json.dumps(content))
    return read_material([run]).runs[0]


@pytest.mark.parametrize(
    ("steps", "last"), [((200, 6000), "final"), ((6000, 200), "checkpoint-200"), ((6000, None), "final")]
)
def test_checkpoints_stand_in_the_order_of_training_where_it_is_known(tmp_path, steps, last):
    only = renumbered(made_runs.complete(tmp_path / "run"), steps)
    assert only.routing.checkpoints[-1] == last
    assert list(only.routing.labels)[-1] == last
    told = routing.information(only, only.routing.routers[0]).caption
    named = told.partition("Checkpoints: ")[2].partition(";")[0].split(", ")
    assert named[-1].startswith(only.routing.labels[last])
