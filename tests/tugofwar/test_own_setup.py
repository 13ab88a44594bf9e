import json
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import tugofwar as tow
from tugofwar import cli
from tugofwar.own_setup import SetupFailed, open_study

STUDY = """
import torch

torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1))
x = torch.randn(12, 8, 5)
datasets = {"sum": [(b, b.sum(1)) for b in x], "first": [(b, b[:, 0]) for b in x], "last": [(b, b[:, 4]) for b in x]}


def loss(model, batch):
    return torch.nn.functional.mse_loss(model(batch[0])[:, 0], batch[1])


def setup():
    return model, datasets, loss
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(name, text):
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text))
    return path


def call(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["tugofwar", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return ended.value.code or 0


def gradients(monkeypatch, target, *options):
    return call(monkeypatch, "gradients", "--setup", target, "--quiet", *options)


def test_a_study_is_measured_as_from_python_and_drawn(here, monkeypatch, capsys):
    write("my_study.py", STUDY)
    out = ("--out", "study/gradients")
    assert gradients(monkeypatch, "my_study.py:setup", "--batches", 12, "--params", "0.*", *out) == 0
    assert "estimator ratio_of_means; tables in study/gradients" in capsys.readouterr().out
    with open_study("my_study.py:setup") as study:
        recording = tow.record(study.model, study.datasets, "0.*", 12, loss=study.loss, progress=False)
    gd = pd.read_csv("study/gradients/gd_dataset.csv", index_col=0)
    np.testing.assert_allclose(gd, tow.interference(recording, resamples=0).gd, rtol=1e-6)
    saved = tow.Recording.load("study/gradients")
    assert list(saved.parameters) == ["0.weight", "0.bias"]
    assert saved.metadata["setup"] == "my_study.py:setup"
    assert (
        saved.metadata["command"] == "tugofwar gradients --setup my_study.py:setup --params '0.*' --batches 12 --seed 0"
    )
    assert call(monkeypatch, "figures", "study", "--out", "pictures", "--format", "png") == 0
    drawn = {path.name for path in Path("pictures").glob("*.png")}
    of_the_run = ("interference", "intervals_gd", "intervals_gm", "breakdown", "breakdown_intervals", "scores_blocks")
    assert drawn == {"tug_of_war_indexes.png", "scores.png", *(f"{kind}_study.png" for kind in of_the_run)}
    assert call(monkeypatch, "inspect", "study", "--json") == 0


def test_all_trainable_parameters_by_default_and_datasets_by_name(here, monkeypatch):
    write("my_study.py", STUDY)
    options = ("--batches", 4, "--datasets", "last,sum", "--out", "out")
    assert gradients(monkeypatch, "my_study.py:setup", *options) == 0
    recording = tow.Recording.load("out")
    assert list(recording.rows) == ["sum", "last"]
    assert list(recording.parameters) == ["0.weight", "0.bias", "2.weight", "2.bias"]


def test_a_mapping_with_tasks_makes_the_task_level(here, monkeypatch, capsys):
    write(
        "my_study.py",
        STUDY + "\ndef tasked():\n    tasks = {'sum': 'many', 'first': 'one', 'last': 'one'}\n"
        "    return {'model': model, 'datasets': datasets, 'loss': loss, 'tasks': tasks}\n",
    )
    assert gradients(monkeypatch, "my_study.py:tasked", "--batches", 6, "--json", "--out", "study/gradients") == 0
    content = json.loads(capsys.readouterr().out)
    assert set(content["task"]) == {"many", "one"}
    assert call(monkeypatch, "figures", "study", "--out", "pictures", "--format", "png") == 0
    assert Path("pictures/interference_study_task.png").is_file()


def test_equal_runs_give_equal_bytes_from_any_folder(here, monkeypatch):
    for folder in ("a", "b"):
        path = write(f"{folder}/my_study.py", STUDY)
        assert gradients(monkeypatch, f"{path}:setup", "--batches", 4, "--out", f"{folder}/out") == 0
    files = sorted(path.name for path in Path("a/out").iterdir())
    assert len(files) > 8
    assert all((Path("a/out") / name).read_bytes() == (Path("b/out") / name).read_bytes() for name in files)


def test_modules_beside_the_file_can_be_imported_also_while_batches_are_read(here):
    write("lab/own_parts_h4.py", "SIZE = 3\n")
    write("lab/own_late_h4.py", "COUNT = 2\n")
    write(
        "lab/study.py",
        """
        import torch
        from own_parts_h4 import SIZE

        def batches():
            from own_late_h4 import COUNT
            yield from [torch.zeros(SIZE)] * COUNT

        def setup():
            return torch.nn.Linear(SIZE, 1), {"a": batches()}
        """,
    )
    before = list(sys.path)
    with open_study("lab/study.py:setup") as study:
        assert len(list(study.datasets["a"])) == 2
    assert sys.path == before
    assert "study" not in sys.modules


def test_a_file_called_like_a_module_in_use_does_not_replace_it(here):
    write("json.py", STUDY)
    with open_study("json.py:setup") as study:
        assert isinstance(study.model, torch.nn.Module)
    assert sys.modules["json"] is json


def test_a_dotted_module_of_the_current_folder(here):
    write("lab_h4/__init__.py", "")
    write("lab_h4/study.py", STUDY)
    with open_study("lab_h4.study:setup") as study:
        assert list(study.datasets) == ["sum", "first", "last"]
        assert study.metadata["setup"] == "lab_h4.study:setup"


SENTENCES = [
    ("my_study.py", "--setup is 'my_study.py'; write FILE.py:FUNCTION or package.module:function"),
    ("my_study.py:", "write FILE.py:FUNCTION"),
    (":setup", "write FILE.py:FUNCTION"),
    ("nowhere.py:setup", "There is no file nowhere.py"),
    ("nowhere_h4:setup", "There is no module 'nowhere_h4'"),
    ("json.nowhere_h4:setup", "There is no module 'json.nowhere_h4'"),
    ("my study.txt:setup", "'my study.txt' is neither a .py file nor a dotted module name"),
    ("my_study.py:setpu", "There is no setpu of my_study.py; did you mean setup"),
    ("my_study.py:datasets", "datasets of my_study.py is not a function but a dict"),
    ("my_study.py:loss", "loss of my_study.py is called without arguments, but missing a required argument: 'model'"),
]


@pytest.mark.parametrize(("target", "sentence"), SENTENCES)
def test_a_target_that_does_not_exist_is_one_sentence(here, monkeypatch, capsys, target, sentence):
    write("my_study.py", STUDY)
    assert gradients(monkeypatch, target, "--out", "out") == 2
    printed = capsys.readouterr().err
    assert printed.startswith("Error: ")
    assert printed.count("\n") == 1
    assert sentence in printed
    assert not Path("out").exists()


RETURNED = [
    (
        "None",
        "setup of my_study.py returned a NoneType; return (model, datasets), (model, datasets, loss), or a mapping",
    ),
    ("model", "returned a Sequential; return"),
    ("(model,)", "returned a tuple of 1 items"),
    ("(datasets, model)", "is no torch.nn.Module but a dict"),
    ("(model, [1])", "must map names to iterables of batches, not be a list"),
    ("(model, {})", "must map names to iterables of batches, not be an empty mapping"),
    ("(model, {3: []})", "has the name 3; names are text"),
    (
        "(model, {'a': {'x': 1}})",
        "Dataset 'a' that setup of my_study.py returned is a dict, not an iterable of batches",
    ),
    ("(model, {'a': x})", "is a Tensor, not an iterable of batches"),
    ("(model, {'a': 5})", "is a int, not an iterable of batches"),
    (
        "(model, datasets, 'mse')",
        "The loss that setup of my_study.py returned is no function of (model, batch) but a str",
    ),
    ("{'model': model}", "without the key 'datasets'"),
    ("{'model': model, 'dataset': datasets}", "unknown key 'dataset'; did you mean 'datasets'"),
    ("{'model': model, 'zzz': 1}", "unknown key 'zzz'; the keys are model, datasets, loss, tasks, preconditioner"),
    ("dict(model=model, datasets=datasets, tasks={'sun': 'A'})", "tasks that setup of my_study.py returned name 'sun'"),
    ("dict(model=model, datasets=datasets, tasks={'sum': 'A'})", "do not say, as text, which task dataset 'first' is"),
    ("dict(model=model, datasets=datasets, tasks=['A'])", "must map dataset names to tasks, not be a list"),
]


@pytest.mark.parametrize(("returned", "sentence"), RETURNED)
def test_a_wrong_return_value_is_one_sentence(here, monkeypatch, capsys, returned, sentence):
    write("my_study.py", STUDY.replace("return model, datasets, loss", f"return {returned}"))
    assert gradients(monkeypatch, "my_study.py:setup", "--out", "out") == 2
    printed = capsys.readouterr().err
    assert printed.startswith("Error: ")
    assert printed.count("\n") == 1
    assert sentence in printed
    assert not Path("out").exists()


FAULTS = [
    (
        "def setup():\n    return broken()\n\ndef broken():\n    return 1 / 0\n",
        "setup of fault.py raised ZeroDivisionError.",
    ),
    ("import nothing_h4\n", "fault.py raised ModuleNotFoundError."),
    ("def setup(:\n    pass\n", "fault.py raised SyntaxError."),
]


@pytest.mark.parametrize(("text", "sentence"), FAULTS)
def test_an_exception_of_their_own_code_shows_that_code_only(here, monkeypatch, capsys, text, sentence):
    write("fault.py", text)
    assert gradients(monkeypatch, "fault.py:setup", "--out", "out") == 2
    printed = capsys.readouterr().err
    assert printed.endswith(f"Error: {sentence}\n")
    assert str(here / "fault.py") in printed
    for ours in ("own_setup.py", "cli.py", "importlib", "contextlib"):
        assert ours not in printed


def test_the_failing_line_is_the_last_of_their_traceback(here):
    write("fault.py", FAULTS[0][0])
    with pytest.raises(SetupFailed) as failed, open_study("fault.py:setup"):
        pass
    assert "in setup\n" in failed.value.report
    assert "in broken\n    return 1 / 0" in failed.value.report
    assert isinstance(failed.value.__cause__, ZeroDivisionError)


def test_a_sentence_of_their_own_stays_their_sentence(here, monkeypatch, capsys):
    write("study.py", "import tugofwar as tow\n\ndef setup():\n    raise tow.UserError('Set DATA first.')\n")
    assert gradients(monkeypatch, "study.py:setup", "--out", "out") == 2
    assert capsys.readouterr().err == "Error: Set DATA first.\n"


OPTIONS = [
    (["--out", "out", "--batch-size", "4"], "--batch-size has no meaning with --setup"),
    (["--out", "out", "--data", "."], "--data has no meaning with --setup"),
    (["--out", "out", "--with-replacement"], "--with-replacement has no meaning with --setup"),
    (["--out", "out", "--ckpt", "."], "Give either --ckpt RUN with --data ROOT, or --setup"),
    (["--out", "out", "--batches", "1"], "--batches is 1"),
    (["--out", "out", "--batches", "13"], "Dataset 'sum' has 12 batches but 13"),
    (["--out", "out", "--datasets", "lsat"], "--datasets names 'lsat'; the closest names are last"),
    (["--out", "out", "--params", "encoder.*"], "selects no parameter"),
    (["--out", "my_study.py"], "is a file"),
    ([], "--setup needs --out"),
]


@pytest.mark.parametrize(("options", "sentence"), OPTIONS)
def test_options_that_do_not_go_together(here, monkeypatch, capsys, options, sentence):
    write("my_study.py", STUDY)
    assert gradients(monkeypatch, "my_study.py:setup", *options) == 2
    printed = capsys.readouterr().err
    assert sentence in printed
    assert printed.count("\n") == 1
    assert not Path("out").exists()


@pytest.mark.parametrize("options", [[], ["--data", "."], ["--ckpt", "."]])
def test_a_source_is_needed(here, monkeypatch, capsys, options):
    assert call(monkeypatch, "gradients", *options) == 2
    assert "--data" in capsys.readouterr().err


def test_the_console_command_needs_no_install_of_the_study(here):
    write("my_study.py", STUDY)
    command = [shutil.which("tugofwar", path=str(Path(sys.executable).parent)), "gradients", "--quiet"]
    command += ["--setup", "my_study:setup", "--batches", "3", "--out", "out"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (here / "out" / "interference.json").is_file()


def test_a_preconditioner_reaches_the_recorder(here, monkeypatch):
    given = {}

    def record(*arguments, **options):
        given.update(options)
        raise tow.UserError("seen")

    monkeypatch.setattr("tugofwar.recorder.record", record)
    returned = "dict(model=model, datasets=datasets, loss=loss, preconditioner={'0.bias': x})"
    write("my_study.py", f"{STUDY}\ndef with_moments():\n    return {returned}\n")
    assert gradients(monkeypatch, "my_study.py:with_moments", "--out", "out") == 2
    assert list(given["preconditioner"]) == ["0.bias"]
    given.clear()
    assert gradients(monkeypatch, "my_study.py:setup", "--out", "out") == 2
    assert given["loss"].__name__ == "loss"
    assert "preconditioner" not in given
