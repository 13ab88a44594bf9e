"""Fetch a dataset by its recipe, verify it, and say what came from where under which licence."""

from __future__ import annotations

import json
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from unimed_model.closed import nearest
from unimed_model.data.layouts import PUBLISHED
from unimed_model.data.terms import TERMS
from unimed_model.errors import UserError
from unimed_model.weights.download import DIGESTS, KEPT, digest, download
from unimed_model.weights.provenance import RECORD, stands
from unimed_model.weights.repositories import announced, fetch_files

from .archives import unpack
from .recipes import RECIPES, HubFiles, WebFile, WebFiles


def fetch(dataset: str, root: str | Path, *, quiet: bool = False) -> list[str]:
    """Fetch a published dataset into its default folder under a data root; one that is not free is not fetched.

    What is there already is verified, not fetched again. What is interrupted is kept, and the next call goes on from
    there. ``PROVENANCE.json`` in the folder records source, revision, licence, and the SHA-256 of every file.

    Args:
        dataset: a published name.
        root: data root; it is made when something is fetched.
        quiet: no progress bars.

    Returns:
        Lines for a person: what was fetched from where, and the licence; or the licence and the steps.

    Raises:
        UserError: an unknown name; the source cannot be reached or refuses; a digest differs; something else stands in
            the folder's place; an archive that is damaged or not safe to unpack.
    """
    if dataset not in PUBLISHED:
        raise UserError(
            f"There is no published dataset {dataset!r}; the nearest is {nearest(dataset, PUBLISHED)!r} "
            f"(all: {', '.join(PUBLISHED)})."
        )
    root = Path(root).expanduser()
    recipe = RECIPES.get(dataset)
    if recipe is None:
        return _steps(dataset, root)
    if root.exists() and not root.is_dir():
        raise UserError(f"{root} is a file; name a folder that is to hold the dataset.")
    folder = root / PUBLISHED[dataset].folder
    lines = _from_web(recipe, folder, quiet) if isinstance(recipe, WebFiles) else _from_hub(recipe, folder, quiet)
    return [*lines, f"licence: {TERMS[dataset].licence}", *_notes(dataset, recipe.note)]


def _steps(dataset: str, root: Path) -> list[str]:
    terms = TERMS[dataset]
    steps = [step.replace("ROOT", str(root)) for step in terms.steps]
    return [
        f"{dataset} is not free to fetch ({terms.access}): nothing was downloaded.",
        f"licence: {terms.licence}",
        f"published at: {terms.source}",
        *(f"{number}. {step}" for number, step in enumerate(steps, start=1)),
    ]


def _notes(dataset: str, note: str) -> list[str]:
    sharing = [name for name in RECIPES if RECIPES[name] is RECIPES[dataset]]
    notes = [f"the folder serves {', '.join(sharing)}"] if len(sharing) > 1 else []
    about = note or TERMS[dataset].known
    return [f"note: {text}" for text in (*notes, *([about] if about else []))]


def _from_web(recipe: WebFiles, folder: Path, quiet: bool) -> list[str]:
    source = _source(recipe.source, recipe.revision)
    recorded = _recorded(folder, recipe.source)
    present = {file.name: _is_there(file, folder / file.name) for file in recipe.files}
    lines = [f"{folder / name}: there already, verified" for name, there in present.items() if there]
    for file in recipe.files:
        if not present[file.name]:
            known = {"sha256": None, "md5": None, file.algorithm: file.digest}
            download(file.url, folder / file.name, sha256=known["sha256"], md5=known["md5"], quiet=quiet)
            lines.append(f"{folder / file.name}: fetched from {source}, {_known_as(file)}")
    if not all(present.values()):
        digests = {file.name: digest(folder / file.name, "sha256") for file in recipe.files}
        _record(folder, recipe.source, recipe.revision, {**recorded, **digests})
    return lines


def _known_as(file: WebFile) -> str:
    return f"{DIGESTS[file.algorithm]} {file.digest}"


def _is_there(file: WebFile, path: Path) -> bool:
    if not path.exists():
        return False
    if not path.is_file() or digest(path, file.algorithm) != file.digest:
        raise UserError(
            f"{path} is there but is not the published file ({_known_as(file)}); move it away, or choose another "
            "folder."
        )
    return True


def _from_hub(recipe: HubFiles, folder: Path, quiet: bool) -> list[str]:
    source = recipe.repository.page
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
    if stands(folder, {"source": source}, quiet=quiet):
        return [f"{folder}: there already, verified, from {source}"]
    partial = folder.with_name(f"{folder.name}.download")
    listing = announced(recipe.repository, lambda names: _chosen(recipe, names))
    fetched = fetch_files(listing, partial, quiet=quiet)
    try:
        digests = _unpacked(recipe, partial, fetched, quiet)
    except (KeyboardInterrupt, OSError) as stop:
        stop.add_note(KEPT)
        raise
    _leave_only(partial, digests)
    _record(partial, source, listing.revision, digests)
    partial.rename(folder)
    return [
        f"{folder}: {len(digests)} files fetched, verified by the hub's digests, "
        f"from {_source(source, listing.revision)}"
    ]


def _unpacked(recipe: HubFiles, folder: Path, fetched: Mapping[str, str], quiet: bool) -> dict[str, str]:
    """Unpack the archives among the fetched files; return file -> SHA-256 of what the folder is to hold."""
    digests = dict(fetched)
    for archive in recipe.archives:
        unpacked = unpack(archive, folder / archive.name, folder / archive.folder, quiet=quiet)
        digests |= {f"{archive.folder}/{name}": value for name, value in unpacked.items()}
        del digests[archive.name]
    return digests


def _chosen(recipe: HubFiles, names: list[str]) -> list[str]:
    """Return the names that fit the recipe's; each of those must be met."""
    fitting = {wanted: [name for name in names if _fits(name, wanted)] for wanted in recipe.files}
    missing = [wanted for wanted, found in fitting.items() if not found]
    if missing:
        raise UserError(
            f"{recipe.repository.page} does not hold {', '.join(missing)}, which it is known to hold; what it holds "
            "must be fetched by hand."
        )
    return [name for found in fitting.values() for name in found]


def _fits(name: str, wanted: str) -> bool:
    """Compare part by part, so that no wildcard reaches into another folder."""
    parts, patterns = name.split("/"), wanted.split("/")
    return len(parts) == len(patterns) and all(map(fnmatchcase, parts, patterns))


def _leave_only(folder: Path, names: Mapping[str, str]) -> None:
    """Remove unpacked archives, and files that an earlier, interrupted call fetched of another commit."""
    for path in sorted(folder.rglob("*")):
        if not path.is_dir() and path.relative_to(folder).as_posix() not in names:
            path.unlink()


def _source(page: str, revision: str | None) -> str:
    return f"{page} (revision {revision})" if revision else page


def _recorded(folder: Path, source: str) -> dict[str, str]:
    """Return the files that the folder's record names, if there is one."""
    path = folder / RECORD
    if not path.exists():
        return {}
    try:
        record: Any = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read; move it away and run this again.") from error
    if not isinstance(record, dict) or record.get("source") != source or not isinstance(record.get("files"), dict):
        raise UserError(f"{path} does not speak of {source}; move the folder away, or choose another one.")
    return record["files"]


def _record(folder: Path, source: str, revision: str | None, digests: Mapping[str, str]) -> None:
    """Write what `stands` reads; the last thing that is done to a folder."""
    content = {
        "source": source,
        "licence": _licence(source),
        "revision": revision,
        "files": dict(sorted(digests.items())),
    }
    partial = folder / f"{RECORD}.partial"
    partial.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    partial.replace(folder / RECORD)


def _licence(source: str) -> str:
    """Return the licence of all that is fetched from a page; where datasets differ, by their names."""
    names = [n for n, r in RECIPES.items() if (r.source if isinstance(r, WebFiles) else r.repository.page) == source]
    licences = {name: TERMS[name].licence for name in names}
    if len(set(licences.values())) == 1:
        return licences[names[0]]
    return "; ".join(f"{name}: {licence}" for name, licence in licences.items())
