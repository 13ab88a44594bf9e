"""Which datasets a root offers, and how to open one.

A root is a folder, a YAML file or a `.jsonl` file. A folder that ``unimed-data prepare`` wrote offers what was
prepared. Any other folder offers every published dataset whose default folder under it (`medqa`, `pubmedqa`, `slake`,
`path_vqa`, `sa_med2d`, `mimic_cxr`, `mpx`, `medmnist`, `vqa_rad`) holds that layout's files, and what its
`datasets.yaml` declares; a YAML file offers what it declares:

    - name: brain_planes          # any name; with a published name, `layout` may be left out
      layout: medmnist            # one of `LAYOUTS`
      root: planes                # relative to the YAML file
      options: {flag: planes, classes: [axial, coronal], prompt: Which plane is shown in this image}

Without declaration, `*.jsonl` files in the folder itself whose records all name their `dataset` offer these datasets
(`readers.jsonl`), and so does one such file as the root. What is declared or published goes before them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from unimed_model.closed import Closed, nearest, validated
from unimed_model.data.files import note
from unimed_model.data.layouts import LAYOUTS, PUBLISHED
from unimed_model.data.prepared import data_root, entries, is_prepared, open_prepared, present
from unimed_model.data.readers import jsonl
from unimed_model.data.readers.request import Request
from unimed_model.data.sample import Samples
from unimed_model.data.splits import Lists
from unimed_model.errors import UserError

DECLARATIONS = "datasets.yaml"


@dataclass(frozen=True, slots=True)
class DatasetSource:
    """A dataset that can be opened: its name, raw layout, task, folder, and the layout's options.

    One of a prepared folder names that folder in ``prepared``, and is opened from its index.
    """

    name: str
    layout: str
    task: str
    root: Path
    options: Mapping[str, Any] = field(default_factory=dict)
    prepared: Path | None = None


_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"


class _Declaration(Closed):
    name: Annotated[str, Field(pattern=_NAME)]
    layout: str | None = None
    root: Path
    options: Annotated[dict[str, Any], Field(default_factory=dict)]


def discover(root: str | Path) -> list[DatasetSource]:
    """Return the datasets that a root offers: published ones in the paper's order, then declared ones, then JSON lines.

    A declaration with a published name takes the place of that dataset; files that are declared under another
    name are not offered under the published one as well.

    Raises:
        UserError: the root does not exist or offers nothing, or a declaration is wrong.
    """
    with _readable(Path(root)):
        sources = _offered(_existing(root))
    if not sources:
        folders = ", ".join(dict.fromkeys(entry.folder for entry in PUBLISHED.values()))
        raise UserError(
            f"{root} holds no dataset: it needs a {DECLARATIONS} or one of the folders {folders} with its "
            "published files, or .jsonl files whose records name their dataset."
        )
    return sources


def _offered(root: Path) -> list[DatasetSource]:
    if is_prepared(root):
        return list(_prepared(root).values())
    declared = {source.name: source for source in _declared(root)}
    published = {name: declared.get(name) or _at_default_folder(name, root, declared) for name in PUBLISHED}
    others = [source for name, source in declared.items() if name not in PUBLISHED]
    sources = [source for source in published.values() if source is not None] + others
    named = {source.name for source in sources}
    return sources + [source for name, source in _in_json_lines(root, declared).items() if name not in named]


def load_dataset(
    name: str,
    root: str | Path,
    split: str = "train",
    *,
    images: bool = True,
    language: str | None = None,
    seed: int | None = None,
    **options: Any,
) -> Samples:
    """Return a dataset as a sequence of `Sample`, with `skipped`: reason -> number of records left out.

    Args:
        name: a published name (`PUBLISHED`) or one that the root declares.
        root: a data root (see `discover`), or the dataset's own folder.
        split: `train` or `test`; MedMNIST also has `val`, MedQA `dev`, Slake `official:train`,
            `official:validate` and `official:test`.
        images: False reads annotations alone: no image file need exist.
        language: `en` (default), `all`, or, of Slake's questions, `zh`.
        seed: of splits that are drawn (default 0), where the dataset's folder has no `train.txt` and `test.txt`.
        options: of the layout, such as `size` (MedMNIST) or `rounding` (Slake boxes).

    Raises:
        UserError: an unknown name, split or option; missing or damaged files; missing images.
    """
    with _readable(Path(root)):
        source = _find(name, _existing(root))
    return open_source(source, split, images=images, language=language, seed=seed, **options)


def open_source(
    source: DatasetSource,
    /,
    split: str = "train",
    *,
    images: bool = True,
    language: str | None = None,
    seed: int | None = None,
    lists: Lists | None = None,
    **options: Any,
) -> Samples:
    """Return the samples of a source; arguments and errors as in `load_dataset`.

    Args:
        source: what to open.
        split: name of the split.
        images: False reads annotations alone.
        language: of the questions.
        seed: of a split that is drawn.
        lists: split -> units of an earlier preparation, which a drawn split keeps to.
        options: of the layout; they go before those of the source.
    """
    if source.prepared is not None:
        stated = {"language": language, "seed": seed, **options}
        asked = {key: value for key, value in stated.items() if value is not None}
        samples = open_prepared(source.prepared, source.name, split, asked)
        return present(samples) if images and source.options.get("missing_images") == "skip" else samples
    layout = LAYOUTS[source.layout]
    chosen = validated(layout.options, {**source.options, **options}, f"Options of {source.name}")
    note(source.root)
    request = Request(
        source.name,
        source.task,
        source.root,
        split,
        images,
        language or "en",
        seed or 0,
        lists,
        restricted=chosen.restricted,
    )
    with _readable(source.root):
        return layout.read(request, chosen)


def select_sources(sources: list[DatasetSource], names: tuple[str, ...] | None, where: str) -> list[DatasetSource]:
    """Return the sources with the given names, in their own order; all of them without names.

    Raises:
        UserError: a name that is not among them; ``where`` says what offers them.
    """
    if names is None:
        return sources
    offered = [source.name for source in sources]
    for name in names:
        if name not in offered:
            raise UserError(
                f"{where} offers no dataset {name!r}; the nearest is {nearest(name, offered)!r} "
                f"(all: {', '.join(offered)})."
            )
    return [source for source in sources if source.name in names]


def skipping(source: DatasetSource) -> DatasetSource:
    """Return the source with samples whose image file is missing left out and counted, not an error.

    A layout whose images are not files of their own is returned as it is.
    """
    if "missing_images" not in LAYOUTS[source.layout].options.model_fields:
        return source
    return replace(source, options={**source.options, "missing_images": "skip"})


def _existing(root: str | Path) -> Path:
    root = Path(root).expanduser()
    if not root.exists():
        raise UserError(f"The data root {root} does not exist.")
    return root


def _prepared(folder: Path) -> dict[str, DatasetSource]:
    root = data_root(folder)
    found = entries(folder)
    if not found:
        raise UserError(f"{folder} holds no dataset yet: its preparation did not get that far; run it again.")
    return {
        name: DatasetSource(name, entry.layout, entry.task, root / entry.folder, entry.options, folder)
        for name, entry in found.items()
    }


def _find(name: str, root: Path) -> DatasetSource:
    if is_prepared(root):
        return select_sources(list(_prepared(root).values()), (name,), str(root))[0]
    declared = {source.name: source for source in _declared(root)}
    if name in declared:
        return declared[name]
    source = None
    if name in PUBLISHED:
        # A folder with declarations is a data root: its datasets are those it declares, and default folders.
        source = _at_default_folder(name, root, declared) or (None if declared else _at(name, root))
    lines = {} if source else _in_json_lines(root, declared)
    source = source or lines.get(name)
    if source is None and name not in PUBLISHED:
        known = [*PUBLISHED, *declared, *lines]
        raise UserError(f"There is no dataset {name!r}; the nearest name is {nearest(name, known)!r}.")
    if source is None:
        folder = PUBLISHED[name].folder
        raise UserError(f"{root} does not hold {name}: neither it nor {root / folder} has that dataset's files.")
    return source


def _at_default_folder(name: str, root: Path, declared: Mapping[str, DatasetSource]) -> DatasetSource | None:
    source = _at(name, root / PUBLISHED[name].folder)
    # Files that were declared under another name are that dataset, not the published one.
    return None if source and any(_same_files(source, other) for other in declared.values()) else source


@contextmanager
def _readable(folder: Path) -> Iterator[None]:
    """Inside, what the file system refuses is said as one sentence."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{error.filename or folder} cannot be read ({error.strerror}).") from error


def _same_files(published: DatasetSource, declared: DatasetSource) -> bool:
    same_folder = published.root.resolve() == declared.root.resolve()
    chosen = all(declared.options.get(key) == value for key, value in published.options.items())
    return published.layout == declared.layout and same_folder and chosen


def _at(name: str, folder: Path) -> DatasetSource | None:
    entry = PUBLISHED[name]
    layout = LAYOUTS[entry.layout]
    if not folder.is_dir() or not layout.holds(folder, validated(layout.options, entry.options, name)):
        return None
    return _source(name, entry.layout, folder, entry.options)


def _in_json_lines(root: Path, declared: Mapping[str, DatasetSource]) -> dict[str, DatasetSource]:
    others = {s.options.get("dataset") or s.name for s in declared.values() if s.layout == "jsonl" and _inside(s, root)}
    offered = {name: task for name, task in jsonl.offered(root).items() if name not in others}
    for name in offered:
        if not re.fullmatch(_NAME, name):
            raise UserError(f"{root}: {name!r} is no name for a dataset; it needs letters, digits, '_', '.' and '-'.")
    return {name: DatasetSource(name, "jsonl", task, root) for name, task in offered.items()}


def _inside(source: DatasetSource, root: Path) -> bool:
    return root.resolve() in (source.root.resolve(), source.root.resolve().parent)


def _declared(root: Path) -> list[DatasetSource]:
    path = root / DECLARATIONS if root.is_dir() else root
    if not path.is_file() or path.suffix == jsonl.SUFFIX:
        return []
    sources = [_declaration(entry, path, i) for i, entry in enumerate(_entries(path), start=1)]
    names = [source.name for source in sources]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise UserError(f"{path} declares {twice[0]!r} twice.")
    return sources


def _entries(path: Path) -> list[Any]:
    import yaml

    try:
        entries = yaml.safe_load(path.read_bytes())
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        # A parser's message spans several lines.
        reason = " ".join(str(error).split())
        raise UserError(f"{path} is not valid YAML ({reason}).") from error
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise UserError(f"{path} must hold a list of datasets, each with name, layout, root and options.")
    return entries


def _declaration(entry: dict[Any, Any], path: Path, number: int) -> DatasetSource:
    where = f"{path}, entry {number}"
    declared = validated(_Declaration, {str(key): value for key, value in entry.items()}, where)
    published = PUBLISHED.get(declared.name)
    name = declared.layout or (published.layout if published else None)
    if name is None:
        raise UserError(f"{where}: {declared.name!r} is not a published dataset, so its layout must be stated.")
    if name not in LAYOUTS:
        raise UserError(f"{where}: there is no layout {name!r}; the nearest is {nearest(name, LAYOUTS)!r}.")
    if published and published.layout != name:
        raise UserError(f"{where}: {declared.name} is published as {published.layout}; give this one its own name.")
    folder = path.parent / declared.root.expanduser()
    if not folder.exists():
        raise UserError(f"{where}: the folder {folder} does not exist.")
    options = {**(published.options if published else {}), **declared.options}
    validated(LAYOUTS[name].options, options, f"{where}, options")
    return _source(declared.name, name, folder, options)


def _source(name: str, layout: str, folder: Path, options: Mapping[str, Any]) -> DatasetSource:
    entry = LAYOUTS[layout]
    if entry.task_in is None:
        assert entry.task is not None, layout
        return DatasetSource(name, layout, entry.task, folder, options)
    task = entry.task_in(folder, name, validated(entry.options, options, f"Options of {name}"))
    return DatasetSource(name, layout, task, folder, options)
