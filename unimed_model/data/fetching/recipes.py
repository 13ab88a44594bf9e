"""What is fetched for each dataset that is free to fetch: its source, revision, files, and digests where known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from unimed_model.weights.repositories import Repository

_GB = 10**9


@dataclass(frozen=True, slots=True)
class WebFile:
    """One file of a server: its name in the dataset's folder, its address, and its known digest."""

    name: str
    url: str
    algorithm: Literal["sha256", "md5"]
    digest: str


@dataclass(frozen=True, slots=True)
class WebFiles:
    """Files whose digests are known; each is fetched by itself, into a folder that may hold others.

    Attributes:
        source: page that a person can read.
        revision: commit that the addresses name; None where the source has none.
        files: what is fetched.
        note: what a user should know of this form of the dataset.
    """

    source: str
    files: tuple[WebFile, ...]
    revision: str | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Archive:
    """A zip file among those of a repository.

    Attributes:
        name: of the file.
        folder: where it is unpacked, in the dataset's folder.
        members: pattern of the members that are unpacked; its group `kept` is their place in `folder`.
        wanted: what the pattern stands for, in words.
        limit: of the bytes that all unpacked members may take.
    """

    name: str
    folder: str
    members: str
    wanted: str
    limit: int


@dataclass(frozen=True, slots=True)
class HubFiles:
    """Files of a repository of the dataset hub, which states their digests; together they make the folder.

    Attributes:
        repository: where they are.
        files: their names; a part of a name may hold wildcards.
        archives: those of them that are unpacked and then removed.
        note: what a user should know of this form of the dataset.
    """

    repository: Repository
    files: tuple[str, ...]
    archives: tuple[Archive, ...] = ()
    note: str = ""


Recipe = WebFiles | HubFiles

_PUBMEDQA = "1cbae8e92f72f20c8d3747cbb3bf5bc53554d997"
_PUBMEDQA_FILES = f"https://raw.githubusercontent.com/pubmedqa/pubmedqa/{_PUBMEDQA}/data"
_MEDMNIST = "https://zenodo.org/records/10519652"

_SLAKE = HubFiles(
    Repository("BoKelvin/SLAKE", "dataset", "a9083ce6c34ac3ffb17671a605962924d8a8f9e9"),
    ("train.json", "validation.json", "test.json", "mask.txt", "imgs.zip"),
    (
        Archive(
            "imgs.zip",
            "imgs",
            r"(?!__MACOSX/)(?:.*/)?(?P<kept>xmlab\d+/[^/.][^/]*)",
            "files of the folders xmlab0 to xmlab641",
            4 * _GB,
        ),
    ),
)


def _medmnist(flag: str, md5: str) -> WebFiles:
    """Return the archive of 224 x 224 pixels, which is the size of the paper's input."""
    name = f"{flag}_224.npz"
    return WebFiles(_MEDMNIST, (WebFile(name, f"{_MEDMNIST}/files/{name}?download=1", "md5", md5),))


RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {
        "medqa": HubFiles(
            Repository("bigbio/med_qa", "dataset", "ddef95d268cdad413693d634279a9a679d468469"),
            ("data_clean.zip",),
            (
                Archive(
                    "data_clean.zip",
                    "data_clean",
                    r"(?!__MACOSX/)(?:.*/)?(?P<kept>questions/US/(?:train|dev|test)\.jsonl)",
                    "questions/US/{train,dev,test}.jsonl",
                    _GB,
                ),
            ),
            note="of the archive only the English questions with five options are kept",
        ),
        "pubmedqa": WebFiles(
            "https://github.com/pubmedqa/pubmedqa",
            (
                WebFile(
                    "ori_pqal.json",
                    f"{_PUBMEDQA_FILES}/ori_pqal.json",
                    "sha256",
                    "8b3276be8942ebbd77f3ddcda12c1749bf0e490045a736fd8438ee40cf37a41d",
                ),
                WebFile(
                    "test_ground_truth.json",
                    f"{_PUBMEDQA_FILES}/test_ground_truth.json",
                    "sha256",
                    "939fe566f09017d13b1ca64d2ddfee0bc2374b366048152997669cccedc44d51",
                ),
            ),
            _PUBMEDQA,
        ),
        "slake_vqa": _SLAKE,
        "slake_rec": _SLAKE,
        "slake_reg": _SLAKE,
        "path_vqa": HubFiles(
            Repository("flaviagiammarino/path-vqa", "dataset"),
            ("data/train-*.parquet", "data/validation-*.parquet", "data/test-*.parquet"),
            note="this form leaves out exact duplicates: 19654, 6259 and 6719 questions in train, validation and test, "
            "where the official archive has 19755, 6279 and 6761; the way to that archive is on "
            "https://github.com/UCSD-AI4H/PathVQA",
        ),
        "dermamnist": _medmnist("dermamnist", "8974907d8e169bef5f5b96bc506ae45d"),
        "organsmnist": _medmnist("organsmnist", "b354719e553fbbb2513d5533f52a4cb1"),
        "vqa_rad": HubFiles(
            Repository("flaviagiammarino/vqa-rad", "dataset", "bcf91e7654fb9d51c8ab6a5b82cacf3fafd2fae9"),
            ("data/train-*.parquet", "data/test-*.parquet"),
            note="this form has 1,793 and 451 questions in train and test, four repeated ones fewer than the original, "
            "and neither ids nor kinds of answer",
        ),
    }
)
"""Name of a dataset -> what is fetched for it."""
