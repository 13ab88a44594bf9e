"""The published raw layouts by name, and the published datasets that come in them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from unimed_model.closed import Closed
from unimed_model.data.readers import medmnist, medqa, mpx, pubmedqa, slake_questions, slake_regions
from unimed_model.data.readers.request import ImageOptions, NoOptions, Request
from unimed_model.data.sample import Samples


@dataclass(frozen=True, slots=True)
class Layout:
    """One raw format: its task, its options, whether a folder holds it, and its reader."""

    task: str
    options: type[Closed]
    holds: Callable[[Path, Any], bool]
    read: Callable[[Request, Any], Samples]


@dataclass(frozen=True, slots=True)
class Published:
    """A published dataset: its layout, its default folder under a data root, and the layout's options."""

    layout: str
    folder: str
    options: Mapping[str, Any] = field(default_factory=dict)


LAYOUTS: Mapping[str, Layout] = MappingProxyType(
    {
        "medqa": Layout("QA", NoOptions, medqa.holds, medqa.read),
        "pubmedqa": Layout("QA", NoOptions, pubmedqa.holds, pubmedqa.read),
        "slake_vqa": Layout("VQA", ImageOptions, slake_questions.holds, slake_questions.read),
        "slake_rec": Layout("REC", slake_regions.RegionOptions, slake_regions.holds, slake_regions.read),
        "slake_reg": Layout("REG", slake_regions.RegionOptions, slake_regions.holds, slake_regions.read),
        "mpx_single": Layout("RG", mpx.MPxOptions, mpx.holds, mpx.read),
        "medmnist": Layout("CLS", medmnist.MedMNISTOptions, medmnist.holds, medmnist.read),
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
