"""SA-Med2D's file names and labels: what they say, and which of them are of no use.

An image is `{modality}--{dataset}--{original name}--{slice}.png`, a mask the image's name without `.png` and
`--{class}_{instance}.png`. Original names hold dots, blanks and even `--`, so names are taken apart from both ends.
"""

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from unimed_model.data.files import read_json, shown
from unimed_model.errors import UserError

GROUPS = ("ct", "mr")
"""The modality groups that the paper uses: file names begin with `ct_` or `mr_`."""

EXCLUDED: Mapping[tuple[str, str | None], tuple[str, str]] = MappingProxyType(
    {
        ("brain_ptm", None): ("unusable image", "its images are binary masks of the brain"),
        ("brain_growth", None): ("unusable image", "its images are binary masks of the brain"),
        ("ichallenge_adam_task2", None): ("unusable label", "its masks are inverted"),
        ("acdc", "0003"): ("unusable label", "it covers the whole region"),
    }
)
"""(constituent dataset, class or None for all; as `folded`) -> (kind of finding, why it is left out)."""

GENERIC = (
    r"union.*",  # several objects at once
    r"class.*",
    r"(left|right|upper|lower|top|bottom|front|back|anterior|posterior)",  # of what?
    r"(label|mask|object|instance|target|foreground|background|region|roi|area|part|structure|other|others|unknown)",
    r"",
)
"""Labels that name nothing, whatever their case; a number may follow each, also after `_` or `-`, and alone."""

_GENERIC = re.compile("|".join(f"(?:{pattern})[_ -]*[0-9]*" for pattern in GENERIC), re.IGNORECASE)
_CLASS = re.compile(r"(\d+)_(\d+)")
_TRAILING_SIDE = re.compile(r"(.+) (left|right)", re.IGNORECASE)


class Picture(NamedTuple):
    """What the name of an image says.

    Attributes:
        stem: the name without folder and without its one final `.png`.
        modality: modality and submodality, such as `mr_t1`.
        dataset: the constituent dataset.
        original: its own name of the scan or picture.
        place: axis and number of the slice, such as `x_0125`.
    """

    stem: str
    modality: str
    dataset: str
    original: str
    place: str

    @property
    def case(self) -> str:
        """The scan: all slices of it belong to one patient."""
        return f"{self.dataset}--{self.original}"


class Label(NamedTuple):
    """What a class of a constituent dataset is called.

    Attributes:
        raw: as in the files, such as `kidney_left`.
        spoken: as it is referred to, such as `left kidney`.
        usable: whether it names an object.
    """

    raw: str
    spoken: str
    usable: bool


Labels = Mapping[str, Mapping[str, Label]]
"""Constituent dataset -> class as four digits -> its label."""


def stem(path: str) -> str:
    """Return the file name of a path without exactly one final `.png`."""
    return path.rpartition("/")[2].removesuffix(".png")


def picture(path: str) -> Picture | None:
    """Return what the name of an image says; None if it is not of the published form."""
    name = stem(path)
    modality, _, rest = name.partition("--")
    dataset, _, rest = rest.partition("--")
    original, _, place = rest.rpartition("--")
    return Picture(name, modality, dataset, original, place) if modality and dataset and original and place else None


def mask_class(path: str, of: Picture) -> str | None:
    """Return the class of a mask as four digits; None if its name is not that of a mask of this image."""
    image, _, end = stem(path).rpartition("--")
    found = _CLASS.fullmatch(end)
    return found[1].zfill(4) if found and image == of.stem else None


def spoken(label: str) -> str:
    """Return `kidney_left` as `left kidney`: words for snake case, and the side first, as the paper writes it."""
    words = " ".join(label.replace("_", " ").split())
    found = _TRAILING_SIDE.fullmatch(words)
    return f"{found[2]} {found[1]}" if found else words


def names_an_object(label: str) -> bool:
    """Say whether a label can be asked for and answered with: neither compound nor one of `GENERIC`."""
    return not _GENERIC.fullmatch(label.strip())


def usable(label: str, generic: bool) -> bool:
    """Say whether a label can name a region: in words, and an object, unless `generic` ones are let pass."""
    return bool(spoken(label)) and (generic or names_an_object(label))


def exclusion(dataset: str, class_id: str | None = None) -> str | None:
    """Return the kind of finding by which a dataset, or a class of it, is left out; None where it is not."""
    found = EXCLUDED.get((folded(dataset), class_id))
    return found[0] if found else None


def folded(dataset: str) -> str:
    """Return a dataset's name in the spelling of `EXCLUDED`."""
    return dataset.casefold().replace("-", "_").replace(" ", "_")


def read_labels(path: Path, generic: bool) -> Labels:
    """Return the labels of every class from `SAMed2D_v1_class_mapping_id.json`: `{dataset: {label: "0003"}}`.

    Args:
        path: the file.
        generic: whether labels that name no object count as usable as well; excluded ones and ones without a name
            never do, nor does a class with two labels.

    Raises:
        UserError: missing, damaged, or of another form; names the file.
    """
    mapping = read_json(path)
    if not isinstance(mapping, dict) or not all(isinstance(classes, dict) for classes in mapping.values()):
        raise UserError(f"{path} must hold {{dataset: {{label: class}}}}.")
    return {dataset: _inverted(dataset, classes, generic, path) for dataset, classes in mapping.items()}


def _inverted(dataset: str, classes: dict[str, object], generic: bool, path: Path) -> dict[str, Label]:
    ids = {raw: str(number).zfill(4) for raw, number in classes.items()}
    wrong = next((raw for raw, number in ids.items() if not number.isdecimal()), None)
    if wrong is not None:
        raise UserError(
            f"{path}: the class of {shown(wrong)} in {shown(dataset)} must be digits, not {shown(classes[wrong])}."
        )
    times = Counter(ids.values())
    return {
        number: Label(
            raw,
            spoken(raw),
            usable(raw, generic) and times[number] == 1 and exclusion(dataset, number) is None,
        )
        for raw, number in ids.items()
    }
