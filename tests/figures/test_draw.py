import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from analyses.interference import write_tables
from figures import style
from figures.draw import draw
from figures.errors import UserError
from figures.gallery import PICTURES
from figures.tables.runs import read_material
from tugofwar.recording import Block, Recording, upper_triangle

from . import made_runs

FEW = {"slake": "VQA", "mimic": "RG", "derma": "CLS"}


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
    written = draw(runs, out, only=["interference", "indexes"])
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
    assert "How to read it: " in caption
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_the_tables_beside_the_pictures_hold_what_is_drawn(tmp_path):
    run = measured_run(tmp_path / "mlp")
    draw([run], tmp_path / "out", ["png"], ["interference", "indexes"])
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
        draw([run], tmp_path / name, ["png", "pdf", "svg"], ["interference", "indexes"])
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"batches": 9}, r"differ in batches per dataset \(8 and 9\)"),
        ({"batch_size": 1}, r"differ in batch size \(4 and 1\)"),
    ],
)
def test_runs_measured_differently_are_not_compared(tmp_path, other, message):
    runs = [measured_run(tmp_path / "mlp"), measured_run(tmp_path / "cmoe", **other)]
    with pytest.raises(UserError, match=message):
        draw(runs, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_runs_of_one_name_are_told_apart_by_their_parents(tmp_path):
    runs = [measured_run(tmp_path / parent / "cmoe", seed) for seed, parent in enumerate(("tiny", "paper"))]
    written = {path.name for path in draw(runs, tmp_path / "out", ["png"], ["interference"])}
    assert {"interference_tiny_cmoe.png", "interference_paper_cmoe.png"} <= written
    with pytest.raises(UserError, match="Two runs have the name"):
        draw([runs[0], runs[0]], tmp_path / "out")


def test_an_index_without_a_maximum_cannot_be_compared(tmp_path):
    run = measured_run(tmp_path / "mlp", opposed=True)
    with pytest.raises(UserError, match="nothing to draw for indexes: it needs gradients with a positive"):
        draw([run], tmp_path / "out", ["png"], ["interference", "indexes"])
    assert not (tmp_path / "out").exists()
    written = [path.name for path in draw([run], tmp_path / "out", ["png"])]
    assert "interference_mlp.png" in written
    assert "tug_of_war_indexes.png" not in written


def test_a_run_that_lacks_a_dataset_is_compared_with_a_warning(tmp_path):
    runs = [measured_run(tmp_path / "mlp"), measured_run(tmp_path / "cmoe", names=("slake", "other"))]
    draw(runs, tmp_path / "out", ["png"], ["indexes"])
    table = pd.read_csv(tmp_path / "out" / "tug_of_war_indexes.csv")
    datasets = table[table["level"] == "dataset"]
    assert list(zip(datasets["run"], datasets["name"], strict=True)) == [
        ("mlp", "slake"),
        ("mlp", "chest"),
        ("cmoe", "slake"),
        ("cmoe", "other"),
    ]
    assert "Warning: " in (tmp_path / "out" / "tug_of_war_indexes.txt").read_text()


def test_every_kind_is_drawn_from_a_run_of_which_everything_was_measured(tmp_path):
    other = made_runs.gradients(tmp_path / "mlp", tasks=FEW, seed=1)
    run = made_runs.complete(tmp_path / "cmoe", other, tasks=FEW)
    material = read_material([other, run, made_runs.ablation(tmp_path / "2a.csv")])
    for kind, make in PICTURES.items():
        pictures = list(make(material, "paper"))
        assert pictures, kind
        for picture in pictures:
            assert isinstance(picture.figure, Figure)
            assert len(picture.table)
            assert not picture.table.isna().any(axis=None), picture.stem
            assert picture.caption().startswith(picture.explanation.title)


@pytest.mark.parametrize(
    ("options", "absent"),
    [
        ({"tasks": {"slake": "VQA"}}, {"intervals", "difference", "forest"}),
        ({"tasks": FEW, "known_tasks": False}, {"difference", "forest"}),
    ],
)
def test_one_dataset_or_no_tasks_leave_out_only_what_does_not_exist(tmp_path, options, absent):
    material = read_material([made_runs.complete(tmp_path / "run", **options)])
    assert {kind for kind, make in PICTURES.items() if not list(make(material, "paper"))} == absent


def test_a_model_without_a_router_has_no_pictures_of_one(tmp_path):
    run = made_runs.gradients(tmp_path / "run", tasks=FEW)
    with pytest.raises(UserError, match="nothing to draw for routing: it needs a router"):
        draw([run], tmp_path / "out", ["png"], ["routing"])
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_forty_datasets_with_long_names_stay_legible(tmp_path):
    tasks = {
        f"{'a_name_of_a_dataset_that_is_as_long_as_sixty_characters'}_{n:04d}": f"task {n % 12}" for n in range(40)
    }
    runs = [made_runs.complete(tmp_path / f"{'run' * 19}_{n}", tasks=tasks, seed=n) for n in range(2)]
    for make in PICTURES.values():
        for picture in make(read_material(runs), "paper"):
            style.settle(picture.figure)
            check_legible(picture)


@pytest.mark.parametrize("look", ["paper", "talk"])
def test_nothing_is_smaller_than_print_allows_or_cut_off(tmp_path, look):
    other = made_runs.gradients(tmp_path / "mlp", tasks=FEW, seed=1)
    run = made_runs.complete(tmp_path / "cmoe", other, tasks=FEW)
    material = read_material([other, run, made_runs.ablation(tmp_path / "2a.csv")])
    for kind, make in PICTURES.items():
        picture = next(iter(make(material, look)))
        style.settle(picture.figure)
        check_legible(picture, kind)
        if look == "talk":
            assert min(text.get_fontsize() for text in texts(picture.figure)) >= 11
            assert picture.figure.get_figwidth() / picture.figure.get_figheight() <= 16 / 9 + 0.01


def texts(figure):
    return [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]


def check_legible(picture, kind=""):
    figure = picture.figure
    assert min(text.get_fontsize() for text in texts(figure)) >= style.SMALLEST
    figure.draw_without_rendering()
    tight = figure.get_tightbbox()
    width, height = figure.get_size_inches()
    where = f"{kind} {picture.stem}: {tight.extents} in {width} x {height}"
    assert tight.x0 > -0.02, where
    assert tight.y0 > -0.02, where
    assert tight.x1 < width + 0.02, where
    assert tight.y1 < height + 0.02, where


def test_fonts_are_embedded_in_pdfs_as_outlines_that_stay_text(tmp_path):
    draw([measured_run(tmp_path / "mlp")], tmp_path / "out", ["pdf"], ["interference"])
    content = (tmp_path / "out" / "interference_mlp.pdf").read_bytes()
    assert b"/FontFile2" in content
    assert b"/Type3" not in content
    assert b"/Subtype /CIDFontType2" in content or b"/Subtype /TrueType" in content


def test_several_processes_write_the_same_files_and_the_same_errors(tmp_path):
    run = measured_run(tmp_path / "mlp")
    one, two = (
        draw([run], tmp_path / f"with {processes}", ["pdf"], ["interference", "indexes"], processes=processes)
        for processes in (1, 2)
    )
    assert [path.name for path in one] == [path.name for path in two]
    for mine, theirs in zip(one, two, strict=True):
        assert mine.read_bytes() == theirs.read_bytes()
    with pytest.raises(UserError, match="nothing to draw for tokens"):
        draw([run], tmp_path / "out", ["pdf"], ["indexes", "tokens"], processes=2)
    assert not (tmp_path / "out").exists()


def test_the_command_draws_what_is_asked_for(tmp_path):
    run = measured_run(tmp_path / "mlp")
    arguments = [str(run), "--out", str(tmp_path / "out"), "--only", "indexes", "--format", "svg", "--style", "talk"]
    command = [sys.executable, "-m", "tugofwar.cli", "figures", *arguments, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["files"] == ["tug_of_war_indexes.svg"]
    assert b"<path" in (tmp_path / "out" / "tug_of_war_indexes.svg").read_bytes()


def test_an_interrupt_ends_all_processes_and_leaves_nothing(tmp_path):
    """Ctrl-C in a terminal reaches every process of the command."""
    run = made_runs.complete(tmp_path / "run")
    command = [sys.executable, "-m", "tugofwar.cli", "figures", str(run), "--out", str(tmp_path / "out")]
    running = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    while not list(tmp_path.glob(".out.*/*.png")):
        assert running.poll() is None
        time.sleep(0.05)
    os.killpg(running.pid, signal.SIGINT)
    _, said = running.communicate(timeout=60)
    assert running.returncode == 130
    assert said.splitlines()[-1].endswith("Interrupted. Nothing half-written was left behind.")
    assert "Traceback" not in said
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    # what keeps count of the processes' locks goes a moment after them
    assert any(is_gone(running.pid) or time.sleep(0.05) for _ in range(200))


SLOW_PICTURES = """
import sys, time
from pathlib import Path
from figures.draw import _parallel

def draw_kind(kind):
    Path(kind).touch()
    time.sleep(600)

if __name__ == "__main__":
    list(_parallel(draw_kind, ["one", "two"], 2))
"""


def test_an_interrupt_does_not_wait_for_pictures_that_are_being_drawn(tmp_path):
    (tmp_path / "script.py").write_text(SLOW_PICTURES)
    running = subprocess.Popen(
        [sys.executable, "script.py"], cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    while not ((tmp_path / "one").exists() and (tmp_path / "two").exists()):
        assert running.poll() is None
        time.sleep(0.05)
    os.killpg(running.pid, signal.SIGINT)
    try:
        # ten times sooner than a picture would be done
        _, said = running.communicate(timeout=60)
    finally:
        running.kill()
    assert said.splitlines()[-1] == "KeyboardInterrupt"
    assert said.count("Traceback") == 1


def is_gone(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


def test_an_unmeasured_run_names_both_commands(tmp_path):
    with pytest.raises(UserError, match=r"--ckpt .* --data ROOT`, or .*--setup FILE.py:FUNCTION --out .*gradients`"):
        draw([tmp_path], tmp_path / "out")


def test_the_geometry_of_adam_is_drawn_beside_the_plain_one(tmp_path):
    run = measured_run(tmp_path / "mlp")
    write_tables(Recording.load(run / "gradients"), run / "gradients" / "adam", resamples=20)
    written = {
        path.name for path in draw([run, run / "gradients" / "adam"], tmp_path / "out", ["png"], ["interference"])
    }
    assert {"interference_mlp.png", "interference_mlp_adam.png"} <= written


def drop_key(path):
    content = json.loads(path.read_text())
    del content["tasks"]
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "interference.json").unlink(), "has no measured gradients, and nothing else"),
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
    with pytest.raises(UserError, match="no kind of picture 'pie'; choose from interference"):
        draw([tmp_path], tmp_path / "out", ["png"], ["pie"])
    with pytest.raises(UserError, match="no style 'poster'; choose from paper, talk"):
        draw([tmp_path], tmp_path / "out", look="poster")
    with pytest.raises(UserError, match="no run folder"):
        draw([tmp_path / "nowhere"], tmp_path / "out")
    with pytest.raises(UserError, match="no runs to draw"):
        draw([], tmp_path / "out")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file"):
        draw([measured_run(tmp_path / "mlp")], tmp_path / "file")
