"""One measurement in a process of its own, so that nothing is left over from another one."""

import functools
import json
import multiprocessing
import signal
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gradient_cost.scale import Scale

# torch is imported once, before any of its threads; each job starts from there with a clean heap. What is imported
# there must be importable from anywhere, so not this package.
_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(["transformers.models.llama.modeling_llama", "tugofwar.recorder"])
# About so many plain passes are enough to compare with, however many batches there are.
_PLAIN_PASSES = 100
_WARM_UP = 2


@dataclass(frozen=True)
class Job:
    """A method on the batches ``numbers``, which ``datasets`` own equal and consecutive parts of."""

    method: str
    scale: Scale
    numbers: Sequence[int]
    datasets: int


@dataclass(frozen=True)
class Outcome:
    """What a job came to.

    Attributes:
        failure: why there is nothing else; None if all went well.
        ratio: time over that of plain passes of the same batches.
        products: the part of it after the last pass.
        extra_bytes: peak memory above that of plain passes; None where the system does not tell.
        plain_seconds: one plain pass.
    """

    failure: str | None = None
    ratio: float = float("nan")
    products: float = float("nan")
    extra_bytes: int | None = None
    plain_seconds: float = float("nan")


def run(job: Job) -> tuple[Outcome, NDArray[np.float64] | None]:
    """Do a job in a new process; the outcome and the Gram matrix, if the method gives one."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        process = _PROCESSES.Process(target=_work, args=(job, folder))
        process.start()
        process.join()
        answer, gram = folder / "outcome.json", folder / "gram.npy"
        if not answer.exists():
            return Outcome(failure=f"its process ended with {_describe(process.exitcode)}"), None
        outcome = Outcome(**json.loads(answer.read_text(encoding="utf-8")))
        return outcome, np.load(gram) if gram.exists() else None


def _describe(status: int | None) -> str:
    if status is None or status >= 0:
        return f"status {status}"
    perhaps = ", out of memory perhaps" if status == -signal.SIGKILL else ""
    return f"signal {signal.Signals(-status).name}{perhaps}"


def _first_line(error: Exception) -> str:
    line = next(iter(str(error).strip().splitlines()), "")
    return f"{type(error).__name__}: {line.replace('|', '/')}"


def _work(job: Job, folder: Path) -> None:
    try:
        outcome, gram = _measure(job)
    except ModuleNotFoundError as error:
        outcome, gram = Outcome(failure=f"not installed: {error}"), None
    except Exception as error:  # A peer may fail in any way; its row says how, and the others go on.
        outcome, gram = Outcome(failure=_first_line(error)), None
    if gram is not None:
        np.save(folder / "gram.npy", gram)
    (folder / "outcome.json").write_text(json.dumps(asdict(outcome)), encoding="utf-8")


def _measure(job: Job) -> tuple[Outcome, NDArray[np.float64] | None]:
    from gradient_cost import methods, pacing, peers, workload

    method = {**methods.METHODS, **peers.PEERS, "reference": methods.exact}[job.method]
    # A model for the plain passes alone: some methods change theirs.
    plain_model, model = workload.build(job.scale), workload.build(job.scale)
    make = functools.partial(workload.make_batch, job.scale)
    plain = functools.partial(workload.plain_gradient, plain_model)
    plain(make(0))
    with pacing.peak_memory() as before:
        for number in range(_WARM_UP):
            plain(make(number))
    clock = pacing.Clock(plain)
    batches = pacing.Batches(make, job.numbers, clock, max(1, len(job.numbers) // _PLAIN_PASSES))
    with pacing.peak_memory() as after, clock.running():
        gram = method(model, batches, job.datasets)
    extra = max(0, after[0] - before[0]) if before and after else None
    if clock.took_all_first:
        for number in job.numbers:
            clock.pass_plainly(make(number))
    timing = clock.timing(len(job.numbers))
    return Outcome(None, timing.ratio, timing.products, extra, timing.plain_seconds), gram
