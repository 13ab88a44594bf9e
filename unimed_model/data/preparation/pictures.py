"""Every image of a dataset opened once: can it be decoded, how large is it, and what does it look like from afar.

What was found is kept in a ledger by file, size and time of change, so that an unchanged image is not decoded again.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from unimed_model.data.files import State
from unimed_model.data.images import ImageSource
from unimed_model.errors import UserError

if TYPE_CHECKING:
    from PIL.Image import Image

THUMBNAIL = 16
"""Side of the grey thumbnail, in pixels, by which near-duplicates are told."""

_BATCH = 256
_KEEP_EVERY = 60.0  # seconds

Key = tuple[str, str, int]
"""File, and name and index inside it."""


@dataclass(frozen=True, slots=True)
class Picture:
    """What is known of one image.

    Attributes:
        width: in pixels; 0 where it cannot be decoded.
        height: likewise.
        problem: why it cannot be decoded; empty where it can.
        thumbnail: 16 x 16 grey values, row by row; empty where it cannot be decoded.
        state: of its file when it was opened.
    """

    width: int
    height: int
    problem: str
    thumbnail: bytes
    state: State


Ledger = dict[Key, Picture]


def key_of(source: ImageSource) -> Key:
    """Return what names an image."""
    return (str(source.path), *source.place)


def examine(
    sources: Iterable[ImageSource],
    known: Mapping[Key, Picture],
    *,
    digest: bool = False,
    name: str = "images",
    quiet: bool = False,
    keep: Callable[[Ledger], None] = lambda found: None,
) -> Ledger:
    """Return what is known of each image after opening those that are new or changed, on all cores.

    Args:
        sources: images; each is looked at once. Those whose file is missing are left out.
        known: what an earlier look found.
        digest: tell unchanged files by their bytes, where these are known, and get to know them.
        name: what the progress bar says.
        quiet: no progress bar.
        keep: called about once a minute, and on Ctrl-C, with what has been found so far.
    """
    from tqdm import tqdm

    unique = {key_of(source): source for source in sources}
    states = {path: State.of(path, digest) for path in {source.path for source in unique.values()}}
    present = {key: source for key, source in unique.items() if states[source.path] is not None}
    found: Ledger = {key: known[key] for key in present if key in known and known[key].state.same(states[Path(key[0])])}
    fresh = [key for key in present if key not in found]
    kept = time.monotonic()
    bar = tqdm(total=len(fresh), desc=name, unit="image", disable=quiet, delay=2, file=sys.stderr)
    try:
        with bar, ThreadPoolExecutor(os.cpu_count()) as pool:
            for start in range(0, len(fresh), _BATCH):
                batch = fresh[start : start + _BATCH]
                looked = pool.map(lambda key: _examined(present[key], states[present[key].path]), batch)
                found.update(zip(batch, looked, strict=True))
                bar.update(len(batch))
                if time.monotonic() - kept > _KEEP_EVERY:
                    keep(found)
                    kept = time.monotonic()
    except KeyboardInterrupt:
        keep(found)
        raise
    return {key: found[key] for key in present}


def _examined(source: ImageSource, state: State | None) -> Picture:
    assert state is not None, source.path
    try:
        image = source.open()
    except UserError as error:
        return Picture(0, 0, str(error), b"", state)
    return Picture(image.width, image.height, "", _thumbnail(image), state)


def _thumbnail(image: Image) -> bytes:
    from PIL import Image

    return image.convert("L").resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BILINEAR).tobytes()
