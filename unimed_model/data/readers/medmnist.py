"""MedMNIST archives (CLS): one `.npz` per dataset and size, read without the `medmnist` package.

`<flag>.npz` holds 28 x 28 images, `<flag>_64.npz`, `_128` and `_224` larger ones, with equal indices; each
has `{train,val,test}_{images,labels}`, images `(n, height, width[, 3])` uint8 and labels `(n, 1)`. Class
names and the sentence of the instruction are Appendix C's for published flags; a dataset declared by a user
states its own, so that its pictures are never given another dataset's classes. The files lie in the root, or in
`.medmnist/` there, where that package puts its downloads.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

from pydantic import Field

from unimed_model.data.arrays import array_header, array_names, load_array
from unimed_model.data.files import note
from unimed_model.data.findings import Findings
from unimed_model.data.images import ImageArray
from unimed_model.data.readers.request import LayoutOptions, Request, finish
from unimed_model.data.sample import Samples
from unimed_model.data.templates import classification_instruction
from unimed_model.errors import UserError

if TYPE_CHECKING:
    import numpy as np

SIZES = (28, 64, 128, 224)
SPLITS = ("train", "val", "test")
_FOLDERS = (".medmnist", ".")


class Labels(NamedTuple):
    """Class names in label order, and the sentence that asks for them."""

    prompt: str
    classes: tuple[str, ...]


PUBLISHED = {
    "dermamnist": Labels(
        "Which category does this multi-source dermatoscopic image of common pigmented skin lesions belong to",
        (
            "actinic keratoses and intraepithelial carcinoma",
            "basal cell carcinoma",
            "benign keratosis-like lesions",
            "dermatofibroma",
            "melanoma",
            "melanocytic nevi",
            "vascular lesions",
        ),
    ),
    "organsmnist": Labels(
        "Which category does this CT image belong to",
        (
            "bladder",
            "left femur",
            "right femur",
            "heart",
            "left kidney",
            "right kidney",
            "liver",
            "left lung",
            "right lung",
            "pancreas",
            "spleen",
        ),
    ),
}


class MedMNISTOptions(LayoutOptions):
    """Which archive to read and what its labels mean.

    Attributes:
        flag: start of the file name.
        size: pixels of a side; the largest present when None.
        classes: names in label order; needed for a flag that is not published.
        prompt: start of the instruction, without ":" and classes; needed likewise.
    """

    flag: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
    size: Literal[28, 64, 128, 224] | None = None
    classes: Annotated[tuple[str, ...], Field(min_length=2)] | None = None
    prompt: str | None = None


def holds(root: Path, options: MedMNISTOptions) -> bool:
    """Say whether the folder holds an archive of the flag."""
    return bool(_archives(root, options.flag))


def read(request: Request, options: MedMNISTOptions) -> Samples:
    """Return the images of a split in file order; no image is decoded before it is opened.

    Raises:
        UserError: an unknown split, no archive of the flag or size, a damaged archive or one without the six
            arrays, a label without class name.
    """
    request.require_split(SPLITS)
    request.require_english()
    labels = _labels(request, options)
    path = _archive(request, options)
    note(path)
    images, targets = f"{request.split}_images", f"{request.split}_labels"
    _check_arrays(path)
    numbers = _numbers(path, targets, len(labels.classes))
    _check_images(path, images, len(numbers))
    instruction = classification_instruction(labels.prompt, labels.classes)
    samples = [
        request.sample(
            sample_id=f"{request.split}-{index}",
            image_id=f"{request.split}-{index}",
            patient_id=None,
            instruction=instruction,
            answer=labels.classes[label],
            meta={"label": label, "classes": labels.classes},
            image_source=ImageArray(path, images, index),
        )
        for index, label in enumerate(numbers)
    ]
    return finish(request, samples, Findings())


def _labels(request: Request, options: MedMNISTOptions) -> Labels:
    known = PUBLISHED.get(options.flag)
    prompt = options.prompt or (known.prompt if known else None)
    classes = options.classes or (known.classes if known else None)
    if prompt is None or classes is None:
        lacking = "prompt" if prompt is None else "classes"
        raise UserError(
            f"{request.dataset}: {options.flag!r} is not a published MedMNIST flag, so the options must "
            f"state its {lacking}."
        )
    if len(set(classes)) != len(classes):
        raise UserError(f"{request.dataset}: a class name occurs twice in {', '.join(classes)}.")
    return Labels(prompt, classes)


def _archives(root: Path, flag: str) -> dict[int, Path]:
    names = {size: f"{flag}.npz" if size == 28 else f"{flag}_{size}.npz" for size in SIZES}
    paths = {
        size: root / folder / name
        for folder in _FOLDERS
        for size, name in names.items()
        if (root / folder / name).is_file()
    }
    return dict(sorted(paths.items()))


def _archive(request: Request, options: MedMNISTOptions) -> Path:
    present = _archives(request.root, options.flag)
    if not present:
        raise UserError(f"{request.dataset}: {request.root} holds no {options.flag}.npz, _64, _128 or _224.")
    size = options.size or max(present)
    if size not in present:
        sizes = ", ".join(map(str, present))
        raise UserError(f"{request.dataset}: {request.root} holds no archive of size {size}; it holds {sizes}.")
    return present[size]


def _check_arrays(path: Path) -> None:
    needed = [f"{split}_{kind}" for split in SPLITS for kind in ("images", "labels")]
    missing = sorted(set(needed) - array_names(path))
    if missing:
        raise UserError(f"{path} lacks {', '.join(missing)}; a MedMNIST file has {', '.join(needed)}.")


def _numbers(path: Path, key: str, classes: int) -> list[int]:
    labels: np.ndarray = load_array(path, key)
    if labels.ndim not in (1, 2) or labels.size != len(labels) or labels.dtype.kind not in "iu":
        raise UserError(f"{path}: {key} must hold one whole number per image, not shape {labels.shape}.")
    numbers = [int(label) for label in labels.ravel()]
    wrong = [index for index, number in enumerate(numbers) if not 0 <= number < classes]
    if wrong:
        raise UserError(f"{path}: {key}[{wrong[0]}] is {numbers[wrong[0]]}, but there are {classes} classes, from 0.")
    return numbers


def _check_images(path: Path, key: str, count: int) -> None:
    shape, dtype = array_header(path, key)
    colour = len(shape) == 4 and shape[3] == 3
    if dtype != "uint8" or not (len(shape) == 3 or colour) or shape[0] != count or 0 in shape[1:3]:
        raise UserError(f"{path}: {key} must be {count} images (height, width[, 3]) of uint8, not {shape} of {dtype}.")
