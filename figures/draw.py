"""`tugofwar figures`: every picture of what was measured, each with the table it shows and its caption."""

import multiprocessing
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from difflib import get_close_matches
from functools import partial
from pathlib import Path

from tqdm import tqdm

from figures import style
from figures.errors import UserError
from figures.gallery import PICTURES
from figures.tables.runs import Material, read_material

_NEEDED = {
    "interference": "gradients; make them with `tugofwar gradients`",
    "intervals": "gradients of two datasets or more; make them with `tugofwar gradients`",
    "indexes": "gradients with a positive tug-of-war index, by whose maximum the others are divided",
    "breakdown": "gradients with tables by block; measure again with `tugofwar gradients`",
    "scores": "statistics scores; measure them with `tugofwar gradients`",
    "routing": "a router that was looked at; `tugofwar routing` does so for models that have one",
    "tokens": "routing weights with images; make them with `tugofwar routing`",
    "features": "features; make them with `tugofwar features`",
    "separation": "features; make them with `tugofwar features`",
    "dynamics": "measures over training; make them with `tugofwar dynamics`",
    "difference": "a difference between two of the runs; make one with `tugofwar compare RUN_A RUN_B` and name both",
    "forest": "a table of an ablation; name the CSV file of `python -m analyses.ablation table --format csv`",
}


def draw(
    paths: Sequence[Path],
    out: Path,
    formats: Sequence[str] = ("png", "pdf"),
    only: Sequence[str] | None = None,
    look: str = "paper",
    progress: bool = False,
    processes: int = 1,
) -> list[Path]:
    """Draw every picture that there is material for.

    Args:
        paths: run folders, folders of tables, and CSV tables of ``analyses.ablation``.
        out: folder for the pictures; made if it is not there.
        formats: any of ``png``, ``pdf`` and ``svg``.
        only: kinds of pictures, all by default.
        look: ``paper`` or ``talk``.
        progress: whether a line on stderr counts the kinds of pictures.
        processes: how many draw at once; a script that asks for more than one needs ``if __name__ == "__main__"``.

    Returns:
        Paths of the pictures; a ``.csv`` and a ``.txt`` with the caption stand beside each.

    Raises:
        UserError: a run that was not measured, runs that cannot be compared, an unknown format, kind or look, or a
            kind asked for by name without material; nothing is written then.
    """
    _check(formats, only, look)
    if out.exists() and not out.is_dir():
        raise UserError(f"The output {out} is a file; name a folder.")
    material = read_material(paths)
    kinds = [kind for kind in PICTURES if only is None or kind in only]
    with _appearing(out) as folder:
        draw_kind = partial(_draw_kind, material, folder, tuple(formats), look, only is not None)
        drawn = _parallel(draw_kind, kinds, processes) if min(processes, len(kinds)) > 1 else map(draw_kind, kinds)
        names = list(tqdm(drawn, total=len(kinds), unit=" kinds of pictures", disable=not progress, leave=False))
    return [out / name for group in names for name in group]


def _check(formats: Sequence[str], only: Sequence[str] | None, look: str) -> None:
    for word, names, allowed in (
        ("picture format", formats, tuple(style.FORMATS)),
        ("kind of picture", only or (), tuple(PICTURES)),
        ("style", (look,), tuple(style.LOOKS)),
    ):
        for name in names:
            if name not in allowed:
                near = [f"the nearest is {found!r}; " for found in get_close_matches(name, allowed, 1)]
                raise UserError(f"There is no {word} {name!r}; {''.join(near)}choose from {', '.join(allowed)}.")


def _draw_kind(
    material: Material, folder: Path, formats: tuple[str, ...], look: str, needed: bool, kind: str
) -> list[str]:
    """Write every picture of one kind; return the names of their files."""
    names = []
    for picture in PICTURES[kind](material, look):
        picture.table.to_csv(folder / f"{picture.stem}.csv", index=False, lineterminator="\n")
        (folder / f"{picture.stem}.txt").write_text(picture.caption(), encoding="utf-8")
        style.settle(picture.figure)
        for form in formats:
            style.save(picture.figure, folder / f"{picture.stem}.{form}")
            names.append(f"{picture.stem}.{form}")
    if not names and needed:
        raise UserError(f"There is nothing to draw for {kind}: it needs {_NEEDED[kind]}.")
    return names


def _parallel(draw_kind: Callable[[str], list[str]], kinds: Sequence[str], processes: int) -> Iterator[list[str]]:
    """As ``map``, in processes of their own, which leave an interrupt to the one that waits for them."""
    # Forking would copy a process whose numerical libraries have threads.
    context = multiprocessing.get_context("spawn")
    others = multiprocessing.active_children()
    with ProcessPoolExecutor(min(processes, len(kinds)), mp_context=context) as pool:
        try:
            with _interrupts_held_back():
                drawn = pool.map(draw_kind, kinds)
            yield from drawn
        except BaseException:
            # Nobody waits for pictures that are thrown away.
            for child in set(multiprocessing.active_children()).difference(others):
                child.terminate()
            raise


@contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Processes started inside never see Ctrl-C, from their first moment on; this one does as soon as it is outside."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _appearing(out: Path) -> Iterator[Path]:
    """A folder inside ``out``'s parent whose files move to ``out`` at the end, so that a failure leaves no half set."""
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        yield temporary
        out.mkdir(exist_ok=True)
        for path in sorted(temporary.iterdir()):
            path.replace(out / path.name)
    finally:
        shutil.rmtree(temporary)
