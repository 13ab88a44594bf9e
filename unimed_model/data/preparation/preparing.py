"""`unimed-data prepare`: every dataset of a root read once, its images looked at, its splits written down and indexed.

Each dataset is finished before the next is begun, and what is finished stands: an interrupted preparation goes on where
it stopped. What has not changed since the last one is not done again.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from unimed_model.data.files import State, noting
from unimed_model.data.index import write_index
from unimed_model.data.layouts import LAYOUTS
from unimed_model.data.preparation.inspection import UNREADABLE, image_sources, unreadable
from unimed_model.data.preparation.leakage import Leak, leaks
from unimed_model.data.preparation.ledger import read_ledger, write_ledger
from unimed_model.data.preparation.manifest import manifest, units_of
from unimed_model.data.preparation.pictures import Ledger, examine, key_of
from unimed_model.data.prepared import (
    FORMAT,
    HEAD,
    Entry,
    SplitEntry,
    index_path,
    is_prepared,
    open_index,
    read_entry,
    read_head,
)
from unimed_model.data.sample import Sample, Samples
from unimed_model.data.sources import DatasetSource, open_source, skipping
from unimed_model.data.splits import Lists
from unimed_model.errors import AbsentError, UserError


@dataclass(frozen=True)
class Settings:
    """How datasets are read.

    Attributes:
        language: of questions.
        seed: of what is drawn.
        skip_missing: leave out samples whose image is missing or cannot be read, instead of refusing the dataset.
        digest: tell unchanged files by their bytes instead of by size and time.
        redraw: draw splits anew where an earlier preparation has drawn them.
    """

    language: str = "en"
    seed: int = 0
    skip_missing: bool = False
    digest: bool = False
    redraw: bool = False


@dataclass(frozen=True)
class Done:
    """What became of one dataset.

    Attributes:
        dataset: its name.
        entry: what is indexed; None where it was refused.
        leaks: what its splits have in common, where it was read anew.
        fresh: False where it stood already, unchanged.
        refused: why it is not indexed; None where it is.
        removed: whether it was indexed and is no longer in the root.
        absent: split -> why it is not there.
    """

    dataset: str
    entry: Entry | None = None
    leaks: Sequence[Leak] = ()
    fresh: bool = True
    refused: str | None = None
    removed: bool = False
    absent: Mapping[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        splits = self.entry.splits if self.entry else {}
        return {
            "dataset": self.dataset,
            "status": self._status,
            "refused": self.refused,
            "absent": dict(self.absent),
            "splits": {
                split: {"samples": entry.samples, "images": entry.images, "left_out": entry.findings.left_out()}
                for split, entry in splits.items()
            },
            "leakage": [asdict(leak) for leak in self.leaks],
        }

    @property
    def _status(self) -> str:
        if self.removed:
            return "removed"
        return "refused" if self.refused else "indexed" if self.fresh else "unchanged"

    def text(self) -> str:
        """Return it as lines for a person."""
        if self.removed:
            return f"{self.dataset}: no longer in the root: its index is removed"
        if self.entry is None:
            return f"{self.dataset}: refused: {self.refused}"
        counts = ", ".join(f"{split} {entry.samples}" for split, entry in self.entry.splits.items())
        lines = [f"{self.dataset}: {counts} ({'indexed' if self.fresh else 'unchanged'})"]
        for split, entry in self.entry.splits.items():
            lines += [f"  {split}: {count} left out: {kind}" for kind, count in entry.findings.left_out().items()]
        lines += [f"  {split}: absent: {why}" for split, why in self.absent.items()]
        lines += [
            f"  {leak.count} x {leak.kind} in both {' and '.join(leak.splits)}: {leak.first}" for leak in self.leaks
        ]
        return "\n".join(lines)


def prepare(
    root: Path,
    out: Path,
    sources: Sequence[DatasetSource],
    settings: Settings,
    *,
    whole: bool = False,
    quiet: bool = False,
) -> Iterator[Done]:
    """Index datasets of a root into a folder, one after the other, and say of each what became of it.

    Args:
        root: data root, which stays as it is.
        out: the prepared folder: absent, empty, or prepared from the same root before.
        sources: the datasets, from `discover(root)`.
        settings: how to read them.
        whole: whether these are all that the root offers, so that the index of any other is removed.
        quiet: no progress bar.

    Raises:
        UserError: ``out`` holds something else, or indexes another root.
    """
    folder = root if root.is_dir() else root.parent
    base, out = folder.resolve(), out.resolve()
    _claim(out, base)
    ledger = read_ledger(out / "pictures.parquet", base)
    for found in sources:
        inside = found.root.is_relative_to(folder)
        # Paths are compared with those of the index, which know no links and no working folder.
        place = base / found.root.relative_to(folder) if inside else found.root.resolve()
        source = replace(found, root=place)
        try:
            done = _Job(source, base, out, settings, ledger, quiet).run()
        except UserError as error:
            _withdraw(out, source.name)
            done = Done(source.name, refused=str(error))
        except KeyboardInterrupt as interrupt:
            interrupt.add_note("What was prepared is kept; the same command goes on from there.")
            raise
        _remember(out, source.name)
        yield done
    if whole:
        for name in [name for name in read_head(out)["datasets"] if name not in {source.name for source in sources}]:
            _forget(out, name)
            yield Done(name, removed=True)


def _forget(out: Path, name: str) -> None:
    """Remove a dataset from the index; its split manifest stays, as in `_withdraw`."""
    _withdraw(out, name)
    head = read_head(out)
    head["datasets"].remove(name)
    _write(out / HEAD, json.dumps(head, indent=1) + "\n")
    shutil.rmtree(out / "index" / name, ignore_errors=True)


def _claim(out: Path, base: Path) -> None:
    if out.exists() and not out.is_dir():
        raise UserError(f"The output {out} is a file; name a folder.")
    if is_prepared(out):
        head = read_head(out)
        if (out / head["root"]).resolve() != base.resolve():
            raise UserError(f"{out} indexes {(out / head['root']).resolve()}, not {base}; name another folder.")
        return
    if out.exists() and any(out.iterdir()):
        raise UserError(f"{out} holds something else than a prepared folder; name another folder or remove it.")
    _write(out / HEAD, json.dumps({"format": FORMAT, "root": os.path.relpath(base, out), "datasets": []}) + "\n")


def _remember(out: Path, name: str) -> None:
    """Name a dataset in the head; its order is that in which datasets were first prepared."""
    head = read_head(out)
    if name not in head["datasets"]:
        head["datasets"].append(name)
        _write(out / HEAD, json.dumps(head, indent=1) + "\n")


def _withdraw(out: Path, name: str) -> None:
    """Forget a dataset that can no longer be used; its split manifest stays, so that the split does."""
    (out / "datasets" / f"{name}.json").unlink(missing_ok=True)


def _write(path: Path, text: str) -> None:
    partial = path.with_name(f"{path.name}.partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


@dataclass(frozen=True)
class _Job:
    """One dataset on its way into the index."""

    source: DatasetSource
    base: Path
    out: Path
    settings: Settings
    ledger: Ledger
    quiet: bool

    def run(self) -> Done:
        standing = read_entry(self.out, self.source.name)
        if standing is not None and self._stands(standing):
            return Done(self.source.name, standing, fresh=False)
        lists = self._lists()
        with noting() as noted:
            splits, absent = self._read(lists)
        if not splits:
            raise next(iter(absent.values()))
        self._look(splits)
        kept = {split: self._usable(split, samples) for split, samples in splits.items()}
        if not any(kept.values()):
            raise UserError(f"{self.source.name} has no sample that can be used.")
        entry = self._entry(kept, noted)
        found = leaks(kept, self.ledger)
        self._store(entry, kept, found)
        return Done(self.source.name, entry, found, absent={split: str(error) for split, error in absent.items()})

    @property
    def _options(self) -> dict[str, Any]:
        chosen = skipping(self.source) if self.settings.skip_missing else self.source
        model = LAYOUTS[self.source.layout].options
        options: dict[str, Any] = model.model_validate(dict(chosen.options)).model_dump(mode="json")
        return options

    def _stands(self, entry: Entry) -> bool:
        same = (entry.layout, entry.task, entry.folder, entry.language, entry.seed, dict(entry.options)) == (
            self.source.layout,
            self.source.task,
            os.path.relpath(self.source.root, self.base),
            self.settings.language,
            self.settings.seed,
            self._options,
        )
        if not same or self.settings.redraw:
            return False
        digest = self.settings.digest
        for path, state in entry.annotations.items():
            if not state.same(State.of(self.base / path, digest)):
                return False
        if not all(index_path(self.out, entry.dataset, split).is_file() for split in entry.splits):
            return False
        return self._pictures_stand(entry)

    def _pictures_stand(self, entry: Entry) -> bool:
        """Say whether the ledger knows all images as they are now, and knew them so when the index was made."""
        indexed = [open_index(self.out, entry, split) for split in entry.splits]
        states: dict[Path, State | None] = {}
        for source in (source for samples in indexed for source in image_sources(samples)):
            if source.path not in states:
                states[source.path] = State.of(source.path, self.settings.digest)
            picture = self.ledger.get(key_of(source))
            if picture is None or not picture.state.same(states[source.path]):
                return False
        return self._fingerprint(indexed) == entry.pictures

    def _fingerprint(self, splits: Iterable[Samples]) -> str:
        """Return a digest of what the ledger says of the image files: another dataset may have looked at them since."""
        sources = {key_of(source) for samples in splits for source in image_sources(samples)}
        states = {key[0]: self.ledger[key].state for key in sources}
        lines = [f"{os.path.relpath(path, self.base)} {s.size} {s.changed}" for path, s in sorted(states.items())]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    def _read(self, lists: Lists | None) -> tuple[dict[str, Samples], dict[str, AbsentError]]:
        splits: dict[str, Samples] = {}
        absent: dict[str, AbsentError] = {}
        for split in LAYOUTS[self.source.layout].splits:
            try:
                splits[split] = open_source(
                    self.source,
                    split,
                    language=self.settings.language,
                    seed=self.settings.seed,
                    lists=lists,
                    **{k: v for k, v in self._options.items() if k not in self.source.options},
                )
            except AbsentError as error:
                absent[split] = error
        return splits, absent

    def _lists(self) -> Lists | None:
        """Return what an earlier preparation drew with this seed, which stays as it is."""
        path = self.out / "splits" / f"{self.source.name}.json"
        if self.settings.redraw or not LAYOUTS[self.source.layout].drawn or not path.is_file():
            return None
        return units_of(path, self.settings.seed)

    def _look(self, splits: Mapping[str, Samples]) -> None:
        path = self.out / "pictures.parquet"
        sources = [source for samples in splits.values() for source in image_sources(samples)]
        found = examine(
            sources,
            self.ledger,
            digest=self.settings.digest,
            name=self.source.name,
            quiet=self.quiet,
            keep=lambda so_far: write_ledger(path, self.ledger | so_far, self.base),
        )
        if any(self.ledger.get(key) != picture for key, picture in found.items()):
            self.ledger.update(found)
            write_ledger(path, self.ledger, self.base)

    def _usable(self, split: str, samples: Samples) -> Samples:
        damaged = unreadable(samples, self.ledger)
        if damaged and not self.settings.skip_missing:
            finding = damaged[UNREADABLE]
            raise UserError(
                f"{self.source.name}, {split}: {finding.count} samples have an image that cannot be read (first: "
                f"{finding.first}); download it again, or leave them out with --skip-missing."
            )
        kept = [sample for sample in samples if not self._damaged(sample)] if damaged else samples
        return Samples(kept, samples.findings.with_those(damaged))

    def _damaged(self, sample: Sample) -> bool:
        return sample.image_source is not None and bool(self.ledger[key_of(sample.image_source)].problem)

    def _entry(self, splits: Mapping[str, Samples], noted: set[Path]) -> Entry:
        states = {path: State.of(path, self.settings.digest) for path in sorted(noted)}
        return Entry(
            dataset=self.source.name,
            layout=self.source.layout,
            task=self.source.task,
            folder=os.path.relpath(self.source.root, self.base),
            options=self._options,
            language=self.settings.language,
            seed=self.settings.seed,
            restricted=bool(self._options["restricted"]),
            annotations={os.path.relpath(path, self.base): state for path, state in states.items() if state},
            pictures=self._fingerprint(splits.values()),
            splits={
                split: SplitEntry(len(samples), len({s.image_id for s in samples} - {None}), samples.findings)
                for split, samples in splits.items()
            },
        )

    def _store(self, entry: Entry, splits: Mapping[str, Samples], found: Sequence[Leak]) -> None:
        """Write manifest, indexes and entry, the entry last: without it the dataset counts as not prepared."""
        _withdraw(self.out, entry.dataset)
        content = manifest(entry, splits, found)
        _write(self.out / "splits" / f"{entry.dataset}.json", json.dumps(content, indent=1) + "\n")
        for split, samples in splits.items():
            path = index_path(self.out, entry.dataset, split)
            write_index(path, samples, self.base, private=entry.restricted)
        _write(self.out / "datasets" / f"{entry.dataset}.json", entry.to_json())
