"""SA-Med2D as Uni-Med prepared it: `regions_small_{train,test}/{modality}/<id>.json` beside `images_small_...`.

Each file is a list of one-key objects `{name: [x, y, w, h]}` in pixels, as Slake's. It is read whole and in the order
of the names, but for names that are of no use; its splits are its own.
"""

from collections.abc import Iterator
from pathlib import Path

from unimed_model.data.files import note, shown
from unimed_model.data.findings import Findings
from unimed_model.data.images import ImageFile
from unimed_model.data.progress import progress_bar
from unimed_model.data.readers.regions import Region, named_boxes
from unimed_model.data.readers.request import Request
from unimed_model.data.readers.sa_med2d import names
from unimed_model.data.readers.sa_med2d.masks import SAMed2DOptions


def prepared_regions(folder: Path, request: Request, options: SAMed2DOptions, findings: Findings) -> Iterator[Region]:
    """Yield the regions of a split by file name and entry; what is left out is counted.

    Raises:
        UserError: a damaged file; names it.
    """
    annotations = folder / f"regions_small_{request.split}"
    pictures = folder / f"images_small_{request.split}"
    note(annotations)
    paths = sorted(annotations.glob("*/*.json"))
    for path in progress_bar(paths, desc=request.dataset, unit="file"):
        modality = path.parent.name
        note(path.parent)
        image = ImageFile(pictures / modality / f"{path.stem}.png")
        picture = names.picture(f"{path.stem}.png")
        for index, (label, pixels) in enumerate(named_boxes(path)):
            where = f"{path}, object {shown(label)}"
            if not names.usable(label, generic=options.labels == "all"):
                findings.leave_out("unusable label", where)
                continue
            yield Region(
                image=image,
                size=None,
                name=names.spoken(label),
                pixels=pixels,
                where=where,
                sample_id=f"{modality}/{path.stem}-{index}",
                # Numbers may start anew in each folder; published names are the same image everywhere.
                image_id=picture.stem if picture else f"{pictures.name}/{modality}/{path.stem}",
                patient_id=picture.case if picture else None,
                meta={"label": label, "modality": modality},
            )
