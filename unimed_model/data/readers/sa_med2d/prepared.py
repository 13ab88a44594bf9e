"""SA-Med2D as Uni-Med prepared it: `regions_small_{train,test}/{modality}/<id>.json` beside `images_small_...`.

Each file is a list of one-key objects `{name: [x, y, w, h]}` in pixels, as Slake's. It is read whole and in the order
of the names; its splits are its own.
"""

from collections.abc import Iterator
from pathlib import Path

from unimed_model.data.files import note
from unimed_model.data.images import ImageFile
from unimed_model.data.readers.regions import Region, named_boxes
from unimed_model.data.readers.request import Request
from unimed_model.data.readers.sa_med2d import names


def prepared_regions(folder: Path, request: Request) -> Iterator[Region]:
    """Yield every region of a split by file name and entry.

    Raises:
        UserError: a damaged file; names it.
    """
    from tqdm import tqdm

    annotations = folder / f"regions_small_{request.split}"
    pictures = folder / f"images_small_{request.split}"
    note(annotations)
    paths = sorted(annotations.glob("*/*.json"))
    for path in tqdm(paths, desc=request.dataset, unit="file", delay=2, leave=False):
        modality = path.parent.name
        note(path.parent)
        image = ImageFile(pictures / modality / f"{path.stem}.png")
        picture = names.picture(f"{path.stem}.png")
        for index, (name, pixels) in enumerate(named_boxes(path)):
            yield Region(
                image=image,
                size=None,
                name=name,
                pixels=pixels,
                where=f"{path}, object {name!r}",
                sample_id=f"{modality}/{path.stem}-{index}",
                # Numbers may start anew in each folder; published names are the same image everywhere.
                image_id=picture.stem if picture else f"{pictures.name}/{modality}/{path.stem}",
                patient_id=picture.case if picture else None,
                meta={"modality": modality},
            )
