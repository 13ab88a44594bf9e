import json
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch import nn

from tugofwar import cli
from tugofwar.recorder import record
from tugofwar.recording import Recording


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.connector = nn.Linear(4, 3)
        self.head = nn.Linear(3, 1)

    def forward(self, x, text):
        return SimpleNamespace(loss=(self.head(x if text else self.connector(x)) ** 2).mean())


def batches_of(seed, count, text=False):
    generator = torch.Generator().manual_seed(seed)
    return [{"x": torch.randn(2, 3 if text else 4, generator=generator) + 1, "text": text} for _ in range(count)]


@pytest.fixture
def run_folder(tmp_path, monkeypatch):
    """A run whose model and batches come from a stand-in for ``unimed_model.probing``."""

    def load_for_probing(checkpoint, roots, datasets, batches, batch_size, seed, with_replacement):
        torch.manual_seed(0)
        model = Model()
        sources = {
            "slake_vqa": batches_of(seed + 1, batches),
            "chest": batches_of(seed + 2, batches),
            "pubmedqa": batches_of(seed + 3, batches, text=True),
        }
        chosen = {name: source for name, source in sources.items() if datasets is None or name in datasets}
        tasks = {"slake_vqa": "VQA", "chest": "CLS", "pubmedqa": "QA"}
        return SimpleNamespace(model=model, batches=chosen, tasks=tasks, metadata={"checkpoint_sha256": "0"})

    probing = ModuleType("unimed_model.probing")
    probing.load_for_probing = load_for_probing
    monkeypatch.setitem(sys.modules, "unimed_model.probing", probing)
    (tmp_path / "run").mkdir()
    (tmp_path / "data").mkdir()
    return tmp_path / "run"


def call(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["tugofwar", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return ended.value.code or 0


def measure(monkeypatch, run, *options):
    data = run.parent / "data"
    return call(monkeypatch, "gradients", "--ckpt", run, "--data", data, "--batches", 6, *options)


def test_gradients_prints_the_indexes_and_names_what_is_untouched(run_folder, monkeypatch, capsys):
    assert measure(monkeypatch, run_folder) == 0
    printed = capsys.readouterr()
    assert "slake_vqa  VQA   6" in printed.out
    assert "not touching connector.*: pubmedqa" in printed.out
    assert "18/18" in printed.err
    names = {path.name for path in (run_folder / "gradients").iterdir()}
    assert {
        "recording.safetensors",
        "manifest.json",
        "gd_dataset.csv",
        "gd_task.csv",
        "interference.json",
    } <= names
    manifest = json.loads((run_folder / "gradients" / "manifest.json").read_text())
    assert manifest["untouched"] == ["pubmedqa"]
    assert manifest["metadata"]["command"] == (
        "tugofwar gradients --params 'connector.*' --batches 6 --batch-size 4 --seed 0"
    )


def test_json_and_quiet(run_folder, monkeypatch, capsys):
    assert measure(monkeypatch, run_folder, "--json", "--quiet", "--datasets", "chest, slake_vqa") == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    content = json.loads(printed.out)
    assert content["estimator"] == "ratio_of_means"
    assert content["untouched"] == []
    assert max(row["index_normalised"] for row in content["dataset"].values()) == 1


def test_the_same_seed_gives_the_same_bytes(run_folder, monkeypatch):
    for name in ("one", "two"):
        assert measure(monkeypatch, run_folder, "--quiet", "--out", run_folder / name) == 0
    files = sorted(path.name for path in (run_folder / "one").iterdir())
    assert len(files) > 10
    for name in files:
        assert (run_folder / "one" / name).read_bytes() == (run_folder / "two" / name).read_bytes()


def test_measuring_again_replaces_the_earlier_output(run_folder, monkeypatch):
    assert measure(monkeypatch, run_folder, "--quiet") == 0
    first = (run_folder / "gradients" / "gd_dataset.csv").read_bytes()
    assert measure(monkeypatch, run_folder, "--quiet", "--seed", 3) == 0
    assert (run_folder / "gradients" / "gd_dataset.csv").read_bytes() != first
    assert [path.name for path in run_folder.iterdir()] == ["gradients"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--params", "conector.*"], "selects no parameter"),
        (["--params", ","], "--params is empty"),
        (["--batches", "1"], "needs at least 2"),
        (["--batch-size", "0"], "--batch-size is 0"),
        (["--datasets", "pubmedqa"], "not touching the selected parameters"),
        (["--ckpt", "/nowhere/at/all"], "no checkpoint folder /nowhere/at/all"),
    ],
)
def test_a_mistake_ends_with_one_sentence_and_leaves_nothing(run_folder, monkeypatch, capsys, options, message):
    assert measure(monkeypatch, run_folder, "--quiet", *options) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("Error: ")
    assert printed.err.count("\n") == 1
    assert message in printed.err
    assert list(run_folder.iterdir()) == []


def test_a_folder_with_something_else_is_not_replaced(run_folder, monkeypatch, capsys):
    (run_folder / "model.safetensors").write_text("precious")
    assert measure(monkeypatch, run_folder, "--quiet", "--out", run_folder) == 2
    assert "is not replaced" in capsys.readouterr().err
    assert [path.name for path in run_folder.iterdir()] == ["model.safetensors"]


def test_inspect_a_run_and_its_recording(run_folder, monkeypatch, capsys):
    assert measure(monkeypatch, run_folder, "--quiet") == 0
    capsys.readouterr()
    assert call(monkeypatch, "inspect", run_folder) == 0
    text = capsys.readouterr().out
    assert "connector  2        15" in text
    assert "not touching the selected parameters: pubmedqa" in text
    assert "plugin" in text
    assert call(monkeypatch, "inspect", run_folder / "gradients", "--json") == 0
    content = json.loads(capsys.readouterr().out)
    assert content["blocks"] == {"connector": {"connector.weight": 12, "connector.bias": 3}}
    assert set(content["index"]) == {"plugin", "leave_one_out", "ratio_of_means"}
    assert content["geometries"] == []
    assert set(content["undefined"]) == {"dataset", "task"}
    choices = Recording.load(run_folder / "gradients").choices
    assert content["choices"] == [choice.model_dump() for choice in choices]
    for choice in choices:
        assert choice.reason in text
    assert "without a statistics score between tasks (no gradient reaches them): 0 parameters" in text


def test_inspect_names_the_geometries(tmp_path, monkeypatch, capsys):
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    data = {"a": list(torch.randn(3, 4, 3)), "b": list(torch.randn(3, 4, 3))}
    moments = {"weight": torch.ones(2, 3), "bias": torch.ones(2)}
    options = {"loss": lambda m, x: m(x).square().mean(), "progress": False, "preconditioner": moments}
    record(model, data, "*", 3, **options).save(tmp_path)
    assert call(monkeypatch, "inspect", tmp_path) == 0
    assert "also recorded in the geometry of: adam" in capsys.readouterr().out


def test_inspect_without_a_recording(tmp_path, monkeypatch, capsys):
    assert call(monkeypatch, "inspect", tmp_path) == 2
    assert "There is no recording in" in capsys.readouterr().err


def test_figures_of_a_measured_run(run_folder, monkeypatch, capsys):
    assert measure(monkeypatch, run_folder, "--quiet") == 0
    capsys.readouterr()
    out = run_folder.parent / "pictures"
    assert call(monkeypatch, "figures", run_folder, "--out", out, "--format", "png") == 0
    printed = capsys.readouterr().out.splitlines()
    assert {Path(line).stem for line in printed} == FIGURES
    assert sorted(printed) == sorted(map(str, out.glob("*.png")))
    assert all(Path(line).with_suffix(kind).stat().st_size > 0 for line in printed for kind in (".png", ".csv", ".txt"))


FIGURES = {
    "tug_of_war_indexes",
    *(f"scores{level}" for level in ("", "_task")),
    *(
        f"{kind}_run{level}"
        for kind in (
            "interference",
            "intervals_gd",
            "intervals_gm",
            "breakdown",
            "breakdown_intervals",
            "scores_blocks",
        )
        for level in ("", "_task")
    ),
}


def test_figures_of_an_unmeasured_run(run_folder, monkeypatch, capsys):
    assert call(monkeypatch, "figures", run_folder, "--out", run_folder / "out") == 2
    assert "begin with `tugofwar gradients --ckpt" in capsys.readouterr().err


def python(*arguments):
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)


COMMANDS = ("gradients", "routing", "features", "dynamics", "compare", "figures", "report", "inspect")


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)])
def test_help_is_printed(command):
    """That it is quick follows from what is not imported, below."""
    result = python("-m", "tugofwar.cli", *command, "--help")
    assert result.returncode == 0
    assert "Usage" in result.stdout


@pytest.mark.parametrize("module", ["tugofwar", "tugofwar.cli"])
def test_importing_stays_light(module):
    heavy = ["torch", "matplotlib", "sklearn", "pandas", "transformers", "scipy", "seaborn"]
    code = f"import sys, {module}; print([name for name in {heavy} if name in sys.modules])"
    assert python("-c", code).stdout.strip() == "[]"


def test_version():
    result = python("-m", "tugofwar.cli", "--version")
    assert result.returncode == 0
    assert result.stdout.startswith("tugofwar 0")


@pytest.mark.parametrize("command", ["gradients", "routing", "features", "dynamics"])
def test_a_seed_that_no_generator_takes_is_refused(command, monkeypatch, capsys):
    assert call(monkeypatch, command, *(["run"] if command == "dynamics" else []), "--seed", 2**32) == 2
    # the second is how older versions of click put it
    assert re.search(r"(less than or equal to |<=)2147483647", " ".join(capsys.readouterr().err.split()))


def test_an_unknown_option_ends_with_status_two():
    assert python("-m", "tugofwar.cli", "gradients", "--nonsense").returncode == 2
