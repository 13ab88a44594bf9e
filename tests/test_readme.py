"""What the README says is done: `make demo`, its steps by hand, its Python, its tables and its links."""

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

SMALLER = {"STEPS": 30, "LIMIT": 6, "BATCHES": 4, "FOLLOWED": 4, "FEW": 2, "SAMPLES": 12}
"""What a test gives to `make demo` so that it can wait for it."""


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def steps_by_hand():
    return [shlex.split(line) for line in blocks("sh")[1].strip().splitlines()]


def steps_of_make_demo():
    done = subprocess.run(["make", "-n", "demo"], cwd=ROOT, capture_output=True, text=True, check=True)
    recipe = re.sub(r"\\\n\s*", " ", done.stdout)
    loop = re.search(r"for kind in mlp cmoe; do run=(\S+); (.*?) done\n", recipe)
    turns = [loop[2].replace("$run", loop[1]).replace("$kind", kind) for kind in ("mlp", "cmoe")]
    recipe = "\n".join([recipe[: loop.start()], *turns, recipe[loop.end() :]])
    return [shlex.split(command) for command in re.findall(r"\.venv/bin/([^;>\n]+)", recipe)]


def is_spelled_out(step, by_hand):
    """The step by hand leaves out what is the default anyway."""
    return step[:2] == by_hand[:2] and set(by_hand) <= set(step)


def test_the_steps_by_hand_are_those_of_make_demo():
    steps, by_hand = steps_of_make_demo(), [words for words in steps_by_hand() if words[1] != "inspect"]
    assert len(steps) == len(by_hand) == 16
    for words in by_hand:
        assert len([step for step in steps if is_spelled_out(step, words)]) == 1, words
    for step in steps:
        assert len([words for words in by_hand if is_spelled_out(step, words)]) == 1, step


@pytest.mark.slow
def test_make_demo_runs_from_raw_data_to_the_report(tmp_path):
    """As the first of the README's two commands, in the environment of this test and on less data."""
    sizes = [f"{name}={value}" for name, value in SMALLER.items()]
    # the environment counts as made
    make = ["make", "--assume-old=.venv/.installed", "demo", f"BIN={BIN}", f"DEMO={tmp_path / 'demo'}", *sizes]
    done = subprocess.run(make, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "mni_rec iou" in done.stdout
    assert (tmp_path / "demo" / "figures" / "tug_of_war_indexes.png").is_file()
    assert (tmp_path / "demo" / "report.html").stat().st_size > 4e6
    environment = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    (inspect,) = [words for words in steps_by_hand() if words[1] == "inspect"]
    looked = subprocess.run(inspect, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert re.search(r"mni_rec +REC +4 ", looked.stdout)


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
