import os
import platform
import shutil
import socket
import subprocess
from importlib.metadata import version

import pytest
import torch

from unimed_model.environment import code_revision, hardware, versions


def git(folder, *arguments):
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "init.defaultBranch=main"]
    done = subprocess.run(
        ["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True, env=environment
    )
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path):
    """A git checkout whose package `specimen` stands at its top."""
    if shutil.which("git") is None:
        pytest.skip("git is not there")
    package = tmp_path / "checkout" / "specimen"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("one = 1\n")
    git(package.parent, "init", "--quiet")
    git(package.parent, "add", ".")
    git(package.parent, "commit", "--quiet", "-m", "first")
    return package


def test_a_checkout_tells_its_commit_and_whether_it_was_changed(checkout):
    commit = git(checkout, "rev-parse", "HEAD")
    assert code_revision(checkout) == {"revision": commit, "dirty": False}
    (checkout / "notes.txt").write_text("not part of the code")
    assert code_revision(checkout) == {"revision": commit, "dirty": False}
    (checkout / "__init__.py").write_text("one = 2\n")
    assert code_revision(checkout) == {"revision": commit, "dirty": True}


def test_a_change_outside_the_package_counts_too(checkout):
    (checkout.parent / "constraints.txt").write_text("torch\n")
    git(checkout.parent, "add", ".")
    assert code_revision(checkout)["dirty"] is True


def test_an_environment_inside_somebody_elses_repository_has_no_revision(checkout):
    installed = checkout.parent / ".venv" / "lib" / "specimen"
    installed.mkdir(parents=True)
    (installed / "__init__.py").write_text("")
    assert code_revision(installed) is None
    beside = checkout.parent / "copied"  # at the top, but not part of the repository
    beside.mkdir()
    (beside / "__init__.py").write_text("")
    assert code_revision(beside) is None


def test_without_checkout_commit_or_git_there_is_no_revision(checkout, tmp_path, monkeypatch):
    assert code_revision(tmp_path / "elsewhere") is None
    empty = tmp_path / "empty" / "specimen"
    empty.mkdir(parents=True)
    git(empty.parent, "init", "--quiet")
    assert code_revision(empty) is None
    monkeypatch.setenv("PATH", "")
    assert code_revision(checkout) is None


def test_versions_are_those_installed():
    found = versions()
    assert found["python"] == platform.python_version()
    for name in ("torch", "transformers", "accelerate", "peft", "tokenizers", "numpy"):
        assert found[name] == version(name)
    assert "unimed_model" in found


def test_hardware_names_neither_host_nor_user():
    found = hardware(torch.device("cpu"), world_size=2)
    assert (found["device"], found["cuda"], found["world_size"]) == ("cpu", None, 2)
    assert found["threads"] == torch.get_num_threads()
    assert 1 <= found["cpus"] <= os.cpu_count()
    assert found["memory"] > 2**28
    assert found["name"]
    assert socket.gethostname() not in found.values()
