"""Every command and every line of Python in the README is run; only sizes are made smaller."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BIN = Path(sys.executable).parent

SMALLER = {
    "unimed-train": ["--set", "training.steps=30", "--set", "training.warmup_steps=3", "--quiet"],
    "unimed-eval": ["--limit", "6", "--quiet"],
    "tugofwar gradients": ["--batches", "4", "--quiet"],
    "tugofwar features": ["--samples", "12", "--quiet"],
    "tugofwar dynamics": ["--batches", "4", "--quiet"],
    "tugofwar routing": ["--batches", "2", "--quiet"],
}
"""What is added to a command so that a test can wait for it."""


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def smaller(command):
    words = shlex.split(command)
    extra = SMALLER.get(" ".join(words[:2]), SMALLER.get(words[0], []))
    return words + extra


@pytest.mark.slow
def test_the_steps_by_hand_run_in_their_order(tmp_path):
    commands = blocks("sh")[1].strip().splitlines()
    assert len(commands) == 17
    environment = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    for command in commands:
        done = subprocess.run(
            smaller(command), cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command}\n{done.stderr}"
    assert "mni_rec iou" in done.stdout
    assert (tmp_path / "demo" / "figures" / "tug_of_war_indexes.png").is_file()
    assert (tmp_path / "demo" / "report.html").stat().st_size > 4e6


def test_the_steps_by_hand_are_those_of_make_demo():
    """`make -n demo` spells the same commands, so running them one by one runs the demo."""
    done = subprocess.run(["make", "-n", "demo"], cwd=ROOT, capture_output=True, text=True, check=True)
    recipe = re.sub(r"\\\n\s*", " ", done.stdout)
    for kind in ("mlp", "cmoe"):
        spelled = recipe.replace("$kind", kind).replace("$run", f"demo/runs/{kind}")
        for command in blocks("sh")[1].strip().splitlines():
            words = shlex.split(command)
            if kind in command.split("/")[-1] or f"{kind} " in command or words[0] == "unimed-data":
                missing = [word for word in words if word not in spelled]
                assert words[1] == "inspect" or not missing, (command, missing)


def test_the_two_commands_exist():
    assert blocks("sh")[0].split("\n")[:2] == ["make demo", "make test"]
    for target in ("demo", "test"):
        subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, check=True)


def test_the_python_runs_as_printed(tmp_path):
    (code,) = blocks("python")
    assert len(code.strip().splitlines()) <= 12
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "difference" in done.stdout


def test_files_that_the_readme_links_to_exist():
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_the_tables_in_the_readme_are_those_kept_beside_the_pictures():
    """`docs/images/summary.md` is what `analyses.summary` printed for the run that the pictures show."""
    (pasted,) = re.findall(r"<!-- summary -->\n(.*?)<!-- /summary -->", README, flags=re.DOTALL)
    assert pasted.strip() == (ROOT / "docs" / "images" / "summary.md").read_text(encoding="utf-8").strip()


def test_the_costs_in_the_readme_are_those_of_the_benchmark():
    rows = json.loads((ROOT / "benchmarks" / "results.json").read_text(encoding="utf-8"))["rows"]
    table = [row for row in rows if row["section"] == "table" and row["outcomes"]]
    outcomes = {(row["method"], row["batches"]): row["outcomes"][0] for row in table}
    costs = re.sub(r"\s+", " ", README.split("What it costs")[1].split("## ")[0])
    ratios = {key: f"{outcome['ratio']:.2f}" for key, outcome in outcomes.items()}
    assert f"{ratios['ours', 200]} with 200 batches and {ratios['ours', 1000]} with 1,000" in costs
    assert f"Keeping all gradients costs {ratios['naive loop', 200]} with 200" in costs
    assert f"{ratios['ours', 8]} with 8" in costs
    assert f"(dattri-llm, {ratios['dattri-llm', 8]})" in costs
    assert f"BackPACK {ratios['BackPACK', 200]}, dattri-llm {ratios['dattri-llm', 200]}" in costs
    ours, naive = (f"{outcomes[name, 200]['extra_bytes'] / 1e9:.2f} GB" for name in ("ours", "naive loop"))
    assert f"{ours} with 200 batches, where all gradients take {naive}" in costs


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_clean_names_everything_that_the_demo_makes():
    done = subprocess.run(["make", "-n", "clean"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "rm -rf demo " in done.stdout
