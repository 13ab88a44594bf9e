"""Every command in docs/reproducing-the-paper.md exists, with all its options, presets, arms and settings."""

import re
import shlex
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from analyses.ablation import app as ablation
from analyses.comparison import app as comparison
from tugofwar.cli import app as tugofwar
from unimed_model.cli import train_app, train_main
from unimed_model.cli_data import data_app
from unimed_model.cli_eval import eval_app
from unimed_model.presets import arms, resolve

ROOT = Path(__file__).parent.parent
DOCUMENT = (ROOT / "docs" / "reproducing-the-paper.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", DOCUMENT, flags=re.DOTALL | re.MULTILINE))
PROGRAMS = {
    "tugofwar": tugofwar,
    "unimed-train": train_app,
    "unimed-eval": eval_app,
    "unimed-data": data_app,
    "python -m analyses.ablation": ablation,
    "python -m analyses.comparison": comparison,
}
SIZES = ("full size", "small", "tiny")
QUESTIONS = ("Figure 2", "Figure 4a", "Figure 4b", "Figure 4c", "Figure 5", "Tables 2a to 2e and 5", "Tables 3 and 6")


def blocks(text):
    return re.findall(r"^```sh\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


def commands(text):
    return [line for block in blocks(text) for line in block.splitlines() if line and not line.startswith("#")]


def parsed(line):
    """What a command line means to its program; click's own errors say what it has wrong."""
    program = next(name for name in PROGRAMS if line.startswith(f"{name} "))
    words = shlex.split(line.removeprefix(program))
    command = get_command(PROGRAMS[program])
    inner = getattr(command, "commands", None)
    if inner is None:
        return program, command.make_context(program, words).params
    if program == "unimed-eval" and words[0] not in inner:
        words = ["answer", *words]  # its default
    if words[0] not in inner:
        raise LookupError(f"No such command as {words[0]} in {program}.")
    return f"{program} {words[0]}", inner[words[0]].make_context(words[0], words[1:]).params


@pytest.mark.parametrize("line", dict.fromkeys(commands(DOCUMENT)))
def test_a_command_is_understood_by_its_program(line):
    parsed(line)


def test_a_misspelt_option_or_command_would_be_found():
    for line in ("tugofwar gradients --batchs 3", "tugofwar gradient", "unimed-train --probe 3", "tugofwar dynamics"):
        with pytest.raises(Exception, match=r"No such|Missing"):
            parsed(line)


def test_the_presets_arms_and_settings_of_training_exist():
    found = [params for program, params in map(parsed, commands(DOCUMENT)) if program == "unimed-train"]
    assert len(found) == 6
    for params in found:
        resolve(params["preset"], params["settings"] or (), params["arm"])


def test_every_table_of_ablations_is_there_at_every_size():
    found = [
        params for program, params in map(parsed, commands(DOCUMENT)) if program == "python -m analyses.ablation run"
    ]
    asked = {(params["table"], params["preset"]) for params in found}
    assert asked == {
        (table, preset) for table in ("2a", "2b", "2c", "2d", "2e", "5") for preset in ("paper", "small", "tiny")
    }
    for params in found:
        for override in params["settings"] or ():
            resolve(params["preset"], [override], None)


@pytest.mark.parametrize("question", QUESTIONS)
def test_every_figure_and_table_has_a_command_at_every_size(question):
    (text,) = (text for title, text in SECTIONS.items() if title.startswith(question))
    for size in SIZES:
        assert any(re.search(rf"^# (.*, )?{size}", block, flags=re.MULTILINE) for block in blocks(text)), size


def test_arms_named_in_prose_exist():
    known = set(arms())
    for name in re.findall(r"`(?:--arm )?((?:2[a-e]|5|fair)-[a-z0-9-]+)`", DOCUMENT):
        assert name in known, name


def test_options_named_in_prose_exist():
    known = set()
    for app in PROGRAMS.values():
        command = get_command(app)
        for each in (command, *getattr(command, "commands", {}).values()):
            known |= {name for parameter in each.params for name in parameter.opts}
    prose = re.sub(r"^```.*?^```", "", DOCUMENT, flags=re.DOTALL | re.MULTILINE)
    for option in set(re.findall(r"(--[a-z][a-z-]+)", prose)):
        assert option in known, option


def test_the_sizes_in_the_document_are_those_of_the_dry_run(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["unimed-train", "--preset", "paper", "--dry-run"])
    with pytest.raises(SystemExit):
        train_main()
    printed = capsys.readouterr().out
    trained, frozen = (
        int(number.replace(",", "")) for number in re.search(r"^all +(\S+) +(\S+)", printed, re.M).groups()
    )
    assert f"{trained / 1e6:.1f} million trained and {frozen / 1e9:.1f} billion frozen" in DOCUMENT
    (together,) = re.findall(r"all together (\S+) GB", printed)
    assert f"{together} GB" in DOCUMENT


def test_files_that_the_document_links_to_exist():
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", DOCUMENT):
        assert (ROOT / "docs" / target).exists(), target
