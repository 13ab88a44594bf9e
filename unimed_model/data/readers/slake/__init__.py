"""The Slake 1.0 folder: where its files lie, and which images belong to which split.

Layout: `{train,validate,test}.json` (the hub says `validation.json`), `imgs/xmlabN/{source.jpg,
question.json, detection.json}`, in the root or in `Slake1.0/`, which may be nested once more; the `imgs/` level may be
missing or doubled, as archives unpack. A root may hold only some of these.

The paper splits by image, 550 for training and 92 for testing, because 298 of the 642 images occur in more
than one official split. Its list is unpublished: `train.txt` and `test.txt` (folder names separated by
blanks) are used when the root or the folder of the files holds them; else ids 0..641 are ranked by a digest
of seed and id and the first 92 are the test images, whatever files are present.
"""

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from unimed_model.data import splits
from unimed_model.data.files import note, read_json_records, relative_name, shown, text_field
from unimed_model.data.readers.request import Request
from unimed_model.errors import AbsentError, UserError

OFFICIAL = {
    "official:train": ("train.json",),
    "official:validate": ("validate.json", "validation.json"),
    "official:test": ("test.json",),
}
SPLITS = ("train", "test", *OFFICIAL)
RULE = (
    "by image: the lists train.txt and test.txt of the folder; without them the 92 of the images 0 to 641 whose "
    "digests of seed and number are lowest are the test images, and the other 550 the training images"
)

IMAGES = 642
TEST_IMAGES = 92
_BASES = (".", "Slake1.0", "Slake1.0/Slake1.0")
_LEVELS = ("imgs", "imgs/imgs", ".")
_ARCHIVES = ("imgs.zip", "Slake1.0.zip")
_IMAGE_ID = re.compile(r"(?:xmlab)?([0-9]{1,6})")


def question_files(root: Path) -> dict[str, Path]:
    """Return official split -> its question file, for those present."""
    found = {split: [base / name for base in _bases(root) for name in names] for split, names in OFFICIAL.items()}
    present = {split: [path for path in paths if path.is_file()] for split, paths in found.items()}
    return {split: paths[0] for split, paths in present.items() if paths}


def image_levels(root: Path) -> list[Path]:
    """Return the folders that may hold `xmlabN`, the likeliest first; where there are none, the one it should be."""
    levels = [base / level for level in _LEVELS for base in _bases(root)]
    return [level for level in levels if level.is_dir()] or [root / _LEVELS[0]]


def image_folders(root: Path) -> list[Path]:
    """Return the folders `xmlabN` of the root, by number."""
    levels = image_levels(root)
    for level in levels:
        note(level)
    folders = {path.name: path for level in reversed(levels) for path in level.glob("xmlab*")}
    numbered = [path for name, path in folders.items() if _IMAGE_ID.fullmatch(name)]
    return sorted(numbered, key=lambda path: image_number(path.name))


def image_path(levels: list[Path], name: PurePosixPath) -> Path:
    """Return the file of an `img_name` in one of `image_levels`; where none exists, its place in the first."""
    candidates = [level / name for level in levels]
    return next((path for path in candidates if path.is_file()), candidates[0])


@contextmanager
def hinting_at_archives(root: Path) -> Iterator[None]:
    """Inside, what is found missing is said to be in an archive, where there is one but no folder of an image."""
    try:
        yield
    except UserError as error:
        archives = [base / name for base in _bases(root) for name in _ARCHIVES]
        archive = next((path for path in archives if path.is_file()), None)
        if archive is None or image_folders(root):
            raise
        raise type(error)(f"{str(error).removesuffix('.')}; {archive} is there, but not unpacked.") from error


def image_name(record: dict[str, Any], where: str) -> PurePosixPath:
    """Return the `img_name` of a record, always `xmlabN/source.jpg`.

    Raises:
        UserError: missing, leaving the root, too long, or not inside a folder `xmlabN`.
    """
    name = relative_name(text_field(record, "img_name", where), where)
    if not _IMAGE_ID.fullmatch(name.parts[0]) or len(name.parts) < 2:
        raise UserError(f"{where}: img_name must look like 'xmlab7/source.jpg', not {shown(str(name))}.")
    return name


def image_number(folder: str) -> int:
    """Return N of a folder name `xmlabN`, or of a bare `N`."""
    match = _IMAGE_ID.fullmatch(folder)
    assert match is not None, folder
    return int(match[1])


def question_file(request: Request) -> Path:
    """Return the file of an official split.

    Raises:
        UserError: the root does not hold it.
    """
    path = question_files(request.root).get(request.split)
    if path is None:
        expected = " or ".join(OFFICIAL[request.split])
        raise AbsentError(f"{request.dataset}: {request.root} holds no {expected}, which {request.split} needs.")
    return path


def images_of_split(request: Request) -> frozenset[int]:
    """Return the numbers of the images that belong to a split.

    For an official split these are the images its questions ask about.

    Raises:
        UserError: an unknown split, a missing file, or split lists that are incomplete or overlap.
    """
    request.require_split(SPLITS)
    if request.split in OFFICIAL:
        path = question_file(request)
        names = [image_name(r, f"{path}, record {i}") for i, r in enumerate(read_json_records(path))]
        return frozenset(image_number(name.parts[0]) for name in names)
    lists = listed(request.root) or request.lists
    if lists is not None:
        return _listed_numbers(lists).get(request.split, frozenset())
    test, train = seeded_split(request.seed)
    return test if request.split == "test" else train


def listed(root: Path) -> splits.Lists | None:
    """Return the user's lists of images, from the root or the folder where the files are; None without them."""
    return next((lists for base in _bases(root) if (lists := splits.listed(base))), None)


def seeded_split(seed: int) -> tuple[frozenset[int], frozenset[int]]:
    """Return (test, train): 92 and 550 image numbers out of 0..641."""
    # A digest, unlike a generator's permutation, is the same in every version of every library.
    ranked = sorted(range(IMAGES), key=lambda i: hashlib.sha256(f"slake/{seed}/{i}".encode()).digest())
    return frozenset(ranked[:TEST_IMAGES]), frozenset(ranked[TEST_IMAGES:])


def require_in_split_range(number: int, root: Path) -> None:
    """Raise `UserError` for an image that a drawn split would lose: beyond 641 and no lists in the root."""
    if number >= IMAGES and not any((base / "train.txt").is_file() for base in _bases(root)):
        raise UserError(
            f"{root} holds xmlab{number}, but Slake's images are xmlab0 to xmlab{IMAGES - 1}: say which "
            "images belong to which split in train.txt and test.txt."
        )


def _bases(root: Path) -> list[Path]:
    return [base for base in (root / name for name in _BASES) if base.is_dir()]


def _listed_numbers(lists: splits.Lists) -> dict[str, frozenset[int]]:
    numbers: dict[str, frozenset[int]] = {}
    for split, names in lists.items():
        own = frozenset(_listed_number(split, name) for name in names)
        # `xmlab7`, `xmlab07` and `7` are one image, so texts that differ may still overlap.
        other = next((key for key, found in numbers.items() if own & found), None)
        if other is not None:
            raise UserError(f"xmlab{min(own & numbers[other])} stands in both {other}.txt and {split}.txt.")
        numbers[split] = own
    return numbers


def _listed_number(split: str, name: str) -> int:
    if not _IMAGE_ID.fullmatch(name):
        raise UserError(f"{split}.txt: {shown(name)} is not a folder name such as xmlab7.")
    return image_number(name)
