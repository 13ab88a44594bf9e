import json
from dataclasses import replace

import numpy as np
import pytest

from tugofwar.errors import UserError
from tugofwar.recording import Block, Recording, upper_triangle


@pytest.fixture
def recording():
    rng = np.random.default_rng(0)
    blocks = {"connector.experts.0.0": 4, "connector.experts.1.0": 6, "connector": 2}
    rows = {name: rng.normal(size=(5, size)) + 1 for name, size in blocks.items()}
    return Recording(
        blocks=tuple(Block(name, {f"{name}.weight": size}) for name, size in blocks.items()),
        upper_triangles={name: upper_triangle(values @ values.T) for name, values in rows.items()},
        datasets=["b", "b", "b", "a", "a"],
        losses=np.arange(5.0),
        untouched=("text",),
        tasks={"b": "VQA", "a": "CLS", "text": "QA"},
        metadata={"batch_size": 4, "note": "größer"},
    )


def test_gram_is_the_sum_over_blocks_and_symmetric(recording):
    parts = [recording.select(block.name).gram for block in recording.blocks]
    np.testing.assert_allclose(recording.gram, sum(parts), rtol=1e-12)
    assert (recording.gram == recording.gram.T).all()
    assert (np.linalg.eigvalsh(recording.gram) > -1e-9).all()


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("connector.experts.1.*", ["connector.experts.1.0"]),
        ("experts.*", ["connector.experts.0.0", "connector.experts.1.0"]),
        (["connector", "experts.0.*"], ["connector.experts.0.0", "connector"]),
        ("connector.*", ["connector.experts.0.0", "connector.experts.1.0", "connector"]),
    ],
)
def test_select_blocks(recording, pattern, expected):
    assert [block.name for block in recording.select(pattern).blocks] == expected


def test_selecting_no_block_lists_the_closest(recording):
    with pytest.raises(UserError, match=r"selects no block.*closest names are .*experts"):
        recording.select("connector.expert.*")


def test_save_and_load_round_trip(recording, tmp_path):
    recording.save(tmp_path / "deep" / "gradients")
    loaded = Recording.load(tmp_path / "deep" / "gradients")
    assert (loaded.gram == recording.gram).all()
    assert (loaded.losses == recording.losses).all()
    for name in ("blocks", "datasets", "untouched", "tasks", "metadata", "parameters", "rows"):
        assert getattr(loaded, name) == getattr(recording, name)
    assert sorted(path.name for path in (tmp_path / "deep" / "gradients").iterdir()) == [
        "manifest.json",
        "recording.safetensors",
    ]


def test_a_selection_can_be_saved(recording, tmp_path):
    recording.select("experts.1.*").save(tmp_path)
    assert [block.name for block in Recording.load(tmp_path).blocks] == ["connector.experts.1.0"]


def test_equal_recordings_give_equal_bytes(recording, tmp_path):
    recording.save(tmp_path / "one")
    Recording.load(tmp_path / "one").save(tmp_path / "two")
    for name in ("manifest.json", "recording.safetensors"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def edit_manifest(folder, **changes):
    path = folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def truncate(path):
    path.write_bytes(path.read_bytes()[:-20])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "manifest.json").unlink(), "manifest.json is missing"),
        (lambda f: (f / "recording.safetensors").unlink(), "recording.safetensors is missing"),
        (lambda f: truncate(f / "recording.safetensors"), "recording.safetensors is truncated"),
        (lambda f: truncate(f / "manifest.json"), "truncated or not JSON"),
        (lambda f: (f / "manifest.json").write_bytes(b"\xff\xfe\x00"), "truncated or not JSON"),
        (lambda f: (f / "manifest.json").write_text("[1]"), "not the manifest of a recording"),
        (lambda f: edit_manifest(f, format="other"), "not the manifest of a recording"),
        (lambda f: edit_manifest(f, format_version=1), "format version 1 but this release reads 2"),
        (lambda f: edit_manifest(f, surprise=1), "damaged at key 'surprise'"),
        (lambda f: edit_manifest(f, datasets=[{"name": "a"}]), "damaged at key 'datasets.0.batches'"),
        (lambda f: edit_manifest(f, datasets=[{"name": "a", "batches": 4}]), "finite float64 numbers"),
    ],
)
def test_a_damaged_recording_is_one_clear_sentence(recording, tmp_path, damage, message):
    recording.save(tmp_path)
    damage(tmp_path)
    with pytest.raises(UserError, match=message):
        Recording.load(tmp_path)


def test_a_foreign_tensor_file_is_refused(recording, tmp_path):
    import hashlib

    recording.save(tmp_path)
    foreign = b"PK\x03\x04 not safetensors at all"
    (tmp_path / "recording.safetensors").write_bytes(foreign)
    edit_manifest(tmp_path, tensors_sha256=hashlib.sha256(foreign).hexdigest())
    with pytest.raises(UserError, match="not a safetensors file"):
        Recording.load(tmp_path)


def test_loading_does_not_need_torch(recording, tmp_path):
    import subprocess
    import sys

    recording.save(tmp_path)
    code = (
        "import sys, tugofwar\n"
        "tugofwar.interference(tugofwar.Recording.load(sys.argv[1]), resamples=10)\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)


def with_geometry(recording):
    scaled = {name: 4 * triangle for name, triangle in recording.upper_triangles.items()}
    return replace(recording, geometries={"adam": scaled})


def test_a_geometry_is_a_recording_of_its_own(recording, tmp_path):
    both = with_geometry(recording)
    adam = both.in_geometry("adam")
    assert (adam.gram == 4 * recording.gram).all()
    assert adam.datasets == recording.datasets
    assert (both.select("experts.1.*").in_geometry("adam").gram == adam.select("experts.1.*").gram).all()
    both.save(tmp_path)
    assert (Recording.load(tmp_path).in_geometry("adam").gram == adam.gram).all()


def test_a_geometry_that_was_not_recorded_is_named(recording):
    with pytest.raises(UserError, match="no geometry 'adam'; it has none but the plain gradient's"):
        recording.in_geometry("adam")
    with pytest.raises(UserError, match="no geometry 'sgd'; it has adam"):
        with_geometry(recording).in_geometry("sgd")


def test_a_geometry_whose_numbers_are_missing_is_refused(recording, tmp_path):
    recording.save(tmp_path)
    edit_manifest(tmp_path, geometries=["adam"])
    with pytest.raises(UserError, match="does not hold 'gram_adam/"):
        Recording.load(tmp_path)
