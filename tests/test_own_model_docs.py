"""Every example of docs/own-model.md is run as printed; what it prints has the printed form."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import tugofwar as tow

ROOT = Path(__file__).parent.parent
DOCUMENT = (ROOT / "docs" / "own-model.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", DOCUMENT, flags=re.DOTALL | re.MULTILINE))
EXAMPLES = {title.removeprefix("Example: "): text for title, text in SECTIONS.items() if title.startswith("Example: ")}
PICTURES = {
    "two heads on one trunk": "heads/heatmap.png",
    "a LLaVA-type model": "llava/pictures/interference_llava.png",
    "a LoRA-tuned LLM": "lora/heatmap.png",
    "a mixture of experts": "moe/pictures/interference_moe.png",
}


def blocks(text, language):
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


def form(printed):
    """Words without numbers: a number is whatever the installed versions compute."""
    return re.sub(r"-?\d+(\.\d+)?", "0", printed).split()


def run(command, folder):
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_there_are_four_examples():
    assert set(EXAMPLES) == set(PICTURES)


SLOW = "a mixture of experts"


@pytest.mark.parametrize(
    "title", [pytest.param(title, marks=[pytest.mark.slow] if title == SLOW else []) for title in PICTURES]
)
def test_an_example_runs_as_printed(title, tmp_path):
    printed = []
    (code,) = blocks(EXAMPLES[title], "python")
    if "peft" in code:
        pytest.importorskip("peft", reason="peft is a dependency of this example and of the tests only")
    file = re.match(r"# (\w+\.py)\n", code)
    (tmp_path / (file[1] if file else "example.py")).write_text(code, encoding="utf-8")
    if not file:
        printed.append(run([sys.executable, "example.py"], tmp_path))
    for commands in blocks(EXAMPLES[title], "sh"):
        printed += [run(["sh", "-c", command], tmp_path) for command in commands.strip().splitlines()]
    (expected,) = blocks(EXAMPLES[title], "text")
    assert form(printed[0]) == form(expected)
    assert (tmp_path / PICTURES[title]).read_bytes().startswith(b"\x89PNG")
    recording = tow.Recording.load(tmp_path / Path(PICTURES[title]).parts[0] / "gradients")
    assert recording.untouched == ()


def test_the_printed_numbers_of_the_first_example_say_what_its_text_says():
    (printed,) = blocks(EXAMPLES["two heads on one trunk"], "text")
    gd = {line.split()[0]: [float(v) for v in line.split()[1:]] for line in printed.splitlines()[1:4]}
    assert gd["size"][1] < -0.8
    assert gd["minus_size"][0] < -0.8


def test_what_is_not_run_is_python_and_names_what_exists():
    for title, text in SECTIONS.items():
        for code in blocks(text, "python"):
            for node in ast.walk(ast.parse(code)):
                if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "tow":
                    assert node.attr in tow.__all__, f"{title}: tow.{node.attr}"


def test_files_that_the_document_links_to_exist():
    prose = re.sub(r"^```.*?^```", "", DOCUMENT, flags=re.DOTALL | re.MULTILINE)
    targets = re.findall(r"\]\((?!https?:)([^)#]+)\)", prose)
    assert "formats.md" in targets
    for target in targets:
        assert (ROOT / "docs" / target).exists(), target
