"""A small data root with three published layouts and one image that is in both splits of one of them."""

import shutil

import pytest


@pytest.fixture
def root(tmp_path, slake_root, mpx_root, medmnist_root):
    """`slake`, `mpx` and `medmnist` under one folder, as they unpack."""
    root = tmp_path / "root"
    root.mkdir()
    for folder in (slake_root, mpx_root, medmnist_root):
        shutil.move(folder, root / folder.name)
    return root
