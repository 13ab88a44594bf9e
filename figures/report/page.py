"""`tugofwar report`: the page, put together from its sections and written whole or not at all."""

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
from plotly.offline import get_plotlyjs

from figures.definitions import DEFINITIONS
from figures.errors import UserError
from figures.explaining import overview
from figures.explanation import Explanation
from figures.report.about import about_runs, differing_warnings
from figures.report.chart import Picture, encoded_pictures
from figures.report.remarks import finding_groups, warning_remarks
from figures.report.safety import json_for_script
from figures.report.sections import LABELS, sections
from figures.tables.runs import Material, read_material

SCRIPTS = ("tables.js", "pictures.js", "rows.js", "page.js")
"""Files of the page's script in their order; they share one function scope."""


@dataclass(frozen=True, eq=False)
class Block:
    """A picture as the template takes it.

    Attributes:
        name: in links.
        label: in the table of contents.
        text: what stands beside the view that is shown first.
        notes: what the page has to say of it.
        json: everything that the page's script draws from.
    """

    name: str
    label: str
    text: Explanation
    notes: tuple[str, ...]
    json: str


def report(paths: Sequence[Path], out: Path, told: Callable[[str], object] = lambda text: None) -> Path:
    """Write one page about everything that was measured of runs.

    Args:
        paths: run folders, and tables of ablations.
        out: the file; its folder is made if it is not there.
        told: is called with what is being done, for a progress bar.

    Returns:
        The file.

    Raises:
        UserError: nothing to show, damaged tables, or an output that is a folder or cannot be written; nothing is
            written then.
    """
    check_writable(out)
    told("reading tables")
    material = read_material(paths)
    text = page(material, told)
    told("writing")
    _write(text, out)
    return out


def page(material: Material, told: Callable[[str], object] = lambda text: None) -> str:
    """The page as text.

    Args:
        material: what was measured.
        told: as in ``report``.
    """
    told("making pictures")
    found = sections(material)
    every = [picture for section in found for picture in section.pictures]
    contents, parts, tables = encoded_pictures(every)
    blocks = {picture.name: _block(picture, content) for picture, content in zip(every, contents, strict=True)}
    told("putting the page together")
    folder = resources.files("figures.report") / "assets"
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    template = environment.from_string((folder / "page.html").read_text(encoding="utf-8"))
    return template.render(
        title=_title(material),
        runs=about_runs(material),
        ablations=[table.name for table in material.ablations],
        sections=[(section, [blocks[picture.name] for picture in section.pictures]) for section in found],
        findings=finding_groups(overview.findings(material), found),
        warnings=warning_remarks(differing_warnings(material), overview.warnings(material), found),
        definitions=DEFINITIONS,
        parts=json_for_script(parts),
        tables=json_for_script(tables),
        css=(folder / "page.css").read_text(encoding="utf-8"),
        js="\n".join((folder / name).read_text(encoding="utf-8") for name in SCRIPTS),
        plotly=get_plotlyjs(),
    )


def check_writable(out: Path) -> None:
    """Raise a UserError unless a file can stand at a path."""
    if out.is_dir():
        raise UserError(f"The output {out} is a folder; name a file, such as {out / 'report.html'}.")
    for parent in out.absolute().parents:
        if parent.exists() and not parent.is_dir():
            raise UserError(f"The output {out} cannot be written: {parent} is a file, not a folder.")


def _block(picture: Picture, content: dict[str, Any]) -> Block:
    first = picture.views[picture.first].explanation
    return Block(picture.name, LABELS[picture.name], first, picture.notes, json_for_script(content))


def _title(material: Material) -> str:
    names = [run.name for run in material.runs] or [f"table {table.name}" for table in material.ablations]
    return f"Tug-of-war: {', '.join(names)}"


def _write(text: str, out: Path) -> None:
    """Write beside the place and rename, so that no half page is ever there.

    Raises:
        UserError: a folder that cannot be written, a full disk.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        _replace(text, out)
    except OSError as error:
        raise UserError(f"The output {out} cannot be written: {error.strerror or error}; choose another.") from None


def _replace(text: str, out: Path) -> None:
    # The name of the page may be as long as names can be; that of its beginnings must not be longer.
    descriptor, temporary = tempfile.mkstemp(prefix=".report.", suffix=".part", dir=out.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
        # A temporary file is for its owner alone; a report has the rights of any new file.
        mask = os.umask(0)
        os.umask(mask)
        Path(temporary).chmod(0o666 & ~mask)
        Path(temporary).replace(out)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
