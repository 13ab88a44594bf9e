import json

import numpy as np
import pandas as pd
import pytest

from analyses.interference import write_tables
from figures.draw import draw
from figures.errors import UserError
from tugofwar.recording import Block, Recording, upper_triangle


def measured_run(folder, seed=0, batches=8, batch_size=4, names=("slake", "chest"), opposed=False):
    gradients = np.random.default_rng(seed).normal(size=(len(names) * batches, 6)) * 0.3 + 1
    if opposed:
        gradients[batches:] = -1.001 * gradients[:batches]
    recording = Recording(
        (Block("connector", {"connector.weight": 6}),),
        {"connector": upper_triangle(gradients @ gradients.T)},
        [name for name in names for _ in range(batches)],
        np.ones(len(gradients)),
        untouched=("pubmedqa",),
        tasks={"slake": "VQA", "chest": "CLS", "other": "RG", "pubmedqa": "QA"},
        metadata={"batch_size": batch_size, "parameters": "connector.*"},
    )
    recording.save(folder / "gradients")
    write_tables(recording, folder / "gradients", resamples=50)
    return folder


def test_every_picture_has_its_table_and_caption(tmp_path):
    runs = [measured_run(tmp_path / "mlp", 0), measured_run(tmp_path / "cmoe", 1)]
    out = tmp_path / "figures-out"
    written = draw(runs, out)
    stems = ["interference_mlp", "interference_mlp_task", "interference_cmoe", "interference_cmoe_task"]
    stems.append("tug_of_war_indexes")
    assert written == [out / f"{stem}.{kind}" for stem in stems for kind in ("png", "pdf")]
    assert {path.name for path in out.iterdir()} == {
        f"{stem}.{kind}" for stem in stems for kind in ("png", "pdf", "csv", "txt")
    }
    assert (out / "interference_mlp.png").read_bytes().startswith(b"\x89PNG")
    assert (out / "interference_mlp.pdf").read_bytes().startswith(b"%PDF")
    caption = (out / "interference_mlp.txt").read_text()
    for fact in ("8 batches per dataset of 4 samples", "ratio_of_means", "95%", "50 resamples", "pubmedqa"):
        assert fact in caption
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_the_tables_beside_the_pictures_hold_what_is_drawn(tmp_path):
    run = measured_run(tmp_path / "mlp")
    draw([run], tmp_path / "out", ["png"])
    cells = pd.read_csv(tmp_path / "out" / "interference_mlp.csv", index_col=["row", "column"])
    gd = pd.read_csv(run / "gradients" / "gd_dataset.csv", index_col=0)
    gm = pd.read_csv(run / "gradients" / "gm_dataset.csv", index_col=0)
    for (row, column), cell in cells.iterrows():
        assert cell["value_gd"] == pytest.approx(gd.loc[row, column])
        assert cell["value_gm"] == pytest.approx(gm.loc[row, column])
    assert len(cells) == 4
    indexes = pd.read_csv(tmp_path / "out" / "tug_of_war_indexes.csv")
    assert list(indexes["level"]) == ["dataset"] * 2 + ["task"] * 2
    assert not indexes.isna().any(axis=None)


def test_drawing_again_gives_the_same_bytes(tmp_path):
    run = measured_run(tmp_path / "mlp")
    for name in ("one", "two"):
        draw([run], tmp_path / name)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"batches": 9}, r"batches per dataset differ \(8 and 9\)"),
        ({"batch_size": 1}, r"batch size differ \(4 and 1\)"),
        ({"names": ("slake", "other")}, "datasets differ"),
    ],
)
def test_runs_measured_differently_are_not_compared(tmp_path, other, message):
    runs = [measured_run(tmp_path / "mlp"), measured_run(tmp_path / "cmoe", **other)]
    with pytest.raises(UserError, match=message):
        draw(runs, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_runs_of_one_name_are_told_apart_by_their_parents(tmp_path):
    runs = [measured_run(tmp_path / parent / "cmoe", seed) for seed, parent in enumerate(("tiny", "paper"))]
    written = {path.name for path in draw(runs, tmp_path / "out", ["png"])}
    assert {"interference_tiny_cmoe.png", "interference_paper_cmoe.png"} <= written
    with pytest.raises(UserError, match="Two runs have the name"):
        draw([runs[0], runs[0]], tmp_path / "out")


def test_an_index_without_a_maximum_cannot_be_compared(tmp_path):
    run = measured_run(tmp_path / "mlp", opposed=True)
    with pytest.raises(UserError, match="No tug-of-war index of run mlp is positive"):
        draw([run], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_unmeasured_run_names_both_commands(tmp_path):
    with pytest.raises(UserError, match=r"--ckpt .* --data ROOT`, or .*--setup FILE.py:FUNCTION --out .*gradients`"):
        draw([tmp_path], tmp_path / "out")


def test_the_geometry_of_adam_is_drawn_beside_the_plain_one(tmp_path):
    run = measured_run(tmp_path / "mlp")
    write_tables(Recording.load(run / "gradients"), run / "gradients" / "adam", resamples=20)
    written = {path.name for path in draw([run, run / "gradients" / "adam"], tmp_path / "out", ["png"])}
    assert {"interference_mlp.png", "interference_mlp_adam.png"} <= written


def drop_key(path):
    content = json.loads(path.read_text())
    del content["tasks"]
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "interference.json").unlink(), "has no measured gradients; make them with"),
        (lambda f: (f / "interference.json").write_text("{"), "truncated or not JSON"),
        (lambda f: (f / "interference.json").write_text("[]"), "not what `tugofwar gradients` writes"),
        (lambda f: drop_key(f / "interference.json"), "'tasks' is missing"),
        (lambda f: (f / "manifest.json").unlink(), "manifest.json is missing"),
        (lambda f: (f / "gm_task.csv").unlink(), "gm_task.csv is missing"),
        (lambda f: (f / "gm_task.csv").write_text(""), "gm_task.csv is not a readable table"),
    ],
)
def test_damaged_tables_are_one_clear_sentence(tmp_path, damage, message):
    run = measured_run(tmp_path / "mlp")
    damage(run / "gradients")
    with pytest.raises(UserError, match=message):
        draw([run], tmp_path / "out")


def test_bad_arguments(tmp_path):
    with pytest.raises(UserError, match="no picture format 'gif'"):
        draw([tmp_path], tmp_path / "out", ["gif"])
    with pytest.raises(UserError, match="no run folder"):
        draw([tmp_path / "nowhere"], tmp_path / "out")
    with pytest.raises(UserError, match="no runs to draw"):
        draw([], tmp_path / "out")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file"):
        draw([measured_run(tmp_path / "mlp")], tmp_path / "file")
