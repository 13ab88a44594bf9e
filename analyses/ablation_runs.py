"""The folder of an ablation: what it was asked for, which runs it is made of, and which of them are finished.

OUT/ablation.json            table, preset, seeds, overrides, resolved settings, data, commands
OUT/<arm>/seed-<s>/          a run folder of unimed-train, with evaluation/ of unimed-eval in it
OUT/logs/<arm>-seed-<s>.log  what the two commands wrote
"""

import fcntl
import json
import os
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analyses.ablation_tables import Row, Table, table_named
from analyses.launching import Job
from tugofwar.errors import UserError
from unimed_model.data import DatasetSource, discover, select_sources
from unimed_model.errors import UserError as SettingsError
from unimed_model.presets import resolve

RECORD = "ablation.json"
LOCK = ".lock"
FINISHED = "finished"
EVALUATION = "evaluation"
STATISTICS = "sample_statistics.parquet"

Command = tuple[str, ...]


@dataclass(frozen=True)
class Ablation:
    """What is asked for: a table at some preset, so often, on some data.

    Attributes:
        table: the table.
        preset: name of a shipped preset, or path of a YAML file.
        overrides: ``key=value`` for all arms.
        seeds: runs per arm; their seeds are 0 to seeds - 1.
        data: data root.
        out: the folder.
        weights: folder with pretrained parts.
        feature_cache: folder for the frozen vision encoder's features, shared by all runs.
    """

    table: Table
    preset: str
    overrides: tuple[str, ...]
    seeds: int
    data: Path
    out: Path
    weights: Path | None = None
    feature_cache: Path | None = None

    def folder(self, arm: str, seed: int) -> Path:
        """Return the run folder of an arm and seed."""
        return run_folder(self.out, arm, seed)

    def job(self, arm: str, seed: int) -> Job:
        """Return what is still to be done for an arm and seed."""
        train, evaluate = self.commands(arm, seed)
        commands = (evaluate,) if is_trained(self.folder(arm, seed)) else (train, evaluate)
        return Job(f"{arm} seed {seed}", commands, self.out / "logs" / f"{arm}-seed-{seed}.log")

    def commands(self, arm: str, seed: int) -> tuple[Command, Command]:
        """Return the commands that train and evaluate an arm with a seed."""
        run, data = str(self.folder(arm, seed)), str(self.data)
        weights = [] if self.weights is None else ["--weights", str(self.weights)]
        cache = [] if self.feature_cache is None else ["--feature-cache", str(self.feature_cache)]
        overrides = [word for override in (*self.overrides, f"seed={seed}") for word in ("--set", override)]
        named = resolve(self.preset, self.overrides).data.datasets
        chosen = ["--datasets", ",".join(named)] if named else []
        train = ["unimed-train", "--preset", self.preset, "--arm", arm, *overrides, "--data", data, "--out", run]
        evaluate = ["unimed-eval", run, "--data", data, *chosen]
        return (*train, *weights, *cache, "--quiet"), (*evaluate, *weights, "--quiet")

    def check(self, rows: Sequence[Row]) -> None:
        """Raise a UserError, before anything is run, for settings, arms or data that cannot be used together."""
        if self.seeds < 1:
            raise UserError(f"--seeds is {self.seeds}; an arm needs at least 1 run.")
        for override in self.overrides:
            if override.partition("=")[0] == "seed":
                raise UserError(f"--set {override}: the seeds of an ablation are 0 to --seeds - 1; leave it out.")
        resolve(self.preset, self.overrides)
        for row in rows:
            try:
                resolve(self.preset, self.overrides, row.arm)
            except SettingsError as error:
                raise UserError(f"The arm {row.arm} cannot be run so: {error}") from error
        self.sources()

    def sources(self) -> list[DatasetSource]:
        """Return the datasets that the runs are trained and evaluated on.

        Raises:
            UserError: no data root, or ``data.datasets`` names one that it does not offer.
        """
        named = resolve(self.preset, self.overrides).data.datasets
        return select_sources(discover(self.data), tuple(named) if named else None, str(self.data))

    def record(self) -> dict[str, Any]:
        """Return what stands in ``ablation.json``."""
        return {
            "table": self.table.name,
            "preset": self.preset,
            "overrides": list(self.overrides),
            "settings": resolve(self.preset, self.overrides).model_dump(mode="json"),
            "data": str(self.data),
            "weights": None if self.weights is None else str(self.weights),
            "seeds": self.seeds,
            "datasets": {source.name: source.task for source in self.sources()},
            "commands": {
                f"{row.arm}/seed-{seed}": [shlex.join(command) for command in self.commands(row.arm, seed)]
                for row in self.table.rows
                for seed in range(self.seeds)
            },
        }

    def enter(self) -> None:
        """Write ``ablation.json``, or see that the one that stands there is of the same ablation.

        More seeds than before are added to it; the runs that are there stay.

        Raises:
            UserError: the folder holds an ablation with other settings (they are named), or something else.
        """
        asked = self.record()
        if (self.out / RECORD).is_file():
            _require_same(self.out, read_record(self.out), asked)
        elif self.out.exists() and any(path.name != LOCK for path in self.out.iterdir()):
            raise UserError(f"{self.out} exists and holds no {RECORD}; choose another --out.")
        text = json.dumps(asked, indent=2, ensure_ascii=False) + "\n"
        partial = self.out / f"{RECORD}.partial"
        partial.write_text(text, encoding="utf-8")
        partial.rename(self.out / RECORD)


@contextmanager
def locked(out: Path) -> Iterator[int]:
    """Have a folder for oneself; yields the lock's descriptor, which child processes keep open to keep the lock.

    Raises:
        UserError: another process works in the folder.
    """
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; name a folder with --out.")
    out.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(out / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"Another process works in {out}; wait for it, or choose another --out.") from None
        yield descriptor
    finally:
        os.close(descriptor)


def run_folder(out: Path, arm: str, seed: int) -> Path:
    """Return where the run of an arm and seed stands."""
    return out / arm / f"seed-{seed}"


def is_trained(run: Path) -> bool:
    """Whether a run folder holds a finished training."""
    try:
        content = json.loads((run / "run.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):  # one that was being written when its process was killed
        return False
    return isinstance(content, dict) and content.get("exit_reason") == FINISHED


def is_finished(run: Path) -> bool:
    """Whether a run folder holds a finished training and its finished evaluation."""
    evaluation = run / EVALUATION
    return is_trained(run) and (evaluation / "scores.json").is_file() and (evaluation / STATISTICS).is_file()


def read_record(out: Path) -> dict[str, Any]:
    """Return the content of ``ablation.json``.

    Raises:
        UserError: there is none, or it is damaged.
    """
    path = out / RECORD
    if not path.is_file():
        raise UserError(f"{out} holds no {RECORD}; make it with: python -m analyses.ablation run --out {out} …")
    try:
        record = dict(json.loads(path.read_text(encoding="utf-8")))
        table_named(record["table"])
        if not isinstance(record["seeds"], int) or not isinstance(record["datasets"], dict):
            raise TypeError
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged; remove it and give the run command again.") from error
    return record


def _require_same(out: Path, there: dict[str, Any], asked: dict[str, Any]) -> None:
    compared = ("table", "settings", "preset", "data", "datasets", "weights")
    before, now = ({key: _located(record).get(key) for key in compared} for record in (there, asked))
    different = _differences(before, now)
    if different:
        raise UserError(f"{out} holds an ablation with other settings ({'; '.join(different)}); choose another --out.")
    if asked["seeds"] < there["seeds"]:
        raise UserError(
            f"{out} holds an ablation with {there['seeds']} seeds, and {asked['seeds']} are asked for; "
            f"say --seeds {there['seeds']} or more, or choose another --out."
        )


def _located(record: dict[str, Any]) -> dict[str, Any]:
    """A record whose paths are whole, so that two spellings of one place are the same."""
    paths = {key: str(Path(record[key]).resolve()) for key in ("data", "weights") if record.get(key)}
    return {**record, **paths}


def _differences(there: Any, asked: Any, key: str = "") -> list[str]:
    if isinstance(there, dict) and isinstance(asked, dict):
        names = list(dict.fromkeys([*there, *asked]))
        return [
            text
            for name in names
            for text in _differences(there.get(name), asked.get(name), f"{key}.{name}" if key else name)
        ]
    return [] if there == asked else [f"{key.removeprefix('settings.')}: {there} there, {asked} asked for"]
