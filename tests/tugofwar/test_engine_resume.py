"""A run that is cut short goes on where it was, with the same bits; one that is no continuation starts afresh."""

import functools
import json
import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

import tugofwar as tow
from tugofwar.engine import passes
from tugofwar.engine.choice import Keeping
from tugofwar.engine.fingerprint import batch_digest, loss_digest, model_digest

from . import small
from .zoo import ARCHITECTURES


class Counted:
    """A loss that counts how many batches are passed; the first batch of each dataset is passed twice."""

    def __init__(self):
        self.calls = 0

    def __call__(self, model, batch):
        self.calls += 1
        return small.loss(model, batch)


class Drawn:
    """Batches that count how many of them are drawn, and fail when ``fails`` are."""

    def __init__(self, data, fails=None, error=RuntimeError("the reader broke")):
        self.data, self.fails, self.error = data, fails, error
        self.drawn = 0

    def __iter__(self):
        for number, batch in enumerate(self.data):
            if number == self.fails:
                raise self.error
            self.drawn += 1
            yield batch


def data(count=3):
    return {name: small.batches(6, seed)[:count] for seed, name in enumerate("abc", start=1)}


def record(model, datasets, workspace=None, batches=3, loss=small.loss, **settings):
    return tow.record(model, datasets, "*", batches, loss, progress=False, workspace=workspace, **settings)


def same_bits(one, other):
    return (
        one.datasets == other.datasets
        and (one.losses == other.losses).all()
        and all((one.upper_triangles[name] == other.upper_triangles[name]).all() for name in one.upper_triangles)
        and all((a == b).all() for a, b in zip(*(r.statistics.to_arrays().values() for r in (one, other)), strict=True))
        and one.choices == other.choices
    )


def interrupt(model, tmp_path, error=RuntimeError("the reader broke"), **settings):
    broken = {**data(), "c": Drawn(data()["c"], 2, error)}
    with pytest.raises(type(error)):
        record(model, broken, tmp_path, **settings)


@pytest.mark.parametrize("error", [RuntimeError("the reader broke"), KeyboardInterrupt(), tow.UserError("bad row")])
def test_an_interrupted_run_passes_only_what_is_missing(tmp_path, error):
    model, loss = small.build(), Counted()
    whole = record(model, data(), loss=Counted())
    interrupt(model, tmp_path, error, loss=loss)
    assert loss.calls == 4 + 4 + 3
    loss.calls = 0
    drawn = {name: Drawn(batches) for name, batches in data().items()}
    resumed = record(model, drawn, tmp_path, loss=loss)
    assert loss.calls == 4
    # One batch of a finished dataset is drawn, to see that it is the same data.
    assert {name: source.drawn for name, source in drawn.items()} == {"a": 1, "b": 1, "c": 3}
    assert same_bits(resumed, whole)
    assert list(tmp_path.iterdir()) == []


KILLED = """
import os, signal, sys
from pathlib import Path
import tugofwar as tow
from tests.tugofwar import small

def source():
    yield from small.batches(6, 3)[:2]
    os.kill(os.getpid(), signal.SIGKILL)

data = {"a": small.batches(6, 1)[:3], "b": small.batches(6, 2)[:3], "c": source()}
tow.record(small.build(), data, "*", 3, small.loss, progress=False, workspace=sys.argv[1])
"""


def test_a_killed_process_is_resumed_with_the_same_bits(tmp_path):
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], env=environment, cwd=root)
    assert killed.returncode == -signal.SIGKILL
    noted = json.loads((tmp_path / "factors" / "fingerprint.json").read_text())
    assert len(list((tmp_path / "factors").glob("[ab]-*.json"))) == 2
    model, passed = small.build(), []
    assert noted["model"] == model_digest(model)
    assert noted["loss"].split()[1] == loss_digest(small.loss).split()[1]
    # The module has another name over there; its digest is the same.
    (tmp_path / "factors" / "fingerprint.json").write_text(json.dumps({**noted, "loss": loss_digest(small.loss)}))
    resumed = record(model, {name: _noted(batches, passed) for name, batches in data().items()}, tmp_path)
    assert same_bits(resumed, record(model, data()))
    assert len(passed) == 1 + 1 + 3


def _noted(batches, passed):
    for batch in batches:
        passed.append(batch)
        yield batch


def scaled(factor, model, batch):
    return factor * small.loss(model, batch)


def closing_over(factor):
    return lambda model, batch: factor * small.loss(model, batch)


LOSSES = [
    small.loss,
    lambda model, batch: 2 * small.loss(model, batch),
    lambda model, batch: 3 * small.loss(model, batch),
    functools.partial(scaled, 2),
    functools.partial(scaled, 3),
    closing_over(2),
    closing_over(3),
    Counted(),
]


def test_losses_are_told_apart_by_their_code_and_what_is_bound_in_it():
    assert len({loss_digest(loss) for loss in LOSSES}) == len(LOSSES)
    assert loss_digest(closing_over(2)) == loss_digest(closing_over(2))
    assert loss_digest(Counted()) == loss_digest(Counted())


@pytest.mark.parametrize(
    "changed",
    [
        {"model": 1},
        {"seed": 1},
        {"metadata": {"batch_size": 8}},
        {"loss": LOSSES[1]},
        {"factor_dtype": torch.float32},
        {"sketch": 64},
        {"group_blocks": ["experts.*"]},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_what_is_no_continuation_starts_afresh(tmp_path, changed):
    interrupt(small.build(), tmp_path, metadata={"batch_size": 4})
    settings = {"metadata": {"batch_size": 4}, **changed}
    model = small.build(settings.pop("model", 0))
    sources = {name: Drawn(batches) for name, batches in data().items()}
    recording = record(model, sources, tmp_path, **settings)
    assert {source.drawn for source in sources.values()} == {3}
    assert (recording.gram == record(model, data(), **settings).gram).all()


def test_one_changed_parameter_starts_afresh(tmp_path):
    interrupt(small.build(), tmp_path)
    model, sources = small.build(), {name: Drawn(batches) for name, batches in data().items()}
    with torch.no_grad():
        model.norm.bias[3] += 1e-12
    record(model, sources, tmp_path)
    assert {source.drawn for source in sources.values()} == {3}


def test_metadata_that_json_writes_differently_still_resumes(tmp_path):
    metadata = {"sizes": (1, 2), "command": "first"}
    interrupt(small.build(), tmp_path, metadata=metadata)
    sources = {name: Drawn(batches) for name, batches in data().items()}
    record(small.build(), sources, tmp_path, metadata={**metadata, "command": "second"})
    assert [source.drawn for source in sources.values()] == [1, 1, 3]


def test_other_data_under_the_same_name_is_refused(tmp_path):
    interrupt(small.build(), tmp_path)
    with pytest.raises(tow.UserError, match=r"Batch 1 of dataset 'b' is not the one whose factors are"):
        record(small.build(), {**data(), "b": small.batches(3, 9)}, tmp_path)


def test_extending_with_a_loader_that_shuffles_by_itself_is_refused(tmp_path):
    generator = torch.Generator().manual_seed(0)
    loader = torch.utils.data.DataLoader(small.batches(6, 1), batch_size=None, shuffle=True, generator=generator)
    record(small.build(), {"a": loader}, tmp_path, keep_factors=True)
    with pytest.raises(tow.UserError, match="not the one whose factors are in the workspace"):
        record(small.build(), {"a": loader}, tmp_path, batches=5, keep_factors=True)


def test_batches_are_told_apart():
    batch = {"x": torch.ones(2, 3), "text": ["one", "two"], "more": (1, None)}
    changed = [
        {**batch, "x": torch.ones(3, 2)},
        {**batch, "x": torch.ones(2, 3).double()},
        {**batch, "text": ["one", "three"]},
        {**batch, "more": (2, None)},
        {**batch, "y": 1},
        batch["x"],
    ]
    assert len({batch_digest(each) for each in [batch, *changed]}) == 7
    assert batch_digest(batch) == batch_digest({**batch, "x": torch.ones(2, 3)})
    assert batch_digest({"any": object()}) == batch_digest({"any": object()})


def test_resume_keeps_the_order_of_a_loader_that_shuffles(tmp_path):
    def loaders():
        return {
            name: torch.utils.data.DataLoader(batches, batch_size=None, shuffle=True)
            for name, batches in data(6).items()
        }

    model = small.build()
    whole = record(model, loaders(), batches=4)
    with pytest.raises(RuntimeError):
        record(model, {**loaders(), "c": Drawn([None], 0)}, tmp_path, batches=4)
    torch.rand(7)
    assert same_bits(record(model, loaders(), tmp_path, batches=4), whole)


def test_kept_factors_are_extended(tmp_path):
    model, loss = small.build(), Counted()
    record(model, data(6), tmp_path, loss=loss, keep_factors=True)
    assert loss.calls == 3 * 4
    loss.calls = 0
    extended = record(model, data(6), tmp_path, batches=5, loss=loss, keep_factors=True)
    # Two new batches of each dataset, and the first of them once more.
    assert loss.calls == 3 * 3
    assert same_bits(extended, record(model, data(6), batches=5, loss=Counted()))
    loss.calls = 0
    fewer = record(model, data(6), tmp_path, batches=2, loss=loss, keep_factors=True)
    assert loss.calls == 0
    assert same_bits(fewer, record(model, data(6), batches=2, loss=Counted()))
    again = record(model, data(6), tmp_path, batches=5, loss=loss)
    assert loss.calls == 0
    assert same_bits(again, extended)
    assert list(tmp_path.iterdir()) == []


def test_without_resume_nothing_is_written_and_what_was_kept_stays(tmp_path):
    record(small.build(), data(), tmp_path / "fresh", resume=False)
    assert not (tmp_path / "fresh").exists()
    record(small.build(), data(), tmp_path, keep_factors=True)
    before = {path: path.read_bytes() for path in (tmp_path / "factors").iterdir()}
    sources = {name: Drawn(batches) for name, batches in data().items()}
    record(small.build(), sources, tmp_path, resume=False)
    assert [source.drawn for source in sources.values()] == [3, 3, 3]
    assert {path: path.read_bytes() for path in (tmp_path / "factors").iterdir()} == before


def test_keeping_factors_without_resuming_replaces_them(tmp_path):
    record(small.build(), data(), tmp_path, keep_factors=True)
    sources = {name: Drawn(batches) for name, batches in data().items()}
    record(small.build(), sources, tmp_path, keep_factors=True, resume=False)
    assert [source.drawn for source in sources.values()] == [3, 3, 3]
    assert len(list((tmp_path / "factors").glob("*.bin"))) == 3


def truncate(path):
    path.write_bytes(path.read_bytes()[:-8])


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: truncate(next(folder.glob("a-*.json"))),
        lambda folder: truncate(next(folder.glob("a-*.bin"))),
        lambda folder: next(folder.glob("a-*.bin")).unlink(),
        lambda folder: next(folder.glob("a-*.json")).write_text("[1]"),
        lambda folder: next(folder.glob("a-*.json")).write_bytes(b"\xff\xfe"),
        lambda folder: next(folder.glob("a-*.json")).write_text('{"rows": [{"loss": 1.0, "pieces": [5]}]}'),
    ],
)
def test_damaged_files_are_one_sentence(tmp_path, damage):
    interrupt(small.build(), tmp_path)
    damage(tmp_path / "factors")
    with pytest.raises(tow.UserError, match=r"a-.*json or its tensors are damaged; remove the folder .*factors"):
        record(small.build(), data(), tmp_path)


def test_a_damaged_fingerprint_starts_afresh(tmp_path):
    interrupt(small.build(), tmp_path)
    truncate(tmp_path / "factors" / "fingerprint.json")
    sources = {name: Drawn(batches) for name, batches in data().items()}
    record(small.build(), sources, tmp_path)
    assert [source.drawn for source in sources.values()] == [3, 3, 3]


def test_a_foreign_folder_is_not_touched(tmp_path):
    (tmp_path / "factors").mkdir()
    (tmp_path / "factors" / "thesis.tex").write_text("years of work")
    with pytest.raises(tow.UserError, match="holds something other than factors and is not replaced"):
        record(small.build(), data(), tmp_path)
    assert (tmp_path / "factors" / "thesis.tex").read_text() == "years of work"


@pytest.mark.parametrize("name", ["factors", "workspace"])
def test_a_file_in_the_way_is_one_sentence(tmp_path, name):
    workspace = tmp_path / "workspace"
    if name == "factors":
        workspace.mkdir()
        (workspace / "factors").write_text("a file")
    else:
        workspace.write_text("a file")
    with pytest.raises(tow.UserError, match=r"factors .*(not replaced|cannot be written to)"):
        record(small.build(), data(), workspace)


def test_a_fall_back_is_remembered(tmp_path):
    """A weight that fell back in a finished dataset keeps dense rows in the others, as without an interruption."""
    entry = ARCHITECTURES["weight_used_functionally_in_middle_batches_only"]
    specimen = entry.build(torch.float64)
    broken = {**specimen.datasets, "b": Drawn(specimen.datasets["b"], 1)}

    def run(datasets, workspace=None):
        return tow.record(
            specimen.model, datasets, "*", 3, specimen.loss, progress=False, workspace=workspace, statistics=False
        )

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        whole = run(specimen.datasets)
        with pytest.raises(RuntimeError):
            run(broken, tmp_path)
    resumed = run(specimen.datasets, tmp_path)
    assert (resumed.gram == whole.gram).all()
    assert resumed.choices == whole.choices


def test_files_give_the_same_bits_as_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(passes, "choose_keeping", lambda *_: Keeping("factors", "forced"))
    model = small.build(dtype=torch.float32)
    batches = {"a": small.batches(3, 1, dtype=torch.float32)}
    recordings = [record(model, batches, workspace) for workspace in (None, tmp_path)]
    assert same_bits(*recordings)
