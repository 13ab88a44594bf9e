"""The published raw layouts by name, and the published datasets that come in them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from unimed_model.data.readers import medmnist, medqa, mpx, pubmedqa, slake_questions
from unimed_model.data.readers import slake_regions as regions
from unimed_model.data.readers.request import ImageOptions, LayoutOptions, Request
from unimed_model.data.sample import Samples


@dataclass(frozen=True, slots=True)
class Layout:
    """One raw format: how to tell that a folder holds it, and how to read it.

    Attributes:
        task: of its samples; None where the files tell (`task_in`).
        options: what may be chosen.
        holds: whether a folder holds it.
        read: samples of a split.
        splits: those that partition the dataset; a reader may know further ones, which overlap with these.
        drawn: what is drawn into splits that are not published: the attribute of `Sample` that names the unit.
        task_in: reads the task off the files; called with the folder, the dataset's name and the options.
    """

    task: str | None
    options: type[LayoutOptions]
    holds: Callable[[Path, Any], bool]
    read: Callable[[Request, Any], Samples]
    splits: tuple[str, ...] = ("train", "test")
    drawn: Literal["image_id", "sample_id"] | None = None
    task_in: Callable[[Path, str, Any], str] | None = None


@dataclass(frozen=True, slots=True)
class Published:
    """A published dataset: its layout, its default folder under a data root, and the layout's options."""

    layout: str
    folder: str
    options: Mapping[str, Any] = field(default_factory=dict)


LAYOUTS: Mapping[str, Layout] = MappingProxyType(
    {
        "medqa": Layout("QA", LayoutOptions, medqa.holds, medqa.read, medqa.SPLITS),
        "pubmedqa": Layout("QA", LayoutOptions, pubmedqa.holds, pubmedqa.read),
        "slake_vqa": Layout("VQA", ImageOptions, slake_questions.holds, slake_questions.read, drawn="image_id"),
        "slake_rec": Layout("REC", regions.RegionOptions, regions.holds, regions.read, drawn="image_id"),
        "slake_reg": Layout("REG", regions.RegionOptions, regions.holds, regions.read, drawn="image_id"),
        "mpx_single": Layout("RG", mpx.MPxOptions, mpx.holds, mpx.read),
        "medmnist": Layout("CLS", medmnist.MedMNISTOptions, medmnist.holds, medmnist.read, medmnist.SPLITS),
    }
)
"""Name of a layout -> how to read it."""

PUBLISHED: Mapping[str, Published] = MappingProxyType(
    {
        "medqa": Published("medqa", "medqa"),
        "pubmedqa": Published("pubmedqa", "pubmedqa"),
        "slake_vqa": Published("slake_vqa", "slake"),
        "slake_rec": Published("slake_rec", "slake"),
        "slake_reg": Published("slake_reg", "slake"),
        "mpx_single": Published("mpx_single", "mpx"),
        "dermamnist": Published("medmnist", "medmnist", {"flag": "dermamnist"}),
        "organsmnist": Published("medmnist", "medmnist", {"flag": "organsmnist"}),
    }
)
"""Name of a dataset of the paper -> where and how it comes, in the order of the paper's Table 4."""
