"""Names, steps to what is not free, and the command."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from unimed_model import UserError
from unimed_model.data import load_dataset
from unimed_model.data.fetching import fetch
from unimed_model.data.fetching.recipes import RECIPES
from unimed_model.data.layouts import PUBLISHED
from unimed_model.data.terms import TERMS

ROOT = Path(__file__).parents[4]


def test_every_published_dataset_can_be_fetched_or_has_steps() -> None:
    assert RECIPES.keys() <= PUBLISHED.keys()
    for name in PUBLISHED:
        assert (name in RECIPES) == (TERMS[name].access == "free"), name
        assert (name in RECIPES) != bool(TERMS[name].steps), name


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("mimic_cxr", ["PhysioNet Credentialed Health Data License", "CITI", "mimic_cxr"]),
        ("sa_med2d_rec", ["CC BY-NC-SA 4.0", "zip -s=0", "sa_med2d"]),
        ("mpx_single", ["none stated", "MedPix_single_train.csv", "mpx"]),
    ],
)
def test_the_steps_to_a_dataset_that_is_not_free(tmp_path: Path, name: str, says: list[str]) -> None:
    lines = fetch(name, tmp_path / "data", quiet=True)
    text = "\n".join(lines)
    assert all(word in text for word in says)
    assert "nothing was downloaded" in lines[0]
    steps = [line for line in lines if re.match(r"\d\. ", line)]
    assert [step[0] for step in steps] == [str(number) for number in range(1, len(steps) + 1)]
    assert str(tmp_path / "data" / PUBLISHED[name].folder) in steps[-1]
    assert "ROOT" not in text
    assert not (tmp_path / "data").exists()


def test_a_misspelt_name_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no published dataset 'pubmed_qa'; the nearest is 'pubmedqa'"):
        fetch("pubmed_qa", tmp_path, quiet=True)


def test_a_file_is_no_data_root(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("mine")
    with pytest.raises(UserError, match="is a file"):
        fetch("pubmedqa", tmp_path / "data", quiet=True)


def command(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    code = "from unimed_model.cli_data import data_main; data_main()"
    surroundings = {k: v for k, v in os.environ.items() if k not in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")}
    return subprocess.run(
        [sys.executable, "-c", code, "fetch", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**surroundings, "no_proxy": "127.0.0.1", **environment},
    )


def test_the_command_prints_the_steps_of_a_gated_dataset(tmp_path: Path) -> None:
    done = command("mimic_cxr", "--out", tmp_path / "data")
    assert (done.returncode, done.stderr) == (0, "")
    assert "1. Become a credentialed user" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_the_command_fetches_from_a_mirror(
    server: Any, tmp_path: Path, slake_files: Callable[[str], dict[str, bytes]]
) -> None:
    server.repositories["BoKelvin/SLAKE"] = slake_files("imgs/")
    done = command("slake_vqa", "--out", tmp_path / "data", HF_ENDPOINT=server.address)
    assert done.returncode == 0, done.stderr
    assert "imgs.zip" in done.stderr
    assert done.stdout.splitlines()[1] == "licence: CC BY 4.0"
    assert len(load_dataset("slake_vqa", tmp_path / "data", "test")) == 3


@pytest.mark.parametrize(("name", "variable"), [("medqa", "HF_ENDPOINT"), ("pubmedqa", "https_proxy")])
def test_the_command_ends_in_one_sentence_where_nobody_answers(tmp_path: Path, name: str, variable: str) -> None:
    done = command(name, "--out", tmp_path, "--quiet", **{variable: "http://127.0.0.1:9"})
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"Error: .*cannot be fetched.*\.\n", done.stderr)
