"""Which samples belong to which split where no published list says so: lists by the user, or ranks by a digest.

A digest, unlike a generator's permutation, is the same in every version of every library, and gives each unit a rank
of its own: it does not depend on the order of files, and hardly on which are present. Lists that exist are taken
instead: those in the dataset's own folder first, then those of an earlier ``unimed-data prepare``.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

from unimed_model.data.files import note
from unimed_model.errors import UserError

Lists = Mapping[str, frozenset[str]]
"""Split -> names of its units (image folders, image ids or sample ids)."""

SPLITS = ("train", "test")
RANKS = 1 << 64


def rank(seed: int, salt: str, unit: str) -> int:
    """Return a whole number in [0, 2^64) that depends on seed, salt and unit alone."""
    digest = hashlib.blake2b(f"{salt}/{seed}/{unit}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big")


def listed(root: Path) -> Lists | None:
    """Return what ``train.txt`` and ``test.txt`` of a folder name, blanks between the names; None without them.

    Raises:
        UserError: only one of them is there, a name stands in both, or a list is empty.
    """
    note(root)  # it may get lists
    paths = {split: root / f"{split}.txt" for split in SPLITS}
    present = [path.is_file() for path in paths.values()]
    if not any(present):
        return None
    if not all(present):
        missing = list(paths.values())[present.index(False)]
        raise UserError(f"{missing} is missing: the split needs both lists or neither.")
    lists = {split: _names(path) for split, path in paths.items()}
    both = lists["train"] & lists["test"]
    if both:
        raise UserError(f"{min(both)} stands in both train.txt and test.txt of {root}.")
    return lists


def _names(path: Path) -> frozenset[str]:
    note(path)
    try:
        names = frozenset(path.read_text(encoding="utf-8-sig", errors="replace").split())
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}).") from error
    if not names:
        raise UserError(f"{path} names nothing.")
    return names


def stratified(strata: Mapping[str, Iterable[str]], count: int, seed: int, salt: str) -> frozenset[str]:
    """Return ``count`` units of lowest rank, from each stratum in proportion to its size; all if there are fewer.

    What is left over by rounding down goes to the strata with the largest remainders.
    """
    units = {name: sorted(set(members), key=lambda unit: rank(seed, salt, unit)) for name, members in strata.items()}
    total = sum(map(len, units.values()))
    if total <= count:
        return frozenset(unit for members in units.values() for unit in members)
    quotas = {name: divmod(count * len(members), total) for name, members in units.items()}
    extra = count - sum(whole for whole, _ in quotas.values())
    favoured = sorted(quotas, key=lambda name: (-quotas[name][1], name))[:extra]
    taken: dict[str, int] = defaultdict(int, {name: whole for name, (whole, _) in quotas.items()})
    for name in favoured:
        taken[name] += 1
    return frozenset(unit for name, members in units.items() for unit in members[: taken[name]])
