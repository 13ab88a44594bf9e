"""Memory and disk: the budget is kept, too little of either is one sentence, and nothing is left lying about."""

import errno
import os
import shutil
import subprocess
import sys
import weakref
from pathlib import Path

import pytest
import torch

import tugofwar as tow
from tugofwar.engine import store as store_module
from tugofwar.engine.store import Store, Stored

from . import small

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("persistent", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16, torch.int64, torch.bool])
def test_tensors_come_back_as_they_were_put(tmp_path, persistent, dtype):
    shapes = [(3, 5), (0, 4), (1,), (7, 2), (), (129, 3)]
    tensors = [torch.arange(torch.Size(shape).numel()).reshape(shape).to(dtype) for shape in shapes]
    with Store(0, tmp_path, persistent) as store:
        store.open_file("one.bin")
        kept = [store.put(tensor.T if tensor.ndim == 2 else tensor) for tensor in tensors]
        store.close_file()
        assert all(isinstance(each, Stored) or each.numel() == 0 for each in kept)
        for tensor, each in zip(tensors, kept, strict=True):
            found = store.get(each)
            assert found.dtype == dtype
            assert torch.equal(found, tensor.T if tensor.ndim == 2 else tensor)
            assert found.data_ptr() % 64 == 0 or found.numel() == 0
    assert [path.name for path in tmp_path.iterdir()] == (["one.bin"] if persistent else [])


@pytest.mark.parametrize("persistent", [False, True])
def test_reading_in_between_spoils_nothing(tmp_path, persistent):
    with Store(0, tmp_path, persistent) as store:
        kept = []
        for number in range(5):
            store.open_file(f"{number}.bin")
            kept.append(store.put(torch.full((1000,), float(number))))
            kept.append(store.put(torch.full((1000,), 10.0 + number)))
            values = [float(store.get(each).unique()) for each in kept]
            assert values == [value for each in range(number + 1) for value in (each, 10.0 + each)]


def test_a_tensor_in_use_survives_the_release_of_its_pages(tmp_path):
    with Store(10_000, tmp_path, True) as store:
        store.open_file("one.bin")
        kept = [store.put(torch.full((2000,), float(number))) for number in range(9)]
        held = [store.get(each) for each in kept]
        assert [float(each.unique()) for each in held] == list(range(9))


def test_memory_is_used_before_the_disk(tmp_path):
    with Store(4000, tmp_path) as store:
        kept = [store.put(torch.ones(250)) for _ in range(4)]
        assert [type(each) for each in kept] == [torch.Tensor] * 3 + [Stored]
        assert (store.bytes_in_memory, store.bytes_on_disk) == (3000, 1000)


def test_a_part_of_a_larger_tensor_does_not_keep_all_of_it():
    large = torch.ones(1000, 10)
    alive = weakref.ref(large.untyped_storage())
    with Store() as store:
        kept = store.put(large[3])
        del large
        assert alive() is None
        assert kept.tolist() == [1.0] * 10


def test_tensors_in_memory_share_slabs_without_touching_each_other(monkeypatch):
    monkeypatch.setattr("tugofwar.engine.store._SLAB_BYTES", 300)
    tensors = [
        torch.arange(7.0),
        torch.arange(5.0, dtype=torch.float64) + 10,
        torch.arange(12.0).bfloat16().view(3, 4),
        torch.zeros(0, 4),
        torch.arange(200.0),  # larger than a slab
        torch.arange(6.0).view(2, 3).T,
    ]
    with Store() as store:
        kept = [store.put(tensor) for tensor in tensors]
        for before, after in zip(tensors, map(store.get, kept), strict=True):
            assert after.dtype == before.dtype
            assert torch.equal(after, before)
        assert kept[0].untyped_storage().data_ptr() == kept[1].untyped_storage().data_ptr()
    assert store.bytes_in_memory == sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def test_a_new_file_does_not_write_through_a_hard_link(tmp_path):
    (tmp_path / "kept.bin").write_bytes(b"years of work")
    (tmp_path / "one.bin").hardlink_to(tmp_path / "kept.bin")
    with Store(0, tmp_path, True) as store:
        store.open_file("one.bin")
        store.put(torch.ones(3))
    assert (tmp_path / "kept.bin").read_bytes() == b"years of work"


def test_a_disk_that_is_full_is_one_sentence(tmp_path, monkeypatch):
    """/dev/full refuses every byte, as a full disk does."""
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full")
    path = type(tmp_path)
    original = path.open
    monkeypatch.setattr(
        path, "open", lambda self, mode="r", *more, **settings: open("/dev/full", "wb", buffering=0)  # noqa: PTH123, SIM115
        if mode == "xb" else original(self, mode, *more, **settings)
    )  # fmt: skip
    model = small.build()
    with pytest.raises(tow.UserError, match=rf"The disk of {tmp_path / 'factors'} is full"):
        tow.record(model, {"a": small.batches(3, 1)}, "*", 3, small.loss, progress=False, workspace=tmp_path)
    monkeypatch.undo()
    data = {"a": small.batches(3, 1)}
    recording = tow.record(model, data, "*", 3, small.loss, progress=False, workspace=tmp_path)
    assert small.relative_error(recording.gram, small.gram(model, data)) <= 1e-12


@pytest.mark.parametrize(
    ("code", "message"), [(errno.EDQUOT, "is full"), (errno.EIO, "cannot be written to"), (errno.EROFS, "cannot be")]
)
def test_other_failures_of_a_disk_are_one_sentence(tmp_path, monkeypatch, code, message):
    def refuse(writer, data):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(store_module, "write_all", refuse)
    with Store(0, tmp_path) as store, pytest.raises(tow.UserError, match=message):
        store.put(torch.ones(3))


def test_large_pieces_are_written_whole_although_a_file_takes_them_in_parts(tmp_path):
    class Partial:
        def __init__(self):
            self.content = b""

        def write(self, data):
            self.content += bytes(data[:7])
            return min(7, len(data))

    writer = Partial()
    store_module.write_all(writer, memoryview(bytes(range(100))))
    assert writer.content == bytes(range(100))


class Passed:
    def __init__(self):
        self.calls = 0

    def __call__(self, model, batch):
        self.calls += 1
        return small.loss(model, batch)


def test_too_little_memory_without_a_workspace_is_said_after_the_first_batch():
    loss = Passed()
    with pytest.raises(tow.UserError, match=r"more than the memory budget of .* give `workspace`, a folder to spill"):
        tow.record(small.build(), {"a": small.batches(20, 1)}, "*", 20, loss, progress=False, memory="60kB")
    assert loss.calls == 2


@pytest.mark.parametrize("resume", [False, True])
def test_too_little_disk_is_said_after_the_first_batch(tmp_path, monkeypatch, resume):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=30_000))
    loss = Passed()
    settings = {"progress": False, "memory": "1kB", "workspace": tmp_path, "resume": resume}
    with pytest.raises(tow.UserError, match=r"factors need about .* on the disk of .*, which has 30 kB left"):
        tow.record(small.build(), {"a": small.batches(20, 1)}, "*", 20, loss, **settings)
    assert loss.calls == 2
    assert not list(tmp_path.glob("*.bin"))
    loss.calls = 0
    tow.record(small.build(), {"a": small.batches(20, 1)}, "*", 2, loss, **settings)
    assert loss.calls == 3


@pytest.mark.parametrize("memory", ["2kB", "40kB"])
def test_spilled_factors_give_the_same_matrix(tmp_path, memory):
    model, data = small.build(), {"a": small.batches(9, 1), "b": small.batches(9, 2)}
    settings = {"progress": False, "workspace": tmp_path, "resume": False}
    recording = tow.record(model, data, "*", 9, small.loss, memory=memory, **settings)
    assert small.relative_error(recording.gram, small.gram(model, data)) <= 1e-12
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("memory", ["much", 0, "-3GB"])
def test_a_budget_is_a_size(memory):
    with pytest.raises(tow.UserError, match="is not a size in bytes"):
        tow.record(small.build(), {"a": small.batches(1, 1)}, "*", 1, small.loss, memory=memory)


PEAK = """
import sys
import torch
from pathlib import Path
import tugofwar as tow

torch.set_num_threads(1)
torch.manual_seed(0)
workspace, resume, memory, count = sys.argv[1], sys.argv[2] == "resume", sys.argv[3], int(sys.argv[4])
model = torch.nn.Sequential(torch.nn.Linear(1000, 1000), torch.nn.Tanh(), torch.nn.Linear(1000, 1000))

def loss(model, batch):
    return model(batch).square().mean()

def source(count):
    for number in range(count):
        yield torch.randn(500, 1000, generator=torch.Generator().manual_seed(number))

def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))

def forget_peak():
    Path("/proc/self/clear_refs").write_text("5")

def record(count, **settings):
    return tow.record(model, {"a": source(count)}, "*", count, loss, progress=False, **settings)

# Everything is warmed up and allocated once before it is measured.
record(2)
forget_peak()
for batch in source(4):
    loss(model, batch).backward()
model.zero_grad()
plain = peak()
forget_peak()
record(count, memory=memory, workspace=workspace, resume=resume)
print(peak() - plain)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peaks are measured through /proc")
@pytest.mark.parametrize("resume", ["resume", "no resume"])
def test_the_memory_budget_is_kept(tmp_path, resume):
    """50 batches leave 400 MB; mapped pages of files count, too."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MALLOC_TRIM_THRESHOLD_": "0"}
    command = [sys.executable, "-c", PEAK, str(tmp_path), resume, "100MB", "50"]
    run = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    # A batch of factors (8 MB) and what its verification takes stand beside the budget.
    assert int(run.stdout) < 1.3e8 + 4e7
