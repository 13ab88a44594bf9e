"""A prepared folder, as ``unimed-data prepare`` writes it, read back: which datasets it holds, and their samples.

It is a data root like any other, but opens in a moment: samples come from an index, not from the raw files. The images
stay where they are.

    prepared.json            where the data root is, relative to this folder
    datasets/<name>.json     how a dataset was read, which files that depended on, what was found wrong
    index/<name>/<split>.parquet
    splits/<name>.json       which samples belong to which split, by what rule, and what leaks between them
    pictures.parquet         what is known of each image, so that unchanged ones are not opened again
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from unimed_model.data.files import State, read_json
from unimed_model.data.findings import Finding, Findings
from unimed_model.data.index import IndexedSamples
from unimed_model.data.sample import Samples
from unimed_model.errors import AbsentError, UserError

HEAD = "prepared.json"
FORMAT = 1


@dataclass(frozen=True, slots=True)
class SplitEntry:
    """One indexed split: how many samples on how many images, and what was found wrong."""

    samples: int
    images: int
    findings: Findings


@dataclass(frozen=True, slots=True)
class Entry:
    """How one dataset was prepared.

    Attributes:
        dataset: its name.
        layout: its raw layout.
        task: its task.
        folder: its folder, relative to the data root.
        options: of the layout.
        language: of the questions.
        seed: of what was drawn.
        restricted: whether its text may not be passed on.
        annotations: files read and folders listed, relative to the data root -> their state then.
        pictures: digest of the states of all its image files then.
        splits: split -> what is indexed.
    """

    dataset: str
    layout: str
    task: str
    folder: str
    options: Mapping[str, Any]
    language: str
    seed: int
    restricted: bool
    annotations: Mapping[str, State]
    pictures: str
    splits: Mapping[str, SplitEntry]

    def to_json(self) -> str:
        """Return the content of its file."""
        content = {
            **{name: getattr(self, name) for name in self.__slots__ if name not in ("annotations", "splits")},
            "annotations": {path: list(asdict(state).values()) for path, state in self.annotations.items()},
            "splits": {
                split: {
                    "samples": entry.samples,
                    "images": entry.images,
                    "findings": {kind: asdict(found) for kind, found in entry.findings.items()},
                }
                for split, entry in self.splits.items()
            },
        }
        return json.dumps({"format": FORMAT, **content}, indent=1) + "\n"


def is_prepared(root: Path) -> bool:
    """Say whether a folder was written by ``unimed-data prepare``."""
    return (root / HEAD).is_file()


def read_head(folder: Path) -> dict[str, Any]:
    """Return what a prepared folder says of itself: `root`, relative to it, and the names of its `datasets`.

    Raises:
        UserError: damaged, or of another version.
    """
    head = read_json(folder / HEAD)
    whole = isinstance(head, dict) and head.get("format") == FORMAT and isinstance(head.get("root"), str)
    if not whole or not isinstance(head.get("datasets"), list) or not all(isinstance(n, str) for n in head["datasets"]):
        raise UserError(f"{folder / HEAD} is damaged or not of this version's form; prepare into another folder.")
    return dict(head)


def data_root(folder: Path) -> Path:
    """Return the data root that a prepared folder indexes.

    Raises:
        UserError: it is not where it was, or the folder is damaged or of another version.
    """
    root = (folder.resolve() / read_head(folder)["root"]).resolve()
    if not root.exists():
        raise UserError(f"{folder} indexes {root}, which does not exist; move it back or prepare again.")
    return root


def raw_root(root: Path) -> Path:
    """Return the data root behind a prepared folder; any other root as it is.

    Raises:
        UserError: as `data_root`.
    """
    return data_root(root) if is_prepared(root) else root


def entries(folder: Path) -> dict[str, Entry]:
    """Return the datasets of a prepared folder, in the order they were prepared in.

    Raises:
        UserError: the folder is damaged.
    """
    found = {}
    for name in read_head(folder)["datasets"]:
        entry = read_entry(folder, name)
        if entry is not None:
            found[name] = entry
    return found


def read_entry(folder: Path, name: str) -> Entry | None:
    """Return how a dataset was prepared; None where it was not.

    Raises:
        UserError: its file is damaged.
    """
    path = folder / "datasets" / f"{name}.json"
    if not path.is_file():
        return None
    content = read_json(path)
    try:
        if content.pop("format") != FORMAT:
            return None
        content["annotations"] = {file: State(*state) for file, state in content["annotations"].items()}
        content["splits"] = {split: _split_entry(value) for split, value in content["splits"].items()}
        return Entry(**content)
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        raise UserError(f"{path} is damaged ({error}); remove it and prepare again.") from error


def _split_entry(content: Mapping[str, Any]) -> SplitEntry:
    findings = Findings({kind: Finding(**found) for kind, found in content["findings"].items()})
    return SplitEntry(content["samples"], content["images"], findings)


def index_path(folder: Path, dataset: str, split: str) -> Path:
    """Return where the index of a split is."""
    return folder / "index" / dataset / f"{split}.parquet"


def open_prepared(folder: Path, name: str, split: str, asked: Mapping[str, Any]) -> IndexedSamples:
    """Return the samples of a prepared split.

    Args:
        folder: the prepared folder.
        name: dataset.
        split: one that was prepared.
        asked: language, seed and options that the caller insists on.

    Raises:
        UserError: not prepared, prepared otherwise than asked, or out of date.
    """
    entry = read_entry(folder, name)
    if entry is None:
        raise UserError(f"{folder} holds no index of {name}; prepare it.")
    if split not in entry.splits:
        raise AbsentError(f"{name} has no split {split!r} in {folder}; it has {', '.join(entry.splits)}.")
    chosen = {**entry.options, "language": entry.language, "seed": entry.seed}
    for key, value in asked.items():
        if chosen.get(key) != value:
            raise UserError(
                f"{folder} holds {name} prepared with {key}={chosen.get(key)!r}, not {value!r}; prepare it so, or read "
                "the data root itself."
            )
    _require_unchanged(entry, data_root(folder))
    return open_index(folder, entry, split)


def present(samples: IndexedSamples) -> Samples:
    """Return the samples whose image file is still there, and count the others; the same object where none is gone."""
    gone = {path for path in samples.image_files() if not path.is_file()}
    if not gone:
        return samples
    kept = [s for s in samples if s.image_source is None or s.image_source.path not in gone]
    now = Findings()
    now.leave_out("missing image", str(min(gone)), len(samples) - len(kept))
    return Samples(kept, samples.findings.with_those(now))


def open_index(folder: Path, entry: Entry, split: str) -> IndexedSamples:
    """Return the samples of a prepared split as they were, whether or not the raw files have changed since.

    Raises:
        UserError: the folder is damaged, or the data root is gone.
    """
    fixed = {"dataset": entry.dataset, "task": entry.task, "split": split, "restricted": entry.restricted}
    path = index_path(folder, entry.dataset, split)
    return IndexedSamples(path, data_root(folder), fixed, entry.splits[split].findings)


def _require_unchanged(entry: Entry, root: Path) -> None:
    for path, state in entry.annotations.items():
        # A listing that has changed may hold more than was indexed, which takes nothing from what was.
        unchanged = state.same(State.of(root / path)) or (
            state.sha256 and state.same(State.of(root / path, digest=True))
        )
        if not unchanged and not (root / path).is_dir():
            raise UserError(
                f"{root / path} has changed since {entry.dataset} was prepared; run unimed-data prepare again."
            )
