"""SA-Med2D-20M as published: `images/`, `masks/`, `SAMed2D_v1.json` and the names of its classes.

Regions are chosen by names alone (`sa_med2d_scan`, `sa_med2d_choice`); then masks are opened in the order of their
ranks, and those that are missing, empty or of another shape than their image are counted and the next take their place.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from unimed_model.data import splits
from unimed_model.data.boxes import union
from unimed_model.data.files import note, relative_name
from unimed_model.data.findings import Findings
from unimed_model.data.images import ImageFile
from unimed_model.data.progress import progress_bar
from unimed_model.data.readers.regions import Region, ambiguous, region_samples, size_or_finding
from unimed_model.data.readers.request import Request
from unimed_model.data.readers.sa_med2d import names
from unimed_model.data.readers.sa_med2d.choice import Drawn, Listed, moved_cases
from unimed_model.data.readers.sa_med2d.masks import SAMed2DOptions, usable_box
from unimed_model.data.readers.sa_med2d.names import GROUPS
from unimed_model.data.readers.sa_med2d.scan import Candidate, Rules, Scan, Window, scan
from unimed_model.data.sample import Samples
from unimed_model.data.splits import RANKS

MASKS = "SAMed2D_v1.json"
CLASSES = "SAMed2D_v1_class_mapping_id.json"
_MOST_HELD = 200_000


class PublishedForm:
    """The published form in a folder, read for one request."""

    def __init__(self, folder: Path, request: Request, options: SAMed2DOptions) -> None:
        self.folder, self.request, self.options = folder, request, options
        self.path = folder / MASKS
        self.rules = Rules(
            seed=request.seed,
            labels=names.read_labels(folder / CLASSES, generic=options.labels == "all"),
            skip_several=ambiguous(request.task, options),
            merge=options.instances == "merge",
            absent=self._absent if request.images and options.missing_images == "skip" else None,
        )
        self.findings = Findings()

    def read(self) -> Samples:
        """Return the samples of the split, by mask name.

        Raises:
            UserError: a missing or damaged file, a missing image, a name that leaves the folder.
        """
        note(self.folder)
        lists = splits.listed(self.request.root) or splits.listed(self.folder) or self.request.lists
        regions = self._drawn() if lists is None else self._listed(lists)
        ordered = sorted(regions, key=lambda region: region.sample_id)
        return region_samples(self.request, self.options, ordered, self.findings)

    def _listed(self, lists: splits.Lists) -> list[Region]:
        listed = Listed(lists, self.request.split)
        found = scan(self.path, listed, self.rules, Window(bound=None))
        self.findings = found.findings
        for unit in sorted(listed.units - listed.seen):
            self.findings.leave_out("listed, but not in the files", f"{self.request.split}: {unit}")
        regions: list[Region] = []
        for group, candidates in found.kept.items():
            self._take(candidates, regions, len(regions) + len(candidates))
            self._count_missing(found, group, RANKS)
        return regions

    def _drawn(self) -> list[Region]:
        options, request = self.options, self.request
        quota = options.per_modality_train if request.split == "train" else options.per_modality_test
        # A few more, so that those with an unusable mask seldom cost a second pass.
        bound = quota + quota // 8 + 16 if request.images else quota
        window = Window(bound)
        choice = Drawn(request.seed, request.split)
        found = scan(self.path, choice, self.rules, window)
        moved = moved_cases(found)
        if moved:
            choice = replace(choice, moved=moved)
            found = scan(self.path, choice, self.rules, window)
        self.findings = found.findings
        regions: dict[str, list[Region]] = {group: [] for group in GROUPS}
        while True:
            for group, candidates in found.kept.items():
                limit = self._take(candidates, regions[group], quota)
                self._count_missing(
                    found, group, candidates[-1].rank if limit == RANKS and group in found.full else limit
                )
            if not any(len(regions[group]) < quota for group in found.full):
                return regions["ct"] + regions["mr"]
            after = {group: candidates[-1] for group, candidates in found.kept.items() if candidates}
            bound = max(bound, min(2 * bound, _MOST_HELD))
            window = Window(bound, {**window.after, **after})
            found = scan(self.path, choice, self.rules, window)

    def _take(self, candidates: list[Candidate], regions: list[Region], quota: int) -> int:
        """Append the regions of candidates with a usable mask until there are `quota`; return the rank reached."""
        if len(regions) >= quota:
            return 0
        for candidate in progress_bar(candidates, desc="masks", unit="mask"):
            region = self._region(candidate)
            if region is not None:
                regions.append(region)
            if len(regions) >= quota:
                return candidate.rank
        return RANKS

    def _count_missing(self, found: Scan, group: str, limit: int) -> None:
        """Count the regions below a rank that others took the place of because their image is missing."""
        count = sum(place < limit for place in found.missing[group])
        if count:
            self.findings.leave_out("missing image", str(self.folder / found.first_missing[group][1]), count)

    def _region(self, candidate: Candidate) -> Region | None:
        where = f"{self.path}, {candidate.masks[0]}"
        image = ImageFile(self.folder / relative_name(candidate.image, where))
        size, pixels = None, None
        # Without its image a region keeps its place: `region_samples` counts and lists what is missing.
        if self.request.images and image.path.is_file():
            size = size_or_finding(image, self.options, self.findings)
            if size is None:
                return None
            paths = [self.folder / relative_name(mask, where) for mask in candidate.masks]
            found = [usable_box(path, size, self.options.inclusive, self.findings) for path in paths]
            boxes = [box for box in found if box is not None]
            if not boxes:
                return None
            pixels = union(boxes)
        facts = {"instances": len(candidate.masks), "masks": candidate.masks} if len(candidate.masks) > 1 else {}
        picture = candidate.picture
        return Region(
            image=image,
            size=size,
            name=candidate.label.spoken,
            pixels=pixels,
            where=where,
            sample_id=candidate.sample_id,
            image_id=picture.stem,
            patient_id=picture.case,
            meta={
                "label": candidate.label.raw,
                "mask": candidate.masks[0],
                "modality": picture.modality,
                "source": picture.dataset,
                "slice": picture.place,
                **facts,
            },
        )

    def _absent(self, image: str) -> bool:
        return not (self.folder / relative_name(image, f"{self.path}, {image}")).is_file()
