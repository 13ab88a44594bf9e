"""The benchmark's script end to end on a model of toy size, and what its numbers are made of."""

import json
import mmap
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks" / "gradients.py"


def start(*arguments):
    command = [sys.executable, str(SCRIPT), "--scale", "tiny", "--quick", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    path = tmp_path_factory.mktemp("benchmark") / "measured.md"
    done = start("--only", "ours", "--batches", "4", "--out", str(path))
    assert done.returncode == 0, done.stderr
    return done, path.read_text(encoding="utf-8"), json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))


def test_every_method_is_measured_and_agrees_with_the_exact_gram_matrix(results):
    _, _, found = results
    rows = {row["method"]: row for row in found["rows"]}
    assert list(rows) == ["ours", "ours, without statistics", "naive loop", "two-pass streaming"]
    for row in rows.values():
        assert row["failures"] == []
        assert all(outcome["ratio"] > 0 for outcome in row["outcomes"])
    errors = [row["relative_error"] for row in rows.values()]
    assert errors.pop() is None
    assert all(0 < error < 1e-5 for error in errors)


def test_the_table_is_printed_and_written_with_the_goals(results):
    done, text, _ = results
    assert done.stdout.strip() == text.strip()
    assert "| 4 | ours | " in text
    assert "| relative error at most 1e-5 |" in text
    assert "time at 200 batches at most 1.05 | not measured | not known |" in text
    assert "measurements, about" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--batches", "5"], "5 batches are too few or no multiple of their 2 datasets"),
        (["--batches", "four"], "--batches"),
        (["--only", "peer"], "'peer' is none of ours, peers, growth"),
        (["--out", "nowhere/results.md"], "'nowhere/results.md' is no .md file in an existing folder"),
        (["--only", "peers", "--batches", "400"], "up to 200 batches"),
    ],
)
def test_a_mistake_on_the_command_line_is_one_sentence(arguments, said):
    done = start(*arguments)
    assert done.returncode != 0
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture
def cost(monkeypatch):
    monkeypatch.syspath_prepend(SCRIPT.parent)
    from gradient_cost import job, pacing, plan, report, scale

    return {"job": job, "pacing": pacing, "plan": plan, "report": report, "scale": scale}


def test_plain_passes_are_not_charged_to_the_method(cost):
    pacing = cost["pacing"]
    clock = pacing.Clock(lambda batch: time.sleep(0.02))
    batches = pacing.Batches(lambda number: {}, range(6), clock)
    with clock.running():
        for part in batches.split(2):
            for _ in part:
                time.sleep(0.04)
        for _ in batches:
            time.sleep(0.02)
        time.sleep(0.2)
    timing = clock.timing(len(batches))
    assert len(clock.plain_seconds) == 12
    assert not clock.took_all_first
    assert timing.plain_seconds == pytest.approx(0.02, rel=0.5)
    assert timing.ratio == pytest.approx((6 * 0.04 + 6 * 0.02 + 0.2) / (6 * 0.02), rel=0.5)
    assert timing.products == pytest.approx(0.2 / (6 * 0.02), rel=0.5)


def test_peak_memory_counts_what_was_released_before_the_end(cost):
    with cost["pacing"].peak_memory() as before:
        pass
    # mapped anew: an allocator may hand out what the process holds already
    with cost["pacing"].peak_memory() as after, mmap.mmap(-1, 80_000_000) as memory:
        for start_of_page in range(0, len(memory), mmap.PAGESIZE):
            memory[start_of_page] = 1
    if not after:
        pytest.skip("this system does not count peak memory")
    assert after[0] - before[0] == pytest.approx(80e6, rel=0.2)


def test_parameters_are_counted_as_the_model_has_them(cost):
    from gradient_cost.workload import build, parameters_of

    scale = cost["scale"].SCALES["tiny"]
    for each in (scale, scale.wider(3)):
        assert sum(parameter.numel() for parameter in parameters_of(build(each))) == each.parameters


def test_a_library_that_is_missing_is_an_outcome(cost, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "torchjd.autogram", None)
    job = cost["job"]
    job._work(job.Job("TorchJD, batches apart", cost["scale"].SCALES["tiny"], range(4), 2), tmp_path)
    outcome = job.Outcome(**json.loads((tmp_path / "outcome.json").read_text()))
    assert outcome.failure.startswith("not installed: ")
    assert "torchjd" in outcome.failure


def test_goals_are_judged_by_the_medians_of_what_was_measured(cost):
    job, report = cost["job"], cost["report"]
    scale = cost["scale"].SCALES["paper"]
    measured = report.Report(scale)

    def add(method, batches, *ratios, memory=0, failure=None):
        for ratio in ratios:
            outcome = job.Outcome(failure, ratio, 0.1, memory, 1.0)
            measured.add("table", str(batches), job.Job(method, scale, range(batches), 2), outcome, None)

    add("ours", 16, 1.1, 1.2, 9.0, memory=100)
    add("naive loop", 16, 1.0, memory=600)
    add("dattri-llm", 16, 1.3)
    add("kronfluence (identity)", 16, 1.15)
    add("opacus", 16, 0.0, failure="not installed: opacus")
    add("ours", 200, 1.04, 1.06, memory=200 * scale.gradient_bytes)
    text = report.to_markdown(measured)
    assert "| 16 | ours | 1.200 (1.100 to 9.000) | 0.100 | 100 B | 1/6.0 | no Gram matrix |" in text
    assert "| 16 | opacus | not installed: opacus | | | | |" in text
    assert "time at 200 batches at most 1.05 | 1.050 of 1.050 | yes |" in text
    assert "time at 1000 batches at most 1.20 | not measured | not known |" in text
    assert "at 16 batches at most 1/6 of the naive loop's | 0.167 of 0.167 | yes |" in text
    assert "at 200 batches at most 1/6 of the naive loop's | 1.000 of 0.167 | no |" in text
    assert "fastest: kronfluence (identity)) | 1.200 of 1.150 | no |" in text


def test_relative_error_looks_at_the_rows_of_the_reference(cost):
    report, plan = cost["report"], cost["plan"]
    rows = plan.reference_rows(40)
    assert (rows[0], rows[-1], len(set(rows))) == (0, 39, 16)
    gram = np.diag(np.arange(1.0, 41.0))
    reference = gram[np.ix_(rows, rows)]
    assert report.relative_error(gram, reference) == 0
    gram[0, 39] = 1e-3
    assert report.relative_error(gram, reference) == pytest.approx(1e-3 / 40**0.5)


def test_no_method_is_run_where_it_is_quadratic_or_does_not_fit(cost):
    plan = cost["plan"]
    steps = plan.table_steps(cost["scale"].SCALES["paper"], plan.FULL, ("ours", "peers"))
    sizes = {}
    for step in steps:
        sizes.setdefault(step.job.method, set()).add(len(step.job.numbers))
    assert sizes["ours"] == {16, 200, 1000}
    assert sizes["naive loop"] == {16, 200}
    assert sizes["kronfluence (identity)"] == {16}
