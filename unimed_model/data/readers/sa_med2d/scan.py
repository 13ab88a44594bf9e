"""One pass over `SAMed2D_v1.json`, hundreds of MB in one object: what is chosen is kept, and nothing else.

Regions are chosen by rank: a digest of seed and mask name. Of each modality group only the lowest ranks are kept, in
a heap of bounded size, so that memory does not grow with the file.
"""

from __future__ import annotations

import heapq
from array import array
from codecs import BOM_UTF8
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Protocol

from unimed_model.data.files import note, relative_name, shown
from unimed_model.data.findings import Findings
from unimed_model.data.progress import progress_bar
from unimed_model.data.readers.regions import SEVERAL
from unimed_model.data.readers.sa_med2d import names
from unimed_model.data.readers.sa_med2d.names import GROUPS, Label, Labels, Picture
from unimed_model.data.splits import rank
from unimed_model.errors import UserError

# Of ASCII characters, of which a file's name may have more.
_SURELY_SHORT = 200
# Real ones have thousands at most; a list of tens of thousands of masks still fits.
_LONGEST_ENTRY = 4_000_000
_LONGEST_REASON = 200
_PREFIXES = tuple(f"{group}_" for group in GROUPS)


@dataclass(frozen=True, slots=True, order=True)
class Candidate:
    """A region that may become a sample.

    Attributes:
        rank: of its first mask.
        sample_id: name of its first mask, without `.png`.
        image: path of the image, relative to the folder of the files.
        masks: those of its masks; more than one where instances are merged.
        picture: what the image's name says.
        label: what the class is called.
    """

    rank: int
    sample_id: str
    image: str
    masks: tuple[str, ...]
    picture: Picture
    label: Label


class Choice(Protocol):
    """Which regions belong to a split."""

    def wants_picture(self, picture: Picture) -> bool:
        """Say whether any region of an image may belong to it."""

    def wants(self, picture: Picture, mask: str) -> bool:
        """Say of an image that is wanted whether a mask, by its name without `.png`, belongs to it."""


@dataclass(frozen=True, slots=True)
class Rules:
    """How regions are told from each other and from what is left out.

    Attributes:
        seed: of the ranks.
        labels: of every class.
        skip_several: whether objects that share their name in an image are left out.
        merge: whether they become one instead.
        absent: says of an image's path whether its file is missing, so that others are kept in place of its regions;
            None: not looked for.
    """

    seed: int
    labels: Labels
    skip_several: bool
    merge: bool
    absent: Callable[[str], bool] | None = None


@dataclass(frozen=True, slots=True)
class Window:
    """Which ranks are kept.

    Attributes:
        bound: how many candidates of a group; None: all.
        after: group -> candidate after which, by rank, they are kept.
    """

    bound: int | None
    after: Mapping[str, Candidate] = field(default_factory=dict)


@dataclass(slots=True)
class Scan:
    """What a pass found.

    Attributes:
        findings: what is left out of the wanted images.
        kept: group -> candidates of the window, by rank.
        full: the groups of which there may be more.
        missing: group -> ranks of the regions in the window whose image is missing, as far as these were looked for.
        first_missing: group -> (rank, image) of the first of these.
        extremes: group -> (lowest, highest) of (rank of the case, case), over all images with a usable label.
    """

    findings: Findings
    kept: dict[str, list[Candidate]]
    full: frozenset[str]
    missing: dict[str, array[int]]
    first_missing: dict[str, tuple[int, str]]
    extremes: dict[str, tuple[tuple[int, str], tuple[int, str]]]


def case_rank(seed: int, case: str) -> int:
    """Return the rank by which a case falls to the training or the test set."""
    return rank(seed, "sa_med2d/case", case)


def scan(path: Path, choice: Choice, rules: Rules, window: Window) -> Scan:
    """Read the file once and return what is chosen of it.

    Raises:
        UserError: missing, truncated, not of the published form, or a name that leaves the folder.
    """
    scanning = _Scanning(path, choice, rules, window)
    for image, masks in entries(path):
        scanning.entry(image, masks)
    return scanning.done()


def entries(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield (image, its masks) of the file, in bounded memory and with a progress bar where it takes long.

    Raises:
        UserError: missing, truncated, or not of the form `{image: [mask, ...]}`; names the file and the entry.
    """
    import ijson

    note(path)
    try:
        with path.open("rb") as stream:
            size = path.stat().st_size
            with progress_bar(total=size, desc=path.name, unit="B", unit_scale=True) as bar:
                yield from _entries(_Measured(stream, bar.update, path), path)
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing; complete the download.") from error
    except (ijson.JSONError, UnicodeDecodeError) as error:
        reason = (str(error).splitlines() or ["damaged"])[0].strip()[:_LONGEST_REASON]
        raise UserError(f"{path} is not complete, valid JSON ({reason}); download it again.") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}).") from error


def _entries(stream: _Measured, path: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield the entries from the parser's events, so that nothing of another form is built or descended into."""
    import ijson

    # Without `use_float` the parser makes Python integers of numbers, and dies of one with over 4,300 digits.
    events = ijson.basic_parse(stream, use_float=True)
    if next(events, ("", None))[0] != "start_map":
        raise UserError(f"{path} must hold one JSON object {{image: [mask, ...]}}; download it again.")
    image = ""
    masks: list[str] | None = None
    for event, value in events:
        if event == "string" and masks is not None:
            masks.append(value)
        elif event == "map_key":
            image = value
        elif event == "start_array" and masks is None:
            masks = []
        elif event == "end_array" and masks is not None:
            yield image, masks
            masks = None
            stream.entry = 0
        elif event != "end_map":  # that of the file: no other object was let in
            raise UserError(f"{path}: {shown(image)} must be followed by a list of mask files.")


class _Measured:
    """A stream that says how many bytes are read; the parser would pass by a wrapper that has more than `read`.

    Attributes:
        entry: bytes that were read since an entry ended.
    """

    def __init__(self, stream: BinaryIO, update: Callable[[int], object], path: Path) -> None:
        self._stream, self._update, self._path = stream, update, path
        self.entry = 0
        if stream.read(len(BOM_UTF8)) != BOM_UTF8:
            stream.seek(0)
        update(stream.tell())

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes.

        Raises:
            UserError: an entry is of a length that no image has.
        """
        if self.entry > _LONGEST_ENTRY:
            place = self._stream.tell() - self.entry
            raise UserError(f"{self._path}: the entry after byte {place:,} is longer than {_LONGEST_ENTRY:,} bytes.")
        content = self._stream.read(size)
        self._update(len(content))
        self.entry += len(content)
        return content


class _Scanning:
    def __init__(self, path: Path, choice: Choice, rules: Rules, window: Window) -> None:
        self.path, self.choice, self.rules, self.window = path, choice, rules, window
        self.findings = Findings()
        self.heaps: dict[str, list[tuple[int, Candidate]]] = {group: [] for group in GROUPS}
        self.extremes: dict[str, tuple[tuple[int, str], tuple[int, str]]] = {}
        self.case, self.case_rank = "", 0
        # Eight bytes for each, since they may be most of millions.
        self.missing = {group: array("Q") for group in GROUPS}
        self.first_missing: dict[str, tuple[int, str]] = {}

    def entry(self, image: str, masks: list[str]) -> None:
        self._refuse_leaving(image)
        group = image.rpartition("/")[2][:3]
        if group not in _PREFIXES:
            return
        picture = names.picture(image)
        if picture is None:
            self.findings.leave_out("unusable name", f"{self.path}, {image}", max(1, len(masks)))
            return
        wanted = self.choice.wants_picture(picture)
        kind = names.exclusion(picture.dataset)
        if kind is not None:
            self.findings.leave_out(kind, f"{self.path}, {image}", len(masks) if wanted else 0)
            return
        objects = self._objects(picture, masks, wanted)
        if objects:
            self._see_case(group[:2], picture.case)
        if objects and wanted:
            self._choose(group[:2], image, picture, objects)

    def done(self) -> Scan:
        kept = {group: _once(candidate for _, candidate in heap) for group, heap in self.heaps.items()}
        twice = sum(map(len, self.heaps.values())) - sum(map(len, kept.values()))
        self.findings.leave_out("listed twice", str(self.path), twice)
        full = {group for group, heap in self.heaps.items() if len(heap) == self.window.bound}
        return Scan(self.findings, kept, frozenset(full), self.missing, self.first_missing, self.extremes)

    def _objects(self, picture: Picture, masks: list[str], wanted: bool) -> dict[str, list[tuple[str, Label]]]:
        """Return spoken name -> (mask, label) of the usable ones; the others are counted where they are wanted."""
        labels = self.rules.labels.get(picture.dataset, {})
        objects: dict[str, list[tuple[str, Label]]] = defaultdict(list)
        for mask in dict.fromkeys(masks):
            self._refuse_leaving(mask)
            class_id = names.mask_class(mask, picture)
            label = labels.get(class_id) if class_id else None
            if label is not None and label.usable:
                objects[label.spoken].append((mask, label))
            elif wanted and self.choice.wants(picture, names.stem(mask)):
                kind = "unusable label" if class_id else "unusable name"
                self.findings.leave_out(kind, f"{self.path}, {mask}")
        return objects

    def _see_case(self, group: str, case: str) -> None:
        # Slices of a case mostly follow each other.
        if case != self.case:
            self.case, self.case_rank = case, case_rank(self.rules.seed, case)
        seen = (self.case_rank, case)
        low, high = self.extremes.get(group, (seen, seen))
        self.extremes[group] = (min(low, seen), max(high, seen))

    def _choose(self, group: str, image: str, picture: Picture, objects: dict[str, list[tuple[str, Label]]]) -> None:
        chosen: list[list[tuple[str, Label]]] = []
        for found in objects.values():
            wanted = [[one] for one in found if self.choice.wants(picture, names.stem(one[0]))]
            several = len(found) > 1 and f"{self.path}, {found[0][0]}"
            if wanted and several and self.rules.merge:
                self.findings.note(SEVERAL, several, len(found))
                chosen.append(sorted(found))
            elif several and self.rules.skip_several:
                self.findings.leave_out(SEVERAL, several, len(wanted))
            else:
                chosen += wanted
        for found in chosen:
            self._push(group, image, picture, found)

    def _push(self, group: str, image: str, picture: Picture, found: list[tuple[str, Label]]) -> None:
        heap, bound = self.heaps[group], self.window.bound
        first = names.stem(found[0][0])
        place = rank(self.rules.seed, "sa_med2d", first)
        full = bound is not None and len(heap) == bound
        after = self.window.after.get(group)
        if (full and place > -heap[0][0]) or (after is not None and place < after.rank):
            return
        if self.rules.absent is not None and self.rules.absent(image):
            self.missing[group].append(place)
            self.first_missing[group] = min(self.first_missing.get(group, (place, image)), (place, image))
            return
        candidate = Candidate(place, first, image, tuple(mask for mask, _ in found), picture, found[0][1])
        if after is not None and candidate <= after:
            return
        if full:
            heapq.heappushpop(heap, (-place, candidate))
        else:
            heapq.heappush(heap, (-place, candidate))

    def _refuse_leaving(self, name: str) -> None:
        # `relative_name` decides; most of millions of names cannot be suspect.
        suspect = ".." in name or "\\" in name or "\0" in name or name.startswith("/") or name[1:2] == ":" or not name
        if suspect or len(name) > _SURELY_SHORT or not name.isascii():
            relative_name(name, f"{self.path}, {shown(name)}")


def _once(candidates: Iterable[Candidate]) -> list[Candidate]:
    """By rank, and of a mask that the file lists twice only one."""
    return list({candidate.sample_id: candidate for candidate in sorted(candidates)}.values())
