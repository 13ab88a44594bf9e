"""What a reader is asked, and the checks that every reader ends with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from unimed_model.closed import Closed
from unimed_model.data.files import note_absent
from unimed_model.data.findings import Findings
from unimed_model.data.images import ImageFile
from unimed_model.data.sample import Sample, Samples, frozen
from unimed_model.data.splits import Lists
from unimed_model.errors import UserError

_LISTED = 3


class LayoutOptions(Closed):
    """Options of every layout.

    Attributes:
        restricted: whether the licence forbids passing the text on (see `Sample.restricted`).
    """

    restricted: bool = False


class ImageOptions(LayoutOptions):
    """Options of every layout whose images are files.

    Attributes:
        missing_images: `error` (default), or `skip` to leave out and count the samples without image file.
    """

    missing_images: Literal["error", "skip"] = "error"


@dataclass(frozen=True, slots=True)
class Request:
    """Which samples to read.

    Attributes:
        dataset: name the samples will carry.
        task: one of `TASKS`.
        root: folder in the published layout.
        split: name of the split.
        images: False to read annotations alone: no image file need exist.
        language: `en`, another language code, or `all`.
        seed: of a split that is drawn, where the dataset has no published one.
        lists: of an earlier preparation, which a drawn split keeps to unless the root holds lists of its own.
        restricted: what the samples say of themselves.
    """

    dataset: str
    task: str
    root: Path
    split: str
    images: bool
    language: str
    seed: int
    lists: Lists | None = None
    restricted: bool = False

    def sample(self, *, meta: Mapping[str, Any], **fields: Any) -> Sample:
        """Return a sample of this dataset, task and split; the fields are those of `Sample`, lists in `meta` tuples."""
        return Sample(
            dataset=self.dataset,
            task=self.task,
            split=self.split,
            restricted=self.restricted,
            meta={key: frozen(value) for key, value in meta.items()},
            **fields,
        )

    def require_split(self, valid: Sequence[str]) -> None:
        """Raise `UserError` unless the split is one of `valid`."""
        if self.split not in valid:
            raise UserError(f"{self.dataset} has no split {self.split!r}; it has {', '.join(valid)}.")

    def require_english(self) -> None:
        """Raise `UserError` when another language is asked of a dataset that is in English alone."""
        if self.language not in ("en", "all"):
            raise UserError(f"{self.dataset} is in English only; language={self.language!r} has no samples.")


def finish(request: Request, samples: Sequence[Sample], findings: Findings, missing: str = "error") -> Samples:
    """Return the samples after a check that their image files exist.

    Args:
        request: with `images=False` nothing is checked.
        samples: what was read.
        findings: what was found wrong so far; missing images are added.
        missing: `error`, or `skip` to leave out and count samples without image file.

    Raises:
        UserError: image files are missing and `missing` is `error`; counts them and lists the first.
    """
    absent = _absent(samples) if request.images else {}
    if absent and missing == "error":
        raise missing_images(request.dataset, list(absent))
    kept = [sample for sample in samples if _path(sample) not in absent]
    for path in absent:
        note_absent(path)
    if absent:
        findings.leave_out("missing image", str(next(iter(absent))), len(samples) - len(kept))
    return Samples(kept, findings)


def missing_images(dataset: str, paths: Sequence[Path]) -> UserError:
    """Return the error that counts missing image files and lists the first of them."""
    files = "image file is" if len(paths) == 1 else "image files are"
    listed = ", ".join(map(str, paths[:_LISTED])) + (", …" if len(paths) > _LISTED else "")
    return UserError(
        f"{dataset}: {len(paths)} {files} missing ({listed}); complete the download, leave their samples out with "
        "--skip-missing (missing_images='skip'), or ask for annotations alone (images=False)."
    )


def _path(sample: Sample) -> Path | None:
    return sample.image_source.path if isinstance(sample.image_source, ImageFile) else None


def _absent(samples: Sequence[Sample]) -> dict[Path, None]:
    paths = dict.fromkeys(path for sample in samples if (path := _path(sample)) is not None)
    return {path: None for path in paths if not path.is_file()}
