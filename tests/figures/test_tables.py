import pytest

from figures.errors import UserError
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
