"""SA-Med2D-20M (REC, REG): boxes around the masks of CT and MR images, in one of three forms.

Published: `images/`, `masks/`, `SAMed2D_v1.json` (image -> masks) and `SAMed2D_v1_class_mapping_id.json`, in the root
or in `SAMed2Dv1/`. Splits are drawn: `per_modality_train` and `per_modality_test` regions of CT and as many of MR. REC
and REG draw by the same ranks from the same cases. With `missing_images="skip"` the images that are there are drawn
from; with `images=False` no mask is opened, and regions are drawn by name alone.

Uni-Med's: `images_small_{train,test}/{modality}/<id>.png` and `regions_small_{train,test}/{modality}/<id>.json`.

SAM-Med2D's `data_demo`: `image2label_train.json`, `label2image_test.json`.
"""

from pathlib import Path

from unimed_model.data import splits
from unimed_model.data.files import unpacked
from unimed_model.data.findings import Findings
from unimed_model.data.readers.regions import region_samples
from unimed_model.data.readers.request import Request
from unimed_model.data.readers.sa_med2d.choice import RULE
from unimed_model.data.readers.sa_med2d.demo import FILES, demo_regions
from unimed_model.data.readers.sa_med2d.masks import SAMed2DOptions
from unimed_model.data.readers.sa_med2d.prepared import prepared_regions
from unimed_model.data.readers.sa_med2d.published import MASKS, PublishedForm
from unimed_model.data.sample import Samples
from unimed_model.errors import AbsentError

__all__ = ["RULE", "SAMed2DOptions", "holds", "read"]

_FOLDERS = ("SAMed2Dv1", "SAMed2Dv1/SAMed2Dv1", "raw/SAMed2Dv1")


def holds(root: Path, _: SAMed2DOptions) -> bool:
    """Say whether the folder holds SA-Med2D in one of its forms."""
    markers = [MASKS, *FILES.values(), *(f"regions_small_{split}" for split in splits.SPLITS)]
    return any(unpacked(root, marker, *_FOLDERS) for marker in markers)


def read(request: Request, options: SAMed2DOptions) -> Samples:
    """Return one sample per region of a split, by mask name or, in Uni-Med's form, by file and entry.

    Raises:
        UserError: an unknown split, a missing or damaged file, a missing image, a name that leaves the root.
    """
    request.require_english()
    request.require_split(splits.SPLITS)
    published = unpacked(request.root, MASKS, *_FOLDERS)
    if published is not None:
        return PublishedForm(published, request, options).read()
    findings = Findings()
    prepared = unpacked(request.root, f"regions_small_{request.split}")
    if prepared is not None:
        return region_samples(request, options, prepared_regions(prepared, request, options, findings), findings)
    demo = unpacked(request.root, FILES[request.split])
    if demo is not None:
        return region_samples(request, options, demo_regions(demo, request, options, findings), findings)
    raise AbsentError(
        f"{request.dataset}: {request.root} holds none of {MASKS}, regions_small_{request.split}/ and "
        f"{FILES[request.split]}."
    )
